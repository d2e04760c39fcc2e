"""What the benchmarks share: time, memory, one closing RESULT line."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes (s)."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mb() -> float:
    """The process's peak resident memory (MiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def result(**figures: float) -> None:
    """The closing line that scripts read."""
    print("RESULT " + json.dumps({k: round(v, 3) for k, v in figures.items()}))
