"""Memory access: copies, tables, arrays, pointers, far memory."""

from __future__ import annotations

from hafs_snes.tasks.dsl import Draft, Draw, byte, family, h2, h4, h6, long, word

MEMORY = "memory access"


@family("asm", MEMORY, easy=True)
def copy_word(d: Draw) -> Draft:
    """Copy a word."""
    a, b = d.addresses(2, 2)
    e = d.choice(["CopyWord", "CopySpeed", "SaveWord", "MoveWord"])
    return Draft(
        entry=e,
        ask=[
            f"copy the 16-bit value at {a} to {b}",
            f"copy two bytes from {a} to {b}",
            f"{b} = {a}, 16-bit",
            f"move the word at {a} to {b}",
            f"load the word {a} and store it at {b}",
            f"store the word from {a} in {b}",
            f"put the 16-bit number of {a} into {b}",
            f"set the word {b} to the word {a}",
            f"the word {b} becomes equal to the word {a}",
            f"write to {b} the 16-bit value from {a}",
            f"word[{b}] = word[{a}]",
            f"save the word {a} in the word {b}",
            f"the 16-bit value at {a} goes to {b}, {a} stays as it is",
            f"make the two bytes at {b} the same as those at {a}",
            f"transfer 16 bits from {a} to {b}",
            f"into {b} copy the word that {a} holds",
            f"keep a copy of the word {a} at {b}",
            f"fetch the two bytes at {a} and leave them in {b} as well",
        ],
        ask_test=[
            f"read 16 bits at {a} and write them to {b}",
            f"{b} gets the two bytes that are at {a}",
            f"take the word in {a} and make a copy of it in {b}",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16()),
        after=lambda mem: {b: mem.span(a, 2)},
        references={
            "wide": f"REP #$20 / LDA {a} / STA {b} / SEP #$20 / RTS",
            "bytes": f"LDA {a} / STA {b} / LDA {a + 1} / STA {b + 1} / RTS",
        },
    )


@family("asm", MEMORY, easy=True)
def swap_bytes(d: Draw) -> Draft:
    """Exchange two bytes."""
    a, b = d.addresses(2)
    e = d.choice(["SwapBytes", "SwapSlots", "Exchange", "SwapItems"])
    return Draft(
        entry=e,
        ask=[
            f"exchange the bytes at {a} and {b}",
            f"swap {a} with {b}",
            f"the bytes {a} and {b} change places",
            f"swap the byte at {a} and the byte at {b}",
            f"let {a} and {b} exchange their bytes",
            f"put the byte of {a} into {b} and the byte of {b} into {a}",
            f"the byte {a} goes to {b} and the old byte {b} goes to {a}",
            f"switch the values of the bytes {a} and {b}",
            f"exchange the contents of {a} and {b}, one byte each",
            f"store the value of {a} in {b} and the old value of {b} in {a}",
            f"swap two bytes of memory, {a} and {b}",
            f"make {a} hold what was in {b}, and {b} what was in {a}",
            f"{a} takes the byte of {b} and {b} takes the old byte of {a}",
            f"({a}, {b}) = ({b}, {a}), bytes",
            f"load both bytes {a} and {b} and store each at the other address",
            f"{a} and {b} trade values (bytes)",
            f"reverse the places of the byte in {a} and the byte in {b}",
            f"after it {a} has the byte that {b} had before, and {b} the one of {a}",
        ],
        ask_test=[
            f"swap what the bytes {a} and {b} hold",
            f"move the byte {a} to {b} and what was in {b} to {a}",
            f"after it {b} holds the old byte of {a} and the other way round",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), reversed(d.edges8()), strict=True)),
        after=lambda mem: {a: byte(mem[b]), b: byte(mem[a])},
        references={
            "index": f"LDX {a} / LDY {b} / STX {b} / STY {a} / RTS",
            "stack": f"LDA {a} / PHA / LDA {b} / STA {a} / PLA / STA {b} / RTS",
        },
    )


