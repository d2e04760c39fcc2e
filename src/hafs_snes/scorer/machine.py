"""The emulated console: one cartridge (the harness), whose ROM is patched in place, called with given inputs.

The core is bsnes-mercury *balanced* behind `libretro.py`'s thin `Core` class; its `Session` is not used,
because a frame here is driven by hand, with the memory pointers that only the core knows:
- SET_MEMORY_MAPS tells where the core keeps the ROM, so a new routine is copied in without a new load;
- one save state, taken when the harness waits for its first command, starts every call from the same clock;
- WRAM, VRAM and the mailbox (cartridge RAM) are read and written directly; CGRAM and OAM are not exposed, so
  they are read out of a save state at the places where the boot pattern was found.

What the harness reports of a call is only a claim, since a routine can write the mailbox as well as the harness can.
So a good report is proven by a second call (`prove`), in whose cartridge the places of return are endless loops: the
CPU, read out of a save state, must stand in the right loop by the time that was claimed, with the right registers.

A core is one per process and may crash with it: see worker.py and emulator.py for the process around this.
"""

from __future__ import annotations

import ctypes
import hashlib
import signal
from collections.abc import Mapping, Sequence
from ctypes import POINTER, addressof, c_char, cast
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from libretro.api import EnvironmentCall, retro_game_info, retro_memory_map
from libretro.core import Core

from hafs_snes.scorer.check import DEFAULTS, WRAM_SIZE
from hafs_snes.scorer.places import CODE, PATTERN_BANK, STUB_BANK, pc

__all__ = ["Console", "Outcome", "as_overlays", "boot_pattern"]

SAVE_RAM, SYSTEM_RAM, VIDEO_RAM = 0, 2, 3  # RETRO_MEMORY_*
JOYPAD, JOYPAD_MASK = 1, 256  # RETRO_DEVICE_JOYPAD, RETRO_DEVICE_ID_JOYPAD_MASK
MAILBOX_SIZE = 0x40
CLOCK0 = slice(0x30, 0x34)  # what the harness itself writes into the mailbox before a call
START = (240, 20)  # dot and line where a call starts: just behind the memory refresh, so that clocks repeat
EMPTY = {"rts": b"\x60", "rtl": b"\x6b"}
LAST_DOT = 339  # of a line: at a later one no interrupt comes
LOOP = b"\x80\xfe"  # BRA to itself
RETURNS = {"came_back": "returned", "rtl_for_rts": "rtl for rts", "rts_for_rtl": "rts for rtl"}
SAVE_SECONDS = 3.0  # of processor time; a save state takes thousandths
READY_CLOCKS = 6 * 1364  # what the harness takes at most until it waits for the start position
SLACK = 40  # clocks by which a claim may be too low: what refresh and alignment add at another place on the screen
INPUTS = ((0x10, "A", 2), (0x12, "X", 2), (0x14, "Y", 2), (0x16, "DP", 2), (0x18, "DB", 1), (0x19, "P", 1))
LINE_CLOCKS, FRAME_LINES = 1364, 262  # NTSC, master clocks
FRAME_CLOCKS = LINE_CLOCKS * FRAME_LINES
FRAME_END_LINE = 241  # retro_run returns when this line begins
REPORT_CLOCKS = 1434  # from the latch of the end counters to the status in the mailbox, when that crosses a frame's end
STATUS = {0xA501: "returned", 0xA502: "rtl for rts", 0xA503: "rts for rtl", 0xA504: "brk", 0xA505: "cop"}


def boot_pattern() -> bytes:
    """The 32 KB that VRAM, CGRAM and OAM are filled from before a call (harness.asm says how)."""
    return hashlib.shake_256(b"what VRAM, CGRAM and OAM hold before a call").digest(0x8000)


@dataclass(frozen=True)
class Outcome:
    """How one call ended: `status` is a word of STATUS, "hang", "mailbox overwritten" or (of a proof) "late".

    Registers are as the routine left them (S is the stack pointer, E 1 in emulation mode), `clocks` are
    master clocks from the harness's start position, including the harness's own. Everything but the status
    counts only when it is "returned"; CGRAM and OAM are empty otherwise. `left` names what only a proof can see: a
    mailbox that was written, interrupts that were left on; `frames` is how many `call` took.
    """

    status: str
    registers: Mapping[str, int]
    clocks: int
    wram: bytes
    vram: bytes
    cgram: bytes
    oam: bytes
    save_ram: bytes
    left: tuple[str, ...] = ()
    frames: int = 0


