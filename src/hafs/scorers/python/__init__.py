"""Scores answers in Python by running them on a prompt's cases or tests, in the sandbox.

    answer ── extract ── lint ── harness (in the sandbox) ── compare ── grade ──> Score

- extract.py   finds the code in an answer; lint.py has ruff look at it
- harness.py   what runs inside the sandbox: the answer in one process, the prompt's tests in another
- run.py       answers through the harness, several for each start, and what they did compared with what is wanted
- grade.py     turns the report into value, order and cause; `grade.CAUSES` lists all causes of failure
- scorer.py    the pool that does this for many candidates at once
- check.py     the check data of a prompt

An answer can see neither the expected values nor the tests: it computes values in a process of its own, and only plain
data leaves it. A tool that is missing or broke makes a candidate unscored, with the reason; it never makes it 0.
"""

from hafs.scorers.python.grade import CAUSES
from hafs.scorers.python.scorer import PythonScorer

__all__ = ["CAUSES", "PythonScorer"]
