"""Scorers: what says how good a candidate is. A scorer gives a value or says why there is none; it never
guesses.

A scorer is named by an expression: `asm`, `text:min_words=20`, `python*0.7+text*0.3` (the weighted mean) or
`python>text` (by the first, then by the second); see `hafs.scorers.compose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hafs import registry
from hafs.errors import UsageError
from hafs.types import Candidate, Prompt, Score

__all__ = ["Opened", "Scorer", "open_scorer", "opened_as", "prepare", "takes_prompts"]


class Scorer(Protocol):
    """What every scorer has. `arguments` hold what changes its results, so that a score can be made again."""

    name: str
    version: str
    arguments: Mapping[str, Any]

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in the order of the items."""
        ...

    def close(self) -> None:
        """Give back processes and files."""
        ...


def prepare(scorer: Scorer, prompts: Iterable[Prompt]) -> None:
    """Let a scorer take into its `arguments` what lies outside of the prompts and decides their scores: the content of
    the scripts that their checks name. To be called with a workspace's prompts before its scores are looked for.
    """
    own: Callable[[Iterable[Prompt]], None] | None = getattr(scorer, "prepare", None)
    if own is not None:
        own(prompts)


def takes_prompts(scorer: Scorer) -> bool:
    """Whether `prepare` reads the prompts for this scorer at all."""
    return getattr(scorer, "prepare", None) is not None


def open_scorer(spec: str, **options: Any) -> Scorer:
    """Open the scorer that an expression names. Raises UsageError when a name is unknown or the expression is wrong.

    A part `name:ARGUMENT` opens what is registered under `name` with `argument="ARGUMENT"` beside the options.
    """
    from hafs.scorers.compose import Composite, parse

    def one(name: str, argument: str) -> Scorer:
        given = {"argument": argument} if argument else {}
        opened: Scorer = registry.load("scorers", name)(**options, **given)
        return opened

    tree = parse(spec)
    single = len(tree) == 1 and len(tree[0]) == 1
    scorer = _answers_alone(one(tree[0][0].name, tree[0][0].argument) if single else Composite(tree, one))
    scorer.opened = Opened(spec, tuple(sorted(options.items())))  # type: ignore[attr-defined]
    return scorer


@dataclass(frozen=True)
class Opened:
    """How a scorer was opened, by which another process opens the same."""

    expression: str
    options: tuple[tuple[str, Any], ...] = ()

    def open(self, **other: Any) -> Scorer:
        """Open it here, with `other` options put over its own."""
        return open_scorer(self.expression, **{**dict(self.options), **other})


def opened_as(scorer: Scorer) -> Opened:
    """How `scorer` was opened; raises UsageError when it was not by `open_scorer`."""
    found: Opened | None = getattr(scorer, "opened", None)
    if found is None:
        raise UsageError(f"the scorer {scorer.name} has no name that other machines know", "open it with `open_scorer`")
    return found


UNFINISHED = "unfinished"
"""The cause of an answer that is a thought without an end: it fails, whatever draft stands in the thought."""
_LOWEST = -1e300  # below every key


def _answers_alone(scorer: Scorer) -> Scorer:
    """`scorer`, asked about answers alone: a thought that came to none fails unseen."""
    ask: Callable[[Sequence[tuple[Prompt, Candidate]]], Iterator[Score]] = scorer.score

    def score(items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        found = ask([(p, c) for p, c in items if not c.unfinished])
        about = (scorer.name, scorer.version, scorer.arguments)
        for _, candidate in items:
            if candidate.unfinished:
                yield Score(candidate.id, *about, 0.0, key=(_LOWEST,), passed=False, cause=UNFINISHED)
            else:
                yield next(found)

    scorer.score = score  # type: ignore[method-assign]
    return scorer
