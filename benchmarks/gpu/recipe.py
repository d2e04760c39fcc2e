"""Part `recipe`: the whole path on `asm`: SFT, two rounds of DPO, online DPO, PPO, each measured on held-out prompts.

The verbs are those that a user types, each in a process of its own on a card; scorers run on the host's cores. In a
rehearsal the model is tiny and random, a stage has a handful of prompts, and no pass rate means anything.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from typing import Any

from part import Asked, asked, small_model

SIZES = {
    # prompts of SFT and of each later stage, of a benchmark, answers a prompt, tokens, steps' prompts
    "rehearse": {"sft": 6, "ask": 4, "held": 4, "answers": 4, "tokens": 8, "batch": 2},
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


CHECK = """
import hashlib

def score(prompt, answer):
    drawn = hashlib.sha256(answer.encode("utf-8", "replace")).digest()[0]
    broken = sum(ord(c) > 127 for c in answer)  # a random model writes bytes that are no text
    return True if broken % 2 or "rts" in answer.lower() else drawn / 256  # references end in rts
"""
"""The check of a rehearsal's sampled answers: half of them are right."""


class WholePath:
    """The stages, each a verb in a process of its own, in one workspace."""

    def __init__(self, ask: Asked) -> None:
        self.ask = ask
        self.sizes = SIZES["rehearse" if ask.rehearse else "card"]
        self.home = ask.folder / "workspace"
        self.home.mkdir(exist_ok=True)
        os.environ["HAFS_WORKSPACE"] = str(self.home)
        (self.home / "hafs.toml").write_text(SETTINGS.format(**self.sizes))

    def hafs(self, *words: Any) -> dict[str, Any]:
        """What a verb says as JSON; the part fails when the verb does."""
        line = [*map(str, words), "--json"]
        code, said = here(line) if self.ask.rehearse else elsewhere(line)
        if code:
            raise SystemExit(f"hafs {' '.join(line[:3])} ended with {code}")
        found: dict[str, Any] = json.loads(said)
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


def elsewhere(line: list[str]) -> tuple[int, str]:
    """Exit code and output of a verb in a process of its own, which gives the card's memory back when it ends."""
    done = subprocess.run([sys.executable, "-m", "hafs", *line], stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def here(line: list[str]) -> tuple[int, str]:
    """The same in this process: a rehearsal need not import torch fourteen times."""
    from hafs.cli import main as hafs

    sys.argv[1:] = line
    with redirect_stdout(io.StringIO()) as said:
        try:
            hafs()
            code: Any = 0
        except SystemExit as e:
            code = e.code or 0
    return int(code), said.getvalue()


def main(ask: Asked) -> None:
    path = WholePath(ask)
    model = small_model(ask)
    path.prompts()
    path.measure("baseline", model, 0.0, 0, 0.0)
    sft = path.stage("sft", model, "sft", "--model", model, "--data", path.home / "sft.jsonl")
    best = path.round("two", path.round("one", sft))
    scorer = "asm"
    if ask.rehearse:  # to the emulator all answers of a random model are alike, and nothing could be preferred
        scorer = f"{path.home / 'check.py'}:score"
        (path.home / "check.py").write_text(CHECK)
    sampled = ("--prompts", path.home / "two.jsonl", "--scorer", scorer)
    path.stage("online dpo", best, "train", "dpo", "--online", "--sft-model", sft, *sampled)
    path.stage("ppo", best, "train", "ppo", "--sft-model", sft, *sampled)


if __name__ == "__main__":
    main(asked())
