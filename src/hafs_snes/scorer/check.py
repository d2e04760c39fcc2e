"""The check data of a prompt: what to call, with which inputs, and what must hold afterwards.

A check is plain JSON (a row of a task file), so a task can be written without Python. `parse_check` turns it
into the dataclasses below and names the key that is wrong when something is. Numbers are plain integers,
bytes are hex strings, and memory keys are offsets in hex: into WRAM (0..1FFFF, $7E0000 is 0), VRAM (bytes),
CGRAM and OAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hafs.errors import DataError

__all__ = ["After", "Check", "Vector", "parse_check", "parse_vector"]

WRAM_SIZE, VRAM_SIZE, CGRAM_SIZE, OAM_SIZE = 0x20000, 0x10000, 0x200, 0x220
STACK_PAGE = (0x100, 0x200)  # belongs to the harness: no input or result can lie there
REGISTER_BITS = {"A": 16, "X": 16, "Y": 16, "P": 8, "DB": 8, "DP": 16}
DEFAULTS = {"A": 0, "X": 0, "Y": 0, "P": 0x34, "DB": 1, "DP": 0}  # 8-bit registers, data bank $01, direct page 0
FLAGS = "NVMXDIZC"
KINDS = ("routine", "patch", "value")
CHECK_KEYS = {
    "kind",
    "entry",
    "returns",
    "decide",
    "keep",
    "scratch",
    "support",
    "frames",
    "baseline",
    "vanilla",
    "editable",
    "call",
    "answer",
    "vectors",
}


@dataclass(frozen=True)
class After:
    """What must hold after the return. Memory maps an offset to bytes, a register to (value, mask)."""

    memory: Mapping[int, bytes] = field(default_factory=dict)
    registers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    vram: Mapping[int, bytes] = field(default_factory=dict)
    cgram: Mapping[int, bytes] = field(default_factory=dict)
    oam: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Vector:
    """One input and its result. In `pad` bit i is button i of libretro's joypad (0 is B, 1 is Y, …)."""

    registers: Mapping[str, int]
    memory: Mapping[int, bytes]
    pad: int
    after: After


@dataclass(frozen=True)
class Check:
    """A parsed check. `rows` are the vectors as they came, to be sent to the emulator's process."""

    kind: str
    entry: str
    returns: str
    decide: str | None
    keep: str
    scratch: tuple[tuple[int, int], ...]
    support: str
    frames: int
    baseline: str | None
    vanilla: str
    editable: tuple[tuple[int, int], ...]
    call: int
    answer: int | None
    vectors: tuple[Vector, ...]
    rows: Sequence[Mapping[str, Any]]


def _bad(key: str, why: str) -> DataError:
    return DataError(f"the check's key {key!r} {why}", "correct the row in the task file")


