"""The annotation page in a real Chromium: whole jobs by keys, drag and touch, and what may go wrong on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, sync_playwright

from annotate_site import LINK, TOKEN, Site, chromium, fill, graded, site
from hafs.annotate.web.security import hash_password
from hafs.store import open_store

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
WATCH = "window.broken = []; addEventListener('securitypolicyviolation', (e) => broken.push(e.violatedDirective))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    path = chromium()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page of a site as somebody; afterwards nothing was asked of anybody else and no policy was broken."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def visited(of: Site | str, name: str = "ann", **options: Any) -> Page:
        address = of if isinstance(of, str) else of.address
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(60_000)
        context.add_init_script(WATCH)
        contexts.append(context)
        context.on("request", lambda r: None if r.url.startswith(address) else wrong.append(r.url))
        context.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        context.on("weberror", lambda e: wrong.append(str(e.error)))
        page = context.new_page()
        page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
        page.goto(f"{address}/?token={TOKEN}&name={name}")
        page.wait_for_selector("#item, .figures, .enter form")
        page.bring_to_front()
        until(page, "document.hasFocus()")
        until(page, "!document.querySelector('#item') || typeof placed === 'function'")  # the script is there, too
        return page

    yield visited
    for context in contexts:
        for page in context.pages:
            wrong += page.evaluate("window.broken ?? []")
        context.close()
    assert wrong == []


def at(page: Page, position: int | None) -> None:
    """Wait for an item by its number, or for the end."""
    page.wait_for_selector(f"#item[data-position='{position}']" if position else "main > .figures")
    page.wait_for_load_state()  # after a login it is another document, which takes keys once its script has run


def card(page: Page, text: str) -> Locator:
    """The card with a text."""
    return page.locator(".card", has=page.locator(".rendered", has_text=text))


def letters(page: Page) -> dict[int, str]:
    """The letter of the card of each grade."""
    found = page.evaluate("letters().map((l) => [$(`#card-${l} .rendered`).textContent.match(/grade (\\d)/)[1], l])")
    return {int(grade): letter for grade, letter in found}


def digits(page: Page) -> list[str]:
    """The keys that place the cards, those of the best first."""
    return [str(ord(letter) - 64) for _, letter in sorted(letters(page).items())]


def strip(page: Page) -> str:
    """The ranking as the page shows it, such as `C›A=B`."""
    return "".join(page.locator("#strip > :not(.end)").all_inner_texts())


def keys(page: Page, text: str) -> None:
    """Press one key after the other."""
    for key in text:
        page.keyboard.press(key)


def grades(of: Site, annotation: Any) -> str:
    """An annotation's tiers as grades: `0>1=2`."""
    return ">".join("=".join(sorted(t.rsplit(" ", 1)[1] for t in tier)) for tier in of.texts(annotation))


def saved(page: Page) -> None:
    """Wait until the draft is with the server."""
    until(page, "!waiting")


def until(page: Page, holds: str, seconds: int = 60) -> None:
    """Wait until an expression holds; the page's policy forbids the way in which playwright would wait."""
    for _ in range(50 * seconds):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {holds}")


def test_ten_prompts_by_keys_alone(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(10, 4)) as of:
        page = visit(of)
        for number in range(1, 11):
            at(page, number)
            best = digits(page)
            if number % 3 == 0:  # the two in the middle tie
                keys(page, f"{best[0]}{best[1]}={best[2]}{best[3]}")
            elif number % 3 == 1:  # the last is left out
                keys(page, f"{best[0]}{best[1]}{best[2]}")
            else:  # placed the wrong way round, then the second goes down with the arrows: into a tie, and past it
                keys(page, f"{best[1]}{best[0]}{best[2]}{best[3]}{best[1]}{best[1]}")
                for _ in range(4):
                    page.keyboard.press("ArrowUp")
            page.keyboard.press("-" if number % 2 else "+")
            page.keyboard.press("Enter")
        at(page, None)
        assert "Done" in page.inner_text("h1")
        kept = of.annotations()
        said = [grades(of, a) for a in kept]
        assert said == [{0: "0>1=2>3", 1: "0>1>2", 2: "0>1>2>3"}[n % 3] for n in range(1, 11)]
        assert [a.confidence for a in kept] == ["slight" if n % 2 else "clear" for n in range(1, 11)]
        assert all(a.seconds is not None and a.seconds > 0 for a in kept)


