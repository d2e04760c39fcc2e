"""The emulated console, its process and what is compared, on the real core."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hafs.sandbox import open_sandbox
from hafs_snes import tools
from hafs_snes.scorer.assemble import Assembler, Harness, load_harness
from hafs_snes.scorer.compare import Verdict, changed_places
from hafs_snes.scorer.emulator import Emulator, EmulatorDied, EmulatorHung
from hafs_snes.scorer.places import CODE, pc
from hafs_snes.scorer.worker import background

pytestmark = pytest.mark.tools
LINE, FRAME = 1364, 1364 * 262  # master clocks


@pytest.fixture(scope="module")
def assembler() -> Assembler:
    return Assembler(tools.asar(), open_sandbox())


@pytest.fixture(scope="module")
def harness(assembler: Assembler, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return load_harness(assembler, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def emulator(harness: Harness) -> Iterator[Emulator]:
    opened = Emulator(tools.bsnes_core(), harness.rom, harness.symbols, seconds=30)
    yield opened
    opened.close()


def job(code: str, *vectors: dict[str, Any], returns: str = "rts", **more: Any) -> dict[str, Any]:
    """A job with machine code in hex."""
    return {
        "overlays": [(pc(CODE), code)],
        "call": CODE,
        "returns": returns,
        "seed": "test",
        "frames": 4,
        "keep": "",
        "scratch": [],
        "vectors": vectors or ({},),
        **more,
    }


def kinds(verdict: Verdict) -> list[str]:
    return [kind for kind, _ in verdict.problems]


RTS, RTL = "60", "6b"


def test_an_empty_routine_takes_no_clocks(emulator: Emulator) -> None:
    for returns, code in (("rts", RTS), ("rtl", RTL)):
        (verdict,) = emulator.run(job(code, returns=returns))
        assert verdict == Verdict(True, 0, [], [])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("80fe", "hang"),  # BRA to itself
        ("db", "hang"),  # STP
        ("cb", "hang"),  # WAI
        ("0000", "crash"),  # BRK
        ("0200", "crash"),  # COP
        ("6b", "wrong return"),  # RTL
        ("c22060", "wrong register width"),  # REP #$20
        ("c21060", "wrong register width"),  # REP #$10
        ("f860", "wrong mode"),  # SED
        ("38fb60", "wrong mode"),  # SEC XCE: emulation mode
        ("a97e48ab60", "wrong mode"),  # LDA #$7E PHA PLB
        ("f401002b60", "wrong mode"),  # PEA $0001 PLD
    ],
)
def test_how_a_call_can_end_badly(emulator: Emulator, code: str, kind: str) -> None:
    (verdict,) = emulator.run(job(code))
    assert not verdict.correct and kind in kinds(verdict)
    assert emulator.run(job(RTS))[0].correct  # and the next call starts afresh


def test_a_stack_that_is_off_but_returns(emulator: Emulator) -> None:
    # PLX PLY PHA PHY PHX RTS in 8 bits: one byte more than it took, under the same return address
    (verdict,) = emulator.run(job("fa7a485ada60"))
    assert verdict.problems == [("stack", "stack pointer off by -1")]


def test_registers_and_flags_arrive_and_are_checked(emulator: Emulator) -> None:
    registers = {"A": 0x12AB, "X": 0x3456, "Y": 0x789A, "P": 0x05, "DB": 0x7E, "DP": 0x0300}
    after = {
        "registers": {"A": [0x12AB, 0xFFFF], "X": [0x3456, 0xFFFF], "Y": [0x789A, 0xFFFF]},
        "flags": {"C": 1, "Z": 0, "I": 1, "N": 0},
    }
    (right,) = emulator.run(job(RTS, {"registers": registers, "after": after}))
    assert right.correct and right.clobbers == []
    (other,) = emulator.run(job("18ca60", {"registers": registers, "after": after}, keep="AXY"))  # CLC DEX
    assert sorted(kinds(other)) == ["off by one", "wrong result"] and other.clobbers == ["X"]


def test_a_task_may_ask_for_another_width_or_bank(emulator: Emulator) -> None:
    after = {"flags": {"M": 0}, "registers": {"DB": [0x7E, 0xFF]}}
    (verdict,) = emulator.run(job("a97e48abc22060", {"after": after}))
    assert verdict.correct


def test_the_joypad_is_read(emulator: Emulator) -> None:
    # $4200 = 1; wait for $4212 bit 0 to come and go; $00 = $4218; $01 = $4219; $4200 = 0
    read = "a9018d0042ad12424a90faad12424ab0faad18428500ad194285019c004260"
    vectors = [
        {"pad": pad, "after": {"memory": {"0": word}}}
        for pad, word in ((0, "0000"), (1, "0080"), (1 << 8, "8000"), (1 << 3, "0010"))
    ]
    assert [v.correct for v in emulator.run(job(read, *vectors))] == [True] * 4


@pytest.mark.parametrize(
    ("memory", "code", "at"),
    [
        ("vram", "a9808d15219c1621a9108d1721a9348d1821a9128d192160", "2000"),
        ("cgram", "a9058d2121a9348d2221a9128d222160", "a"),
        ("oam", "a9058d02219c0321a9348d0421a9128d042160", "a"),
    ],
)
def test_video_memories_are_compared_whole(emulator: Emulator, memory: str, code: str, at: str) -> None:
    right, wrong, unasked = emulator.run(
        job(code, {"after": {memory: {at: "3412"}}}, {"after": {memory: {at: "3312"}}}, {})
    )
    assert right.correct and right.clobbers == []
    assert kinds(wrong) == ["off by one"]
    assert unasked.correct and any(memory in c for c in unasked.clobbers)


def test_all_of_wram_is_compared(emulator: Emulator) -> None:
    # SEP'd A: LDA #$00; STA.l to a handful of places
    for place in (0x7E0000, 0x7E00FF, 0x7E0200, 0x7E8000, 0x7F0000, 0x7FFFFF):
        code = "a95a8f" + place.to_bytes(3, "little").hex() + "60"
        (verdict,) = emulator.run(job(code))
        assert verdict.clobbers == [f"${place:06X}"]
        (asked,) = emulator.run(job(code, {"after": {"memory": {f"{place - 0x7E0000:x}": "5a"}}}))
        assert asked.correct and asked.clobbers == []
        (free,) = emulator.run(job(code, scratch=[[place - 0x7E0000, place - 0x7E0000 + 1]]))
        assert free.clobbers == []


def test_each_job_starts_from_a_clean_cartridge(emulator: Emulator) -> None:
    emulator.run(job("a9" + "11" * 600 + RTS))
    (verdict,) = emulator.run(job("4c5081"))  # JMP $8150: zero again, so BRK
    assert kinds(verdict) == ["crash"]


def delay(n: int, nops: int) -> str:
    """REP #$30, LDY #n, count down, some NOPs, SEP #$30, RTS: 37 clocks or so a round."""
    return "c230a0" + n.to_bytes(2, "little").hex() + "88d0fd" + "ea" * nops + "e23060"


