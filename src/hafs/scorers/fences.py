"""Fenced code blocks (``` or ~~~) of an answer in Markdown; every scorer that looks for code starts here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LONGEST_ANSWER", "Block", "fences"]

LONGEST_ANSWER = 200_000  # characters looked at: no right answer comes near
FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^`]*+$")


@dataclass(frozen=True)
class Block:
    """Lines of an answer that belong together: a fenced block with its tag, or a stretch of text; a fence may have
    been left open.
    """

    tag: str
    lines: list[str]
    closed: bool

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def fences(lines: Sequence[str]) -> tuple[list[Block], list[str]]:
    """The fenced blocks, and the lines outside of them."""
    blocks: list[Block] = []
    outside: list[str] = []
    mark, tag = "", ""
    body: list[str] = []
    for line in lines:
        m = FENCE.match(line)
        if mark:
            if m and not m[2] and m[1][0] == mark[0] and len(m[1]) >= len(mark):
                blocks.append(Block(tag, body, True))
                mark = ""
            else:
                body.append(line)
        elif m:
            mark, tag, body = m[1], m[2].lower(), []
        else:
            outside.append(line)
    if mark:
        blocks.append(Block(tag, body, False))
    return blocks, outside