def test_every_control_is_reached_with_tab(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(1, 4)) as of:
        page = visit(of)
        keys(page, "1")
        until(page, "placed().length === 1")
        names = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            names.add(page.evaluate("document.activeElement.dataset.do ?? document.activeElement.type ?? ''"))
            if page.evaluate("document.activeElement.matches('.primary')"):
                break
        assert {"edit", "diff", "all_bad", "cannot_judge", "skipped", "flag", "undo", "radio", "submit"} <= names
        assert page.locator(".card[tabindex='0']").count() == 1
        page.keyboard.press("Enter")
        assert "at least two" in page.inner_text("#alert")
        page.keyboard.press("Shift+Tab")
        page.locator(".card").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.label") == "B"
        keys(page, "2")
        assert "A, then B" in page.inner_text("#live")


def test_a_kept_draft_does_not_take_back_what_is_wrong(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(1, 4)) as of:
        page = visit(of)
        asked: list[Route] = []
        page.route("**/draft", lambda route: asked.append(route))
        keys(page, "1")
        until(page, "placed().length === 1")
        while not asked:
            page.wait_for_timeout(20)
        page.keyboard.press("Enter")
        assert "at least two" in page.inner_text("#alert")
        asked[0].continue_()
        saved(page)
        assert "at least two" in page.inner_text("#alert")
        keys(page, "2")
        until(page, "placed().length === 2")
        assert page.inner_text("#alert") == ""


def drag(page: Page, source: Locator, target: Locator, where: float) -> None:
    """Drag with the mouse onto a share of the target's width."""
    start, end = source.bounding_box(), target.bounding_box()
    assert start and end
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(start["x"] + 30, start["y"] + 30)
    page.mouse.move(end["x"] + end["width"] * where, end["y"] + end["height"] / 2)
    page.mouse.up()


def test_prompts_by_drag(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(4, 3)) as of:
        page = visit(of)
        ranking = page.locator("#strip")
        for number in range(1, 5):
            at(page, number)
            chip = {g: page.locator(f".chip[data-label='{letter}']") for g, letter in letters(page).items()}
            drag(page, card(page, "grade 1").locator("h2"), ranking, 0.5)
            drag(page, chip[2], chip[1], 0.95)  # behind it
            drag(page, card(page, "grade 0").locator("h2"), chip[1], 0.05)  # before it
            if number % 2:
                drag(page, chip[2], chip[1], 0.5)  # a tie
            if number == 4:
                drag(page, chip[1], page.locator(".prompt"), 0.5)  # out again
            page.get_by_role("button", name="Submit").click()
        at(page, None)
        said = [grades(of, a) for a in of.annotations()]
        assert said == ["0>1=2", "0>1>2", "0>1=2", "0>2"]


def test_prompts_on_a_phone(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(4, 3)) as of:
        page = visit(of, **PHONE)
        for number in range(1, 5):
            at(page, number)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
            of_grade = letters(page)
            for grade in range(3):
                way = "#card-{} .put" if number % 2 else ".free[data-label='{}']"
                tap(page, page.locator(way.format(of_grade[grade])), f"placed().length === {grade + 1}")
            if number == 2:
                touch_drag(page, of_grade[2], of_grade[0])
                until(page, "now.tiers.length === 2")
            if number == 3:
                tap(page, page.locator("#strip button.sign").first, "now.tiers.length === 2")
            tap(page, page.get_by_role("button", name="Submit"), f"busy || item?.dataset.position !== '{number}'")
        at(page, None)
        assert [grades(of, a) for a in of.annotations()] == ["0>1>2", "0=2>1", "0=1>2", "0>1>2"]


