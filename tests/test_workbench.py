"""The workbench: activities and views as plain functions, and the page in a real Chromium."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from annotate_site import TOKEN, chromium
from hafs.errors import UsageError
from hafs.evals.results import EvalResult, PromptResult
from hafs.files.activity import Activity, activities, record_progress, recorded, stop
from hafs.store import init_workspace
from hafs.store.marks import marks
from hafs.workbench.rounds import forecast
from hafs.workbench.view import OpenWorkspace, called, to_csv, to_text
from hafs.workbench.views import VIEWS, view_of
from run_hafs import hafs
from workbench_site import Desk, filled_workspace, old_training, workbench, working

HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>",
    "\u202e](javascript:alert(1)) \x00 =cmd|'/c calc'!A1 " + "long" * 300,
    '"><svg onload=window.hacked=1> {{ 7 * 7 }} </textarea></style>',
)
WATCH = "window.broken = []; addEventListener('securitypolicyviolation', (e) => broken.push(e.violatedDirective))"


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it never came")
        time.sleep(0.05)


# ---- what runs


def test_a_process_is_seen_while_it_works_and_gone_afterwards(tmp_path: Path) -> None:
    with recorded(tmp_path):
        record_progress("training", 3, 10, {"loss": 0.5, "bad": float("nan")})
        until(lambda: (found := activities(tmp_path)) and found[0].stages)
        (about,) = activities(tmp_path)
        assert about.alive and about.here and about.pid == os.getpid()
        assert about.stages[0].done == 3 and about.stages[0].figures == {"loss": 0.5}
    assert activities(tmp_path) == []


def test_a_killed_process_is_told_from_one_that_runs_and_a_stop_is_sigint(tmp_path: Path) -> None:
    with working(tmp_path) as process:
        until(lambda: any(a.stages for a in activities(tmp_path)))
        assert stop(tmp_path, activities(tmp_path)[0].id).pid == process.pid
        assert process.wait(30) == 130
    assert activities(tmp_path) == []
    with working(tmp_path) as process:
        until(lambda: activities(tmp_path))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (about,) = activities(tmp_path)
        assert not about.alive
        with pytest.raises(UsageError, match="ended"):
            stop(tmp_path, about.id)


def test_no_other_process_of_that_number_is_stopped(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        about = Activity(other.pid, os.uname().nodename, 1, "hafs train", time.time(), beat=time.time())
        (tmp_path / ".running").mkdir()
        (tmp_path / ".running" / f"{about.id}.json").write_text(json.dumps(vars(about)))
        with pytest.raises(UsageError, match="ended"):
            stop(tmp_path, about.id)
        assert other.poll() is None
    finally:
        other.kill()


# ---- the views


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A workbench over a filled workspace with hostile texts."""
    space = filled_workspace(tmp_path_factory.mktemp("bench"), 60, hostile=HOSTILE)
    old_training(space)
    with workbench(space) as found:
        yield found


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"prompt", "compare"}))
def test_every_view_is_text_and_tables(desk: Desk, name: str) -> None:
    view = view_of(OpenWorkspace(desk.space, desk.store, "ann"), name, {})
    assert view.title in to_text(view)
    assert json.loads(json.dumps(view.to_dict()))["view"] == name
    assert all(not line.startswith("=") for line in to_csv(view).splitlines())


def test_the_command_at_the_foot_of_a_page_prints_what_the_page_shows(desk: Desk) -> None:
    """Every page, with filters of its own, in a terminal: the same figures and tables."""
    with desk.space.open_store() as store:
        prompt = next(store.prompts()).id
        for name, passed in (("sft", 2), ("dpo", 3)):
            rows = [PromptResult(f"p{i}", f"prompt {i}", passed=i < passed, value=float(i < passed)) for i in range(4)]
            found = EvalResult(name, "held", tuple(rows), model=name * 4)
            run = store.start_run("eval", {"name": name, "benchmark": "held"})
            store.finish_run(run, "finished", {}, found.to_dict())
    bench = OpenWorkspace(desk.space, desk.store, getpass.getuser())
    asked = {
        "prompts": {"outcome": "failed", "text": "CLC", "token": "secret"},
        "prompt": {"id": prompt},
        "compare": {"reference": "sft", "candidate": "dpo"},
    }
    for name in sorted(VIEWS):
        view = view_of(bench, name, asked.get(name, {}))
        words = shlex.split(view.command)
        assert words[:3] == ["hafs", "open", "--show"] and "secret" not in view.command
        said = hafs(*words[1:], "-w", desk.space.root, "--json").ok().json
        assert said == json.loads(json.dumps(view.to_dict())), name


