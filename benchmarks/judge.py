"""The judge's runner against a bare client: the same questions to the same local server at the same concurrency.

The server is a process of its own that answers after 50 ms. The bare client posts the same bodies with the HTTP library
that the SDKs use and throws the replies away; hafs goes through an SDK, reads the replies and keeps its ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from common import peak_mb, result
from hafs.judge import open_protocol
from hafs.judge.prices import load_prices
from hafs.judge.run.calling import Manner
from hafs.judge.run.ledger import Ledger
from hafs.judge.run.runner import Judging, judge
from hafs.judge.work import Selection, Work
from hafs.servers.openai import OpenAIClient
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt

SERVER = Path(__file__).parent.parent / "tests" / "judge_server.py"


@contextmanager
def server(latency: float) -> Iterator[str]:
    """A local judge in its own process; yields its base URL."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER), "--latency", str(latency)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def fill(store: Store, prompts: int, candidates: int) -> Selection:
    """Prompts with candidates of some 1,000 characters."""
    made = [Prompt(f"prompt {i}: write a routine that clears a buffer") for i in range(prompts)]
    store.add_prompts(made)
    store.add_candidates(
        Candidate(p.id, f"answer {j} quality {(3 * j + i) % 9 + 1} ".ljust(1000, "x"), index=j)
        for i, p in enumerate(made)
        for j in range(candidates)
    )
    return Selection([p.id for p in made])


async def bare(url: str, bodies: Sequence[Any], concurrency: int) -> tuple[float, float]:
    """(requests a second of a plain asyncio client, milliseconds of processor a request)."""
    left = iter(bodies)
    async with httpx2.AsyncClient(timeout=60) as client:

        async def worker() -> None:
            for body in left:
                (await client.post(f"{url}/chat/completions", json=body)).json()

        await client.post(f"{url}/chat/completions", json=bodies[0])
        started, busy = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return len(bodies) / (time.perf_counter() - started), 1000 * (time.process_time() - busy) / len(bodies)


def ours(url: str, store: Store, selection: Selection, concurrency: int) -> tuple[float, float, int]:
    """(requests a second of hafs, milliseconds of processor a request, requests); the verdicts are kept."""
    client = OpenAIClient("local", url)
    busy = time.process_time()
    judging = Judging(open_protocol("listwise"), selection, Manner(concurrency))
    (done,) = judge(store, [client], load_prices(), judging)
    assert done.coverage == 1.0, done
    n = done.tally.attempts
    return n / done.tally.seconds, 1000 * (time.process_time() - busy) / n, n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, server(given.latency) as url:
        with open_store(Path(directory) / "small.db") as store:
            ours(url, store, fill(store, 50, given.candidates), given.concurrency)
        before = peak_mb()
        with open_store(Path(directory) / "hafs.db") as store:
            selection = fill(store, given.prompts, given.candidates)
            rate, busy, requests = ours(url, store, selection, given.concurrency)
            after = peak_mb()
            sample = Selection(selection.prompt_ids[: max(1, min(500, given.prompts))])
            work = Work(store, Ledger(store), "bare", open_protocol("listwise"), sample)
            client = OpenAIClient("local", url)
            bodies = [
                client.body(a.system, [("user", a.text)], a.schema, 1024) for page in work.pages() for a in page.asks
            ]
        theirs, theirs_busy = asyncio.run(bare(url, bodies, given.concurrency))
    most = given.concurrency / given.latency
    print(f"{requests} requests, {given.concurrency} at once, {given.latency * 1000:.0f} ms each")
    print(f"requests a second: hafs {rate:.1f}, a bare client {theirs:.1f}, at most {most:.0f}")
    print(f"processor: hafs {busy:.2f} ms a request, the bare client {theirs_busy:.2f} ms")
    print(f"peak memory {after:.0f} MB, {before:.0f} MB after 50 prompts")
    result(rate_vs_bare=rate / theirs, peak_mb=after, growth_mb=after - before, requests_per_s=rate, bare_per_s=theirs)


if __name__ == "__main__":
    main()
