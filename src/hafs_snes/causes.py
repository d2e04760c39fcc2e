"""Why an answer in assembly failed: which part of a value is wrong, by how much, and at which kind of place.

The same error in two prompts has the same signature: addresses, numbers and names that belong to one prompt are out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hafs.evals.causes import plain, texts
from hafs.evals.results import PromptResult

__all__ = ["expected", "why"]

_DIFFERENCE = re.compile(
    r"(?P<place>(?:vram |cgram |oam )?\$[0-9A-F]+|[A-Z]{1,2})(?:\+(?P<at>\d+))?"
    r": got (?P<got>(?:[0-9a-f]{2})+), want (?P<want>(?:[0-9a-f]{2})+)"
)
_BY_LINT = {
    "wrong register width": "register width",
    "stack": "stack",
    "hardware not ready": "hardware not ready",
    "truncated operand": "truncated",
    "raw branch offset": "raw offset",
}


@dataclass(frozen=True)
class _Difference:
    """One result that came out wrong: where, from which byte on, and the bytes got and wanted, low byte first."""

    place: str
    at: int
    got: bytes
    want: bytes

    @property
    def values(self) -> tuple[int, int, int]:
        """(got, wanted, number of values) as little-endian integers."""
        return int.from_bytes(self.got, "little"), int.from_bytes(self.want, "little"), 1 << 8 * len(self.want)


def why(cause: str, r: PromptResult) -> tuple[str, str] | None:
    """(cause, signature) of a failed answer of the `asm` scorer, by its `cause` without kind; None: no better known."""
    kind = r.cause.partition(": ")[2]
    if cause == "screened":
        return "not allowed", kind
    if cause == "wrong answer":
        return _wrong_number(r.details)
    if cause in ("wrong result", "off by one"):
        return _wrong_value(cause, r)
    if cause == "clobber":
        return _clobber(r)
    if cause in ("not smaller", "not faster"):
        return cause, _against_baseline(r.details)
    if cause == "does not assemble":
        return cause, ": ".join(x for x in (kind, _instruction(kind, r.details)) if x) or "no detail"
    found = _finding(cause, r.details)
    return (cause, found) if found else None


def expected(details: Any) -> tuple[str, str] | None:
    """What the first wrong result was and what it should have been; None where the scorer named none."""
    if "right" in details:
        return _hex(details.get("answer")), _hex(details["right"])
    for text in texts(details.get("errors")):
        if m := _DIFFERENCE.fullmatch(text):
            place = m["place"] + (f"+{m['at']}" if m["at"] else "")
            return f"{place} = {m['got']}", f"{place} = {m['want']}"
        if m := re.fullmatch(r"(flag \w) is (\d), want (\d)", text):
            return f"{m[1]} = {m[2]}", f"{m[1]} = {m[3]}"
    clobbers = texts(details.get("clobbers"))
    return ("; ".join(clobbers[:2]), "") if clobbers and not texts(details.get("errors")) else None


def _wrong_value(cause: str, r: PromptResult) -> tuple[str, str]:
    """A wrong result by the shape of its error: the same relation between got and wanted at every place named."""
    errors = texts(r.details.get("errors"))
    found = [d for t in errors if (d := _difference(t)) is not None]
    some = ", on some inputs" if 0 < (r.details.get("correct") or 0) < (r.details.get("total") or 0) else ""
    if not found:
        return (cause, f"{plain(errors[0])}{some}" if errors else "no detail")
    if _written_too_wide(found, texts(r.details.get("clobbers"))):
        return ("wrong register width", "a 16-bit store over an 8-bit result")
    where = _where(found[0].place)
    if all(d.at == 1 and len(d.want) == 1 for d in found):
        if all((d.got[0] - d.want[0]) % 256 in (1, 255) for d in found):
            return ("off by one", f"{where}: the carry into the high byte is lost or made up{some}")
        return ("wrong register width", f"{where}: only the low byte of a 16-bit result is right{some}")
    shape = _shape(found)
    if cause == "off by one" and not shape.startswith("one too"):
        shape = "a block misses its first or last byte"
    if shape == "another value" and r.details.get("clobbers"):
        shape = "something is written, but to another place"
    return (cause, f"{where}: {shape}{some}")


def _shape(found: Sequence[_Difference]) -> str:
    """The relation between got and wanted that holds for all differences."""
    values = [d.values for d in found]
    deltas = {
        (got - want) % size if (got - want) % size < size // 2 else (got - want) % size - size
        for got, want, size in values
    }
    if deltas <= {1, -1}:
        return "one too high" if deltas == {1} else "one too low" if deltas == {-1} else "one too high or low"
    relations = (
        ("zero", lambda got, want, size: got == 0),
        (
            "high and low byte swapped",
            lambda got, want, size: size == 1 << 16 and got == (want >> 8 | want << 8) % size,
        ),
        ("the complement", lambda got, want, size: got == size - 1 - want),
        ("the sign is wrong", lambda got, want, size: got == -want % size),
        ("twice the value", lambda got, want, size: got == 2 * want % size),
        ("half the value", lambda got, want, size: got == want // 2),
        ("bits are missing", lambda got, want, size: got & want == got),
        ("too many bits", lambda got, want, size: got & want == want),
    )
    for name, holds in relations:
        if all(holds(*v) for v in values):
            return name
    if len(deltas) == 1 and len(values) > 1:
        return f"always {abs(next(iter(deltas)))} too {'high' if next(iter(deltas)) > 0 else 'low'}"
    return "another value"


def _written_too_wide(found: Sequence[_Difference], clobbers: Sequence[str]) -> bool:
    """Only the bytes right behind one-byte results were changed beside them."""
    behind = {_behind(d.place, len(d.want)) for d in found if d.at == 0}
    return bool(clobbers) and all(len(d.want) == 1 for d in found) and set(clobbers) <= behind


def _behind(place: str, size: int) -> str:
    prefix, dollar, digits = place.rpartition("$")
    return f"{prefix}${int(digits, 16) + size:0{len(digits)}X}" if dollar else ""


def _clobber(r: PromptResult) -> tuple[str, str]:
    """What was changed that must not be; the byte behind an address of the answer tells of a store too wide."""
    places = texts(r.details.get("clobbers"))
    if len(places) == 1 and (m := re.fullmatch(r"\$7E([0-9A-F]{4})", places[0])):
        named = {int(x, 16) for x in re.findall(r"\$(?:7E|00)?([0-9A-Fa-f]{1,4})\b", f"{r.prompt} {r.text}")}
        if int(m[1], 16) - 1 in named and int(m[1], 16) not in named:
            return ("wrong register width", "a 16-bit store over an 8-bit result")
    kinds = dict.fromkeys(_where(p) for p in places)
    return ("clobber", ", ".join(kinds) or "no detail")


def _where(place: str) -> str:
    """The kind of a place: a register, memory (WRAM), vram, …"""
    if "more bytes of " in place:
        named = place.rpartition(" of ")[2]
        return "memory" if named == "WRAM" else named
    area, dollar, _ = place.rpartition("$")
    if not dollar:
        return f"register {place}" if len(place) <= 2 else place
    if area.strip():
        return area.strip()
    return "memory"


def _wrong_number(details: Any) -> tuple[str, str]:
    """A question's wrong number, compared with the right one."""
    got, want = details.get("answer"), details.get("right")
    if not isinstance(got, int) or not isinstance(want, int):
        return ("wrong answer", "no detail")
    if abs(got - want) == 1:
        return ("off by one", f"a number: one too {'high' if got > want else 'low'}")
    if f"{got:x}" == str(want) or f"{want:x}" == str(got):
        return ("wrong answer", "decimal and hex mixed up")
    if got == want & 0xFF or got == want & 0xFFFF:
        return ("wrong answer", "only the low bytes are right")
    return ("wrong answer", "another number")