def _mapping(value: Any, key: str, known: Iterable[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(key, f"must be an object, not {type(value).__name__}")
    if (known := set(known)) and (extra := sorted(set(value) - known)):
        raise _bad(f"{key}.{extra[0]}" if key else extra[0], "is unknown")
    return value


def _int(value: Any, key: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(key, f"must be an integer in {low}..{high}, not {value!r:.40}")
    return value


def _text(value: Any, key: str, among: Sequence[str] = ()) -> str:
    if not isinstance(value, str) or (among and value not in among):
        raise _bad(key, f"must be {'one of ' + ', '.join(among) if among else 'text'}, not {value!r:.40}")
    return value


def _memory(value: Any, key: str, size: int) -> dict[int, bytes]:
    out = {}
    for place, data in _mapping(value, key).items():
        name = f"{key}.{place}"
        try:
            start, content = int(place, 16), bytes.fromhex(data)
        except (TypeError, ValueError):
            raise _bad(name, "must map an offset in hex to bytes in hex") from None
        if not content or not 0 <= start <= size - len(content):
            raise _bad(name, f"must hold at least one byte and end within {size:#x}")
        if size == WRAM_SIZE and start < STACK_PAGE[1] and start + len(content) > STACK_PAGE[0]:
            raise _bad(name, "overlaps the stack page 0100-01FF, which the harness uses")
        out[start] = content
    return out


def _ranges(value: Any, key: str, high: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _bad(key, "must be a list of [low, high) pairs")
    out = []
    for i, pair in enumerate(value):
        name = f"{key}[{i}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise _bad(name, "must be a [low, high) pair")
        low = _int(pair[0], name, 0, high)
        out.append((low, _int(pair[1], name, low, high)))
    return tuple(out)


def _registers(value: Any, key: str) -> dict[str, int]:
    given = _mapping(value, key, REGISTER_BITS.keys())
    return {**DEFAULTS, **{r: _int(v, f"{key}.{r}", 0, (1 << REGISTER_BITS[r]) - 1) for r, v in given.items()}}


def _masked(value: Any, key: str) -> tuple[int, int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise _bad(key, "must be [value, mask]")
    return _int(value[0], key, 0, 0xFFFF), _int(value[1], key, 0, 0xFFFF)


def _after(value: Any, key: str) -> After:
    given = _mapping(value, key, {"memory", "registers", "flags", "vram", "cgram", "oam"})
    registers = _mapping(given.get("registers", {}), f"{key}.registers", REGISTER_BITS.keys())
    flags = _mapping(given.get("flags", {}), f"{key}.flags", set(FLAGS))
    return After(
        memory=_memory(given.get("memory", {}), f"{key}.memory", WRAM_SIZE),
        registers={r: _masked(v, f"{key}.registers.{r}") for r, v in registers.items()},
        flags={f: _int(v, f"{key}.flags.{f}", 0, 1) for f, v in flags.items()},
        vram=_memory(given.get("vram", {}), f"{key}.vram", VRAM_SIZE),
        cgram=_memory(given.get("cgram", {}), f"{key}.cgram", CGRAM_SIZE),
        oam=_memory(given.get("oam", {}), f"{key}.oam", OAM_SIZE),
    )


def parse_vector(row: Any, key: str = "vectors[0]") -> Vector:
    """Read one vector; `key` names it in errors. Raises DataError."""
    given = _mapping(row, key, {"registers", "memory", "pad", "after"})
    return Vector(
        registers=_registers(given.get("registers", {}), f"{key}.registers"),
        memory=_memory(given.get("memory", {}), f"{key}.memory", WRAM_SIZE),
        pad=_int(given.get("pad", 0), f"{key}.pad", 0, 0xFFFF),
        after=_after(given.get("after", {}), f"{key}.after"),
    )


def _answer(value: Any) -> int:
    given = _mapping(value, "answer", {"kind", "value"})
    _text(given.get("kind"), "answer.kind", ["number"])
    return _int(given.get("value"), "answer.value", 0, 0xFFFFFFFF)


def _call(kind: str, given: Mapping[str, Any]) -> int:
    if kind == "routine" or (kind == "value" and "call" not in given):
        return 0
    call = _int(given.get("call"), "call", 0, 0xFFFFFF)
    if not (0x01 <= call >> 16 <= 0x0D and 0x8000 <= call & 0xFFFF < 0xFE00):
        raise _bad("call", "must lie in banks $01-$0D, between $8000 and $FDFF")
    return call


def parse_check(check: Any) -> Check:
    """Read a check. Raises DataError naming the first key that is missing, unknown or out of range."""
    given = _mapping(check, "", CHECK_KEYS)
    kind = _text(given.get("kind"), "kind", KINDS)
    rows = given.get("vectors", [])
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise _bad("vectors", "must be a list")
    if not rows and kind != "value":
        raise _bad("vectors", "must hold at least one vector")
    if set(keep := _text(given.get("keep", ""), "keep")) - set("AXYBD"):
        raise _bad("keep", f"may hold the letters A, X, Y, B and D only, not {keep!r:.40}")
    decide, baseline = given.get("decide"), given.get("baseline")
    if decide is not None:
        _text(decide, "decide", ["bytes", "clocks"])
    if baseline is not None and decide is None:
        raise _bad("decide", "must be bytes or clocks when there is a baseline")
    return Check(
        kind=kind,
        entry=_text(given.get("entry", ""), "entry"),
        returns=_text(given.get("returns", "rts"), "returns", ["rts", "rtl"]),
        decide=decide,
        keep=keep,
        scratch=_ranges(given.get("scratch", []), "scratch", WRAM_SIZE),
        support=_text(given.get("support", ""), "support"),
        frames=_int(given.get("frames", 4), "frames", 1, 600),
        baseline=None if baseline is None else _text(baseline, "baseline"),
        vanilla=_text(given.get("vanilla", ""), "vanilla"),
        editable=_ranges(given.get("editable", []), "editable", 0x1000000),
        call=_call(kind, given),
        answer=_answer(given.get("answer")) if kind == "value" else None,
        vectors=tuple(parse_vector(row, f"vectors[{i}]") for i, row in enumerate(rows)),
        rows=rows,
    )
