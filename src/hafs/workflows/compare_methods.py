"""SFT on right winners, DPO, reward model + PPO, PPO with the checker, RLOO: from one SFT model, on the same data.

Every training is a process of its own, so its peak memory is its own; its cost is kept beside the run. A run that is
finished is not done again, and one that was made from something else is refused. Several seeds say how far a result
hangs on chance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from hafs.config import Config
from hafs.errors import HafsError, UsageError
from hafs.evals import WINNERS, EvalResult
from hafs.evals.evaluate import evaluate
from hafs.files.jsonl import atomic_write
from hafs.scorers.run import scorer_for, try_commands
from hafs.statistics import Estimate, two_level_bootstrap
from hafs.store import Store
from hafs.types import Progress, Prompt, silent

METHODS = (WINNERS, "dpo", "reward+ppo", "ppo", "rloo")


@dataclass(frozen=True)
class MethodJob:
    """What is compared: the SFT model, the preference data, the prompts for rollouts, and where runs go.

    `minutes` is what a seed of a method may train at most, its reward model included; DPO and the reward model make
    their epochs and take no notice.
    """

    sft_model: str
    preference_data: Path
    prompts: Path
    directory: Path
    scorer: str = "automatic"
    validate: str = ""
    minutes: float = 0.0
    allow_contaminated: bool = False
    columns: str = ""
    prompt_columns: str = ""
    validate_columns: str = ""

    def commands(self, method: str, seed: int) -> list[tuple[Path, list[str]]]:
        """(run directory, arguments of `hafs`) of each training of a method; the last one's model is the result."""
        home = self.directory / method / f"seed-{seed}"
        checked = ["--validate", self.validate] if self.validate else []
        checked += _flag("--validate-columns", self.validate_columns)
        common = ["--sft-model", self.sft_model, "--seed", str(seed)]
        allowed = ["--allow-contaminated"] if self.allow_contaminated else []
        asked = ["--prompts", str(self.prompts), *_flag("--columns", self.prompt_columns), *allowed]
        roll = ["train", "ppo", *common, *asked, *checked, "--output-dir"]
        data = ["--preference-data", str(self.preference_data), *_flag("--columns", self.columns), *allowed]
        data.append("--output-dir")
        if method == WINNERS:  # rejection sampling: the right winners of the very groups that DPO compares
            start = ["sft", "--model", self.sft_model, "--seed", str(seed)]
            return [(home / "sft", [*start, *checked, *data, str(home / "sft")])]
        if method == "dpo":
            return [(home / "dpo", ["train", "dpo", *common, *checked, *data, str(home / "dpo")])]
        if method == "reward+ppo":
            return [
                (home / "reward", ["train", "reward", *common, *data, str(home / "reward")]),
                (home / "ppo", [*roll, str(home / "ppo"), "--reward-model", str(home / "reward")]),
            ]
        advantage = ["--advantage", "rloo"] if method == "rloo" else []
        return [(home / "ppo", [*roll, str(home / "ppo"), "--scorer", self.scorer, *advantage])]


def _flag(name: str, value: str) -> list[str]:
    return [name, value] if value else []


@dataclass(frozen=True)
class MethodResult:
    """One method over its seeds: minutes and peak MiB of a seed (mean and worst), pass rates, the change from SFT.

    The memory is the GPU's where there is one, else the process's. The intervals of `rate`, of `gain` (over SFT) and of
    `over` (over SFT on the right winners, None where that was not trained) contain the prompts and the seeds; `rates`
    are the seeds' own.
    """

    method: str
    minutes: float
    peak_mb: float
    rates: tuple[float, ...]
    rate: Estimate
    gain: Estimate
    stopped: tuple[str, ...]
    reward_accuracy: float | None = None
    over: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare_methods(
    store: Store,
    config: Config,
    job: MethodJob,
    benchmark: str,
    held_out: Sequence[Prompt],
    methods: Sequence[str],
    seeds: int,
    progress: Progress = silent,
    workspace: Path | None = None,
    jobs: int = 1,
) -> tuple[EvalResult, list[MethodResult]]:
    """Train every method `seeds` times and evaluate it on `held_out`; returns SFT's result and each method's.

    `jobs` trainings run side by side. Raises UsageError for an unknown method, HafsError when a training fails (what
    is finished is kept).
    """
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        raise UsageError(f"there is no method {unknown[0]!r}", f"use one of: {', '.join(METHODS)}")
    wanted = [(method, seed) for method in methods for seed in range(seeds)]
    try_commands(config, held_out)
    with closing(scorer_for(config)) as scorer, ThreadPoolExecutor(jobs) as pool:
        sft = evaluate(store, scorer, job.sft_model, "sft", benchmark, held_out, config.eval)
        alone = Lock()

        def finish(method: str, seed: int) -> tuple[list[dict[str, Any]], EvalResult]:
            commands, costs = job.commands(method, seed), list[dict[str, Any]]()
            for run, arguments in commands:
                limit: list[str] = []
                if job.minutes and arguments[:2] == ["train", "ppo"]:
                    left = job.minutes - sum(c["seconds"] for c in costs) / 60
                    limit = ["--max-minutes", f"{max(0.1, left):.1f}"]
                costs.append(_train(run, [*arguments, *limit], workspace))
            model = str(commands[-1][0] / "model")
            with alone:  # as soon as it is trained, so that what is measured stays measured
                return costs, evaluate(store, scorer, model, f"{method} seed {seed}", benchmark, held_out, config.eval)

        progress("training", 0, len(wanted), {})
        waiting = [pool.submit(finish, *which) for which in wanted]
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                progress("training", done, len(wanted), {})
        finally:
            pool.shutdown(cancel_futures=True)
        ended = {m: [f.result() for f in waiting[i * seeds : (i + 1) * seeds]] for i, m in enumerate(methods)}
        results = {method: [result for _, result in of_method] for method, of_method in ended.items()}
        found = []
        for method, of_method in ended.items():
            costs = [cost for of_seed, _ in of_method for cost in of_seed]
            winners = results.get(WINNERS, []) if method != WINNERS else []
            found.append(_summary(method, costs, results[method], sft, winners))
    return sft, found