def _against_baseline(details: Any) -> str:
    base = details.get("baseline") or {}
    for unit in ("bytes", "clocks"):
        ours, theirs = details.get(unit), base.get(unit)
        if isinstance(ours, int) and isinstance(theirs, int) and ours != theirs:
            return f"{'more' if ours > theirs else 'fewer'} {unit} than the code to improve"
    return "the same size and speed"


def _instruction(kind: str, details: Any) -> str:
    """The instruction that the assembler refused, for the kinds of error that are about one."""
    if kind not in ("unknown instruction", "addressing mode", "bad operand"):
        return ""
    found = re.search(r"(?:\[|not an instruction: )([A-Za-z]+)", "\n".join(texts(details.get("errors"))[:1]))
    return found[1].upper() if found else ""


def _finding(cause: str, details: Any) -> str:
    """The linter's finding that explains the cause."""
    kind = _BY_LINT.get(cause)
    found = [t.partition(": ")[2] for t in texts(details.get("lint")) if t.startswith(f"{kind}: ")]
    return plain(found[0]) if kind and found else ""


def _difference(text: str) -> _Difference | None:
    m = _DIFFERENCE.fullmatch(text)
    return m and _Difference(m["place"], int(m["at"] or 0), bytes.fromhex(m["got"]), bytes.fromhex(m["want"]))


def _hex(value: Any) -> str:
    return f"${value:X}" if isinstance(value, int) else "no number" if value is None else str(value)
