"""Optimisation: a wasteful routine is shown; the answer must do the same in fewer bytes, or faster.

Two kinds: routines written badly on purpose, and worse references of other families set against their better
ones.
"""

from __future__ import annotations

from dataclasses import replace

from hafs_snes.tasks import arithmetic, bits, buffers, control, loops, memory, routines, video
from hafs_snes.tasks.dsl import Draft, Draw, Family, add, byte, family, h2, h4, listing, sentence, word

OPTIMISATION = "optimisation"

_ASK = {
    "bytes": [
        "{what} This works but is too long; write it in fewer bytes:\n{code}",
        "Make this routine smaller, size in bytes decides. {what}\n{code}",
        "{what} Shorten this correct version (fewest bytes wins):\n{code}",
    ],
    "clocks": [
        "{what} This works but is too slow; write it to take fewer cycles:\n{code}",
        "Make this routine faster, run time decides. {what}\n{code}",
        "{what} Speed up this correct version (fewest cycles wins):\n{code}",
    ],
}
_ASK_TEST = {
    "bytes": "The code below is right but wastes ROM space. Save bytes and keep what it does. {what}\n{code}",
    "clocks": "The code below is right but wastes time. Save cycles and keep what it does. {what}\n{code}",
}


def improve(task: Draft, slow: str, decide: str) -> Draft:
    """The task of beating the code `slow` at `decide` ("bytes" or "clocks"); `task` has better references."""
    code = listing(slow, task.entry)
    whats = [sentence(a, task.entry) for a in task.ask]
    held_out = [_ASK_TEST[decide].format(what=sentence(a, task.entry), code=code) for a in task.ask_test]
    ask = [way.format(what=what, code=code) for way in _ASK[decide] for what in whats]
    return replace(task, ask=ask, ask_test=held_out, decide=decide, baseline=code)


def _pair(source: Family, slow: str, better: str, decide: str) -> Family:
    """A family that shows `source`'s reference `slow` and knows `better` to beat it."""

    def make(d: Draw) -> Draft:
        task = source.make(d)
        return improve(replace(task, references={better: task.references[better]}), task.references[slow], decide)

    return add(Family(f"{'shrink' if decide == 'bytes' else 'speed_up'}_{source.name}", "asm", OPTIMISATION, make))


_pair(bits.set_bits, "ora", "tsb", "bytes")
_pair(bits.clear_bits, "and", "trb", "bytes")
_pair(bits.nibble_swap, "shift_or", "asl_adc", "clocks")
_pair(bits.merge_bits, "or", "trb_tsb", "bytes")
_pair(arithmetic.add16, "bytes", "wide", "bytes")
_pair(arithmetic.add24, "bytes", "wide", "clocks")
_pair(arithmetic.shift16, "bytes", "accumulator", "clocks")
_pair(memory.fill_block, "bytes", "words", "clocks")
_pair(memory.copy_block, "down", "move", "clocks")
_pair(memory.move_banks, "loop", "move", "clocks")
_pair(control.bool_eq, "two_paths", "count", "bytes")
_pair(control.case_value, "paths", "preload", "bytes")
_pair(loops.jump_table, "chain", "jump", "bytes")
_pair(buffers.sum_bytes, "memory", "accumulator", "clocks")
_pair(routines.crc8, "memory", "accumulator", "clocks")
_pair(routines.to_digits, "divider", "subtract", "bytes")
_pair(buffers.sort_three, "loop", "network", "clocks")
_pair(video.set_sprite, "straight", "loop", "bytes")
_pair(video.dma_vram, "bytes", "words", "bytes")
_pair(video.dma_fill_wram, "loop", "dma", "clocks")


