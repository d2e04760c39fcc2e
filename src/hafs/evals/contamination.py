"""Has a model been trained on what it is tested with? Benchmark prompts, and near copies of them, in training prompts.

Two prompts are compared by the Jaccard similarity of their shingles: runs of `WORDS` words, without case, spacing and
punctuation. The similarity is computed exactly, through an index of the benchmark's shingles (one side is small, so the
estimate that MinHash makes of the same figure is not needed, and nothing is missed by chance). `THRESHOLD` is where a
copy with one word changed is caught while a templated prompt with other numbers and names is not; docs/log.md has
the measurement.

Prompts of one template ("Write a subject line about a refund", "… about a late parcel") are a family, not copies. Where
at least `SIBLINGS` other prompts hold nearly all that two similar ones have in common, that part is the template, and
the two are compared by the words that are left.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hafs.errors import UsageError
from hafs.models.lineage import TrainingRun, ancestry, training_runs

__all__ = ["THRESHOLD", "Hit", "Index", "refuse_contaminated", "shingles", "side_by_side", "similarity", "words"]

WORDS = 2
THRESHOLD = 0.58
SIBLINGS = 3
"""Other prompts that share what two have in common, from which on that is a template's."""
SHARED = 0.8
"""How much of it each of them shares, and the share of them in which a word of the template is."""
_WORD = re.compile(r"\$?\w+")


Shingle = tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """A benchmark prompt, the training prompt nearest to it, their similarity in [0, 1], and where it was trained."""

    prompt_id: str
    prompt: str
    trained: str
    similarity: float
    where: str = ""


def shingles(text: str) -> frozenset[Shingle]:
    """The runs of `WORDS` words of a text; a shorter text is one run."""
    found = words(text)
    return frozenset(tuple(found[i : i + WORDS]) for i in range(max(1, len(found) - WORDS + 1)))


def words(text: str) -> list[str]:
    """The words that two prompts are compared by: without case, spacing and punctuation."""
    return _WORD.findall(text.casefold())


def similarity(a: str, b: str) -> float:
    """The Jaccard similarity of two texts' shingles, in [0, 1]."""
    one, other = shingles(a), shingles(b)
    return len(one & other) / len(one | other)


class Index:
    """The prompts of benchmarks, ready to be compared with any number of training prompts."""

    def __init__(
        self,
        prompts: Mapping[str, str],
        threshold: float = THRESHOLD,
        others: Iterable[str] = (),
        *,
        templates: bool = True,
    ) -> None:
        """`prompts` maps ids to texts; `threshold` is the similarity from which a prompt counts as a copy. `others` are
        further prompts of the same kind, by which templates are known (gone through when two are similar, not before);
        without `templates` there are none."""
        self._threshold, self._templates = threshold, templates
        self._ids, self._texts = list(prompts), list(prompts.values())
        self._sizes: list[int] = []
        self._holding: dict[Shingle, list[int]] = defaultdict(list)
        for i, text in enumerate(self._texts):
            found = shingles(text)
            self._sizes.append(len(found))
            for s in found:
                self._holding[s].append(i)
        self._others = others

    def hits(self, training: Iterable[tuple[str, str]]) -> list[Hit]:
        """For every prompt with a copy among `training` (where, text): the nearest one; most similar first."""
        nearest: dict[int, Hit] = {}
        for i, hit in self._copies(training):
            if i not in nearest or hit.similarity > nearest[i].similarity:
                nearest[i] = hit
        return sorted(nearest.values(), key=lambda h: (-h.similarity, h.prompt_id))

    def all_copies(self, training: Iterable[tuple[str, str]]) -> Iterator[Hit]:
        """Every prompt with every text of `training` that is a copy of it."""
        return (hit for _, hit in self._copies(training))

    def copies(self, texts: Iterable[str]) -> dict[str, Hit]:
        """The texts that are copies of a prompt, each with the nearest."""
        found: dict[str, Hit] = {}
        for _, hit in self._copies(("", text) for text in texts):
            if hit.trained not in found or hit.similarity > found[hit.trained].similarity:
                found[hit.trained] = hit
        return found

    def _copies(self, training: Iterable[tuple[str, str]]) -> Iterator[tuple[int, Hit]]:
        given: dict[str, str] = {}
        for where, text in training:
            given.setdefault(text, where)
        known: _Known | None = None
        for text, where in given.items():
            found = shingles(text)
            common = Counter(i for s in found for i in self._holding.get(s, ()))
            for i, n in common.items():
                near = n / (self._sizes[i] + len(found) - n)
                if near < self._threshold:
                    continue
                if near < 1 and self._templates:
                    if known is None:
                        self._others = list(self._others)
                        known = _Known([*self._texts, *self._others, *given])
                    if known.one_template(self._texts[i], text, self._threshold):
                        continue
                yield i, Hit(self._ids[i], self._texts[i], text, near, where)


