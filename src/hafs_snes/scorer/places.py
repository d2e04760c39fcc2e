"""Where things lie in the cartridge: a 1 MB LoROM, file offset = bank * $8000 + (address & $7FFF)."""

from __future__ import annotations

__all__ = ["BLOCK", "CODE", "CODE_END", "FREE", "PATTERN_BANK", "STUB_BANK", "SUPPORT", "TEST_BANKS", "pc"]

CODE = 0x018000  # a routine under test
SUPPORT = 0x01F000  # what the task assembles next to it
CODE_END = 0x01FE00  # the harness's stub for this bank
STUB_BANK = 0x0E
PATTERN_BANK = 0x0F
TEST_BANKS = (0x01 * 0x8000, 0x0E * 0x8000)  # file offsets: banks $01-$0D may hold a task's own code
FREE = (0x10 * 0x8000, 0x20 * 0x8000)  # file offsets: banks $10-$1F are free space for patches
BLOCK = 256


def pc(address: int) -> int:
    """The offset in the file of a SNES address in $8000-$FFFF of banks $00-$1F."""
    return (address >> 16) * 0x8000 + (address & 0x7FFF)
