"""What the benchmarks share: alternating runs of two ways, the median of their ratios, one closing RESULT line."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes (s)."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(ours: Callable[[], object], theirs: Callable[[], object], runs: int = 3) -> tuple[float, float, float]:
    """(median seconds of ours, of theirs, median of theirs / ours pair by pair) after one warm-up of each."""
    ours(), theirs()
    a, b = [], []
    for _ in range(runs):
        a.append(seconds(ours))
        b.append(seconds(theirs))
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    print(f"  ratios run by run: {', '.join(f'{r:.2f}' for r in ratios)}")
    return statistics.median(a), statistics.median(b), statistics.median(ratios)


def peak_mb() -> float:
    """The process's peak resident memory (MiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def result(**figures: float) -> None:
    """The closing line that scripts read."""
    print("RESULT " + json.dumps({k: round(v, 3) for k, v in figures.items()}))
