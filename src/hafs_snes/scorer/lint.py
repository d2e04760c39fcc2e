"""What is suspicious in code that assembles: asar cuts, guesses and never warns where a beginner errs.

Findings explain failures, they decide nothing: the emulator does. Register widths are followed straight down
the text, so code that jumps between widths may be judged wrongly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hafs_snes.scorer.syntax import Command, commands, strip_comment

__all__ = ["Finding", "lint"]

ACCUMULATOR = frozenset({"ADC", "AND", "BIT", "CMP", "EOR", "LDA", "ORA", "SBC"})
INDEX = frozenset({"CPX", "CPY", "LDX", "LDY"})
BRANCHES = frozenset({"BCC", "BCS", "BEQ", "BMI", "BNE", "BPL", "BRA", "BRL", "BVC", "BVS"})
RAW = re.compile(r"\$[0-9A-Fa-f]+|%[01]+|\d+")
WIDE_ONLY = frozenset({"PEA", "PER", "MVN", "MVP", "JSL", "JML"})
HEX = re.compile(r"[#(\[]*\$([0-9A-Fa-f]+)")
MATH_START = re.compile(r"\$(?:00)?420[36](?!\w)", re.I)
MATH_READ = re.compile(r"\$(?:00)?421[4-7](?!\w)", re.I)
DIVIDE_CYCLES, MULTIPLY_CYCLES = 16, 8


@dataclass(frozen=True)
class Finding:
    """`kind` is "truncated", "register width", "stack", "hardware not ready" or "raw offset"."""

    kind: str
    text: str


class _Widths:
    """M and X followed straight through the text; None when unknown."""

    def __init__(self, p: int) -> None:
        self.m: bool | None = bool(p & 0x20)
        self.x: bool | None = bool(p & 0x10)
        self._saved: list[tuple[bool | None, bool | None]] = []

    def step(self, c: Command) -> None:
        if c.word in ("REP", "SEP"):
            mask = _constant(c.operand)
            to = c.word == "SEP"
            if mask is None:
                self.m = self.x = None
            else:
                self.m = to if mask & 0x20 else self.m
                self.x = to if mask & 0x10 else self.x
        elif c.word == "PHP":
            self._saved.append((self.m, self.x))
        elif c.word == "PLP":
            self.m, self.x = self._saved.pop() if self._saved else (None, None)


def _constant(operand: str) -> int | None:
    m = re.fullmatch(r"#(?:\$([0-9A-Fa-f]+)|%([01]+)|(\d+))", operand)
    if not m:
        return None
    return int(m[1], 16) if m[1] else int(m[2], 2) if m[2] else int(m[3])


def lint(code: str, p: int = 0x34) -> list[Finding]:
    """Findings in code without comments; `p` is the status register on entry (8-bit registers by default)."""
    out: list[Finding] = []
    widths = _Widths(p)
    depth, cycles, needed = 0, 0, 0
    for number, line in enumerate(code.split("\n"), 1):
        for c in commands(strip_comment(line)):
            out += [Finding(kind, f"line {number}: {text}") for kind, text in _operand(c, widths)]
            widths.step(c)
            depth += c.word.startswith("PH") or c.word in ("PEA", "PEI", "PER")
            depth -= c.word.startswith("PL")
            if needed and MATH_READ.search(c.operand) and cycles + 3 < needed:
                out.append(
                    Finding(
                        "hardware not ready",
                        f"line {number}: the result is read {cycles + 3} cycles after the start, it takes {needed}",
                    )
                )
            cycles += _cycles(c)
            if c.word.startswith("ST") and (m := MATH_START.search(c.operand)):
                cycles, needed = 0, DIVIDE_CYCLES if m[0].endswith("6") else MULTIPLY_CYCLES
    if depth:
        out.append(Finding("stack", f"{abs(depth)} more {'pushes than pulls' if depth > 0 else 'pulls than pushes'}"))
    return out


def _cycles(c: Command) -> int:
    """About how many CPU cycles a command takes at least."""
    if not c.word or c.word in ("!", "="):
        return 0
    if c.word.startswith("PL"):
        return 4
    if c.word.startswith("PH"):
        return 3
    return 2 if not c.operand or c.operand[0] == "#" else 4 if re.match(r"\$\w{4}", c.operand) else 3


def _operand(c: Command, widths: _Widths) -> list[tuple[str, str]]:
    if c.word in BRANCHES and RAW.fullmatch(c.operand):
        why = f"{c.word} {c.operand}: asar takes a number as a distance in bytes, not as an address; name a label"
        return [("raw offset", why)]
    m = HEX.match(c.operand)
    if not m or c.word in WIDE_ONLY:
        return []
    digits = len(m[1])
    out = []
    if digits > {"b": 2, "w": 4}.get(c.suffix, 6):
        out.append(("truncated", f"${m[1]} does not fit .{c.suffix} and is cut silently"))
    register = "A" if c.word in ACCUMULATOR else "X and Y" if c.word in INDEX else ""
    if register and c.operand.startswith("#"):
        narrow = widths.m if register == "A" else widths.x
        wide = c.suffix == "w" or (not c.suffix and digits > 2)
        if narrow is not None and narrow == wide:
            sizes = ("16", "8") if wide else ("8", "16")
            out.append(("register width", f"{sizes[0]}-bit immediate while {register} is {sizes[1]}-bit"))
    return out