def _train(run: Path, arguments: Sequence[str], workspace: Path | None) -> dict[str, Any]:
    """Run one training in its own process; returns its seconds, peak MiB and outcome, those of when it was done."""
    cost = run.with_name(f"{run.name}.cost.json")
    run.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **({"HAFS_WORKSPACE": str(workspace)} if workspace else {})}
    with (run.parent / f"{run.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hafs", *arguments, "--json"], stdout=subprocess.PIPE, stderr=log, env=env
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise HafsError(
            f"`hafs {' '.join(arguments[:2])}` failed; see {run.parent / run.name}.log",
            "correct that and run the same command again: what is finished is kept",
        )
    if cost.is_file():  # it was finished, and is what would be made now
        return dict(json.loads(cost.read_text(encoding="utf-8")))
    outcome = json.loads(said)
    row = {
        "seconds": outcome["seconds"],
        "peak_mb": outcome["gpu_mb"] or usage.ru_maxrss / 1024,
        "stopped": outcome.get("stopped", ""),
        "accuracy": outcome.get("report", {}).get("accuracy"),
        "at": time.time(),
    }
    with atomic_write(cost) as f:
        json.dump(row, f)
    return row


def _summary(
    method: str,
    costs: Sequence[Mapping[str, Any]],
    results: Sequence[EvalResult],
    sft: EvalResult,
    winners: Sequence[EvalResult],
) -> MethodResult:
    accuracies = [c["accuracy"] for c in costs if c.get("accuracy") is not None]
    return MethodResult(
        method,
        sum(c["seconds"] for c in costs) / 60 / len(results),
        max(c["peak_mb"] for c in costs),
        tuple(r.passed / r.scored for r in results if r.scored),
        _change(results, []),
        _change(results, [sft]),
        tuple(c["stopped"] for c in costs if c["stopped"]),
        float(np.mean(accuracies)) if accuracies else None,
        _change(results, winners) if winners else None,
    )


def _change(new: Sequence[EvalResult], old: Sequence[EvalResult]) -> Estimate:
    """The change of the pass rate from `old` to `new`, seeds of one method each, on the prompts that all of them have a
    pass or a fail for; without `old` the rate itself."""
    passes = [{r.prompt_id: float(r.passed) for r in result.results if r.passed is not None} for result in (*new, *old)]
    ids = sorted(set.intersection(*map(set, passes)))
    table = np.array([[of_seed[i] for of_seed in passes] for i in ids]).reshape(len(ids), len(passes))
    return two_level_bootstrap(table[:, : len(new)], table[:, len(new) :] if old else np.zeros(len(ids)))


def to_markdown(sft: EvalResult, found: Sequence[MethodResult]) -> str:
    """The guide's comparison table with measured columns."""
    rate = sft.passed / sft.scored if sft.scored else 0.0
    lines = [
        f"SFT passes {rate:.1%} of {sft.scored} held-out prompts of `{sft.benchmark}`.",
        "",
        "| Method | Training time (a seed) | Peak memory | Result over seeds | Change from SFT | Over SFT on winners"
        " | Stability: seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in found:
        seeds = ", ".join(f"{r:.1%}" for r in m.rates)
        stops = "".join(f"; {n} stopped: {why}" for why, n in Counter(m.stopped).items())
        lines.append(
            f"| {m.method} | {m.minutes:.1f} min | {m.peak_mb:,.0f} MiB | {m.rate.value or 0:.1%}"
            f" ({m.rate.low or 0:.1%} to {m.rate.high or 0:.1%}) | {_points(m.gain)} | {_points(m.over)} |"
            f" {seeds}{stops} |"
        )
    lines += ["", *(attribution for m in found if (attribution := _attributed(m, found)))]
    lines += [f"\nReward model: {m.reward_accuracy:.1%} of held-out edges' order." for m in found if m.reward_accuracy]
    return "\n".join(lines)


def _points(e: Estimate | None) -> str:
    if e is None or e.value is None:
        return ""
    return f"{100 * e.value:+.1f} points ({100 * (e.low or 0):+.1f} to {100 * (e.high or 0):+.1f})"


def _attributed(m: MethodResult, found: Sequence[MethodResult]) -> str:
    """How much of a method's gain is the data's and how much its own, in words."""
    winners = next((x for x in found if x.method == WINNERS), None)
    if winners is None or m.over is None:
        return ""
    real = "beyond chance" if m.over.above_zero or m.over.below_zero else "not to be told from chance"
    return (
        f"- {m.method}: of {_points(m.gain)} over SFT, {100 * (winners.gain.value or 0):+.1f} come with SFT on the"
        f" right winners of the same data, {_points(m.over)} with the method: {real}."
    )