@family("asm", MEMORY, easy=True)
def array_load(d: Draw) -> Draft:
    """Read one entry of a byte array."""
    a = d.address(16)
    i, z = d.directs(2)
    e = d.choice(["LoadEntry", "GetItem", "ReadSlot", "FetchTile"])
    return Draft(
        entry=e,
        ask=[
            f"load the entry of the byte array at {a} with the index in {i} and store it at {z}",
            f"{z} = array[{i}], the byte array starts at {a}",
            f"read the byte at address {a} plus index into {z}, the index is in {i}",
            f"copy the byte at {a} + index to {z}, the index is in {i}",
            f"the byte array is at {a}, the index in {i}; copy that byte to {z}",
            f"use the byte at {i} as index into the table {a} and put the entry in {z}",
            f"look the byte in {i} up in the byte table at {a} and save the entry to {z}",
            f"mem[{z}] = mem[{a} + mem[{i}]]",
            f"take X from {i}, read {a},X and write it to {z}",
            f"from the table {a} get the byte whose number is in {i}; put it in {z}",
            f"{z} becomes the entry of the byte array {a} that {i} selects",
            f"store in {z} the byte of the array {a} at the index held in {i}",
            f"fetch the byte at {a} indexed by the byte in {i} and keep it in {z}",
            f"{i} holds an index into the bytes at {a}; move that entry to {z}",
            f"with the index from {i}, load a byte of the table at {a} into {z}",
            f"add the byte in {i} to the address {a} and copy the byte found there to {z}",
            f"the slot is in {i}; {z} gets that entry of the byte table {a}",
            f"array at {a}, index at {i}, result at {z}; all are bytes",
        ],
        ask_test=[
            f"the index is the byte at {i}; look it up in the array at {a}, result to {z}",
            f"into {z} goes the entry of the byte table {a} whose number {i} holds",
            f"select the byte of the array {a} by the index in {i} and leave it in {z}",
        ],
        cases=d.cases({i: byte(x), a + x: byte(d.number(0, 255))} for x in range(16)),
        after=lambda mem: {z: byte(mem[a + mem[i]])},
        references={
            "absolute": f"LDX {i} / LDA {a},X / STA {z} / RTS",
            "long": f"LDX {i.wide} / LDA {a.long},X / STA {z.wide} / RTS",
        },
    )


@family("asm", MEMORY)
def array_add(d: Draw) -> Draft:
    """Add a constant to one entry of a byte array."""
    a, i, k = d.address(16), d.direct(), d.immediate(2, 60)
    return Draft(
        entry="MoveSprite",
        ask=[
            f"add {k} to the entry of the byte array at {a} selected by the slot in {i} (0 to 15), modulo 256",
            f"X positions are a byte table at {a}, the slot number is in {i}; move that sprite right by {k:d}",
            f"array[{i}] = array[{i}] + {k}, with the byte array at {a}",
            f"raise the byte at {a} + index by {k}, the index is in {i}",
            f"take the index from {i} and add {k} to that byte of the table {a}",
            f"mem[{a} + mem[{i}]] += {k}",
            f"in the byte array {a}, increase the entry whose number is in {i} by {k}",
            f"load the entry {i} selects from the table at {a}, add {k} and store it back",
            f"the slot in {i} (0-15) names a byte of the table at {a}; make it {k} larger, wrapping at 8 bits",
            f"take X from {i} and add {k} to the byte {a},X",
            f"with the index in {i}, the byte of the array at {a} goes up by {k}",
            f"add the constant {k} to one byte of the array {a}, the one at the index held in {i}",
        ],
        ask_test=[
            f"slot {i} (a byte, 0-15) of the table {a} grows by {k}, modulo 256",
            f"let the entry of the byte table {a} whose index {i} holds go up by {k}",
            f"{i} is the index; add {k} to that entry of the bytes at {a} and keep it there",
        ],
        cases=d.cases({i: byte(x), a + x: byte(d.number(0, 255))} for x in range(16)),
        after=lambda mem: {a + mem[i]: byte(mem[a + mem[i]] + k)},
        references={
            "load_add": f"LDX {i} / LDA {a},X / CLC / ADC #{k} / STA {a},X / RTS",
            "constant_first": f"LDY {i} / LDA #{k} / CLC / ADC {a},Y / STA {a},Y / RTS",
        },
    )


