"""Preference groups of a store, made by as many processes as its size is worth.

To read, group and encode them is work for a processor. A large store is read in shares of its prompts, a process for
each, and the process that was asked only inserts. However many there are, the same groups come in the same order.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from hafs.errors import HafsError
from hafs.preferences import BuildReport, Stats, groups_of_scorer
from hafs.preferences.build import LEFT_OUT_BY_PERSON
from hafs.store import Store, open_store
from hafs.store.marks import Exclusions
from hafs.types import Progress, Prompt, RatedAnswer, silent

MANY = 20_000
"""Prompts of a share at least: a process takes a second or two to start."""

MOST = 4
"""Processes at most: one that inserts cannot keep up with more."""

Share = tuple[str, str]
"""Ids of prompts from the first (included) to the second (not included; "" for no end)."""


@dataclass(frozen=True)
class Build:
    """What is built from which store: a scorer's rankings, how they become edges, and of which candidates."""

    url: str
    scorer: str
    version: str
    arguments: Mapping[str, Any]
    pairing: Mapping[str, Any]
    filters: Mapping[str, Any]


@dataclass
class Built:
    """What came of a share: the groups' ids in their order, what became of its prompts, what is in the groups."""

    ids: list[str] = field(default_factory=list)
    report: BuildReport = field(default_factory=BuildReport)
    stats: Stats = field(default_factory=Stats)

    def __add__(self, other: Built) -> Built:
        """Both together."""
        return Built(self.ids + other.ids, self.report + other.report, self.stats + other.stats)


def build(store: Store, work: Build, progress: Progress = silent, processes: int = 0) -> Built:
    """Make the groups and put them into `store`; `processes` 0 takes as many as the prompts are worth.

    Raises HafsError for what the database says, or when a process ends without a word; what was put in stays in.
    """
    prompts = store.count_prompts(**{k: v for k, v in work.filters.items() if k in ("prompt_ids", "split", "family")})
    n = processes or max(1, min(MOST, len(os.sched_getaffinity(0)), prompts // MANY))
    shares = _shares(n)
    found = [Built() for _ in shares]
    seen = [0] * n
    with few_cycles():
        made = _here(store, work, shares[0]) if n == 1 else _elsewhere(work, shares)
        for i, rows, so_far in made:
            found[i].ids += [row["id"] for row in rows]
            found[i].report, found[i].stats = so_far
            store.add_encoded("groups", rows)
            seen[i] = so_far[0].prompts
            progress("building", sum(seen), prompts, {})
    return sum(found[1:], found[0])


def _shares(n: int) -> list[Share]:
    """`n` shares of about the same size: ids are hexadecimal digits of a hash."""
    bounds = ["", *(f"{(i << 32) // n:08x}" for i in range(1, n)), ""]
    return list(pairwise(bounds))


Made = tuple[int, list[dict[str, Any]], tuple[BuildReport, Stats]]
"""The number of a share, rows of its groups, and what has become of it so far."""


def _here(store: Store, work: Build, share: Share, number: int = 0) -> Iterator[Made]:
    stored = store.ranked_answers(work.scorer, work.version, work.arguments, between=share, **work.filters)
    excluded = Exclusions.of(store)

    def allowed() -> Iterator[tuple[Prompt, list[RatedAnswer]]]:
        for prompt, answers in stored:
            if prompt.id in excluded.whole:
                report.prompts += 1
                report.skipped[LEFT_OUT_BY_PERSON] += 1
            else:
                kept = excluded.answers(answers)
                report.left_out += len(answers) - len(kept)
                yield prompt, kept

    made, report = groups_of_scorer(allowed(), f"{work.scorer}@{work.version}", **work.pairing)
    stats = Stats()
    for rows in store.encoded("groups", stats.counted(made)):
        yield number, rows, (report, stats)
    yield number, [], (report, stats)


def _elsewhere(work: Build, shares: Sequence[Share]) -> Iterator[Made]:
    """What the shares' processes make, as it comes; a process waits while what it made last is not taken."""
    with ExitStack() as stack:
        waiting = [stack.enter_context(_process(work, share, i)) for i, share in enumerate(shares)]
        while waiting:
            for pipe in cast("list[Connection]", wait(waiting)):
                try:
                    made = pipe.recv()
                except EOFError as e:
                    raise HafsError(
                        "a process that made preference groups ended without a word",
                        "see whether memory ran out; the same command begins again",
                    ) from e
                if isinstance(made, HafsError):
                    raise made
                if made is None:
                    waiting.remove(pipe)
                else:
                    yield made


@contextmanager
def _process(work: Build, share: Share, number: int) -> Iterator[Connection]:
    """A process that makes a share, and the pipe on which it sends what `_here` gives, then None, or its error.

    It has a session of its own, so Ctrl-C is left to the process that asked.
    """
    mine, theirs = Pipe()
    fd = theirs.fileno()
    process = subprocess.Popen(
        [sys.executable, "-m", "hafs.preferences.parallel", str(fd)], pass_fds=[fd], start_new_session=True
    )
    theirs.close()
    try:
        mine.send((work, share, number))
        yield mine
    finally:
        mine.close()
        process.kill()
        process.wait()


def _serve(pipe: Connection) -> None:
    """What such a process does."""
    work, share, number = pipe.recv()
    try:
        with open_store(work.url) as store, few_cycles():
            for made in _here(store, work, share, number):
                pipe.send(made)
        pipe.send(None)
    except HafsError as e:
        pipe.send(e)


@contextmanager
def few_cycles() -> Iterator[None]:
    """Work whose objects nearly all go by reference count: looking for cycles at Python's own pace took a fifth."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


if __name__ == "__main__":
    with suppress(BrokenPipeError, EOFError):  # nobody asks any more
        _serve(Connection(int(sys.argv[1])))
