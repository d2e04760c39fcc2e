"""Complex routines: digits, random numbers, checksums, searching, sorting, buffers, calling conventions."""

from __future__ import annotations

from hafs_snes.tasks.dsl import After, Case, Draft, Draw, byte, family, h2, h4, signed, word

COMPLEX = "complex routines"
WAIT16 = "NOP / " * 8


@family("asm", COMPLEX)
def to_digits(d: Draw) -> Draft:
    """Split a number below 100 into decimal digits."""
    a, z = d.address(), d.direct()
    return Draft(
        entry="ToDigits",
        ask=[
            f"the byte at {a} is 0 to 99; store its tens digit at {z} and its ones digit at {z + 1} (as "
            "numbers 0 to 9)",
            f"split the value 0-99 in {a} into decimal digits, tens to {z}, ones to {z + 1}",
            f"{z} = {a} / 10, {z + 1} = {a} mod 10, for values up to 99",
            f"write the two decimal digits of {a} (0 to 99) to {z} (tens) and {z + 1} (ones)",
            f"divide the byte {a}, at most 99, by 10; quotient to {z}, remainder to {z + 1}",
            f"convert {a} (below 100) to decimal, tens in {z}, ones in {z + 1}, each 0 to 9",
            f"mem[{z}] = mem[{a}] / 10, mem[{z + 1}] = mem[{a}] % 10, {a} is 0-99",
            f"put the tens of the byte {a} (up to 99) into {z} and what is left into {z + 1}",
            f"count how often 10 goes into {a} (0 to 99), store that at {z} and the rest at {z + 1}",
            f"turn the number 0-99 in {a} into its digits, the first at {z}, the second at {z + 1}",
            f"{z} gets the tens digit and {z + 1} the ones digit of the byte {a}, which is below 100",
        ],
        ask_test=[
            f"turn {a} (at most 99) into two digits, tens in {z}, ones in {z + 1}",
            f"for the score byte {a} (0-99) leave the tens digit in {z} and the ones digit in {z + 1}",
            f"the decimal digits of the byte {a}, below 100, go to {z} and {z + 1}, tens first",
        ],
        cases=d.cases({a: byte(x)} for x in [0, 9, 10, 19, 20, 99, 90, 89, 50, *(d.number(0, 99) for _ in range(7))]),
        after=lambda mem: {z: byte(mem[a] // 10), z + 1: byte(mem[a] % 10)},
        references={
            "subtract": f"LDX #$00 / LDA {a} / .loop / CMP #$0A / BCC .done / SBC #$0A / INX / BRA .loop / "
            f".done / STX {z} / "
            f"STA {z + 1} / RTS",
            "divider": f"LDA {a} / STA $4204 / STZ $4205 / LDA #$0A / STA $4206 / {WAIT16}LDA $4214 / STA "
            f"{z} / LDA $4216 / "
            f"STA {z + 1} / RTS",
        },
    )


@family("asm", COMPLEX)
def lfsr(d: Draw) -> Draft:
    """One step of a shift-register random generator."""
    a, k = d.address(2), h4(d.choice([0xB400, 0xA001, 0xD008, 0x8016, 0xB4BD]))
    low = f"LDA {a} / EOR #{k.low} / STA {a} / " if k & 0xFF else ""
    return Draft(
        entry="NextRandom",
        ask=[
            f"step the 16-bit LFSR at {a}, shift the word right one bit; if the bit shifted out was 1, XOR "
            f"the word with {k}",
            f"do a Galois LFSR step on the word at {a} with polynomial {k} (shift right)",
            f"{a} = {a} >> 1 (16 bits), then XOR {k} when the lost bit was 1",
            f"shift the word {a} right by one; if the carry is set after it, XOR the word with {k}",
            f"word[{a}] = (word[{a}] >> 1) ^ (word[{a}] & 1 ? {k} : 0)",
            f"if the word {a} is odd, {a} = ({a} >> 1) XOR {k}, else {a} = {a} >> 1",
            f"make the next random number, halve the word {a} (unsigned) and XOR it with {k} if it was odd",
            f"load the 16-bit value {a}, LSR it, XOR it with {k} if a 1 came out, and store it back",
            f"the word in {a} is a Galois shift register (to the right, taps {k}); step it once",
            f"divide the unsigned word {a} by 2 and, if there was a rest, XOR the result with {k}",
            f"move the bits of the word {a} one to the right and flip the bits {k} if bit 0 was 1",
        ],
        ask_test=[
            f"halve the unsigned word {a} and, if it was odd, XOR it with {k} after that",
            f"one step of the random number at {a} (16-bit Galois LFSR, shift right, polynomial {k})",
            f"the word {a} goes right by one bit; when a 1 is shifted out, {k} is XORed into it",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {a: word(mem.word(a) >> 1 ^ (k if mem[a] & 1 else 0))},
        references={
            "wide": f"REP #$20 / LDA {a} / LSR / BCC .done / EOR #{k} / .done / STA {a} / SEP #$20 / RTS",
            "bytes": f"LSR {a + 1} / ROR {a} / BCC .done / LDA {a + 1} / EOR #{k.high} / STA {a + 1} / "
            f"{low}.done / RTS",
        },
    )


@family("asm", COMPLEX)
def preserve_all(d: Draw) -> Draft:
    """Change memory without disturbing the caller."""
    a, k = d.address(), d.immediate(1, 60)
    return Draft(
        entry="BumpCounter",
        keep="AXY",
        ask=[
            f"add {k} to the byte at {a}; A, X, Y (8 bits) and the carry flag must come back exactly as they were",
            f"add {k} to {a} without disturbing the caller; 8-bit A, X, Y and carry preserved",
            f"called from an interrupt, {a} grows by {k:d} and A, X, Y and the carry stay unchanged",
            f"{a} = {a} + {k}; keep A, X, Y and the carry",
            f"raise the byte {a} by {k} and restore A, X, Y and C to what they were",
            f"increase {a} by {k} but change neither A, X, Y nor the carry flag",
            f"mem[{a}] += {k} with A, X, Y and carry the same before and after",
            f"the byte at {a} goes up by {k}; the registers A, X, Y and the carry are kept",
            f"save A and the flags, add {k} to {a}, and bring A and the flags back; X and Y unchanged",
            f"make the byte {a} {k} larger and return A, X, Y and C as they came in",
            f"write {a} + {k} back to {a} and preserve 8-bit A, X, Y and the carry",
        ],
        ask_test=[
            f"{a} += {k}, leaving A, X, Y and C just as they were",
            f"count the byte {a} up by {k} and keep all of A, X, Y and the carry flag",
            f"with A, X, Y and carry unchanged at the end, put {a} + {k} into {a}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: After({a: byte(mem[a] + k)}, flags={"C": mem.registers["P"] & 1}),
        references={
            "php": f"PHP / PHA / LDA {a} / CLC / ADC #{k} / STA {a} / PLA / PLP / RTS",
            "php_after": f"PHA / PHP / CLC / LDA #{k} / ADC {a} / STA {a} / PLP / PLA / RTS",
        },
    )


@family("asm", COMPLEX)
def any_width(d: Draw) -> Draft:
    """A far routine that works in every register width."""
    a, k = d.address(2), h4(d.number(0x100, 0x1000))

    def registers(i: int) -> dict[str, int]:
        mine = d.registers()
        return {**mine, "P": mine["P"] & ~0x30 | (0x30, 0x10, 0x20, 0x00)[i % 4]}

    return Draft(
        entry="AddWordSafe",
        returns="rtl",
        ask=[
            f"add {k} to the 16-bit word at {a}; the caller may be in any M/X mode, keep its M and X flags; "
            "end with RTL",
            f"word {a} += {k}, called with JSL; work whatever the caller's register widths are and restore them; RTL",
            f"whatever M and X are on entry, the word at {a} grows by {k} and M, X are kept; called with "
            "JSL, so end with RTL",
            f"far routine (RTL) that works with 8- or 16-bit registers, {a} = {a} + {k}, 16-bit; M and X "
            "come back unchanged",
            f"save the flags, add {k} to the word {a} in 16-bit mode, bring the flags M and X back and end with RTL",
            f"with M and X unknown on entry, raise the word {a} by {k}, restore M and X and return by RTL",
            f"increase the 16-bit value at {a} by {k}; callers use JSL in any register width, which must be "
            "preserved; return with RTL",
            f"word[{a}] += {k} for a JSL caller in 8- or 16-bit mode; keep the mode, RTL at the end",
            f"the word in {a} goes up by {k}; entry with any M and X, exit with the same, RTL",
            f"add the 16-bit {k} to {a}, preserve the widths of A, X and Y, which may be 8 or 16 bits, and end in RTL",
            f"do not rely on M or X; make the word {a} {k} larger, leave M and X as they were, return with RTL",
        ],
        ask_test=[
            f"callers in 8- or 16-bit mode JSL to it; add {k} to the word {a}, preserve the mode and end with RTL",
            f"put {a} + {k} into the word {a} in any M/X mode, with the same M and X after it, and return by RTL",
            f"the 16-bit number {a} gets {k} more; M and X can be anything and must be kept; end with RTL",
        ],
        cases=(Case({a: word(x)}, registers(i)) for i, x in enumerate(d.edges16())),
        after=lambda mem: {a: word(mem.word(a) + k)},
        references={
            "php": f"PHP / REP #$21 / LDA {a} / ADC #{k} / STA {a} / PLP / RTL",
            "long": f"PHP / REP #$20 / LDA {a.long} / CLC / ADC #{k} / STA {a.long} / PLP / RTL",
        },
    )


@family("asm", COMPLEX)
def foreign_bank(d: Draw) -> Draft:
    """A far routine with a table, entered with another data bank."""
    a, z = d.address(), d.direct()
    values = [d.immediate() for _ in range(4)]
    shown = ",".join(map(str, values))
    return Draft(
        entry="LookupFar",
        returns="rtl",
        ask=[
            f"called with JSL while the data bank is $7E; use the byte at {a} (0 to 3) as index into a "
            f"table {shown} kept in your code, store the entry at {z}; keep the data bank, end with RTL",
            f"far routine (RTL), entry with data bank $7E; {z} = table[{a}] with the table {shown} next to "
            "the code; the data bank must be unchanged",
            f"with its table {shown}, {z} = entry number {a} (0-3); the data bank is $7E on entry and exit; "
            "ends with RTL",
            f"look the byte {a} (0-3) up in the table {shown} in your code and put the entry in {z}; data "
            "bank $7E is kept, RTL",
            f"the byte {a} (0 to 3) selects one of {shown} (in the code); write it to {z}; the data bank is "
            "$7E and stays, return with RTL",
            f"map {a} = 0 to 3 to {shown}, result to {z}; the caller has data bank $7E and calls with JSL; RTL",
            f"put the bytes {shown} after the code and copy the one with the index in {a} to {z}; data bank "
            "$7E on entry, kept; RTL",
            f"while the data bank is $7E load entry {a} (0-3) of {shown} from the code bank and save it to "
            f"{z}; end with RTL",
            f"store in {z} the byte number {a} (0 to 3) of {shown}, read from your own bank; the data bank "
            "$7E does not change; RTL",
            f"translate {a} (0-3) by the table {shown} in the code to {z}; called by JSL with data bank "
            "$7E, preserve it, end in RTL",
        ],
        ask_test=[
            f"the caller's data bank is $7E, the table {shown} is after the code; index {a} (0 to 3), "
            f"result {z}, RTL, data bank kept",
            f"leave entry {a} (0-3) of the table {shown} in {z}; JSL with data bank $7E, unchanged at the "
            "end, return by RTL",
            f"into {z} goes the byte of {shown} (a table in your code) whose number 0-3 is in {a}; the data "
            "bank is $7E and is kept; RTL",
        ],
        cases=(Case({a: byte(i % 4)}, d.registers(DB=0x7E)) for i in range(12)),
        after=lambda mem: {z: byte(values[mem[a]])},
        references={
            "long": f"LDX {a} / LDA.l .table,X / STA {z} / RTL / .table / db {shown}",
            "bank": f"PHB / PHK / PLB / LDX {a} / LDA .table,X / STA {z} / PLB / RTL / .table / db {shown}",
        },
    )


@family("asm", COMPLEX)
def bcd_add(d: Draw) -> Draft:
    """Add two packed decimal numbers."""
    a, b, c = d.addresses(3, 2)

    def packed() -> int:
        return int(f"{d.number(0, 9999)}", 16)

    def value(packed_: int) -> int:
        return int(f"{packed_:X}")

    pairs = [(0x0099, 0x0001), (0x9999, 0x0001), (0x0909, 0x0191), (0, 0)]
    return Draft(
        entry="AddDecimal",
        ask=[
            f"add the 4-digit packed BCD words at {a} and {b} and store the BCD sum (4 digits) at {c}; "
            "leave decimal mode off",
            f"{c} = {a} + {b}, all 16-bit packed decimal; use SED and CLD",
            f"decimal addition (BCD, low byte first) of the words {a} and {b} into {c}; decimal mode is off after it",
            f"put the packed BCD word {a} plus the packed BCD word {b} into the word {c}",
            f"add two 4-digit decimal numbers in BCD, {a} and {b}, result to {c}, all words",
            f"store the BCD sum of the words {a} and {b} (both BCD) at {c} and clear the D flag",
            f"with decimal mode on, add the words {a} and {b} to the word {c}, then turn it off",
            f"word[{c}] = word[{a}] + word[{b}] in packed BCD, 4 digits",
            f"the BCD word {c} becomes the sum of the BCD words {a} and {b}; return with D clear",
            f"load the BCD word {a}, add the BCD word {b} in decimal mode and save the 4 digits to {c}",
            f"the scores {a} and {b} are packed BCD words; write their decimal sum to the word {c}",
        ],
        ask_test=[
            f"the words {a} and {b} hold four BCD digits each; write their decimal sum to {c} and clear the D flag",
            f"the total of two packed decimal words, {a} and {b}, is stored at {c}, four digits",
            f"take the BCD words {a} and {b}, add them in decimal mode, put the word at {c}",
        ],
        cases=d.cases({a: word(x), b: word(y)} for x, y in [*pairs, *((packed(), packed()) for _ in range(12))]),
        after=lambda mem: {c: word(int(f"{(value(mem.word(a)) + value(mem.word(b))) % 10000}", 16))},
        references={
            "wide": f"REP #$21 / SED / LDA {a} / ADC {b} / STA {c} / CLD / SEP #$20 / RTS",
            "bytes": f"SED / CLC / LDA {a} / ADC {b} / STA {c} / LDA {a + 1} / ADC {b + 1} / STA {c + 1} / CLD / RTS",
        },
    )


@family("asm", COMPLEX)
def hex_digits(d: Draw) -> Draft:
    """A byte as two ASCII hex digits."""
    a, z = d.address(), d.direct()
    digit = "CMP #$0A / BCC .digit{i} / ADC #$06 / .digit{i} / ADC #$30"
    return Draft(
        entry="ToHex",
        ask=[
            f"write the byte at {a} as two ASCII hex digits (0-9, A-F), high digit to {z}, low digit to {z + 1}",
            f"convert {a} to hexadecimal text, two characters at {z} and {z + 1}, high nibble first, capital letters",
            f"the ASCII hex digits of the byte {a} go to {z} and {z + 1}, for example $5B gives $35 and $42",
            f"store the high nibble of {a} as an ASCII hex digit (0-9, A-F) at {z} and the low nibble at {z + 1}",
            f"turn the byte {a} into two ASCII characters, its hex digits in capitals, {z} first, then {z + 1}",
            f"{z} = ASCII hex digit of {a} >> 4, {z + 1} = ASCII hex digit of {a} AND $0F, with A-F as capitals",
            f"print the byte {a} in hex as ASCII to {z} and {z + 1}, high digit first, upper case",
            f"put the two hex digits of {a} as text ($30-$39, $41-$46) into {z} (high) and {z + 1} (low)",
            f"take the byte in {a} and write its hexadecimal form, two upper case ASCII characters, to {z} and {z + 1}",
            f"split {a} into nibbles and save each as ASCII hex (0-9 or A-F), the high one to {z}, the low "
            f"one to {z + 1}",
        ],
        ask_test=[
            f"put the ASCII codes of the two hex digits of {a} (upper case) in {z} and {z + 1}",
            f"{z} and {z + 1} get the byte {a} as hexadecimal text in capital letters, high digit first",
            f"for each nibble of {a} leave its ASCII hex digit (capital A-F), high in {z}, low in {z + 1}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(0x09, 0x9A, 0xA9, 0x0A)),
        after=lambda mem: {z: f"{mem[a]:02X}".encode()},
        references={
            "subroutine": f"LDA {a} / LSR / LSR / LSR / LSR / JSR .convert / STA {z} / LDA {a} / AND #$0F "
            f"/ JSR .convert / STA {z + 1} / "
            "RTS / .convert / CMP #$0A / BCC .digit / ADC #$06 / .digit / ADC #$30 / RTS",
            "inline": f"LDA {a} / LSR / LSR / LSR / LSR / {digit.format(i=1)} / STA {z} / LDA {a} / AND "
            f"#$0F / {digit.format(i=2)} / "
            f"STA {z + 1} / RTS",
        },
    )


@family("asm", COMPLEX)
def box_overlap(d: Draw) -> Draft:
    """Do two spans on one axis overlap?"""
    a, b, n, m = d.address(), d.address(), d.choice([8, 16, 24]), d.choice([12, 20, 32])
    while abs(a - b) < 1:
        b = d.address()

    def case(i: int) -> dict[int, bytes]:
        x = d.number(40, 200)
        y = x + (n - 1, n, n + 1, -m, 1 - m, -m - 1, 0, 1)[i] if i < 8 else d.number(0, 255 - m)
        return {a: byte(x), b: byte(min(255 - m, max(0, y)))}

    return Draft(
        entry="Overlap",
        ask=[
            f"object 1 covers {n} pixels from X = byte {a} on, object 2 {m} pixels from X = byte {b} on; "
            "carry set if they share a pixel, else clear (nothing wraps)",
            f"test the spans [{a}, {a}+{n}) and [{b}, {b}+{m}) (unsigned, no wrap); carry = 1 if they have "
            "a pixel in common, else 0",
            f"carry set when byte {a} < byte {b} + {m} and byte {b} < byte {a} + {n} (no overflow happens), "
            "else carry clear",
            f"return with carry set if {n} pixels from {a} and {m} pixels from {b} touch the same pixel, "
            "with carry clear if not (unsigned, no wrap)",
            f"C = ({a} < {b} + {m} && {b} < {a} + {n}), unsigned bytes, sums stay below 256",
            f"check if a span of {n} from the byte {a} hits a span of {m} from the byte {b}; answer in the "
            "carry (1 = hit), sums do not wrap",
            f"clear the carry if {a} >= {b} + {m} or {b} >= {a} + {n} (unsigned, never above 255), else set it",
            f"two objects start at X {a} ({n} wide) and X {b} ({m} wide), bytes without wrap; set the carry "
            "if they share a pixel, else clear it",
            f"the carry tells whether {a} to {a} + {n - 1} and {b} to {b} + {m - 1} meet (set = yes); the X "
            "values are unsigned bytes and do not wrap",
            f"compare the X bytes {a} (width {n}) and {b} (width {m}); carry 1 if the objects touch, 0 if "
            "one ends before the other starts; no wrap",
        ],
        ask_test=[
            f"a {n}-pixel box starts at X = byte {a}, a {m}-pixel box at X = byte {b}, sums never above "
            "255; carry set if they touch the same pixel, else clear",
            f"tell by the carry whether {n} pixels from X {a} on and {m} pixels from X {b} on have one in "
            "common (set = yes); unsigned, no wrap",
            f"return carry clear when the span {a} of {n} and the span {b} of {m} share no pixel, and carry "
            "set when they do (unsigned bytes, no wrap)",
        ],
        cases=d.cases(case(i) for i in range(16)),
        after=lambda mem: After(flags={"C": int(mem[a] < mem[b] + m and mem[b] < mem[a] + n)}),
        references={
            "shifted": f"LDA {a} / CLC / ADC #{h2(n - 1)} / SEC / SBC {b} / CMP #{h2(n + m - 1)} / BCC "
            ".hit / CLC / RTS / .hit / SEC / RTS",
            "two_tests": f"LDA {b} / CLC / ADC #{h2(m - 1)} / CMP {a} / BCC .no / LDA {a} / CLC / ADC "
            f"#{h2(n - 1)} / CMP {b} / .no / RTS",
        },
    )


@family("asm", COMPLEX)
def crc8(d: Draw) -> Draft:
    """One byte of a CRC-8."""
    c, v, k = d.address(), d.address(), h2(d.choice([0x07, 0x1D, 0x31, 0x9B]))
    while c == v:
        v = d.address()

    def step(crc: int, value: int) -> int:
        crc ^= value
        for _ in range(8):
            crc = (crc << 1 ^ (k if crc & 0x80 else 0)) & 0xFF
        return crc

    return Draft(
        entry="UpdateCrc",
        ask=[
            f"update the CRC-8 at {c} with the byte at {v}; XOR the byte in, then 8 times shift left and "
            f"XOR with {k} if a 1 was shifted out",
            f"CRC-8, polynomial {k}, most significant bit first, crc at {c}, next data byte at {v}; update {c}",
            f"{c} = {c} XOR {v}, then repeat 8 times, {c} = {c} * 2, XOR {k} when bit 7 was set",
            f"XOR {v} into {c}, then 8 times do ASL on {c} and XOR it with {k} if the carry is set",
            f"add the byte {v} to the CRC-8 in {c} (polynomial {k}, high bit first, no reflection)",
            f"step the CRC byte {c} with the data byte {v}, MSB first, polynomial {k}",
            f"crc = {c} ^ {v}, then 8 times crc = (crc << 1) ^ (crc & $80 ? {k} : 0); store it at {c}",
            f"the CRC-8 at {c} takes in the byte {v}, shift left, polynomial {k}, result back in {c}",
            f"load {c}, XOR it with {v}, shift it left 8 times with XOR {k} for each 1 that comes out, and "
            f"store it at {c}",
            f"compute the next CRC-8 in {c} from the old one and the byte in {v}, MSB first, with polynomial {k}",
            f"put {c} XOR {v} into {c} and shift it left 8 times; each time the lost bit is 1, XOR {c} with {k}",
        ],
        ask_test=[
            f"take the byte {v} into the CRC-8 at {c} (MSB first, polynomial {k})",
            f"let the CRC-8 byte {c} (polynomial {k}, shift left) go one data byte, {v}, further",
            f"XOR the data byte {v} into {c}; eight times shift {c} left and, if its bit 7 was 1, XOR {k}",
        ],
        cases=d.cases({c: byte(x), v: byte(y)} for x, y in zip(d.edges8(), d.shuffled(d.edges8()), strict=True)),
        after=lambda mem: {c: byte(step(mem[c], mem[v]))},
        references={
            "accumulator": f"LDA {c} / EOR {v} / LDX #$08 / .loop / ASL / BCC .next / EOR #{k} / .next / "
            f"DEX / BNE .loop / STA {c} / RTS",
            "memory": f"LDA {v} / EOR {c} / STA {c} / LDX #$08 / .loop / ASL {c} / BCC .next / LDA #{k} / "
            f"EOR {c} / STA {c} / .next / DEX / "
            "BNE .loop / RTS",
        },
    )


@family("asm", COMPLEX)
def move_clamped(d: Draw) -> Draft:
    """Add a signed speed to a position and keep it on the screen."""
    p, v, top = *d.addresses(2, 2), h4(d.choice([0xF0, 0x100, 0x1F0, 0x200]))

    def move(x: int, speed: int) -> int:
        return min(top, max(0, x + signed(speed)))

    return Draft(
        entry="MoveObject",
        ask=[
            f"add the signed byte at {v} to the word position at {p}, then limit it to 0 to {top} (it "
            "starts in that range)",
            f"word {p} = {p} + sign-extended byte {v}, clamped to at least 0 and at most {top}; {p} is in range before",
            f"the speed {v} is a signed byte, the position {p} a word within 0 to {top}; move it and stop "
            "at the borders",
            f"{p} = clamp({p} + {v}, 0, {top}), word {p}, signed byte {v}; {p} starts in the range",
            f"move the word position {p} by the signed byte {v} but not below 0 or above {top}; it is in "
            "that range before",
            f"word[{p}] = min({top}, max(0, word[{p}] + (signed) mem[{v}])), {p} is 0 to {top} on entry",
            f"add the sign-extended byte {v} to the word {p}; below 0 it becomes 0, above {top} it becomes "
            f"{top}; {p} starts within 0 to {top}",
            f"the word {p} (0 to {top}) changes by the signed byte {v}; keep it between 0 and {top}",
            f"load the word {p} (in 0 to {top}), add the signed byte {v}, limit the result to 0 to {top} "
            "and store it back",
            f"increase the word {p} by the signed speed in {v}, with 0 as the lowest and {top} as the "
            f"highest value; {p} starts between them",
            f"let the position word {p}, 0 to {top}, go up or down by the signed byte {v} and stop at 0 and {top}",
        ],
        ask_test=[
            f"the position word {p} (0 to {top}) moves by the signed speed byte {v} and may not leave that range",
            f"put {p} plus the signed byte {v} back into the word {p}, limited to 0 and {top} (it is within "
            "them before)",
            f"move the object, word {p} by the signed byte {v}; under 0 it stays at 0, over {top} at {top}; "
            f"{p} is in that range before",
        ],
        cases=d.cases(
            {p: word(x), v: byte(s)}
            for x, s in [
                (0, 0xFF),
                (0, 0),
                (1, 0xFF),
                (1, 0xFE),
                (top, 1),
                (top - 1, 1),
                (top - 1, 2),
                (0x7F, 0x80),
                (0x80, 0x80),
                (top - 0x7F, 0x7F),
                *((d.number(0, top), d.number(0, 255)) for _ in range(6)),
            ]
        ),
        after=lambda mem: {p: word(move(mem.word(p), mem[v]))},
        references={
            "sign_extend": f"REP #$20 / LDA {v} / AND #$00FF / CMP #$0080 / BCC .add / ORA #$FF00 / .add / "
            f"CLC / ADC {p} / BPL .low / "
            f"LDA #$0000 / .low / CMP #{top + 1} / BCC .store / LDA #{top} / .store / STA {p} / SEP #$20 / "
            "RTS",
            "two_ways": f"LDA {v} / BMI .left / REP #$21 / AND #$00FF / ADC {p} / CMP #{top} / BCC .store "
            f"/ LDA #{top} / BRA .store / .left / "
            f"REP #$21 / ORA #$FF00 / ADC {p} / BCS .store / LDA #$0000 / .store / STA {p} / SEP #$20 / RTS",
        },
    )
