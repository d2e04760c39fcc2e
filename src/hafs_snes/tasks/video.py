"""Hardware interaction: DMA, video memory, palettes, sprites.

Video memory can be written in these tasks because the harness runs code in forced blank.
"""

from __future__ import annotations

from collections.abc import Sequence

from hafs_snes.tasks.dsl import After, Draft, Draw, Hex, Memory, family, h2, h4, h6, long, word

HARDWARE = "hardware interaction"


def _set8(registers: Sequence[tuple[int, int]]) -> str:
    """Write byte constants to registers."""
    return " / ".join(f"LDA #{h2(value)} / STA {h4(at)}" for at, value in registers)


def _set16(registers: Sequence[tuple[int, int]]) -> str:
    """Write word constants to registers; needs 16-bit index registers."""
    return " / ".join(f"LDX #{h4(value)} / STX {h4(at)}" for at, value in registers)


def _dma(
    target: int, mode: int, source: int, size: int, first: str, words: Sequence[tuple[int, int]] = (), channel: int = 0
) -> dict[str, str]:
    """Two ways to run a DMA, after the code `first` and the word registers `words`: in words or bytes."""
    o = 0x4300 + (channel << 4)
    start = _set8([(0x420B, 1 << channel)])
    halves = [(at + i, value >> 8 * i) for at, value in words for i in (0, 1)]
    channel8 = [(o, mode), (o + 1, target), (o + 2, source), (o + 3, source >> 8), (o + 4, source >> 16)]
    channel16 = _set16([*words, (o, mode | target << 8), (o + 2, source), (o + 5, size)])
    bank = _set8([(o + 4, source >> 16)])
    all8 = _set8([*halves, *channel8, (o + 5, size), (o + 6, size >> 8)])
    return {
        "words": f"REP #$10 / {first} / {channel16} / {bank} / {start} / SEP #$10 / RTS",
        "bytes": f"{first} / {all8} / {start} / RTS",
    }


