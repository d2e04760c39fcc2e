"""A million candidates in a store: how long `hafs preferences build` takes, how much memory, and how long `stats`.

The rows are made without the store's own writers, to be quick; ids and columns are those that it would write.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from hafs.store import init_workspace
from hafs.types import Candidate, Prompt, Score
from hafs_snes.scorer import AsmScorer

ANSWERS, BATCH = 4, 5000
VERSION = AsmScorer.version
WORDS = "LDA STA AND ORA EOR ADC SBC INC DEC ASL LSR ROL ROR BEQ BNE BCC BCS RTS PHA PLA TAX TAY"


def rows(n: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """(table, rows in the order of its columns) of `n` candidates with their prompts and scores."""
    r, now = random.Random(0), time.time()
    texts = [
        " ".join(r.choice(WORDS.split()) + f" ${r.randrange(1 << 16):04X}" for _ in range(12)) for _ in range(10_000)
    ]
    details = json.dumps({"bytes": 12, "clocks": 140, "correct": 4, "total": 16, "errors": []})
    for first in range(0, n // ANSWERS, BATCH):
        prompts, candidates, scores = [], [], []
        for i in range(first, min(first + BATCH, n // ANSWERS)):
            p = Prompt(f"Write routine {i}: {texts[i % 10_000]}", family=f"family_{i % 124}", checker="asm")
            about = (p.family, "memory", "train", "asm", "asm", "{}", "[]", "[]", now, "[]", "[]")
            prompts.append((p.id, p.text, "", *about))
            for k in range(ANSWERS):
                c = Candidate(p.id, f"```asm\n{texts[r.randrange(10_000)]}\n; {i}\n```", "model", "model", 0, k)
                made_by = ("model", "model", 0, k, "{}", None, None, "", "generate", now, "")
                candidates.append((c.id, p.id, c.text, *made_by))
                value = r.randrange(11) / 10
                s = Score(c.id, "asm", VERSION, value=value)
                key = json.dumps([1.0, 1.0, value, 0.0, -float(r.randrange(40)), -float(r.randrange(400))])
                scores.append((s.id, c.id, "asm", VERSION, "{}", value, "", key, 40.0, value == 1, "", details, now))
        yield from (("prompts", prompts), ("candidates", candidates), ("scores", scores))


def fill(workspace: Path, n: int) -> None:
    """Make a workspace with `n` candidates."""
    init_workspace(workspace)
    with sqlite3.connect(workspace / "hafs.db") as conn:
        conn.execute("PRAGMA synchronous = OFF")
        for table, made in rows(n):
            conn.commit()
            conn.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(made[0]))})", made)


def verb(workspace: Path, *words: str) -> tuple[float, float, dict[str, Any]]:
    """(seconds, peak MiB with its own processes, what it printed as JSON) of a verb in a process of its own."""
    command = [sys.executable, "-m", "hafs", *words, "-w", str(workspace), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:  # what it prints is a line: no pipe is full
        peak = max(peak, _resident(psutil.Process(process.pid)))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return seconds, peak / (1 << 20), json.loads(process.stdout.read())


def _resident(process: psutil.Process) -> int:
    """Bytes in memory of a process and of those that it started; pages that they share count for each."""
    total = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def scale(n: int = 1_000_000, folder: Path | None = None) -> dict[str, float]:
    """The figures for `n` candidates; `folder` keeps the workspace for another time."""
    with TemporaryDirectory() as temporary:
        workspace = folder or Path(temporary)
        if not (workspace / "hafs.db").is_file():
            started = time.perf_counter()
            fill(workspace, n)
            print(f"{n:,} candidates made in {time.perf_counter() - started:.0f} s", flush=True)
        build_s, build_mb, built = verb(workspace, "preferences", "build")
        print(
            f"build: {built['groups']:,} groups, {built['edges']:,} edges in {build_s:.1f} s, {build_mb:.0f} MiB",
            flush=True,
        )
        stats_s, _, found = verb(workspace, "preferences", "stats")
        assert found["groups"] == built["groups"] and found["edges"] == built["edges"]
    return {"build_1m_s": build_s, "build_1m_mb": build_mb, "stats_1m_s": stats_s}


if __name__ == "__main__":
    print(scale(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
