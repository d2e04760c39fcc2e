"""What the next round asks: more of the families that fail, more answers where both right and wrong ones are likely.

Prompts come from a task pack or from a task file. No prompt is taught or asked twice, and none that picks checkpoints,
decides or is reported is among them, nor is a near copy of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs import tasks
from hafs.config import Config, LoopConfig, override
from hafs.data import read_prompts
from hafs.errors import UsageError
from hafs.evals import contamination
from hafs.types import Prompt
from hafs.workflows.reading import prompts_in_file

MIXED = (0.2, 0.8)
"""Pass rates between which a family's samples are likely to be right and wrong: a contrast to learn from."""


@dataclass(frozen=True)
class RoundRequest:
    """What a round asks of one family: its failed share on `n` decision prompts, new prompts, answers to each."""

    family: str
    failed: float
    n: int
    prompts: int
    candidates: int


def plan(
    failed: Mapping[str, tuple[float, int]], families: Collection[str], n: int, candidates: int, more: int
) -> list[RoundRequest]:
    """Share `n` prompts among `families` by how much each fails, and choose how many answers each prompt gets.

    `failed` maps a family to its failed share and the number of prompts behind it. The share is drawn towards one half
    by one success and one failure (Laplace's rule), so a family of few prompts is not taken for hopeless or solved,
    and a solved one is still asked a little. Families between 20 and 80 % passed get `more` answers.
    """
    order = sorted(families)
    drawn = {f: (share * k + 1) / (k + 2) for f in order for share, k in [failed.get(f, (0.5, 0))]}
    total = sum(drawn.values())
    exact = {f: n * drawn[f] / total for f in order}
    counts = {f: int(exact[f]) for f in order}
    for f in sorted(order, key=lambda f: (counts[f] - exact[f], f))[: n - sum(counts.values())]:
        counts[f] += 1
    return [
        RoundRequest(
            f, *failed.get(f, (0.5, 0)), counts[f], more if MIXED[0] <= 1 - drawn[f] <= MIXED[1] else candidates
        )
        for f in order
    ]


