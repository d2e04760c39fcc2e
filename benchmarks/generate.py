"""Sampling 4 answers a prompt from the embedded model: hafs against `model.generate(num_return_sequences=4)`.

Same weights, precision, temperature and token limit. hafs plans its batches over all prompts, and the two take turns
batch by batch; the peer splits each into batches of the size that was best on the first with a quarter of the tokens.
Then what the scorers check in a second, and what a million candidates take (scale.py).

    benchmarks/generate.py [decode] [score] [scale] [--prompts N]     all three by default, of 64 prompts

64 prompts are two batches, and all three parts take less than ten minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import torch

from common import result, seconds
from hafs.backends import Request
from hafs.config import GenerateConfig
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import encode_prompt
from hafs.models.loading import quiet
from hafs.scorers import open_scorer
from hafs.tasks import benchmark, generate
from hafs.types import Candidate
from scale import scale

ANSWERS, TOKENS = 4, 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="decode|score|scale")
    parser.add_argument("--prompts", type=int, default=64)
    asked = parser.parse_args()
    parts = {"decode": lambda: decode(asked.prompts), "score": score, "scale": scale}
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"there is no part {min(unknown)!r}: use some of {', '.join(parts)}")
    result(**{key: value for name in asked.parts or parts for key, value in parts[name]().items()})


def decode(n: int) -> dict[str, float]:
    """How much faster hafs samples answers to `n` prompts than `model.generate`."""
    quiet()
    backend = TransformersBackend("default")
    prompts = generate("asm", "train", n, tags=("easy",))
    config = GenerateConfig(candidates=ANSWERS, temperature=1.0, max_new_tokens=TOKENS, batch_size=128)
    requests = [Request(p.id, p.text, n=ANSWERS) for p in prompts]

    def theirs(asked: Sequence[Request], size: int, tokens: int = TOKENS) -> None:
        ids = [encode_prompt(backend.tokenizer, r.text) for r in asked]
        for i in range(0, len(ids), size):
            part = ids[i : i + size]
            width = max(map(len, part))
            x = torch.tensor([[backend.tokenizer.pad_token_id] * (width - len(p)) + p for p in part])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
            with torch.no_grad():
                backend._net.generate(
                    input_ids=x,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=tokens,
                    num_return_sequences=ANSWERS,
                    pad_token_id=backend.tokenizer.pad_token_id,
                )

    first, *_ = batches = backend.plan(requests, config)
    backend.generate(first, config), theirs(first[:2], 2)  # warm
    best = min((8, 16, 32), key=lambda size: seconds(lambda: theirs(first, size, TOKENS // 4)))
    print(f"{n} prompts x {ANSWERS} answers of at most {TOKENS} tokens; the peer's best batch: {best} prompts")
    took = [(seconds(partial(backend.generate, b, config)), seconds(partial(theirs, b, best))) for b in batches]
    print(f"  ratios batch by batch: {', '.join(f'{peer / own:.2f}' for own, peer in took)}")
    own, peer = map(sum, zip(*took, strict=True))
    print(f"  hafs {own:.1f} s, model.generate {peer:.1f} s")
    return {"generate_speed_vs_hf": peer / own}


def score() -> dict[str, float]:
    """What the scorers check in a second."""
    return {"asm_per_s": scored_per_s("asm", 120), "python_per_s": scored_per_s("python", 200)}


def scored_per_s(name: str, n: int) -> float:
    """Reference answers of a benchmark that its scorer checks in a second."""
    items = [(p, Candidate(p.id, r.text)) for p in benchmark(name)[:n] for r in p.references]
    with closing(open_scorer(name)) as scorer:
        list(scorer.score(items[:8]))  # start the workers
        took = seconds(lambda: list(scorer.score(items)))
    print(f"  {name}: {len(items)} answers in {took:.1f} s")
    return len(items) / took


if __name__ == "__main__":
    main()