class Console:
    """One emulated console with the harness cartridge in it. One per process."""

    def __init__(self, core: Path, rom: bytes, symbols: Mapping[str, int]) -> None:
        """Load the core and boot `rom` (1 MB, the harness); `symbols` are its labels. Raises RuntimeError."""
        self._pad = 0
        self._maps: list[tuple[int, int]] = []
        self._symbols = symbols
        image = bytearray(rom)
        image[PATTERN_BANK * 0x8000 : (PATTERN_BANK + 1) * 0x8000] = self.pattern = boot_pattern()
        self._image = bytes(image)
        self._core = self._start(core)
        self._load()
        for _ in range(4):
            self._core.run()
        self._state = self._save()
        self._find_video_memories()
        self._find_registers()
        self._lead = -FRAME_CLOCKS
        self.overhead = {returns: self._measure(returns, code) for returns, code in EMPTY.items()}

    # -- start-up ---
    def _start(self, path: Path) -> Core:
        core = Core(str(path))
        core.set_environment(self._environment)
        core.set_video_refresh(lambda data, width, height, pitch: None)
        core.set_audio_sample(lambda left, right: None)
        core.set_audio_sample_batch(lambda data, frames: frames)
        core.set_input_poll(lambda: None)
        core.set_input_state(self._input)
        core.init()
        return core

    def _environment(self, command: int, data: int) -> bool:
        if command == EnvironmentCall.SET_MEMORY_MAPS:
            found = cast(data, POINTER(retro_memory_map))[0]
            self._maps = [(found[i].ptr or 0, found[i].len) for i in range(len(found))]
            return True
        return command == EnvironmentCall.SET_PIXEL_FORMAT

    def _input(self, port: int, device: int, index: int, button: int) -> int:
        if port or device != JOYPAD:
            return 0
        return self._pad if button == JOYPAD_MASK else self._pad >> button & 1

    def _load(self) -> None:
        size = len(self._image)
        self._buffer = (c_char * size).from_buffer_copy(self._image)
        if not self._core.load_game(retro_game_info(b"harness.sfc", addressof(self._buffer), size, None)):
            raise RuntimeError("the core refused the harness cartridge")
        self._rom = next((p for p, n in self._maps if p and n >= size and ctypes.string_at(p, size) == self._image), 0)
        if not self._rom:
            raise RuntimeError("the core does not tell where its ROM lies")
        memories = [self._core.get_memory(i) for i in (SAVE_RAM, SYSTEM_RAM, VIDEO_RAM)]
        if [len(m) if m else 0 for m in memories] != [0x2000, 0x20000, 0x10000]:
            raise RuntimeError("the core does not expose its memories")
        self._mailbox, self._wram, self._vram = (m.cast("B") for m in memories if m)

    def _save(self) -> bytearray:
        state = bytearray(self._core.serialize_size())
        signal.setitimer(signal.ITIMER_VIRTUAL, SAVE_SECONDS)  # a CPU that has stopped is waited for until this ends us
        saved = self._core.serialize(state)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if not saved:
            raise RuntimeError("the core cannot save its state")
        return state

    def _find_video_memories(self) -> None:
        colours = self.pattern[0x4000:0x4200]
        self.vram = self.pattern[:0x4000] * 4
        self.cgram = bytes(b & 0x7F if i & 1 else b for i, b in enumerate(colours))  # 15 bits a colour
        self.oam = self.pattern[0x5000:0x5220]
        self._cgram_at, self._oam_at = self._state.find(self.cgram), self._state.find(self.oam)
        if bytes(self._vram) != self.vram or self._cgram_at < 0 or self._oam_at < 0:
            raise RuntimeError("the boot pattern is not where it should be in VRAM, CGRAM and OAM")

    def _find_registers(self) -> None:
        """Where a save state keeps the CPU's registers and what is on in $4200: found by what known code leaves."""
        known = bytes.fromhex("c230 a9d501 1b a92143 5b e220 a97e 48 ab a905 48 c230 a27856 a0bc9a a93412 28")
        state = self._left_by(known)
        self._cpu_at = state.find(bytes.fromhex("34127856bc9a0000d5012143"))
        off, on, joypad = (
            self._left_by(b"\xa9" + bytes([value]) + b"\x8f\x00\x42\x00\xa9\x00") for value in (0, 0x20, 1)
        )
        changed = [i for i in range(len(off)) if off[i] != on[i]]
        if self._cpu_at < 0 or len(changed) != 1:
            raise RuntimeError("the core does not show the CPU's registers")
        self._on_at = changed[0] - 2  # NMI, IRQ by dot, IRQ by line, joypad: one after the other
        want = {"A": 0x1234, "X": 0x5678, "Y": 0x9ABC, "DP": 0x4321, "S": 0x1D5, "DB": 0x7E, "P": 5, "E": 0}
        pc_is = int.from_bytes(state[self._cpu_at - 4 : self._cpu_at - 1], "little")
        if self._registers(state) != want or pc_is != CODE + len(known) or not joypad[self._on_at + 3]:
            raise RuntimeError("the core does not show the CPU's registers where they should be")

    def _left_by(self, code: bytes) -> bytearray:
        """The state in which `code`, which ends in a loop, leaves the console."""
        self.install(CODE, "rts", [(pc(CODE), code + LOOP)])
        self.call(DEFAULTS, bytes(WRAM_SIZE), 0, 1)
        return self._save()

    def _measure(self, returns: str, code: bytes) -> int:
        """Clocks that the harness reports of an empty routine; and finds the least time in which that can be proven."""
        self.install(CODE, returns, [(pc(CODE), code)])
        inputs = (DEFAULTS, bytes(WRAM_SIZE), 0)
        outcome = self.call(*inputs, 2)
        if outcome.status != "returned":
            raise RuntimeError(f"an empty routine did not return: {outcome.status}")
        low, high = 0, 8 * LINE_CLOCKS
        while high - low > 4:
            middle = (low + high) // 2
            late = self._proof(*inputs, middle).status == "late"
            low, high = (middle, high) if late else (low, middle)
        self._lead = max(self._lead, high - outcome.clocks)
        return outcome.clocks

    # -- calls ---
    def install(self, call: int, returns: str, overlays: Sequence[tuple[int, bytes]]) -> None:
        """Put code into the cartridge: `overlays` are (file offset, bytes), `call` the address that `call()`
        calls.
        """
        ctypes.memmove(self._rom, self._image, len(self._image))
        for offset, data in overlays:
            self._write_rom(offset, data)
        bank = call & 0xFF0000
        if returns == "rts":
            self._enter = bank | 0xFE00
            self._write_rom(pc(self._enter), b"\x20" + call.to_bytes(3, "little")[:2] + self._jump("came_back"))
        else:
            self._enter = STUB_BANK << 16 | 0xFE10
            self._write_rom(pc(self._enter), b"\x22" + call.to_bytes(3, "little") + self._jump("came_back"))
            self._write_rom(pc(bank | 0xFE14), self._jump("rts_for_rtl"))

    def _write_rom(self, offset: int, data: bytes) -> None:
        if not 0 <= offset <= len(self._image) - len(data):
            raise ValueError(f"no place for {len(data)} bytes at {offset:#x} of the cartridge")
        ctypes.memmove(self._rom + offset, data, len(data))

    def _jump(self, label: str) -> bytes:
        return b"\x5c" + self._symbols[label].to_bytes(3, "little")

    def call(self, registers: Mapping[str, int], wram: bytes, pad: int, frames: int) -> Outcome:
        """Call the installed code once. `wram` is all 128 KB; the call is a hang after `frames` emulated
        frames. What comes back is what the mailbox says: a claim.
        """
        self._prepare(registers, wram, pad, START)
        box, ran = self._mailbox, 0
        while ran < frames and box[2:4] == b"\x00\x00":
            self._core.run()
            ran += 1
        return self._outcome(ran)

    def prove(self, registers: Mapping[str, int], wram: bytes, pad: int, clocks: int) -> Outcome:
        """Call the installed code again, for at most `clocks` (as `call` counts them) and a little: registers are those
        of the CPU, which stands where the routine returned to. The status is "late" when it does not.
        """
        return self._proof(registers, wram, pad, clocks + self._lead + SLACK)

    def prove_frames(self, registers: Mapping[str, int], wram: bytes, pad: int, frames: int) -> Outcome:
        """The same from where `call` starts, for that many frames: for what depends on the place on the screen."""
        return self._looped(registers, wram, pad, START, frames)

    def _proof(self, registers: Mapping[str, int], wram: bytes, pad: int, lead: int) -> Outcome:
        """A call that starts `lead` clocks before a frame's end, and is looked at there."""
        start = (FRAME_END_LINE * LINE_CLOCKS - lead) % FRAME_CLOCKS
        ran = -(-lead // FRAME_CLOCKS) + (
            lead % FRAME_CLOCKS > FRAME_CLOCKS - READY_CLOCKS
        )  # too early in the first frame: in the next one
        place = (min(start % LINE_CLOCKS // 4, LAST_DOT), start // LINE_CLOCKS)
        return self._looped(registers, wram, pad, place, ran)

    def _looped(
        self, registers: Mapping[str, int], wram: bytes, pad: int, start: tuple[int, int], frames: int
    ) -> Outcome:
        before = {label: ctypes.string_at(self._rom + pc(self._symbols[label]), 2) for label in RETURNS}
        for label in RETURNS:
            self._write_rom(pc(self._symbols[label]), LOOP)
        try:
            self._prepare(registers, wram, pad, start)
            sent = bytes(self._mailbox)
            for _ in range(frames):
                self._core.run()
            return self._proven(sent)
        finally:
            for label, code in before.items():
                self._write_rom(pc(self._symbols[label]), code)

    def _prepare(self, registers: Mapping[str, int], wram: bytes, pad: int, start: tuple[int, int]) -> None:
        if not self._core.unserialize(self._state):
            raise RuntimeError("the core cannot restore its state")
        self._wram[:] = wram
        box = self._mailbox
        box[0x08:0x0B] = self._enter.to_bytes(3, "little")
        box[0x0C:0x10] = b"".join(n.to_bytes(2, "little") for n in start)
        for at, name, size in INPUTS:
            box[at : at + size] = registers[name].to_bytes(size, "little")
        box[0:4] = b"\x01\x00\x00\x00"
        self._pad = pad

    def _proven(self, sent: bytes) -> Outcome:
        """What the console itself shows at the end of a call into loops; `sent` is the cartridge RAM at its start."""
        state = self._save()
        at = int.from_bytes(state[self._cpu_at - 4 : self._cpu_at - 1], "little")
        status = next((s for label, s in RETURNS.items() if self._symbols[label] == at), "late")
        box = bytearray(self._mailbox)
        box[CLOCK0] = sent[CLOCK0]  # the harness's own
        wanted = b"\0\0\0\0" + sent[4:MAILBOX_SIZE]
        left = ["the harness's mailbox"] if bytes(box[:MAILBOX_SIZE]) != wanted else []
        left += ["interrupts or joypad reading left on ($4200)"] if any(state[self._on_at : self._on_at + 4]) else []
        return self._of_state(status, self._registers(state), 0, state, tuple(left))

    def _registers(self, state: bytes | bytearray) -> dict[str, int]:
        """The CPU's registers in a save state: A, X, Y, (Z), S, DP, the flags one by one, DB, E."""
        cpu = state[self._cpu_at : self._cpu_at + 22]
        words = {
            n: int.from_bytes(cpu[i : i + 2], "little") for n, i in (("A", 0), ("X", 2), ("Y", 4), ("S", 8), ("DP", 10))
        }
        return {**words, "P": int("".join(str(bit) for bit in cpu[12:20]), 2), "DB": cpu[20], "E": cpu[21]}

    def _outcome(self, ran: int) -> Outcome:
        """What the mailbox says of a call."""
        box = bytes(self._mailbox)
        word = {k: int.from_bytes(box[k : k + 2], "little") for k in range(0, MAILBOX_SIZE, 2)}
        status = STATUS.get(word[2], "mailbox overwritten") if word[2] else "hang"
        clocks = self._clocks(word[0x30], word[0x32], word[0x34], word[0x36], ran)
        if status == "returned" and clocks <= 0:
            status = "mailbox overwritten"
        # Saving first runs the CPU to the end of its instruction, and WAI or STP may have none.
        state = self._save() if status == "returned" else b""
        registers = {"A": word[0x20], "X": word[0x22], "Y": word[0x24], "DP": word[0x26], "S": word[0x28]}
        registers |= {"DB": box[0x2A], "P": box[0x2B], "E": box[0x2C] & 1}
        return replace(self._of_state(status, registers, clocks, state), frames=ran)

    def _of_state(
        self, status: str, registers: dict[str, int], clocks: int, state: bytes | bytearray, left: tuple[str, ...] = ()
    ) -> Outcome:
        return Outcome(
            status=status,
            registers=registers,
            clocks=clocks,
            wram=bytes(self._wram),
            vram=bytes(self._vram),
            cgram=bytes(state[self._cgram_at : self._cgram_at + 0x200]),
            oam=bytes(state[self._oam_at : self._oam_at + 0x220]),
            save_ram=bytes(self._mailbox[MAILBOX_SIZE:]),
            left=left,
        )

    @staticmethod
    def _clocks(h0: int, v0: int, h1: int, v1: int, ran: int) -> int:
        """Master clocks between two counter readings; `ran` frames tell how often the line counter started
        again.

        A run ends at line 241, so code that reported before it has seen ran - 1 new frames, later one less.
        """
        reported = v1 * LINE_CLOCKS + h1 * 4 + REPORT_CLOCKS
        wraps = ran - 1 if reported < FRAME_END_LINE * LINE_CLOCKS else ran - 2
        return (v1 + wraps * FRAME_LINES - v0) * LINE_CLOCKS + (h1 - h0) * 4


def as_overlays(rows: Sequence[Sequence[Any]]) -> list[tuple[int, bytes]]:
    """Overlays as they travel in JSON: [offset, hex] pairs."""
    return [(int(offset), bytes.fromhex(data)) for offset, data in rows]
