"""The workers of a Ray cluster: as many as have room, each given the next task as soon as it is free.

A worker that dies (its process, its machine) costs the tasks that it had in hand: others do them, and a new worker
takes its place where there is room. When the program ends, however it ends, Ray ends its workers.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from hafs.cluster.shared import Shared
from hafs.cluster.worker import Done, Job, Outcome, Task, Worker, installed
from hafs.config import ClusterConfig
from hafs.errors import HafsError, MissingTool, UsageError

LOST = 4
"""Workers that a task may lose before it counts as what ends them."""
AHEAD = 2
"""Tasks that a worker is given at a time, so that it need not wait for the next."""
PATIENCE = 60.0
"""Seconds without any news after which it is said what is waited for."""
LOCAL = "local"
TASKS_EACH = 8
CALLERS = 10_000
"""Calls to a shared object that may wait at the same time."""


@contextmanager
def open_crew(config: ClusterConfig, database: str) -> Iterator[Crew]:
    """The workers of the cluster at `config.address`, which keep what they make in `database` (its URL).

    Raises MissingTool without Ray, UsageError for an address that is none and for a database that only this machine
    sees, HafsError when the cluster does not answer.
    """
    if config.address != LOCAL and database.startswith("sqlite"):
        raise UsageError(
            "the workspace is in SQLite, a file of this machine, and the workers of a cluster write what they make",
            'a PostgreSQL that all nodes reach: [store] url = "postgresql://USER@HOST/NAME" in hafs.toml;'
            " or --cluster local for this machine alone",
        )
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if config.address == LOCAL:
        where: dict[str, Any] = {"address": LOCAL, "include_dashboard": False, **quiet}
    elif "://" in config.address and not config.address.startswith("ray://"):
        raise UsageError(f"{config.address} is no address of a Ray cluster", "ray://HOST:10001, HOST:6379, or local")
    else:
        where = {"address": config.address, **quiet}
    try:
        ray.init(**where)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as e:
        raise HafsError(
            f"no Ray cluster could be joined at {config.address}: {str(e).splitlines()[0]}",
            "`ray start --head` on one machine, `ray start --address=HEAD:6379` on the others; the same Python,"
            " Ray and token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH) here as there",
        ) from e
    crew = Crew(ray, config)
    with redirect_stdout(sys.stderr):  # where Ray says that workers died: standard output is for the result
        try:
            yield crew
        finally:
            crew.close()
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise MissingTool("a cluster needs Ray, which is not installed", "pip install 'hafs[cluster]'") from e
    return ray


@dataclass
class _Flight:
    """What a worker was asked; `task` is None for getting ready."""

    worker: Any
    task: Any = None
    lost: int = 0


class Crew:
    """Workers that do a job's tasks; those of the last job are kept for the next one that is equal."""

    def __init__(self, ray: Any, config: ClusterConfig) -> None:
        self._ray, self._config = ray, config
        self._job: Job[Any, Any] | None = None
        self._workers: list[Any] = []
        self._claim, self._held = "", ExitStack()
        self._shared: list[Any] = []
        self._mourn: Callable[[str], None] = lambda worker: None
        self.died = 0

    @property
    def cores(self) -> int:
        """The processor cores that a worker takes."""
        return self._config.cores

    def claim(self, what: str, take: Callable[[], AbstractContextManager[None]]) -> None:
        """Hold the claim on the work that is next, until another one is taken or the crew is closed.

        `take` waits for the workers of whoever held it before, so those of the last job are ended first.
        """
        if what != self._claim:
            self.end()
            self._held.close()
            self._held.enter_context(take())
            self._claim = what

    def close(self) -> None:
        """End the workers and give the claim back."""
        self.end()
        for actor in self._shared:
            with suppress(Exception):
                self._ray.kill(actor)
        self._held.close()
        self._claim = ""

    def room(self, accelerated: bool) -> int:
        """How many workers there can be now. Raises UsageError when there is no room for one."""
        nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
        gpus = sum(int(n.get("GPU", 0)) for n in nodes) if accelerated else 0
        cores = sum(int(n.get("CPU", 0)) // self._config.cores for n in nodes)
        most = gpus or cores
        if not most:
            raise UsageError(
                f"no node of the cluster has {self._config.cores} processor cores for a worker", "lower [cluster] cores"
            )
        return min(most, self._config.workers or most)

    def share_of(self, work: int, most: int, accelerated: bool) -> int:
        """How much of so much work a task is: `most`, or less, so that all workers end at about one time."""
        return max(1, min(most, -(-work // (TASKS_EACH * self.room(accelerated)))))

    def share(self, kind: type, *arguments: Any) -> Shared:
        """An object of `kind`, made beside this command, that workers can ask; it ends with the crew."""
        here = self._ray.get_runtime_context().get_node_id()
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        actor = self._ray.remote(kind).options(num_cpus=0, max_concurrency=CALLERS, scheduling_strategy=near)
        made = actor.remote(*arguments)
        self._shared.append(made)
        return Shared(made)

    def map(
        self, job: Job[Task, Done], tasks: Iterable[Task], most: int, mourn: Callable[[str], None] = lambda worker: None
    ) -> Iterator[tuple[Task, Done]]:
        """Each task with what came of it, in the order in which they end; `most` is how many there are at most.

        `mourn` is told the id of each worker that dies. Raises the HafsError that a task ends with, and HafsError for a
        task that ends worker after worker.
        """
        self._mourn = mourn
        self._hire(job, most)
        flights = {worker.ready.remote(): _Flight(worker) for worker in self._workers}
        todo, again, idle = iter(tasks), deque[_Flight](), list[Any]()
        more = True
        while True:
            working = any(f.task is not None for f in flights.values())
            if not (working or again or more):
                return
            for ref in self._landed(list(flights)):
                flight = flights.pop(ref)
                outcome = self._outcome(ref)
                if outcome is None:
                    self._lost(flight, flights, again)
                    continue
                if outcome.error is not None:
                    raise outcome.error
                idle += [flight.worker] * (1 if flight.task is not None else AHEAD)
                if flight.task is not None:
                    yield flight.task, outcome.value
            idle = [w for w in idle if w in self._workers]
            while idle and (again or more):
                if again:
                    next_one = again.popleft()
                else:
                    try:
                        next_one = _Flight(None, next(todo))
                    except StopIteration:
                        more = False
                        continue
                worker = idle.pop(0)
                flights[worker.do.remote(next_one.task)] = _Flight(worker, next_one.task, next_one.lost)

    def end(self) -> None:
        """End the workers."""
        for worker in list(self._workers):
            self._dismiss(worker)
        self._job = None

    def _hire(self, job: Job[Any, Any], most: int) -> None:
        n = max(1, min(self.room(job.accelerated), most))
        if job != self._job:
            self.end()
            self._job = job
        self._workers += [self._new() for _ in range(n - len(self._workers))]

    def _new(self) -> Any:
        assert self._job is not None
        gpus = sum(n["Resources"].get("GPU", 0) for n in self._ray.nodes() if n["Alive"])
        takes = {"num_cpus": self._config.cores, "num_gpus": int(self._job.accelerated and gpus > 0)}
        actor = self._ray.remote(Worker).options(**takes, scheduling_strategy="SPREAD")
        return actor.remote(self._job, installed())

    def _landed(self, refs: list[Any]) -> list[Any]:
        """Those that have ended, at least one."""
        while True:
            done, _ = self._ray.wait(refs, num_returns=1, timeout=PATIENCE)
            if done:
                rest = [r for r in refs if r not in done]
                return done + (self._ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else [])
            logging.getLogger(__name__).warning(
                "no word from %s workers for %.0f s: they work, or wait for a free node", len(self._workers), PATIENCE
            )

    def _outcome(self, ref: Any) -> Outcome | None:
        """What came of a call; None when the worker died."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(ref)
            return outcome
        except errors.RayTaskError as e:  # a mistake in hafs itself
            raise HafsError(f"a worker of the cluster failed: {e}", "see the traceback above") from e
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError, errors.OwnerDiedError):
            return None

    def _lost(self, flight: _Flight, flights: dict[Any, _Flight], again: deque[_Flight]) -> None:
        """Give a dead worker's task to others, and hire in its place."""
        lost = flight.lost + 1
        if lost >= LOST:
            doing = "as they got ready" if flight.task is None else "with the same task in hand"
            raise HafsError(
                f"{LOST} workers died {doing}",
                "they may need more memory than there is: fewer of them ([cluster] workers, cores), or smaller batches",
            )
        if flight.worker in self._workers:
            self.died += 1
            logging.getLogger(__name__).warning("a worker died: what it had in hand is done again by another")
            self._dismiss(flight.worker)
            self._mourn(flight.worker._actor_id.hex())
            self._workers.append(worker := self._new())
            flights[worker.ready.remote()] = _Flight(worker, None, lost if flight.task is None else 0)
        if flight.task is not None:
            again.append(_Flight(None, flight.task, lost))

    def _dismiss(self, worker: Any) -> None:
        """End a worker, or what is left of it."""
        self._workers.remove(worker)
        with suppress(Exception):  # it may be dead
            self._ray.kill(worker)
