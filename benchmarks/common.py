"""What the benchmarks share: time, memory, one closing RESULT line."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes (s), with all that it has given a GPU to do."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Until a GPU has done what it was given, where this process uses one."""
    if cuda():
        sys.modules["torch"].cuda.synchronize()


def cuda() -> bool:
    """Whether this process computes on a GPU."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def peak_mb() -> float:
    """The process's peak resident memory (MiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def result(**figures: float) -> None:
    """The closing line that scripts read."""
    print("RESULT " + json.dumps({k: round(v, 3) for k, v in figures.items()}))
