"""A pygments lexer for 65816 assembly as asar reads it."""

from __future__ import annotations

import re

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

__all__ = ["AsarLexer", "looks_like_asm"]

MNEMONICS = tuple(
    """adc and asl bcc bcs beq bit bmi bne bpl bra brk brl bvc bvs clc cld cli clv cmp cop cpx cpy dec dex dey eor inc
    inx iny jml jmp jsl jsr lda ldx ldy lsr mvn mvp nop ora pea pei per pha phb phd phk php phx phy pla plb pld plp plx
    ply rep rol ror rti rtl rts sbc sec sed sei sep sta stp stx sty stz tax tay tcd tcs tdc trb tsb tsc tsx txa txs txy
    tya tyx wai wdm xba xce""".split()
)
COMMANDS = tuple(
    """arch assert autoclean autoclear base bank check cleartable db dd dl dw dpbase elseif else endif endmacro
    endnamespace endrep endstruct endwhile error exlorom exhirom fill fillbyte fillword fillwordlong for endfor freecode
    freedata freespace freespacebyte function global hirom if include incbin incsrc lorom macro namespace norom optimize
    org pad padbyte pad pool pullbase pullns pullpc pulltable print prot pushbase pushns pushpc pushtable rep reset
    sa1rom fullsa1rom sfxrom skip spcblock endspcblock startpos struct table undef warn warnings warnpc while""".split()
)


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


_LINE = re.compile(
    rf"\s*(?:[.]*\w+:|[+-]+)?\s*(?:(?:{'|'.join(MNEMONICS)})(?:\.[bwl])?(?:\s+[#$(\[!%\w.+-][^;]*)?"
    r"|(?:db|dw|dl|dd|org)\s+[$\w\"%].*)?\s*(?:;.*)?",
    re.IGNORECASE,
)


def looks_like_asm(text: str) -> bool:
    """Whether nearly every line (of the first 200) reads as 65816 code, with at least one instruction."""
    lines = [line[:200] for line in text[:20_000].split("\n")[:200] if line.strip()]
    code = [line for line in lines if _LINE.fullmatch(line)]
    instruction = re.compile(rf"\s*(?:\S+:\s*)?(?:{'|'.join(MNEMONICS)})\b", re.IGNORECASE)
    return len(code) >= 0.8 * len(lines) and any(instruction.match(line) for line in code)
