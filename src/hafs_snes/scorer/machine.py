"""The emulated console: one cartridge (the harness), whose ROM is patched in place, called with given inputs.

The core is bsnes-mercury *balanced* behind `libretro.py`'s thin `Core` class; its `Session` is not used,
because a frame here is driven by hand, with the memory pointers that only the core knows:
- SET_MEMORY_MAPS tells where the core keeps the ROM, so a new routine is copied in without a new load;
- one save state, taken when the harness waits for its first command, starts every call from the same clock;
- WRAM, VRAM and the mailbox (cartridge RAM) are read and written directly; CGRAM and OAM are not exposed, so
  they are read out of a save state at the places where the boot pattern was found.

A core is one per process and may crash with it: see worker.py and emulator.py for the process around this.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from ctypes import POINTER, addressof, c_char, cast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libretro.api import EnvironmentCall, retro_game_info, retro_memory_map
from libretro.core import Core

from hafs_snes.scorer.places import PATTERN_BANK, STUB_BANK, pc

__all__ = ["Console", "Outcome", "as_overlays", "boot_pattern"]

SAVE_RAM, SYSTEM_RAM, VIDEO_RAM = 0, 2, 3  # RETRO_MEMORY_*
JOYPAD, JOYPAD_MASK = 1, 256  # RETRO_DEVICE_JOYPAD, RETRO_DEVICE_ID_JOYPAD_MASK
MAILBOX_SIZE = 0x40
INPUTS = ((0x10, "A", 2), (0x12, "X", 2), (0x14, "Y", 2), (0x16, "DP", 2), (0x18, "DB", 1), (0x19, "P", 1))
LINE_CLOCKS, FRAME_LINES = 1364, 262  # NTSC, master clocks
FRAME_END_LINE = 241  # retro_run returns when this line begins
REPORT_CLOCKS = 1434  # from the latch of the end counters to the status in the mailbox, when that crosses a frame's end
STATUS = {0xA501: "returned", 0xA502: "rtl for rts", 0xA503: "rts for rtl", 0xA504: "brk", 0xA505: "cop"}


def boot_pattern() -> bytes:
    """The 32 KB that VRAM, CGRAM and OAM are filled from before a call (harness.asm says how)."""
    return hashlib.shake_256(b"what VRAM, CGRAM and OAM hold before a call").digest(0x8000)


@dataclass(frozen=True)
class Outcome:
    """How one call ended: `status` is a word of STATUS, "hang" or "mailbox overwritten".

    Registers are as the routine left them (S is the stack pointer, E 1 in emulation mode), `clocks` are
    master clocks from the harness's start position, including the harness's own. Everything but the status
    counts only when it is "returned"; CGRAM and OAM are empty otherwise.
    """

    status: str
    registers: Mapping[str, int]
    clocks: int
    wram: bytes
    vram: bytes
    cgram: bytes
    oam: bytes
    save_ram: bytes


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
        if not self._core.serialize(state):
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
        frames.
        """
        if not self._core.unserialize(self._state):
            raise RuntimeError("the core cannot restore its state")
        self._wram[:] = wram
        box = self._mailbox
        box[0x08:0x0B] = self._enter.to_bytes(3, "little")
        for at, name, size in INPUTS:
            box[at : at + size] = registers[name].to_bytes(size, "little")
        box[0:4] = b"\x01\x00\x00\x00"
        self._pad = pad
        ran = 0
        while ran < frames and box[2:4] == b"\x00\x00":
            self._core.run()
            ran += 1
        return self._outcome(ran)

    def _outcome(self, ran: int) -> Outcome:
        box = bytes(self._mailbox)
        word = {k: int.from_bytes(box[k : k + 2], "little") for k in range(0, MAILBOX_SIZE, 2)}
        code = word[2]
        status = STATUS.get(code, "mailbox overwritten") if code else "hang"
        # Saving first runs the CPU to the end of its instruction, and WAI or STP may have none.
        state = self._save() if status == "returned" else b""
        return Outcome(
            status=status,
            registers={
                "A": word[0x20],
                "X": word[0x22],
                "Y": word[0x24],
                "DP": word[0x26],
                "S": word[0x28],
                "DB": box[0x2A],
                "P": box[0x2B],
                "E": box[0x2C] & 1,
            },
            clocks=self._clocks(word[0x30], word[0x32], word[0x34], word[0x36], ran),
            wram=bytes(self._wram),
            vram=bytes(self._vram),
            cgram=bytes(state[self._cgram_at : self._cgram_at + 0x200]),
            oam=bytes(state[self._oam_at : self._oam_at + 0x220]),
            save_ram=box[MAILBOX_SIZE:],
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
