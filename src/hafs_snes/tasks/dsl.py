"""The words a task family is written in.

A family is a function that draws parameters and returns a `Draft`: what is asked (several phrasings, some
kept for the test split), the memory of each test vector, an oracle in Python that says what must hold
afterwards, and reference answers. `Family.prompt` turns it into a row of plain data:

    @family("asm", "basic operations", easy=True)
    def set_bits(d: Draw) -> Draft:
        a, m = d.address(), h2(d.choice(SINGLE_BITS))
        return Draft(
            entry="SetBits",
            ask=[f"set the bits {m} in the byte at {a}", f"turn {m} on in {a}"],
            ask_test=[f"OR {m} into {a}"],
            cases=d.cases({a: byte(x)} for x in d.edges8()),
            after=lambda mem: {a: byte(mem[a] | m)},
            references={"tsb": f"LDA #{m} / TSB {a} / RTS"},
        )

The oracle sees only what the vector declares, so a row never depends on anything outside itself. Assembly is
written on one line, instructions separated by " / ".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hafs.types import Prompt, Reference

VECTORS = 16
EDGES8 = (0x00, 0x01, 0x02, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF)
EDGES16 = (0x0000, 0x0001, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFFFF, 0xFFFE, 0x80FF)
SINGLE_BITS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80)
HELD_OUT = "held-out phrasing"


class Hex(int):
    """A number that prints as `$` and a fixed count of hex digits, also after adding or subtracting.

    The count of digits is what tells the assembler the operand's width. A format such as `{a:d}` or `{a:04X}`
    still formats the plain number.
    """

    digits: int

    def __new__(cls, value: int, digits: int) -> Hex:
        self = super().__new__(cls, value & (16**digits - 1))
        self.digits = digits
        return self

    def __str__(self) -> str:
        return f"${int(self):0{self.digits}X}"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

    def __add__(self, other: int) -> Hex:
        return Hex(int(self) + other, self.digits)

    def __sub__(self, other: int) -> Hex:
        return Hex(int(self) - other, self.digits)

    @property
    def wide(self) -> str:
        """The same place written with four digits (absolute addressing)."""
        return f"${int(self) & 0xFFFF:04X}"

    @property
    def long(self) -> str:
        """The same WRAM place as a 24-bit address."""
        return f"${0x7E0000 + int(self):06X}" if int(self) < 0x20000 else f"${int(self):06X}"

    @property
    def low(self) -> Hex:
        """Bits 0 to 7."""
        return Hex(int(self), 2)

    @property
    def high(self) -> Hex:
        """Bits 8 to 15."""
        return Hex(int(self) >> 8, 2)


def h2(value: int) -> Hex:
    """`value` printed as two hex digits."""
    return Hex(value, 2)


def h4(value: int) -> Hex:
    """`value` printed as four hex digits."""
    return Hex(value, 4)


def h6(value: int) -> Hex:
    """`value` printed as six hex digits."""
    return Hex(value, 6)


def byte(value: int) -> bytes:
    """`value` modulo 256 as one byte."""
    return bytes([value & 0xFF])


def word(value: int) -> bytes:
    """`value` modulo 65536 as two bytes, low byte first."""
    return (value & 0xFFFF).to_bytes(2, "little")


def long(value: int) -> bytes:
    """`value` modulo 2^24 as three bytes, low byte first."""
    return (value & 0xFFFFFF).to_bytes(3, "little")


def signed(value: int, bits: int = 8) -> int:
    """The two's complement reading of `value`."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


@dataclass(frozen=True)
class Case:
    """The input of one vector: WRAM pokes by offset, registers, and the joypad (libretro button bits)."""

    memory: Mapping[int, bytes]
    registers: Mapping[str, int]
    pad: int = 0


class Memory:
    """The declared input of one vector, as the oracle sees it; reading any other byte raises KeyError."""

    def __init__(self, case: Case) -> None:
        self._bytes = {at + i: b for at, data in case.memory.items() for i, b in enumerate(data)}
        self.registers = case.registers
        self.pad = case.pad

    def __getitem__(self, at: int) -> int:
        return self._bytes[at]

    def word(self, at: int) -> int:
        """The 16-bit value at `at`."""
        return self[at] | self[at + 1] << 8

    def long(self, at: int) -> int:
        """The 24-bit value at `at`."""
        return self.word(at) | self[at + 2] << 16

    def span(self, at: int, n: int) -> bytes:
        """The `n` bytes from `at` on."""
        return bytes(self[at + i] for i in range(n))