@family("asm", MEMORY)
def word_array(d: Draw) -> Draft:
    """Read one entry of a word array."""
    a = d.address(32)
    i, z = d.directs(2)
    return Draft(
        entry="LoadSpeed",
        ask=[
            f"the word array at {a} has 16 entries; copy the entry with the index in {i} (0 to 15) to the word {z}",
            f"{z} = words[{i}], 16-bit values, array at {a}, the byte in {i} is below 16",
            f"fetch the word whose number is in {i} from the table {a} (2 bytes an entry) into {z}",
            f"load the 16-bit entry of the word table at {a} with the index in {i} and store it at {z}",
            f"word[{z}] = word[{a} + 2 * mem[{i}]]",
            f"store in {z} the word of the array {a} at the index held in {i} (0 to 15)",
            f"double the byte in {i}, use it as offset into {a} and copy the word there to {z}",
            f"the index below 16 is in {i}; {z} gets that entry of the word table {a}",
            f"use the byte at {i} (0-15) as index into the words at {a} and put the entry in the word {z}",
            f"with the index from {i}, load a word of the table at {a} into the word {z}",
            f"{a} is a table of 16 words, {i} holds the number of one; copy it to the word {z}",
            f"read the 16-bit number at address {a} + 2 * index into {z}, the index is the byte in {i}",
        ],
        ask_test=[
            f"use the byte at {i} (0-15) to select a 16-bit value from the array {a} and put it in {z}",
            f"into the word {z} goes the entry of the word table {a} whose number {i} holds",
            f"look up the word with the index {i} (one byte, below 16) in the word array {a}, result to {z}",
        ],
        cases=d.cases({i: byte(x), a + 2 * x: word(d.number(0, 0xFFFF))} for x in range(16)),
        after=lambda mem: {z: mem.span(a + 2 * mem[i], 2)},
        references={
            "wide": f"LDA {i} / ASL / TAX / REP #$20 / LDA {a},X / STA {z} / SEP #$20 / RTS",
            "bytes": f"LDA {i} / ASL / TAX / LDA {a},X / STA {z} / LDA {a + 1},X / STA {z + 1} / RTS",
        },
    )


@family("asm", MEMORY)
def table8(d: Draw) -> Draft:
    """Look a byte up in a table that belongs to the code."""
    a, z = d.address(), d.direct()
    values = [d.immediate() for _ in range(d.choice([4, 6, 8]))]
    shown, data, last = ", ".join(map(str, values)), ",".join(map(str, values)), len(values) - 1
    return Draft(
        entry="LookUp",
        ask=[
            f"use the byte at {a} (0 to {last}) as index into the table {shown} and store the entry at {z}",
            f"map {a} to a value, 0 to {last} -> {shown}, result to {z}",
            f"with its own byte table {shown}, {z} = table[{a}], {a} is at most {last}",
            f"look the byte {a} up in the table {shown} and put the entry in {z}",
            f"{z} becomes entry number {a} of the byte table {shown}, where {a} holds 0 to {last}",
            f"translate the byte in {a} (0-{last}) by the table {shown} and save it to {z}",
            f"put the bytes {shown} after the code and copy the one with the index in {a} to {z}",
            f"{z} = ({shown})[{a}], the byte {a} is 0 to {last}",
            f"store one of the bytes {shown} in {z}, the index 0 to {last} is in {a}",
            f"the byte at {a} (0-{last}) selects a byte of the table {shown}; write it to {z}",
            f"take X from {a} and load the byte number X of {shown} into {z}",
            f"the values 0, 1, 2 and so on of {a} give {shown}; store the one for {a} in {z}",
        ],
        ask_test=[
            f"the values for {a} = 0 to {last} are {shown}; store the right one in {z}",
            f"{a} holds an index from 0 to {last}; leave that entry of {shown} in {z}",
            f"into {z} goes the byte of the table {shown} whose number is in {a}",
        ],
        cases=d.cases({a: byte(i % len(values))} for i in range(16)),
        after=lambda mem: {z: byte(values[mem[a]])},
        references={
            "absolute": f"LDX {a} / LDA .table,X / STA {z} / RTS / .table / db {data}",
            "long": f"LDX {a} / LDA.l .table,X / STA {z} / RTS / .table / db {data}",
        },
    )