def test_clocks_grow_evenly_across_frames(emulator: Emulator) -> None:
    rounds = [*range(10, 40000, 1999), *range(7990, 8070), *range(17600, 17700, 2)]
    took = {}
    for n in sorted(set(rounds)):
        (verdict,) = emulator.run(job(delay(n, 0), frames=8))
        took[n] = verdict.clocks
    ns = sorted(took)
    for a, b in itertools.pairwise(ns):
        assert took[a] is not None and took[b] is not None
        assert 34 * (b - a) - 60 < took[b] - took[a] < 40 * (b - a) + 60, (a, b)
    assert max(t or 0 for t in took.values()) > 3 * FRAME


def test_clocks_repeat_exactly(emulator: Emulator, harness: Harness) -> None:
    programs = [delay(n, n % 5) for n in (5, 100, 3000, 9000)]
    first = [emulator.run(job(code))[0].clocks for code in programs]
    again = [emulator.run(job(code))[0].clocks for code in reversed(programs)][::-1]
    other = Emulator(tools.bsnes_core(), harness.rom, harness.symbols)
    try:
        assert first == again == [other.run(job(code))[0].clocks for code in programs]
    finally:
        other.close()


def test_frames_end_a_call(emulator: Emulator) -> None:
    slow = delay(9000, 0)
    assert emulator.run(job(slow, frames=1))[0].problems == [("hang", "did not return")]
    assert emulator.run(job(slow, frames=2))[0].correct


def test_the_background_is_fixed_and_differs_by_vector() -> None:
    assert background("prompt/0")[:8].hex() == "8d672e5fa72a9f1e"
    assert len(background("prompt/0")) == 0x20000
    assert background("prompt/0") != background("prompt/1")


def test_changed_places() -> None:
    a = bytes(range(256)) * 8
    b = bytearray(a)
    for i in (0, 255, 256, 1000, 2047):
        b[i] ^= 0xFF
    assert changed_places(bytes(b), a) == [0, 255, 256, 1000, 2047]
    assert changed_places(a, a) == []


# --- the process -------------------------------------------------------------------------------------------


def test_the_process_has_no_files_no_network_and_no_secrets(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very secret")
    opened = Emulator(tools.bsnes_core(), harness.rom, harness.symbols)
    try:
        opened.run(job(RTS))
        proc = Path(f"/proc/{opened.pid}")
        limits = {line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()}
        assert limits["Max open files"] == limits["Max processes"] == limits["Max file size"] == ["0", "0"]
        assert b"very secret" not in (proc / "environ").read_bytes()
    finally:
        opened.close()


def test_a_dead_process_is_reported_and_replaced(harness: Harness) -> None:
    opened = Emulator(tools.bsnes_core(), harness.rom, harness.symbols, seconds=2)
    try:
        assert opened.run(job(RTS))[0].correct
        assert opened.pid
        os.kill(opened.pid, signal.SIGSTOP)  # a core that hangs
        begun = time.monotonic()
        with pytest.raises(EmulatorHung, match="no answer within"):
            opened.run(job(RTS))
        assert time.monotonic() - begun < 20
        assert opened.run(job(RTS))[0].correct
        assert opened.starts == 2
    finally:
        opened.close()


def test_a_job_that_takes_too_long_ends_the_process(harness: Harness) -> None:
    opened = Emulator(tools.bsnes_core(), harness.rom, harness.symbols, seconds=0.5)
    try:
        with pytest.raises(EmulatorHung, match="no answer within"):
            opened.run(job("80fe", *[{}] * 50, frames=600))
    finally:
        opened.close()


def test_what_is_no_core_is_refused(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "core.so").write_bytes(b"not a library")
    opened = Emulator(tmp_path / "core.so", harness.rom, harness.symbols)
    with pytest.raises(EmulatorDied, match="failed"):
        opened.run(job(RTS))
    opened.close()


def test_the_harness_is_built_once(assembler: Assembler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_harness(assembler, tmp_path)
    monkeypatch.setattr(assembler, "assemble", lambda *_: pytest.fail("built again"))
    assert load_harness(assembler, tmp_path) == first
    assert len(first.rom) == 1 << 20 and {"came_back", "rts_for_rtl"} <= set(first.symbols)


def test_a_broken_harness_cache_is_rebuilt(assembler: Assembler, tmp_path: Path) -> None:
    first = load_harness(assembler, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"half a fi")
    assert load_harness(assembler, tmp_path) == first
