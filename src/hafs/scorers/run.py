"""The checkers that a set of prompts needs, and the scoring of what a workspace holds.

What has a score already is not scored again, so every function here can be killed and repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from hafs.config import Config
from hafs.errors import UsageError
from hafs.judge.clients import judge_of
from hafs.scorers import Scorer, open_scorer
from hafs.store import Store
from hafs.types import Candidate, Progress, Prompt, Score, silent

SCORE_CHUNK = 64


@dataclass
class ReferenceReport:
    """How many reference answers were checked, how many are right, what is wrong with the others.

    `unscored` counts, by reason, the answers that could not be checked; they are in neither number.
    """

    total: int = 0
    right: int = 0
    problems: list[str] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)


def check_references(prompts: Sequence[Prompt], progress: Progress = silent) -> ReferenceReport:
    """Run the references of `prompts` through each prompt's own checker."""
    report = ReferenceReport()
    for checker in sorted({p.checker for p in prompts if p.checker}):
        mine = [p for p in prompts if p.checker == checker]
        items = [(p, Candidate(p.id, r.text, source=f"reference:{r.name}")) for p in mine for r in p.references]
        with closing(open_scorer(checker)) as scorer:
            for done, ((prompt, candidate), score) in enumerate(zip(items, scorer.score(items), strict=True), 1):
                if score.value is None:
                    report.unscored[score.reason] += 1
                else:
                    report.total += 1
                    report.right += bool(score.passed)
                    if not score.passed:
                        where = f"{prompt.family} {prompt.id} {candidate.source}".strip()
                        report.problems.append(f"{where}: {score.cause or 'wrong'}")
                progress("checking", done, len(items), {})
    report.problems += [f"{p.id}: no checker" for p in prompts if not p.checker]
    report.problems += [f"{p.id}: no reference answer to check" for p in prompts if p.checker and not p.references]
    return report


def scorer_name(config: Config, name: str = "") -> str:
    """The scorer or judge named, or the workspace's where the name is "automatic"."""
    return config.score.scorer if name in ("", "automatic", "auto") else name


def scorer_for(config: Config, name: str = "") -> Scorer:
    """The scorer named, or the workspace's; "automatic" means the workspace's.

    Raises UsageError for a judge, which gives no candidate a value: it compares those of a prompt.
    """
    chosen = scorer_name(config, name)
    if judge_of(chosen):
        raise UsageError(
            f"{chosen} is a judge, which compares answers and gives none a value",
            "a scorer such as `asm` here; for a judge `hafs judge run`, then `hafs judge winrate dpo sft`",
        )
    return open_scorer(chosen, workers=config.score.workers, sandbox=config.score.sandbox)


@dataclass(frozen=True)
class Scored:
    """How many candidates got a value now, and how many are unscored, by reason."""

    scored: int
    unscored: Mapping[str, int]

    @property
    def coverage(self) -> float | None:
        """The share of the candidates tried now that got a value; None when there were none."""
        tried = self.scored + sum(self.unscored.values())
        return self.scored / tried if tried else None


def score_candidates(store: Store, scorer: Scorer, progress: Progress = silent, **filters: Any) -> Scored:
    """Score what has no value yet, new or unscored before; `filters` are those of `Store.to_score`."""
    todo = list(store.to_score(scorer.name, scorer.version, scorer.arguments, **filters))
    return score_all(store, scorer, todo, progress)


def score_all(
    store: Store, scorer: Scorer, todo: Sequence[tuple[Prompt, Candidate]], progress: Progress = silent
) -> Scored:
    """Score `todo` and keep the scores, a chunk at a time."""
    scored, unscored = 0, dict[str, int]()
    chunk: list[Score] = []
    for done, score in enumerate(scorer.score(todo), 1):
        chunk.append(score)
        if score.value is None:
            unscored[score.reason] = unscored.get(score.reason, 0) + 1
        else:
            scored += 1
        if len(chunk) == SCORE_CHUNK or done == len(todo):
            store.add_scores(chunk)
            chunk = []
        progress("scoring", done, len(todo), {})
    return Scored(scored, unscored)


def checker_of(prompt: Prompt) -> str:
    """What checks a prompt's answers: its own checker, `exact` where it has only references, else "" (the default)."""
    return prompt.checker or ("exact" if prompt.references else "")


@contextmanager
def checkers_for(config: Config, prompts: Sequence[Prompt]) -> Iterator[dict[str, Scorer]]:
    """The scorers of all checkers that `prompts` name, by that name, judges left out; closed at the end."""
    with ExitStack() as stack:
        names = sorted({checker_of(p) for p in prompts if not judge_of(p.checker)})
        yield {name: stack.enter_context(closing(scorer_for(config, name))) for name in names}
