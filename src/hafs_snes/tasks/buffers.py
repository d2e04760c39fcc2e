"""Complex routines on arrays and buffers: sums, checksums, searching, sorting, unpacking."""

from __future__ import annotations

from hafs_snes.tasks.dsl import After, Draft, Draw, Memory, byte, family, h2, h4, word

COMPLEX = "complex routines"


@family("asm", COMPLEX)
def sum_bytes(d: Draw) -> Draft:
    """16-bit sum of a byte array."""
    n, z = d.choice([5, 8, 12, 16, 20]), d.direct()
    a = d.address(n + 2) + 1

    def array(x: int) -> bytes:
        return b"\x91" + (bytes([x] * n) if x in (0, 255) else d.block(n)) + b"\x91"

    return Draft(
        entry="SumBytes",
        ask=[
            f"add up the {n} unsigned bytes starting at {a} and store the 16-bit sum at {z}",
            f"put the 16-bit sum of the byte array {a} to {a + (n - 1)} into {z}",
            f"the word {z} becomes the total of the {n} unsigned bytes from {a} on",
            f"store at {z} the 16-bit sum of {n} unsigned bytes, the first at {a}",
            f"word[{z}] = sum of mem[{a} + i] for i = 0 to {n - 1}, unsigned bytes",
            f"go through the {n} unsigned bytes at {a} and add each to the word {z}, which starts at 0",
            f"sum the {n}-byte table at {a} (unsigned), 16-bit result to {z}",
            f"write the total of the {n} unsigned bytes at {a} to the word {z}",
            f"load each of the {n} unsigned bytes from {a} on, add them all and save the word to {z}",
            f"clear the word {z}, then add the {n} unsigned bytes at {a} to it",
            f"take the sum of the {n} entries of the unsigned byte array {a} as 16 bits and leave it in {z}",
        ],
        ask_test=[
            f"the total of the {n}-byte list at {a} (unsigned) is stored as a word in {z}",
            f"in the word {z} keep the sum of {n} unsigned bytes from {a} on",
            f"add all bytes {a} to {a + (n - 1)}, unsigned, 16-bit result in {z}",
        ],
        cases=d.cases({a - 1: array(x)} for x in d.edges8()),
        after=lambda mem: {z: word(sum(mem.span(a, n)))},
        references={
            "accumulator": f"STZ {z + 1} / LDA #$00 / LDX #{h2(n - 1)} / .loop / CLC / ADC {a},X / BCC "
            f".next / INC {z + 1} / .next / "
            f"DEX / BPL .loop / STA {z} / RTS",
            "memory": f"STZ {z} / STZ {z + 1} / LDX #{h2(n - 1)} / .loop / LDA {a},X / CLC / ADC {z} / STA "
            f"{z} / BCC .next / "
            f"INC {z + 1} / .next / DEX / BPL .loop / RTS",
        },
    )


@family("asm", COMPLEX)
def xor_checksum(d: Draw) -> Draft:
    """XOR of a byte array."""
    n, z = d.choice([8, 12, 16, 32]), d.direct()
    a = d.address(n)

    def total(data: bytes) -> int:
        x = 0
        for value in data:
            x ^= value
        return x

    return Draft(
        entry="Checksum",
        ask=[
            f"XOR together the {n} bytes starting at {a} and store the result at {z}",
            f"compute the exclusive or of {a} to {a + (n - 1)} into {z}",
            f"XOR all {n} bytes of the save block at {a}; result byte to {z}",
            f"store at {z} the XOR of {n} bytes, the first at {a}",
            f"{z} = XOR of all mem[{a} + i] for i = 0 to {n - 1}",
            f"go through the {n} bytes from {a} on and combine them by XOR, result in {z}",
            f"the byte {z} becomes the exclusive or of the {n} bytes at {a}",
            f"start with 0, XOR it with each of the {n} bytes at {a} and save it to {z}",
            f"put the XOR checksum of the {n}-byte buffer {a} into {z}",
            f"write the exclusive or of the {n} entries of the array {a} to {z}",
            f"for i = 0 to {n - 1}, x = x XOR {a}[i], from x = 0; store x at {z}",
        ],
        ask_test=[
            f"store in {z} the XOR over the {n} bytes from {a} on",
            f"the checksum byte {z} gets all {n} bytes at {a} combined by exclusive or",
            f"take the {n} bytes of the block {a}, XOR them all, leave that in {z}",
        ],
        cases=d.cases({a: d.block(n)} for _ in range(16)),
        after=lambda mem: {z: byte(total(mem.span(a, n)))},
        references={
            "down": f"LDA #$00 / LDX #{h2(n - 1)} / .loop / EOR {a},X / DEX / BPL .loop / STA {z} / RTS",
            "up": f"LDX #$00 / TXA / .loop / EOR {a},X / INX / CPX #{h2(n)} / BNE .loop / STA {z} / RTS",
        },
    )


