"""Statistics that several parts share: pure functions of numbers, each with its source.

intervals.py holds intervals and tests of pass rates, agreement.py how far raters agree, ranking.py strengths from
comparisons, calibration.py probabilities and thresholds to be trusted, ppi.py means from few labels and many guesses.
"""

from hafs.statistics.agreement import cohen_kappa, krippendorff_alpha
from hafs.statistics.calibration import (
    Certificate,
    LabelledMargins,
    brier,
    certify,
    cross_fitted,
    exceeds,
    expected_calibration_error,
    prompts_needed,
    symmetric_platt,
)
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
    two_level_bootstrap,
    wilson,
    wilson_mean,
)
from hafs.statistics.ppi import FEWEST_OF_EITHER, Regression, Rows, ppi_logistic, ppi_mean
from hafs.statistics.ranking import Strengths, bradley_terry, plackett_luce

__all__ = [
    "FEWEST_OF_EITHER",
    "Certificate",
    "Estimate",
    "LabelledMargins",
    "Regression",
    "Rows",
    "Strengths",
    "bootstrap_mean",
    "bradley_terry",
    "brier",
    "certify",
    "clopper_pearson",
    "cohen_kappa",
    "cross_fitted",
    "exceeds",
    "expected_calibration_error",
    "holm",
    "krippendorff_alpha",
    "mcnemar",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_difference",
    "pass_at_k",
    "plackett_luce",
    "ppi_logistic",
    "ppi_mean",
    "prompts_needed",
    "symmetric_platt",
    "two_level_bootstrap",
    "wilson",
    "wilson_mean",
]
