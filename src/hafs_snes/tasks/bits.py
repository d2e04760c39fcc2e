"""Basic operations on bits: masks, set, clear, toggle, nibbles."""

from __future__ import annotations

from hafs_snes.tasks.dsl import SINGLE_BITS, Draft, Draw, byte, family, h2, h4, word
from hafs_snes.tasks.names import thing

BASIC = "basic operations"


@family("asm", BASIC, easy=True)
def load_mask_store(d: Draw) -> Draft:
    """Load a byte, keep some of its bits, store it in the direct page."""
    words, name = thing(d)
    a, z = d.address(), d.direct()
    m = h2(d.choice([0x03, 0x07, 0x0C, 0x0F, 0x1F, 0x3F, 0x55, 0x70, 0x7F, 0xE0, 0xF0]))
    e = f"Load{name}"
    return Draft(
        entry=e,
        ask=[
            f"load the byte at {a}, keep only the bits {m} and store it at {z}",
            f"read the {words} at {a}, AND it with {m}, put the result in {z}",
            f"{z} = {a} AND {m}",
            f"take the byte {a}, mask it by {m} and save it to {z}",
            f"store the {words} from {a} masked with {m} in {z}",
            f"write the bits {m} of {a} to {z}, with all other bits 0",
            f"AND the byte at {a} with {m}; the result goes to {z}, {a} stays as it is",
            f"copy the byte at {a} to {z}, but only its bits {m}",
            f"into {z} put {a} AND {m}",
            f"fetch {a}, drop all bits that are 0 in {m} and leave the result at {z}",
            f"the {words} is in {a}; save its bits {m} in {z}",
            f"mem[{z}] = mem[{a}] & {m}",
            f"set {z} to the value of {a} masked by {m}",
            f"move {a} AND {m} into the byte at {z}",
            f"get the {words} out of {a} and keep just the bits {m} of it in {z}",
            f"combine the byte at address {a} with {m} by AND and write the answer to {z}",
            f"{z} becomes {a} with every bit outside {m} cleared",
            f"from the {words} {a} mask out all but the bits {m}, result to {z}",
        ],
        ask_test=[
            f"limit the byte from {a} to the bits in {m} and write it to {z}",
            f"put in {z} what is left of {a} after AND with {m}",
            f"make {z} the {words} at {a} with just the bits {m} kept",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: byte(mem[a] & m)},
        references={
            "absolute": f"LDA {a} / AND #{m} / STA {z} / RTS",
            "long": f"LDA {a.long} / AND #{m} / STA {z.wide} / RTS",
        },
    )


