"""Evaluation: results by prompt, intervals, and the comparison that decides whether a model is promoted.

results.py holds what one model reached on one benchmark, statistics.py the intervals and tests, compare.py
the paired comparison and the decision, tables.py its tables as text and Markdown, words.py the formats of
figures.
"""

from hafs.evals.compare import Comparison, Decision, Paired, compare
from hafs.evals.results import EvalResult, PromptResult, eval_result
from hafs.evals.statistics import Estimate
from hafs.evals.tables import to_markdown, to_rich, to_text

__all__ = [
    "Comparison",
    "Decision",
    "Estimate",
    "EvalResult",
    "Paired",
    "PromptResult",
    "compare",
    "eval_result",
    "to_markdown",
    "to_rich",
    "to_text",
]
