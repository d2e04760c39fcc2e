"""Evaluation: results by prompt, intervals, and the comparison that decides whether a model is promoted.

results.py holds what one model reached on one benchmark, compare.py the paired comparison and the decision,
attribution.py how much of a gain more SFT would give, failures.py the failed answers by cause (causes.py says why one
failed), tables.py the tables as text and Markdown, words.py the formats of figures.
"""

from hafs.evals.attribution import WINNERS, Attribution, attribute
from hafs.evals.compare import Comparison, Decision, Paired, compare
from hafs.evals.failures import Cluster, FailureReport, failures
from hafs.evals.results import EvalResult, PromptResult, eval_result
from hafs.evals.sampled import SampledResult, sampled_result, sampled_table
from hafs.evals.tables import to_markdown, to_rich, to_text
from hafs.statistics import Estimate

__all__ = [
    "WINNERS",
    "Attribution",
    "Cluster",
    "Comparison",
    "Decision",
    "Estimate",
    "EvalResult",
    "FailureReport",
    "Paired",
    "PromptResult",
    "SampledResult",
    "attribute",
    "compare",
    "eval_result",
    "failures",
    "sampled_result",
    "sampled_table",
    "to_markdown",
    "to_rich",
    "to_text",
]