@family("asm", COMPLEX)
def reverse_block(d: Draw) -> Draft:
    """Reverse an array in place."""
    n = d.choice([4, 6, 8, 10, 16])
    a = d.address(n)
    return Draft(
        entry="ReverseBuffer",
        ask=[
            f"reverse the order of the {n} bytes starting at {a} in place",
            f"reverse the {n}-byte array at {a}",
            f"the first of the {n} bytes at {a} becomes the last and so on",
            f"turn the {n} bytes at {a} around, so that the last comes first",
            f"swap the first and the last, the second and the last but one and so on, of the {n} bytes at {a}",
            f"put the bytes {a} to {a + (n - 1)} in the opposite order, in place",
            f"mirror the {n}-byte buffer {a} in place",
            f"for i below {n // 2}, swap {a}[i] with {a}[{n - 1} - i]",
            f"write the {n} bytes of the array {a} back from last to first",
            f"change the order of the {n} bytes at {a} to its reverse",
            f"make the buffer {a} of {n} bytes run backwards",
        ],
        ask_test=[
            f"turn the {n} bytes {a} to {a + (n - 1)} around (mirror their order)",
            f"the {n} bytes at {a} are to stand in reverse order, in place",
            f"let the array of {n} bytes at {a} run from its last byte to its first",
        ],
        cases=d.cases({a: d.block(n)} for _ in range(8)),
        after=lambda mem: {a: mem.span(a, n)[::-1]},
        references={
            "stack": f"LDX #{h2(n - 1)} / .push / LDA {a},X / PHA / DEX / BPL .push / LDX #{h2(n - 1)} / "
            f".pull / PLA / STA {a},X / DEX / "
            "BPL .pull / RTS",
            "swap": f"LDX #$00 / LDY #{h2(n - 1)} / .loop / LDA {a},X / PHA / LDA {a},Y / STA {a},X / PLA "
            f"/ STA {a},Y / INX / DEY / "
            f"CPX #{h2(n // 2)} / BNE .loop / RTS",
        },
    )


@family("asm", COMPLEX)
def hide_sprites(d: Draw) -> Draft:
    """Move all sprites of a buffer off the screen."""
    n, y = d.choice([8, 16, 32]), h2(d.choice([0xF0, 0xE0]))
    a = h4(0x100 * d.number(2, 0x1C))
    top, step = h2(4 * n - 4), "DEX / DEX / DEX / DEX"
    return Draft(
        entry="HideSprites",
        ask=[
            f"the sprite buffer at {a} has {n} entries of 4 bytes; the second byte of each is Y; set every Y to {y}",
            f"hide {n} sprites, write {y} to {a + 1}, {a + 5}, {a + 9} and so on ({n} entries, 4 bytes apart)",
            f"in the OAM copy at {a} ({n} sprites, 4 bytes each: X, Y, tile, flags) all Y become {y}",
            f"store {y} in byte 1 of each of the {n} 4-byte entries at {a}",
            f"for i = 0 to {n - 1}, mem[{a + 1} + 4 * i] = {y}",
            f"set the Y of all {n} sprites in the buffer {a} to {y} (4 bytes a sprite, Y is byte 1)",
            f"put {y} into {n} bytes, {a + 1} first, each next one 4 further",
            f"move {n} sprites off the screen, Y = {y}; the entries at {a} have 4 bytes, Y is the second",
            f"fill every fourth byte from {a + 1} on with {y}, {n} bytes in all",
            f"the sprite table {a} has {n} times X, Y, tile, flags; write {y} to each Y",
            f"loop over the {n} sprites of 4 bytes at {a} and store {y} at offset 1 of each",
        ],
        ask_test=[
            f"move the {n} sprites of the buffer {a} off the screen, byte 1 of every 4-byte entry = {y}",
            f"each of the {n} 4-byte sprites at {a} gets {y} as its second byte",
            f"let every Y in the OAM buffer {a} be {y}, {n} entries of X, Y, tile, flags",
        ],
        cases=d.cases({} for _ in range(6)),
        after=lambda mem: {a + 1 + 4 * i: byte(y) for i in range(n)},
        references={
            "down": f"LDX #{top} / LDA #{y} / .loop / STA {a + 1},X / {step} / "
            + ("BPL .loop / RTS" if n <= 32 else "CPX #$FC / BNE .loop / RTS"),
            "wide": f"REP #$10 / LDX #{h4(top)} / LDA #{y} / .loop / STA {a + 1},X / {step} / BPL .loop / "
            "SEP #$10 / RTS",
        },
    )


