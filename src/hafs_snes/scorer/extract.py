"""Find the code in an answer: in a fence when there is one, else the lines that are code.

Of several fences the last one that defines the wanted label is taken (models correct themselves downwards),
else the one with most code. Without fences prose separates stretches of text, and one stretch is taken whole:
a line in it that is neither prose nor code stays, so that broken code fails to assemble instead of being
tidied up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hafs.scorers.fences import LONGEST_ANSWER, Block, fences
from hafs_snes.scorer.syntax import is_code

__all__ = ["Extracted", "extract", "number"]

ASM_TAGS = {"asm", "assembly", "65816", "65c816", "asar", "snes", "ca65", "6502", "asm65816", "nasm", "s", "x86asm", ""}
NUMBER = re.compile(
    r"(?<![\w.$%])#?(\$[0-9A-Fa-f]+|0[xX][0-9A-Fa-f]+|%[01]+|0[bB][01]+|[0-9][0-9A-Fa-f]*[hH]|\d+)(?![\w%])"
)
FINAL = re.compile(r"(?:answer|result|value|=|:|\bis\b)[\s*`:=]*$", re.I)


@dataclass(frozen=True)
class Extracted:
    """The code of an answer and where it was: "fence", "open fence" (never closed), "text" or "none"."""

    code: str
    how: str


def _weight(block: Block) -> int:
    return sum(is_code(line) for line in block.lines)


def _defines(block: Block, label: str) -> bool:
    return bool(label) and any(re.match(rf"\s*{re.escape(label)}\s*:", line, re.I) for line in block.lines)


def extract(answer: str, entry: str = "") -> Extracted:
    """Find the code of an answer; `entry` is the label it should define. Never raises."""
    lines = re.split(r"\r\n|\r|\n", answer[:LONGEST_ANSWER])
    fenced, outside = fences(lines)
    blocks = [b for b in fenced if _weight(b) >= (1 if b.tag in ASM_TAGS else 2)]
    if blocks:
        best = _choose(blocks, entry)
        return Extracted(_trim(best.lines), "fence" if best.closed else "open fence")
    blocks = [b for b in _stretches(outside) if _weight(b)]
    if blocks:
        return Extracted(_trim(_choose(blocks, entry).lines), "text")
    return Extracted("", "none")


def _choose(blocks: list[Block], entry: str) -> Block:
    named = [b for b in blocks if _defines(b, entry)]
    return named[-1] if named else max(blocks, key=_weight)


def _trim(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n")


def _is_prose(line: str) -> bool:
    text = line.strip()
    if not text or text.startswith(";") or is_code(line):
        return False
    if re.match(r"(#{1,6}|[*>]|\d+[.)])\s", text):
        return True
    words = [w for w in text.split() if re.fullmatch(r"[\"'(]*[A-Za-z][A-Za-z'-]+[\"').,;:!?]*", w)]
    return len(words) >= 4 or (bool(words) and text[-1] in ".!?:")


def _stretches(lines: list[str]) -> list[Block]:
    out: list[Block] = [Block("", [], True)]
    for line in lines:
        if _is_prose(line):
            out.append(Block("", [], True))
        else:
            out[-1].lines.append(line)
    return out


def number(answer: str) -> int | None:
    """The number an answer ends on: the last one after "answer", "is", "=" or ":", else the last one of all.

    $1F, 0x1F, 1Fh, %11111, 0b11111 and 31 are the same number. None when there is no number.
    """
    text = answer[-LONGEST_ANSWER:]
    found = [(m, bool(FINAL.search(text[max(0, m.start() - 24) : m.start()]))) for m in NUMBER.finditer(text)]
    if not found:
        return None
    final = [m for m, marked in found if marked] or [m for m, _ in found]
    return _value(final[-1][1])


def _value(digits: str) -> int:
    low = digits.lower()
    if low[0] == "$":
        return int(low[1:], 16)
    if low[0] == "%":
        return int(low[1:], 2)
    if low.startswith(("0x", "0b")):
        return int(low, 0)
    return int(low[:-1], 16) if low.endswith("h") else int(low)
