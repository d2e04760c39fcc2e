"""Hardware interaction: multiplier and divider, WRAM port, joypad."""

from __future__ import annotations

from hafs_snes.tasks.dsl import Case, Draft, Draw, byte, family, h2, h6, long, signed, word

HARDWARE = "hardware interaction"
WAIT8 = "NOP / NOP / NOP"  # the multiplier needs 8 cycles; the load of the result is the rest
WAIT16 = "NOP / " * 8  # the divider needs 16


@family("asm", HARDWARE)
def hw_multiply(d: Draw) -> Draft:
    """8 x 8 bit multiplication."""
    a, b, c = d.addresses(3, 2)
    return Draft(
        entry="Multiply",
        ask=[
            f"use the hardware multiplier ($4202/$4203) to multiply the unsigned bytes at {a} and {b}; "
            f"16-bit product to {c}",
            f"multiply {a} by {b} (unsigned bytes) with the SNES multiplication registers and write the "
            f"word result to {c}",
            f"{c} (word) = {a} * {b} (unsigned bytes) through $4202, $4203 and $4216",
            f"let the hardware multiply the unsigned bytes {a} and {b}, result to the word {c}",
            f"store the 16-bit product of the unsigned bytes {a} and {b} at {c}, with the hardware multiplier",
            f"write {a} to $4202 and {b} to $4203, wait, and copy the word $4216 to {c}",
            f"word[{c}] = mem[{a}] * mem[{b}], unsigned, with the multiplier at $4202",
            f"the word {c} becomes the unsigned byte {a} times the unsigned byte {b}; use $4202/$4203",
            f"take the unsigned bytes {a} and {b}, multiply them in hardware and save the 16-bit product to {c}",
            f"put {a} times {b} (unsigned bytes) into the word {c} by the multiplication unit",
            f"load two unsigned bytes, {a} and {b}, and leave their 16-bit product in {c}, using $4202, "
            "$4203 and $4216",
        ],
        ask_test=[
            f"let the multiplication unit compute {a} times {b} (unsigned bytes) and store the word at {c}",
            f"the product of the unsigned bytes {a} and {b} goes to the word {c}, through $4202/$4203",
            f"with the hardware multiplier, put the 16-bit result of {a} * {b} (unsigned) in {c}",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), d.shuffled(d.edges8()), strict=True)),
        after=lambda mem: {c: word(mem[a] * mem[b])},
        references={
            "wide": f"LDA {a} / STA $4202 / LDA {b} / STA $4203 / {WAIT8} / REP #$20 / LDA $4216 / STA {c} "
            "/ SEP #$20 / RTS",
            "index": f"LDA {a} / STA $4202 / LDA {b} / STA $4203 / REP #$10 / NOP / NOP / NOP / LDX $4216 "
            f"/ STX {c} / SEP #$10 / RTS",
            "bytes": f"LDA {a} / STA $4202 / LDA {b} / STA $4203 / {WAIT8} / NOP / LDA $4216 / STA {c} / "
            "LDA $4217 / "
            f"STA {c + 1} / RTS",
        },
    )