@family("asm", MEMORY)
def table16(d: Draw) -> Draft:
    """Look a word up in a table that belongs to the code."""
    a, z = d.address(), d.direct()
    values = [h4(d.number(0, 0xFFFF)) for _ in range(d.choice([4, 6]))]
    shown, data, last = ", ".join(map(str, values)), ",".join(map(str, values)), len(values) - 1
    lows, highs = ",".join(str(v.low) for v in values), ",".join(str(v.high) for v in values)
    return Draft(
        entry="LookUpWord",
        ask=[
            f"the byte at {a} (0 to {last}) selects a word of the table {shown}; store it at {z}",
            f"{z} (16-bit) = table[{a}], table words {shown}",
            f"index {a} (0 to {last}), word table {shown} in your code, result word in {z}",
            f"use the byte {a} as index into the words {shown} and put the entry in the word {z}",
            f"map {a} to a word, 0 to {last} -> {shown}, 16-bit result to {z}",
            f"look the byte {a} up in the word table {shown} and save the entry to the word {z}",
            f"the word {z} becomes entry number {a} of the table {shown}, where {a} holds 0 to {last}",
            f"put the words {shown} after the code and copy the one with the index in {a} to {z}",
            f"translate the byte in {a} (0-{last}) to a 16-bit value by the table {shown}, result in {z}",
            f"store one of the words {shown} in {z}, the index 0 to {last} is in {a}",
            f"word[{z}] = ({shown})[{a}], the byte {a} is 0 to {last}",
            f"load the word with the number in {a} from the table {shown} and write it to {z}",
        ],
        ask_test=[
            f"{shown} are the words for {a} = 0 to {last}; put the right one into the word {z}",
            f"{a} holds an index from 0 to {last}; leave that 16-bit entry of {shown} in {z}",
            f"into the word {z} goes the word of the table {shown} whose number is in {a}",
        ],
        cases=d.cases({a: byte(i % len(values))} for i in range(16)),
        after=lambda mem: {z: word(values[mem[a]])},
        references={
            "split": f"LDX {a} / LDA .low,X / STA {z} / LDA .high,X / STA {z + 1} / RTS / .low / db {lows} "
            "/ .high / "
            f"db {highs}",
            "wide": f"LDA {a} / ASL / TAX / REP #$20 / LDA .table,X / STA {z} / SEP #$20 / RTS / .table / dw {data}",
        },
    )


@family("asm", MEMORY)
def indirect_store(d: Draw) -> Draft:
    """Write through a 16-bit pointer with an index."""
    p, i = d.directs(2)
    k = d.immediate()
    return Draft(
        entry="PokeByte",
        ask=[
            f"the word at {p} points into low WRAM; store {k} at that address plus the byte index in {i}",
            f"write {k} to the byte the pointer {p} (16-bit) plus {i} (8-bit) refers to",
            f"*({p} + {i}) = {k}, with the 16-bit pointer at {p} and the offset byte at {i}",
            f"store the byte {k} through the 16-bit pointer in {p}, indexed by the byte in {i}",
            f"mem[word[{p}] + mem[{i}]] = {k}",
            f"take Y from {i} and store {k} at ({p}),Y",
            f"add the byte in {i} to the word in {p} and write {k} to that address",
            f"put {k} into the byte at the address word {p} + byte {i}",
            f"{p} holds a 16-bit address, {i} an offset; write {k} to address plus offset",
            f"with the pointer at {p} and the index in {i}, set the byte it points to to {k}",
            f"follow the word pointer in {p}, go on by the byte in {i} and store {k} there",
            f"save {k} at the place the 16-bit pointer {p} gives, moved on by the byte in {i}",
        ],
        ask_test=[
            f"the pointer is the word in {p}, its index the byte in {i}; let the byte there become {k}",
            f"the byte at (word {p}) + (byte {i}) becomes {k}",
            f"use {p} as a pointer (16 bits) and {i} as its index byte, and put {k} there",
        ],
        cases=d.cases({p: word(d.number(0x200, 0x1C00)), i: byte(x)} for x in d.edges8()),
        after=lambda mem: {mem.word(p) + mem[i]: byte(k)},
        references={
            "indexed": f"LDY {i} / LDA #{k} / STA ({p}),Y / RTS",
            "wide_index": f"REP #$30 / LDA {i} / AND #$00FF / CLC / ADC {p} / TAX / SEP #$20 / LDA #{k} / "
            "STA $0000,X / "
            "SEP #$10 / RTS",
        },
    )


