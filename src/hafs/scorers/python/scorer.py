"""The scorer itself: candidates in, scores out, several at a time, each identical answer examined once."""

from __future__ import annotations

import os
import platform
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hafs.errors import DataError, HafsError, MissingTool, UsageError
from hafs.sandbox import Sandbox, open_sandbox
from hafs.scorers.python.check import PythonCheck, parse_check
from hafs.scorers.python.extract import extract
from hafs.scorers.python.grade import grade
from hafs.scorers.python.lint import findings, ruff_version
from hafs.scorers.python.run import PythonReport, Task, work
from hafs.types import Candidate, Prompt, Score, content_id

__all__ = ["PythonScorer"]

BATCH = 16  # answers of one start of the sandbox
Key = tuple[str, str]


class PythonScorer:
    """Scores answers to prompts with checker "python" by running them on the prompt's cases or tests.

    `arguments` hold the versions of ruff and of Python, which decide what is found and what runs.
    """

    name = "python"
    version = "3"

    def __init__(self, workers: int | None = None, sandbox: str = "auto", argument: str = "") -> None:
        """`workers` is how many batches run at once (default: the cores this process may use), `sandbox` a kind for
        open_sandbox.
        """
        if argument:
            raise UsageError(f"the scorer python takes no argument ({argument!r})", "write it as python")
        try:
            ruff = ruff_version()
        except HafsError:  # each score says so
            ruff = "missing"
        self.arguments: Mapping[str, Any] = {"python": ".".join(platform.python_version_tuple()[:2]), "ruff": ruff}
        self.workers = workers or len(os.sched_getaffinity(0))
        self._kind = sandbox
        self._free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._boxes: list[Sandbox] = []
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in order; unscored with the reason where a tool is missing or the sandbox broke.

        Raises DataError when a prompt's check is malformed, before anything runs.
        """
        checks: dict[int, tuple[str, PythonCheck | None]] = {}
        for prompt, _ in items:
            if id(prompt) not in checks:
                checks[id(prompt)] = (content_id(prompt.check), _check_of(prompt))
        return self._score(items, checks)

    def close(self) -> None:
        """End the threads and the sandboxes. The scorer can be used again afterwards."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for box in self._boxes:
            box.close()
        self._boxes, self._pool, self._free = [], None, queue.SimpleQueue()

    def __enter__(self) -> PythonScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the work ---
    def _score(
        self, items: Sequence[tuple[Prompt, Candidate]], checks: Mapping[int, tuple[str, PythonCheck | None]]
    ) -> Iterator[Score]:
        pool = self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="python")
        keys: list[Key] = [(checks[id(p)][0], c.text) for p, c in items]
        unique = {key: checks[id(items[i][0])][1] for i, key in reversed(list(enumerate(keys)))}
        order = list(dict.fromkeys(keys))
        size = min(BATCH, -(-len(order) // self.workers) or 1)
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        jobs: dict[Key, Future[dict[Key, dict[str, Any] | str]]] = {}
        handed = 0
        try:
            for (_, candidate), key in zip(items, keys, strict=True):
                while handed < len(batches) and (key not in jobs or handed < self._wanted(jobs)):
                    batch = batches[handed]
                    jobs |= dict.fromkeys(batch, pool.submit(self._examine, [(k, unique[k]) for k in batch]))
                    handed += 1
                yield self._to_score(candidate, jobs[key].result()[key])
        finally:
            for job in jobs.values():
                job.cancel()

    def _wanted(self, jobs: Mapping[Key, Future[Any]]) -> int:
        """How many batches should have been handed out: what is done, and two for every worker."""
        futures = set(jobs.values())
        return sum(f.done() for f in futures) + 2 * self.workers

    def _examine(self, batch: Sequence[tuple[Key, PythonCheck | None]]) -> dict[Key, dict[str, Any] | str]:
        """What a Score needs for each answer, or why it is unscored."""
        try:
            return self._graded(batch)
        except MissingTool as e:
            why = f"{e.what} ({e.fix})" if e.fix else e.what
        except HafsError as e:
            why = e.what
        except Exception as e:  # what one answer did to our own code must not end the scoring of all
            if len(batch) > 1:
                return {key: said for one in batch for key, said in self._examine([one]).items()}
            why = f"the scorer failed on this answer: {type(e).__name__}: {e}"[:300]
        return {key: why for key, _ in batch}

    def _graded(self, batch: Sequence[tuple[Key, PythonCheck | None]]) -> dict[Key, dict[str, Any] | str]:
        out: dict[Key, dict[str, Any] | str] = {}
        tasks: dict[Key, Task] = {}
        how: dict[Key, str] = {}
        for key, check in batch:
            if check is None:
                out[key] = "the prompt has no check for this scorer"
                continue
            code, how[key] = extract(key[1], check.entry, check.prefix)
            if code:
                tasks[key] = Task(check, code)
            else:
                out[key] = grade(PythonReport("no code", total=len(check.cases or check.tests)), [], how[key])
        reports = dict(zip(tasks, self._run(list(tasks.values())), strict=True)) if tasks else {}
        # Ruff comes last: what Python's parser takes is known to be of a sane depth.
        lint = findings({key: tasks[key].code for key, r in reports.items() if not isinstance(r, str) and r.parses})
        for key, report in reports.items():
            if isinstance(report, str):
                out[key] = report
            elif report.cause == "broken tests":
                out[key] = f"the prompt's own tests do not run: {' '.join(report.problems)}"
            else:
                out[key] = grade(report, lint.get(key, []), how[key])
        return out

    def _run(self, tasks: Sequence[Task]) -> list[PythonReport | str]:
        try:
            box = self._free.get_nowait()
        except queue.Empty:
            box = open_sandbox(self._kind)
            with self._lock:
                self._boxes.append(box)
        try:
            return work(box, tasks)
        finally:
            self._free.put(box)

    def _to_score(self, candidate: Candidate, result: dict[str, Any] | str) -> Score:
        if isinstance(result, str):
            return Score(candidate.id, self.name, self.version, self.arguments, reason=result)
        return Score(candidate.id, self.name, self.version, self.arguments, **result)


def _check_of(prompt: Prompt) -> PythonCheck | None:
    if prompt.checker != PythonScorer.name:
        return None
    try:
        return parse_check(prompt.check)
    except DataError as e:
        raise DataError(f"prompt {prompt.id} ({prompt.text[:40]!r}): {e.what}", e.fix) from None
