"""Model text for a person's eyes: what could not be seen, or would move the cursor or the reading order, is written.

`⟦ESC⟧` stands for an escape character, `⟦U+202E⟧` for a mark that turns the writing direction. Line feeds and tabs
stay; nothing is left out.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
    "\u205f-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff\ud800-\udfff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_SHORT = {0: "NUL", 7: "BEL", 8: "BS", 11: "VT", 12: "FF", 13: "CR", 27: "ESC", 127: "DEL"}


def visible(text: str) -> str:
    """`text` with every such character written out; a carriage return before a line feed is left away."""
    return _INVISIBLE.sub(_name, text.replace("\r\n", "\n"))


def _name(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"⟦{_SHORT.get(code, f'U+{code:04X}')}⟧"