def _source(d: Draw, size: int) -> Hex:
    return h6(0x7E2000 + 2 * d.number(0, (0xE000 - size) // 2))


@family("asm", HARDWARE)
def dma_vram(d: Draw) -> Draft:
    """Copy a block to video memory."""
    n, w = d.choice([0x20, 0x40, 0x80, 0x100, 0x200]), h4(16 * d.number(0, 0x5FF))
    s = _source(d, n)
    o = s & 0x1FFFF
    return Draft(
        entry="UploadTiles",
        ask=[
            f"in forced blank, DMA {n} bytes from {s} to VRAM word address {w} with channel 0 (mode 1 to "
            "$2118, VMAIN $80)",
            f"VRAM DMA on channel 0, source {s}, size {n} bytes, VRAM word address {w}; set VMAIN to $80 "
            "first (screen blanked)",
            f"copy {n} bytes of tiles at {s} to VRAM word {w} with DMA channel 0 in forced blank; set $2115 too",
            f"transfer {h4(n)} bytes from {s} to VRAM address {w} (words) by DMA, channel 0, VMAIN $80, in "
            "forced blank",
            f"set VMAIN to $80 and the VRAM address to {w}, then DMA {n} bytes at {s} to $2118/$2119 on "
            "channel 0 (blanked)",
            f"load tiles into VRAM, {n} bytes from {s} to word address {w}, by DMA channel 0 with VMAIN $80 "
            "(screen blanked)",
            f"send {n} bytes of graphics from {s} to VRAM word address {w} with DMA channel 0 in forced "
            "blank, $2115 = $80",
            f"write the {n}-byte block {s} to VRAM from word address {w} on, using DMA channel 0 and VMAIN "
            "$80, in forced blank",
            f"VRAM[{w}] (words) = {n} bytes at {s}, by DMA on channel 0, VMAIN $80, the screen is blanked",
            f"move {h4(n)} bytes from {s} by DMA channel 0 through $2118/$2119 to VRAM word {w}; VMAIN $80, "
            "forced blank",
            f"the {n} bytes at {s} go to VRAM word address {w} by DMA (channel 0, VMAIN $80, forced blank)",
        ],
        ask_test=[
            f"send {n} bytes from {s} through DMA channel 0 to $2118, to word address {w} of VRAM (VMAIN = "
            "$80, blanked)",
            f"VRAM from word {w} on gets the {n} bytes that are at {s}; DMA channel 0, $2115 = $80, in forced blank",
            f"use DMA channel 0 to put the {n} bytes of tiles {s} into VRAM at word address {w}; blanked, "
            "VMAIN not yet set",
        ],
        cases=d.cases({o: d.block(n)} for _ in range(4)),
        after=lambda mem: After(vram={2 * w: mem.span(o, n)}),
        references=_dma(0x18, 1, s, n, _set8([(0x2115, 0x80)]), [(0x2116, w)]),
    )


@family("asm", HARDWARE)
def dma_vram_queue(d: Draw) -> Draft:
    """A VRAM transfer whose parameters are variables."""
    a = d.address(7)
    src, dst, size = a, a + 3, a + 5

    def case() -> dict[int, bytes]:
        n, s = d.choice([0x20, 0x40, 0x60, 0x100]), 0x7E2000 + 2 * d.number(0, 0x6000)
        return {a: long(s) + word(16 * d.number(0, 0x5FF)) + word(n), s & 0x1FFFF: d.block(n)}

    def after(mem: Memory) -> After:
        return After(vram={2 * mem.word(dst): mem.span(mem.long(src) & 0x1FFFF, mem.word(size))})

    return Draft(
        entry="RunQueue",
        ask=[
            f"DMA to VRAM on channel 0 with 24-bit source at {src}, VRAM word address at {dst}, size in "
            f"bytes (word) at {size}; forced blank, set VMAIN to $80",
            f"the source address (3 bytes) is in {src}, the VRAM word address in {dst}, the byte count "
            f"(word) in {size}; copy it by DMA channel 0, VMAIN $80, screen blanked",
            f"a queue entry at {src} holds source (3 bytes), VRAM word address (2) and length (2); do its "
            "DMA with channel 0 and VMAIN $80 (forced blank)",
            f"copy to VRAM by DMA channel 0 what the variables say, source long at {src}, word address at "
            f"{dst}, byte count word at {size}; VMAIN $80, blanked",
            f"take the source from {src} (24 bits), the VRAM word address from {dst} and the length from "
            f"{size} (words) for a DMA on channel 0; VMAIN $80, forced blank",
            f"set $4302-$4304 from {src}, $2116 from {dst} and $4305 from {size}, then DMA to $2118/$2119 "
            "on channel 0 with VMAIN $80 (blanked)",
            f"write word[{size}] bytes from the address long[{src}] to VRAM word address word[{dst}] by DMA "
            "channel 0, VMAIN $80, in forced blank",
            f"run a VRAM DMA on channel 0 in forced blank, VMAIN $80; its 3-byte source is at {src}, its "
            f"word address at {dst}, its length at {size}",
            f"send the block whose 24-bit address is in {src} and whose length is the word {size} to VRAM "
            f"word address [{dst}] by DMA channel 0 (VMAIN $80, blanked)",
            f"do the VRAM transfer stored at {src}, 24-bit source, 16-bit VRAM word address, 16-bit size, "
            "with DMA channel 0 in forced blank, $2115 = $80",
        ],
        ask_test=[
            f"upload by DMA channel 0 what the variables say; 3-byte source pointer {src}, word address in "
            f"VRAM {dst}, length word {size}; VMAIN $80, forced blank",
            f"the long pointer {src}, the VRAM word address {dst} and the size word {size} are in memory; "
            "use DMA channel 0 to copy that block to VRAM (VMAIN $80, blanked)",
            f"from the queue entry {src} take source (24 bits), VRAM word address and byte count, and run "
            "that DMA on channel 0, VMAIN $80, screen blanked",
        ],
        cases=d.cases(case() for _ in range(5)),
        after=after,
        references={
            "words": f"REP #$10 / LDA #$80 / STA $2115 / LDX {dst} / STX $2116 / LDX #$1801 / STX $4300 / "
            f"LDX {src} / STX $4302 / "
            f"LDA {src + 2} / STA $4304 / LDX {size} / STX $4305 / LDA #$01 / STA $420B / SEP #$10 / RTS",
            "bytes": "LDA #$80 / STA $2115 / LDA #$01 / STA $4300 / LDA #$18 / STA $4301 / "
            f"LDA {dst} / STA $2116 / LDA {dst + 1} / STA $2117 / LDA {src} / STA $4302 / LDA {src + 1} / "
            "STA $4303 / "
            f"LDA {src + 2} / STA $4304 / LDA {size} / STA $4305 / LDA {size + 1} / STA $4306 / LDA #$01 / "
            "STA $420B / RTS",
        },
    )


@family("asm", HARDWARE)
def dma_palette(d: Draw) -> Draft:
    """Copy colours to CGRAM."""
    n = d.choice([0x10, 0x20, 0x40, 0x80])
    c, s = h2(16 * d.number(0, 15) if n == 0x10 else 16 * d.number(0, 8)), _source(d, n)
    o, channel = s & 0x1FFFF, d.number(0, 3)
    first = _set8([(0x2121, c)])
    return Draft(
        entry="LoadPalette",
        ask=[
            f"DMA {n // 2} colours ({n} bytes) from {s} to CGRAM starting at colour {c}, channel {channel}, "
            "in forced blank",
            f"{n} bytes of palette from {s} go by DMA channel {channel} to $2122, CGRAM start index {c}, in "
            "forced blank",
            f"set the CGRAM address to {c} and send {n} bytes from {s} with DMA channel {channel} (the "
            "screen is blanked)",
            f"copy {n // 2} colours at {s} to CGRAM from colour {c} on, by DMA channel {channel} in forced blank",
            f"load the palette at {s}, {n} bytes, into CGRAM starting at colour {c} with DMA channel "
            f"{channel} (blanked)",
            f"write {c} to $2121, then DMA {n} bytes from {s} to $2122 on channel {channel}, screen blanked",
            f"transfer {h4(n)} bytes from {s} to CGRAM entry {c} by DMA, channel {channel}, in forced blank",
            f"use DMA channel {channel} to put {n // 2} colours of {s} into the palette from index {c} on "
            "(forced blank)",
            f"CGRAM DMA on channel {channel}, source {s}, size {n} bytes, first colour {c}, in forced blank",
            f"move {n // 2} colours ({n} bytes) stored at {s} to CGRAM by DMA channel {channel}, first "
            f"entry {c} (blanked)",
            f"the {n} bytes at {s} become the CGRAM colours from {c} on; use DMA channel {channel} in forced blank",
        ],
        ask_test=[
            f"the {n // 2} colours stored at {s} go into CGRAM from index {c} on by DMA channel {channel} (blanked)",
            f"CGRAM from colour {c} on gets the {n} bytes that are at {s}; DMA channel {channel}, in forced blank",
            f"send {n} bytes of colours from {s} through DMA channel {channel} to palette entry {c} (screen blanked)",
        ],
        cases=d.cases({o: _colours(d, n)} for _ in range(4)),
        after=lambda mem: After(cgram={2 * c: mem.span(o, n)}),
        references=_dma(0x22, 0, s, n, first, channel=channel),
    )


def _colours(d: Draw, n: int) -> bytes:
    """`n` bytes of 15-bit colours."""
    return bytes(x & 0x7F if i & 1 else x for i, x in enumerate(d.block(n)))


@family("asm", HARDWARE)
def dma_sprites(d: Draw) -> Draft:
    """Copy the sprite table."""
    s, channel = h6(0x7E0200 + 0x20 * d.number(0, 0xC0)), d.number(0, 3)
    o = s & 0x1FFFF
    zero = "STZ $2102 / STZ $2103"
    return Draft(
        entry="UploadSprites",
        ask=[
            f"transfer the 544-byte sprite buffer at {s} to OAM (from OAM address 0) with DMA channel "
            f"{channel} in forced blank",
            f"set OAMADD to 0, then DMA $0220 bytes from {s} to $2104 on channel {channel}, in forced blank",
            f"copy $0220 bytes at {s} into OAM starting at 0 by DMA channel {channel} (the screen is blanked)",
            f"DMA the OAM buffer {s} (544 bytes) to $2104 on channel {channel}, OAM address 0, in forced blank",
            f"clear $2102/$2103 and send 544 bytes from {s} to OAM with DMA channel {channel} (blanked)",
            f"load all of OAM from the 544 bytes at {s} by DMA channel {channel} in forced blank",
            f"OAM DMA on channel {channel}, source {s}, size $0220 bytes, from OAM address 0, screen blanked",
            f"write the sprite table at {s}, $0220 bytes, to OAM from address 0 on with DMA channel "
            f"{channel} (forced blank)",
            f"use DMA channel {channel} to put the 544 bytes of sprites at {s} into OAM from 0 on, in forced blank",
            f"move the 544 bytes of the OAM copy at {s} to OAM by DMA channel {channel}, starting at "
            "address 0 (blanked)",
            f"the 544-byte sprite data at {s} goes to OAM address 0 by DMA channel {channel}, in forced blank",
        ],
        ask_test=[
            f"send the sprite buffer ({s}, 544 bytes) to OAM from address 0 on by DMA on channel {channel}, blanked",
            f"OAM from 0 on gets the $0220 bytes that are at {s}; DMA channel {channel}, in forced blank",
            f"fill OAM from address 0 with the 544 bytes stored at {s}, by DMA channel {channel} (screen blanked)",
        ],
        cases=d.cases({o: d.block(0x220)} for _ in range(3)),
        after=lambda mem: After(oam={0: mem.span(o, 0x220)}),
        references=_dma(0x04, 0, s, 0x220, zero, channel=channel),
    )


@family("asm", HARDWARE)
def dma_fill_wram(d: Draw) -> Draft:
    """Fill a large block of WRAM by DMA."""
    n, a, k = d.choice([0x200, 0x300, 0x400, 0x600]), h6(0x7E2000 + d.number(0, 0xC000)), d.immediate(1)
    return Draft(
        entry="FillWram",
        ask=[
            f"fill {h4(n)} bytes of WRAM starting at {a} with {k}; a DMA to $2180 from a fixed byte in ROM is one way",
            f"write {k} to {h4(n)} bytes at {a}; DMA through the WRAM port ($2180-$2183) is allowed",
            f"the {n} bytes from {a} on become {k}; use the WRAM data port or a loop",
            f"set {n} bytes of WRAM from {a} on to {k}, by DMA or by a loop",
            f"fill the {h4(n)}-byte area at {a} in WRAM with {k}, for example with a fixed-source DMA to $2180",
            f"store {k} in each of the {n} bytes from {a} on, with DMA to $2180 or without",
            f"fill WRAM from {a} to {a + (n - 1)} with {k}, by DMA through $2180 if you like",
            f"make all {n} bytes at {a} {k}, with a DMA to the WRAM port or a loop",
            f"memset({a}, {k}, {n}) by a DMA to $2180 or a loop with 16-bit index",
            f"put {k} into the {n} bytes of far WRAM starting at {a}; a DMA to $2180 or a loop will do",
            f"store {k} all over the {h4(n)} bytes of WRAM at {a}",
        ],
        ask_test=[
            f"every byte of WRAM from {a} on becomes {k}, {n} bytes in all, by DMA or a loop",
            f"copy {k} into {h4(n)} bytes of WRAM, the first at {a}, for example by DMA to $2180",
            f"fill {a} to {a + (n - 1)} with the byte {k}, by a fixed-source DMA or a loop",
        ],
        cases=d.cases({} for _ in range(3)),
        after=lambda mem: {a & 0x1FFFF: bytes([k]) * n},
        frames=6,
        references={
            "loop": f"REP #$30 / LDX #{h4(n - 2)} / LDA #{h4(k * 257)} / .loop / STA {a},X / DEX / DEX / BPL .loop / "
            "SEP #$30 / RTS",
            "dma": f"REP #$10 / LDX #{h4(a)} / STX $2181 / STZ $2183 / LDX #$8008 / STX $4300 / LDX #.value / STX "
            "$4302 / "
            f"PHK / PLA / STA $4304 / LDX #{h4(n)} / STX $4305 / LDA #$01 / STA $420B / SEP #$10 / RTS / .value / db "
            f"{k}",
        },
    )


@family("asm", HARDWARE)
def vram_word(d: Draw) -> Draft:
    """Write one word of video memory."""
    a, w = d.address(2), h4(d.number(0, 0x7FFE))
    return Draft(
        entry="WriteTile",
        ask=[
            f"write the 16-bit tilemap entry stored at {a} to VRAM word address {w} (forced blank is on; "
            "set VMAIN to $80)",
            f"write one word to VRAM, value at {a}, VRAM word address {w}, through $2115-$2119, in forced blank",
            f"VMAIN = $80, VRAM address {w}, data = the word at {a} (the screen is blanked)",
            f"copy the word at {a} to VRAM word {w} in forced blank, with VMAIN $80",
            f"VRAM[{w}] = word[{a}] by $2116 and $2118, VMAIN $80, forced blank",
            f"set the VRAM word at {w} to the 16-bit value in {a}; the screen is blanked, $2115 must be $80",
            f"store the word {a} in video memory at word address {w} (forced blank, VMAIN $80)",
            f"put the tile word of {a} into VRAM word address {w}; set $2115 to $80 first, screen blanked",
            f"load the word {a} and send it to $2118/$2119 for VRAM word address {w}, in forced blank with VMAIN $80",
            f"the word at {a} goes to VRAM address {w} (words), VMAIN $80, the screen is blanked",
            f"set $2115 to $80, $2116 to {w} and write the two bytes at {a} to $2118 and $2119 (forced blank)",
        ],
        ask_test=[
            f"VRAM word {w} gets the value of the word at {a} (blanked screen, VMAIN not yet set)",
            f"with VMAIN $80 in forced blank, move the 16-bit value {a} to word address {w} of VRAM",
            f"take the tile word in {a} and leave it in VRAM at word {w}; set $2115 too, screen blanked",
        ],
        cases=d.cases({a: word(x)} for x in d.edges16(n=6)),
        after=lambda mem: After(vram={2 * w: mem.span(a, 2)}),
        references={
            "wide": f"LDA #$80 / STA $2115 / REP #$20 / LDA #{w} / STA $2116 / LDA {a} / STA $2118 / SEP #$20 / RTS",
            "bytes": f"LDA #$80 / STA $2115 / LDA #{w.low} / STA $2116 / LDA #{w.high} / STA $2117 / LDA "
            f"{a} / STA $2118 / "
            f"LDA {a + 1} / STA $2119 / RTS",
        },
    )


@family("asm", HARDWARE)
def vram_fill(d: Draw) -> Draft:
    """Fill consecutive words of video memory."""
    n, w, k = d.choice([16, 32, 64, 128]), h4(32 * d.number(0, 0x3E0)), h4(d.number(1, 0xFFFF))
    setup = f"LDA #$80 / STA $2115 / REP #$20 / LDA #{w} / STA $2116 / LDA #{k}"
    return Draft(
        entry="FillMap",
        ask=[
            f"write the word {k} to {n} consecutive VRAM words from word address {w} on, in forced blank; "
            "set VMAIN to $80",
            f"fill VRAM words {w} to {w + (n - 1)} with {k} (forced blank, VMAIN $80)",
            f"{n} times the tile word {k} to $2118/$2119, starting at VRAM address {w}, with VMAIN = $80 in "
            "forced blank",
            f"store {k} in {n} VRAM words from {w} on; the screen is blanked, set $2115 to $80",
            f"set {n} words of VRAM starting at word address {w} to {k}, VMAIN $80, in forced blank",
            f"VRAM[{w} + i] = {k} for i = 0 to {n - 1}, VMAIN $80, forced blank",
            f"set VMAIN to $80 and the VRAM address to {w}, then write {k} {n} times (screen blanked)",
            f"put the tile word {k} into {n} tilemap entries from VRAM word {w} on (forced blank, VMAIN $80)",
            f"make all VRAM words from {w} through {w + (n - 1)} equal to {k}, VMAIN $80, screen blanked",
            f"fill {n} words of video memory at word address {w} with the value {k} in forced blank, $2115 = $80",
            f"loop {n} times and send the word {k} to VRAM, first word address {w}, with VMAIN $80 (blanked)",
        ],
        ask_test=[
            f"put the tile word {k} into {n} VRAM words beginning with {w} (screen blanked, set $2115)",
            f"every one of the {n} VRAM words from {w} on becomes {k}; VMAIN $80, in forced blank",
            f"in forced blank, {k} goes to all {n} words of VRAM at word address {w}, VMAIN $80",
        ],
        cases=d.cases({} for _ in range(3)),
        after=lambda mem: After(vram={2 * w: word(k) * n}),
        references={
            "down": f"{setup} / LDX #{h2(n)} / .loop / STA $2118 / DEX / BNE .loop / SEP #$20 / RTS",
            "up": f"{setup} / LDX #$00 / .loop / STA $2118 / INX / CPX #{h2(n)} / BNE .loop / SEP #$20 / RTS",
        },
    )


@family("asm", HARDWARE)
def vram_column(d: Draw) -> Draft:
    """Write a column of a tilemap."""
    n, a = d.choice([4, 6, 8, 16]), d.address(32)
    w = h4(0x400 * d.number(0, 0x1D) + d.number(0, 31))
    setup = f"LDA #$81 / STA $2115 / REP #$20 / LDA #{w} / STA $2116"
    return Draft(
        entry="DrawColumn",
        ask=[
            f"write the {n} words at {a} to VRAM as a column; the first to word address {w}, each next one "
            "32 words further (VMAIN $81, forced blank)",
            f"use VMAIN = $81 to draw a vertical strip, {n} tile words from {a} to VRAM {w}, {w + 32} and "
            "so on, in forced blank",
            f"VRAM address step 32 ($2115 = $81), start {w}; send the {n} words of the buffer {a} (screen blanked)",
            f"copy {n} words from {a} to the VRAM word addresses {w}, {w + 32}, {w + 64}..., with VMAIN $81 "
            "in forced blank",
            f"draw a tilemap column of {n} words from {a}, top at VRAM word {w}; VMAIN $81, screen blanked",
            f"VRAM[{w} + 32 * i] = word i of {a} for i = 0 to {n - 1}, VMAIN $81, forced blank",
            f"set $2115 to $81 and the VRAM address to {w}, then write the {n} words from {a} on to $2118 "
            "(forced blank)",
            f"put the {n} tile words stored at {a} one below the other in VRAM from word {w} on, 32 words "
            "apart (VMAIN $81, blanked)",
            f"store {n} words of {a} in VRAM, 32 words apart, the first at word address {w}; forced blank, VMAIN $81",
            f"load the {n} words at {a} one by one and send them to VRAM from {w} on with step 32 ($2115 = "
            "$81, blanked)",
            f"the {n} words at {a} go down a column of the tilemap, VRAM word {w} first; use VMAIN $81 in forced blank",
        ],
        ask_test=[
            f"the {n} tile words in {a} go down a tilemap column that starts at VRAM word {w} (step 32, "
            "VMAIN $81, blanked)",
            f"with VMAIN $81 in forced blank, move {n} words from {a} to every 32nd VRAM word beginning with {w}",
            f"VRAM words {w}, {w + 32} and so on get the {n} words of the buffer {a}; $2115 = $81, screen blanked",
        ],
        cases=d.cases({a: d.block(2 * n)} for _ in range(3)),
        after=lambda mem: After(vram={2 * (w + 32 * i): mem.span(a + 2 * i, 2) for i in range(n)}),
        references={
            "negative": f"{setup} / LDX #{h2(256 - 2 * n)} / .loop / LDA {a - (256 - 2 * n)},X / STA $2118 "
            "/ INX / INX / BNE .loop / "
            "SEP #$20 / RTS",
            "up": f"{setup} / LDX #$00 / .loop / LDA {a},X / STA $2118 / INX / INX / CPX #{h2(2 * n)} / "
            "BNE .loop / SEP #$20 / RTS",
        },
    )


@family("asm", HARDWARE)
def set_colour(d: Draw) -> Draft:
    """Write one colour."""
    a, c = d.address(2), h2(d.number(0, 255))
    return Draft(
        entry="SetColour",
        ask=[
            f"write the 15-bit colour in the word at {a} to CGRAM entry {c} (forced blank is on)",
            f"CGRAM[{c}] = the colour word at {a}, through $2121 and $2122, low byte first",
            f"select colour {c} and send the two bytes at {a} to $2122",
            f"set CGRAM colour {c} to the 15-bit value in the word {a}",
            f"copy the colour word at {a} to the palette entry {c} in forced blank",
            f"write {c} to $2121, then {a} and {a + 1} to $2122",
            f"load the word {a} and store it in CGRAM at colour {c} (screen blanked)",
            f"put the colour stored at {a} (2 bytes) into CGRAM entry {c}",
            f"the palette colour {c} becomes the word at {a}; use $2121 and $2122 twice",
            f"take the 15-bit colour from {a} and write it to colour number {c} of CGRAM",
            f"the two bytes at {a} go to CGRAM colour {c}, low byte first (forced blank)",
        ],
        ask_test=[
            f"palette entry {c} takes the 15-bit value stored at {a}, through $2121/$2122",
            f"make CGRAM colour {c} the same as the colour word in {a}",
            f"CGRAM entry {c} gets the two bytes that are at {a} (blanked screen)",
        ],
        cases=d.cases({a: word(x & 0x7FFF)} for x in d.edges16(n=6)),
        after=lambda mem: After(cgram={2 * c: mem.span(a, 2)}),
        references={
            "one": f"LDA #{c} / STA $2121 / LDA {a} / STA $2122 / LDA {a + 1} / STA $2122 / RTS",
            "loop": f"LDA #{c} / STA $2121 / LDX #$00 / .loop / LDA {a},X / STA $2122 / INX / CPX #$02 / "
            "BNE .loop / RTS",
        },
    )


@family("asm", HARDWARE)
def set_colour_const(d: Draw) -> Draft:
    """Write a colour given as red, green and blue."""
    c, rgb = h2(d.number(0, 255)), [d.number(0, 31) for _ in range(3)]
    value = h4(rgb[0] | rgb[1] << 5 | rgb[2] << 10)
    shown = "red {}, green {}, blue {}".format(*rgb)
    return Draft(
        entry="SetBackColour",
        ask=[
            f"set CGRAM colour {c} to {shown} (each 0 to 31), in forced blank",
            f"colour {c} of the palette becomes {shown} (5 bits each, format 0bbbbbgggggrrrrr)",
            f"write {c} to $2121, then the colour {shown} (0-31) as two bytes to $2122",
            f"CGRAM[{c}] = {shown} as a 15-bit colour, low byte first",
            f"write the 15-bit colour with {shown} to CGRAM entry {c}",
            f"store {shown} (5 bits each) in palette colour {c} through $2121 and $2122",
            f"select colour {c} of CGRAM and give it {shown} (0 to 31 each)",
            f"put the colour {shown} into the palette at index {c}; red is bits 0-4, green 5-9, blue 10-14",
            f"change colour {c} to {shown}, 15 bits, by $2121 and two writes to $2122",
            f"CGRAM entry {c} = red + 32 * green + 1024 * blue with {shown}",
            f"{shown} is the new colour {c} in CGRAM (forced blank)",
        ],
        ask_test=[
            f"make palette entry {c} the 15-bit colour with {shown}",
            f"the CGRAM colour number {c} gets {shown}, 5 bits each",
            f"with {shown} (each 0-31), write colour {c} of the palette",
        ],
        cases=d.cases({} for _ in range(3)),
        after=lambda mem: After(cgram={2 * c: word(value)}),
        references={
            "a": f"LDA #{c} / STA $2121 / LDA #{value.low} / STA $2122 / LDA #{value.high} / STA $2122 / RTS",
            "xy": f"LDA #{c} / LDX #{value.low} / LDY #{value.high} / STA $2121 / STX $2122 / STY $2122 / RTS",
        },
    )


@family("asm", HARDWARE)
def set_sprite(d: Draw) -> Draft:
    """Write one sprite's entry."""
    a, k = d.address(4), d.number(0, 127)
    return Draft(
        entry="SetSprite",
        ask=[
            f"write the 4 bytes at {a} (X, Y, tile, attributes) to the OAM entry of sprite {k}, in forced blank",
            f"set OAM word address {h4(2 * k)} through $2102/$2103, then send the four bytes from {a} to $2104",
            f"sprite number {k} gets its 4 OAM bytes from {a}, through $2102-$2104, in forced blank",
            f"copy the four bytes at {a} to sprite {k} in OAM (screen blanked)",
            f"store 4 bytes from {a} on in OAM at sprite {k}; the OAM word address is {2 * k}",
            f"load X, Y, tile and flags of sprite {k} from the four bytes at {a} into OAM (forced blank)",
            f"put the sprite entry stored at {a} (4 bytes) into OAM as sprite number {k}",
            f"OAM sprite {k} = the 4 bytes at {a}, by $2102, $2103 and four writes to $2104",
            f"set the OAM address to sprite {k} and write the four bytes of {a} to $2104 (blanked)",
            f"the four bytes at {a} go to OAM entry {k} (word address {h4(2 * k)}) in forced blank",
            f"move 4 bytes from {a} into the OAM entry of sprite {k} without DMA, screen blanked",
        ],
        ask_test=[
            f"sprite {k} of OAM is set to the four bytes stored from {a} on (blanked screen)",
            f"OAM entry {k} gets the 4 bytes that are at {a}; use $2102-$2104",
            f"take X, Y, tile and attributes for sprite {k} from {a} and write them to OAM in forced blank",
        ],
        cases=d.cases({a: d.block(4)} for _ in range(4)),
        after=lambda mem: After(oam={4 * k: mem.span(a, 4)}),
        references={
            "loop": f"LDA #{h2(2 * k)} / STA $2102 / STZ $2103 / LDX #$00 / .loop / LDA {a},X / STA $2104 "
            "/ INX / CPX #$04 / "
            "BNE .loop / RTS",
            "straight": f"LDA #{h2(2 * k)} / STA $2102 / STZ $2103 / "
            + " / ".join(f"LDA {a + i} / STA $2104" for i in range(4))
            + " / RTS",
        },
    )
