"""Scores code in any language: its syntax by tree-sitter, and what a command of yours says of it in the sandbox.

    code                                   the syntax of the language that the answer's code block names
    code:rust                              the syntax of Rust
    code:run=/opt/check.sh {file}          a command: its exit code, or a line of JSON that it prints last
    code:language=c,run=/usr/bin/gcc -fsyntax-only {file}

- syntax.py  runs inside the sandbox: tree-sitter over many answers
- scorer.py  finds the code, runs syntax.py and the command, makes the score
"""

from hafs.scorers.code.scorer import CodeScorer

__all__ = ["CodeScorer"]