@family("asm", OPTIMISATION)
def shrink_unrolled(d: Draw) -> Draft:
    """A run of stores that should be a loop."""
    n = d.choice([6, 8, 10, 12])
    a = d.address(n)
    task = Draft(
        entry="ClearSlots",
        ask=[f"ClearSlots zeroes the {n} bytes from {a} on.", f"ClearSlots: set {a} to {a + (n - 1)} to 0."],
        ask_test=[f"ClearSlots wipes {n} bytes beginning at {a} (all 0)."],
        cases=d.cases({} for _ in range(8)),
        after=lambda mem: {a: bytes(n)},
        references={
            "loop": f"LDX #{h2(n - 1)} / .loop / STZ {a},X / DEX / BPL .loop / RTS",
            "words": "REP #$20 / " + "".join(f"STZ {a + i} / " for i in range(0, n, 2)) + "SEP #$20 / RTS",
        }
        if n > 10
        else {"loop": f"LDX #{h2(n - 1)} / .loop / STZ {a},X / DEX / BPL .loop / RTS"},
    )
    return improve(task, "LDA #$00 / " + "".join(f"STA {a + i} / " for i in range(n)) + "RTS", "bytes")


@family("asm", OPTIMISATION)
def speed_up_byte_clear(d: Draw) -> Draft:
    """A byte loop counting up that could clear words counting down."""
    n = d.choice([32, 64, 96, 128])
    a = d.address(n)
    task = Draft(
        entry="ClearTable",
        ask=[f"ClearTable zeroes the {n} bytes from {a} on.", f"ClearTable: set {a} to {a + (n - 1)} to 0."],
        ask_test=[f"ClearTable wipes {n} bytes beginning at {a} (all 0)."],
        cases=d.cases({} for _ in range(6)),
        after=lambda mem: {a: bytes(n)},
        references={
            "words": f"REP #$20 / LDX #{h2(n - 2)} / .loop / STZ {a},X / DEX / DEX / BPL .loop / SEP #$20 / RTS",
            "down": f"LDX #{h2(n - 1)} / .loop / STZ {a},X / DEX / BPL .loop / RTS",
        },
    )
    return improve(task, f"LDX #$00 / .loop / LDA #$00 / STA {a},X / INX / CPX #{h2(n)} / BNE .loop / RTS", "clocks")


@family("asm", OPTIMISATION)
def shrink_mode_switches(d: Draw) -> Draft:
    """16-bit mode switched on and off for every word."""
    pairs = [(a, b) for a, b in zip(d.addresses(3, 2), d.directs(3), strict=True)]
    what = ", ".join(f"{a} to {b}" for a, b in pairs)
    copy = [f"LDA {a} / STA {b}" for a, b in pairs]
    task = Draft(
        entry="SaveState",
        ask=[f"SaveState copies three words: {what}.", f"SaveState: copy the 16-bit values {what}."],
        ask_test=[f"SaveState duplicates words, namely {what}."],
        cases=d.cases({a: word(x) for a, _ in pairs for x in d.edges16(d.number(0, 0xFFFF), n=1)} for _ in range(12)),
        after=lambda mem: {b: mem.span(a, 2) for a, b in pairs},
        references={"once": f"REP #$20 / {' / '.join(copy)} / SEP #$20 / RTS"},
    )
    return improve(task, "".join(f"REP #$20 / {c} / SEP #$20 / " for c in copy) + "RTS", d.choice(["bytes", "clocks"]))


@family("asm", OPTIMISATION)
def speed_up_multiply(d: Draw) -> Draft:
    """Multiplication by repeated addition."""
    k, a, z = d.choice([10, 12, 20, 24]), d.address(), d.direct()
    shifts = "".join("ASL / " + (f"CLC / ADC {z} / " if bit == "1" else "") for bit in f"{k:b}"[1:])
    task = Draft(
        entry="ScaleScore",
        ask=[
            f"ScaleScore: {z} (word) = {k} * {a} (byte).",
            f"ScaleScore multiplies the byte {a} by {k} into the word {z}.",
        ],
        ask_test=[f"ScaleScore puts {k} times the unsigned byte at {a} in the word at {z}."],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: word(mem[a] * k)},
        references={
            "shift_add": f"REP #$20 / LDA {a} / AND #$00FF / STA {z} / {shifts}STA {z} / SEP #$20 / RTS",
            "multiplier": f"LDA {a} / STA $4202 / LDA #{h2(k)} / STA $4203 / NOP / NOP / NOP / REP #$20 / "
            f"LDA $4216 / STA {z} / "
            "SEP #$20 / RTS",
        },
    )
    slow = (
        f"STZ {z} / STZ {z + 1} / LDX #{h2(k)} / .loop / LDA {z} / CLC / ADC {a} / STA {z} / BCC .next "
        f"/ INC {z + 1} / .next / DEX / "
    )
    return improve(task, slow + "BNE .loop / RTS", "clocks")