def test_nobody_gets_in_without_the_link_and_nothing_is_done_without_the_token(desk: Desk) -> None:
    opener = build_opener(HTTPCookieProcessor())

    def status(path: str, data: str | None = None, **headers: str) -> int:
        body = None if data is None else data.encode()
        try:
            with opener.open(Request(desk.address + path, body, headers)) as answer:
                assert "unsafe" not in answer.headers["content-security-policy"]
                return int(answer.status)
        except HTTPError as e:
            return e.code

    assert [status(path) for path in ("/now", "/events", "/?token=wrong", "/data.csv")] == [401] * 4
    assert status("/now", host="evil.example") == 421
    assert status(f"/?token={TOKEN}&name=ann") == 200
    assert [status(f"/{path}") for path in ("now", "data.csv", "data.json", "data.svg", "nothing")] == [200] * 4 + [404]
    assert status("/do/mark", "kind=flag", origin=desk.address) == 403
    assert status("/do/mark", "kind=flag", origin="http://evil.example") == 403


def test_the_forecast_shrinks_as_the_gains_did() -> None:
    assert "no round" in forecast([])
    assert "+2.5 points" in forecast([(1.0, 0.10, 2.0), (2.0, 0.15, 4.0)])
    assert "+0.0 points" in forecast([(1.0, 0.10, None), (2.0, 0.10, None)])


