"""A loop on a tiny model in seconds: prompts that ask for a word, a scorer that looks for it, and small settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafs import registry
from hafs.config import Config, parse_config
from hafs.types import Candidate, Prompt, Score
from hafs.workflows.loop.run import Loop

registry.BUILTIN["scorers"]["toy"] = "loop_toy:ToyScorer"

TRAIN = {
    "precision": "fp32",
    "num_epochs": 1,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_steps": 1,
    "validation_share": 0.0,
    "warmup_ratio": 0.0,
}
SETTINGS: dict[str, Any] = {
    "score": {"scorer": "toy"},
    "sft": {**TRAIN, "learning_rate": 1e-2, "num_epochs": 4, "batch_size": 4, "save_steps": 4, "method": "full"},
    "dpo": {**TRAIN, "learning_rate": 3e-4, "eval_steps": 4, "method": "full"},
    "generate": {"candidates": 3, "temperature": 1.3, "max_new_tokens": 6, "batch_size": 16},
    "eval": {"max_new_tokens": 6, "batch_size": 32, "benchmarks": []},
}


class ToyScorer:
    """Right when the answer is the word that the prompt's check wants; of right ones the shortest is best."""

    name = "toy"
    version = "1"
    arguments: Mapping[str, Any] = {}

    def __init__(self, workers: int | None = None, sandbox: str = "auto") -> None:
        pass

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        for prompt, candidate in items:
            right = candidate.text.strip() == prompt.check["want"]
            yield Score(
                candidate.id,
                self.name,
                self.version,
                self.arguments,
                value=float(right),
                key=(float(right), -float(len(candidate.text))),
                passed=right,
                cause="" if right else "wrong word",
            )

    def close(self) -> None:
        pass


def prompt(i: int, split: str) -> Prompt:
    """The i-th prompt of a split; families take turns. One in nine held-out ones wants a word that is never taught."""
    family = ("alpha", "beta", "gamma")[i % 3]
    want = "zz" if split != "train" and i % 9 == 5 else "ok"
    return Prompt(
        f"{split[:2]} {family} {i}",
        family=family,
        category="words",
        split=split,
        checker="toy",
        check={"want": want},
        references=({"name": "plain", "text": "ok"},),
    )  # type: ignore[arg-type]


def write_tasks(folder: Path, train: int = 60, validation: int = 24, test: int = 12) -> tuple[Path, Path]:
    """A task file to learn from and one of held-out prompts."""
    tasks, bench = folder / "tasks.jsonl", folder / "bench.jsonl"
    rows = [prompt(i, split) for split, n in (("train", train), ("validation", validation)) for i in range(n)]
    for path, found in ((tasks, rows), (bench, [prompt(i, "test") for i in range(test)])):
        path.write_text("".join(json.dumps(Prompt.from_dict(p.to_dict()).to_dict()) + "\n" for p in found))
    return tasks, bench


def toy_config(folder: Path, **loop: Any) -> Config:
    """Settings of a loop on the files in `folder`."""
    limits = {
        "prompts": str(folder / "tasks.jsonl"),
        "sft_prompts": 24,
        "round_prompts": 9,
        "checkpoint_prompts": 6,
        "decision_prompts": 18,
        "max_rounds": 2,
        "attribution": False,  # a training and an evaluation more a round; one test has it
        **loop,
    }
    dpo = limits.pop("dpo", {})
    data = {**SETTINGS, "loop": limits, "eval": {**SETTINGS["eval"], "benchmarks": [str(folder / "bench.jsonl")]}}
    return parse_config({**data, "dpo": {**SETTINGS["dpo"], **dpo}})


def toy_loop(folder: Path, model: Path | str, **loop: Any) -> Loop:
    return Loop(toy_config(folder, **loop), str(model))
