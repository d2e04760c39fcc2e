"""Part `recipe`: the whole path on `asm`: SFT, two rounds of DPO, online DPO, PPO, each measured on held-out prompts.

The verbs are those that a user types; scorers run on the host's cores. In a rehearsal the model is tiny and random, a
stage has a handful of prompts, and no pass rate means anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from part import Asked, asked, small_model

SIZES = {
    # prompts of SFT and of each later stage, of a benchmark, answers a prompt, tokens, steps' prompts
    "rehearse": {"sft": 6, "ask": 4, "held": 4, "answers": 2, "tokens": 8, "batch": 2},
    "card": {"sft": 500, "ask": 400, "held": 320, "answers": 8, "tokens": 64, "batch": 16},
}

SETTINGS = """
[generate]
candidates = {answers}
temperature = 1.0
max_new_tokens = {tokens}
batch_size = 256
[score]
scorer = "asm"
[preferences]
references = "when-needed"
max_candidates = 4
[sft]
answers = 1
learning_rate = 1e-3
batch_size = {batch}
gradient_accumulation_steps = 1
validation_share = 0.0
[dpo]
learning_rate = 1e-4
nll_weight = 0.3
batch_size = {batch}
gradient_accumulation_steps = 1
validation_share = 0.0
[online]
batch_size = {batch}
rollouts = {answers}
max_new_tokens = {tokens}
[ppo]
learning_rate = 3e-4
batch_size = {batch}
rollouts = {answers}
max_new_tokens = {tokens}
epochs = 1
value_function = "head"
[eval]
benchmarks = []
max_new_tokens = {tokens}
batch_size = 256
"""


class WholePath:
    """The stages, each a verb in a process of its own, in one workspace."""

    def __init__(self, ask: Asked) -> None:
        self.ask = ask
        self.sizes = SIZES["rehearse" if ask.rehearse else "card"]
        self.home = ask.folder / "workspace"
        self.home.mkdir(exist_ok=True)
        (self.home / "hafs.toml").write_text(SETTINGS.format(**self.sizes))

    def hafs(self, *words: Any) -> dict[str, Any]:
        """What a verb says as JSON; the part fails with its last line when the verb does."""
        command = [sys.executable, "-m", "hafs", *map(str, words)]
        done = subprocess.run([*command, "--json"], cwd=self.home, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"hafs {' '.join(map(str, words[:3]))} ended with {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def stage(self, name: str, model: str, *words: Any) -> str:
        """Train and evaluate; returns the model's place."""
        began = time.perf_counter()
        done = self.hafs(*words, "--output-dir", self.home / "models" / name)
        self.measure(name, done["model"], time.perf_counter() - began, done["steps"], done["gpu_mb"])
        return str(done["model"])

    def measure(self, name: str, model: str, took: float, steps: int, memory: float) -> None:
        """Evaluate a model on the held-out prompts."""
        (found,) = self.hafs("eval", "--model", model, "--name", name, "--benchmark", self.home / "held.jsonl")[
            "results"
        ]
        right, scored = found["passed"], found["scored"]
        self.ask.tell(name, steps=steps, s=took, **{"GPU MiB": memory, "right": right, "of": scored})

    def prompts(self) -> None:
        """Prompts that teach, prompts that are asked at each later stage, and held-out ones."""
        n = self.sizes
        self.hafs("init", self.home)
        count = n["sft"] + 2 * n["ask"]
        make = ("tasks", "generate", "asm", "--tags", "easy")
        self.hafs(*make, "--split", "train", "-n", count, "--output", self.home / "all.jsonl")
        self.hafs(*make, "--split", "test", "-n", n["held"], "--output", self.home / "held.jsonl")
        lines = (self.home / "all.jsonl").read_text().splitlines(keepends=True)
        for name, first, last in (
            ("sft", 0, n["sft"]),
            ("one", n["sft"], n["sft"] + n["ask"]),
            ("two", -n["ask"], None),
        ):
            (self.home / f"{name}.jsonl").write_text("".join(lines[first:last]))

    def round(self, name: str, model: str) -> str:
        """Answers of `model`, checked and paired, and DPO on them."""
        pairs = self.home / f"pairs-{name}.jsonl"
        asked = ("--prompts", self.home / f"{name}.jsonl", "--scorer", "automatic", "--output", pairs)
        self.hafs("preferences", "generate", "--model", model, *asked)
        return self.stage(f"dpo, round {name}", model, "train", "dpo", "--sft-model", model, "--preference-data", pairs)


def main(ask: Asked) -> None:
    path = WholePath(ask)
    model = small_model(ask)
    path.prompts()
    path.measure("baseline", model, 0.0, 0, 0.0)
    sft = path.stage("sft", model, "sft", "--model", model, "--data", path.home / "sft.jsonl")
    best = path.round("two", path.round("one", sft))
    sampled = ("--prompts", path.home / "two.jsonl", "--scorer", "asm")
    path.stage("online dpo", best, "train", "dpo", "--online", "--sft-model", sft, *sampled)
    path.stage("ppo", best, "train", "ppo", "--sft-model", sft, *sampled)


if __name__ == "__main__":
    main(asked())