@family("asm", COMPLEX)
def max_of_array(d: Draw) -> Draft:
    """The largest byte of an array."""
    n, z = d.choice([5, 8, 10, 16]), d.direct()
    a = d.address(n + 2) + 1
    return Draft(
        entry="FindMax",
        ask=[
            f"store the largest of the {n} unsigned bytes at {a} at {z}",
            f"{z} = maximum of the byte array {a} to {a + (n - 1)} (unsigned)",
            f"go through the {n} unsigned bytes from {a} on and keep the highest in {z}",
            f"put the maximum of {n} unsigned bytes, the first at {a}, into {z}",
            f"find the highest unsigned byte in the {n}-byte table at {a} and save it to {z}",
            f"{z} becomes the largest value among the {n} unsigned bytes at {a}",
            f"{z} = max({a}[0], ..., {a}[{n - 1}]), unsigned",
            f"compare the {n} unsigned bytes from {a} on and write the greatest to {z}",
            f"write to {z} the highest of the {n} entries of the unsigned byte array {a}",
            f"start {z} at 0 and raise it to each larger unsigned byte of the {n} at {a}",
            f"take the {n} unsigned bytes at {a} and leave their maximum in {z}",
        ],
        ask_test=[
            f"the biggest of the {n} unsigned bytes at {a} goes to {z}",
            f"find which of the bytes {a} to {a + (n - 1)} is highest (unsigned) and copy it to {z}",
            f"in {z} keep the greatest unsigned byte of the {n}-byte buffer {a}",
        ],
        cases=d.cases(
            {a - 1: b"\xff" + bytes(d.number(0, top) for _ in range(n)) + b"\xff"}
            for top in [0, 1, *range(15, 239, 16)]
        ),
        after=lambda mem: {z: byte(max(mem.span(a, n)))},
        references={
            "memory": f"STZ {z} / LDX #{h2(n - 1)} / .loop / LDA {a},X / CMP {z} / BCC .next / STA {z} / "
            ".next / DEX / BPL .loop / RTS",
            "down": f"LDA #$00 / LDX #{h2(n - 1)} / .loop / CMP {a},X / BCS .next / LDA {a},X / .next / "
            f"DEX / BPL .loop / STA {z} / RTS",
        },
    )