@family("asm", OPTIMISATION)
def speed_up_divide(d: Draw) -> Draft:
    """Division by repeated subtraction."""
    k, a, z = d.choice([3, 5, 6, 7]), d.address(), d.direct()
    task = Draft(
        entry="SplitValue",
        ask=[
            f"SplitValue: {z} = {a} / {k} and {z + 1} = {a} mod {k}, unsigned bytes.",
            f"SplitValue divides the byte {a} by {k}: quotient to {z}, remainder to {z + 1}.",
        ],
        ask_test=[f"SplitValue puts the whole part of {a} / {k} in {z} and what is left in {z + 1} (bytes)."],
        cases=d.cases(
            {a: byte(x)}
            for x in [200, 201, 202, 254, 255, 128, 99, 250, 230, 240, *(d.number(100, 255) for _ in range(6))]
        ),
        after=lambda mem: {z: byte(mem[a] // k), z + 1: byte(mem[a] % k)},
        references={
            "divider": f"LDA {a} / STA $4204 / STZ $4205 / LDA #{h2(k)} / STA $4206 / PHA / PLA / PHA / "
            "PLA / NOP / LDA $4214 / "
            f"STA {z} / LDA $4216 / STA {z + 1} / RTS"
        },
    )
    slow = (
        f"STZ {z} / LDA {a} / .loop / CMP #{h2(k)} / BCC .done / SEC / SBC #{h2(k)} / INC {z} / BRA "
        f".loop / .done / STA {z + 1} / RTS"
    )
    return improve(task, slow, "clocks")


@family("asm", OPTIMISATION)
def shrink_compare_chain(d: Draw) -> Draft:
    """A chain of comparisons that should be a table."""
    a, z, n = d.address(), d.direct(), d.choice([4, 5, 6])
    values = [d.immediate() for _ in range(n)]
    chain = "".join(
        f"CMP #{h2(i)} / BNE .not{i} / LDA #{v} / STA {z} / RTS / .not{i} / " for i, v in enumerate(values[:-1])
    )
    shown, data = ", ".join(map(str, values)), ",".join(map(str, values))
    task = Draft(
        entry="PickDamage",
        ask=[
            f"PickDamage: for {a} = 0 to {n - 1} store {shown} at {z}.",
            f"PickDamage maps {a} (0..{n - 1}) to {shown}; result in {z}.",
        ],
        ask_test=[f"PickDamage turns the index {a} (0 to {n - 1}) into {shown}, stored at {z}."],
        cases=d.cases({a: byte(i % n)} for i in range(12)),
        after=lambda mem: {z: byte(values[mem[a]])},
        references={"table": f"LDX {a} / LDA .table,X / STA {z} / RTS / .table / db {data}"},
    )
    return improve(task, f"LDA {a} / {chain}LDA #{values[-1]} / STA {z} / RTS", d.choice(["bytes", "clocks"]))


@family("asm", OPTIMISATION)
def shrink_long_addresses(d: Draw) -> Draft:
    """Long addresses where short ones do, and a load that is already there."""
    a, b, z = d.address(), d.address(), d.direct()
    while a == b:
        b = d.address()
    k = d.immediate(1, 200)
    task = Draft(
        entry="AddBonus",
        ask=[
            f"AddBonus: {z} = {a} + {k} and {b} = the same value (bytes).",
            f"AddBonus stores {a} plus {k} (8 bits) at {z} and at {b}.",
        ],
        ask_test=[f"AddBonus: the byte {a} increased by {k} goes to both {z} and {b}."],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: byte(mem[a] + k), b: byte(mem[a] + k)},
        references={"short": f"LDA {a} / CLC / ADC #{k} / STA {z} / STA {b} / RTS"},
    )
    return improve(task, f"LDA {a.long} / CLC / ADC #{k} / STA {z.wide} / LDA {z.wide} / STA {b.long} / RTS", "bytes")


@family("asm", OPTIMISATION)
def shrink_needless_saves(d: Draw) -> Draft:
    """Registers saved that nobody needs."""
    a, z, m = d.address(), d.direct(), h2(d.choice([0x0F, 0x1F, 0x3F, 0x70, 0xF0]))
    task = Draft(
        entry="MaskSpeed",
        ask=[
            f"MaskSpeed: {z} = {a} AND {m}; A, X and Y may change.",
            f"MaskSpeed stores {a} masked with {m} at {z}; registers are free.",
        ],
        ask_test=[f"MaskSpeed keeps the bits {m} of {a} in {z}; no register has to survive."],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: byte(mem[a] & m)},
        references={"bare": f"LDA {a} / AND #{m} / STA {z} / RTS"},
    )
    return improve(
        task,
        f"PHP / PHA / PHX / LDX {a} / TXA / AND #{m} / STA {z} / PLX / PLA / PLP / RTS",
        d.choice(["bytes", "clocks"]),
    )


