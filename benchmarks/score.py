"""The 65816 scorer end to end: references of the `asm` benchmark assembled in the sandbox and run on every vector."""

from __future__ import annotations

from contextlib import closing

from common import result, seconds
from hafs.scorers import open_scorer
from hafs.tasks import benchmark
from hafs.types import Candidate


def main() -> None:
    items = [(p, Candidate(p.id, r.text)) for p in benchmark("asm")[:120] for r in p.references]
    with closing(open_scorer("asm")) as scorer:
        list(scorer.score(items[:8]))  # start the workers
        scores: list[object] = []
        took = seconds(lambda: scores.extend(scorer.score(items)))
    right = sum(bool(getattr(s, "passed", False)) for s in scores)
    print(f"{len(items)} answers in {took:.1f} s, {right} right")
    result(asm_per_s=len(items) / took, right=right, answers=len(items))


if __name__ == "__main__":
    main()
