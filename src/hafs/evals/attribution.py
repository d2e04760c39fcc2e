"""How much of a gain is the data's and how much the preferences': beside SFT on the same right winners.

Rejection sampling (Yuan et al. 2023, "Scaling Relationship on Learning Mathematical Reasoning") teaches the right
answers of the very groups that DPO compares, from the same start. What it gains is what the data give; only what DPO
gains beyond it comes of preferring one answer to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hafs.evals.compare import compare
from hafs.evals.results import EvalResult
from hafs.evals.words import interval, model_title, points
from hafs.statistics import Estimate

__all__ = ["WINNERS", "Attribution", "attribute"]

WINNERS = "sft-winners"
"""The name of the model that SFT on the right winners gives."""


@dataclass(frozen=True)
class Attribution:
    """The paired changes of the pass rate: of the model over its start (`total`), of SFT on the right winners over that
    start (`data`), and of the model over SFT on the right winners (`preferences`)."""

    model: str
    start: str
    total: Estimate
    data: Estimate
    preferences: Estimate

    @property
    def sentence(self) -> str:
        """What came of the data and what of the preferences, in words."""
        new, old = model_title(self.model), model_title(self.start)
        parts = (
            f"Of {new}'s {points(self.total.value)} points over {old}, {points(self.data.value)}"
            f" ({interval(self.data, change=True)}) come with {model_title(WINNERS)}, that is with the data, and"
            f" {points(self.preferences.value)} ({interval(self.preferences, change=True)}) with the preferences."
        )
        if self.preferences.above_zero:
            return f"{parts} The preferences add to it: the whole interval is above zero."
        if self.preferences.below_zero:
            return f"{parts} The preferences take away from it: the whole interval is below zero."
        return f"{parts} At this size what the preferences add cannot be told from chance."

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "sentence": self.sentence}


def attribute(start: Sequence[EvalResult], winners: Sequence[EvalResult], after: Sequence[EvalResult]) -> Attribution:
    """Where the gain of `after` over `start` comes from; each is one model's results, one a benchmark.

    Raises UsageError when one of them lacks a benchmark of `start`.
    """

    def change(new: Sequence[EvalResult], old: Sequence[EvalResult]) -> Estimate:
        return compare({"old": old, "new": new}, "old").overall["new"].difference

    return Attribution(
        after[0].name, start[0].name, change(after, start), change(winners, start), change(after, winners)
    )


def cheaper(attribution: Attribution, promoted: bool, winners_promoted: bool) -> bool:
    """Whether SFT on the right winners is to be kept in the model's place: it may be promoted, and the model is not
    better than it or may not be promoted."""
    return winners_promoted and not (promoted and attribution.preferences.above_zero)
