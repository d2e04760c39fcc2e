"""A Python function of the user's as a scorer: `my_check.py:score`, called in the sandbox, many answers at a start.

- harness.py  runs inside the sandbox: loads the file, calls the function, writes a line of JSON an answer
- scorer.py   finds the file and what it imports, starts the harness, makes the scores
"""

from hafs.scorers.function.scorer import FunctionScorer

__all__ = ["FunctionScorer"]
