"""How long a page of the workbench's list takes among 200,000 candidates: `python benchmarks/browse.py [N]`.

Each query is asked from the beginning and from the middle, once to warm the file's pages and then five times; the
slowest of these counts. The time is the processor's, so that others on the machine do not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hafs.store import open_store
from hafs.store.browse import CandidateQuery, browse, choices
from hafs.types import Candidate, Prompt, Score

QUERIES = {
    "all": CandidateQuery(),
    "family": CandidateQuery(family="family 3"),
    "failed": CandidateQuery(outcome="failed"),
    "rare cause": CandidateQuery(outcome="failed", cause="rare"),
    "unscored": CandidateQuery(outcome="unscored"),
    "family, model, failed": CandidateQuery(family="family 3", model="m1", outcome="failed"),
    "long": CandidateQuery(shortest=5_000),
    "text that is nowhere": CandidateQuery(text="no such words"),
    "text and family": CandidateQuery(text="answer 7", family="family 3"),
}


def main(n: int) -> None:
    """Fill a workspace, ask, and print a line for each query and one RESULT."""
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "hafs.db") as store:
        prompts = [Prompt(f"Write routine {i}.", family=f"family {i % 12}", split="train") for i in range(n // 8)]
        store.add_prompts(prompts)
        made = [
            Candidate(p.id, f"answer {i} of routine\n" + "    LDA.b #$01\n" * 25 + p.id, model=f"m{i % 2}", index=i)
            for p in prompts
            for i in range(8)
        ]
        store.add_candidates(made)
        store.add_scores(
            Score(
                c.id,
                "asm",
                "1",
                value=float(c.index % 2),
                passed=bool(c.index % 2),
                cause="" if c.index % 2 else "rare" if i % 5000 == 0 else "wrong value",
            )
            for i, c in enumerate(made)
            if i % 50 != 49
        )
        middle = made[n // 2].prompt_id + ".0"
        worst = 0.0
        for name, query in QUERIES.items():
            for place in ("", middle):
                asked = CandidateQuery(**{**vars(query), "after": place})
                rows, seconds = len(browse(store, asked).rows), 0.0
                for _ in range(5):
                    began = time.process_time()
                    browse(store, asked)
                    seconds = max(seconds, time.process_time() - began)
                worst = max(worst, seconds)
                print(f"{name:<24} {'middle' if place else 'begin':<8} {rows:>3} rows {seconds:.3f} s", flush=True)
        began = time.perf_counter()
        choices(store)
        print(f"{'what filters offer':<24} {time.perf_counter() - began:.3f} s")
        print(f"RESULT browse candidates={n} slowest_page_seconds={worst:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
