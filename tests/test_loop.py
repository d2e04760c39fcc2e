"""The loop end to end on a tiny model: what it decides, killed anywhere, repeated, and its page in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import KILLS
from forked import Forks
from hafs.config import LoopConfig, override, parse_config
from hafs.errors import UsageError
from hafs.evals.sealed import seal
from hafs.models.naming import model_hash
from hafs.provenance.lock import lock, read_lock, reproduce, write_lock
from hafs.store import Workspace, init_workspace
from hafs.types import Annotation, Prompt, Reference
from hafs.workflows.loop.ask import RoundRequest, Source
from hafs.workflows.loop.run import Loop, LoopOutcome, run
from loop_toy import SETTINGS, prompt, toy_config, toy_loop, write_tasks
from run_hafs import hafs, own_cache

BAD = {"checkpoint_prompts": 0, "rounds": {2: {"dpo": {"learning_rate": 30 * SETTINGS["dpo"]["learning_rate"]}}}}
"""A gentle first round, and a second one whose learning rate is 30 times as high; nothing picks a checkpoint."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    with own_cache(tmp_path / "cache") as path:
        yield path


@pytest.fixture(scope="module")
def done(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workspace, LoopOutcome]:
    """A folder with the tasks, a workspace in which a loop with a bad round has run undisturbed, and its outcome."""
    folder = tmp_path_factory.mktemp("loop")
    write_tasks(folder)
    with own_cache(folder / "cache"):
        workspace = init_workspace(folder / "w")
        return folder, workspace, run(toy_loop(folder, tiny_model, **BAD), workspace)


def table(outcome: dict[str, Any]) -> dict[str, Any]:
    """What of an outcome must be the same whatever happened on the way: all but times and places."""
    return {k: v for k, v in json.loads(json.dumps(outcome)).items() if k not in ("seconds", "kept_path", "report")}


def test_a_bad_round_is_rolled_back_by_itself(done: tuple[Path, Workspace, LoopOutcome]) -> None:
    _, workspace, outcome = done
    first, second = outcome.rounds
    assert (first["action"], second["action"]) == ("promote", "roll back")
    assert "worse" in second["rules"] and "worse by the paired test" in second["reason"]
    assert outcome.kept == "dpo-1" and outcome.kept_hash == model_hash(outcome.kept_path) == first["model"]
    best = json.loads((workspace.root / "models/best.json").read_text())
    assert (best["name"], best["hash"]) == ("dpo-1", outcome.kept_hash)
    assert outcome.stop.rules in (("rounds done",), ("plateau",))
    rates = {name: by["decision"]["value"] for name, by in outcome.scores.items()}
    assert list(rates) == ["baseline", "sft", "dpo-1", "dpo-2"]
    assert rates["sft"] > rates["baseline"] and rates["dpo-2"] < rates["dpo-1"]


def test_the_reference_of_a_round_is_the_model_that_was_promoted_before(
    done: tuple[Path, Workspace, LoopOutcome],
) -> None:
    _, workspace, outcome = done
    first, second = outcome.rounds
    assert (first["reference"], second["reference"]) == ("sft", "dpo-1")
    assert first["reference_model"] == model_hash(workspace.root / "models/sft/model")
    assert second["reference_model"] == outcome.kept_hash
    for x in outcome.rounds:
        identity = json.loads((workspace.root / "models" / x["name"] / "run.json").read_text())["identity"]
        assert identity["settings"]["reference"] == identity["model"] == x["reference_model"]
        log = [json.loads(line) for line in (workspace.root / "models" / x["name"] / "log.jsonl").open()]
        assert next(r["loss"] for r in log if "loss" in r) == pytest.approx(0.6931, abs=1e-3)


def test_nothing_is_asked_twice_and_what_decides_is_never_learnt(done: tuple[Path, Workspace, LoopOutcome]) -> None:
    _, workspace, outcome = done
    with workspace.open_store() as store:
        groups = [g.prompt_id for g in store.groups()]
        splits = {p.split for p in store.prompts(ids=set(groups))}
        decided = {c.prompt_id for c in store.candidates(split=["validation", "test"])}
    taught = {prompt(i, "train").id for i in range(24)}
    assert len(groups) == len(set(groups)) and splits == {"train"}
    assert not set(groups) & (taught | decided)
    for x in outcome.rounds:
        assert sum(a["prompts"] for a in x["asked"]) == 9