@family("asm", BASIC, easy=True)
def set_bits(d: Draw) -> Draft:
    """Set bits of a byte in place."""
    words, name = thing(d)
    a, m = d.address(), h2(d.choice([*SINGLE_BITS, 0x03, 0x81, 0x30, 0x44]))
    e = f"Set{name}"
    return Draft(
        entry=e,
        ask=[
            f"set the bits {m} in the byte at {a} and leave its other bits alone",
            f"OR {m} into {a}",
            f"turn on the bits {m} of the {words} at {a}",
            f"{a} = {a} OR {m}",
            f"make the bits {m} in the byte {a} equal to 1",
            f"raise the flags {m} in {a}, other bits unchanged",
            f"switch the bits {m} of {a} on",
            f"combine {a} with {m} by OR, in place",
            f"the {words} is the byte at {a}; set {m} in it",
            f"mem[{a}] |= {m}",
            f"load {a}, OR it with {m} and store it back",
            f"in the {words} at {a}, put a 1 in each bit of {m}",
            f"set {m} in the {words} byte {a}",
            f"change {a} so that all bits of {m} are set and the others stay as they were",
            f"write {a} OR {m} back to {a}",
            f"at {a}, every bit that is 1 in {m} becomes 1",
            f"store 1 in the bits {m} of memory at {a} and keep the rest",
            f"the byte {a} keeps its value but gets the bits {m} set",
        ],
        ask_test=[
            f"in the byte {a} turn every bit of {m} on and leave the rest alone",
            f"the bits {m} of {a} go to 1, all others stay",
            f"OR the {words} in {a} with {m} and leave the result there",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {a: byte(mem[a] | m)},
        references={"tsb": f"LDA #{m} / TSB {a} / RTS", "ora": f"LDA {a} / ORA #{m} / STA {a} / RTS"},
    )


@family("asm", BASIC, easy=True)
def clear_bits(d: Draw) -> Draft:
    """Clear bits of a byte in place."""
    words, name = thing(d)
    a, m = d.address(), h2(d.choice([*SINGLE_BITS, 0x0F, 0xC0, 0x18, 0x41]))
    e = f"Clear{name}"
    return Draft(
        entry=e,
        ask=[
            f"clear the bits {m} in the byte at {a} and keep the others",
            f"switch off the bits {m} of {a}",
            f"turn off the bits {m} of the {words} at {a}",
            f"{a} = {a} AND NOT {m}",
            f"make the bits {m} in the byte {a} equal to 0",
            f"reset the flags {m} in {a}, other bits unchanged",
            f"remove the bits {m} from {a} and leave its other bits alone",
            f"set the bits {m} of {a} to zero",
            f"the {words} is the byte at {a}; clear {m} in it",
            f"mem[{a}] &= ~{m}",
            f"load {a}, AND it with the inverse of {m} and store it back",
            f"in the {words} at {a}, put a 0 in each bit of {m}",
            f"clear {m} in the {words} byte {a}",
            f"change {a} so that no bit of {m} is set and the others stay as they were",
            f"write {a} AND NOT {m} back to {a}",
            f"at {a}, every bit that is 1 in {m} becomes 0",
            f"store 0 in the bits {m} of memory at {a} and keep the rest",
            f"mask the bits {m} out of {a}, in place",
        ],
        ask_test=[
            f"in the byte {a} turn every bit of {m} off and leave the rest alone",
            f"the bits {m} of {a} go to 0, all others stay",
            f"write 0 to the bits {m} of the {words} in {a} and nothing else",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {a: byte(mem[a] & ~m)},
        references={"trb": f"LDA #{m} / TRB {a} / RTS", "and": f"LDA {a} / AND #{h2(~m)} / STA {a} / RTS"},
    )


@family("asm", BASIC)
def toggle_bits16(d: Draw) -> Draft:
    """Invert bits of a word in place."""
    a, m = d.address(2), h4(d.number(1, 0xFFFF))
    return Draft(
        entry="ToggleFlags",
        ask=[
            f"flip the bits {m} in the 16-bit word at {a}",
            f"XOR the word at {a} with {m}",
            f"{a} = {a} XOR {m}, 16-bit",
            f"word[{a}] ^= {m}",
            f"invert the bits {m} of the 16-bit flags at {a} and keep the others",
            f"toggle the bits {m} of the word {a}",
            f"change every bit of the word {a} that is 1 in {m} to its opposite",
            f"load the 16-bit value at {a}, XOR it with {m} and store it back",
            f"with 16-bit A, write {a} XOR {m} back to {a}",
            f"reverse the flags {m} in the word at {a}, other bits unchanged",
            f"combine the word {a} with {m} by exclusive or, in place",
            f"in the two bytes at {a} turn each bit of {m} from 0 to 1 or from 1 to 0",
        ],
        ask_test=[
            f"the word at {a} holds flags; toggle those in {m}",
            f"put the exclusive or of the 16-bit value {a} and {m} into {a}",
            f"switch the bits {m} of the word in {a} over and leave its other bits alone",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(mem.word(a) ^ m)},
        references={
            "wide": f"REP #$20 / LDA {a} / EOR #{m} / STA {a} / SEP #$20 / RTS",
            "bytes": f"LDA {a} / EOR #{m.low} / STA {a} / LDA {a + 1} / EOR #{m.high} / STA {a + 1} / RTS",
        },
    )


@family("asm", BASIC)
def nibble_swap(d: Draw) -> Draft:
    """Exchange the two halves of a byte."""
    a = d.address()
    return Draft(
        entry="SwapNibbles",
        ask=[
            f"swap the high and low nibble of the byte at {a} (for example $3A becomes $A3)",
            f"exchange both nibbles of {a} in place",
            f"rotate the byte at {a} by four bits",
            f"{a} = ({a} << 4) | ({a} >> 4), as a byte",
            f"the upper and lower four bits of {a} change places",
            f"turn a byte $xy at {a} into $yx",
            f"put the high nibble of {a} into its low nibble and the old low nibble into the high one",
            f"load the byte {a}, swap its halves and store it back",
            f"switch the two hex digits of the byte in {a}",
            f"move the bits 0-3 of {a} to 4-7 and the bits 4-7 to 0-3",
            f"make {a} the byte with its two nibbles exchanged",
            f"reverse the order of the two nibbles in the byte {a}",
        ],
        ask_test=[
            f"let the two halves of the byte at {a} change places",
            f"in {a} swap the upper four bits with the lower four",
            f"replace the byte {a} by itself rotated four places",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(0x3A, 0xA3, 0x0F, 0xF0)),
        after=lambda mem: {a: byte(mem[a] << 4 | mem[a] >> 4)},
        references={
            "asl_adc": f"LDA {a} / ASL / ADC #$80 / ROL / ASL / ADC #$80 / ROL / STA {a} / RTS",
            "shift_or": f"LDA {a} / LSR / LSR / LSR / LSR / PHA / LDA {a} / ASL / ASL / ASL / ASL / ORA "
            "$01,S / "
            f"STA {a} / PLA / RTS",
        },
    )


@family("asm", BASIC)
def merge_bits(d: Draw) -> Draft:
    """Take some bits from one byte and the others from another."""
    a, b = d.addresses(2)
    m = h2(d.choice([0x0F, 0xF0, 0x3F, 0x1C, 0x81, 0x07]))
    return Draft(
        entry="MergeBits",
        ask=[
            f"replace the bits {m} of {a} by the same bits of {b}; the other bits of {a} stay",
            f"{a} = ({a} AND {h2(~m)}) OR ({b} AND {m})",
            f"copy only the bits {m} from {b} into {a}",
            f"take the bits {m} of {b} and the bits {h2(~m)} of {a} and store both in {a}",
            f"write the bits {m} of the byte {b} over those of {a} and leave the rest of {a} alone",
            f"in {a}, set the bits {m} to what they are in {b}, other bits unchanged",
            f"mem[{a}] = (mem[{a}] & ~{m}) | (mem[{b}] & {m})",
            f"make {a} equal to {b} in the bits {m}, and keep the others",
            f"put {b} into {a}, but only where {m} has a 1 bit",
            f"clear the bits {m} of {a}, then OR {b} AND {m} into it",
            f"the bits {m} of {a} come from {b}, all others stay as they were",
            f"copy the part {m} of the byte {b} into {a}; outside {m} the byte {a} is kept",
        ],
        ask_test=[
            f"merge {b} into {a} under the mask {m}; bits outside {m} stay",
            f"store in {a} its own bits, except the bits {m}, which come from {b}",
            f"for every 1 in {m} copy that bit of {b} to {a}",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), d.shuffled(d.edges8()), strict=True)),
        after=lambda mem: {a: byte(mem[a] & ~m | mem[b] & m)},
        references={
            "trb_tsb": f"LDA #{m} / TRB {a} / AND {b} / TSB {a} / RTS",
            "xor": f"LDA {a} / EOR {b} / AND #{m} / EOR {a} / STA {a} / RTS",
            "or": f"LDA {b} / AND #{m} / PHA / LDA {a} / AND #{h2(~m)} / ORA $01,S / STA {a} / PLA / RTS",
        },
    )


