"""Basic operations on numbers: addition, subtraction, negation, shifts, multiplication by constants."""

from __future__ import annotations

from hafs_snes.tasks.dsl import Draft, Draw, byte, family, h2, h4, long, signed, word

BASIC = "basic operations"


@family("asm", BASIC, easy=True)
def add16(d: Draw) -> Draft:
    """Add two words."""
    a, b, c = d.addresses(3, 2)
    e = d.choice(["AddWords", "AddSpeed", "SumWords", "AddTotal"])
    return Draft(
        entry=e,
        ask=[
            f"add the 16-bit values at {a} and {b} and store the 16-bit sum at {c}",
            f"{c} = {a} + {b}, all 16-bit",
            f"add the word {a} to the word {b}, result to {c}",
            f"store the 16-bit sum of the words {a} and {b} at {c}",
            f"put the word {a} plus the word {b} into {c}",
            f"load the word at {a}, add the word at {b} and save it to the word at {c}",
            f"the word {c} becomes the sum of the words {a} and {b}",
            f"word[{c}] = word[{a}] + word[{b}]",
            f"set the 16-bit number at {c} to {a} + {b}, both 16-bit",
            f"take two words, one at {a} and one at {b}, and write their sum to {c}",
            f"sum up the 16-bit numbers {a} and {b}; the total goes to {c}",
            f"with 16-bit A, compute {a} + {b} and store it in {c}",
            f"add {a} and {b} as 16-bit numbers and leave the sum in {c}",
            f"to the word from {a} add the word from {b} and move the result to {c}",
            f"in {c} keep the total of the words at {a} and {b}",
            f"{a} + {b} (words) goes to the word {c}",
            f"the 16-bit value at {b} is added to the one at {a} and the result written to {c}",
            f"get the first word from {a}, the second from {b} and put their 16-bit sum at {c}",
        ],
        ask_test=[
            f"take the words {a} and {b}, add them, put the 16-bit result at {c}",
            f"the total of two 16-bit values, {a} and {b}, is written to the word {c}",
            f"two words, {a} plus {b}, give the word at {c}",
        ],
        cases=d.cases({a: word(x), b: word(y)} for x, y in zip(d.edges16(), reversed(d.edges16()), strict=True)),
        after=lambda mem: {c: word(mem.word(a) + mem.word(b))},
        references={
            "wide": f"REP #$21 / LDA {a} / ADC {b} / STA {c} / SEP #$20 / RTS",
            "bytes": f"CLC / LDA {a} / ADC {b} / STA {c} / LDA {a + 1} / ADC {b + 1} / STA {c + 1} / RTS",
        },
    )


@family("asm", BASIC, easy=True)
def sub16(d: Draw) -> Draft:
    """Subtract a word from a word."""
    a, b, c = d.addresses(3, 2)
    e = d.choice(["SubWords", "Difference", "SubSpeed", "SubTotal"])
    return Draft(
        entry=e,
        ask=[
            f"subtract the 16-bit value at {b} from the one at {a} and store the result at {c}",
            f"{c} = {a} - {b}, all 16-bit",
            f"put the word {a} minus the word {b} into {c}",
            f"store the difference {a} - {b} of the two words at {c}",
            f"load the word at {a}, subtract the word at {b} and save it to the word at {c}",
            f"the word {c} becomes the word {a} minus the word {b}",
            f"take the word {b} away from the word {a}; the result goes to {c}",
            f"word[{c}] = word[{a}] - word[{b}]",
            f"compute the 16-bit difference of {a} and {b}, {a} - {b}, result to {c}",
            f"set the 16-bit number at {c} to {a} - {b}, both 16-bit",
            f"from the word at {a} subtract the word at {b} and write what is left to {c}",
            f"with 16-bit A, compute {a} - {b} and store it in {c}",
            f"subtract {b} from {a} as 16-bit numbers and leave the difference in {c}",
            f"in {c} keep the difference of words {a} - {b}",
            f"{a} - {b} (words) goes to the word {c}",
            f"the 16-bit value at {b} is subtracted from the one at {a} and the result written to {c}",
            f"get the first word from {a}, the second from {b} and put first minus second at {c}",
            f"make the word {c} the word {a} less the word {b}",
        ],
        ask_test=[
            f"take the words {a} and {b}, subtract the second from the first, put the 16-bit result at {c}",
            f"the difference of two 16-bit values, {a} minus {b}, is written to the word {c}",
            f"two words, {a} minus {b}, give the word at {c}",
        ],
        cases=d.cases({a: word(x), b: word(y)} for x, y in zip(d.edges16(), reversed(d.edges16()), strict=True)),
        after=lambda mem: {c: word(mem.word(a) - mem.word(b))},
        references={
            "wide": f"REP #$20 / LDA {a} / SEC / SBC {b} / STA {c} / SEP #$20 / RTS",
            "bytes": f"SEC / LDA {a} / SBC {b} / STA {c} / LDA {a + 1} / SBC {b + 1} / STA {c + 1} / RTS",
        },
    )