@family("asm", MEMORY)
def long_pointer(d: Draw) -> Draft:
    """Read through a 24-bit pointer with an index."""
    p, z = d.directs(2, 4)
    i = d.address()
    return Draft(
        entry="PeekFar",
        ask=[
            f"{p} holds a 24-bit pointer (low byte first); read the byte at pointer plus the index in {i}, "
            f"store it at {z}",
            f"{z} = byte at (24-bit pointer in {p}) + (byte in {i})",
            f"follow the 3-byte pointer at {p}, add the 8-bit offset {i} and copy that byte to {z}",
            f"mem[{z}] = mem[long[{p}] + mem[{i}]]",
            f"load the byte through the 24-bit pointer in {p}, indexed by the byte in {i}, and store it at {z}",
            f"take Y from {i}, read [{p}],Y and write it to {z}",
            f"add the byte in {i} to the 24-bit address in {p} and copy the byte found there to {z}",
            f"with the long pointer at {p} (3 bytes) and the index in {i}, put the byte it points to in {z}",
            f"{z} becomes the byte that the 24-bit pointer {p} plus the offset byte {i} refers to",
            f"save to {z} the byte at the address long {p} + byte {i}",
            f"the address is the three bytes at {p} plus the byte in {i}; fetch a byte from it into {z}",
            f"get a byte from far memory by the 3-byte pointer {p} with offset byte {i} and keep it in {z}",
        ],
        ask_test=[
            f"fetch one byte through the long pointer {p} (3 bytes) with the index byte {i} and leave it in {z}",
            f"the byte at (24-bit value in {p}) + (byte in {i}) goes to {z}",
            f"use {p} as a pointer (24 bits) and {i} as its index byte, and put what is there in {z}",
        ],
        cases=d.cases(_far_vector(d, p, i, x) for x in d.edges8()),
        after=lambda mem: {z: byte(mem[(mem.long(p) & 0x1FFFF) + mem[i]])},
        references={
            "indexed": f"LDY {i} / LDA [{p}],Y / STA {z} / RTS",
            "wide_index": f"REP #$30 / LDA {i} / AND #$00FF / TAY / SEP #$20 / LDA [{p}],Y / SEP #$10 / STA {z} / RTS",
        },
    )


def _far_vector(d: Draw, pointer: int, index: int, offset: int) -> dict[int, bytes]:
    at = d.choice([0x00000, 0x10000]) + d.number(0x2000, 0xFE00)
    return {pointer: long(0x7E0000 + at), index: byte(offset), at + offset: byte(d.number(0, 255))}


