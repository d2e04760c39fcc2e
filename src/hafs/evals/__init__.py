"""Evaluation: results by prompt, intervals, and the comparison that decides whether a model is promoted.

results.py holds what one model reached on one benchmark, compare.py the paired comparison and the decision,
failures.py the failed
answers by cause (causes.py says why one failed), tables.py the tables as text and Markdown, words.py the formats of
figures.
"""

from hafs.evals.compare import Comparison, Decision, Paired, compare
from hafs.evals.failures import Cluster, FailureReport, failures
from hafs.evals.results import EvalResult, PromptResult, eval_result
from hafs.evals.tables import to_markdown, to_rich, to_text
from hafs.statistics import Estimate

__all__ = [
    "Cluster",
    "Comparison",
    "Decision",
    "Estimate",
    "EvalResult",
    "FailureReport",
    "Paired",
    "PromptResult",
    "compare",
    "eval_result",
    "failures",
    "to_markdown",
    "to_rich",
    "to_text",
]