@family("asm", COMPLEX)
def compare_blocks(d: Draw) -> Draft:
    """Answer with the carry whether two blocks are equal."""
    n = d.choice([4, 6, 8, 12])
    a, b = (x + 1 for x in d.addresses(2, n + 2))

    def case(i: int) -> dict[int, bytes]:
        one, other = d.block(n), None
        if i % 3:
            j = d.choice([0, n - 1, d.number(0, n - 1)])
            other = one[:j] + byte(one[j] ^ 1 << d.number(0, 7)) + one[j + 1 :]
        return {a - 1: b"\x00" + one + b"\x11", b - 1: b"\x01" + (other or one) + b"\x10"}

    return Draft(
        entry="SameBlock",
        ask=[
            f"compare the {n} bytes at {a} with the {n} bytes at {b}; carry set if all are equal, carry clear if not",
            f"memcmp of {n} bytes, {a} against {b}; equal gives carry 1, different carry 0",
            f"the carry tells whether the blocks {a} and {b} of {n} bytes have the same content (set = same)",
            f"return with carry set if the {n} bytes at {a} and at {b} are the same, with carry clear otherwise",
            f"check if the {n}-byte arrays {a} and {b} are equal; answer in the carry (1 = yes)",
            f"set the carry if {a}[i] = {b}[i] for all i from 0 to {n - 1}, else clear it",
            f"clear the carry if any of the {n} bytes at {a} differs from the one at {b}, else set it",
            f"C = 1 when {n} bytes from {a} on match those from {b} on, else 0",
            f"go through {n} bytes of {a} and {b}; the first difference returns carry clear, none returns carry set",
            f"test two buffers of {n} bytes, {a} and {b}; same gives carry set, not the same carry clear",
            f"carry = (memcmp({a}, {b}, {n}) == 0)",
        ],
        ask_test=[
            f"if {a} and {b} hold the same {n} bytes return carry set, if not carry clear",
            f"tell by the carry whether the {n} bytes at {a} equal those at {b} (set = yes)",
            f"return carry clear when the blocks {a} and {b} ({n} bytes) are different, and carry set when not",
        ],
        cases=d.cases(case(i) for i in range(16)),
        after=lambda mem: After(flags={"C": int(mem.span(a, n) == mem.span(b, n))}),
        references={
            "down": f"LDX #{h2(n - 1)} / .loop / LDA {a},X / CMP {b},X / BNE .no / DEX / BPL .loop / SEC / "
            "RTS / .no / CLC / RTS",
            "up": f"LDX #$00 / .loop / LDA {a},X / EOR {b},X / CMP #$01 / BCS .no / INX / CPX #{h2(n)} / "
            "BNE .loop / RTS / .no / CLC / RTS",
        },
    )


@family("asm", COMPLEX)
def ring_push(d: Draw) -> Draft:
    """Append to a ring buffer."""
    n = d.choice([8, 16, 32])
    a = d.address(n)
    v, h = d.directs(2)
    return Draft(
        entry="PushEvent",
        ask=[
            f"a ring buffer of {n} bytes is at {a}, its write index in {h} (0 to {n - 1}); store the byte "
            f"from {v} at that index and advance it, after {n - 1} comes 0",
            f"in the ring buffer {a} ({n} bytes) with head index {h}, buffer[head] = {v}, head = (head + 1) mod {n}",
            f"append the byte {v} to the circular buffer {a} of size {n}; the position {h} moves on and wraps",
            f"put the byte {v} into the {n}-byte ring at {a} at the index in {h} and increment {h} modulo {n}",
            f"mem[{a} + mem[{h}]] = mem[{v}], then {h} = ({h} + 1) mod {n}",
            f"store {v} at entry {h} of the array {a}, then add 1 to {h} and go back to 0 at {n}",
            f"copy the byte {v} to {a} + index, the index is in {h}; then count the index up, wrapping at {n}",
            f"take X from {h}, write the byte {v} to {a},X and set {h} to X + 1, or 0 when that is {n}",
            f"push the byte in {v} to the ring buffer at {a}, {n} bytes, write position in {h}, which goes "
            "up by one and wraps",
            f"save {v} in the circular buffer {a} at position {h} and move {h} to the next of the {n} "
            f"positions, 0 after {n - 1}",
        ],
        ask_test=[
            f"write the byte {v} into the {n}-byte ring {a} at position {h} and increment {h} modulo {n}",
            f"add {v} to the queue at {a} ({n} bytes, circular); {h} is its write index and moves on by "
            f"one, back to 0 at {n}",
            f"the byte {v} goes to the ring buffer {a} where the index {h} says; after it {h} is one more, modulo {n}",
        ],
        cases=d.cases(
            {h: byte(x), v: byte(d.number(0, 255))} for x in [*range(n - 8, n), *(d.number(0, n - 1) for _ in range(8))]
        ),
        after=lambda mem: {a + mem[h]: byte(mem[v]), h: byte((mem[h] + 1) % n)},
        references={
            "mask": f"LDX {h} / LDA {v} / STA {a},X / TXA / INC / AND #{h2(n - 1)} / STA {h} / RTS",
            "compare": f"LDX {h} / LDA {v} / STA {a},X / INX / CPX #{h2(n)} / BCC .store / LDX #$00 / "
            f".store / STX {h} / RTS",
        },
    )