@dataclass(frozen=True)
class After:
    """What must hold when the code has returned; memory not named here must be as it was.

    `registers` maps a name to (value, mask), `flags` a letter of NVMXDIZC to 0 or 1; video memories are keyed
    by byte address.
    """

    memory: Mapping[int, bytes] = field(default_factory=dict)
    registers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    vram: Mapping[int, bytes] = field(default_factory=dict)
    cgram: Mapping[int, bytes] = field(default_factory=dict)
    oam: Mapping[int, bytes] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The `after` data of a vector; empty parts are left out."""
        row: dict[str, Any] = {
            "memory": _pokes(self.memory),
            "registers": {k: [v, mask] for k, (v, mask) in self.registers.items()},
            "flags": dict(self.flags),
            "vram": _pokes(self.vram),
            "cgram": _pokes(self.cgram),
            "oam": _pokes(self.oam),
        }
        return {k: v for k, v in row.items() if v or k == "memory"}


Oracle = Callable[[Memory], "After | Mapping[int, bytes]"]


def _pokes(memory: Mapping[int, bytes]) -> dict[str, str]:
    return {f"{at:04X}": data.hex() for at, data in sorted(memory.items())}


class Draw:
    """Random parameters of one instance; the same seed draws the same on every machine."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)

    def choice(self, options: Sequence[Any]) -> Any:
        """One of `options`."""
        return self.rng.choice(options)

    def number(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return self.rng.randint(low, high)

    def sample(self, options: Sequence[Any], k: int) -> list[Any]:
        """`k` different ones of `options`."""
        return self.rng.sample(options, k)

    def immediate(self, low: int = 0, high: int = 255) -> Hex:
        """A byte constant, printed as two digits."""
        return h2(self.rng.randint(low, high))

    def addresses(self, k: int, size: int = 1, low: int = 0x200, high: int = 0x1DFF) -> list[Hex]:
        """`k` areas of `size` bytes in low WRAM that do not overlap, printed as four digits."""
        found: list[Hex] = []
        while len(found) < k:
            a = self.rng.randint(low, high - size)
            if all(abs(a - b) >= size for b in found):
                found.append(h4(a))
        return found

    def address(self, size: int = 1) -> Hex:
        """One area of `size` bytes in low WRAM."""
        return self.addresses(1, size)[0]

    def directs(self, k: int, size: int = 2) -> list[Hex]:
        """`k` direct-page places of `size` bytes that do not overlap, printed as two digits."""
        found: list[Hex] = []
        while len(found) < k:
            a = self.rng.randrange(0x02, 0xF0, 2)
            if all(abs(a - b) >= size for b in found):
                found.append(h2(a))
        return found

    def direct(self, size: int = 2) -> Hex:
        """One direct-page place of `size` bytes."""
        return self.directs(1, size)[0]

    def edges8(self, *edges: int, n: int = VECTORS) -> list[int]:
        """`n` byte values: the given ones, the usual edges, then random ones; the given ones again from place 8 on."""
        return self._edges([e & 0xFF for e in edges], EDGES8, 0x100, n)

    def edges16(self, *edges: int, n: int = VECTORS) -> list[int]:
        """`n` 16-bit values, like `edges8`."""
        return self._edges([e & 0xFFFF for e in edges], EDGES16, 0x10000, n)

    def _edges(self, given: list[int], usual: Sequence[int], top: int, n: int) -> list[int]:
        others = iter([*usual, *(self.rng.randrange(top) for _ in range(n))])
        half = [*given, *(next(others) for _ in range(8 - len(given)))]
        return [*half, *given, *others][:n]

    def shuffled(self, values: Sequence[int]) -> list[int]:
        """The values in another order."""
        return self.rng.sample(values, len(values))

    def block(self, n: int) -> bytes:
        """`n` random bytes."""
        return self.rng.randbytes(n)

    def registers(self, **fixed: int) -> dict[str, int]:
        """Junk in A, X and Y and the flags; 8-bit mode, interrupts off, data bank 1, but for `fixed`."""
        junk = {name: self._junk() for name in "AXY"}
        flags = 0x34 | self.rng.randrange(4) | self.rng.randrange(4) << 6
        return {**junk, "P": flags, "DB": 1, "DP": 0, **fixed}

    def _junk(self) -> int:
        low = self.rng.choice([0, 1, 2, 3, 5, 7, 9, 0x7F, 0x80, 0xFE, 0xFF, self.rng.randrange(256)])
        return self.rng.randrange(256) << 8 | low

    def cases(self, memories: Iterable[Mapping[int, bytes]]) -> Iterator[Case]:
        """A case for every memory, with junk in the registers.

        The carry of cases 8 apart differs. Cases 1 and 2 have high and very low registers, so that code which forgets
        to load one is found out even when there are few cases.
        """
        for i, memory in enumerate(memories):
            junk = (
                self.registers(**dict.fromkeys("AXY", {1: 0xE5E5, 2: 0x0101}[i])) if i in (1, 2) else self.registers()
            )
            yield Case(memory, {**junk, "P": junk["P"] & ~1 | (i ^ i >> 3) & 1})


@dataclass(frozen=True)
class Draft:
    """One instance of a family; the keys below `references` are those of the row's check data.

    `cases` is read once and only when the row is wanted, so a lazy iterator is best. References are ordered
    best first.
    """

    ask: Sequence[str]
    ask_test: Sequence[str]
    cases: Iterable[Case]
    after: Oracle
    references: Mapping[str, str]
    entry: str = ""
    kind: str = "routine"
    returns: str = "rts"
    decide: str | None = None
    keep: str = ""
    scratch: Sequence[tuple[int, int]] = ()
    support: str = ""
    frames: int = 4
    baseline: str = ""
    vanilla: str = ""
    editable: Sequence[tuple[int, int]] = ()
    call: int = 0
    answer: int | None = None

    def code(self, name: str) -> str:
        """The reference `name` as an answer: one instruction a line, the entry label on top."""
        return listing(self.references[name], self.entry)

    def check(self) -> dict[str, Any]:
        """The row's check data (consumes `cases`)."""
        vectors = [self._vector(case) for case in self.cases]
        row: dict[str, Any] = {"kind": self.kind, "entry": self.entry, "returns": self.returns, "decide": self.decide}
        row |= {"keep": self.keep, "scratch": [list(r) for r in self.scratch], "support": self.support}
        row["frames"] = self.frames
        if self.baseline:
            row["baseline"] = self.baseline
        if self.kind != "routine":
            row |= {"vanilla": self.vanilla, "editable": [list(r) for r in self.editable], "call": self.call}
        if self.answer is not None:
            row["answer"] = {"kind": "number", "value": self.answer}
        return row | {"vectors": vectors}

    def _vector(self, case: Case) -> dict[str, Any]:
        after = self.after(Memory(case))
        after = after if isinstance(after, After) else After(after)
        return {"registers": dict(case.registers), "memory": _pokes(case.memory), "pad": case.pad, "after": after.row()}


@dataclass(frozen=True)
class Family:
    """A named kind of task with the category it counts for."""

    name: str
    pack: str
    category: str
    make: Callable[[Draw], Draft]
    tags: tuple[str, ...] = ()

    def draft(self, label: str) -> Draft:
        """The instance that `label` stands for."""
        return self.make(Draw(label))

    def text(self, draft: Draft, pick: random.Random, held_out: bool) -> tuple[str, str]:
        """(prompt text, tag that names its phrasing); held-out phrasings are those of the test split."""
        options = draft.ask_test if held_out else draft.ask
        i = pick.randrange(len(options))
        return _framed(options[i], draft.entry, pick), HELD_OUT if held_out else f"phrasing {i}"

    def prompt(self, draft: Draft, text: str, split: str, phrasing: str) -> Prompt:
        """The finished row."""
        return Prompt(
            text=text,
            family=self.name,
            category=self.category,
            split=split,
            source=self.pack,
            checker="asm",
            check=draft.check(),
            references=tuple(Reference(name, draft.code(name)) for name in draft.references),
            tags=(*self.tags, phrasing),
        )


FRAMES = (
    "Write {entry}: {ask}.",
    "{entry}: {ask}.",
    "Routine {entry}: {ask}.",
    "I need a routine {entry}: {ask}.",
    "{Ask}. Name: {entry}.",
    "{Ask}. Routine {entry}.",
    "{Ask}. Call the routine {entry}.",
    "{Ask}; name it {entry}.",
    "{Ask} ({entry}).",
)
"""How a request and the wanted label are put together; every family shares them, in every split."""


def _framed(ask: str, entry: str, pick: random.Random) -> str:
    """The request in a random frame; one that names the label itself, or needs none, stays as it is."""
    if not entry or entry in ask:
        return ask
    return pick.choice(FRAMES).format(entry=entry, ask=ask, Ask=ask[:1].upper() + ask[1:])


def sentence(ask: str, entry: str) -> str:
    """The request as a sentence that names the label, for prompts that say more around it."""
    return ask if entry in ask else f"{entry}: {ask}."


FAMILIES: dict[str, dict[str, Family]] = {"asm": {}, "rom_hack": {}}


def family(pack: str, category: str, *, easy: bool = False) -> Callable[[Callable[[Draw], Draft]], Family]:
    """Register the decorated function as a family of `pack`; `easy` marks the ones of the demo."""

    def register(make: Callable[[Draw], Draft]) -> Family:
        return add(Family(make.__name__, pack, category, make, ("easy",) if easy else ()))

    return register


def add(made: Family) -> Family:
    """Put a family into its pack; names are unique."""
    if made.name in FAMILIES[made.pack]:
        raise ValueError(f"two families named {made.name}")
    FAMILIES[made.pack][made.name] = made
    return made


def listing(code: str, entry: str = "") -> str:
    """One-line assembly as text: an instruction or label a line, not indented, `entry` as first label."""
    lines = [f"{entry}:"] if entry else []
    return "\n".join(lines + [part.strip() for part in code.split(" / ")])