# ---- the page


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
    """Opens a page of a workbench; afterwards no policy was broken, nothing foreign asked, and no text was run."""
    pages: list[Page] = []
    wrong: list[str] = []

    def visited(desk: Desk, path: str = "now", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        context.add_init_script(WATCH)
        context.on("request", lambda r: None if r.url.startswith(desk.address) else wrong.append(r.url))
        context.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        context.on("weberror", lambda e: wrong.append(str(e.error)))
        page = context.new_page()
        page.goto(desk.link())
        page.wait_for_url("**/now")
        if path != "now":
            page.goto(desk.link(path))
        pages.append(page)
        return page

    yield visited
    for page in pages:
        wrong += page.evaluate("window.broken ?? []")
        wrong += ["a text ran"] if page.evaluate("Boolean(window.hacked)") else []
        page.context.close()
    assert wrong == []


def test_a_running_training_is_shown_live_in_two_browsers_and_stopped_from_one(
    tmp_path: Path, visit: Callable[..., Page]
) -> None:
    space = filled_workspace(tmp_path, 8)
    old_training(space)
    with workbench(space) as desk, working(space.root) as process:
        one, two = visit(desk), visit(desk)
        for page in (one, two):
            page.wait_for_selector(".stages .current:has-text('training')", timeout=60_000)
            page.wait_for_selector("svg.chart .name.ref:has-text('dpo-1')", timeout=60_000)
        before = one.inner_text(".stages .current .value >> nth=0")
        until(lambda: one.inner_text(".stages .current .value >> nth=0") != before)
        until(lambda: one.locator("svg.chart").count() >= 3)
        one.click("[data-do=stop]")
        assert process.wait(30) == 130
        two.wait_for_selector("text=Nothing runs in this workspace now", timeout=60_000)
        assert "budget of this run" not in two.inner_text("main")


def test_a_real_loop_is_watched_by_two_stopped_by_one_and_goes_on(
    tmp_path: Path, tiny_model: Path, visit: Callable[..., Page]
) -> None:
    """`hafs loop run` on a tiny model: both browsers see its stages, Stop ends it, the same command ends it."""
    rows = [
        {"text": f"word {i}", "checker": "exact", "split": split, "references": [{"name": "a", "text": "ok"}]}
        for split, n in (("train", 24), ("validation", 8))
        for i in range(n)
    ]
    space = init_workspace(tmp_path / "space")
    (space.root / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (space.root / "hafs.toml").write_text(LOOP)
    command = [sys.executable, "-m", "hafs", "loop", "run", "--model", str(tiny_model), "-w", str(space.root), "--json"]
    with workbench(space) as desk, (tmp_path / "said").open("w") as said:
        one, two = visit(desk), visit(desk)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            for page in (one, two):
                page.wait_for_selector(".stages .current:has-text('training')", timeout=120_000)
            one.click("[data-do=stop]")
            assert process.wait(60) == 130, (tmp_path / "said").read_text()
            two.wait_for_selector("text=Nothing runs in this workspace now", timeout=60_000)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
            two.wait_for_selector("text=loop run", timeout=120_000)
            assert process.wait(400) == 0, (tmp_path / "said").read_text()
        finally:
            process.kill()
            process.wait()
        one.wait_for_selector("text=Nothing runs in this workspace now", timeout=60_000)
        one.goto(desk.link("loop"))
        one.wait_for_selector("text=DPO 1")
        two.goto(desk.link("prompts"))
        assert two.locator(".rows tr").count() > 10


LOOP = """
[sft]
precision = "fp32"
num_epochs = 200
batch_size = 4
gradient_accumulation_steps = 1
validation_share = 0.0
[dpo]
precision = "fp32"
num_epochs = 2
batch_size = 2
gradient_accumulation_steps = 1
validation_share = 0.0
[generate]
candidates = 3
temperature = 1.3
max_new_tokens = 4
[eval]
benchmarks = []
max_new_tokens = 4
[loop]
prompts = "tasks.jsonl"
sft_prompts = 8
round_prompts = 8
checkpoint_prompts = 0
decision_prompts = 8
max_rounds = 1
"""
"""A loop on a tiny model: its SFT takes long enough to be stopped."""


def test_the_list_by_keys_alone(desk: Desk, visit: Callable[..., Page]) -> None:
    page = visit(desk, "prompts?outcome=failed")
    for key in "jjk":
        page.keyboard.press(key)
    row = page.locator(".rows tr:focus-within")
    about = row.get_attribute("data-candidate"), row.get_attribute("data-prompt")
    page.keyboard.press("f")
    page.wait_for_selector(".rows tr .chip:has-text('flag')")
    page.keyboard.press("x")
    page.keyboard.type("two questions in one")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rows tr .chip:has-text('left out')")
    kept = {(m.kind, m.candidate_id, m.prompt_id, m.reason) for m in marks(desk.store)}
    assert {("flag", *about, ""), ("left out", *about, "two questions in one")} <= kept
    page.keyboard.press("n")
    page.wait_for_url("**after=**")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/prompt?id=**")
    assert page.locator(".answered").count() == 4


def test_hostile_texts_are_shown_and_do_nothing(desk: Desk, visit: Callable[..., Page]) -> None:
    page = visit(desk, "prompts?text=hacked")
    assert page.locator(".rows tbody tr").count() == 8
    assert "<script>" in page.inner_text(".rows")
    for prompt in desk.store.prompts():
        if "number" not in prompt.text:
            page.goto(desk.link(f"prompt?id={prompt.id}"))
            assert page.locator(".answered").count() == 4
    page.goto(desk.link("prompts?family=%3Cscript%3E&text=%22%3E%3Csvg%20onload%3D1%3E"))
    assert "Nothing here is like that" in page.inner_text("main")


def serious(page: Page) -> list[str]:
    """The serious faults that axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_access_in_either_light(desk: Desk, visit: Callable[..., Page], scheme: str) -> None:
    prompt = next(desk.store.prompts(family="copy a block")).id
    page = visit(desk, "now", color_scheme=scheme, bypass_csp=True)
    for path in ("now", "prompts", f"prompt?id={prompt}", "models", "data", "judge", "try"):
        page.goto(desk.link(path))
        assert serious(page) == [], path


def test_a_phone_shows_every_page_without_sideways_scrolling(desk: Desk, visit: Callable[..., Page]) -> None:
    page = visit(desk, "now", viewport={"width": 360, "height": 720}, is_mobile=True, has_touch=True)
    prompt = next(desk.store.prompts(family="copy a block")).id
    for path in ("now", "prompts", f"prompt?id={prompt}", "models", "data", "loop", "judge", "try"):
        page.goto(desk.link(path))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_the_server_may_be_killed_and_started(tmp_path: Path, visit: Callable[..., Page]) -> None:
    space = filled_workspace(tmp_path, 4)
    store = space.open_store()

    def start(port: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "hafs", "open", "--no-browser", "--port", port, "--workspace", str(space.root)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        return server, server.stdout.readline().split()[1]

    server, link = start("0")
    port = link.partition("?")[0].strip("/").rpartition(":")[2]
    try:
        token = link.partition("token=")[2].partition("&")[0]
        desk = Desk(f"http://127.0.0.1:{port}", space, store, token)
        page = visit(desk)
        server.kill()
        server.wait()
        page.wait_for_selector("#alert:not([hidden])", timeout=60_000)
        server, again = start(port)
        assert again == link  # the same link, and the session goes on
        page.wait_for_selector("#alert", state="hidden", timeout=60_000)
        page.goto(desk.link("prompts"))
        assert page.locator(".rows tbody tr").count() == 16
    finally:
        server.kill()
        server.wait()
        store.close()


def test_a_real_training_is_seen_at_work_with_its_log(tmp_path: Path, tiny_model: Path) -> None:
    space = filled_workspace(tmp_path / "space", 2)
    rows = [{"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "hafs", "train", "dpo", "--sft_model", str(tiny_model), "--batch_size", "2"]
    command += ["--preference_data", str(tmp_path / "pairs.jsonl"), "--output_dir", str(space.root / "models" / "dpo")]
    command += ["--num_epochs", "500", "--workspace", str(space.root), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        stages = {"training", "validated"}
        until(
            lambda: (
                process.poll() is not None or any(s.what in stages for a in activities(space.root) for s in a.stages)
            )
        )
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        (about,) = activities(space.root)
        assert about.pid == process.pid and about.folder == str(space.root / "models" / "dpo")
        with space.open_store() as store:
            view = view_of(OpenWorkspace(space, store, "ann"), "now", {})
        assert "dpo" in to_text(view) and view.pictures()[0].title == "Loss"
        stop(space.root, about.id)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert activities(space.root) == []


def test_a_vote_in_the_box_is_kept_once_and_tells_nothing_before(tmp_path: Path, monkeypatch: Any) -> None:
    from hafs.workbench import box

    space = filled_workspace(tmp_path, 2, 2)
    hashes = {"one": "0" * 20, "two": "1" * 20}
    monkeypatch.setattr(box, "known_models", lambda root: {name: name for name in hashes})
    monkeypatch.setattr(box, "resolve", lambda name: name)
    monkeypatch.setattr(box, "model_hash", hashes.__getitem__)
    with space.open_store() as store:
        bench = OpenWorkspace(space, store, "eve")
        fields = {"prompt": next(store.prompts()).id, "one": "one", "other": "two"}
        view = box.box(bench, fields)
        assert view.values["blind"] and not any("sft" in cell for t in view.tables() for row in t.rows for cell in row)
        for said in ("A", "B"):
            box.vote(bench, {**fields, "vote": said})
        (kept,) = store.annotations(annotator="eve")
        assert (kept.mode, kept.tiers[0]) == ("ab", (kept.shown[1],))
        assert not box.box(bench, fields).values["blind"]
        with pytest.raises(UsageError, match="vote"):
            box.vote(bench, {**fields, "vote": "C"})


def test_a_model_is_called_by_its_training() -> None:
    assert called("/home/ann/work/models/dpo-1/model") == "dpo-1"
    assert [called(x) for x in ("sft", "model", "owner/model-7b", "")] == ["sft", "model", "owner/model-7b", ""]


def test_the_script_of_both_pages_together_is_short() -> None:
    """No build step and no framework: what the browser runs of ours can be read in a sitting."""
    rooms = [Path(str(files("hafs") / room)) for room in ("annotate", "workbench")]
    own = [p for room in rooms for p in room.rglob("*.js") if not p.name.startswith("htmx")]
    assert sum(len(p.read_text().splitlines()) for p in own) <= 600


def test_every_style_sheet_is_whole() -> None:
    """One that is not closed takes the next into its last block where reports put them behind each other."""
    import hafs

    sheets = list(Path(hafs.__file__).parent.rglob("*.css"))
    assert len(sheets) >= 6
    assert [s.name for s in sheets if s.read_text().count("{") != s.read_text().count("}")] == []