@family("asm", MEMORY)
def struct_field(d: Draw) -> Draft:
    """Set a field of one record in an array of records."""
    size, k = d.choice([4, 8, 16]), d.immediate()
    a, i = d.address(8 * size), d.direct()
    f = d.number(1, size - 1)
    shifts = "ASL / " * (size.bit_length() - 1)
    return Draft(
        entry="SetField",
        ask=[
            f"records of {size} bytes start at {a}; store {k} in byte {f} of the record whose number (0 to "
            f"7) is in {i}",
            f"array of {size}-byte structs at {a}; set offset {f} of the struct number in {i} (0-7) to {k}",
            f"byte {a} + {size} * n + {f} becomes {k}, where n is the byte at {i}, below 8",
            f"mem[{a} + {size} * mem[{i}] + {f}] = {k}",
            f"multiply the byte in {i} (0 to 7) by {size} and write {k} to {a} + {f} plus that",
            f"each object has {size} bytes from {a} on; put {k} into byte {f} of the object selected by {i} (0-7)",
            f"write {k} to field {f} of a record; the records are {size} bytes each from {a}, the index is "
            f"in {i}, below 8",
            f"use the byte in {i} (0-7) as index of {size}-byte records at {a} and set their byte {f} to {k}",
            f"with the record number in {i} (0 to 7), store {k} at offset {f} of it; the table at {a} has "
            f"{size} bytes an entry",
            f"set byte {f} of the entry in {i} to {k}; entries at {a} are {size} bytes long, {i} holds 0 to 7",
            f"records[n].byte{f} = {k} with n in {i} (0-7), records of {size} bytes at {a}",
        ],
        ask_test=[
            f"object n (in {i}, 0 to 7) has {size} bytes from {a} + {size} * n on; write {k} to its byte {f}",
            f"take the number of a {size}-byte struct from {i} (below 8) and put {k} in its byte {f}, the "
            f"first struct is at {a}",
            f"{k} goes to offset {f} of a {size}-byte record of the table {a}; its number is in {i} (0-7)",
        ],
        cases=d.cases({i: byte(x)} for x in [*range(8), *range(8)]),
        after=lambda mem: {a + size * mem[i] + f: byte(k)},
        references={
            "folded": f"LDA {i} / {shifts}TAX / LDA #{k} / STA {a + f},X / RTS",
            "added": f"LDA {i} / {shifts}CLC / ADC #{h2(f)} / TAX / LDA #{k} / STA {a},X / RTS",
        },
    )


@family("asm", MEMORY)
def far_byte(d: Draw) -> Draft:
    """Copy a byte between places only long addressing reaches."""
    a, b = h6(0x7F0000 + d.number(0, 0xFFFF)), h6(0x7E2000 + d.number(0, 0xDFFF))
    return Draft(
        entry="CopyFar",
        ask=[
            f"copy the byte at {a} to {b}, the data bank is not $7E or $7F",
            f"read {a} and write the value to {b}, with long addressing",
            f"copy one byte from {a} to {b} and keep the data bank as it is",
            f"{b} = {a} (one byte each)",
            f"load the byte at long address {a} and store it at {b}",
            f"move the byte {a} in far WRAM to {b}",
            f"mem[{b}] = mem[{a}], both long addresses",
            f"put the byte of {a} into {b}, data bank unchanged",
            f"the byte {b} becomes equal to the byte {a}",
            f"save the byte from address {a} at address {b}",
            f"make {b} hold the same byte as {a}",
            f"fetch {a} (8 bits) with long addressing and keep a copy at {b}",
        ],
        ask_test=[
            f"the byte in {a} is to be copied to {b}, data bank unchanged",
            f"{b} gets the byte that is at {a}",
            f"take one byte of WRAM from {a} and leave it also in {b}",
        ],
        cases=d.cases({a & 0x1FFFF: byte(x)} for x in d.edges8()),
        after=lambda mem: {b & 0x1FFFF: byte(mem[a & 0x1FFFF])},
        references={
            "long": f"LDA {a} / STA {b} / RTS",
            "bank": f"PHB / LDA #$7F / PHA / PLB / LDA {h4(a)} / STA {b} / PLB / RTS",
        },
    )


