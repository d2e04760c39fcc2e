"""What the columns of a row mean: the names that are known, a mapping by the user, and what to say of the others.

A column that asks something is never dropped: a row in which one is left over is refused, with the columns that were
found and the nearest mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from hafs.errors import UsageError

ROLES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query"),
    "input": ("input",),
    "system": ("system", "system_prompt"),
    "messages": ("messages", "conversations", "conversation"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "chosen_response", "chosen_messages"),
    "rejected": ("rejected", "rejected_response", "rejected_messages"),
    "completion": ("completion", "response", "output", "answer"),
    "label": ("label", "kto_tag"),
    "score_chosen": ("score_chosen", "chosen_score", "chosen_rating"),
    "score_rejected": ("score_rejected", "rejected_score", "rejected_rating"),
}
"""What a column may be for -> the names by which it is known, as public data sets and other trainers write them."""
OWN = ("text", "weight", "source", "margin", "p", "calibrated", "references", "check", "checker", "family", "category")
"""Further names that a column may be mapped to: those of hafs' own rows."""
KNOWN = {name for names in ROLES.values() for name in names} | set(OWN) | {"context", "edges", "candidates", "fields"}
ASKING = frozenset(
    name for role in ("prompt", "input", "system", "messages", "history", "tools") for name in ROLES[role]
)
"""The names of what a model is asked: dropped, the answers would be to another question."""
PICTURES = ("image", "images", "video", "videos", "audio", "audios")
NEAR: dict[str, tuple[str, ...]] = {
    "prompt": ("ask", "user", "human", "problem", "task", "title", "post", "text", "topic", "request", "source", "q"),
    "chosen": ("best", "better", "good", "win", "winner", "prefer", "positive", "accept", "pos", "response_w", "right"),
    "rejected": ("worst", "worse", "bad", "los", "negative", "dispreferred", "neg", "response_l", "other", "wrong"),
    "completion": ("target", "repl", "result", "solution", "assistant", "summary", "gpt", "model", "answer", "text"),
    "label": ("good", "rating", "thumb", "feedback", "vote", "desirable", "score", "like", "correct"),
}
"""Parts of names that hint at what a column is for; they are only ever used to suggest a mapping."""


class ColumnsRow(dict[str, Any]):
    """A row that knows which of its columns were read."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        super().__init__(columns)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.used.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.used.add(name)
        return super().get(name, default)

    def unused(self) -> list[str]:
        """The columns that were not read and are not empty."""
        return [k for k, v in self.items() if k not in self.used and v not in ("", [], {})]


def plain_name(name: str) -> str:
    """A column's name in small letters, words joined by `_`."""
    return re.sub(r"[\s\-]+", "_", name.strip().strip("\ufeff")).lower()


def column_of(row: Mapping[str, Any], role: str) -> str:
    """The column of a row that has a role, "" where there is none. Raises ValueError where several could have it."""
    found = [name for name in ROLES[role] if name in row]
    if len(found) > 1:
        raise ValueError(
            f"the columns {' and '.join(found)} could both be the {role}: keep one with --columns"
            f" {role}={found[0]},{','.join(f'-{other}' for other in found[1:])}, or join them with"
            f" --columns {role}={'+'.join(found)}"
        )
    return found[0] if found else ""


def value_of(row: Mapping[str, Any], role: str) -> Any:
    """What a row holds in a role. Raises KeyError where it has no such column."""
    name = column_of(row, role)
    if not name:
        raise KeyError(role)
    return row[name]


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row has a column of its own for what is asked."""
    return any(name in row for role in ("prompt", "messages", "input") for name in ROLES[role])


@dataclass(frozen=True)
class Columns:
    """A user's mapping: what each column is for, and the columns to leave out.

    `names` maps a role, or a name of hafs' own rows, to the columns whose texts are joined for it; a name with dots
    leads into objects.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def apply(self, row: Mapping[str, Any]) -> ColumnsRow:
        """A row under the names that are known here, without what is null. Raises KeyError, ValueError."""
        mapped: dict[str, Any] = {}
        taken = {name.partition(".")[0] for names in self.names.values() for name in names} | self.without
        for role, names in self.names.items():
            found = [_at(row, name) for name in names]
            mapped[role] = found[0] if len(found) == 1 else "\n".join(map(_joined, (f for f in found if f)))
        for name, value in row.items():
            if value is None or name in taken or name in mapped:
                continue
            plain = plain_name(name)
            known = name not in KNOWN and plain in KNOWN and plain not in row and plain not in mapped
            mapped[plain if known else name] = value
        return ColumnsRow({k: v for k, v in mapped.items() if v is not None})


