"""The scorer itself: candidates in, scores out, several at a time, each identical answer examined once."""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from hafs.errors import DataError, HafsError, MissingTool, UsageError
from hafs.sandbox import open_sandbox
from hafs.types import Candidate, Prompt, Score, content_id
from hafs_snes import tools
from hafs_snes.scorer.check import Check, parse_check
from hafs_snes.scorer.emulator import EmulatorDied
from hafs_snes.scorer.grade import Grade, grade, grade_value
from hafs_snes.scorer.run import Bench

__all__ = ["AsmScorer", "verify"]

AHEAD = 8  # answers handed out per worker before the first is taken back


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Asked:
    """A prompt as the scorer needs it: its id (the seed), its check, and an id of both."""

    prompt_id: str
    check: Check | None
    content: str


class AsmScorer:
    """Scores answers to prompts with checker "asm" on a real assembler and emulator.

    `arguments` are empty: nothing that can be set changes a score. The threads of a pool each own a bench
    (assembler in the sandbox, emulator in a process); the work happens in those processes, so the threads use
    all cores.
    """

    name = "asm"
    version = "2"

    def __init__(
        self, workers: int | None = None, sandbox: str = "auto", seconds: float = 60.0, argument: str = ""
    ) -> None:
        """`workers` is how many answers run at once (default: the cores this process may use), `sandbox` a
        kind for open_sandbox, `seconds` the wall-clock limit of the emulator for one answer.
        """
        if argument:
            raise UsageError(f"the scorer asm takes no argument ({argument!r})", "write it as asm")
        self.arguments: Mapping[str, Any] = {}
        self.workers = workers or _cores()
        self._sandbox, self._seconds = sandbox, seconds
        self._free: queue.SimpleQueue[Bench] = queue.SimpleQueue()
        self._benches: list[Bench] = []
        self._missing = ""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in order; unscored with the reason where a tool is missing or broke.

        Raises DataError when a prompt's check is malformed, before anything runs.
        """
        asked: dict[int, _Asked] = {}
        for prompt, _ in items:
            if id(prompt) not in asked:
                asked[id(prompt)] = _Asked(prompt.id, _check_of(prompt), content_id(prompt.id, prompt.check))
        return self._score(items, asked)

    def close(self) -> None:
        """End the emulators and the threads. The scorer can be used again afterwards."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for bench in self._benches:
            bench.close()
        self._benches, self._pool, self._free = [], None, queue.SimpleQueue()

    def __enter__(self) -> AsmScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def vanilla(self, prompt: Prompt) -> Score:
        """Run the vanilla code of a prompt's check on its vectors: does it do what they say?"""
        check = _check_of(prompt)
        assert check is not None and check.vanilla and check.vectors

        def examine(bench: Bench) -> Grade:
            return grade(check, bench.vanilla(check, prompt.id))

        candidate = Candidate(prompt.id, check.vanilla, source="vanilla", model_name="vanilla")
        return self._to_score(candidate, self._attempt(examine))

    # -- the work ---
    def _score(self, items: Sequence[tuple[Prompt, Candidate]], asked: Mapping[int, _Asked]) -> Iterator[Score]:
        pool = self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="asm")
        jobs: dict[tuple[str, str], Future[Grade | str]] = {}
        keys = [(asked[id(prompt)].content, candidate.text) for prompt, candidate in items]
        handed = 0
        try:
            for n, (_, candidate) in enumerate(items):
                while handed < min(len(items), n + 1 + AHEAD * self.workers):
                    key, task = keys[handed], asked[id(items[handed][0])]
                    if key not in jobs:
                        jobs[key] = pool.submit(self._examine, task, key[1])
                    handed += 1
                yield self._to_score(candidate, jobs[keys[n]].result())
        finally:
            for job in jobs.values():
                job.cancel()

    def _examine(self, asked: _Asked, answer: str) -> Grade | str:
        check = asked.check
        if check is None:
            return "the prompt has no check for this scorer"

        def examine(bench: Bench) -> Grade:
            report = bench.examine(check, asked.prompt_id, answer)
            if check.kind == "value":
                return grade_value(check, report)
            improve = check.baseline is not None and report.solved
            return grade(check, report, bench.baseline(check, asked.prompt_id) if improve else None)

        return self._attempt(examine)

    def _attempt(self, examine: Callable[[Bench], Grade]) -> Grade | str:
        """The grade, or why there is none."""
        if self._missing:
            return self._missing
        try:
            with self._bench() as bench:
                return examine(bench)
        except MissingTool as e:
            self._missing = f"{e.what} ({e.fix})" if e.fix else e.what
            return self._missing
        except DataError:
            raise
        except (HafsError, EmulatorDied) as e:
            return e.what if isinstance(e, HafsError) else str(e)
        except Exception as e:  # what one answer did to our own code must not end the scoring of all
            return f"the scorer failed on this answer: {type(e).__name__}: {e}"[:300]

    @contextmanager
    def _bench(self) -> Iterator[Bench]:
        try:
            bench = self._free.get_nowait()
        except queue.Empty:
            bench = self._new_bench()
        try:
            yield bench
        finally:
            self._free.put(bench)

    def _new_bench(self) -> Bench:
        if importlib.util.find_spec("libretro") is None:
            raise MissingTool("the Python package libretro.py is not installed", "pip install 'hafs[asm]'")
        with self._lock:  # the first one builds the harness for all
            bench = Bench(
                tools.asar(), tools.bsnes_core(), tools.cache_root(), open_sandbox(self._sandbox), self._seconds
            )
            self._benches.append(bench)
        return bench

    def _to_score(self, candidate: Candidate, result: Grade | str) -> Score:
        blank = Score(candidate.id, self.name, self.version, self.arguments, reason="not examined")
        if isinstance(result, str):
            return replace(blank, reason=result)
        return replace(blank, reason="", **asdict(result))


def _check_of(prompt: Prompt) -> Check | None:
    if prompt.checker != AsmScorer.name:
        return None
    try:
        return parse_check(prompt.check)
    except DataError as e:
        raise DataError(f"prompt {prompt.id} ({prompt.text[:40]!r}): {e.what}", e.fix) from None


def verify(prompt: Prompt, scorer: AsmScorer | None = None) -> list[Score]:
    """Run every reference of a prompt, and a question's vanilla code: in a sound prompt all of them pass.

    The scores come in the order of the references, the vanilla code's last. Give a scorer to verify many prompts.
    """
    owned = scorer is None
    scorer = scorer or AsmScorer(workers=1)
    try:
        references = [Candidate(prompt.id, r.text, source="reference", model_name=r.name) for r in prompt.references]
        scores = list(scorer.score([(prompt, c) for c in references]))
        check = _check_of(prompt)
        if check and check.kind == "value" and check.vanilla and check.vectors:
            scores.append(scorer.vanilla(prompt))
        return scores
    finally:
        if owned:
            scorer.close()
