"""A lock file: everything a table depends on, as hashes, and the table; and the proof that it comes again.

`lock` writes it from a workspace in which a recipe or a loop has ended, `reproduce` runs that anew in another workspace
and compares. Prompts and the model that it begins with must be the same ones, or nothing is run. Package versions and
the machine are compared and named. On a CPU in float32 with one thread count the reproduced table is identical; on a
GPU or in bf16 small differences are to be expected, and what differs is listed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hafs import tasks
from hafs.config import parse_config
from hafs.errors import DataError, UsageError
from hafs.evals import Comparison
from hafs.evals.kept import newest_results
from hafs.files.jsonl import atomic_write
from hafs.models.naming import model_hash, resolve
from hafs.store import Run, Store, Workspace
from hafs.tasks.domain import domains
from hafs.types import Progress, Prompt, content_id, silent
from hafs.workflows import recipe as recipes
from hafs.workflows.loop import run as loops
from hafs.workflows.loop.run import Loop
from hafs.workflows.recipe import Recipe

__all__ = ["Reproduced", "lock", "loop_of", "read_lock", "recipe_of", "reproduce", "write_lock"]

VERSION = 1
PACKAGES = ("hafs", "torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "scipy")
_SEEDS = ("generate", "sft", "dpo")


@dataclass(frozen=True)
class Reproduced:
    """How a second run compares with its lock: what differs in the environment, in the models, and in the table.

    `differences` are (what, then, now) of figures of the table and of answers; empty means identical.
    """

    outcome: recipes.RecipeOutcome | loops.LoopOutcome
    environment: tuple[tuple[str, str, str], ...] = ()
    models: tuple[tuple[str, str, str], ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()

    @property
    def identical(self) -> bool:
        """Whether table and answers are the same."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        listed = {k: [list(x) for x in getattr(self, k)] for k in ("environment", "models", "differences")}
        return {"identical": self.identical, **listed, "outcome": self.outcome.to_dict()}


def lock(workspace: Workspace, store: Store, name: str = "") -> dict[str, Any]:
    """The lock of what ended last in this workspace (or of the recipe called `name`), as plain data.

    Raises UsageError when nothing has.
    """
    done = store.newest("recipe", name=name) if name else store.newest(list(_KINDS))
    if done is None:
        raise UsageError(
            f"no recipe {name} has ended in {workspace.root}"
            if name
            else f"no recipe and no loop has ended in {workspace.root}",
            "`hafs demo DIR` and `hafs loop run` run one",
        )
    kind = _KINDS[done.kind]
    row = kind.row(done)
    work = kind.read(row)
    return {
        "lock": VERSION,
        done.kind: row,
        "model": _model(work.model),
        "data": {what: _hash(prompts) for what, prompts in kind.prompts(work).items()},
        "seeds": {s: getattr(work.config, s).seed for s in _SEEDS},
        "config": content_id(work.config.model_dump(mode="json", exclude={"cluster"})),
        "environment": environment(),
        "models": _models(workspace),
        "answers": _answers(store, kind.evaluated(done)),
        "promoted": kind.kept(done),
        "table": kind.table(done.outputs),
    }


def write_lock(data: Mapping[str, Any], path: Path) -> None:
    """Write a lock as JSON."""
    with atomic_write(path) as f:
        json.dump(data, f, indent=1, sort_keys=True, ensure_ascii=False)
        f.write("\n")


def read_lock(path: Path) -> dict[str, Any]:
    """Read a lock; raises UsageError when there is none, DataError for another file or a lock of a newer hafs."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "`hafs lock` writes one")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        number, _ = data["lock"], _work(data)
        if table := data["table"] if "recipe" in data else data["table"]["comparison"]:
            Comparison.from_dict(table)
    except (ValueError, KeyError, TypeError, StopIteration) as e:
        raise DataError(f"{path} is no lock: {e}", "it is what `hafs lock` writes") from e
    if number != VERSION:
        raise DataError(f"{path} is a lock of version {number}, this hafs knows {VERSION}", "use the hafs it names")
    return dict(data)


def recipe_of(row: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_dict` wrote."""
    try:
        return Recipe(
            **{
                **row,
                "config": parse_config(row["config"], "the recipe"),
                "tags": tuple(row["tags"]),
                "benchmarks": tuple(row["benchmarks"]),
            }
        )
    except (KeyError, TypeError) as e:
        raise DataError(f"this is no recipe: {e}", "it is what `hafs lock` writes") from e