@family("asm", BASIC)
def popcount8(d: Draw) -> Draft:
    """Count the set bits of a byte."""
    a, z = d.address(), d.direct()
    return Draft(
        entry="CountBits",
        ask=[
            f"count the bits that are 1 in the byte at {a} and store the count at {z}",
            f"{z} = number of set bits in {a}",
            f"find the population count of the byte at {a}; result (0 to 8) in {z}",
            f"write to {z} how many bits of {a} are set",
            f"{z} = popcount({a})",
            f"add up the eight bits of {a} and put the sum in {z}",
            f"store the number of ones in the byte {a} at {z}",
            f"for each bit of {a} that is 1 count one; the total goes to {z}",
            f"load {a}, count its 1 bits, save the count in {z} and leave {a} as it is",
            f"{z} becomes the count of 1 bits in the byte {a}",
            f"go through the eight bits of {a} and leave in {z} how many are on",
            f"let {z} hold how many flags are set in the byte {a}, 0 to 8",
        ],
        ask_test=[
            f"put in {z} how many ones the byte {a} has",
            f"count the set bits of {a}, result to {z}",
            f"the sum of the bits in the byte at {a} is written to {z}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: byte(mem[a].bit_count())},
        references={
            "until_zero": f"LDX #$00 / LDA {a} / .loop / ASL / BCC .next / INX / .next / BNE .loop / STX {z} / RTS",
            "eight": f"STZ {z} / LDA {a} / LDX #$08 / .loop / LSR / BCC .zero / INC {z} / .zero / DEX / "
            "BNE .loop / RTS",
        },
    )
