"""The little that must be known of asar's syntax to read code line by line: comments, labels, commands,
mnemonics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["DATA", "MNEMONICS", "Command", "commands", "is_code", "strip_comment"]

_MNEMONICS = """
ADC AND ASL BCC BCS BEQ BIT BMI BNE BPL BRA BRK BRL BVC BVS CLC CLD CLI CLV CMP COP CPX CPY DEC DEX DEY
EOR INC INX INY JML JMP JSL JSR LDA LDX LDY LSR MVN MVP NOP ORA PEA PEI PER PHA PHB PHD PHK PHP PHX PHY
PLA PLB PLD PLP PLX PLY REP ROL ROR RTI RTL RTS SBC SEC SED SEI SEP STA STP STX STY STZ TAX TAY TCD TCS
TDC TRB TSB TSC TSX TXA TXS TXY TYA TYX WAI WDM XBA XCE"""
MNEMONICS = frozenset(_MNEMONICS.split())
DATA = frozenset({"DB", "DW", "DL", "DD"})
PLACES = frozenset({"ORG", "LOROM", "FREECODE", "FREEDATA", "AUTOCLEAN", "PUSHPC", "PULLPC", "WARNPC"})

LABEL = re.compile(r"(?:#?\.*[A-Za-z_]\w*:|\.+[A-Za-z_]\w*(?=\s|$)|(?:\+{1,4}|-{1,4}):?(?=\s|$))\s*")
DEFINE = re.compile(r"!(\w+)\s*[?#:+]?=\s*(.*)$")
ASSIGN = re.compile(r"[A-Za-z_.][\w.]*\s*=\s*(.*)$")
WORD = re.compile(r"([A-Za-z_]\w*)(\.[A-Za-z]+)?(?=\s|$)\s*(.*)$")
OPERAND = re.compile(r"[#$(\[!%.+\-]|[\w.]+([+\-]\$?\w+)?(\s*,\s*[xysXYS])?$|[A-Za-z_.]\w*[+\-,)]")


@dataclass(frozen=True)
class Command:
    """One command of a line: its labels cut off, its word in capitals ("LDA"), its suffix ("w" or ""), its
    operand.

    A define or an assignment has the word "!" or "=" and its value as the operand; what cannot be read has no
    word.
    """

    text: str
    labels: tuple[str, ...]
    word: str
    suffix: str
    operand: str


def strip_comment(line: str) -> str:
    """The line without its comment; a semicolon inside double quotes starts none."""
    quoted = False
    for i, c in enumerate(line):
        if c == '"':
            quoted = not quoted
        elif c == ";" and not quoted:
            return line[:i]
    return line


def commands(line: str) -> list[Command]:
    """The commands of a line that has no comment, as asar splits them: at colons with spaces around."""
    return [_command(part.strip()) for part in re.split(r"\s:(?=\s|$)", line) if part.strip()]


def _command(text: str) -> Command:
    labels, rest = [], text
    while m := LABEL.match(rest):
        labels.append(m.group().strip())
        rest = rest[m.end() :]
    if not rest:
        return Command(text, tuple(labels), "", "", "")
    if m := DEFINE.match(rest):
        return Command(text, tuple(labels), "!", "", m[2].strip())
    if m := ASSIGN.match(rest):
        return Command(text, tuple(labels), "=", "", m[1].strip())
    if m := WORD.match(rest):
        return Command(text, tuple(labels), m[1].upper(), (m[2] or "")[1:].lower(), m[3].strip())
    return Command(text, tuple(labels), "", "", rest)


def is_code(line: str) -> bool:
    """Whether a line looks like assembly rather than prose: every command of it does."""
    parts = commands(strip_comment(line))
    return bool(parts) and all(_looks_like_code(c) for c in parts)


def _looks_like_code(c: Command) -> bool:
    if c.word in ("!", "="):
        return True
    if not c.word:
        return bool(c.labels) and not c.operand
    if c.word in DATA:
        return bool(re.match(r"[$%!\"\d.]|[A-Za-z_]\w*\s*(,|$)", c.operand))
    if c.word in PLACES:
        return len(c.operand.split()) <= 2
    if c.word not in MNEMONICS:
        return False
    return not c.operand or bool(OPERAND.match(c.operand))
