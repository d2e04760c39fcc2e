"""Groups for the benchmark of preference training: those of a file, or made of the demo's prompts."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any


def demo_groups(tokenizer: Any, path: str, answers: int, n: int) -> list[Any]:
    """The first `n` groups of the file at `path`, or as many made of the demo's prompts and their proven answers.

    Made ones have the proven answer and others that go their own way after some of its lines, as samples do.
    """
    from hafs.preferences import read_preferences
    from hafs.tasks import generate
    from hafs.training.packing import tokenize
    from hafs.types import Edge, GroupCandidate, PreferenceGroup

    if path:
        return [tokenize(tokenizer, g) for g in read_preferences(Path(path)).groups if len(g.edges) > 1][:n]
    rng = random.Random(0)
    edges = tuple(Edge(i, j) for i, j in itertools.combinations(range(answers), 2))
    made = []
    for prompt in generate("asm", "train", n, tags=("easy",)):
        lines = prompt.references[0].text.splitlines()
        texts = [prompt.references[0].text]
        while len(texts) < answers:
            at = rng.randrange(1, len(lines) - 1)
            rest = lines[at:]
            rng.shuffle(rest)
            texts.append("\n".join([*lines[:at], f"lda #${rng.randrange(256):02x}", *rest]))
        made.append(PreferenceGroup(prompt.text, tuple(map(GroupCandidate, texts)), edges, prompt.system))
    return [tokenize(tokenizer, g) for g in made]
