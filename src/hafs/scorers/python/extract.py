"""Find the Python code in an answer: in a fenced block when there is one, else the stretch of text that is code.

Of several blocks the last one that defines the wanted name is taken (models correct themselves downwards), else all of
them together. Broken code stays broken: nothing is tidied up.
"""

from __future__ import annotations

import re

from hafs.scorers.fences import LONGEST_ANSWER, fences

__all__ = ["extract"]

TAGS = {"python", "py", "python3", "py3", "pycon", ""}
START = re.compile(r"(def|class|async def|import|from|@\w|if|for|while|with|try:|[A-Za-z_]\w*\s*(:[^=]+)?=[^=])")
PROSE = re.compile(r"[A-Z*#>-][^=()\[\]{}]*$|[A-Z][a-z']+ [a-z]+ .*[.:!?]$")


def extract(answer: str, entry: str, prefix: str = "") -> tuple[str, str]:
    """(the code, where it was): "fence", "open fence" (never closed), "text", "completion" (after `prefix`) or
    "none". `entry` is the name that it should define. Never raises.
    """
    lines = re.split(r"\r\n|\r|\n", answer[:LONGEST_ANSWER])
    blocks, outside = fences(lines)
    blocks = [b for b in blocks if b.tag in TAGS and b.text.strip()]
    if blocks:
        named = [b for b in blocks if defines(b.text, entry)]
        chosen = named[-1:] or blocks
        code, how = "\n\n".join(b.text for b in chosen), "fence" if chosen[-1].closed else "open fence"
    elif prefix and not defines("\n".join(outside), entry):
        code, how = "\n".join(outside), "text"
    else:
        code, how = _stretch(outside), "text"
    if not code.strip():
        return "", "none"
    if prefix and not defines(code, entry):
        return f"{prefix}{code}\n", "completion"
    return code.strip("\n") + "\n", how


def defines(code: str, entry: str) -> bool:
    """Whether the code seems to define `entry` at its top level."""
    return bool(re.search(rf"^((async\s+)?def|class)\s+{entry}\b|^{entry}\s*(:.*)?=", code, re.M))


def _stretch(lines: list[str]) -> str:
    """From the first line that begins code to the first one at the margin that is prose."""
    start = next((i for i, line in enumerate(lines) if START.match(line)), None)
    if start is None:
        return ""
    for end in range(start + 1, len(lines)):
        if PROSE.match(lines[end]):
            return "\n".join(lines[start:end])
    return "\n".join(lines[start:])
