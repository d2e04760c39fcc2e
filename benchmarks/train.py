"""One optimiser step on groups of four ranked answers (six edges): the shared layout against one line per answer.

Same model, adapter, groups and loss, forward and backward; the peer computes each unique answer once too, with its
own copy of the prompt. (A trainer that takes pairs computes each answer three times.)
"""

from __future__ import annotations

import random

import torch

from common import alternate, peak_mb, result
from hafs.config import DPOConfig
from hafs.loading import load_tokenizer, pick_precision, quiet
from hafs.models import resolve
from hafs.training import adapted
from hafs.training.logprobs import CandidateLogps
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import TokenGroup, pack
from hafs.types import Edge

GROUPS, PROMPT, ANSWER, K = 6, 64, 48, 4


def main() -> None:
    quiet()
    path = resolve("default")
    words = load_tokenizer(path).vocab_size
    rng = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(words) for _ in range(n))

    edges = tuple(Edge(i, j) for i in range(K) for j in range(i + 1, K))
    groups = [TokenGroup(tokens(PROMPT), tuple(tokens(ANSWER) for _ in range(K)), edges) for _ in range(GROUPS)]
    model, objective = CandidateLogps(adapted(path, DPOConfig())), PreferenceObjective()

    def step(shared: bool) -> None:
        model.shared = shared
        for members in pack(groups, 512):
            row = model.row(members)
            with torch.autocast("cpu", torch.bfloat16, enabled=pick_precision() == "bf16"):
                objective.loss(model(row), torch.zeros(len(row.lengths)), row)[0].backward()

    print(f"{GROUPS} groups: prompt {PROMPT}, {K} answers of {ANSWER} tokens, {len(edges)} edges; {pick_precision()}")
    a, b, ratio = alternate(lambda: step(True), lambda: step(False))
    pairs = GROUPS * len(edges)
    print(f"  shared {pairs / a:.2f} pairs/s, one line per answer {pairs / b:.2f} pairs/s")
    result(shared_vs_unshared_speed=ratio, pairs_per_s=pairs / a, peak_mb=peak_mb())


if __name__ == "__main__":
    main()