def loop_of(row: Mapping[str, Any]) -> Loop:
    """The loop whose settings and model a lock holds."""
    try:
        return Loop(parse_config(row["settings"], "the loop"), row["model"], row["taught"], "hafs reproduce")
    except (KeyError, TypeError) as e:
        raise DataError(f"this is no loop: {e}", "it is what `hafs lock` writes") from e


def reproduce(
    locked: Mapping[str, Any],
    workspace: Workspace,
    model: str | None = None,
    *,
    anyway: bool = False,
    say: Any = lambda _: None,
    progress: Progress = silent,
) -> Reproduced:
    """Run the locked recipe or loop in `workspace` (an empty one, or one where this was begun) and compare.

    `model` says where the model lies that it begins with, when that has moved. A loop goes through as many rounds as
    then, whatever time they take. Raises UsageError when the model or the prompts are not those of the lock, unless
    `anyway`; HafsError as the recipe or the loop does.
    """
    kind, work = _work(locked)
    if model is not None:
        work = replace(work, model=model)
    _same_input(locked, work.model, kind.prompts(work), anyway)
    _use_threads(int(locked["environment"]["threads"]))
    outcome = kind.run(work, workspace, say, progress)
    with workspace.open_store() as store:
        done = store.get_run(Run(kind.name, work.to_dict()).id)
        assert done is not None
        answers = _answers(store, kind.evaluated(done))
        table = list(_differences(locked["table"], json.loads(json.dumps(kind.table(done.outputs)))))
    table += [
        (f"answers of {k}", str(v), str(answers.get(k))) for k, v in locked["answers"].items() if answers.get(k) != v
    ]
    return Reproduced(
        outcome,
        tuple(_differences(locked["environment"], environment())),
        tuple(_differences(locked["models"], _models(workspace))),
        tuple(table),
    )


