"""A lock names all that a table depends on; the recipe run again from it gives the same table, digit by digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hafs import tasks
from hafs.errors import DataError, UsageError
from hafs.lock import lock, read_lock, recipe_of, reproduce
from hafs.recipe import run
from hafs.store import Workspace, init_workspace
from run_hafs import hafs, own_cache
from test_recipe import SMALL, tiny_recipe


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_cache(tmp_path_factory.mktemp("cache")) as path, pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.BENCHMARKS, "small", SMALL["small"])
        yield path


@pytest.fixture(scope="module")
def done(tiny_model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = init_workspace(tmp_path_factory.mktemp("lock") / "w")
    run(tiny_recipe(str(tiny_model)), workspace)
    return workspace


@pytest.fixture(scope="module")
def file(done: Workspace) -> Path:
    said = hafs("lock", "-w", done.root, "--json").ok().json
    assert said["promoted"] in ("sft", "dpo")
    return Path(said["file"])


@pytest.mark.tools
def test_a_lock_holds_every_hash(done: Workspace, file: Path, tiny_model: Path) -> None:
    from hafs.models import model_hash

    locked = read_lock(file)
    assert locked["model"]["hash"] == model_hash(tiny_model) and locked["model"]["template"]
    assert set(locked["data"]) == {"sft", "preferences", "validation", "benchmark small"}
    assert set(locked["models"]) == {"sft", "dpo"} and all(locked["models"].values())
    assert set(locked["answers"]) == {f"{m} on small" for m in ("baseline", "sft", "dpo")}
    assert locked["environment"]["packages"]["torch"] and locked["environment"]["tools"]["asar"]
    assert recipe_of(locked["recipe"]) == tiny_recipe(str(tiny_model))
    with done.open_store() as store:
        assert json.loads(json.dumps(lock(done, store))) == locked, "locking again says the same"


@pytest.mark.tools
def test_the_table_comes_again_identical(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))  # no reference log-probabilities of the first run
    said = hafs("reproduce", file, tmp_path / "again", "--json").ok().json
    assert said["identical"] and said["differences"] == [] and said["models"] == []
    assert said["outcome"]["comparison"] == read_lock(file)["table"]
    printed = hafs("reproduce", file, tmp_path / "again").ok().out
    assert "identical" in printed, "repeated, it is done at once"


@pytest.mark.tools
def test_another_table_is_told_from_the_locked_one(file: Path, tmp_path: Path, done: Workspace) -> None:
    changed = read_lock(file)
    rate = changed["table"]["benchmarks"][0]["rates"]["dpo"]
    rate["value"] = 0.123
    changed["answers"]["dpo on small"] = "0" * 20
    (tmp_path / "l.json").write_text(json.dumps(changed))
    ran = hafs("reproduce", tmp_path / "l.json", done.root)  # where the run is: nothing is trained
    assert ran.code == 1 and "NOT the locked one" in ran.out and "answers of dpo on small" in ran.out


@pytest.mark.tools
def test_other_prompts_or_another_model_are_refused_before_anything_runs(file: Path, tmp_path: Path) -> None:
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
