"""A recipe end to end on a tiny model: done once, killed anywhere, repeated, without its tools, and from its lock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import KILLS
from forked import Forks
from hafs import tasks
from hafs.config import parse_config
from hafs.errors import DataError, HafsError, UsageError
from hafs.models.naming import model_hash
from hafs.provenance.lock import lock, read_lock, recipe_of, reproduce
from hafs.store import Workspace, init_workspace, open_workspace
from hafs.workflows.recipe import Recipe, RecipeOutcome, run
from run_hafs import hafs, lines, own_cache

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
TRAIN = {
    "precision": "fp32",
    "num_epochs": 1,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_steps": 1,
    "lora": LORA,
}
SETTINGS = {
    "sft": {**TRAIN, "validation_share": 0.2},
    "dpo": {**TRAIN, "validation_share": 0.0, "eval_steps": 1},
    "generate": {"candidates": 3, "temperature": 1.0, "max_new_tokens": 10, "batch_size": 4},
    "preferences": {"references": "when-needed"},
    "eval": {"max_new_tokens": 10, "batch_size": 4},
}
SMALL = {"small": ("asm", 5, ("easy",))}


def tiny_recipe(model: str, **changes: Any) -> Recipe:
    """Eight prompts to learn, four to prefer on, three to validate with, five held out."""
    config = parse_config({**SETTINGS, **changes})
    return Recipe("tiny", "asm", 8, 4, 3, ("small",), config, ("easy",), model)


@pytest.fixture(scope="module", autouse=True)
def small_benchmark() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.BENCHMARKS, "small", SMALL["small"])
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    with own_cache(tmp_path / "cache") as path:
        yield path


def models(root: Path) -> dict[str, str]:
    return {name: model_hash(root / "models" / name / "model") for name in ("sft", "dpo")}


@pytest.fixture(scope="module")
def done(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, RecipeOutcome]:
    """A workspace in which the recipe has run undisturbed."""
    space = tmp_path_factory.mktemp("recipe")
    with own_cache(space / "cache"):
        workspace = init_workspace(space / "w")
        return workspace, run(tiny_recipe(str(tiny_model)), workspace)


@pytest.mark.tools
def test_a_recipe_ends_with_a_table_a_decision_and_a_report(done: tuple[Workspace, RecipeOutcome]) -> None:
    workspace, outcome = done
    comparison = outcome.comparison
    names = ["baseline", "sft", "sft-winners", "dpo"]  # what kept step 0 has no column of its own
    assert comparison.reference == "sft" and {*comparison.models, *comparison.same} == set(names)
    rates = comparison.benchmarks[0].rates
    assert {rates[m].n for m in comparison.models} == {5}
    assert outcome.promoted == "dpo" if comparison.promote else outcome.promoted in ("sft", "sft-winners")
    said = outcome.to_dict()
    assert said["gain"] == comparison.overall["dpo"].difference.value and said["low"] <= said["gain"] <= said["high"]
    assert said["over_sft_on_winners"] == said["attribution"]["preferences"]["value"] and said["minutes"] >= 0
    assert said["attribution"]["sentence"] in comparison.notes
    best = json.loads((workspace.root / "models/best.json").read_text())
    assert (best["name"], best["path"]) == (outcome.promoted, str(outcome.promoted_path))
    assert best["hash"] == model_hash(outcome.promoted_path)
    assert outcome.report.is_file() and outcome.report.with_suffix(".md").is_file()
    assert [s.name for s in outcome.stages][:2] == ["evaluate the baseline", "SFT"] and len(outcome.stages) == 9
    log = [row for row in lines(workspace.root / "models/dpo/log.jsonl") if "eval/pass_rate" in row]
    assert len(log) >= 2, "the DPO checkpoint is picked by pass rate"


@pytest.mark.tools
def test_the_prompts_of_the_stages_are_different_ones(done: tuple[Workspace, RecipeOutcome]) -> None:
    workspace, _ = done
    with workspace.open_store() as store:
        asked = {g.prompt_id for g in store.groups()}
        held = {p.id for p in tasks.benchmark("small")}
        taught = {p.id for p in tasks.generate("asm", "train", 8, tags=("easy",))}
        splits = {p.split for p in store.prompts(ids=asked)}
    assert asked and splits == {"train"} and not asked & (held | taught)


@pytest.mark.tools
def test_again_it_is_a_no_op_without_torch(done: tuple[Workspace, RecipeOutcome], tiny_model: Path) -> None:
    workspace, outcome = done
    program = (
        "import json, sys, hafs.tasks\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from hafs.workflows.recipe import run\n"
        "from hafs.store import open_workspace\n"
        "from test_recipe import SMALL, tiny_recipe\n"
        "hafs.tasks.BENCHMARKS.update(SMALL)\n"
        "outcome = run(tiny_recipe(sys.argv[3]), open_workspace(sys.argv[2]), say=lambda text: sys.exit(text))\n"
        "print(json.dumps([outcome.to_dict(), 'torch' in sys.modules, 'transformers' in sys.modules]))"
    )
    argv = [sys.executable, "-c", program, str(Path(__file__).parent), str(workspace.root), str(tiny_model)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    again, torch, transformers = json.loads(printed)
    assert again == json.loads(json.dumps(outcome.to_dict()))
    assert (torch, transformers) == (False, False)


@pytest.mark.tools
def test_a_copy_has_its_own_report(done: tuple[Workspace, RecipeOutcome], tiny_model: Path, tmp_path: Path) -> None:
    workspace, outcome = done
    moved = tmp_path / "moved"
    shutil.copytree(workspace.root, moved)
    again = run(tiny_recipe(str(tiny_model)), open_workspace(moved), say=pytest.fail)
    assert again.comparison.to_dict() == outcome.comparison.to_dict()
    assert again.report == moved / outcome.report.relative_to(workspace.root) and again.report.is_file()
    assert again.promoted_path == moved / outcome.promoted_path.relative_to(workspace.root)


@pytest.mark.tools
def test_a_lost_report_is_written_again(done: tuple[Workspace, RecipeOutcome], tiny_model: Path) -> None:
    workspace, outcome = done
    before = models(workspace.root)
    outcome.report.unlink()
    steps: list[str] = []

    def progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        steps.append(what)

    again = run(tiny_recipe(str(tiny_model)), workspace, progress=progress)
    assert again.comparison.to_dict() == outcome.comparison.to_dict() and outcome.report.is_file()
    assert not {"training", "validated", "reference"} & set(steps), "nothing is trained again"
    assert models(workspace.root) == before


def test_without_an_assembler_it_stops_before_the_long_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HAFS_ASAR", "HAFS_BSNES_CORE"):
        monkeypatch.delenv(name, raising=False)
    workspace = init_workspace(tmp_path / "w")
    with pytest.raises(HafsError, match=r"cannot be checked on this machine: the assembler .* is not installed"):
        run(tiny_recipe(str(tiny_model)), workspace)
    assert not (workspace.root / "models").exists()
    with workspace.open_store() as store:
        assert store.counts()["candidates"] == 0


@pytest.mark.tools
def test_groups_that_do_not_come_end_it_with_the_reason(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(str(tiny_model), preferences={"references": "never"})
    with pytest.raises(HafsError, match=r"no preference group came of the candidates: (.|\n)*4 prompts skipped: all"):
        run(recipe, init_workspace(tmp_path / "w"))
    assert (tmp_path / "w/models/sft/model").is_dir(), "what was done before is kept"


# killed


KILLED = """
import json, os, random, signal, sys, time, traceback
import hafs.tasks, hafs.training, hafs.generation.transformers, hafs.training.data
from hafs.workflows.recipe import run
from hafs.store import init_workspace
root, model, kills = sys.argv[1:]
from test_recipe import SMALL, tiny_recipe
hafs.tasks.BENCHMARKS.update(SMALL)
moments = random.Random(1)

