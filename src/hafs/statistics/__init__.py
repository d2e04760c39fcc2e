"""Statistics that several parts share: pure functions of numbers, each with its source.

intervals.py holds intervals and tests of pass rates, agreement.py how far raters agree.
"""

from hafs.statistics.agreement import cohen_kappa, krippendorff_alpha
from hafs.statistics.intervals import (
    Estimate,
    bootstrap_mean,
    clopper_pearson,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_difference,
    pass_at_k,
    wilson,
)

__all__ = [
    "Estimate",
    "bootstrap_mean",
    "clopper_pearson",
    "cohen_kappa",
    "holm",
    "krippendorff_alpha",
    "mcnemar",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_difference",
    "pass_at_k",
    "wilson",
]
