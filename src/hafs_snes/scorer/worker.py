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
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hafs_snes.scorer.check import WRAM_SIZE, Vector, parse_vector
from hafs_snes.scorer.compare import Verdict, compare
from hafs_snes.scorer.machine import FRAME_CLOCKS, Console, Outcome, as_overlays

__all__ = ["background", "main", "run_job"]


@lru_cache(maxsize=64)
def background(seed: str) -> bytes:
    """128 KB of random bytes for WRAM, the same for a seed on every machine."""
    return hashlib.shake_256(seed.encode()).digest(WRAM_SIZE)


def run_job(console: Console, job: dict[str, Any]) -> list[Verdict]:
    """Run every vector of a job: a good report of the harness counts once it is proven.

    A job has "overlays" ([file offset, hex]), "call", "returns", "seed", "frames", "keep", "scratch", "vectors" (as
    in a check), "waits" (whether code stops for interrupts) and "seconds".
    """
    console.install(job["call"], job["returns"], as_overlays(job["overlays"]))
    video = {"vram": console.vram, "cgram": console.cgram, "oam": console.oam}
    verdicts = []
    for i, row in enumerate(job["vectors"]):
        vector = parse_vector(row)
        before = bytearray(background(f"{job['seed']}/{i}"))
        for at, data in vector.memory.items():
            before[at : at + len(data)] = data
        given = (vector.registers, bytes(before), vector.pad)
        rules = (video, job["keep"], job["scratch"], console.overhead[job["returns"]])
        outcome = console.call(*given, job["frames"])
        verdict = compare(vector, bytes(before), outcome, *rules)
        if verdict.correct:
            verdict = proven(console, vector, given, outcome, rules, job.get("waits", False))
        verdicts.append(verdict)
    return verdicts


def proven(
    console: Console,
    vector: Vector,
    given: tuple[Mapping[str, int], bytes, int],
    claim: Outcome,
    rules: tuple[Any, ...],
    waits: bool,
) -> Verdict:
    """The verdict on a call that claims to be right: that of a call which ends when the claim says.

    Code whose time depends on where the screen is may be right and late there. It is judged by a call from the first
    one's place, and its clocks are all those that this call was given. So is code that `waits` for interrupts.
    """
    before = given[1]
    if not waits:
        proof = console.prove(*given, claim.clocks)
        verdict = compare(vector, before, replace(proof, clocks=claim.clocks), *rules)
        if verdict.correct:
            return verdict
    proof = console.prove_frames(*given, claim.frames)
    return compare(vector, before, replace(proof, clocks=max(claim.clocks, claim.frames * FRAME_CLOCKS)), *rules)


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
    confine()
    connection.send_bytes(json.dumps({"ready": console.overhead}).encode())
    while True:
        job = json.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_REAL, job["seconds"] + 1)  # if the parent is gone by then
        verdicts = run_job(console, job)
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