@family("asm", COMPLEX)
def copy_string(d: Draw) -> Draft:
    """Copy text up to and including its end mark."""
    a, b = d.addresses(2, 40)
    end = h2(d.choice([0x00, 0xFF]))

    def text(n: int) -> bytes:
        return bytes(x ^ 1 if x == end else x for x in d.block(n)) + byte(end)

    def after(mem: Memory) -> dict[int, bytes]:
        n = 0
        while mem[a + n] != end:
            n += 1
        return {b: mem.span(a, n + 1)}

    return Draft(
        entry="CopyText",
        ask=[
            f"copy bytes from {a} to {b} up to and including the end mark {end} (within 32 bytes)",
            f"the text at {a} ends with {end}; copy it with its end mark to {b}, at most 32 bytes",
            f"strcpy from {a} to {b} for strings that end with {end}, at most 32 bytes with the end mark",
            f"copy the string at {a}, ended by {end}, to {b} with the {end}; it has at most 32 bytes",
            f"move the text {a} to {b}, byte by byte, and stop after the byte {end} is copied (32 bytes at most)",
            f"for i from 0, {b}[i] = {a}[i] until {end} has been copied, i stays below 32",
            f"read bytes from {a} on and write them from {b} on; the first {end} is the last byte to copy, "
            "at most 32 in all",
            f"store a copy of the {end}-terminated string {a} at {b}, with the end mark, 32 bytes at most",
            f"the bytes from {a} through the first {end} go to {b} (never more than 32)",
            f"put the text of {a} into {b}; it ends with {end}, which is copied too, within 32 bytes",
            f"load and store bytes from {a} to {b} until one was {end}; it comes within 32 bytes",
        ],
        ask_test=[
            f"write the {end}-terminated string {a} to {b} (end mark too, at most 32 bytes)",
            f"{b} gets the text that is at {a}, up to its end byte {end}, which is copied as well (32 bytes at most)",
            f"take bytes from {a}, leave them in {b} and stop once {end} is copied, 32 bytes or less",
        ],
        cases=d.cases({a: text(n)} for n in [0, 1, 2, 31, *(d.number(3, 30) for _ in range(8))]),
        after=after,
        references={
            "up": f"LDX #$FF / .loop / INX / LDA {a},X / STA {b},X / CMP #{end} / BNE .loop / RTS",
            "tested_first": f"LDX #$00 / .loop / LDA {a},X / STA {b},X / CMP #{end} / BEQ .done / INX / "
            "BRA .loop / .done / RTS",
        },
    )


@family("asm", COMPLEX)
def expand_runs(d: Draw) -> Draft:
    """Run-length decoding."""
    a, b = d.address(14), d.address(64)
    while abs(a - b) < 64:
        b = d.address(64)

    def data(runs: int) -> bytes:
        return b"".join(bytes([d.number(1, 9), d.number(0, 255)]) for _ in range(runs)) + b"\x00"

    def after(mem: Memory) -> dict[int, bytes]:
        out, at = b"", a
        while mem[at]:
            out += bytes([mem[at + 1]]) * mem[at]
            at = at + 2
        return {b: out} if out else {}

    return Draft(
        entry="Expand",
        ask=[
            f"decode run-length data at {a} to {b}; pairs of count and value, a count of 0 ends it; at most "
            "60 bytes come out",
            f"read (count, value) byte pairs from {a} until a count is zero and write each value count "
            f"times, from {b} on (60 bytes at most)",
            f"unpack run-length pairs (length, byte) at {a}, ended by length 0, into the buffer {b} (up to 60 bytes)",
            f"for each pair n, v at {a} write v n times to {b}, one run after the other; n = 0 stops; at most 60 bytes",
            f"the data at {a} is RLE, count then value, count 0 at the end; put the decoded bytes at {b} (up to 60)",
            f"expand the byte pairs count, value from {a} on into {b}; stop at a count of 0; the output has "
            "at most 60 bytes",
            f"decode the RLE block {a} (count byte, value byte, 0 as end mark) to {b}, no more than 60 bytes",
            f"write runs to {b}; {a} holds how many and which byte, again and again, until how many is 0 "
            "(60 bytes in all at most)",
            f"take count and value from {a}, store the value count times at {b}, go on with the next pair "
            "until the count is 0 (60 bytes at most)",
            f"run-length decoding from {a} to {b}, pairs (count, value), zero count ends, output up to 60 bytes",
        ],
        ask_test=[
            f"decompress {a} into {b}; every pair n, v stands for n times v and n = 0 stops; 60 bytes at most",
            f"{b} gets the decoded bytes (60 or less) of the count and value pairs that are at {a}, up to a "
            "count of zero",
            f"turn the run-length pairs (count, byte) from {a}, ended by count 0, back into bytes at {b}, "
            "up to 60 of them",
        ],
        cases=d.cases({a: data(n)} for n in [0, 1, 2, 3, 4, 5, 6, 6]),
        after=after,
        references={
            "exchange": f"LDX #$00 / TXY / .run / LDA {a},X / BEQ .done / PHA / LDA {a + 1},X / INX / INX "
            "/ XBA / PLA / .fill / XBA / "
            f"STA {b},Y / INY / XBA / DEC / BNE .fill / BRA .run / .done / RTS",
            "stack": f"LDX #$00 / LDY #$00 / .run / LDA {a},X / BEQ .done / PHA / INX / LDA {a},X / INX / "
            f".fill / STA {b},Y / INY / "
            "XBA / LDA $01,S / DEC / STA $01,S / BEQ .next / XBA / BRA .fill / .next / PLA / BRA .run / "
            ".done / RTS",
        },
    )


