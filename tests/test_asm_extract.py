"""Finding code in answers, screening and linting it: text in, text out, no tools."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs_snes.scorer.extract import extract, number
from hafs_snes.scorer.lint import lint
from hafs_snes.scorer.screen import screen
from hafs_snes.scorer.syntax import commands, is_code, strip_comment

CODE_LINES = st.sampled_from(
    [
        "LDA.w $0E20",
        "AND #$1F",
        "STA $00 ; keep it",
        "RTS",
        "BNE .loop",
        ".loop",
        "-",
        "+ RTL",
        "INX : INX",
        "JSR Other",
        "LDA (ptr),Y",
        "LDA [$10],Y",
        "LDA $12,S",
        "db $01,$02",
        "dw table,$1234",
        "!count = $12",
        "PHP",
        "ASL A",
        "inc",
        "MVN $7F,$7E",
        "LDA #'A'",
        'db "text, more"',
        "lda.b #!count",
        "Other:",
        "; a comment",
        "",
        "BRK #$00",
        "XBA",
    ]
)
PROSE = st.sampled_from(
    [
        "Here is the routine you asked for:",
        "It loads the value and masks it.",
        "## Explanation",
        "* It keeps X and Y as they were.",
        "And then store the result in A.",
        "1. First load the value into A.",
        "Bit 7 is the sign of the number.",
        "Sure!",
        "Note that the carry flag is changed by ADC.",
        "",
    ]
)


@st.composite
def routines(draw: st.DrawFn) -> str:
    body = [draw(st.sampled_from(["", "    "])) + x for x in draw(st.lists(CODE_LINES, min_size=1, max_size=20))]
    return "\n".join(["Main:", "    LDA $10", *body, "    RTS"])


@given(routines())
def test_bare_code_is_taken_whole(code: str) -> None:
    assert extract(code, "Main").code == code
    assert extract(code, "Main").how == "text"


@given(
    routines(),
    st.lists(PROSE),
    st.lists(PROSE),
    st.sampled_from(["asm", "", "65816", "assembly", "text"]),
    st.sampled_from(["```", "````", "~~~"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_fence_gives_its_content(
    code: str, before: list[str], after: list[str], tag: str, mark: str, end: str
) -> None:
    answer = end.join([*before, mark + tag, *code.split("\n"), mark, *after])
    assert extract(answer, "Main").code == code
    assert extract(answer, "Main").how == "fence"
    cut = end.join([*before, mark + tag, *code.split("\n")])
    assert extract(cut, "Main").code == code
    assert extract(cut, "Main").how == "open fence"


@given(routines(), st.lists(PROSE.filter(bool), min_size=1), st.lists(PROSE.filter(bool), min_size=1))
def test_prose_around_code_is_cut_off(code: str, before: list[str], after: list[str]) -> None:
    answer = "\n".join([*before, "", code, "", *after])
    assert extract(answer, "Main").code == code


@given(routines(), routines())
def test_the_last_block_with_the_label_wins(first: str, second: str) -> None:
    usage = "```asm\n" + "JSR Main\n" * 60 + "```"
    answer = f"```asm\n{first}\n```\nCorrected:\n```asm\n{second}\n```\nCall it so:\n{usage}"
    assert extract(answer, "Main").code == second


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    found = extract(text, "Main")
    assert (found.how == "none") == (found.code == "")
    screened = screen(found.code)
    lint(screened.code)
    number(text)
    for line in text.split("\n"):
        is_code(line)


@given(routines())
def test_extraction_is_idempotent(code: str) -> None:
    once = extract(f"Some words in front of it.\n{code}", "Main").code
    assert extract(once, "Main").code == once


def test_broken_code_is_not_tidied_up() -> None:
    code = "Main:\n LDA $10\n LDQ $11\n STA $12\n RTS"
    assert extract(code, "Main").code == code
    assert extract(f"Here is the code you want:\n{code}", "Main").code == code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("And then store it", False),
        ("Bit 7 is set", False),
        ("Inc the counter by one", False),
        ("AND #$0F", True),
        ("INC A", True),
        ("label: LDA $00,X", True),
        ("Sta", True),
        ("Note: it works", False),
        ("- RTS", True),
        ("- it returns at once", False),
        ("!x = 5", True),
        ("Value = $0E20", True),
        ("db 1", True),
        ("", False),
    ],
)
def test_code_or_prose(line: str, code: bool) -> None:
    assert is_code(line) == code


def test_a_semicolon_in_quotes_is_no_comment() -> None:
    assert strip_comment('db "a;b" ; comment') == 'db "a;b" '


# --- numbers -----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 0xFFFF),
    st.sampled_from(["${:X}", "${:04x}", "0x{:x}", "{:d}", "%{:b}", "0b{:b}", "#${:02X}"]),
    st.sampled_from(["{}", "The answer is {}.", "**{}**", "$12 + $34 = {}", "`{}`", "Answer: {}\n"]),
)
def test_numbers_in_all_spellings(value: int, spelling: str, around: str) -> None:
    assert number(around.format(spelling.format(value))) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("First 3, so the result is 12. (It took 2 steps.)", 12),
        ("no number", None),
        ("", None),
        ("R2D2", None),
        ("the value 1Fh", 31),
        ("A holds $05 and then $09", 9),
        ("x = 5\nx = 7", 7),
    ],
)
def test_the_final_number(text: str, value: int | None) -> None:
    assert number(text) == value


# --- the screen --------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "inc",
        "src",
        "bin",
        "incsrc",
        "incbin",
        '"/etc/passwd"',
        "!a",
        "!b",
        "!{a}",
        "=",
        " = ",
        "\n",
        " : ",
        ":",
        " ",
        "\\",
        "\\\n",
        ",",
        "readfile1",
        "read",
        "file1",
        "(",
        ")",
        "LDA ",
        "db ",
        "while 1",
        "endwhile",
        "rep 9 ",
        "%a()",
        "macro a()",
        "endmacro",
        "table ",
        "x:",
        "; ",
        ";@",
        "#",
        "NOP",
        "REP #$20",
        "'",
        '"',
        "include",
        "print ",
        "?",
        "function f(x) = x",
        "f(1)",
        "\t",
        "é",
        "if 1",
        "endif",
        "org $8000",
        "struct s $00",
        "namespace on",
        "@",
        "[",
        "$12",
    ]
)
DANGER = re.compile(
    r"(?i)^(incsrc|incbin|include(?:from|once)?|table|while|for|macro|if|function|struct|namespace|rep(?=\s+[^#\s]))\b(?!:)"
)


@settings(max_examples=1500)
@given(st.lists(PIECES, max_size=14).map("".join), st.booleans())
def test_nothing_dangerous_passes_the_screen(code: str, patch: bool) -> None:
    screened = screen(code, patch)
    if screened.errors:
        return
    defines: dict[str, str] = {}
    for line in screened.code.split("\n"):
        for part in re.split(r"\s:\s|:\s|\s:", line):
            if m := re.match(r"\s*!(\w+)\s*=\s*(.*)", part):
                defines[m[1]] = m[2]
                continue
            spelled = re.sub(r"!\{?(\w+)\}?", lambda m: defines.get(m[1], ""), part).strip()
            assert not DANGER.match(spelled), spelled
            assert not re.search(r"(?i)readfile\d?\s*\(", spelled), spelled
            assert not re.search(r'(?i)"[^"]*/', spelled) or spelled.lower().startswith("db"), spelled


@given(routines())
def test_ordinary_code_passes_with_its_lines_in_place(code: str) -> None:
    screened = screen(code)
    assert screened.errors == []
    ours = [[c.text for c in commands(strip_comment(line))] for line in code.split("\n")]
    theirs = [[c.text for c in commands(line)] for line in screened.code.split("\n")]
    assert ours == theirs


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("incsrc x.asm", "file access"),
        ("INCBIN x", "file access"),
        ("!a = incbin", "file access"),
        ("!a!b x", "define"),
        ("%macro()", "define"),
        ("LDA #!f(1)", "operand"),
        ("LDA !a!b", "operand"),
        ("LDA \\", "operand"),
        ("LDA é", "unreadable"),
        ("foo $12", "unknown instruction"),
        ("LDA f(1)", "function"),
        ("LDA readfile1(a,0)", "file access"),
        ("rep 3 : NOP", "directive"),
        ("if 1", "directive"),
        ("LDA $12 : incsrc x", "file access"),
        ("x: incsrc y", "file access"),
        ("- incsrc y", "file access"),
    ],
)
def test_what_the_screen_says(line: str, kind: str) -> None:
    assert screen(line).errors[0][0] == kind


def test_set_up_is_dropped_and_placing_belongs_to_patches() -> None:
    routine = screen('lorom\norg $008000\nprint "hello"\nMain:\nRTS')
    assert routine.errors == [] and routine.code == "\n\n\nMain:\nRTS"
    assert screen("Main:\nRTS\norg $8000\nNOP").errors[0][0] == "directive"
    assert screen("org $018000\nautoclean JSL Hook\nfreecode\nHook:\nRTL", patch=True).errors == []
    assert screen("autoclean incbin x", patch=True).errors[0][0] == "file access"


# --- lint --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ("LDA.b #$0E20", ["truncated"]),
        ("LDA.w $7E0E20", ["truncated"]),
        ("LDA.l $7E0E20", []),
        ("LDA #$1234", ["register width"]),
        ("REP #$20\nLDA #$1234\nLDX #$12\nSEP #$20\nLDA #$12", []),
        ("REP #$20\nLDA #$12", ["register width"]),
        ("PHP\nREP #$30\nPLP\nLDX #$1234", ["register width"]),
        ("PHA\nRTS", ["stack"]),
        ("PHA\nPHX\nPLX\nPLA\nPEA $1234\nPLA\nPLA", ["stack"]),
        ("STA $4203\nLDA $4216", ["hardware not ready"]),
        ("STA $4203\nNOP\nNOP\nNOP\nLDA $4216", []),
        ("STA $4206\nNOP\nNOP\nNOP\nNOP\nLDA $4214", ["hardware not ready"]),
        ("STA $4206\n" + "NOP\n" * 8 + "LDA $4214", []),
        ("BNE $8123", ["raw offset"]),
        ("BRL $8123\nBRA 5\nbcc %101", ["raw offset"] * 3),
        ("BNE Loop\nBRA .end\nBEQ -\nBNE +\nBPL x+1\nJMP $8123\nJSR $8123", []),
    ],
)
def test_lint(code: str, kinds: list[str]) -> None:
    assert [f.kind for f in lint(code)] == kinds
