"""Model text for a person's eyes: what would be invisible, or would steer a terminal or the reading order, is shown.

A control character becomes its picture from the Control Pictures block (ESC is `␛`), a bidirectional or zero-width
mark its code point in angle brackets (`⟨U+202E⟩`). Line feeds and tabs stay. Nothing is left out.
"""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """`text` with every control, format, surrogate, private and unassigned character written out."""
    return "".join(map(_shown, text))


def _shown(char: str) -> str:
    code = ord(char)
    if char in "\n\t" or (0x20 <= code < 0x7F):
        return char
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return char