@family("asm", HARDWARE)
def hw_scale(d: Draw) -> Draft:
    """Multiply by a fraction of 256: the high byte of the product."""
    a, z = d.address(), d.direct()
    k = d.immediate(3, 250)
    return Draft(
        entry="ScaleByte",
        ask=[
            f"{z} = ({a} * {k:d}) / 256 for the unsigned byte {a}, with the hardware multiplier",
            f"multiply {a} by {k} (unsigned) through $4202/$4203 and keep only the high byte of the product in {z}",
            f"scale the unsigned byte {a} by {k:d}/256 (rounded down) into {z} using $4202, $4203, $4217",
            f"store the high byte of the product {a} * {k} (unsigned) at {z}; use the multiplier",
            f"write the unsigned byte {a} to $4202 and {k} to $4203, wait, and copy $4217 to {z}",
            f"{z} = ({a} * {k}) >> 8, unsigned, by the hardware multiplier",
            f"{z} becomes the upper 8 bits of the unsigned byte {a} times {k}, through $4202/$4203",
            f"take {a} times {k} (unsigned) in hardware and save bits 8 to 15 of the result to {z}",
            f"put the high byte of {k} times the unsigned byte {a} into {z}, with the multiplication registers",
            f"let the multiplier compute {a} x {k}, unsigned bytes, and leave the high byte $4217 in {z}",
            f"multiply the unsigned byte at {a} by {k:d}, divide by 256, result in {z}; use $4202/$4203",
        ],
        ask_test=[
            f"the upper 8 bits of the hardware product {a} x {k} (unsigned) go to {z}",
            f"with the multiplier at $4202, put {k:d}/256 of the unsigned byte {a}, rounded down, in {z}",
            f"in {z} keep just the high byte of the unsigned byte {a} multiplied by {k} in hardware",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {z: byte(mem[a] * k >> 8)},
        references={
            "constant_last": f"LDA {a} / STA $4202 / LDA #{k} / STA $4203 / {WAIT8} / LDA $4217 / STA {z} / RTS",
            "stack_wait": f"LDA #{k} / STA $4202 / LDA {a} / STA $4203 / PHA / PLA / NOP / LDA $4217 / STA {z} / RTS",
        },
    )


@family("asm", HARDWARE)
def hw_divide(d: Draw) -> Draft:
    """16 / 8 bit division."""
    a, b, q, r = d.addresses(4, 2)
    return Draft(
        entry="Divide",
        ask=[
            f"divide the word at {a} by the byte at {b} with the hardware divider ($4204-$4206); 16-bit "
            f"quotient to {q}, remainder (word) to {r}",
            f"{q} = {a} / {b}, {r} = {a} mod {b} with the division registers; {b} is a non-zero byte, the "
            "others are unsigned words",
            f"{a} (word) over {b} (byte, not 0) by hardware; quotient word to {q}, remainder word to {r}",
            f"let the hardware divide the word {a} by the byte {b}; the word {q} gets the quotient, the "
            f"word {r} the rest",
            f"write the word {a} to $4204 and the byte {b} to $4206, wait, copy the word $4214 to {q} and "
            f"the word $4216 to {r}",
            f"store the quotient of the word {a} by the byte {b} at {q} and the remainder at {r}, both "
            "words, using $4204-$4206",
            f"divide the unsigned word {a} by the non-zero byte {b} in hardware; result word in {q}, rest word in {r}",
            f"put the word {a} through the divider with the byte {b}; {q} = quotient, {r} = remainder, 16 bits each",
            f"word[{q}] = word[{a}] / mem[{b}], word[{r}] = word[{a}] % mem[{b}], unsigned, by the hardware divider",
            f"load the word {a} and the byte {b} into the divider and save quotient and rest as words to {q} and {r}",
            f"take the word {a} divided by the byte {b} (never 0) with $4204/$4206; quotient to the word "
            f"{q}, rest to the word {r}",
        ],
        ask_test=[
            f"use $4204-$4206 and the results at $4214/$4216 to split the word {a} by the byte {b} into the "
            f"words {q} (quotient) and {r} (rest)",
            f"the division unit divides the word {a} by the byte {b}; leave the 16-bit quotient in {q} and "
            f"the 16-bit rest in {r}",
            f"put the word quotient {a} / {b} in {q} and what is left in the word {r}; {b} is a byte, use the hardware",
        ],
        cases=d.cases({a: word(x), b: byte(y or 7)} for x, y in zip(d.edges16(), d.shuffled(d.edges8()), strict=True)),
        after=lambda mem: {q: word(mem.word(a) // mem[b]), r: word(mem.word(a) % mem[b])},
        references={
            "index": f"REP #$10 / LDX {a} / STX $4204 / LDA {b} / STA $4206 / PHA / PLA / PHA / PLA / NOP "
            "/ LDX $4214 / "
            f"STX {q} / LDX $4216 / STX {r} / SEP #$10 / RTS",
            "wait": f"REP #$20 / LDA {a} / STA $4204 / SEP #$20 / LDA {b} / STA $4206 / {WAIT16}REP #$20 / "
            "LDA $4214 / "
            f"STA {q} / LDA $4216 / STA {r} / SEP #$20 / RTS",
        },
    )


@family("asm", HARDWARE)
def hw_divide_const(d: Draw) -> Draft:
    """Quotient and remainder of a byte by a constant."""
    a, k = d.address(), d.choice([3, 5, 6, 7, 10, 12, 24, 60])
    z, r = d.directs(2)
    return Draft(
        entry="DivideBy",
        ask=[
            f"with the divider at $4204-$4206 divide the unsigned byte {a} by {k}; quotient byte to {z}, "
            f"remainder byte to {r}",
            f"{z} = {a} / {k} and {r} = {a} mod {k} (unsigned bytes) through the hardware divider",
            f"divide the unsigned byte at {a} by {k} in hardware, result to {z}, rest to {r}, one byte each",
            f"write {a} (a byte, high byte 0) to $4204 and {k} to $4206, wait, copy $4214 to {z} and $4216 to {r}",
            f"store the quotient of the unsigned byte {a} by {k} at {z} and the remainder at {r}, using $4204-$4206",
            f"let the hardware divide the unsigned byte {a} by {k}; the byte {z} gets the quotient, the "
            f"byte {r} the rest",
            f"mem[{z}] = mem[{a}] / {k}, mem[{r}] = mem[{a}] % {k}, unsigned, by the divider",
            f"take the unsigned byte {a} divided by {k} with the division registers; quotient byte in {z}, "
            f"rest byte in {r}",
            f"put the unsigned byte {a} through the divider with {k}; {z} = quotient, {r} = remainder, 8 bits each",
            f"load the unsigned byte {a}, divide it by {k} in hardware and save quotient and rest as bytes "
            f"to {z} and {r}",
            f"{z} becomes how often {k} goes into the unsigned byte {a}, {r} what is left; use $4204-$4206",
        ],
        ask_test=[
            f"let the division unit split {a} (an unsigned byte) by {k} and put the quotient in {z} and the "
            f"rest in {r}",
            f"{z} gets {a} / {k} and {r} gets the rest, all unsigned bytes, by the hardware",
            f"use $4204-$4206 on the byte {a} and {k}; leave the byte quotient in {z}, the byte remainder in {r}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(k, k - 1, 2 * k)),
        after=lambda mem: {z: byte(mem[a] // k), r: byte(mem[a] % k)},
        references={
            "stack_wait": f"LDA {a} / STA $4204 / STZ $4205 / LDA #{h2(k)} / STA $4206 / PHA / PLA / PHA / "
            "PLA / NOP / "
            f"LDA $4214 / STA {z} / LDA $4216 / STA {r} / RTS",
            "wait": f"LDA {a} / STA $4204 / STZ $4205 / LDA #{h2(k)} / STA $4206 / {WAIT16}LDA $4214 / STA "
            f"{z} / "
            f"LDA $4216 / STA {r} / RTS",
        },
    )


@family("asm", HARDWARE)
def ppu_multiply(d: Draw) -> Draft:
    """Signed 16 x 8 bit multiplication in the PPU."""
    a, b, c = d.addresses(3, 3)
    return Draft(
        entry="MulSigned",
        ask=[
            f"multiply the signed word at {a} by the signed byte at {b} with $211B/$211C; the 24-bit "
            f"product ($2134-$2136) goes to {c}",
            f"use the PPU multiplier, signed word {a} to $211B (low, then high byte), signed byte {b} to "
            f"$211C, product to the 3 bytes at {c}",
            f"{c} (3 bytes) = {a} (signed word) * {b} (signed byte) with the mode 7 multiplication registers",
            f"store the signed 24-bit product of the word {a} and the byte {b} at {c}, through $211B and $211C",
            f"let the PPU multiply the signed word {a} by the signed byte {b}; copy $2134-$2136 to the "
            f"three bytes at {c}",
            f"long[{c}] = word[{a}] * mem[{b}], signed, by the PPU multiplier ($211B, $211C, $2134)",
            f"write the word {a} and the byte {b} (both signed) to the mode 7 multiplier and save the "
            f"24-bit result to {c}",
            f"take the signed word {a} times the signed byte {b} in the PPU, 3-byte result in {c}",
            f"the three bytes at {c} become the signed word {a} times the signed byte {b}; use $211B/$211C",
            f"put the 24-bit product of the signed word at {a} and the signed byte at {b} into {c} with the "
            "PPU multiplication",
            f"load {a} (signed word) into $211B and {b} (signed byte) into $211C, and leave the product, 24 "
            f"bits, in {c}",
        ],
        ask_test=[
            f"the signed product of the word {a} and the byte {b} through $211B, $211C and $2134-$2136 goes "
            f"to 3 bytes at {c}",
            f"with the PPU multiplier, put the 24-bit result of {a} * {b} (signed word, signed byte) in {c}",
            f"let the mode 7 unit compute the signed word {a} times the signed byte {b} and store the 24 bits at {c}",
        ],
        cases=d.cases({a: word(x), b: byte(y)} for x, y in zip(d.edges16(), d.shuffled(d.edges8()), strict=True)),
        after=lambda mem: {c: long(signed(mem.word(a), 16) * signed(mem[b]))},
        references={
            "index": f"LDX {a} / STX $211B / LDX {a + 1} / STX $211B / LDX {b} / STX $211C / LDX $2136 / "
            f"STX {c + 2} / "
            f"REP #$20 / LDA $2134 / STA {c} / SEP #$20 / RTS",
            "bytes": f"LDA {a} / STA $211B / LDA {a + 1} / STA $211B / LDA {b} / STA $211C / LDA $2134 / "
            f"STA {c} / LDA $2135 / "
            f"STA {c + 1} / LDA $2136 / STA {c + 2} / RTS",
        },
    )


@family("asm", HARDWARE)
def wram_port(d: Draw) -> Draft:
    """Write through the WRAM data port."""
    a, t, n = d.address(8), h6(0x7E2000 + d.number(0, 0xDF00)), d.choice([3, 4, 6, 8])
    setup = f"LDA #{h2(t)} / STA $2181 / LDA #{h2(t >> 8)} / STA $2182 / STZ $2183"
    return Draft(
        entry="PortWrite",
        ask=[
            f"set the WRAM port address ($2181-$2183) to {t} and write the {n} bytes at {a} to $2180",
            f"copy {n} bytes from {a} to {t} through the WRAM data port $2180",
            f"put the port address {t} in $2181-$2183 (17 bits), then send {n} bytes from {a} one by one to $2180",
            f"write the {n} bytes from {a} on to {t}, using $2180 with its address in $2181-$2183",
            f"move {n} bytes at {a} to far WRAM {t} by the port $2180",
            f"load each of the {n} bytes at {a} and store it to $2180; the port address starts at {t}",
            f"transfer {n} bytes, source {a}, destination {t}, with the WRAM port ($2180-$2183)",
            f"store the {n} bytes of the buffer {a} at {t} by writing $2180, without long addressing",
            f"make the {n} bytes at {t} the same as those at {a}, through the WRAM data port",
            f"set $2181, $2182 and $2183 for {t}, then copy {n} bytes from {a} to $2180",
            f"for i = 0 to {n - 1}, {t}[i] = {a}[i], through $2180",
        ],
        ask_test=[
            f"without long addressing, send the {n} bytes from {a} by $2180 to {t}",
            f"{t} gets the {n} bytes that are at {a}, by the WRAM port",
            f"the {n} bytes at {a} go through the data port $2180 to WRAM address {t}",
        ],
        cases=d.cases({a: d.block(n)} for _ in range(6)),
        after=lambda mem: {t & 0x1FFFF: mem.span(a, n)},
        references={
            "loop": f"{setup} / LDX #$00 / .loop / LDA {a},X / STA $2180 / INX / CPX #{h2(n)} / BNE .loop / RTS",
            "straight": f"{setup} / " + " / ".join(f"LDA {a + i} / STA $2180" for i in range(n)) + " / RTS",
        },
    )


# Bit of $4218 for each libretro button: B, Y, Select, Start, Up, Down, Left, Right, A, X, L, R.
_PAD_BITS = (15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4)
_WAIT_PAD = "LDA #$01 / STA $4200 / .start / LDA $4212 / LSR / BCC .start / .busy / LDA $4212 / LSR / BCS .busy"


def _pad_word(buttons: int) -> int:
    """The word at $4218 for libretro button bits."""
    return sum(1 << bit for i, bit in enumerate(_PAD_BITS) if buttons >> i & 1)


def _pad_case(d: Draw, buttons: int) -> Case:
    """A joypad state without opposite directions, which a real pad cannot send."""
    if buttons & 0x30 == 0x30:
        buttons &= ~0x20
    if buttons & 0xC0 == 0xC0:
        buttons &= ~0x80
    return Case({}, d.registers(), buttons)


@family("asm", HARDWARE)
def read_pad(d: Draw) -> Draft:
    """Read the joypad with the automatic reading."""
    a = d.address(2)
    return Draft(
        entry="ReadPad",
        frames=6,
        ask=[
            "turn on automatic joypad reading ($4200 = $01), wait until $4212 bit 0 becomes 1 and then 0, "
            f"store joypad 1 ($4218, 16-bit) at {a} and write $00 to $4200",
            "enable auto-joypad (no NMI), wait for $4212 bit 0 to become 1 and then 0, copy $4218/$4219 to "
            f"{a}, and disable auto-joypad again",
            f"set $4200 to 1, wait for $4212 bit 0 to rise and fall, copy the word $4218 to {a} and clear $4200",
            f"read joypad 1 into the word {a}; $4200 = 1, wait for $4212 bit 0 to go 1 then 0, take "
            "$4218/$4219, then $4200 = 0",
            "start the joypad read with $4200 = $01, wait for bit 0 of $4212 to be 1 and after it 0, save "
            f"$4218 (word) to {a}, and store 0 in $4200",
            f"the word {a} becomes the joypad 1 state; write 1 to $4200, let $4212 bit 0 go to 1 and back "
            "to 0, read $4218, write 0 to $4200",
            "poll controller 1, $4200 = 1, loop while $4212 bit 0 is 0, loop while it is 1, word $4218 to "
            f"{a}, then clear $4200",
            f"store the buttons of joypad 1 (word $4218) at {a} after a whole automatic read; turn it on by "
            "$4200 = 1, watch bit 0 of $4212 for 1 then 0, turn it off",
            f"put $4218/$4219 into the word {a} once an auto-joypad read begins and ends ($4212 bit 0 is 1, "
            "then 0); $4200 is 1 for that and 0 at the end",
            "with automatic reading on ($4200 = 1), wait for the read to start and to finish ($4212 bit "
            f"0), load the word $4218, store it at {a}, set $4200 to 0",
        ],
        ask_test=[
            f"read controller 1 into {a}; $4200 = 1, wait while bit 0 of $4212 is 0, wait while it is 1, "
            f"word $4218 to {a}, $4200 = 0",
            "enable the automatic joypad read, let bit 0 of $4212 rise and fall, keep the word $4218 in "
            f"{a}, disable it ($4200 = 0)",
            "write $01 to $4200, wait until $4212 bit 0 was 1 and is 0 again, move the 16 bits of $4218 to "
            f"{a} and clear $4200",
        ],
        cases=(_pad_case(d, d.number(1, 0xFFF)) for _ in range(6)),
        after=lambda mem: {a: word(_pad_word(mem.pad))},
        references={
            "wide": f"{_WAIT_PAD} / REP #$20 / LDA $4218 / STA {a} / SEP #$20 / STZ $4200 / RTS",
            "bytes": f"{_WAIT_PAD} / LDA $4218 / STA {a} / LDA $4219 / STA {a + 1} / STZ $4200 / RTS",
        },
    )


@family("asm", HARDWARE)
def pad_button(d: Draw) -> Draft:
    """Test one button with the automatic reading."""
    z, i = d.direct(), d.choice([0, 1, 2, 3, 8, 9, 10, 11])
    name = ("B", "Y", "Select", "Start", "", "", "", "", "A", "X", "L", "R")[i]
    bit = 1 << _PAD_BITS[i]
    port, m = ("$4219", h2(bit >> 8)) if bit > 0xFF else ("$4218", h2(bit))
    return Draft(
        entry="CheckButton",
        frames=6,
        ask=[
            "read joypad 1 ($4200 = $01, wait for $4212 bit 0 to become 1 and then 0, then $4200 = $00) "
            f"and store {m} at {z} if the button {name} (bit {m} of {port}) is down, else $00",
            f"{z} = {port} AND {m} (button {name}) after a complete automatic joypad read started by $4200 "
            "= 1; write 0 to $4200 at the end",
            f"enable auto-joypad ($4200 = 1), wait for $4212 bit 0 to go 1 then 0, put {port} AND {m} (the "
            f"{name} button) into {z} and clear $4200",
            f"check the {name} button; $4200 = 1, let $4212 bit 0 rise and fall, store {port} masked with "
            f"{m} at {z}, $4200 = 0",
            f"set $4200 to 1, wait until $4212 bit 0 becomes 1 and then 0, save {port} AND {m} (button "
            f"{name}) to {z}, set $4200 to 0",
            f"store in {z} only the bit {m} ({name}) of {port}, read after $4200 = 1 and $4212 bit 0 going "
            "1 then 0; then $4200 = 0",
            "start the joypad read with $4200 = $01, wait for bit 0 of $4212 to be 1 and after it 0, load "
            f"{port}, keep the {name} bit {m} in {z}, store 0 in $4200",
            f"test button {name} of joypad 1, {z} gets {m} if it is held, else 0; read {port} after $4200 = "
            "1 and $4212 bit 0 = 1, then 0; clear $4200",
            f"poll the pad, $4200 = 1, loop while $4212 bit 0 is 0, loop while it is 1, {z} = {port} AND "
            f"{m} ({name}), then clear $4200",
            f"{z} becomes {m} when {name} is pressed ({port} bit {m}) and 0 when not; turn auto-joypad on "
            "($4200 = 1), wait for $4212 bit 0 to go 1, then 0, turn it off",
        ],
        ask_test=[
            f"start a joypad read ($4200 = 1), let $4212 bit 0 rise and fall, leave only the bit {m} "
            f"({name}) of {port} in {z}, set $4200 back to 0",
            f"put {m} in {z} if {name} is down and 0 if not; {port} is read when $4212 bit 0 has been 1 and "
            "is 0 again after $4200 = 1; $4200 = 0 at the end",
            f"write $01 to $4200, wait while bit 0 of $4212 is 0 and while it is 1, mask {port} by {m} "
            f"(button {name}) into {z}, clear $4200",
        ],
        cases=(_pad_case(d, d.number(0, 0xFFF) & ~(1 << i) | (1 << i if j % 2 else 0)) for j in range(6)),
        after=lambda mem: {z: byte(_pad_word(mem.pad) >> (8 if port == "$4219" else 0) & m)},
        references={
            "load": f"{_WAIT_PAD} / LDA {port} / AND #{m} / STA {z} / STZ $4200 / RTS",
            "constant_first": f"{_WAIT_PAD} / LDA #{m} / AND {port} / STA {z} / STZ $4200 / RTS",
        },
    )


@family("asm", HARDWARE)
def pad_edge(d: Draw) -> Draft:
    """Buttons that have just been pressed."""
    now, old, new = d.addresses(3, 2)
    return Draft(
        entry="NewButtons",
        ask=[
            f"{now} holds the joypad word of this frame, {old} that of the last; store the buttons down now "
            f"but not before at {new} (word), then copy {now} to {old}",
            f"word {new} = {now} AND NOT {old}, then word {old} = {now}",
            f"pressed this frame ({now}) but not last frame ({old}) goes to {new}; {old} becomes {now}; all words",
            f"store the bits that are set in the word {now} and clear in the word {old} at the word {new}, "
            f"then set {old} to {now}",
            f"find the newly pressed buttons, 16-bit {new} = {now} & ~{old}, and save {now} in {old}",
            f"take the words {now} and {old}; write {now} AND NOT {old} to the word {new} and {now} to {old}",
            f"word[{new}] = word[{now}] & ~word[{old}], then word[{old}] = word[{now}]",
            f"put into the word {new} the buttons of {now} (word) that were off in {old} (word), then move "
            f"{now} to {old}",
            f"with 16-bit A, {new} gets {now} without the bits of {old}, and {old} gets {now}",
            f"clear the bits of the word {old} from the word {now}, result to {new}; after it copy the word "
            f"{now} to {old}",
            f"the word {new} becomes the buttons that went from 0 in {old} to 1 in {now}; the word {old} becomes {now}",
        ],
        ask_test=[
            f"from the pad words {now} (this frame) and {old} (last frame) find the newly pressed buttons "
            f"into {new} and copy {now} to {old}",
            f"keep in the word {new} the bits on in {now} but off in {old}, then let the word {old} be {now}",
            f"write to {new} what is in the word {now} and not in the word {old}, and then {now} over {old}",
        ],
        cases=d.cases({now: word(x), old: word(y)} for x, y in zip(d.edges16(), d.shuffled(d.edges16()), strict=True)),
        after=lambda mem: {new: word(mem.word(now) & ~mem.word(old)), old: mem.span(now, 2)},
        references={
            "xor_and": f"REP #$20 / LDA {now} / EOR {old} / AND {now} / STA {new} / LDA {now} / STA {old} "
            "/ SEP #$20 / RTS",
            "invert": f"REP #$20 / LDA {old} / EOR #$FFFF / AND {now} / STA {new} / LDA {now} / STA {old} "
            "/ SEP #$20 / RTS",
        },
    )
