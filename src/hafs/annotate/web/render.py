"""Hostile text made safe to look at: what a model wrote becomes HTML that can neither act nor hide anything.

    text ── visible() ── markdown-it without HTML, links and images ── pygments ── nh3 ──> HTML

Control, bidirectional and other invisible characters are shown by name. Links and images stay the text they are
written as, so nothing is fetched and no target is hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from hafs.annotate.visible import visible
from hafs.tasks.domain import domains

__all__ = ["SHOWN", "Line", "diff", "raw", "rendered"]

SHOWN = 40_000
"""Characters of one answer that are shown; the page links to the whole as plain text."""
HIGHLIGHTED = 20_000
"""Characters of one block of code that are coloured; longer ones are shown plain."""
DIFFED = 1_000
"""Lines, and characters of a line, that a diff compares."""
FINE = 200
"""Words of a line up to which a diff marks what changed within it."""

LANGUAGES = {
    "python",
    "py",
    "c",
    "cpp",
    "c++",
    "js",
    "javascript",
    "ts",
    "typescript",
    "json",
    "bash",
    "sh",
    "rust",
    "go",
    "java",
    "lua",
    "sql",
    "yaml",
    "toml",
    "make",
    "diff",
    "csharp",
}
TAGS = {
    "p",
    "pre",
    "code",
    "span",
    "em",
    "strong",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "br",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
SIGN = re.compile(r"⟦([A-Z0-9+ ]{2,10})⟧")


def raw(text: str) -> str:
    """The text as it was written, as HTML for a <pre>."""
    return _marked(escape(visible(text[:SHOWN])))


@lru_cache(maxsize=256)
def _rendered(text: str) -> str:
    shown = visible(text)
    if "```" not in shown and "~~~" not in shown and (language := _bare_language(shown)):
        return _marked(_safe(_code(shown.strip("\n"), language)))
    return _marked(_safe(str(_markdown().render(shown))))


def rendered(text: str) -> str:
    """The text as markdown, or as code when it is code of a domain without a fence."""
    return _rendered(text[:SHOWN])


def _safe(html: str) -> str:
    return nh3.clean(html, tags=TAGS, attributes={"span": {"class"}, "p": {"class"}, "ol": {"start"}}, link_rel=None)


def _marked(html: str) -> str:
    """Give the signs for invisible characters their look. Only text is touched: no attribute here can hold a sign."""
    return SIGN.sub(r'<span class="sign">\1</span>', html)


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 30}).enable("table")
    parser.disable(["link", "image", "autolink", "reference"])
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _indented)
    parser.add_render_rule("heading_open", lambda *_: '<p class="heading">')
    parser.add_render_rule("heading_close", lambda *_: "</p>\n")
    return parser


def _fence(_: Any, tokens: Sequence[Any], index: int, *rest: Any) -> str:
    words = tokens[index].info.split()
    return _code(tokens[index].content, words[0].lower() if words else "")


def _indented(_: Any, tokens: Sequence[Any], index: int, *rest: Any) -> str:
    return _code(tokens[index].content, "")


def _code(text: str, language: str) -> str:
    lexer = _lexer(language, text) if len(text) <= HIGHLIGHTED else None
    body = highlight(text, lexer, HtmlFormatter(nowrap=True)) if lexer else escape(text)
    return f"<pre><code>{body.rstrip()}</code></pre>\n"


def _bare_language(text: str) -> str:
    return next((found for d in domains() if (found := d.language(text))), "")


def _lexer(language: str, text: str) -> Lexer | None:
    language = language or _bare_language(text)
    if found := next((lexer for d in domains() if (lexer := d.lexer(language))), None):
        return found
    if language not in LANGUAGES:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return None


@dataclass(frozen=True)
class Line:
    """One line of a diff: `sign` is " " (in both), "-" (only left) or "+" (only right); parts are (text, changed)."""

    sign: str
    parts: tuple[tuple[str, bool], ...]


def diff(left: str, right: str) -> list[Line]:
    """What is to be changed in `left` to get `right`, line by line, with the changed parts of paired lines marked."""
    a, b = ([line[:DIFFED] for line in visible(t[:SHOWN]).split("\n")[:DIFFED]] for t in (left, right))
    lines: list[Line] = []
    for op, i, j, k, m in SequenceMatcher(None, a, b).get_opcodes():
        if op == "equal":
            lines += [Line(" ", ((line, False),)) for line in a[i:j]]
        else:
            n = min(j - i, m - k)
            pairs = [_within(x, y) for x, y in zip(a[i : i + n], b[k : k + n], strict=True)]
            lines += [Line("-", p[0]) for p in pairs] + [Line("-", ((line, False),)) for line in a[i + n : j]]
            lines += [Line("+", p[1]) for p in pairs] + [Line("+", ((line, False),)) for line in b[k + n : m]]
    return lines


Parts = tuple[tuple[str, bool], ...]


def _within(left: str, right: str) -> tuple[Parts, Parts]:
    """The words of two lines with what differs marked; lines with little in common are not marked at all."""
    a, b = (re.findall(r"\w+|\s+|.", line) for line in (left, right))
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if max(len(a), len(b)) > FINE or matcher.ratio() < 0.4:
        return ((left, False),), ((right, False),)
    codes = matcher.get_opcodes()
    return (
        tuple(("".join(a[i:j]), op != "equal") for op, i, j, _, _ in codes if j > i),
        tuple(("".join(b[k:m]), op != "equal") for op, _, _, k, m in codes if m > k),
    )
