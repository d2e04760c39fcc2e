"""Let only code that is known to be harmless reach the assembler: an allow-list, line by line.

A deny-list cannot work: `!a = inc`, `!b = bin`, `!a!b "file"` spells `incbin`, and asar has readfile1(),
table, while and for besides. So a command must begin, letter by letter, with a mnemonic or a directive from a
short list, and its operand must be made of numbers, labels and operators. The sandbox around the assembler is
the second wall.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hafs_snes.scorer.syntax import DATA, MNEMONICS, Command, commands, strip_comment

__all__ = ["Screened", "screen"]

LONGEST_CODE = 20_000  # characters
# Words that are dropped (nothing is lost without them), place a patch, read files, are refused.
_SETUP = "LOROM ARCH OPTIMIZE MATH CHECK WARNINGS PRINT WARN"
_PATCH = """
ORG BASE PUSHPC PULLPC FREECODE FREEDATA FREESPACE AUTOCLEAN PROT ASSERT WARNPC PAD PADBYTE PADWORD FILL
FILLBYTE FILLWORD SKIP ALIGN"""
_FILES = "INCSRC INCBIN INCLUDE INCLUDEONCE INCLUDEFROM TABLE"
_REFUSED = """
IF ELSE ELSEIF ENDIF WHILE ENDWHILE FOR ENDFOR MACRO ENDMACRO FUNCTION NAMESPACE STRUCT ENDSTRUCT UNDEF
ERROR GLOBAL RESET HIROM EXLOROM EXHIROM SA1ROM SFXROM FULLSA1ROM NOROM CLEARTABLE PUSHTABLE PULLTABLE
DPBASE BANK SPCBLOCK ENDSPCBLOCK"""
SETUP, PATCH, FILES = (frozenset(words.split()) for words in (_SETUP, _PATCH, _FILES))
DIRECTIVES = frozenset(_REFUSED.split()) | PATCH | SETUP
FILE_FUNCTION = re.compile(r"(?i)(can)?readfile\d?|filesize|getfilestatus")
FUNCTIONS = frozenset({"bank", "pc", "min", "max", "abs", "floor", "ceil"})
SAFE = re.compile(r"[\w\s$%#(),\[\].+\-*/<>&|^~!=]*")
CHARACTER = re.compile(r"'[\w ]'")
STRING = re.compile(r'"[\w .,\-+*/()#$]*"')


@dataclass
class Screened:
    """`code` is what may be assembled (same line numbers); it is harmless only when `errors` is empty.

    An error is (kind, text); the kinds are "file access", "function", "directive", "define", "operand", "too
    long", "unreadable". `dropped` are set-up lines that were taken out.
    """

    code: str
    errors: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def screen(code: str, patch: bool = False) -> Screened:
    """Check code line by line. With `patch` the code may place itself (org, freecode, …); else it may not."""
    out = Screened(code)
    if len(code) > LONGEST_CODE:
        out.errors.append(("too long", f"{len(code)} characters, the limit is {LONGEST_CODE}"))
        return out
    kept, seen_code = [], False
    for number, raw in enumerate(code.split("\n"), 1):
        line = strip_comment(raw).rstrip()
        parts = []
        for command in _commands(line, number, out):
            if _dropped(command, patch, seen_code):
                out.dropped.append(command.text)
                continue
            problem = _problem(command, patch)
            if problem:
                out.errors.append((problem[0], f"line {number}: {problem[1]}"))
            seen_code = seen_code or command.word in MNEMONICS | DATA
            parts.append(command.text)
        kept.append(" : ".join(parts))
    out.code = "\n".join(kept)
    return out


def _commands(line: str, number: int, out: Screened) -> list[Command]:
    if not line.isascii() or not all(c.isprintable() or c == "\t" for c in line):
        out.errors.append(("unreadable", f"line {number}: a character that is no plain text"))
        return []
    if "\\" in line:
        out.errors.append(("operand", f"line {number}: a backslash"))
        return []
    return commands(line)


def _dropped(command: Command, patch: bool, seen_code: bool) -> bool:
    """Set-up that models like to write: `lorom`, `print`, and an `org` in front of a routine."""
    if command.labels:
        return False
    return command.word in SETUP or (command.word == "ORG" and not patch and not seen_code)


def _problem(command: Command, patch: bool) -> tuple[str, str] | None:
    if command.word in FILES or re.search(r"(?i)\binc(src|bin|lude)\b", command.operand):
        return "file access", "the answer may not read files"
    if any(re.match(r"(?i)#?\.*__hafs", label) for label in command.labels):
        return "operand", "labels that begin with __hafs are taken"
    word, operand = command.word, command.operand
    if word == "AUTOCLEAN" and patch:
        inner = commands(operand)
        return _problem(inner[0], patch) if len(inner) == 1 else ("directive", "autoclean needs one command")
    if word == "=" and command.text.partition("=")[0].split()[-1].strip(".").upper() in DIRECTIVES | FILES:
        return "directive", "a directive's name may not be assigned to"
    if word in ("!", "="):
        return _operand_problem(operand, "define")
    if word == "REP" and not operand.startswith("#"):
        return "directive", "rep (repeat) may not be used"
    if word in MNEMONICS or (patch and word in PATCH):
        return _operand_problem(operand, "operand")
    if word in DATA:
        return _operand_problem(STRING.sub("0", operand), "operand")
    if word in DIRECTIVES:
        return "directive", f"{word.lower()} may not be used"
    if not word and not operand:
        return None  # labels only
    if re.match(r"[!%?@]", operand or command.text) or "!" in command.text.split()[0]:
        return "define", "a define or macro may not stand for a command"
    return "unknown instruction", f"not an instruction: {command.text[:40]}"


def _operand_problem(operand: str, kind: str) -> tuple[str, str] | None:
    text = CHARACTER.sub("0", operand).replace("<:", "<")
    names = re.findall(r"([A-Za-z_]\w*)\s*\(", text)
    if any(FILE_FUNCTION.fullmatch(name) for name in names) or (kind == "define" and FILE_FUNCTION.search(text)):
        return "file access", "the answer may not read files"
    if not SAFE.fullmatch(text):
        return kind, f"not allowed here: {operand[:40]}"
    if re.search(r"%(?![01])|!\w*\s*[!(]", text):
        return kind, f"not allowed here: {operand[:40]}"
    for name in names:
        if name.lower() not in FUNCTIONS:
            return "function", f"the function {name}() may not be used"
    return None
