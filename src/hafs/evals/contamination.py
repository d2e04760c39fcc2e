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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hafs.errors import UsageError
from hafs.models.lineage import TrainingRun, ancestry, training_runs

__all__ = ["THRESHOLD", "Hit", "Index", "refuse_contaminated", "shingles", "similarity"]

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


def refuse_contaminated(
    prompts: Mapping[str, str],
    models: Mapping[str, Collection[str]],
    roots: Sequence[Path] = (),
    paths: Iterable[str | Path] = (),
    *,
    more: Mapping[str, Sequence[str]] | None = None,
    allowed: bool = False,
    fix: str = "go on anyway with --allow-contaminated",
    threshold: float = THRESHOLD,
) -> list[str]:
    """Look for `prompts` (id -> text) in what models were trained on; returns what a table should say of it.

    `models` maps names to content hashes. The training runs that made them are looked for below `roots` and around the
    models' directories `paths`; `more` has further training prompts by where they come from. Raises UsageError when any
    is found, unless that is `allowed`; `fix` says what to do beside training or evaluating on other prompts. From the
    similarity `threshold` on a prompt counts as a copy, from 1 on only the same words do.
    """
    texts, unknown = _training_texts(models, training_runs(roots, sorted(map(str, paths))))
    texts.update({where: list(found) for where, found in (more or {}).items()})
    hits = Index(prompts, threshold).hits((where, text) for where, found in texts.items() for text in found)
    if hits and not allowed:
        raise UsageError(
            _told(hits, len(prompts)), f"take them out and train again, evaluate on other prompts, or {fix}"
        )
    notes = [f"Contaminated: {_told(hits, len(prompts))}"] if hits else []
    if texts and not hits:
        notes.append(
            f"No benchmark prompt, nor a near copy (similarity {threshold:g} or more), is in the training data"
            f" that was looked through: {', '.join(texts)}."
        )
    if unknown:
        notes.append(f"What {', '.join(unknown)} was trained on is not known here and was not checked.")
    return notes


def _training_texts(
    models: Mapping[str, Collection[str]], runs: Sequence[TrainingRun]
) -> tuple[dict[str, list[str]], list[str]]:
    """Training prompts by where they were trained, and the names of models without a full record."""
    texts: dict[str, list[str]] = {}
    unknown = []
    for name, hashes in models.items():
        for made in (ancestry(model, runs) for model in sorted(hashes)):
            for run in made:
                where = f"{run.kind} in {run.directory.name}"
                if run.recorded and where not in texts:
                    texts[where] = [t.prompt for t in run.trained_on()]
            if (not made or not all(run.recorded for run in made)) and name not in unknown:
                unknown.append(name)
    return texts, unknown


def _told(hits: Sequence[Hit], total: int) -> str:
    first = hits[0]
    return (
        f"{len(hits)} of {total} benchmark prompts are in the training data, or nearly (as in {first.where},"
        f" similarity {first.similarity:.2f}: {' '.join(first.prompt.split())[:80]!r})"
    )