class Source:
    """Where a loop's prompts come from: `taught` by SFT, `decision` and `checkpoint` prompts, new ones of a family."""

    def __init__(
        self,
        config: LoopConfig,
        checkpoints: int,
        reported: Sequence[Prompt] = (),
        near_copy: float = contamination.THRESHOLD,
    ) -> None:
        """`reported` are the prompts of the benchmarks; what is a near copy of a held-out prompt is counted in `copies`
        and neither taught nor asked. Raises UsageError when there are not enough prompts for what `config` asks."""
        self._config = config
        self.notes: list[str] = []
        """What is to be said of the file that the prompts are from."""
        self._pool = _read(config.prompts, config.columns, self.notes) if config.prompts else None
        held = self._take("validation", config.decision_prompts + checkpoints)
        self.decision, self.checkpoint = held[: config.decision_prompts], held[config.decision_prompts :]
        pool = self.trainable()
        texts = {p.id: p.text for p in [*held, *reported]}
        self._held_out = contamination.Index(texts, near_copy, (p.text for p in pool))
        self.copies: set[str] = set()
        self.nearest: contamination.Hit | None = None
        if pool and not self._no_copies(pool) and self.nearest is not None:
            raise UsageError(
                f"every prompt of {config.prompts} that could be trained on is a near copy of a held-out one"
                f" (similarity {self.nearest.similarity:.2f}: {contamination.side_by_side(self.nearest)})",
                "`hafs tasks split FILE` keeps copies together; [eval] near_copy says what counts as one",
            )
        self.taught = self._no_copies(self._taught(config.sft_prompts))
        self.families = sorted({p.family for p in [*self.taught, *held, *pool]})

    def new(self, asks: Sequence[RoundRequest], used: Sequence[Prompt]) -> dict[str, list[Prompt]]:
        """New prompts of each family, none of them among `used`; fewer where a family has no more."""
        known, seen = {p.id for p in used}, Counter(p.family for p in used)
        found = {}
        for ask in (a for a in asks if a.prompts or self._pool is not None):
            prompts = self._of_family(ask.family, ask.prompts + seen[ask.family])
            found[ask.family] = self._no_copies([p for p in prompts if p.id not in known])
        if self._pool is None:
            return {a.family: found[a.family][: a.prompts] for a in asks if a.prompts}
        return _shared_out(found, {a.family: a.prompts for a in asks})

    def trainable(self) -> list[Prompt]:
        """The prompts of a task file that may be taught or asked; a pack keeps its splits apart by itself."""
        return self._pool["train"] if self._pool else []

    def refuse_shared(self, sets: Mapping[str, Sequence[Prompt]]) -> None:
        """Refuse (UsageError) a benchmark that holds a prompt which may be taught, or which picks a checkpoint."""
        known = {p.id for p in [*self.taught, *self.checkpoint, *self.trainable()]}
        for name, prompts in sets.items():
            shared = [p for p in prompts if p.id in known]
            if shared:
                raise UsageError(
                    f"{len(shared)} prompts of {name} may also be trained on: {shared[0].text[:60]!r}",
                    "take them out of one of the two",
                )

    def _taught(self, n: int) -> list[Prompt]:
        """What SFT learns: the first prompts of the train split; of a file, those that have a right answer."""
        found = self._take("train", n if self._pool is None else len(self.trainable()))
        return [p for p in found if p.references][:n]

    def _no_copies(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        found = self._held_out.copies(p.text for p in prompts)
        self.nearest = max([*found.values(), *filter(None, [self.nearest])], key=lambda h: h.similarity, default=None)
        copies = {p.id for p in prompts if p.text in found}
        self.copies |= copies
        return [p for p in prompts if p.id not in copies]

    def _take(self, split: str, n: int) -> list[Prompt]:
        if self._pool is None:
            return tasks.generate(self._config.pack, split, n, tags=self._config.tags)
        found = self._pool[split][:n]
        if not found:
            raise UsageError(f"{self._config.prompts} has no prompts of the {split} split", "add some")
        return found

    def _of_family(self, family: str, n: int) -> list[Prompt]:
        """At most `n` prompts of the family, always the same first ones."""
        if self._pool is not None:
            return [p for p in self._pool["train"] if p.family == family]
        while n:
            try:
                return tasks.generate(self._config.pack, "train", n, families=[family], tags=self._config.tags)
            except UsageError:  # the family has fewer
                n = n * 3 // 4
        return []


def named_prompts(which: str) -> list[Prompt]:
    """The prompts of a benchmark by name, or of a task file."""
    path = tasks.task_file(which)
    return tasks.benchmark(which) if path is None else read_prompts(path).rows


def _shared_out(there: Mapping[str, Sequence[Prompt]], wanted: Mapping[str, int]) -> dict[str, list[Prompt]]:
    """So many prompts of each family as are wanted; what a family is short of is made up by the others, in turn."""
    counts = {family: min(len(prompts), wanted[family]) for family, prompts in there.items()}
    short = sum(wanted[family] for family in there) - sum(counts.values())
    while short and (left := [f for f in there if counts[f] < len(there[f])]):
        for family in left[:short]:
            counts[family] += 1
        short -= len(left[:short])
    return {family: list(there[family][:n]) for family, n in counts.items()}


def _read(path: str, columns: str, notes: list[str]) -> dict[str, list[Prompt]]:
    """The prompts of a file by split, those for tests left out; where none is marked for validation, texts decide."""
    every = prompts_in_file(Path(path), columns, say=notes.append)
    rows = [p for p in every if p.split != "test"]
    if left := len(every) - len(rows):
        notes.append(f"{path}: {left} of {len(every)} prompts are of the test split and are neither asked nor taught")
    marked = any(p.split == "validation" for p in rows)
    pool: dict[str, list[Prompt]] = {"train": [], "validation": []}
    for p in rows:
        split = p.split if marked else tasks.split_of(p.text)
        pool["validation" if split == "validation" else "train"].append(p)
    return pool


def by_candidates(
    asks: Sequence[RoundRequest], asked: Mapping[str, Sequence[Prompt]], config: Config
) -> list[tuple[list[Prompt], Any]]:
    """The prompts with how each is sampled: those of equally many answers together."""
    out = []
    for n in sorted({a.candidates for a in asks}):
        prompts = [p for a in asks if a.candidates == n for p in asked.get(a.family, ())]
        if prompts:
            out.append((prompts, override(config.generate, candidates=n)))
    return out
