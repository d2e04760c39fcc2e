"""A pygments lexer for 65816 assembly as asar reads it."""

from __future__ import annotations

import re

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

__all__ = ["LANGUAGES", "AsarLexer", "looks_like_asm"]

LANGUAGES = {"asm", "assembly", "65816", "65c816", "asar", "snes", "ca65", "6502", "asm65816", "s"}
"""What a fence of such code may be called."""

_MNEMONICS = """
adc and asl bcc bcs beq bit bmi bne bpl bra brk brl bvc bvs clc cld cli clv cmp cop cpx cpy dec dex dey eor inc
inx iny jml jmp jsl jsr lda ldx ldy lsr mvn mvp nop ora pea pei per pha phb phd phk php phx phy pla plb pld plp plx
ply rep rol ror rti rtl rts sbc sec sed sei sep sta stp stx sty stz tax tay tcd tcs tdc trb tsb tsc tsx txa txs txy
tya tyx wai wdm xba xce"""
MNEMONICS = tuple(_MNEMONICS.split())
_COMMANDS = """
arch assert autoclean autoclear base bank check cleartable db dd dl dw dpbase elseif else endif endmacro
endnamespace endrep endstruct endwhile error exlorom exhirom fill fillbyte fillword fillwordlong for endfor freecode
freedata freespace freespacebyte function global hirom if include incbin incsrc lorom macro namespace norom optimize
org pad padbyte pad pool pullbase pullns pullpc pulltable print prot pushbase pushns pushpc pushtable rep reset
sa1rom fullsa1rom sfxrom skip spcblock endspcblock startpos struct table undef warn warnings warnpc while"""
COMMANDS = tuple(_COMMANDS.split())


class AsarLexer(RegexLexer):
    """65816 code: labels, mnemonics with their width (`lda.w`), asar's commands, defines, numbers, comments."""

    name = "asar"
    aliases = ("asar", "65816", "65c816")
    flags = re.IGNORECASE
    tokens = {  # noqa: RUF012
        "root": [
            (r"\s+", Text),
            (r";[^\n]*", Comment.Single),
            (r'"[^"\n]*"?', String),
            (r"'[^'\n]'", String.Char),
            (r"(\.{0,8}#?[a-z_]\w*)(:)", bygroups(Name.Label, Punctuation)),
            (r"\.{1,8}[a-z_]\w*", Name.Label),
            (r"^([ \t]*)(\+{1,8}|-{1,8})(:?)(?=\s)", bygroups(Text, Name.Label, Punctuation)),
            (words(MNEMONICS, prefix=r"\b", suffix=r"(?=(\.[bwl])?(?![\w.]))"), Keyword, "width"),
            (words(COMMANDS, prefix=r"\b", suffix=r"\b"), Keyword.Pseudo),
            (r"!\^{0,8}\w+|!\{[^}\n]{0,99}\}", Name.Variable),
            (r"%\w*[g-z_]\w*(?=\s*\()", Name.Function),
            (r"#?(\$[0-9a-f]+|%[01]+|0x[0-9a-f]+|\d+)\b", Number),
            (r"[a-z_]\w*", Name),
            (r"[#+\-*/&|^~<>=!?]+", Operator),
            (r"[()\[\],:{}]", Punctuation),
            (r"[^\s]", Text),
        ],
        "width": [(r"(\.)([bwl])\b", bygroups(Punctuation, Keyword.Type), "#pop"), (r"", Text, "#pop")],
    }


_LABEL = re.compile(r"\s*(?:\.*\w+:|\.+\w+(?=\s|$)|[+-]{1,8}(?=\s|$))")
_INSTRUCTION = re.compile(rf"\s*(?:{'|'.join(MNEMONICS)})(?:\.[bwl])?(?:\s+[#$(\[!%\w.+-]\S*(?:\s*,\s*\w)?)?\s*", re.I)
_DATA = re.compile(r"\s*(?:db|dw|dl|dd|org)\s+[$\w\"%].*", re.I)


def looks_like_asm(text: str) -> bool:
    """Whether nearly every line (of the first 200) reads as 65816 code, with at least one instruction."""
    lines = [line[:200] for line in text[:20_000].split("\n")[:200] if line.strip()]
    code = [found for line in lines if (found := _code(line)) is not None]
    return len(code) >= 0.8 * len(lines) and any(code)


def _code(line: str) -> bool | None:
    """Whether a line has an instruction; None when it is not code at all."""
    line = line.partition(";")[0]
    parts = [part for part in re.split(r"\s:\s", _LABEL.sub("", line, count=1)) if part.strip()]
    if not all(_INSTRUCTION.fullmatch(part) or _DATA.fullmatch(part) for part in parts):
        return None
    return any(_INSTRUCTION.fullmatch(part) for part in parts)
