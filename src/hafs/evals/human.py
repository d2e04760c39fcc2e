"""Which model do people prefer? Judgements of answers of two models, counted by prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations

from hafs.store import Store
from hafs.types import Ranking

__all__ = ["Preferred", "human_preference"]

Preferred = dict[str, tuple[int, int]]
"""By model name: prompts on which people preferred it, prompts decided for or against it."""


def human_preference(store: Store, models: Mapping[str, str]) -> tuple[Preferred, str]:
    """(prompts won, prompts decided) of each model against the others, and a sentence on what it rests on.

    `models` maps names to content hashes. Side-by-side judgements and rankings by people count, whichever candidates
    of the models they are about. All judgements of a prompt make one verdict between two models: who won more often;
    as many each way is a tie and decides nothing.
    """
    named = {hash: name for name, hash in models.items() if hash}
    balance: dict[tuple[str, str, str], int] = defaultdict(int)
    people: set[str] = set()
    judged = 0
    rankings = [*_rankings(store)]
    about = {c for r in rankings for tier in r.tiers for c in tier}
    made_by = {c.id: named[c.model] for c in store.candidates(ids=about) if c.model in named}
    for ranking in rankings:
        counted = False
        for better, worse in combinations(ranking.tiers, 2):
            for winner, loser in ((a, b) for a in better for b in worse):
                first, second = made_by.get(winner), made_by.get(loser)
                if first and second and first != second:
                    a, b = sorted((first, second))
                    balance[ranking.prompt_id, a, b] += 1 if first == a else -1
                    counted = True
        if counted:
            judged += 1
            people.add(ranking.source)
    won, decided = Counter[str](), Counter[str]()
    for (_, a, b), net in balance.items():
        if net:
            won[a if net > 0 else b] += 1
            decided.update((a, b))
    found = {name: (won[name], decided[name]) for name in models if decided[name]}
    if not found:
        return {}, ""
    who = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
    return found, (
        f"Human Preference: the share of prompts on which people preferred the model's answer to that of"
        f" another model here, ties left out ({judged} judgements by {who})."
    )


def _rankings(store: Store) -> Iterator[Ranking]:
    """What people ranked or compared, each sitting once."""
    for annotation in store.annotations(mode=["ab", "rank"]):
        if annotation.serial == 0 and (ranking := annotation.ranking()) is not None:  # not the repeats
            yield ranking
    for ranking in store.rankings():
        if ranking.source.startswith("human:") and "annotation" not in ranking.details:
            yield ranking
