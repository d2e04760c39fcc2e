"""Where the threshold of the contamination check stands: held-out prompts against training prompts, and against copies.

For every benchmark prompt of the packs: its similarity to the nearest of N training prompts (an honest prompt: other
wording, other numbers), and to copies of itself with one word changed, each word once (what must be caught).

    .venv/bin/python benchmarks/contamination.py [N]        # 10,000 training prompts by default
    .venv/bin/python benchmarks/contamination.py templates  # families of one template, and near copies among them
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from hafs import tasks
from hafs.evals.contamination import THRESHOLD, Index, similarity


def copies_of(text: str) -> list[str]:
    """The text with one word replaced, once for each word."""
    words = text.split(" ")
    return [" ".join([*words[:i], "changed", *words[i + 1 :]]) for i in range(len(words))]


def share(values: Sequence[float], at: float) -> float:
    """The value below which a share `at` of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]


def main(n: int) -> None:
    train = [p.text for p in tasks.generate("asm", "train", 3 * n // 4)]
    train += [p.text for p in tasks.generate("rom_hack", "train", n // 4)]
    result: dict[str, float] = {"threshold": THRESHOLD, "training_prompts": len(train)}
    for name in ("asm", "rom_hack"):
        bench = [p.text for p in tasks.benchmark(name)]
        index = Index(dict(zip(bench, bench, strict=True)), threshold=0.0)
        began = time.monotonic()
        nearest = [h.similarity for h in index.hits(("", t) for t in train)]
        seconds = time.monotonic() - began
        copies = [similarity(t, c) for t in bench for c in copies_of(t)]
        print(
            f"{name}: nearest training prompt: median {share(nearest, 0.5):.3f}, 99 % {share(nearest, 0.99):.3f}, "
            f"most {max(nearest):.3f}; copies with one word changed: least {min(copies):.3f}, 1 % "
            f"{share(copies, 0.01):.3f}, median {share(copies, 0.5):.3f}; {seconds:.1f} s"
        )
        result |= {f"{name}_nearest": round(max(nearest), 3), f"{name}_copies": round(min(copies), 3)}
    print(f"RESULT {json.dumps(result)}")


THINGS = ["a refund", "a late parcel", "the new office", "a price rise", "the summer party", "a broken lift"]
THINGS += ["a job offer", "a survey", "a webinar", "an outage", "the coat drive", "a fire drill", "the bike race"]
THINGS += ["the book club", "a lost badge", "the annual audit", "parking rules", "a software update", "free coffee"]
THINGS += ["a retirement"]
TEMPLATES = (
    "Write one e-mail subject line about {}.",
    "Write one e-mail subject line about {} for all of our customers in the United States.",
    "Summarise what a new colleague has to know about {} in two sentences, without a list.",
    "Write a Python function solve(text) that returns how often {} is named in the text, without regard to case.",
)
LIMITS = (0.3, 0.4, 0.5, 0.58, 0.7, 0.8, 0.9)


def templates() -> None:
    """By threshold: the share of held-out prompts of a template that are refused beside training prompts of the same
    template (should be none), and of their copies with a word changed, left out or put in (should be all)."""
    print("threshold, families refused, copies found")
    for limit in LIMITS:
        refused, found, families, copies = 0, 0, 0, 0
        for template in TEMPLATES:
            texts = [template.format(thing) for thing in THINGS]
            held, train = texts[:6], texts[6:]
            refused += len(Index({t: t for t in held}, limit).hits(("", t) for t in train))
            families += len(held)
            for text in train:
                words = text.split(" ")
                slot = [w.strip(".") for w in THINGS[texts.index(text)].split(" ")]
                places = [i for i, w in enumerate(words) if w.strip(".") not in slot]
                for i in places:
                    for instead in (["changed"], [], ["so", words[i]]):
                        copies += 1
                        one = " ".join([*words[:i], *instead, *words[i + 1 :]])
                        found += bool(Index({t: t for t in [*held, one]}, limit).hits(("", t) for t in train))
        print(f"{limit:.2f}, {refused / families:.1%} of {families}, {found / copies:.1%} of {copies}")


if __name__ == "__main__":
    if sys.argv[1:] == ["templates"]:
        templates()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
