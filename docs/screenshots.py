"""The pictures of the docs, made from a running page: `python docs/screenshots.py annotate` writes docs/images/.

The prompts and answers of the annotation page are made up here, so that its pictures need no model. Those of
`hafs open` are of a small loop that really runs.
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


LOOP = """
[generate]
candidates = 6
temperature = 0.7
max_new_tokens = 64
batch_size = 120
[score]
scorer = "asm"
[preferences]
references = "never"
[sft]
answers = 1
learning_rate = 1e-3
num_epochs = 1
batch_size = 3
gradient_accumulation_steps = 1
validation_share = 0.0
[dpo]
learning_rate = 1e-4
num_epochs = 4
nll_weight = 1.0
batch_size = 2
gradient_accumulation_steps = 1
validation_share = 0.0
[eval]
benchmarks = []
max_new_tokens = 64
[loop]
pack = "asm"
tags = ["easy"]
baseline = false
attribution = false
sft_prompts = 192
round_prompts = 32
checkpoint_prompts = 0
decision_prompts = 24
max_rounds = 2
"""
"""A small loop on the embedded model, in about ten minutes on 2 cores."""


def bench(browser: Browser) -> None:
    """The workbench while a real loop runs: pictures in the training of its second round, then it is stopped."""
    import subprocess

    from hafs.store import init_workspace
    from hafs.workbench.app import create_workbench

    with tempfile.TemporaryDirectory() as folder:
        space = init_workspace(Path(folder) / "snes")
        (space.root / "hafs.toml").write_text(LOOP)
        with space.open_store() as store:
            work = subprocess.Popen([sys.executable, "-m", "hafs", "loop", "run", "-w", str(space.root)])
            try:
                with served(create_workbench(space, store, token="pictures")) as address:
                    wait_for_round(work, space.root / "models" / "dpo-2" / "log.jsonl")
                    for look, scheme in (("", "light"), ("-dark", "dark")):
                        pictures(browser, address, contrast(store), look, scheme)
            finally:
                work.kill()
                work.wait()


def wait_for_round(work: Any, log: Path, steps: int = 8) -> None:
    """Until a training has made so many steps; ends the program when the loop ended before."""
    import time

    while not log.is_file() or len(log.read_text().splitlines()) < steps:
        if work.poll() is not None:
            sys.exit(f"the loop ended before its second round had a training of {steps} steps")
        time.sleep(0.5)


def contrast(store: Store) -> str:
    """A prompt that has right and wrong answers."""
    passed: dict[str, set[bool | None]] = {}
    of = {c.id: c.prompt_id for c in store.candidates()}
    for score in store.scores():
        passed.setdefault(of[score.candidate_id], set()).add(score.passed)
    return next(prompt for prompt, found in passed.items() if {True, False} <= found)


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