@family("asm", COMPLEX)
def sort_three(d: Draw) -> Draft:
    """Sort three bytes."""
    a = d.address(3)
    swap = "LDA {x} / CMP {y} / BCC .ok{i} / LDX {y} / STA {y} / STX {x} / .ok{i}"
    network = " / ".join(swap.format(x=a + x, y=a + y, i=i) for i, (x, y) in enumerate([(0, 1), (1, 2), (0, 1)]))
    return Draft(
        entry="SortThree",
        ask=[
            f"sort the three unsigned bytes at {a}, {a + 1} and {a + 2} into ascending order",
            f"arrange the 3 bytes from {a} on so that the smallest comes first (unsigned)",
            f"order the bytes at {a} so that {a} <= {a + 1} <= {a + 2}, unsigned, same three values",
            f"sort the 3-byte array at {a} from low to high, unsigned",
            f"put the three unsigned bytes at {a} in rising order",
            f"swap the bytes {a}, {a + 1} and {a + 2} until they rise (unsigned)",
            f"move the lowest of the three unsigned bytes at {a} to {a} and the highest to {a + 2}, the "
            "other between them",
            f"sort {a}[0] to {a}[2] as unsigned bytes, the smallest first",
            f"make the three unsigned bytes from {a} on stand in order, the largest last",
            f"the unsigned bytes {a}, {a + 1}, {a + 2} change places so that none is lower than the one before",
            f"write the three unsigned bytes at {a} back sorted, minimum first",
        ],
        ask_test=[
            f"put the three-entry list at {a} in rising unsigned order",
            f"let the bytes {a} to {a + 2} go from the smallest to the largest (unsigned)",
            f"order three unsigned bytes in place, they start at {a}, the lowest first",
        ],
        cases=d.cases({a: bytes(t)} for t in _triples(d)),
        after=lambda mem: {a: bytes(sorted(mem.span(a, 3)))},
        references={
            "loop": f"LDY #$02 / .pass / LDX #$00 / .loop / LDA {a},X / CMP {a + 1},X / BCC .next / PHA / "
            f"LDA {a + 1},X / STA {a},X / PLA / "
            f"STA {a + 1},X / .next / INX / CPX #$02 / BNE .loop / DEY / BNE .pass / RTS",
            "network": f"{network} / RTS",
        },
    )


def _triples(d: Draw) -> list[list[int]]:
    order = [
        [1, 2, 3],
        [1, 3, 2],
        [3, 2, 1],
        [2, 3, 1],
        [3, 1, 2],
        [2, 1, 3],
        [5, 5, 1],
        [1, 5, 5],
        [0x7F, 0x80, 0xFF],
        [0xFF, 0x80, 0],
    ]
    return order + [[d.number(0, 255) for _ in range(3)] for _ in range(6)]
