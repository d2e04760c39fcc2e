"""Part `training`: hafs against TRL at its best batch, by benchmarks/train.py, scenario by scenario.

Pairs a second and peak memory, above the weights too. Without TRL there is no figure, and that is said.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

from part import Asked, asked, small_model

BENCHMARK = Path(__file__).resolve().parents[1] / "train.py"
SCENARIOS = ("all_edges_k4", "demo_data", "system_prompt", "long_groups")
REHEARSED = SCENARIOS[:2]
"""The others differ from these in sizes alone."""

BARS = {"all_edges_k4_speed": ">= 6", "all_edges_k4_memory_above": "<= 0.35"}


def scenario(ask: Asked, model: str, name: str, batch: str) -> str:
    """One scenario; returns TRL's best batch, so that it is searched for once."""
    command = [
        sys.executable,
        str(BENCHMARK),
        "--model",
        model,
        "--scenario",
        name,
        "--runs",
        "1" if ask.rehearse else "2",
    ]
    command += ["--trl-batch", batch] if batch else []
    command += ["--groups", "1"] if ask.rehearse else ["--groups", "32"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        ask.tell(f"{name} failed: {(done.stdout.strip().splitlines() or ['without a word'])[-1]}")
        raise SystemExit(f"{name} failed")
    for who, rate, peak, above in re.findall(
        r"^  (hafs|TRL) +([\d.]+) pairs/s +peak +(\d+) MiB, +(-?\d+) above", done.stdout, re.MULTILINE
    ):
        figures = {"pairs/s": float(rate), "peak MiB": int(peak), "above the weights MiB": int(above)}
        ask.tell(f"{name}, {who}", **figures)
    result = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    for key, value in result.items():
        ask.tell(key, ratio=value, bar=BARS.get(key, ""))
    found = re.search(r"TRL's best here: (\d+)", done.stdout)
    return found[1] if found else batch


if __name__ == "__main__":
    ask = asked()
    if importlib.util.find_spec("trl") is None:
        ask.tell("TRL is not installed here (benchmarks/gpu/run.sh --carry DIR has its wheels): nothing was compared")
    else:
        if importlib.util.find_spec("liger_kernel") is None:
            ask.tell("Liger's kernels are not installed here: TRL ran without them")
        model, batch = small_model(ask), "1" if ask.rehearse else ""
        if ask.rehearse:
            ask.tell(f"rehearsed: {', '.join(REHEARSED)}; {', '.join(SCENARIOS[2:])} differ from these in sizes alone")
        for name in REHEARSED if ask.rehearse else SCENARIOS:
            batch = scenario(ask, model, name, batch)