@family("asm", BASIC, easy=True)
def neg16(d: Draw) -> Draft:
    """Negate a word in place."""
    a = d.address(2)
    e = d.choice(["NegWord", "FlipSign", "Negate", "InvertSpeed"])
    return Draft(
        entry=e,
        ask=[
            f"negate the 16-bit value at {a} in place (two's complement)",
            f"{a} = 0 - {a}, 16-bit",
            f"flip the sign of the signed word at {a}",
            f"replace the word {a} by its negative",
            f"{a} = -{a}, as a 16-bit word",
            f"change the sign of the word at {a}",
            f"subtract the word {a} from zero and store the result in {a}",
            f"make the 16-bit number at {a} its two's complement",
            f"invert all bits of the word {a} and add 1 to it",
            f"word[{a}] = -word[{a}]",
            f"load the 16-bit value {a}, negate it and write it back",
            f"the word at {a} gets the opposite sign",
            f"reverse the sign of the 16-bit number in {a}",
            f"store 0 minus the word {a} back at {a}",
            f"set the word {a} to its own negative",
            f"negate the signed 16-bit speed in {a}",
            f"turn the word {a} from positive to negative or the other way round",
            f"compute minus the word in {a} and leave it there",
        ],
        ask_test=[
            f"put the negative of the 16-bit number {a} back into {a}",
            f"the signed word at {a} changes its sign",
            f"take the word at {a} away from 0 and keep the result in {a}",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(-mem.word(a))},
        references={
            "wide": f"REP #$20 / LDA {a} / EOR #$FFFF / INC / STA {a} / SEP #$20 / RTS",
            "bytes": f"SEC / LDA #$00 / SBC {a} / STA {a} / LDA #$00 / SBC {a + 1} / STA {a + 1} / RTS",
        },
    )


@family("asm", BASIC)
def add24(d: Draw) -> Draft:
    """Add a constant to a 24-bit number."""
    a, k = d.address(3), d.choice([10, 50, 100, 300, 500, 1000, 5000])
    edges = [0, 1, 0xFF, 0xFFFF, 0x10000 - k, 0xFFFF - k, 0x20000 - k, 0xFFFFFF, 0x1000000 - k]
    return Draft(
        entry="AddScore",
        ask=[
            f"add {k} to the 24-bit little-endian score at {a}",
            f"the score is three bytes at {a}; raise it by {k}",
            f"increase the 3-byte number at {a} by {k}",
            f"{a} = {a} + {k}, 24-bit",
            f"add {k} to the 24-bit value at {a}, low byte first",
            f"give the player {k} points, the score is the 24-bit number at {a}",
            f"long[{a}] += {k} (24 bits)",
            f"load the three bytes at {a}, add {k} with carry through all of them and store them back",
            f"the 24-bit total in {a} goes up by {k}",
            f"make the three-byte counter at {a} {k} larger",
            f"write the 24-bit sum of {a} and {k} back to {a}",
            f"count the 24-bit score at {a} up by {k}",
        ],
        ask_test=[
            f"the 24-bit number in {a} grows by {k}",
            f"put {k} more points on the three-byte score at {a}",
            f"add the constant {k} to the three bytes {a} to {a + 2}, low byte first",
        ],
        cases=d.cases({a: long(x)} for x in [*edges, *(d.number(0, 0xFFFFFF) for _ in range(7))]),
        after=lambda mem: {a: long(mem.long(a) + k)},
        references={
            "wide": f"REP #$21 / LDA {a} / ADC #{h4(k)} / STA {a} / SEP #$20 / BCC .done / INC {a + 2} / .done / RTS",
            "bytes": f"CLC / LDA {a} / ADC #{h2(k)} / STA {a} / LDA {a + 1} / ADC #{h2(k >> 8)} / STA "
            f"{a + 1} / "
            f"LDA {a + 2} / ADC #$00 / STA {a + 2} / RTS",
        },
    )