@family("asm", MEMORY)
def clear_block(d: Draw) -> Draft:
    """Zero a block of low WRAM."""
    n = d.choice([8, 16, 24, 32, 48, 64, 96, 128])
    a = d.address(n)
    return Draft(
        entry="ClearBuffer",
        ask=[
            f"set the {n} bytes starting at {a} to zero",
            f"zero-fill {a} to {a + (n - 1)}",
            f"clear the {n}-byte buffer at {a}",
            f"store 0 in each of the {n} bytes from {a} on",
            f"write zeros to the {n} bytes at {a}",
            f"for i = 0 to {n - 1}, {a}[i] = 0",
            f"fill {n} bytes of memory at {a} with $00",
            f"make all bytes from {a} through {a + (n - 1)} zero",
            f"reset the {n} bytes of the array at {a} to 0",
            f"memset({a}, 0, {n})",
            f"clear memory from {a} up to and including {a + (n - 1)}",
            f"loop over the {n} bytes at {a} and clear each of them",
        ],
        ask_test=[
            f"the buffer at {a} ({n} bytes) is set to only zeros",
            f"put 0 into {n} bytes, the first at {a}",
            f"every byte of the array {a} becomes zero, {n} bytes in all",
        ],
        cases=d.cases({} for _ in range(8)),
        after=lambda mem: {a: bytes(n)},
        references={
            "down": f"LDX #{h2(n - 1)} / .loop / STZ {a},X / DEX / BPL .loop / RTS",
            "words": f"REP #$20 / LDX #{h2(n - 2)} / .loop / STZ {a},X / DEX / DEX / BPL .loop / SEP #$20 / RTS",
            "up": f"LDX #$00 / .loop / STZ {a},X / INX / CPX #{h2(n)} / BNE .loop / RTS",
        },
    )


@family("asm", MEMORY)
def fill_block(d: Draw) -> Draft:
    """Fill a block of far WRAM with one value."""
    n, a, k = d.choice([64, 128, 200, 256, 300]), h6(0x7E2000 + d.number(0, 0xD000)), d.immediate(1)
    return Draft(
        entry="FillBuffer",
        ask=[
            f"fill the {n} bytes of WRAM starting at {a} with {k}",
            f"store {k} into {a} through {a + (n - 1)}",
            f"memset({a}, {k}, {n})",
            f"write {k} to each of the {n} bytes from {a} on",
            f"set all {n} bytes of the buffer at {a} to {k}",
            f"for i = 0 to {n - 1}, {a}[i] = {k}",
            f"put the byte {k} into the {n} bytes at {a}",
            f"make every byte from {a} up to {a + (n - 1)} equal to {k}",
            f"{n} bytes of far WRAM at {a} are to hold {k}",
            f"loop over the {n} bytes at {a} and store {k} in each of them",
            f"copy the constant {k} to {n} bytes of memory, the first at {a}",
            f"the buffer {a} of {n} bytes gets the value {k} in every byte",
        ],
        ask_test=[
            f"every one of the {n} bytes from {a} on becomes {k}",
            f"the memory {a} to {a + (n - 1)} is filled with {k}",
            f"{k} goes to all {n} bytes of the array at {a}",
        ],
        cases=d.cases({} for _ in range(6)),
        after=lambda mem: {a & 0x1FFFF: bytes([k]) * n},
        references={
            "bytes": f"REP #$10 / LDX #{h4(n - 1)} / LDA #{k} / .loop / STA {a},X / DEX / BPL .loop / SEP #$10 / RTS",
            "words": f"REP #$30 / LDX #{h4(n - 2)} / LDA #{h4(k * 257)} / .loop / STA {a},X / DEX / DEX / "
            "BPL .loop / "
            "SEP #$30 / RTS",
            "move": f"PHB / LDA #{k} / STA {a} / REP #$30 / LDX #{h4(a)} / LDY #{h4(a + 1)} / LDA "
            f"#{h4(n - 2)} / "
            "MVN $7E,$7E / SEP #$30 / PLB / RTS",
        },
    )