@family("asm", OPTIMISATION)
def speed_up_shift_by_bytes(d: Draw) -> Draft:
    """A shift by eight or more bits, one bit at a time."""
    a, k = d.address(2), d.choice([8, 9, 10])
    rest = k - 8
    task = Draft(
        entry="ShiftWord",
        ask=[f"ShiftWord: shift the word at {a} left by {k} bits.", f"ShiftWord: {a} = {a} << {k}, 16-bit."],
        ask_test=[f"ShiftWord moves the 16-bit value {a} up by {k} bits."],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(mem.word(a) << k)},
        references={
            "bytes": f"LDA {a} / {'ASL / ' * rest}STA {a + 1} / STZ {a} / RTS",
            "exchange": f"REP #$20 / LDA {a} / AND #$00FF / XBA / {'ASL / ' * rest}STA {a} / SEP #$20 / RTS",
        },
    )
    return improve(task, f"LDX #{h2(k)} / .loop / ASL {a} / ROL {a + 1} / DEX / BNE .loop / RTS", "clocks")


@family("asm", OPTIMISATION)
def shrink_word_compare(d: Draw) -> Draft:
    """A 16-bit comparison done in bytes."""
    a, z, k = d.address(2), d.direct(), h4(d.number(0x101, 0xFFFE))
    task = Draft(
        entry="IsTarget",
        ask=[
            f"IsTarget: {z} = 1 if the word at {a} is {k}, else 0.",
            f"IsTarget stores 1 at {z} when the 16-bit value {a} equals {k}, otherwise 0.",
        ],
        ask_test=[f"IsTarget checks the word {a} against {k}: byte {z} becomes 1 (equal) or 0."],
        cases=d.cases({a: word(x)} for x in d.edges16(k, k ^ 1, k ^ 0x100, k, k + 1, k ^ 0x8000)),
        after=lambda mem: {z: byte(mem.word(a) == k)},
        references={"wide": f"STZ {z} / REP #$10 / LDX {a} / CPX #{k} / SEP #$10 / BNE .done / INC {z} / .done / RTS"},
    )
    slow = (
        f"LDA {a} / CMP #{k.low} / BNE .no / LDA {a + 1} / CMP #{k.high} / BNE .no / LDA #$01 / STA {z} "
        f"/ RTS / .no / LDA #$00 / STA {z} / RTS"
    )
    return improve(task, slow, "bytes")
