"""The pictures of the docs, made from a running page: `python docs/screenshots.py annotate` writes docs/images/.

The prompts and answers are made up here, so that the pictures need no model.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from hafs.annotate.service import AnnotationService, Queued
from hafs.annotate.web.app import create_app
from hafs.annotate.web.gate import server_of
from hafs.config import AnnotateSettings
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt

IMAGES = Path(__file__).parent / "images"
SETTINGS = AnnotateSettings(repeats=0, overlap=0, reveal=True)  # type: ignore[call-arg]
DESKTOP, PHONE = {"width": 1360, "height": 800}, {"width": 390, "height": 844}

SYSTEM = "You write 65816 assembly for the SNES, in asar's syntax."
ASKED = {
    "Write a routine that loads the player's state from WRAM ($0E20), keeps its low five bits, and stores it at $00.": [
        "LoadPlayerState:\n    LDA.w $0E20\n    AND.b #$1F\n    STA.b $00\n    RTS",
        "LoadPlayerState:\n    LDA $0E20\n    STA $00\n    RTS",
        "LoadPlayerState:\n    ; Load the player's state\n    SEP #$20\n    LDA.w $0E20\n    AND.b #$1F  ; five bits\n"
        "    STA.b $00\n    RTS",
        "The state is loaded and stored like this:\n\n```asm\nLoadPlayerState:\n    LDA.b #$0E20    ; the address\n"
        "    STA.b $00\n    RTS\n```\n\nThe mask is not needed, because `STA.b` writes only one byte.",
    ],
    "Clear the sixteen bytes from $7E0100.": [
        "ClearBuffer:\n    LDX.w #$000F\n.loop\n    STZ.w $0100,x\n    DEX\n    BPL .loop\n    RTS",
        "ClearBuffer:\n    LDX.b #$10\n-   STZ.w $0100,x\n    DEX\n    BNE -\n    RTS",
        "ClearBuffer:\n    REP #$30\n    LDX.w #$000E\n-   STZ.w $0100,x\n    DEX : DEX\n    BPL -\n    RTS",
        "ClearBuffer:\n    LDA #$00\n    STA $7E0100\n    RTS",
    ],
    "Wait for the next vertical blank.": [
        "WaitVBlank:\n-   LDA.w $4212\n    BPL -\n    RTS",
        "WaitVBlank:\n    WAI\n    RTS",
        "WaitVBlank:\n    BIT.w $4212\n    BMI WaitVBlank\n-   BIT.w $4212\n    BPL -\n    RTS",
        "WaitVBlank:\n    LDA.w $4210\n    RTS",
    ],
}


def fill(store: Store) -> list[Prompt]:
    """The prompts with their answers."""
    prompts = [Prompt(text, system=SYSTEM) for text in ASKED]
    store.add_prompts(prompts)
    store.add_candidates(
        Candidate(prompt.id, answer, model=f"m{i}", model_name=f"hafs-coder:14b-{'sft' if i % 2 else 'dpo'}", index=i)
        for prompt in prompts
        for i, answer in enumerate(ASKED[prompt.text])
    )
    return prompts


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = server_of(app, lifespan="off", timeout_graceful_shutdown=2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()


def save(page: Page, name: str) -> None:
    """One picture, PNG."""
    IMAGES.mkdir(exist_ok=True)
    page.wait_for_timeout(250)
    page.screenshot(path=IMAGES / f"annotate-{name}.png")
    print(IMAGES / f"annotate-{name}.png")


def annotate(browser: Browser) -> None:
    """The annotation page: light, dark, on a phone, a comparison, the end."""
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "store.sqlite") as store:
        service = AnnotationService(store, SETTINGS, queued=[Queued(prompt.id) for prompt in fill(store)])
        with served(create_app(service, token="token")) as address:
            page = browser.new_page(viewport=DESKTOP, color_scheme="light")
            page.goto(f"{address}/?token=token&name=ann")
            page.wait_for_selector("#item")
            for key in "31=2+":
                page.keyboard.press(key)
            save(page, "light")
            page.keyboard.press("d")
            page.wait_for_selector("#diff .line")
            save(page, "compare")
            page.keyboard.press("Escape")
            page.keyboard.press("?")
            save(page, "keys")
            page.keyboard.press("Escape")
            page.emulate_media(color_scheme="dark")
            save(page, "dark")
            phone = browser.new_page(viewport=PHONE, color_scheme="light", device_scale_factor=2, has_touch=True)
            phone.goto(f"{address}/?token=token&name=ann")
            phone.wait_for_selector("#item")
            save(phone, "phone")
            phone.close()
            page.emulate_media(color_scheme="light")
            for number, keys in enumerate(("4", "1324", "2=31")):
                for key in (*keys, "Enter"):
                    page.keyboard.press(key)
                page.wait_for_selector(".figures" if number == 2 else f"#item[data-position='{number + 2}']")
                if number == 0:
                    page.locator(".last summary").click()
                    save(page, "reveal")
            save(page, "done")


WORK = """
import json, math, random, sys, time
from pathlib import Path
from hafs.files.activity import record_folder, record_progress, recorded
root = Path(sys.argv[1])
sys.argv = ["hafs", "loop", "run", "--sft_model", "models/sft/model", "--max-rounds", "3", "--target", "asm=0.85"]
drawn = random.Random(2)
def row(step, slow):
    rise = 1 - math.exp(-step / slow)
    right = min(1, 0.5 + 0.36 * rise + drawn.gauss(0, 0.03))
    loss, margin = 0.69 - 0.4 * rise + drawn.gauss(0, 0.03), 3.4 * rise + drawn.gauss(0, 0.2)
    return {"step": step, "loss": loss, "rewards/margins": margin, "rewards/accuracies": right}
