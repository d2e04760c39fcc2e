"""Tasks: prompts whose answers a program can check, as rows of plain data.

A row is a `Prompt` with `checker` and `check` filled in, so a user can write one by hand in JSON lines; a
task pack generates them. The split of a prompt is a property of its text (80 % train, 10 % validation, 10 %
test). A pack keeps some phrasings for the test split alone, so a benchmark asks nothing that training has
seen, in the same words or in others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from hafs import registry
from hafs.errors import UsageError
from hafs.tasks.domain import domains
from hafs.types import Prompt

__all__ = [
    "BENCHMARKS",
    "SPLITS",
    "TaskPack",
    "benchmark",
    "benchmark_name",
    "benchmark_names",
    "generate",
    "split_of",
    "task_file",
]

SPLITS = ("train", "validation", "test")

BENCHMARKS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "python": ("python", 200, ()),
    **{name: made for domain in domains() for name, made in domain.benchmarks.items()},
}
"""Name of a benchmark -> task pack, number of prompts, tags its families must have."""


class TaskPack(Protocol):
    """What the registry's task packs can do."""

    name: str

    def generate(
        self,
        split: str,
        n: int,
        seed: int = 0,
        families: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> list[Prompt]:
        """`n` different prompts of a split; the first ones of a longer call are those of a shorter one."""


def split_of(text: str) -> str:
    """ "train" (80 %), "validation" (10 %) or "test" (10 %), from the prompt's text alone."""
    tenth = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") % 10
    return "train" if tenth < 8 else "validation" if tenth == 8 else "test"


def generate(
    pack: str,
    split: str,
    n: int,
    seed: int = 0,
    families: Collection[str] | None = None,
    tags: Collection[str] | None = None,
) -> list[Prompt]:
    """`n` different prompts of a registered pack, the same on every machine for the same arguments.

    Families take turns so that every category has its share. `families` and `tags` narrow the choice (a
    family must have all the tags). Raises UsageError for an unknown pack, split, family or tag, or when there
    are not enough.
    """
    loaded: TaskPack = registry.load("tasks", pack)
    return loaded.generate(split, n, seed, families, tags)


def benchmark(name: str) -> list[Prompt]:
    """The prompts of a benchmark, always the same ones, all of the test split. Raises UsageError."""
    if name not in BENCHMARKS:
        raise UsageError(f"there is no benchmark {name!r}", f"use one of: {', '.join(BENCHMARKS)}")
    pack, n, tags = BENCHMARKS[name]
    return generate(pack, "test", n, seed=1, tags=tags)


def task_file(which: str) -> Path | None:
    """The file that a benchmark is written as; None for one that hafs brings, and for what is neither."""
    path = Path(which).expanduser()
    return None if which in BENCHMARKS or not path.exists() else path


def benchmark_name(which: str) -> str:
    """What a benchmark is called in results: a task file by its name without folder and ending, another as it is.

    Raises UsageError for a task file that would be called as a benchmark that hafs brings.
    """
    path = task_file(which)
    if path is None:
        return which
    if path.stem in BENCHMARKS:
        raise UsageError(f"{path} would have the name of the benchmark {path.stem} in results", "rename the file")
    return path.stem


def benchmark_names(which: Iterable[str]) -> dict[str, str]:
    """Benchmarks and task files by what they are called; one that comes twice is taken once.

    Raises UsageError for two files of one name: their results could not be told apart.
    """
    found: dict[str, str] = {}
    for one in which:
        other = found.setdefault(benchmark_name(one), one)
        if Path(other).expanduser().resolve() != Path(one).expanduser().resolve():
            raise UsageError(
                f"{other} and {one} would have one name in results: {benchmark_name(one)}", "rename one of the files"
            )
    return found