def test_repeated_it_does_nothing_and_with_more_rounds_it_goes_on(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    folder, workspace, outcome = done

    def never(*_: Any) -> None:
        raise AssertionError("something was done")

    again = run(toy_loop(folder, tiny_model, **BAD), workspace, say=never, progress=never)
    assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(outcome.to_dict(), sort_keys=True)
    copy = tmp_path / "w"
    shutil.copytree(workspace.root, copy)
    steps: list[str] = []
    more = run(
        toy_loop(folder, tiny_model, **BAD, max_rounds=3, patience=3),
        init_workspace(copy),
        progress=lambda what, done, total, figures: steps.append(f"{what} {done}/{total}"),
    )
    assert [x["name"] for x in more.rounds] == ["dpo-1", "dpo-2", "dpo-3"]
    assert table(more.to_dict())["rounds"][:2] == table(outcome.to_dict())["rounds"]
    assert more.rounds[2]["reference"] == "dpo-1", "a round that was rolled back is no reference"
    trained = [s for s in steps if s.startswith("training")]
    assert len(trained) == len({*trained}), "only the new round was trained"


def test_families_that_are_never_right_get_known_answers_off_policy(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    """A model that has not been taught answers nothing right; its own model in place of SFT, one round."""
    folder, *_ = done
    workspace = init_workspace(tmp_path / "w")
    loop = Loop(toy_config(folder, max_rounds=1, checkpoint_prompts=0), str(tiny_model), taught=True)
    outcome = run(loop, workspace)
    assert list(outcome.scores) == ["start", "dpo-1"] and not (workspace.root / "models/sft").exists()
    (x,) = outcome.rounds
    assert all(a["references"] and a["right"] == 0.0 for a in x["asked"]) and x["edges"]["reference"] > 0
    with workspace.open_store() as store:
        for group in store.groups():
            assert [c.text for c in group.candidates if c.off_policy] == ["ok"]
            for edge in group.edges:
                assert (edge.source == "reference") == group.candidates[edge.winner].off_policy


def test_it_stops_before_a_round_when_the_target_is_reached(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    folder, workspace, _ = done
    copy = tmp_path / "w"
    shutil.copytree(workspace.root, copy)
    outcome = run(toy_loop(folder, tiny_model, **BAD, target={"bench": 0.1}), init_workspace(copy))
    assert outcome.stop.rules == ("target reached",) and outcome.rounds == () and outcome.kept == "sft"
    assert outcome.comparison is None and outcome.report.is_file()


def test_a_locked_loop_comes_again_identical(
    done: tuple[Path, Workspace, LoopOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, workspace, outcome = done
    with workspace.open_store() as store:
        write_lock(lock(workspace, store), tmp_path / "lock.json")
    locked = read_lock(tmp_path / "lock.json")
    assert set(locked["models"]) == {"sft", "dpo-1", "dpo-2"} and locked["promoted"] == "dpo-1"
    assert set(locked["data"]) == {"sft", "decision", "checkpoint", "benchmark bench"}
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "fresh"))  # no reference log-probabilities of the first run
    again = reproduce(locked, init_workspace(tmp_path / "again"))
    assert again.identical and not again.models and again.outcome.kept_hash == outcome.kept_hash  # type: ignore[union-attr]
    locked["table"]["rounds"][1]["action"] = "promote"
    other = reproduce(locked, init_workspace(tmp_path / "again"))
    assert [what for what, _, _ in other.differences] == ["rounds 1 action"]


def test_a_loop_that_had_no_time_for_a_round_comes_again_identical(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    folder, *_ = done
    workspace = init_workspace(tmp_path / "w")
    outcome = run(toy_loop(folder, tiny_model, max_minutes=1e-6, **BAD), workspace)
    assert outcome.stop.rules == ("time",) and outcome.rounds == ()
    with workspace.open_store() as store:
        write_lock(lock(workspace, store), tmp_path / "lock.json")
    again = reproduce(read_lock(tmp_path / "lock.json"), init_workspace(tmp_path / "again"))
    assert again.identical and not again.models and again.outcome.rounds == ()  # type: ignore[union-attr]


def test_settings_that_cannot_be_followed_are_refused_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    workspace = init_workspace(tmp_path / "w")
    with pytest.raises(UsageError, match=r"the target names 'asm', which is not evaluated"):
        run(toy_loop(tmp_path, tiny_model, target={"asm": 0.5}), workspace)
    with pytest.raises(UsageError, match="what an hour costs"):
        run(toy_loop(tmp_path, tiny_model, budget=3), workspace)
    with pytest.raises(UsageError, match=r"\[loop.rounds.2\]: unknown setting 'dpo.rate'"):
        toy_config(tmp_path, rounds={2: {"dpo": {"rate": 1}}})
    config = toy_config(tmp_path)
    for file, said in (("decision.jsonl", "cannot be called 'decision'"), ("other/bench.jsonl", "one name in results")):
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "bench.jsonl", tmp_path / file)
        both = override(config.eval, benchmarks=[str(tmp_path / "bench.jsonl"), str(tmp_path / file)])
        with pytest.raises(UsageError, match=said):
            run(Loop(config.model_copy(update={"eval": both}), str(tiny_model)), workspace)
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps(prompt(3, "train").to_dict()) + "\n" + bench.read_text())
    with pytest.raises(UsageError, match="1 prompts of bench may also be trained on: 'tr alpha 3'"):
        run(toy_loop(tmp_path, tiny_model), workspace)
    assert not (workspace.root / "models").exists()


@pytest.mark.parametrize("where", ["bench", "tasks"])
def test_sealed_prompts_are_refused_before_any_work(where: str, tiny_model: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    workspace = init_workspace(tmp_path / "w")
    row = (tmp_path / f"{where}.jsonl").read_text().splitlines()[-1]
    with workspace.open_store() as store:
        seal(workspace, store, "final", [Prompt.from_dict(json.loads(row))])
        with pytest.raises(UsageError, match="1 of these prompts are sealed in 'final'"):
            run(toy_loop(tmp_path, tiny_model), workspace)
        assert not list(store.prompts()) and not list(store.runs(kind="eval"))


def test_a_model_that_was_trained_on_what_decides_or_is_reported_is_refused(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    """Of what decides the very same prompts; a loop's SFT model begins another one, and the page says what is known."""
    folder, workspace, _ = done
    sft = workspace.root / "models/sft/model"
    kept = Loop(toy_config(folder, max_rounds=1, checkpoint_prompts=0), str(sft), taught=True)
    page = run(kept, init_workspace(tmp_path / "w")).report.read_text()
    assert "No benchmark prompt, nor a near copy" in page and "sft in sft" in page
    taught = [json.loads(line) for line in (folder / "tasks.jsonl").open()][:3]
    for where, row in (("tasks", {**taught[0], "split": "validation"}), ("bench", {**taught[1], "split": "test"})):
        mine = tmp_path / where
        mine.mkdir()
        for name in ("tasks", "bench"):
            lines = (folder / f"{name}.jsonl").read_text().splitlines()
            lines = [x for x in lines if json.loads(x)["text"] != row["text"]]
            text = [json.dumps(row), *lines] if name == where else lines
            (mine / f"{name}.jsonl").write_text("\n".join(text) + "\n")
        with pytest.raises(UsageError, match=r"1 of \d+ benchmark prompts are in the training data"):
            run(Loop(toy_config(mine), str(sft), taught=True), init_workspace(tmp_path / f"w-{where}"))


def test_near_copies_of_held_out_prompts_are_neither_taught_nor_asked(tmp_path: Path) -> None:
    long = "write the routine {} that adds the word at $10 to the word at $20 and leaves the sum at $30 in {}"
    elsewhere = "X and then does all of it once more for the words at $40, $50 and $60"
    rows = [
        Prompt(long.format(name, place), family="sum", split=split, references=(Reference("r", "right"),))
        for name, place, split in (("One", "A", "train"), ("Two", elsewhere, "train"), ("Three", "A", "validation"))
    ]
    other = Prompt("clear the sixteen words from $7E:0000 upwards", family="clear", split="train")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(p.to_dict()) + "\n" for p in [*rows, other]))
    reported = [Prompt("clear the sixteen words from $7E:0000 upward", family="clear", split="test")]
    config = LoopConfig(prompts=str(tasks), sft_prompts=3, decision_prompts=1, checkpoint_prompts=0)
    source = Source(config, 0, reported)
    assert [p.id for p in source.taught] == [rows[1].id]
    assert source.copies == {rows[0].id, other.id}
    asked = source.new([RoundRequest(f, 0.5, 1, 3, 4) for f in ("sum", "clear")], [])
    assert [p.id for found in asked.values() for p in found] == [rows[1].id]


def test_settings_of_a_round_are_laid_over_the_others() -> None:
    config = parse_config({"loop": {"rounds": {"2": {"dpo": {"beta": 0.3, "lora": {"rank": 8}}}}}})
    assert config.of_round(1) is config
    second = config.of_round(2).dpo
    assert (second.beta, second.lora.rank, second.lora.alpha) == (0.3, 8, config.dpo.lora.alpha)


# the verb


def test_the_command_and_its_page(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, workspace, _ = done
    copy = tmp_path / "w"
    shutil.copytree(workspace.root, copy)
    settings = toy_config(folder, **BAD).model_dump(mode="json")
    (copy / "hafs.toml").write_text("\n".join(_toml(settings)))
    argv = ["loop", "run", "--model", tiny_model, "-w", copy]
    ran = hafs(*argv, "--json").ok()
    assert table(ran.json) == table(done[2].to_dict())
    monkeypatch.setenv("COLUMNS", "160")
    printed = hafs(*argv).ok()
    assert printed.err == "" and "rolled back" in printed.out and f"Report: {copy / 'loop.html'}" in printed.out
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert hafs("report", "--open", "-w", copy, "--json").ok().json["html"] == str(copy / "loop.html")
    assert opened == [(copy / "loop.html").as_uri()]
    hafs(*argv, "--target", "bench").failed(2, "--target 'bench' is no target")
    begun = hafs_workspace(tmp_path / "empty")
    hafs("report", "-w", begun).failed(2, "no page of a loop or demo")
    (begun / "loop.html").write_text("as it stands after a round")
    assert hafs("report", "-w", begun, "--json").ok().json["html"] == str(begun / "loop.html")


def hafs_workspace(path: Path) -> Path:
    init_workspace(path)
    return path


def _toml(settings: dict[str, Any]) -> list[str]:
    from hafs.cli.config import _toml

    return _toml(settings)


def test_people_and_judges_are_in_the_page(
    done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    folder, workspace, _ = done
    copy = tmp_path / "w"
    shutil.copytree(workspace.root, copy)
    space = init_workspace(copy)
    with space.open_store() as store:
        group = next(g for g in store.groups() if len(g.candidates) > 1 and not any(c.off_policy for c in g.candidates))
        ids = tuple(c.id for c in group.candidates)
        best = group.edges[0]
        tiers = ((ids[best.winner],), (ids[best.loser],))
        store.add_annotations([Annotation(group.prompt_id, who, ids, "ranked", tiers) for who in ("ann", "bo")])
        run_id = store.start_run("calibration", {"judge": "some-judge"})
        store.finish_run(run_id, "finished", {"agreement": {"value": 0.81, "n": 120}, "position bias": 0.04})
    (copy / "loop.html").unlink()
    run(toy_loop(folder, tiny_model, **BAD), space)
    text = (copy / "loop.md").read_text()
    assert "2 people ranked the answers to 1 prompts." in text
    assert "people and the checker toy agree on 100.0%" in text and "two people agree on 100.0%" in text
    assert "Judge some-judge, calibrated" in text and "agreement.value" in text and "0.81" in text


# killed


KILLED = """
import json, os, random, signal, sys, time, traceback
import hafs.training, hafs.generation.transformers, hafs.training.data, torch
from hafs.workflows.loop.run import run
from hafs.store import init_workspace
from test_loop import BAD, toy_loop
from pathlib import Path
folder, root, model, most = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
torch.set_num_threads(1)
moments = random.Random(1)

def attempt(root, steps):
    "Run the loop in a process of its own and kill it some time after `steps` steps; its outcome, or None if killed."
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            tell = lambda *_: os.write(writing, b".")
            outcome = run(toy_loop(folder, model, **BAD), init_workspace(root), progress=tell)
            os.write(writing, json.dumps(outcome.to_dict()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    heard = b""
    while heard.count(b".") < steps or b"{" in heard:
        new = os.read(reading, 1 if b"{" not in heard else 65536)
        heard += new
        if not new:
            break
    else:
        time.sleep(moments.random() * 0.05)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    return None if os.WIFSIGNALED(status) else json.loads(heard.lstrip(b".") or b"null")

kills, ended = 0, []
while kills < most or not ended:
    outcome = attempt(f"{root}{len(ended)}", moments.randint(1, 24) if kills < most else 1e9)
    if outcome is None:
        kills += 1
    else:
        ended.append(outcome)
print(json.dumps(ended))
"""


@pytest.mark.slow
def test_killed_many_times_it_ends_with_the_same_tables(
    forks: Forks, done: tuple[Path, Workspace, LoopOutcome], tiny_model: Path, tmp_path: Path
) -> None:
    """SIGKILL between two steps or in one, some times, then to the end: decisions, tables and weights are equal."""
    folder, workspace, outcome = done
    finished = forks.python(KILLED, folder, tmp_path / "w", tiny_model, str(KILLS))
    assert finished.returncode == 0, finished.stderr
    for ended in json.loads(finished.stdout):
        assert ended is not None, finished.stderr
        assert table(ended) == table(outcome.to_dict())
    root = tmp_path / "w0"
    with init_workspace(root).open_store() as mine, workspace.open_store() as theirs:
        assert {c.id for c in mine.candidates()} == {c.id for c in theirs.candidates()}
        assert {s.id for s in mine.scores()} == {s.id for s in theirs.scores()}
        assert {g.id for g in mine.groups()} == {g.id for g in theirs.groups()}
    for name in ("sft", "dpo-1", "dpo-2"):
        assert model_hash(root / "models" / name / "model") == model_hash(workspace.root / "models" / name / "model")
    before, after = ((p / "loop.md").read_text() for p in (workspace.root, root))
    for heading in ("## Scores by round", "## What was decided, and why", "## Failures before and after"):
        assert before.split(heading)[1].split("\n## ")[0] == after.split(heading)[1].split("\n## ")[0]


# the page


def test_the_page_has_every_part_and_asks_for_nothing(done: tuple[Path, Workspace, LoopOutcome]) -> None:
    outcome = done[2]
    page, twin = outcome.report.read_text(), outcome.report.with_suffix(".md").read_text()
    for part in (
        "Scores by round",
        "What was decided, and why",
        "Failures before and after",
        "What each round asked",
        "Margins, log-probabilities, length, KL",
        "Where the pairs came from",
        "Training: SFT",
        "Run it again",
        "Notes",
    ):
        assert f"<h2>{part}</h2>" in page and f"## {part}" in twin
    for x in outcome.rounds:
        assert x["reference_model"] in page and x["reference_model"] in twin
    assert "rolled back" in page and "dpo.learning_rate = 0.009" in page
    assert "18 decision prompts (validation split) decided" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_it_without_a_complaint_or_a_request(
    done: tuple[Path, Workspace, LoopOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    monkeypatch.setenv("HOME", str(tmp_path))
    said: list[str] = []
    asked: list[str] = []
    paper = {}
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(done[2].report.as_uri())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        dots, hollow = (page.locator(f"svg circle.rung{kind}").count() for kind in ("", ".hollow"))
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        wide = page.evaluate(over)
        page.set_viewport_size({"width": 390, "height": 800})
        narrow = page.evaluate(over)
        shot = page.screenshot(full_page=True)
        browser.close()
    assert said == [] and asked == [done[2].report.as_uri()]
    assert (wide, narrow) == (0, 0), "nothing sticks out to the side"
    assert (dots, hollow) == (8, 2), "four models on two sets of prompts, one of them rolled back"
    assert paper["light"] == "rgb(253, 252, 250)" and paper["dark"] == "rgb(22, 21, 20)" and len(shot) > 10_000


def test_a_round_stands_beside_sft_on_its_right_winners(tiny_model: Path, tmp_path: Path) -> None:
    """The same groups, the same start: what that gains is the data's, and it is kept where DPO is not proven better."""
    write_tasks(tmp_path)
    space = init_workspace(tmp_path / "w")
    outcome = run(toy_loop(tmp_path, tiny_model, attribution=True, max_rounds=1), space)
    assert list(outcome.scores) == ["baseline", "sft", "sft-winners-1", "dpo-1"]
    [only] = outcome.rounds
    winners = only["winners"]
    assert winners["name"] == "sft-winners-1" and winners["attribution"]["sentence"] in only["reason"]
    proven = winners["attribution"]["preferences"]["low"] > 0
    assert winners["kept"] != proven or only["kept"] != "sft-winners-1"
    assert only["kept"] == outcome.kept if only["kept"] else outcome.kept == "sft"
    taught = json.loads((space.root / "models/sft-winners-1/run.json").read_text())["identity"]
    compared = json.loads((space.root / "models/dpo-1/run.json").read_text())["identity"]
    assert taught["model"] == compared["model"] and taught["kind"] == "sft"
    assert "SFT on winners 1" in outcome.report.read_text()
    again = run(toy_loop(tmp_path, tiny_model, attribution=True, max_rounds=1), space)
    assert again.to_dict() == outcome.to_dict()