@family("asm", BASIC)
def shift16(d: Draw) -> Draft:
    """Shift a word by a constant."""
    a, k, left = d.address(2), d.number(3, 6), d.choice([True, False])
    way, op = ("left", "ASL") if left else ("right", "LSR")
    step = f"ASL {a} / ROL {a + 1}" if left else f"LSR {a + 1} / ROR {a}"
    return Draft(
        entry="ScaleWord",
        ask=[
            f"shift the unsigned 16-bit value at {a} {way} by {k} bits, in place",
            f"{'multiply' if left else 'divide'} the unsigned word at {a} by {1 << k}, in place, "
            f"{'keep 16 bits' if left else 'rounding down'}",
            f"{a} = {a} {'<<' if left else '>>'} {k}, unsigned 16-bit",
            f"{a} = {a} {'*' if left else '/'} {1 << k}, unsigned 16-bit",
            f"shift the word {a} {way} {k} times, zeros come in",
            f"move the bits of the unsigned word {a} {k} places to the {way}",
            f"word[{a}] {'<<=' if left else '>>='} {k}, unsigned",
            f"do {op} on the 16-bit value at {a} {k} times",
            f"load the 16-bit number {a}, shift it {way} by {k} (unsigned) and write it back",
            f"the unsigned word {a} becomes {a} {'times' if left else 'divided by'} {1 << k}, 16 bits",
            f"replace the unsigned word at {a} by its value shifted {k} bits to the {way}",
        ],
        ask_test=[
            f"the unsigned word at {a} moves {k} bits to the {way}",
            f"do {k} shifts to the {way} on the unsigned 16-bit number in {a}",
            f"with 16-bit A, put {a} shifted {way} by {k} back into {a}, unsigned",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(mem.word(a) << k if left else mem.word(a) >> k)},
        references={
            "accumulator": f"REP #$20 / LDA {a} / " + f"{op} / " * k + f"STA {a} / SEP #$20 / RTS",
            "memory": "REP #$20 / " + f"{op} {a} / " * k + "SEP #$20 / RTS",
            "bytes": f"{step} / " * k + "RTS",
        },
    )


@family("asm", BASIC)
def asr16(d: Draw) -> Draft:
    """Arithmetic shift right of a signed word."""
    a, k = d.address(2), d.number(2, 3)
    once = "CMP #$8000 / ROR / "
    return Draft(
        entry="HalveSigned",
        ask=[
            f"shift the signed 16-bit value at {a} right by {k}, keeping its sign",
            f"do an arithmetic shift right by {k} on the signed word at {a}, in place",
            f"divide the signed word at {a} by {1 << k}, rounding down",
            f"{a} = {a} >> {k}, signed 16-bit",
            f"shift the word {a} right {k} {'time' if k == 1 else 'times'}, the sign bit is copied in",
            f"word[{a}] >>= {k} as a signed number",
            f"load the signed word {a}, shift it right by {k} with its sign and store it back",
            f"scale the signed 16-bit speed at {a} down by {1 << k}, rounding down",
            f"the signed word in {a} becomes floor({a} / {1 << k})",
            f"move the bits of the signed word {a} {k} to the right and keep the sign bit",
            f"replace the signed 16-bit number at {a} by 1/{1 << k} of it, rounded down",
        ],
        ask_test=[
            f"the signed word at {a} becomes {a} >> {k}, sign extended",
            f"put the signed 16-bit value {a}, divided by {1 << k} and rounded down, back into {a}",
            f"shift {a}, a signed word, {k} to the right without losing its sign",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(signed(mem.word(a), 16) >> k)},
        references={
            "wide": f"REP #$20 / LDA {a} / " + once * k + f"STA {a} / SEP #$20 / RTS",
            "bytes": f"LDA {a + 1} / ASL / ROR {a + 1} / ROR {a} / " * k + "RTS",
        },
    )


