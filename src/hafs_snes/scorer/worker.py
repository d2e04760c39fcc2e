"""The process around the emulator: takes jobs on a socket, answers verdicts, and can crash without harm.

Once the core is loaded the process gives up what it does not need: it can open no file and no socket, cannot
write a core dump, and, where Landlock works, can reach no path at all. What runs inside is code that a model
wrote, on a CPU that a C++ program pretends to be.

Messages are JSON: the parent sends {"core", "symbols"} and the ROM's bytes once, then jobs; see `run_job`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hafs_snes.scorer.check import DEFAULTS, WRAM_SIZE, parse_vector
from hafs_snes.scorer.compare import Verdict, compare
from hafs_snes.scorer.machine import Console, as_overlays
from hafs_snes.scorer.places import CODE, pc

__all__ = ["background", "main", "run_job"]

EMPTY = {"rts": b"\x60", "rtl": b"\x6b"}


@lru_cache(maxsize=64)
def background(seed: str) -> bytes:
    """128 KB of random bytes for WRAM, the same for a seed on every machine."""
    return hashlib.shake_256(seed.encode()).digest(WRAM_SIZE)


def measure_overhead(console: Console) -> dict[str, int]:
    """Clocks of an empty routine for each kind of return."""
    out = {}
    for returns, code in EMPTY.items():
        console.install(CODE, returns, [(pc(CODE), code)])
        outcome = console.call(DEFAULTS, bytes(WRAM_SIZE), 0, 2)
        if outcome.status != "returned":
            raise RuntimeError(f"an empty routine did not return: {outcome.status}")
        out[returns] = outcome.clocks
    return out


def run_job(console: Console, overhead: dict[str, int], job: dict[str, Any]) -> list[Verdict]:
    """Run every vector of a job.

    A job has "overlays" ([file offset, hex]), "call", "returns", "seed", "frames", "keep", "scratch", "vectors" (as
    in a check) and "seconds".
    """
    console.install(job["call"], job["returns"], as_overlays(job["overlays"]))
    video = {"vram": console.vram, "cgram": console.cgram, "oam": console.oam}
    verdicts = []
    for i, row in enumerate(job["vectors"]):
        vector = parse_vector(row)
        before = bytearray(background(f"{job['seed']}/{i}"))
        for at, data in vector.memory.items():
            before[at : at + len(data)] = data
        outcome = console.call(vector.registers, bytes(before), vector.pad, job["frames"])
        verdicts.append(
            compare(vector, bytes(before), outcome, video, job["keep"], job["scratch"], overhead[job["returns"]])
        )
    return verdicts


def confine() -> None:
    """Give up files, network and new processes for good."""
    with contextlib.suppress(Exception):  # a second wall: the limits below hold without it
        import sandlock

        sandlock.confine(sandlock.Sandbox(fs_readable=[]))
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))


def serve(connection: Connection) -> None:
    """Answer jobs until the parent closes the socket; one that takes too long ends the process."""
    setup = json.loads(connection.recv_bytes())
    console = Console(Path(setup["core"]), connection.recv_bytes(), setup["symbols"])
    overhead = measure_overhead(console)
    confine()
    connection.send_bytes(json.dumps({"ready": overhead}).encode())
    while True:
        job = json.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_REAL, job["seconds"] + 1)  # if the parent is gone by then
        verdicts = run_job(console, overhead, job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(json.dumps([asdict(v) for v in verdicts]).encode())


def main(descriptor: int) -> None:
    """Entry point of the process; `descriptor` is its end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # the core prints to the terminal whenever it loads something
        os.dup2(quiet, standard)
    connection = Connection(descriptor)
    try:
        serve(connection)
    except EOFError:
        pass
    except Exception as e:
        with contextlib.suppress(OSError):
            connection.send_bytes(json.dumps({"error": f"{type(e).__name__}: {e}"}).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