class _Known:
    """Prompts among which templates are looked for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(dict.fromkeys(texts))
        self._shingles = {text: shingles(text) for text in self._texts}
        self._words: dict[str, frozenset[str]] = {}
        self._holding: dict[Shingle, list[int]] = defaultdict(list)
        for i, found in enumerate(self._shingles.values()):
            for s in found:
                self._holding[s].append(i)
        self._template: dict[frozenset[Shingle], tuple[int, frozenset[str]]] = {}

    def one_template(self, a: str, b: str, threshold: float) -> bool:
        """Whether two similar prompts have in common what many others have, and differ in the rest.

        A word that stands where one of the template's is missing belongs to the template, so a copy is known although a
        word of its template was changed, even where a single word is all that tells it from its family.
        """
        count, template = self._shared(self._shingles[a] & self._shingles[b])
        if count - 2 < SIBLINGS:  # the two themselves are counted
            return False
        words_a, words_b = self._words_of(a), self._words_of(b)
        one, other = words_a - template, words_b - template
        changed = min(len(one - other), len(template - words_a)) + min(len(other - one), len(template - words_b))
        return bool(one | other) and len(one & other) < threshold * (len(one | other) - changed)

    def _words_of(self, text: str) -> frozenset[str]:
        if text not in self._words:
            self._words[text] = frozenset(words(text))
        return self._words[text]

    def _shared(self, common: frozenset[Shingle]) -> tuple[int, frozenset[str]]:
        """How many prompts hold nearly all of `common`, and the words that are in nearly all of these."""
        if common not in self._template:
            held = Counter(i for s in common for i in self._holding.get(s, ()))
            alike = [i for i, n in held.items() if n >= SHARED * len(common)]
            seen = Counter(w for i in alike for w in self._words_of(self._texts[i]))
            template = frozenset(w for w, n in seen.items() if n >= SHARED * len(alike))
            self._template[common] = len(alike), template
        return self._template[common]


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
    others: Iterable[str] = (),
) -> list[str]:
    """Look for `prompts` (id -> text) in what models were trained on; returns what a table should say of it.

    `models` maps names to content hashes. The training runs that made them are looked for below `roots` and around the
    models' directories `paths`; `more` has further training prompts by where they come from. Raises UsageError when any
    is found, unless that is `allowed`; `fix` says what to do beside training or evaluating on other prompts. From the
    similarity `threshold` on a prompt counts as a copy, from 1 on only the same words do. `others` are further prompts
    by which templates are known: those that the sets were split from.
    """
    texts, unknown = _training_texts(models, training_runs(roots, sorted(map(str, paths))))
    texts.update({where: list(found) for where, found in (more or {}).items()})
    hits = Index(prompts, threshold, others).hits((where, text) for where, found in texts.items() for text in found)
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
        f" similarity {first.similarity:.2f}: {side_by_side(first)})"
    )


def side_by_side(hit: Hit) -> str:
    """The two prompts of a hit, from a little before where they begin to differ."""
    one, other = (" ".join(text.split()) for text in (hit.prompt, hit.trained))
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, same - 40) if one != other else 0
    first, second = (("…" * bool(start)) + text[start : start + 80] for text in (one, other))
    return f"{first!r} in both" if one == other else f"held out {first!r}, trained on {second!r}"
