"""A workspace with a planted judge and a planted person, of whom everything is known: for tests and for the how-to.

Every answer has a quality and a length. The person sees the quality, a little blurred, and calls close ones equal. The
judge sees it too, with an error of its own for each answer, likes long answers and what is shown first, and now and
then answers nonsense. `python benchmarks/simulated_judge.py DIRECTORY` makes the workspace of the how-to
docs/how-to/judge-calibration.md; `--labels` answers the newest annotation queue of that workspace as the person would.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from hafs.judge.injection import probes_of
from hafs.store import Store, init_workspace, open_workspace
from hafs.types import Annotation, Candidate, Prompt, Score, Verdict

JUDGE = "simulated-judge"
MODELS = ("sft", "dpo")


@dataclass(frozen=True)
class Nature:
    """What is planted: the judge's liking for the first slot and for length (in units of quality), its error, what it
    and the person call a tie, how blurred the person sees, the share of nonsense, and how much better DPO is."""

    first: float = 0.5
    length: float = 0.4
    error: float = 0.7
    noise: float = 0.3
    tie: float = 0.15
    blur: float = 0.35
    nonsense: float = 0.02
    better: float = 0.4
    longer: float = 0.8


@dataclass
class World:
    """Prompts with their candidates, and the truth about each candidate by its id."""

    nature: Nature = field(default_factory=Nature)
    prompts: list[Prompt] = field(default_factory=list)
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def label(self, prompt_id: str, rng: np.random.Generator, serial: int = 0, submitted: float = 0.0) -> Annotation:
        """What the person says of a prompt."""
        shown = [c.id for c in self.candidates[prompt_id]]
        value = {id: self.quality[id] + self.nature.blur * rng.normal() for id in shown}
        tiers: list[list[str]] = []
        for id in sorted(shown, key=lambda id: -value[id]):
            if tiers and value[tiers[-1][0]] - value[id] < self.nature.tie:
                tiers[-1].append(id)
            else:
                tiers.append([id])
        return Annotation(
            prompt_id,
            "ann",
            tuple(shown),
            "ranked",
            tuple(map(tuple, tiers)),
            confidence="clear",
            seconds=float(np.round(rng.gamma(6.0, 12.0), 1)),
            submitted=submitted,
            serial=serial,
        )

    def verdicts(self, prompt_id: str, rng: np.random.Generator) -> Iterator[Verdict]:
        """What the judge says of every two of a prompt's candidates, in both orders."""
        for a, b in combinations([c.id for c in self.candidates[prompt_id]], 2):
            for shuffle, (first, second) in enumerate(((a, b), (b, a))):
                yield self._verdict(prompt_id, first, second, shuffle, rng)

    def _verdict(self, prompt_id: str, first: str, second: str, shuffle: int, rng: np.random.Generator) -> Verdict:
        shown = (first, second)
        if rng.random() < self.nature.nonsense:
            return Verdict(prompt_id, JUDGE, "pairwise@1", shown, "malformed", shuffle=shuffle, reason="no JSON in it")
        ahead = self.seen[first] - self.seen[second] + self.nature.first + self.nature.noise * rng.normal()
        if abs(ahead) < self.nature.tie:
            return Verdict(prompt_id, JUDGE, "pairwise@1", shown, "tie", shuffle=shuffle)
        tiers = ((first,), (second,)) if ahead > 0 else ((second,), (first,))
        strength = 2.0 if abs(ahead) > 1.5 else 1.0
        return Verdict(prompt_id, JUDGE, "pairwise@1", shown, "ranked", tiers, strength, shuffle=shuffle)


def world(prompts: int = 300, seed: int = 0, nature: Nature | None = None) -> World:
    """`prompts` prompts with two answers of each of two models."""
    rng = np.random.default_rng(seed)
    made = World(nature or Nature())
    n = made.nature
    for number in range(prompts):
        prompt = Prompt(f"Task {number}: explain what routine {number} does.", family="simulated", source="simulated")
        made.prompts.append(prompt)
        made.candidates[prompt.id] = []
        for model in MODELS:
            for index in range(2):
                length = rng.normal() + n.longer * (model == "dpo")
                quality = rng.normal() + n.better * (model == "dpo")
                words = int(np.clip(30 + 10 * length, 5, 90))
                text = f"Answer {index} of {model} to task {number}: " + "word " * words
                c = Candidate(prompt.id, text.strip(), f"hash-{model}", model, seed=seed, index=index)
                made.candidates[prompt.id].append(c)
                made.quality[c.id] = quality
                made.seen[c.id] = quality + n.length * length + n.error * rng.normal()
    return made


def fill(store: Store, made: World, seed: int = 0) -> None:
    """Put prompts, candidates, an automatic score and the judge's verdicts into a workspace; a few are about probes."""
    rng = np.random.default_rng([seed, 1])
    store.add_prompts(made.prompts)
    store.add_candidates(c for mine in made.candidates.values() for c in mine)
    store.add_scores(_scores(made, rng))
    store.add_verdicts(v for p in made.prompts for v in made.verdicts(p.id, rng))
    store.add_verdicts(v for p in made.prompts[:20] for v in _probed(made, p, rng))


def _scores(made: World, rng: np.random.Generator) -> Iterator[Score]:
    for mine in made.candidates.values():
        for c in mine:
            right = bool(made.quality[c.id] + 0.5 * rng.normal() > -1.2)
            yield Score(c.id, "builds", "1", value=float(right), passed=right)


def _probed(made: World, prompt: Prompt, rng: np.random.Generator) -> Iterator[Verdict]:
    answer = made.candidates[prompt.id][0].id
    for probe in probes_of(prompt.id).values():
        for shuffle, shown in enumerate(((probe.id, answer), (answer, probe.id))):
            fooled = rng.random() < 0.04
            winner, loser = (probe.id, answer) if fooled else (answer, probe.id)
            yield Verdict(prompt.id, JUDGE, "pairwise@1", shown, "ranked", ((winner,), (loser,)), shuffle=shuffle)


def annotate(store: Store, made: World, prompt_ids: Sequence[str], seed: int = 0, repeat: float = 0.1) -> int:
    """Let the person rank prompts, and a share of them again; returns how many labels that gave."""
    rng = np.random.default_rng([seed, 2])
    labels = [made.label(id, rng, submitted=float(n)) for n, id in enumerate(prompt_ids)]
    again = prompt_ids[: round(repeat * len(prompt_ids))]
    labels += [made.label(id, rng, 1, 1e6 + n) for n, id in enumerate(again)]
    return store.add_annotations(labels)


def _queue(store: Store) -> Iterable[str]:
    for run in store.runs(kind="annotation-queue"):
        return [row["id"] for row in run.outputs["prompts"]]
    raise SystemExit("there is no annotation queue: run `hafs judge hybrid` first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--labels", action="store_true", help="answer the newest annotation queue")
    parser.add_argument("--prompts", type=int, default=400)
    given = parser.parse_args()
    made = world(given.prompts, nature=Nature(error=1.0))
    if given.labels:
        with open_workspace(given.directory).open_store() as store:
            print(f"{annotate(store, made, list(_queue(store)))} labels")
        return
    with init_workspace(given.directory).open_store() as store:
        fill(store, made)
        print(store.counts())


if __name__ == "__main__":
    main()
