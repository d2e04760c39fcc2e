"""Fix this bug: a reference with one thing wrong is shown, and the answer must be right.

Each bug is an edit of one line of a reference. That it fails on the vectors is checked by the tests, with the
emulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hafs_snes.tasks import arithmetic, bits, buffers, control, hardware, loops, memory, routines, video
from hafs_snes.tasks.dsl import Draft, Draw, Family, add, sentence

_ASK = [
    "{what} This attempt has a bug, correct it:\n{code}",
    "Fix this routine. {what}\n{code}",
    "{what} The code below does not do that. Write it correctly:\n{code}",
]
_ASK_TEST = "Something is wrong in the code below; give the repaired routine. {what}\n{code}"


@dataclass(frozen=True)
class Bug:
    """In a reference, the first line that starts with `old` starts with `new` instead; "" drops it."""

    source: Family
    reference: str
    old: str
    new: str

    def shown(self, task: Draft) -> str:
        """The wrong code for an instance of the source. Raises ValueError when no line matches."""
        lines = task.code(self.reference).split("\n")
        at = next((i for i, line in enumerate(lines) if line.startswith(self.old)), None)
        if at is None:
            raise ValueError(f"{self.source.name}/{self.reference} has no line that starts with {self.old!r}")
        fixed = [self.new + lines[at][len(self.old) :]] if self.new else []
        return "\n".join(lines[:at] + fixed + lines[at + 1 :])


def broken(bug: Bug, task: Draft) -> Draft:
    """The task of repairing the code `bug` shows."""
    code = bug.shown(task)
    whats = [sentence(a, task.entry) for a in task.ask]
    held_out = [_ASK_TEST.format(what=sentence(a, task.entry), code=code) for a in task.ask_test]
    return replace(task, ask=[way.format(what=w, code=code) for way in _ASK for w in whats], ask_test=held_out)


def _fix(name: str, category: str, bugs: Sequence[Bug]) -> Family:
    """A family that draws one of the bugs."""

    def make(d: Draw) -> Draft:
        bug = d.choice(bugs)
        return broken(bug, bug.source.make(d))

    return add(Family(name, "asm", category, make))


BUGS: dict[str, list[Bug]] = {
    "basic operations": [
        Bug(bits.load_mask_store, "absolute", "AND", "ORA"),
        Bug(bits.set_bits, "tsb", "TSB", "TRB"),
        Bug(bits.clear_bits, "and", "AND", "EOR"),
        Bug(bits.toggle_bits16, "wide", "SEP #$20", ""),
        Bug(bits.popcount8, "eight", "STZ", "INC"),
        Bug(arithmetic.add16, "bytes", "CLC", ""),
        Bug(arithmetic.add16, "wide", "REP #$21", "REP #$20"),
        Bug(arithmetic.sub16, "wide", "SEC", "CLC"),
        Bug(arithmetic.neg16, "wide", "INC", "DEC"),
        Bug(arithmetic.add24, "wide", "BCC", "BCS"),
        Bug(arithmetic.abs8, "eor", "INC", ""),
        Bug(arithmetic.saturating_add, "compare", "BCC", "BCS"),
        Bug(arithmetic.average8, "rotate", "ROR", "LSR"),
    ],
    "memory access": [
        Bug(memory.copy_word, "wide", "SEP #$20", ""),
        Bug(memory.swap_bytes, "index", "STX", "STY"),
        Bug(memory.word_array, "wide", "ASL", ""),
        Bug(memory.array_add, "load_add", "CLC", ""),
        Bug(memory.struct_field, "folded", "ASL", ""),
        Bug(memory.table8, "absolute", "LDX", "LDY"),
        Bug(memory.clear_block, "down", "BPL", "BNE"),
        Bug(memory.copy_block, "down", "BPL", "BNE"),
        Bug(memory.copy_block, "words", "SEP #$20", ""),
        Bug(memory.fill_block, "words", "SEP #$30", "SEP #$20"),
        Bug(memory.move_banks, "move", "MVN $7F,$7E", "MVN $7E,$7F"),
    ],
    "control flow": [
        Bug(control.min8, "keep", "BCC", "BCS"),
        Bug(control.max8, "keep", "BCS", "BCC"),
        Bug(control.bool_eq, "count", "BNE", "BEQ"),
        Bug(control.select_lt, "preload", "BCC", "BCS"),
        Bug(control.dec_timer, "memory", "BEQ", "BNE"),
        Bug(control.clamp8, "chain", "BCC", "BCS"),
        Bug(control.range_check, "subtract", "CLC", "SEC"),
        Bug(control.wrap_counter, "memory", "BNE", "BEQ"),
        Bug(loops.jump_table, "jump", "ASL", ""),
        Bug(control.signed_max16, "overflow", "BVC", "BVS"),
        Bug(loops.count_equal, "memory", "BPL", "BNE"),
        Bug(loops.find_byte, "up", "BEQ", "BNE"),
    ],
    "hardware interaction": [
        Bug(hardware.hw_multiply, "wide", "LDA $4216", "LDA $4214"),
        Bug(hardware.hw_divide, "index", "LDX $4216", "LDX $4214"),
        Bug(video.dma_vram, "words", "LDA #$80", "LDA #$00"),
        Bug(video.dma_vram, "words", "LDX #$1801", "LDX #$1800"),
        Bug(video.dma_palette, "words", "SEP #$10", ""),
        Bug(video.dma_sprites, "words", "STZ $2102", ""),
        Bug(video.vram_word, "wide", "SEP #$20", ""),
        Bug(video.vram_column, "up", "LDA #$81", "LDA #$80"),
        Bug(video.set_sprite, "loop", "STZ $2103", ""),
        Bug(video.set_colour, "one", "STA $2121", "STA $2122"),
        Bug(hardware.wram_port, "loop", "STZ $2183", ""),
        Bug(hardware.pad_edge, "invert", "EOR", "AND"),
    ],
    "complex routines": [
        Bug(routines.to_digits, "subtract", "BCC", "BCS"),
        Bug(routines.lfsr, "wide", "BCC", "BCS"),
        Bug(buffers.sum_bytes, "accumulator", "CLC", "SEC"),
        Bug(buffers.xor_checksum, "down", "BPL", "BNE"),
        Bug(routines.preserve_all, "php", "PLA", "PLX"),
        Bug(routines.any_width, "php", "PLP", "SEP #$20"),
        Bug(routines.foreign_bank, "bank", "PHK", "PHB"),
        Bug(routines.bcd_add, "wide", "CLD", ""),
        Bug(buffers.max_of_array, "down", "BCS", "BCC"),
        Bug(routines.hex_digits, "subroutine", "ADC #$06", "ADC #$07"),
        Bug(routines.crc8, "accumulator", "BCC", "BCS"),
        Bug(buffers.sort_three, "network", "BCC", "BCS"),
        Bug(routines.move_clamped, "sign_extend", "ORA #$FF00", ""),
    ],
}

for _category, _bugs in BUGS.items():
    _fix("fix_" + _category.split()[0], _category, _bugs)