@family("asm", BASIC)
def abs8(d: Draw) -> Draft:
    """Absolute value of a signed byte."""
    a = d.address()
    return Draft(
        entry="AbsValue",
        ask=[
            f"replace the signed byte at {a} by its absolute value ($80 stays $80)",
            f"take the absolute value of the two's complement byte at {a}, in place",
            f"if the signed byte {a} is negative, negate it",
            f"{a} = abs({a}), signed byte",
            f"make the signed byte at {a} positive, $80 stays as it is",
            f"if bit 7 of {a} is set, write 0 - {a} to {a}",
            f"{a} = {a} < 0 ? -{a} : {a}, signed byte",
            f"remove the sign of the signed byte in {a}, in place",
            f"load the signed byte {a}; if it is below zero store its negative back",
            f"set {a} to how far the signed byte in it is from zero",
            f"flip the sign of the byte {a} when it is from $80 to $FF",
        ],
        ask_test=[
            f"change {a} to its absolute value, it is a signed byte",
            f"a negative byte at {a} gets the opposite sign, any other stays",
            f"put the absolute value of the signed byte {a} back into {a}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {a: byte(abs(signed(mem[a])))},
        references={
            "eor": f"LDA {a} / BPL .done / EOR #$FF / INC / STA {a} / .done / RTS",
            "subtract": f"LDA {a} / BPL .done / LDA #$00 / SEC / SBC {a} / STA {a} / .done / RTS",
        },
    )


@family("asm", BASIC)
def mul_const(d: Draw) -> Draft:
    """Multiply a byte by a small constant."""
    a, z, k = d.address(), d.direct(), d.choice([3, 5, 6, 7, 10, 12, 20, 24])
    e = f"Times{k}"
    steps = "".join("ASL / " + (f"CLC / ADC {z} / " if bit == "1" else "") for bit in f"{k:b}"[1:])
    return Draft(
        entry=e,
        ask=[
            f"multiply the unsigned byte at {a} by {k} and store the 16-bit product at {z}",
            f"{z} (word) = {k} * {a} (unsigned byte)",
            f"the unsigned byte {a} times {k} goes to the word {z}",
            f"store {k} times the unsigned byte {a} as a word at {z}",
            f"put the product of the unsigned byte {a} and {k} into {z}, 16 bits",
            f"load the unsigned byte {a}, multiply it by {k} and save the 16-bit result to {z}",
            f"the word {z} becomes {k} times the unsigned byte at {a}",
            f"word[{z}] = mem[{a}] * {k}, unsigned",
            f"compute {a} * {k} in 16 bits from the unsigned byte at {a}, result in {z}",
            f"write to the word {z} the unsigned byte {a} multiplied by {k}",
            f"take {k} times the unsigned byte in {a} and leave the 16-bit product in {z}",
            f"scale the unsigned byte {a} up by {k} into the 16-bit number {z}",
        ],
        ask_test=[
            f"compute {k} times the unsigned byte {a} as 16 bits in {z}",
            f"in the word {z} keep the product {k} x {a} of the unsigned byte {a}",
            f"the 16-bit result of {a} times {k}, unsigned, is written to {z}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: word(mem[a] * k)},
        references={
            "shift_add": f"REP #$20 / LDA {a} / AND #$00FF / STA {z} / {steps}STA {z} / SEP #$20 / RTS",
            "multiplier": f"LDA {a} / STA $4202 / LDA #{h2(k)} / STA $4203 / NOP / NOP / NOP / REP #$20 / "
            "LDA $4216 / "
            f"STA {z} / SEP #$20 / RTS",
        },
    )


@family("asm", BASIC)
def saturating_add(d: Draw) -> Draft:
    """Add with a maximum."""
    a, k, top = d.address(), d.choice([1, 4, 8, 16, 32]), d.choice([80, 99, 128, 160, 200])
    edges = [0, 1, top, top - 1, top - k, top - k + 1, top - k - 1]
    return Draft(
        entry="Heal",
        ask=[
            f"add {k} to the health byte at {a} but never let it go above {top}, it never starts above {top}",
            f"raise {a} by {k}, at most to {top}; it is {top} or less before",
            f"{a} = min({top}, {a} + {k}), unsigned",
            f"add {k} to the unsigned byte {a}; if the result is above {top}, store {top}",
            f"the health in {a} goes up by {k} and stops at {top}",
            f"increase the byte {a} by {k} with {top} as the highest value",
            f"if {a} + {k} > {top} then {a} = {top}, else {a} = {a} + {k} (unsigned)",
            f"give {k} health points to {a}, up to a maximum of {top}",
            f"load {a}, add {k}, limit it to {top} and store it back (unsigned)",
            f"count {a} up by {k} but not past {top}; {a} is never above {top} before",
            f"write {a} + {k} back to {a}, or {top} if the sum is greater (unsigned)",
            f"mem[{a}] = min(mem[{a}] + {k}, {top}), unsigned bytes",
        ],
        ask_test=[
            f"give {k} points to the byte {a}, which may not go above its maximum {top}",
            f"let the unsigned byte {a} go up by {k}, with {top} as the limit",
            f"put {k} more on the byte {a}, but {top} there if the sum is above {top} (unsigned)",
        ],
        cases=d.cases({a: byte(x)} for x in [*edges, *(d.number(0, top) for _ in range(9))]),
        after=lambda mem: {a: byte(min(top, mem[a] + k))},
        references={
            "compare": f"LDA {a} / CLC / ADC #{h2(k)} / CMP #{h2(top)} / BCC .ok / LDA #{h2(top)} / .ok / "
            f"STA {a} / RTS",
            "before": f"LDA {a} / CMP #{h2(top - k)} / BCC .add / LDA #{h2(top - k)} / .add / CLC / ADC "
            f"#{h2(k)} / "
            f"STA {a} / RTS",
        },
    )


@family("asm", BASIC)
def average8(d: Draw) -> Draft:
    """Mean of two bytes, rounded down."""
    a, b = d.addresses(2)
    z = d.direct()
    return Draft(
        entry="Average",
        ask=[
            f"store the mean of the unsigned bytes at {a} and {b}, rounded down, at {z}",
            f"{z} = ({a} + {b}) / 2, unsigned bytes, without losing the carry",
            f"the middle between the unsigned bytes {a} and {b}, rounded down, goes to {z}",
            f"put half of the sum of the unsigned bytes {a} and {b} into {z}, with a 9-bit sum",
            f"{z} = ({a} + {b}) >> 1 with a 9-bit sum of the unsigned bytes",
            f"take the average of the unsigned bytes {a} and {b}, rounding down, and save it to {z}",
            f"add the bytes {a} and {b}, rotate the carry back in to halve it, result in {z}",
            f"write the average of two unsigned bytes, {a} and {b}, to {z}, rounded down",
            f"{z} becomes floor of ({a} + {b}) / 2, unsigned",
            f"load the unsigned byte {a}, add {b}, divide the 9-bit sum by 2 and store it at {z}",
            f"halve the sum of the unsigned bytes at {a} and {b}, sum up to 510, and leave it in {z}",
        ],
        ask_test=[
            f"compute the mean of the unsigned bytes {a} and {b} into {z}, rounding down",
            f"in {z} keep the middle of the two unsigned bytes {a} and {b}, rounded down",
            f"{z} gets half the total of the unsigned bytes {a} and {b}; do not lose the carry",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), reversed(d.edges8()), strict=True)),
        after=lambda mem: {z: byte(mem[a] + mem[b] >> 1)},
        references={
            "rotate": f"LDA {a} / CLC / ADC {b} / ROR / STA {z} / RTS",
            "memory": f"CLC / LDA {a} / ADC {b} / STA {z} / ROR {z} / RTS",
        },
    )