def tap(page: Page, target: Locator, holds: str) -> None:
    """Tap, once more where the browser took a tap that a busy machine drew out for a long press."""
    for _ in range(2):
        target.tap()
        with suppress(AssertionError):
            until(page, holds, seconds=8)
            break
    else:
        target.tap()
    until(page, holds)


def touch_drag(page: Page, source: str, target: str) -> None:
    """Drag one letter onto another with a finger."""
    boxes = [page.locator(f"#strip .chip[data-label='{of}']").bounding_box() for of in (source, target)]
    (x, y), (u, v) = [(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes if b]
    session = page.context.new_cdp_session(page)
    for kind, at_x, at_y in (("Start", x, y), ("Move", (x + u) / 2, (y + v) / 2), ("Move", u, v)):
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [{"x": at_x, "y": at_y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_undo_and_reload_in_the_middle(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(2, 3)) as of:
        page = visit(of)
        keys(page, "31=2-")
        page.keyboard.press("Enter")
        at(page, 2)
        keys(page, "2")
        keys(page, "u")
        at(page, 1)
        assert strip(page) == "C›A=B"
        assert page.is_checked("input[value=slight]")
        assert of.annotations() == []
        page.keyboard.press("Backspace")
        saved(page)
        page.reload()
        at(page, 1)
        assert strip(page) == "C›A"
        keys(page, "2")
        page.reload()  # at once: the draft goes out with the page
        at(page, 1)
        assert strip(page) == "C›A›B"
        page.keyboard.press("Enter")
        at(page, 2)
        assert strip(page) == "B"  # the draft of the second prompt
        assert len(of.annotations()) == 1 and len(of.annotations(undone=True)) == 2


def test_two_people_and_two_tabs_want_one_lease(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(1, 2), lease_seconds=60) as of:
        ann = visit(of)
        other_tab = ann.context.new_page()
        other_tab.goto(of.address)
        at(other_tab, 1)
        bob = visit(of, "bob")
        assert "nothing to rank" in bob.inner_text("h1").lower()
        of.clock[0] += 61
        bob.get_by_role("button", name="Look for more").click()
        at(bob, 1)
        keys(bob, "12")
        saved(bob)
        keys(ann, "21")
        ann.keyboard.press("Enter")
        at(ann, None)
        until(ann, "!document.querySelector('#alert').hidden")
        assert "somebody else" in ann.inner_text("#alert")
        bob.keyboard.press("Enter")
        at(bob, None)
        keys(other_tab, "12")
        other_tab.keyboard.press("Enter")
        at(other_tab, None)
        assert [a.annotator for a in of.annotations()] == ["bob"]


def test_submitting_twice_keeps_one_answer(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(2, 2)) as of:
        page = visit(of)
        twin = page.context.new_page()
        twin.goto(of.address)
        at(twin, 1)
        keys(page, "12")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        at(page, 2)
        keys(twin, "21")
        twin.keyboard.press("Enter")
        at(twin, 2)
        assert len(of.annotations()) == 1


HOSTILE = [
    "<script>alert(1)</script><img src=http://evil.example/a.png onerror=alert(2)><svg onload=alert(3)>",
    "![x](http://evil.example/b.png) [click](javascript:alert(4)) <javascript:alert(5)> http://evil.example/c",
    '```"><script>alert(6)</script>\n</code></pre><iframe src="http://evil.example/d"></iframe>\n```',
    "```asm\n</span><style>@import url(http://evil.example/e)</style>\n LDA #$00 ; <img src=x onerror=alert(7)>\n```",
    "{{ 7 * 7 }} {% raw %} ${alert(8)} <%= 7 %> hx-get='/undo' <div hx-get=/undo hx-trigger=load data-do=undo>",
    "bidi \u202e reversed \u2066 isolate \u200b zero \ufeff bom; ANSI \x1b[31mred\x1b]0;title\x07; NUL \0; \x9b31m",
    "x" * 1_000_000,
    "\n".join(["> " * 500 + "deep", "* " * 500, "[" * 5_000, "`" * 4_999, "|a|" * 2_000, "\u0301" * 1_000]),
]


def test_hostile_candidates_are_only_text(tmp_path: Path, visit: Callable[..., Page]) -> None:
    hostile = lambda i: f"Prompt {i} <script>alert(9)</script> ![p](http://evil.example/p) \u202e"  # noqa: E731
    says = lambda prompt, text: {"message": text[:200], "<b>": "<img src=x onerror=alert(10)>"}  # noqa: E731
    with site(tmp_path, [HOSTILE, HOSTILE[::-1]], prompt=hostile, candidates=8, checks=True, check=says) as of:
        page = visit(of)
        assert page.locator(".card").count() == 8
        shown = page.inner_text(".cards")
        for sign in ("U+202E", "U+2066", "U+200B", "U+FEFF", "ESC", "NUL", "U+009B", "BEL"):
            assert sign in shown
        assert "javascript:alert(4)" in shown and "{{ 7 * 7 }}" in shown and "<iframe" in shown
        assert page.locator("main :is(img, iframe, svg, style, script, [onerror], [onload], [style])").count() == 0
        assert page.locator(".card [hx-get], .answer [data-do], .answer a:not(.cut a)").count() == 0
        assert "40,000 of 1,000,000" in shown
        keys(page, "r")
        assert page.locator(".raw").first.is_visible()
        page.locator(".card").first.locator("[data-do=check]").click()
        page.wait_for_selector(".checked dl")
        keys(page, "d")
        page.wait_for_selector("#diff pre")
        page.keyboard.press("Escape")
        keys(page, "12345678")
        page.keyboard.press("Enter")
        at(page, 2)
        assert sum(map(len, of.annotations()[0].tiers)) == 8


SERVER = """
import os, signal, sys, uvicorn
from hafs.annotate.service import AnnotationService
from hafs.annotate.web.app import create_app
from hafs.store import open_store
class Service(AnnotationService):
    def submit(self, *args, **kwargs):
        made = super().submit(*args, **kwargs)
        if os.path.exists(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)  # the answer is kept, and nobody hears of it
        return made
uvicorn.run(create_app(Service(open_store(sys.argv[1])), token=sys.argv[2]), port=int(sys.argv[4]), log_level="warning")
"""


def start(*arguments: object, port: int) -> subprocess.Popen[bytes]:
    """The server in a process of its own, once it listens."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, *map(str, arguments), str(port)], env=os.environ)
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError("the server ended")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server does not listen")


def test_a_killed_server_loses_and_doubles_nothing(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path, deadly = tmp_path / "store.sqlite", tmp_path / "deadly"
    with open_store(path) as store:
        fill(store, graded(3, 3))
    server = start(path, TOKEN, deadly, port=port)
    try:
        page = visit(f"http://127.0.0.1:{port}")
        keys(page, "31")
        saved(page)
        server.send_signal(signal.SIGKILL)  # while somebody ranks
        server.wait()
        keys(page, "2")
        page.wait_for_selector("#alert:not([hidden])")
        assert "does not answer" in page.inner_text("#alert")
        deadly.touch()
        server = start(path, TOKEN, deadly, port=port)
        page.keyboard.press("Enter")  # kept, and then the server is killed before it says so
        server.wait()
        page.wait_for_selector("#alert:not([hidden])")
        with open_store(path) as store:
            assert len(list(store.annotations())) == 1
        deadly.unlink()
        server = start(path, TOKEN, deadly, port=port)
        assert strip(page) == "C›A›B"
        page.keyboard.press("Enter")
        at(page, 2)
        page.reload()
        at(page, 2)
        with open_store(path) as store:
            (only,) = store.annotations()
        assert [tier[0] for tier in only.tiers] == [only.shown[i] for i in (2, 0, 1)]
    finally:
        server.kill()
        server.wait()


def test_improving_flagging_and_the_other_answers(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(5, 2), reveal=True) as of:
        page = visit(of)
        keys(page, "e")
        page.fill("#better", "a better one")
        page.get_by_role("button", name="Keep it").click()
        assert "Improved" in page.inner_text("#card-A")
        saved(page)
        page.reload()
        keys(page, "12")
        page.keyboard.press("Enter")
        at(page, 2)
        page.locator(".last summary").click()
        assert "model-" in page.inner_text(".last table")
        keys(page, "f")
        page.fill("#note", "unclear")
        page.get_by_role("button", name="Flag it").click()
        for number, key in ((3, "a"), (4, "c"), (5, "s")):
            at(page, number)
            assert "model-" not in page.inner_text("#item")
            keys(page, key)
        until(page, "!busy")
        kept = of.annotations()
        assert [a.answer for a in kept][:4] == ["ranked", "flagged", "all_bad", "cannot_judge"]
        assert kept[1].note == "unclear"
        written = of.store.get_candidate(kept[0].details["edited"]["candidate"])
        assert written is not None and written.text == "a better one"


def test_a_or_b_and_ratings(tmp_path: Path, visit: Callable[..., Page]) -> None:
    for folder in ("ab", "rate"):
        (tmp_path / folder).mkdir()
    with site(tmp_path / "ab", graded(2, 2), mode="ab", models=["model-0", "model-1"]) as of:
        page = visit(of)
        card(page, "grade 1").locator(".answer").click()
        keys(page, digits(page)[0])
        page.keyboard.press("Enter")
        at(page, 2)
        keys(page, "=")
        page.keyboard.press("Enter")
        at(page, None)
        assert [grades(of, a) for a in of.annotations()] == ["0>1", "0=1"]
    with site(tmp_path / "rate", graded(2, 1), mode="rate") as of:
        page = visit(of)
        keys(page, "3")
        page.keyboard.press("Enter")
        at(page, 2)
        page.get_by_role("radio", name="mostly wrong").check()
        page.get_by_role("button", name="Submit").click()
        at(page, None)
        assert [a.value for a in of.annotations()] == [3, 2]


def faults(page: Page) -> list[str]:
    """The serious faults that axe-core finds, once no colour is on its way to another."""
    from axe_playwright_python.sync_playwright import Axe

    until(page, "document.getAnimations().length === 0")
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0].get('failureSummary', '')}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def test_no_serious_accessibility_fault(tmp_path: Path, visit: Callable[..., Page]) -> None:
    texts = graded(2, 4)
    texts[0][0] = "Some `code`.\n\n```python\ndef f(x):\n    return 'a'  # " + "long " * 60 + "\n```\n\x1b\n- a"
    with site(tmp_path, texts, reveal=True) as of:
        page = visit(of)
        assert faults(page) == []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            keys(page, "12=3-")
            assert faults(page) == []
            keys(page, "321")
            keys(page, "d")
            page.wait_for_selector("#diff pre")
            assert faults(page) == []
            page.keyboard.press("Escape")
        keys(page, "?")
        assert faults(page) == []
        page.keyboard.press("Escape")
        page.set_viewport_size({"width": 320, "height": 640})
        assert faults(page) == []
        keys(page, "12")
        page.keyboard.press("Enter")
        at(page, 2)
        page.locator(".last summary").click()
        assert faults(page) == []
        keys(page, "12")
        page.keyboard.press("Enter")
        at(page, None)
        assert faults(page) == []


def test_logging_in_with_a_password(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(1, 2), accounts={"ann": hash_password("secret of ann")}) as of:
        page = visit(of)
        assert faults(page) == []
        page.fill("#name", "ann")
        page.fill("#password", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector(".told")
        page.fill("#name", "ann")
        page.fill("#password", "secret of ann")
        page.keyboard.press("Enter")
        at(page, 1)
        keys(page, "12")
        page.keyboard.press("Enter")
        at(page, None)
        assert [a.annotator for a in of.annotations()] == ["ann"]
        page.get_by_role("button", name="Leave").click()
        page.wait_for_selector(".enter form")


def test_a_name_is_asked_for_when_the_link_has_none(tmp_path: Path, visit: Callable[..., Page]) -> None:
    with site(tmp_path, graded(1, 2)) as of:
        page = visit(of, name="")
        page.fill("#name", "Ann Other")
        page.keyboard.press("Enter")
        at(page, 1)
        assert "Ann Other" in page.inner_text(".top")
        assert LINK.split("&")[0] not in page.url