class _Recipe:
    """How a recipe is read from its record, run again and compared."""

    name = "recipe"
    read = staticmethod(recipe_of)
    run = staticmethod(recipes.run)

    @staticmethod
    def row(done: Run) -> dict[str, Any]:
        return dict(done.config)

    @staticmethod
    def prompts(work: Recipe) -> dict[str, list[Prompt]]:
        taught, asked, held = recipes.prompts_of(work)
        return {
            "sft": taught,
            "preferences": asked,
            "validation": held,
            **{f"benchmark {b}": tasks.benchmark(b) for b in work.benchmarks},
        }

    @staticmethod
    def kept(done: Run) -> str:
        return str(done.outputs["promoted"])

    @staticmethod
    def table(outputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(outputs["comparison"])

    @staticmethod
    def evaluated(done: Run) -> set[tuple[str, str]]:
        table = Comparison.from_dict(done.outputs["comparison"])
        return {(m, b.name) for m in (*table.models, *table.same) for b in table.benchmarks}


class _Loop:
    """The same for a loop."""

    name = "loop"
    read = staticmethod(loop_of)

    @staticmethod
    def row(done: Run) -> dict[str, Any]:
        """Its settings, with as many rounds as it had and no limit of time or money: those are of one machine."""
        settings = dict(done.config["settings"])
        settings["loop"] = {
            **settings["loop"],
            "max_rounds": len(done.outputs["rounds"]),
            "max_minutes": 0.0,
            "budget": 0.0,
            "price_per_hour": 0.0,
        }
        return {**done.config, "settings": settings, "model": done.outputs["model"]}

    @staticmethod
    def run(work: Loop, workspace: Workspace, say: Any, progress: Progress) -> loops.LoopOutcome:
        return loops.run(work, workspace, say, progress)

    @staticmethod
    def prompts(work: Loop) -> dict[str, list[Prompt]]:
        source, reported = loops.prompts_of(work.config)
        named = {"sft": [] if work.taught else source.taught, "decision": source.decision}
        return {**named, "checkpoint": source.checkpoint, **{f"benchmark {b}": p for b, p in reported.items()}}

    @staticmethod
    def kept(done: Run) -> str:
        return str(done.outputs["kept"])

    @staticmethod
    def table(outputs: Mapping[str, Any]) -> dict[str, Any]:
        return {key: outputs[key] for key in ("kept", "kept_hash", "scores", "rounds", "comparison")}

    @staticmethod
    def evaluated(done: Run) -> set[tuple[str, str]]:
        return {(model, benchmark) for model, rates in done.outputs["scores"].items() for benchmark in rates}


_KINDS: dict[str, Any] = {"recipe": _Recipe, "loop": _Loop}


def _work(locked: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of which kind a lock is, and the recipe or loop in it."""
    kind = next(kind for name, kind in _KINDS.items() if name in locked)
    return kind, kind.read(locked[kind.name])


def environment() -> dict[str, Any]:
    """What a figure depends on beside data, model and settings: versions, commit, machine, threads."""
    import torch

    from hafs.models.loading import pick_precision

    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "precision": pick_precision(),
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "tools": _tools(),
    }


def _use_threads(n: int) -> None:
    """Compute with as many threads as then: how a sum is split among them decides its last digit."""
    import torch

    torch.set_num_threads(n)


def _tools() -> dict[str, str]:
    """The hashes of the programs that check the answers (assembler, emulator); "" where one is missing."""
    from hafs.files.fetch import file_sha256

    rows = [row for domain in domains() for row in domain.tools()]
    return {row["name"]: file_sha256(Path(row["path"]))[:20] if row["path"] else "" for row in rows}


def _commit() -> str:
    """The commit of a hafs that runs from its repository, "+" behind it when files were changed; else ""."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", Path(__file__).name):
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _model(name: str) -> dict[str, str]:
    """The model a recipe begins with: its name here, its content hash, and how text becomes tokens for it."""
    from hafs.models.chat import template_hash, tokenizer_hash
    from hafs.models.loading import load_tokenizer

    path = resolve(name)
    tokenizer = load_tokenizer(path)
    return {
        "name": name,
        "hash": model_hash(path),
        "template": template_hash(tokenizer),
        "tokenizer": tokenizer_hash(tokenizer),
    }


def _hash(prompts: Sequence[Prompt]) -> str:
    return content_id("prompts", [p.to_dict() for p in prompts])


def _models(workspace: Workspace) -> dict[str, str]:
    """The hashes of the models that were made."""
    folder = workspace.root / "models"
    made = {path.name: path / "model" for path in sorted(folder.iterdir()) if (path / "model").is_dir()}
    return {name: model_hash(path) for name, path in made.items()}


def _answers(store: Store, wanted: set[tuple[str, str]]) -> dict[str, str]:
    """The hash of every answer with what its checker said, by the (model, benchmark) pairs behind a table."""
    newest = {(r.name, r.benchmark): r for r in newest_results(store) if (r.name, r.benchmark) in wanted}
    return {
        f"{name} on {benchmark}": content_id(
            "answers", [[r.prompt_id, r.text, r.passed, r.cause] for r in found.results]
        )
        for (name, benchmark), found in sorted(newest.items())
    }


def _same_input(locked: Mapping[str, Any], model: str, prompts: Mapping[str, Sequence[Prompt]], anyway: bool) -> None:
    """Raise UsageError naming what is not as locked of model and prompts, unless `anyway`."""
    now = {
        "model": {k: v for k, v in _model(model).items() if k != "name"},
        "data": {what: _hash(found) for what, found in prompts.items()},
    }
    then = {"model": {k: v for k, v in locked["model"].items() if k != "name"}, "data": locked["data"]}
    changed = [what for what, _, _ in _differences(then, now)]
    if changed and not anyway:
        raise UsageError(
            f"this is not what was locked: {', '.join(changed)}",
            "use the hafs and the model that the lock names (--model DIR), or --anyway",
        )


def _differences(then: Any, now: Any, where: str = "") -> list[tuple[str, str, str]]:
    """(what, then, now) of every value that differs between two trees of plain data."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = [*then, *(k for k in now if k not in then)]
        return [d for k in keys for d in _differences(then.get(k), now.get(k), f"{where} {k}".strip())]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [d for i, (a, b) in enumerate(zip(then, now, strict=True)) for d in _differences(a, b, f"{where} {i}")]
    return [] if then == now else [(where, _told(then), _told(now))]


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