def attempt(steps):
    "Run the recipe in a process of its own; kill it some time after `steps` steps. None, or its outcome."
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            tell = lambda *_: os.write(writing, b".")
            outcome = run(tiny_recipe(model), init_workspace(root), progress=tell)
            os.write(writing, json.dumps(outcome.to_dict()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    heard = b""
    while steps is None or len(heard) < steps:
        new = os.read(reading, 1 if steps else 65536)
        heard += new
        if not new:
            break
    if steps is not None:
        time.sleep(moments.random() * 0.1)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return json.loads(heard.lstrip(b".") or b"null") if steps is None else None

for _ in range(int(kills)):
    attempt(moments.randint(1, 14))
print(json.dumps(attempt(None)))
"""


def processes_of(cache: Path) -> list[str]:
    """The processes whose environment names this cache, but for this one."""
    mark = f"HAFS_CACHE={cache}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.tools
@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_table(
    forks: Forks, done: tuple[Workspace, RecipeOutcome], tiny_model: Path, cache: Path, tmp_path: Path
) -> None:
    """SIGKILL between two steps or in one, then to the end; weights and table are those of a quiet run."""
    workspace, outcome = done
    root = tmp_path / "w"
    (root / "models/sft").mkdir(parents=True)
    (root / "models/sft/.run.json.k2j3h4.part").write_text('{"iden')  # as left by a kill inside an atomic write
    finished = forks.python(KILLED, root, tiny_model, str(KILLS))
    assert finished.returncode == 0, finished.stderr
    ended = json.loads(finished.stdout)
    assert ended is not None, finished.stderr
    assert ended["comparison"] == json.loads(json.dumps(outcome.to_dict()))["comparison"]
    assert ended["promoted"] == outcome.promoted
    assert models(root) == models(workspace.root)
    with init_workspace(root).open_store() as mine, workspace.open_store() as theirs:
        assert {c.id for c in mine.candidates()} == {c.id for c in theirs.candidates()}
        assert {s.id for s in mine.scores()} == {s.id for s in theirs.scores()}
        assert {g.id for g in mine.groups()} == {g.id for g in theirs.groups()}
    until = time.monotonic() + 30
    while (left := processes_of(cache)) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left, "what a killed run started ends by itself"


# the lock


@pytest.fixture(scope="module")
def file(done: tuple[Workspace, RecipeOutcome]) -> Path:
    root = done[0].root
    with own_cache(root.parent / "cache"):
        said = hafs("lock", "-w", root, "--json").ok().json
    assert said["promoted"] in ("sft", "sft-winners", "dpo")
    return Path(said["file"])


@pytest.mark.tools
def test_a_lock_holds_every_hash(done: tuple[Workspace, RecipeOutcome], file: Path, tiny_model: Path) -> None:
    workspace, locked = done[0], read_lock(file)
    assert locked["model"]["hash"] == model_hash(tiny_model) and locked["model"]["template"]
    assert set(locked["data"]) == {"sft", "preferences", "validation", "benchmark small"}
    assert set(locked["models"]) == {"sft", "sft-winners", "dpo"} and all(locked["models"].values())
    assert set(locked["answers"]) == {f"{m} on small" for m in ("baseline", "sft", "sft-winners", "dpo")}
    assert locked["environment"]["packages"]["torch"] and locked["environment"]["tools"]["asar"]
    assert recipe_of(locked["recipe"]) == tiny_recipe(str(tiny_model))
    with workspace.open_store() as store:
        assert json.loads(json.dumps(lock(workspace, store))) == locked, "locking again says the same"


@pytest.mark.tools
def test_the_locked_table_comes_again_identical(file: Path, tmp_path: Path) -> None:
    said = hafs("reproduce", file, tmp_path / "again", "--json").ok().json
    assert said["identical"] and said["differences"] == [] and said["models"] == []
    assert said["outcome"]["comparison"] == read_lock(file)["table"]
    printed = hafs("reproduce", file, tmp_path / "again").ok().out
    assert "identical" in printed, "repeated, it is done at once"


@pytest.mark.tools
def test_another_table_is_told_from_the_locked_one(
    file: Path, tmp_path: Path, done: tuple[Workspace, RecipeOutcome]
) -> None:
    changed = read_lock(file)
    rate = changed["table"]["benchmarks"][0]["rates"]["dpo"]
    rate["value"] = 0.123
    changed["answers"]["dpo on small"] = "0" * 20
    (tmp_path / "l.json").write_text(json.dumps(changed))
    ran = hafs("reproduce", tmp_path / "l.json", done[0].root)  # where the run is: nothing is trained
    assert ran.code == 1 and "NOT the locked one" in ran.out and "answers of dpo on small" in ran.out


@pytest.mark.tools
def test_other_prompts_or_another_model_than_locked_are_refused_before_anything_runs(
    file: Path, tmp_path: Path
) -> None:
    locked: Any = read_lock(file)
    locked["data"]["sft"] = "0" * 20
    with pytest.raises(UsageError, match="not what was locked: data sft"):
        reproduce(locked, init_workspace(tmp_path / "w"))
    locked = read_lock(file)
    locked["model"]["hash"] = "0" * 20
    with pytest.raises(UsageError, match="not what was locked: model hash"):
        reproduce(locked, init_workspace(tmp_path / "w"))
    assert not (tmp_path / "w/models").exists()


def test_what_is_no_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="is no lock"):
        read_lock(tmp_path / "x.json")
    with pytest.raises(UsageError, match="there is no file"):
        read_lock(tmp_path / "y.json")
    hafs("lock", "-w", init_workspace(tmp_path / "w").root).failed(2, "no recipe and no loop has ended", "hafs demo")