@family("asm", MEMORY)
def copy_block(d: Draw) -> Draft:
    """Copy a block of low WRAM."""
    n = d.choice([8, 16, 24, 32, 64, 100])
    a, b = d.addresses(2, 104)
    return Draft(
        entry="CopyBuffer",
        ask=[
            f"copy {n} bytes from {a} to {b} (the areas do not overlap)",
            f"memcpy of {n} bytes, source {a}, destination {b}",
            f"copy the {n}-byte block at {a} to {b}",
            f"memcpy({b}, {a}, {n})",
            f"for i = 0 to {n - 1}, {b}[i] = {a}[i]",
            f"move the {n} bytes starting at {a} to {b}",
            f"load each of the {n} bytes from {a} on and store it at the same place from {b} on",
            f"make the {n} bytes at {b} the same as those at {a}",
            f"write a copy of the {n}-byte buffer {a} to the buffer {b}",
            f"read {n} bytes at {a} and put them in {b}, in the same order",
            f"the block of {n} bytes at {a} goes to {b}, {a} stays as it is",
            f"save {n} bytes of the array {a} in the array {b}",
        ],
        ask_test=[
            f"transfer {a} to {a + (n - 1)} to the bytes {b} to {b + (n - 1)}",
            f"{b} gets the {n} bytes that are at {a}",
            f"from the buffer at {a} take {n} bytes and keep a copy of them at {b}",
        ],
        cases=d.cases({a: d.block(n)} for _ in range(8)),
        after=lambda mem: {b: mem.span(a, n)},
        references={
            "down": f"LDX #{h2(n - 1)} / .loop / LDA {a},X / STA {b},X / DEX / BPL .loop / RTS",
            "words": f"REP #$20 / LDX #{h2(n - 2)} / .loop / LDA {a},X / STA {b},X / DEX / DEX / BPL .loop "
            "/ SEP #$20 / RTS",
            "move": f"PHB / REP #$30 / LDX #{a} / LDY #{b} / LDA #{h4(n - 1)} / MVN $7E,$7E / SEP #$30 / PLB / RTS",
        },
    )


@family("asm", MEMORY)
def move_banks(d: Draw) -> Draft:
    """Copy a block from one bank of WRAM to the other."""
    n, a, b = (d.choice([64, 128, 200, 256]), h6(0x7E2000 + d.number(0, 0xD000)), h6(0x7F0000 + d.number(0, 0xF000)))
    return Draft(
        entry="MoveData",
        ask=[
            f"copy {n} bytes from {a} to {b} with MVN; in asar the first MVN operand is the destination bank",
            f"use a block move to transfer {n} bytes from {a} to {b}; asar writes MVN dest,source",
            f"the {n} bytes at {a} go to {b}, the data bank must be kept",
            f"memcpy({b}, {a}, {n}) from bank $7E to bank $7F",
            f"copy the {n}-byte block at {a} to {b} in the other WRAM bank",
            f"move {n} bytes of far WRAM from {a} to {b}, data bank unchanged",
            f"for i = 0 to {n - 1}, {b}[i] = {a}[i], long addresses",
            f"load each of the {n} bytes from {a} on and store it from {b} on",
            f"block move of {n} bytes, source {a}, destination {b}; keep the data bank",
            f"make the {n} bytes at {b} the same as those at {a}",
            f"write a copy of the {n}-byte buffer {a} to the buffer {b}",
            f"save {n} bytes of bank $7E, from {a} on, at {b} in bank $7F",
        ],
        ask_test=[
            f"{n} bytes of bank $7E at {a} are to be copied to bank $7F at {b}, data bank unchanged",
            f"{b} gets the {n} bytes that are at {a}",
            f"transfer {a} to {a + (n - 1)} with a block move to {b}",
        ],
        cases=d.cases({a & 0x1FFFF: d.block(n)} for _ in range(4)),
        after=lambda mem: {b & 0x1FFFF: mem.span(a & 0x1FFFF, n)},
        references={
            "move": f"PHB / REP #$30 / LDX #{h4(a)} / LDY #{h4(b)} / LDA #{h4(n - 1)} / MVN $7F,$7E / SEP "
            "#$30 / PLB / RTS",
            "loop": f"REP #$10 / LDX #{h4(n - 1)} / .loop / LDA {a},X / STA {b},X / DEX / BPL .loop / SEP #$10 / RTS",
        },
    )
