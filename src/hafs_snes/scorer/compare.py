"""Compare what a call left behind with what its vector asks for: a verdict with problems by kind and
clobbers.

All memory is compared whole: WRAM (except the stack page and the task's scratch ranges), VRAM, CGRAM, OAM and
the cartridge RAM that the harness does not use. A wrong byte where the vector names a result is a wrong
result, a changed byte anywhere else a clobber.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hafs_snes.scorer.check import FLAGS, STACK_PAGE, Vector
from hafs_snes.scorer.machine import Outcome

__all__ = ["Verdict", "compare"]

SENTINEL = (0x1F8, b"\x0e" * 8)  # what the harness pushes before a call
STACK_POINTER = 0x1F7
SHOWN = 4  # places named per problem
ENDS = {
    "hang": ("hang", "did not return"),
    "brk": ("crash", "ran into BRK"),
    "cop": ("crash", "ran into COP"),
    "mailbox overwritten": ("crash", "ran wild and overwrote the harness's mailbox"),
    "late": ("crash", "overwrote the harness's mailbox: it had not returned when the mailbox said so"),
    "rtl for rts": ("wrong return", "returned with RTL where RTS is due"),
    "rts for rtl": ("wrong return", "returned with RTS where RTL is due"),
}


@dataclass
class Verdict:
    """One vector's verdict. `problems` are (kind, text); `clobbers` names what changed that must not.

    `returned`: the call came back the right way; `clocks` are None when it did not.
    """

    returned: bool
    clocks: int | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)
    clobbers: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        return self.returned and not self.problems


@dataclass(frozen=True)
class Difference:
    """A named result that came out wrong."""

    name: str
    got: bytes
    want: bytes

    def off_by_one(self) -> bool:
        """One more or one less, or a block that is right but for its first or its last byte."""
        a, b = int.from_bytes(self.got, "little"), int.from_bytes(self.want, "little")
        if (a - b) % (1 << 8 * len(self.want)) in (1, (1 << 8 * len(self.want)) - 1):
            return True
        return len(self.want) > 3 and (self.got[1:] == self.want[1:] or self.got[:-1] == self.want[:-1])

    def __str__(self) -> str:
        at = next(i for i in range(len(self.want)) if self.got[i] != self.want[i])
        place = f"+{at}" if at else ""
        return f"{self.name}{place}: got {self.got[at : at + 8].hex()}, want {self.want[at : at + 8].hex()}"


@dataclass(frozen=True)
class Area:
    """A memory and how its places are written: prefix, the address of its first byte, hex digits."""

    name: str
    prefix: str
    base: int
    digits: int

    def place(self, offset: int) -> str:
        """The place of an offset, such as "$7E0E20" or "vram $1000"."""
        return f"{self.prefix}{self.base + offset:0{self.digits}X}"


WRAM = Area("WRAM", "$", 0x7E0000, 6)


def changed_places(got: bytes, want: bytes) -> list[int]:
    """The offsets where two equally long byte strings differ."""
    if got == want:
        return []
    step = 256
    blocks = [i for i in range(0, len(want), step) if got[i : i + step] != want[i : i + step]]
    return [k for i in blocks for k in range(i, min(i + step, len(want))) if got[k] != want[k]]


def compare(
    vector: Vector,
    before: bytes,
    outcome: Outcome,
    video: Mapping[str, bytes],
    keep: str,
    scratch: Sequence[tuple[int, int]],
    overhead: int,
) -> Verdict:
    """Judge one call.

    `before` is WRAM on entry, `video` the boot contents of vram, cgram and oam, `overhead` the clocks of an empty
    routine; `keep` and `scratch` are the check's.
    """
    if outcome.status != "returned":
        return Verdict(False, problems=[ENDS[outcome.status]])
    verdict = Verdict(True, outcome.clocks - overhead)
    _cpu_state(vector, outcome, verdict)
    wrong = _registers(vector, outcome, keep, verdict)
    free = [*scratch, (STACK_PAGE[0], SENTINEL[0])]
    start = _overlay(before, [SENTINEL])
    wrong += _memory(WRAM, start, outcome.wram, vector.after.memory, free, verdict.clobbers)
    for name in ("vram", "cgram", "oam"):
        results, got = getattr(vector.after, name), getattr(outcome, name)
        wrong += _memory(Area(name, f"{name} $", 0, 4), video[name], got, results, [], verdict.clobbers)
    if outcome.save_ram.strip(b"\xff"):
        verdict.clobbers.append("cartridge RAM")
    verdict.clobbers += outcome.left
    if wrong:
        kind = "off by one" if all(d.off_by_one() for d in wrong) else "wrong result"
        verdict.problems += [(kind, str(d)) for d in wrong[:SHOWN]]
    return verdict


def _cpu_state(vector: Vector, outcome: Outcome, verdict: Verdict) -> None:
    """Stack, register widths, decimal and emulation mode, data bank and direct page must be as on entry."""
    was, now, after = vector.registers, outcome.registers, vector.after
    if (off := now["S"] - STACK_POINTER) != 0:
        verdict.problems.append(("stack", f"stack pointer off by {off:+d}"))
    if now["E"]:
        verdict.problems.append(("wrong mode", "left the CPU in emulation mode"))
    widths = {"M": "wrong register width", "X": "wrong register width"}
    for flag in "MXDI":
        bit, kind = 7 - FLAGS.index(flag), widths.get(flag, "wrong mode")
        want = after.flags.get(flag, was["P"] >> bit & 1 if flag != "D" else 0)
        if (now["P"] >> bit & 1) != want:
            verdict.problems.append((kind, f"left flag {flag} at {1 - want}, want {want}"))
    for register, digits in (("DB", 2), ("DP", 4)):
        if register not in after.registers and now[register] != was[register]:
            text = f"{register} is ${now[register]:0{digits}X}, was ${was[register]:0{digits}X}"
            verdict.problems.append(("wrong mode", text))


def _registers(vector: Vector, outcome: Outcome, keep: str, verdict: Verdict) -> list[Difference]:
    """Wrong result registers and flags; registers that had to be kept and were not are clobbers."""
    was, now, after = vector.registers, outcome.registers, vector.after
    wide = {"A": not was["P"] & 0x20, "X": not was["P"] & 0x10, "Y": not was["P"] & 0x10}
    for register in "AXY":
        mask = 0xFFFF if wide[register] else 0xFF
        if register in keep and (now[register] ^ was[register]) & mask:
            verdict.clobbers.append(register)
    wrong = []
    for register, (value, mask) in after.registers.items():
        if (now[register] ^ value) & mask:
            size = 2 if mask > 0xFF else 1
            got, want = ((x & mask).to_bytes(size, "little") for x in (now[register], value))
            wrong.append(Difference(register, got, want))
    for flag, value in after.flags.items():
        if flag not in "MXDI" and (now["P"] >> (7 - FLAGS.index(flag)) & 1) != value:
            verdict.problems.append(("wrong result", f"flag {flag} is {1 - value}, want {value}"))
    return wrong


def _overlay(memory: bytes, patches: Iterable[tuple[int, bytes]]) -> bytes:
    out = bytearray(memory)
    for at, data in patches:
        out[at : at + len(data)] = data
    return bytes(out)


def _memory(
    area: Area,
    before: bytes,
    got: bytes,
    results: Mapping[int, bytes],
    free: Sequence[tuple[int, int]],
    clobbers: list[str],
) -> list[Difference]:
    """Wrong results in one memory; every other change outside `free` is added to `clobbers`."""
    wrong = [
        Difference(area.place(at), got[at : at + len(want)], want)
        for at, want in results.items()
        if got[at : at + len(want)] != want
    ]
    ignored = [*free, *((at, at + len(want)) for at, want in results.items())]
    rest = _overlay(got, [(low, before[low:high]) for low, high in ignored])
    places = changed_places(rest, before)
    clobbers += [area.place(i) for i in places[:SHOWN]]
    if len(places) > SHOWN:
        clobbers.append(f"{len(places) - SHOWN} more bytes of {area.name}")
    return wrong