def training(name, rows, parent, result):
    folder = root / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    about = {"kind": "dpo", "model": parent * 20, "data": parent * 20, "settings": {"beta": 0.1}}
    (folder / "run.json").write_text(json.dumps({"identity": about, "result": result}))
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + chr(10) for r in rows))
    return folder
training("dpo-1", [row(s, 60) for s in range(1, 181)], "0", {"best_step": 180, "best": {}})
rows = [row(s, 40) for s in range(1, 113)]
with recorded(root):
    record_folder(training("dpo-2", rows, "1", None))
    record_progress("generating", 96, 96, {})
    record_progress("scoring", 768, 768, {})
    record_progress("building", 96, 96, {})
    record_progress("training", 112, 180, {**rows[-1], "seconds_left": 412.0})
    time.sleep(600)
"""
"""A loop that stands still in the middle of a training: its figures are made up, as the answers are."""


def bench(browser: Browser) -> None:
    """The workbench over a made-up workspace, with a loop that runs."""
    import subprocess

    from hafs.store import init_workspace
    from hafs.types import Score
    from hafs.workbench.app import create_workbench

    with tempfile.TemporaryDirectory() as folder:
        space = init_workspace(Path(folder) / "snes")
        with space.open_store() as store:
            families = ("load and mask", "clear a buffer", "wait for the beam")
            prompts = [Prompt(t, system=SYSTEM, family=f, split="train") for t, f in zip(ASKED, families, strict=True)]
            made = [
                Candidate(p.id, text, model=f"{i % 2}" * 20, model_name=("sft", "dpo-1")[i % 2], index=i, n_tokens=40)
                for p, answers in zip(prompts, ASKED.values(), strict=True)
                for i, text in enumerate(answers)
            ]
            store.add_prompts(prompts)
            store.add_candidates(made)
            cause = ("", "", "wrong result", "does not assemble")
            store.add_scores(
                Score(c.id, "asm", "2", value=1.0 - c.index / 4, passed=c.index < 2, cause=cause[c.index]) for c in made
            )
            app = create_workbench(space, store, token="pictures")
            with served(app) as address:
                work = subprocess.Popen([sys.executable, "-c", WORK, str(space.root)])
                try:
                    for look, scheme in (("", "light"), ("-dark", "dark")):
                        pictures(browser, address, prompts[0].id, look, scheme)
                finally:
                    work.kill()
                    work.wait()


def pictures(browser: Browser, address: str, prompt: str, look: str, scheme: Any) -> None:
    """The pages that the docs show, in one light."""
    with browser.new_context(viewport=DESKTOP, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(f"{address}/?token=pictures&name=ann")
        page.wait_for_selector(".stages .current:has-text('training')")
        page.wait_for_selector(".chart")
        part = {"x": 0, "y": 0, "width": 1360, "height": 960}
        page.screenshot(path=IMAGES / f"open-now{look}.png", clip=part, full_page=True)
        if look:
            return
        for name, path in (("prompts", "prompts"), ("prompt", f"prompt?id={prompt}")):
            page.goto(f"{address}/{path}")
            page.screenshot(path=IMAGES / f"open-{name}.png")
        page.set_viewport_size(PHONE)
        page.goto(f"{address}/now")
        page.screenshot(path=IMAGES / "open-phone.png")


def main() -> None:
    """Make the pictures of the pages named on the command line."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is missing: apt-get install chromium")
    pages = {"annotate": annotate, "open": bench}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in sys.argv[1:] or pages:
            pages[name](browser)
        browser.close()


if __name__ == "__main__":
    main()
