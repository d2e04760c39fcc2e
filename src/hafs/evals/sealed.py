"""A sealed final test set: put away before the work, opened once, and every opening on record.

Sealing keeps a copy of the prompts in the workspace and their hash in its database. Opening evaluates all models that
are to be compared in one go. A second opening of other models is refused unless it is forced, and from then on every
table with the set says how often it was opened: figures that choices were made by are no longer a first look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from hafs.data import read_prompts
from hafs.errors import DataError, UsageError
from hafs.evals import EvalResult
from hafs.evals.contamination import refuse_contaminated
from hafs.evals.evaluate import evaluate
from hafs.files.jsonl import write_jsonl
from hafs.models.naming import model_hash, resolve
from hafs.scorers.run import scorer_for, try_commands
from hafs.store import Run, Store, Workspace
from hafs.tasks import BENCHMARKS
from hafs.types import Progress, Prompt, content_id, silent

__all__ = ["open_sealed", "openings", "refuse_sealed", "seal", "sealed_notes"]

FOLDER = "sealed"


def seal(workspace: Workspace, store: Store, name: str, prompts: Sequence[Prompt]) -> Path:
    """Put `prompts` away under `name`; returns the copy that is kept. Sealing the same prompts again does nothing.

    Raises UsageError for a name that is taken or cannot be one, or when a prompt was already used in this workspace.
    """
    if not re.fullmatch(r"[\w-]{1,40}", name) or name in BENCHMARKS:
        raise UsageError(
            f"a sealed set cannot be called {name!r}", "use letters, digits, - and _, and no benchmark's name"
        )
    digest = _digest(prompts)
    path = workspace.root / FOLDER / f"{name}.jsonl"
    known = _sealed(store).get(name)
    if known is not None:
        if known.inputs["prompts"] != digest:
            raise UsageError(f"another set is sealed under the name {name!r}", "choose another name")
        return path
    used = list(store.prompts(ids=[p.id for p in prompts]))
    if used:
        raise UsageError(
            f"{len(used)} of the prompts are in the workspace already, as {used[0].text[:60]!r}",
            "seal prompts that nothing was trained, generated or evaluated with",
        )
    write_jsonl(path, prompts)
    path.chmod(0o400)
    kept = {"file": f"{FOLDER}/{name}.jsonl", "ids": [p.id for p in prompts]}
    store.keep_run("seal", {"name": name}, {"prompts": digest}, metrics={"prompts": len(prompts)}, outputs=kept)
    return path


def refuse_sealed(store: Store, prompts: Iterable[Prompt]) -> None:
    """Raise UsageError when a prompt belongs to a sealed set: only `open_sealed` asks those, nothing learns them."""
    sealed = _sealed(store)
    asked = {p.id for p in prompts} if sealed else set()
    for name, run in sealed.items():
        if n := len(asked & set(run.outputs["ids"])):
            raise UsageError(
                f"{n} of these prompts are sealed in {name!r}: they are asked once, when all is done",
                f"take them out, or open the set: hafs eval open {name} --model NAME=MODEL",
            )


def openings(store: Store, name: str) -> list[Run]:
    """Every opening of a sealed set, the first one first."""
    found = [r for r in store.runs(kind="open-seal") if r.config["name"] == name]
    return sorted(found, key=lambda r: r.metrics.get("opened", r.started))


def open_sealed(
    workspace: Workspace,
    store: Store,
    name: str,
    models: Mapping[str, str],
    *,
    again: bool = False,
    allow_contaminated: bool = False,
    progress: Progress = silent,
) -> tuple[dict[str, list[EvalResult]], list[str]]:
    """Evaluate `models` (name -> model) on a sealed set, all in this opening; the same models may be shown again.

    Returns the results by name and what a table should say of openings and training data. Raises UsageError when there
    is no such set, when its copy was changed, when it was opened before with other models and `again` is not set, or
    when one of the models was trained on it and that is not allowed; a refused set stays sealed.
    """
    known = _sealed(store).get(name)
    if known is None:
        raise UsageError(f"no set is sealed under the name {name!r}", f"hafs eval seal {name} FILE")
    paths = {who: resolve(model) for who, model in models.items()}
    hashes = {who: model_hash(path) for who, path in paths.items()}
    before = openings(store, name)
    same = [r for r in before if r.config["models"] == hashes]
    if before and not same and not again:
        raise UsageError(
            f"{name} was opened before ({_told(before[0])}): a second look is no longer a final test",
            "seal fresh prompts under another name, or force it with --again: every later table will say so",
        )
    prompts = _read(workspace.root / str(known.outputs["file"]), str(known.inputs["prompts"]))
    notes = refuse_contaminated(
        {p.id: p.text for p in prompts},
        {who: [h] for who, h in hashes.items()},
        [workspace.root],
        paths.values(),
        allowed=allow_contaminated,
        fix="open it anyway with --allow-contaminated; it stays sealed now",
        threshold=workspace.config.eval.near_copy,
    )
    opening = store.once("open-seal", {"name": name, "models": hashes}, {"prompts": known.inputs["prompts"]})
    config = workspace.config
    try_commands(config, prompts)
    with closing(scorer_for(config)) as scorer:
        results = {
            who: [evaluate(store, scorer, model, who, name, prompts, config.eval, progress)]
            for who, model in models.items()
        }
    if not same or same[0].status != "finished":
        passed = {who: r[0].passed for who, r in results.items()}
        opening.finish({"passed": passed, "opened": _started(store, opening.id)})
    return results, [*sealed_notes(store, [name]), *notes]


def sealed_notes(store: Store, benchmarks: Sequence[str]) -> list[str]:
    """For each sealed set among `benchmarks`: how often it was opened, when and for which models."""
    notes = []
    for name in benchmarks:
        if name not in _sealed(store):
            continue
        opened = openings(store, name)
        when = "; ".join(_told(r) for r in opened)
        if len(opened) > 1:
            notes.append(
                f"{name} is a sealed set that was opened {len(opened)} times ({when}): its figures are no"
                " longer a first look."
            )
        else:
            notes.append(f"{name} is a sealed set, opened once ({when}).")
    return notes


def _sealed(store: Store) -> dict[str, Run]:
    return {str(r.config["name"]): r for r in store.ended("seal")}


def _started(store: Store, run: str) -> float:
    found = store.get_run(run)
    return found.started if found else 0.0


def _digest(prompts: Sequence[Prompt]) -> str:
    return content_id("sealed", sorted(content_id(p.to_dict()) for p in prompts))


def _read(path: Path, digest: str) -> list[Prompt]:
    prompts = read_prompts(path).rows
    if _digest(prompts) != digest:
        raise DataError(f"{path} is not what was sealed: it has been changed", "restore the file from a copy")
    return prompts


def _told(run: Run) -> str:
    when = datetime.fromtimestamp(run.metrics.get("opened", run.started), UTC)
    return f"{when:%Y-%m-%d} for {', '.join(run.config['models'])}"
