"""Has a model been trained on what it is tested with? Benchmark prompts, and near copies of them, in training prompts.

Two prompts are compared by the Jaccard similarity of their shingles: runs of `WORDS` words, without case, spacing and
punctuation. The similarity is computed exactly, through an index of the benchmark's shingles (one side is small, so the
estimate that MinHash makes of the same figure is not needed, and nothing is missed by chance). `THRESHOLD` is where a
copy with one word changed is caught while a templated prompt with other numbers and names is not; docs/log.md has
the measurement.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["THRESHOLD", "Hit", "Index", "shingles", "similarity"]

WORDS = 2
THRESHOLD = 0.58
_WORD = re.compile(r"\$?\w+")


@dataclass(frozen=True)
class Hit:
    """A benchmark prompt, the training prompt nearest to it, their similarity in [0, 1], and where it was trained."""

    prompt_id: str
    prompt: str
    trained: str
    similarity: float
    where: str = ""


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The runs of `WORDS` words of a text; a shorter text is one run."""
    words = _WORD.findall(text.casefold())
    return frozenset(tuple(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1)))


def similarity(a: str, b: str) -> float:
    """The Jaccard similarity of two texts' shingles, in [0, 1]."""
    one, other = shingles(a), shingles(b)
    return len(one & other) / len(one | other)


class Index:
    """The prompts of benchmarks, ready to be compared with any number of training prompts."""

    def __init__(self, prompts: Mapping[str, str], threshold: float = THRESHOLD) -> None:
        """`prompts` maps ids to texts; `threshold` is the similarity from which a prompt counts as a copy."""
        self._threshold = threshold
        self._ids, self._texts = list(prompts), list(prompts.values())
        self._sizes: list[int] = []
        self._holding: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, text in enumerate(self._texts):
            found = shingles(text)
            self._sizes.append(len(found))
            for s in found:
                self._holding[s].append(i)

    def hits(self, training: Iterable[tuple[str, str]]) -> list[Hit]:
        """For every prompt with a copy among `training` (where, text): the nearest one; most similar first."""
        nearest: dict[int, Hit] = {}
        seen: set[str] = set()
        for where, text in training:
            if text in seen:
                continue
            seen.add(text)
            for i, near in self._near(text):
                if i not in nearest or near > nearest[i].similarity:
                    nearest[i] = Hit(self._ids[i], self._texts[i], text, near, where)
        return sorted(nearest.values(), key=lambda h: (-h.similarity, h.prompt_id))

    def _near(self, text: str) -> Iterable[tuple[int, float]]:
        found = shingles(text)
        common = Counter(i for s in found for i in self._holding.get(s, ()))
        for i, n in common.items():
            near = n / (self._sizes[i] + len(found) - n)
            if near >= self._threshold:
                yield i, near
