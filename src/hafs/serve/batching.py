"""Requests that wait at the same time are decoded together, by one thread that owns the model.

A batch is what waits with the same temperature, top_p and adapter, up to `batch_size` rows; what comes later waits for
its end. Every row has random numbers, a token limit and stop texts of its own, so an answer does not depend on its
neighbours.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hafs.config import GenerateConfig
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import decode_answer
from hafs.types import content_id

MOST_WAITING = 8192
"""Answers that may wait; who asks for more is told to come again."""
LINGER = 0.01
"""Seconds that a first request waits for others to join it."""


@dataclass
class Row:
    """One answer as it grows. `text` is what may be shown of it: without stop texts and half characters."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: str = ""


class Shown(NamedTuple):
    """How far a row was when it was told: its text, its number of tokens, and why it ended ("" while it goes on)."""

    text: str
    tokens: int
    finish: str


@dataclass
class Job:
    """One prompt to answer `n` times; `tell` is called with (row number, Shown) at every token.

    The last time there is a `finish`; when the work fails, `tell` gets (-1, the exception).
    """

    prompt: Sequence[int]
    tell: Callable[[int, Any], None]
    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stops: Sequence[str] = ()
    adapter: str = ""
    rows: list[Row] = field(default_factory=list)
    cancelled: bool = False

    @property
    def together(self) -> tuple[float, float, str]:
        """Jobs for which this is equal can share a batch."""
        return self.temperature, self.top_p, self.adapter


class Batcher:
    """A thread that answers jobs with a backend, several at a time."""

    def __init__(self, backend: TransformersBackend, batch_size: int = 16) -> None:
        self.backend, self.batch_size = backend, batch_size
        self.batches = 0
        self._ends = set(backend.stops())
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.between = threading.Lock()
        """Held while a batch is decoded; who changes the model holds it."""
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; raises RuntimeError when the batcher is closed, or too much is waiting."""
        job.rows = [Row() for _ in range(job.n)]
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping")
            if sum(len(j.rows) for j in self._waiting if not j.cancelled) >= MOST_WAITING:
                raise RuntimeError(f"{MOST_WAITING} answers are waiting already: try again later")
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Stop after the token that is being computed; jobs that are not done fail."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            try:
                self._answer(jobs)
            except Exception as e:
                for job in jobs:
                    job.tell(-1, e)
        for job in self._waiting:
            job.tell(-1, RuntimeError("the server is stopping"))

    def _next(self) -> list[Job]:
        """The next batch, in the order of arrival; empty when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, LINGER)
            if self._closing:
                return []
            first, rest, rows = self._waiting[0], deque[Job](), 0
            chosen: list[Job] = []
            for job in self._waiting:
                fits = not chosen or rows + job.n <= self.batch_size
                if job.together == first.together and fits:
                    chosen.append(job)
                    rows += job.n
                else:
                    rest.append(job)
            self._waiting = rest
            return chosen

    def _answer(self, jobs: Sequence[Job]) -> None:
        self.batches += 1
        where = [(job, i) for job in jobs for i in range(job.n)]
        seeds = [int(content_id("row", job.seed, i)[:15], 16) for job, i in where]
        first = jobs[0]
        longest = max(job.max_tokens for job in jobs)
        config = GenerateConfig(
            candidates=1,
            temperature=first.temperature,
            top_p=first.top_p,
            max_new_tokens=longest,
            batch_size=len(where),
        )

        def watch(row: int, token: int, logprob: float) -> bool:
            job, i = where[row]
            return self._token(job, i, token, logprob)

        with self.between:
            self.backend.decode(
                [j.prompt for j in jobs], [j.n for j in jobs], config, seeds, watch=watch, adapter=first.adapter
            )
        if self._closing:
            for job, i in where:
                if not job.rows[i].finish:
                    job.tell(-1, RuntimeError("the server is stopping"))

    def _token(self, job: Job, i: int, token: int, logprob: float) -> bool:
        """Take in a token; True when the row is to end here."""
        row = job.rows[i]
        row.ids.append(token)
        row.logprobs.append(logprob)
        ended = token in self._ends
        last = ended or len(row.ids) >= job.max_tokens
        self._show(job, row, last)
        if last and not row.finish:
            row.finish = "stop" if ended else "length"
        job.tell(i, Shown(row.text, len(row.ids), row.finish))
        return bool(row.finish) or job.cancelled or self._closing

    def _show(self, job: Job, row: Row, last: bool) -> None:
        """Bring the row's text up to date and see whether a stop text is in it."""
        text = decode_answer(self.backend.tokenizer, row.ids)
        found = [at for stop in job.stops if (at := text.find(stop)) >= 0]
        if found:
            row.text, row.finish = text[: min(found)], "stop"
        elif last:
            row.text = text
        else:
            held = max((len(stop) - 1 for stop in job.stops), default=0)
            row.text = text[: max(len(row.text), len(text) - held)].rstrip("�")