def parse_columns(text: str | None) -> Columns:
    """The mapping that `--columns prompt=question,chosen=best,-notes` says. Raises UsageError."""
    names: dict[str, list[str]] = {}
    without = set()
    for part in (p.strip() for p in (text or "").split(",") if p.strip()):
        role, equals, given = part.partition("=")
        if part.startswith("-") and not equals:
            without.add(part[1:])
        elif not equals or not role or not given:
            raise UsageError(f"--columns {text}: {part!r} is no ROLE=COLUMN", f"write {_EXAMPLE}")
        elif role not in ROLES and role not in OWN:
            near = get_close_matches(role, [*ROLES, *OWN], 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"--columns {text}: nothing is called {role!r}", f"{hint}use {', '.join([*ROLES, *OWN])}")
        else:
            names[role] = given.split("+")
    return Columns(names, frozenset(without))


_EXAMPLE = "--columns prompt=question,chosen=best,rejected=worst (a+b joins two columns, -name leaves one out)"


def _at(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"there is no column {name!r}: the columns are {listed(row)}")
        value = value[part]
    return value


def _joined(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"columns that are joined hold texts, and {json.dumps(value, default=str)[:40]} is none")
    return value


def listed(names: Iterable[str]) -> str:
    """The names of columns for a message."""
    found = [n if re.fullmatch(r"[\w.\-]+", n) else repr(n) for n in names]
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "") or "none"


def refuse_leftover(row: ColumnsRow) -> None:
    """Raise ValueError when a column that asks something was not read, or when the row holds more than text."""
    if pictures := next((name for name in PICTURES if name in row and row[name] not in ("", [], {})), None):
        raise ValueError(f"it holds {pictures}: only text is understood")
    left = [name for name in row.unused() if name in ASKING]
    if left:
        role = next(role for role, names in ROLES.items() if left[0] in names)
        raise ValueError(
            f"the column {left[0]!r} would be dropped: give it a place (--columns {role}={left[0]}, or"
            f" --columns prompt=…+{left[0]}), or leave it out with --columns -{left[0]}; the columns are {listed(row)}"
        )


def without_system(row: Mapping[str, Any]) -> bool:
    """Whether a row has a system text and it is empty; hafs' own rows always have one."""
    if "text" in row or "edges" in row:
        return False
    if any(row.get(name, 0) == "" for name in ROLES["system"]):
        return True
    chats = (row.get(name) for name in ROLES["messages"] + ROLES["prompt"])
    first = next((c[0] for c in chats if isinstance(c, list) and c and isinstance(c[0], dict)), {})
    return (first.get("role") or first.get("from")) == "system" and (first.get("content", first.get("value")) == "")


def roles_said(row: ColumnsRow) -> str:
    """Which column was read as what, "" where all have the usual names."""
    found = {role: [n for n in names if n in row and n in row.used] for role, names in ROLES.items()}
    if "context" in row and "context" in row.used and found["prompt"] == ["instruction"]:
        found["input"] = ["context"]
    if found["prompt"] and found["input"]:
        found["prompt"] += found.pop("input")
    elif found["input"]:
        found["prompt"] = found.pop("input")
    unusual = {role: names for role, names in found.items() if names and names != [role]}
    return ", ".join(f"{role} = {' + '.join(names)}" for role, names in unusual.items())


SAY_WHICH = "; say which: "


def unknown(row: Mapping[str, Any], missing: Sequence[str]) -> str:
    """That a row has no column for what is `missing`, the columns that it has, and the nearest mapping."""
    headless = any(name.isdigit() or len(name) > 40 or name.endswith(("?", ".")) for name in row)
    hint = " (does the first line name the columns?)" if headless else ""
    return (
        f"no column is known as the {' or the '.join(missing)}: the columns are {listed(row)}{hint}{SAY_WHICH}"
        f"{nearest(row, missing)}"
    )


def nearest(row: Mapping[str, Any], roles: Sequence[str]) -> str:
    """`--columns …` with the likeliest column for each of `roles` that a row lacks; COLUMN where none is likely."""
    free = [name for name in row if not any(name in ROLES[role] for role in roles)]
    found = []
    for role in roles:
        if any(name in row for name in ROLES[role]):
            continue
        best = _likeliest(role, free)
        if best:
            free.remove(best)
        found.append(f"{role}={best or 'COLUMN'}")
    return f"--columns {','.join(found)}"


def _likeliest(role: str, names: Sequence[str]) -> str:
    plain = {plain_name(name): name for name in names}
    if role in ROLES:
        for part in (*ROLES[role], *NEAR.get(role, ())):
            hit = [p for p in plain if part in p.split("_") or (len(part) > 2 and part in p)]
            if hit:
                return plain[min(hit, key=len)]
    close = get_close_matches(role, list(plain), 1, 0.6)
    return plain[close[0]] if close else ""
