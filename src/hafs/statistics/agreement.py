"""How far raters agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number with gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two raters' labels of the same items; None without items or where chance agrees always.

    Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960).
    """
    n = len(pairs)
    if not n:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / n
    chance = sum(first[label] * second[label] for label in first) / n**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def krippendorff_alpha(units: Sequence[Mapping[str, Hashable]], metric: str = "nominal") -> float | None:
    """Krippendorff's alpha of `units`: for each item, what each rater who saw it said (rater -> value).

    `metric` is "nominal" (values are equal or not), "ordinal" (values have an order; disagreement is the square of how
    many ratings lie between) or "interval" (values are numbers; the squared difference). Items of one rater count for
    nothing. None where nothing was rated twice or all values are equal. Raises ValueError for another metric.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), the coincidence-matrix form.
    """
    if metric not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"there is no metric {metric!r}")
    coincidences: Counter[tuple[Hashable, Hashable]] = Counter()
    for unit in units:
        values = list(unit.values())
        counts = Counter(values)
        if len(values) < 2:
            continue
        for a, b in product(counts, repeat=2):
            coincidences[a, b] += counts[a] * (counts[b] - (a == b)) / (len(values) - 1)  # type: ignore[assignment]
    totals: Counter[Hashable] = Counter()
    for (a, _), n in coincidences.items():
        totals[a] += n
    n = sum(totals.values())
    apart = {(a, b): _difference(a, b, metric, totals) for a, b in product(totals, repeat=2)}
    expected = sum(totals[a] * totals[b] * apart[a, b] for a, b in apart)
    if n <= 1 or not expected:
        return None
    observed = sum(count * apart[pair] for pair, count in coincidences.items())
    return 1 - (n - 1) * observed / expected


def _difference(a: Any, b: Any, metric: str, totals: Mapping[Any, float]) -> float:
    """How far two values are apart; `totals` says how often each was given."""
    if metric == "nominal":
        return float(a != b)
    if metric == "interval":
        return float((a - b) ** 2)
    low, high = min(a, b), max(a, b)
    between = sum(count for value, count in totals.items() if low <= value <= high)
    return float((between - (totals[a] + totals[b]) / 2) ** 2)
