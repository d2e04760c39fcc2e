"""What is in a workspace, which processes work in it, and what to type next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs.config import Config
from hafs.scorers.run import checker_of, scorer_name
from hafs.store import Store, Workspace

WHAT = ("prompts", "candidates", "scores", "verdicts", "annotations", "groups")
"""The kinds of rows that are counted, in the order of the work."""


@dataclass(frozen=True)
class RunningProcess:
    """A process of hafs in the workspace."""

    pid: int
    command: str
    seconds: float


@dataclass(frozen=True)
class Status:
    """What is in a workspace. `models` maps a model's folder to how its training ended, `results` a model's name to its
    pass rates by benchmark, `loop` is how the loop stands ("" for none).
    """

    root: Path
    model: str
    counts: Mapping[str, int]
    splits: Mapping[str, int]
    checkers: Mapping[str, int]
    models: Mapping[str, str]
    results: Mapping[str, Mapping[str, float | None]]
    loop: str
    best: Mapping[str, str]
    running: tuple[RunningProcess, ...]
    next: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        running = [vars(p) for p in self.running]
        return {**vars(self), "root": str(self.root), "running": running, "next": list(self.next)}


def status(space: Workspace) -> Status:
    """Look at a workspace; nothing is changed."""
    running = processes(space.root)
    models = _models(space.root)
    best = _read(space.root / "models" / "best.json")
    with space.open_store() as store:
        known = store.counts()
        counts = {kind: known[kind] for kind in (*WHAT, "unscored")}
        splits = {s: n for s in ("train", "validation", "test") if (n := store.count_prompts(split=s))}
        checkers: dict[str, int] = {}
        for p in store.prompts():
            name = checker_of(p) or scorer_name(space.config) or "none"
            checkers[name] = checkers.get(name, 0) + 1
        loop = _loop(store, running)
        results = _results(store)
        todo = _next(space, store, counts, models, results, loop, running)
    return Status(
        space.root,
        space.config.model.name,
        counts,
        splits,
        checkers,
        models,
        results,
        loop,
        {k: str(best[k]) for k in ("name", "path", "reason") if k in best},
        running,
        todo,
    )


def _models(root: Path) -> dict[str, str]:
    """The folders under `models` that a training has, and whether it ended."""
    found = {}
    for run in sorted((root / "models").glob("*/run.json")):
        found[run.parent.name] = "trained" if _read(run).get("result") else "not finished"
    return found


def _results(store: Store) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for run in store.ended("eval"):
        if name := run.config.get("name"):
            n, passed = run.metrics.get("scored", 0), run.metrics.get("passed", 0)
            found.setdefault(str(name), {})[str(run.config.get("benchmark", ""))] = passed / n if n else None
    return found


def _loop(store: Store, running: Sequence[RunningProcess]) -> str:
    runs = sorted(store.runs(kind="loop"), key=lambda r: r.started or 0)
    if not runs:
        return ""
    if runs[-1].status == "finished":
        return "finished"
    return "running" if any(" loop run" in p.command for p in running) else "not finished"


def _next(
    space: Workspace,
    store: Store,
    counts: Mapping[str, int],
    models: Mapping[str, str],
    results: Mapping[str, Any],
    loop: str,
    running: Sequence[RunningProcess],
) -> tuple[str, ...]:
    """What to type next: what is unfinished first, then the next stage of the work."""
    config: Config = space.config
    own = [name for name in results if name not in ("baseline", "start")]
    if loop == "finished":
        names = [n for n in ("baseline", "start", "sft") if n in results] + [n for n in own if n != "sft"]
        return (f"hafs compare {' '.join(names)}", "hafs report --open")
    if running:
        return ("hafs status",)
    if loop or (config.loop.prompts and not counts["candidates"]):
        return ("hafs loop run",)
    if not counts["prompts"]:
        return ("hafs start --workspace . --overwrite", "hafs generate --prompts FILE")
    if not counts["candidates"]:
        return ("hafs generate",)
    decided = counts["verdicts"] + counts["annotations"]
    if counts["scores"] + decided == 0:
        checked = any(checker_of(p) for p in store.prompts()) or scorer_name(config) != "automatic"
        return ("hafs score",) if checked else ("hafs annotate start", "hafs judge run --judge NAME --estimate")
    if not counts["groups"] and not models:
        return ("hafs preferences build --from human",) if counts["annotations"] else ("hafs preferences build",)
    if unfinished := [name for name, how in models.items() if how == "not finished"]:
        return (f"the command that trained {unfinished[0]} again: it goes on from its last checkpoint",)
    if counts["groups"] and "dpo" not in models:
        start = "models/sft/model" if "sft" in models else config.model.name
        return (f"hafs train dpo --sft_model {start}",)
    if missing := [name for name in models if name not in results]:
        return tuple(f"hafs eval --model models/{name}/model --name {name}" for name in missing)
    if "baseline" not in results and len(results) < 2:
        return (f"hafs eval --model {config.model.name} --name baseline",)
    return (f"hafs compare {' '.join(results)}", f"hafs report {' '.join(results)} --open")


# ---- processes


def processes(root: Path) -> tuple[RunningProcess, ...]:
    """The processes of hafs on this machine that work in the workspace at `root`, this one aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if pid == os.getpid() or not (said := _verb(words)):
                continue
            if _workspace_of(folder, words) == root.resolve():
                began = folder.stat().st_ctime
                found.append(RunningProcess(pid, f"hafs {' '.join(said)}", max(0.0, time.time() - began)))
        except (OSError, ValueError):  # it has ended, or is another user's
            continue
    return tuple(sorted(found, key=lambda p: p.pid))


def _verb(words: Sequence[str]) -> list[str]:
    """What was typed behind `hafs` in a command line; empty where it is no command of hafs."""
    for i, word in enumerate(words[:4]):
        if word == "-m" and words[i + 1 : i + 2] == ["hafs"] and "python" in Path(words[0]).name:
            return list(words[i + 2 :])
        if Path(word).name == "hafs" and (i == 0 or "python" in Path(words[0]).name):
            return list(words[i + 1 :])
    return []


def _workspace_of(folder: Path, words: Sequence[str]) -> Path | None:
    """The workspace that a process works in: by its flag, its environment, or its folder."""
    here = (folder / "cwd").readlink()
    for i, word in enumerate(words):
        if word in ("-w", "--workspace") and i + 1 < len(words):
            return (here / words[i + 1]).resolve()
        if word.startswith("--workspace="):
            return (here / word.partition("=")[2]).resolve()
    for entry in (folder / "environ").read_bytes().split(b"\0"):
        if entry.startswith(b"HAFS_WORKSPACE="):
            return (here / entry.partition(b"=")[2].decode(errors="replace")).resolve()
    return next((d for d in (here, *here.parents) if (d / "hafs.toml").exists()), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
