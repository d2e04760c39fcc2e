"""ROM hacking: bank allocation and integration.

Bank allocation puts tables, data and code into free banks and makes the game find them. Integration fits
several things together: existing routines, two hooks, a state table.
"""

from __future__ import annotations

from dataclasses import replace

from hafs_snes.tasks.dsl import After, Case, Draft, Draw, Hex, Memory, byte, family, h2, h4, h6
from hafs_snes.tasks.game import (
    GAMES,
    HACK_NOTE,
    Game,
    Vanilla,
    elsewhere,
    patch,
    places,
    redirect,
    start,
    take_damage,
    tick_clock,
)

BANKS = "bank allocation"
INTEGRATION = "integration"


def _free(d: Draw) -> Hex:
    """The start of a free bank."""
    return h6(d.number(0x10, 0x1F) << 16 | 0x8000)


def _hack(ask: list[str], ask_test: list[str], vanilla: list[Vanilla], **rest: object) -> Draft:
    """A patch task on code that is no `Game`; all of the vanilla code is shown and may be changed."""
    shown = "\n".join([HACK_NOTE, *(v.shown for v in vanilla)])
    return Draft(
        kind="patch",
        ask=[f"{a} {shown}" for a in ask],
        ask_test=[f"{a} {shown}" for a in ask_test],
        vanilla="\n".join(v.asm for v in vanilla),
        editable=[(int(v.start), int(v.end)) for v in vanilla],
        call=int(vanilla[0].start),
        **rest,  # type: ignore[arg-type]
    )


def _bytes(values: list[Hex]) -> str:
    return ",".join(map(str, values))


@family("rom_hack", BANKS)
def bank_table(d: Draw) -> Draft:
    """Replace a table by a longer one in a free bank."""
    i, z, new = d.address(), d.direct(), _free(d)
    values = [d.immediate() for _ in range(8)]
    at = start(d)
    v = Vanilla.of("GetPrice", at, f"LDX {i} / LDA {h6(at + 10)},X / STA {z} / RTS / db {_bytes(values[:4])}")
    load = v.at("LDA")
    shown = _bytes(values)
    return _hack(
        ask=[
            f"Put the table {shown} at {new} and make GetPrice use it instead of its own four entries.",
            f"GetPrice needs 8 prices: {shown}. Place them in free space at {new} and patch the load to "
            "read from there.",
            f"Move the price table out of bank $01: the new table {shown} goes to {new}, GetPrice reads it.",
        ],
        ask_test=[
            f"Write a patch with the 8-entry table {shown} in bank {h2(new >> 16)} (at {new}) and let "
            "GetPrice load from it."
        ],
        vanilla=[v],
        cases=d.cases({i: byte(x % 8)} for x in range(12)),
        after=lambda mem: {z: byte(values[mem[i]])},
        references={
            "operand": f"org {load + 1} / dl {new} / org {new} / db {shown}",
            "instruction": f"org {load} / LDA {new},X / org {new} / db {shown}",
        },
    )


@family("rom_hack", BANKS)
def bank_data(d: Draw) -> Draft:
    """Put data into a free bank and redirect a 24-bit pointer to it."""
    i, z, new = *d.addresses(2), _free(d)
    n = d.choice([4, 5, 6])
    values = [d.immediate() for _ in range(n)]
    at = start(d)
    p = h4(at + 24)
    code = f"LDA {p} / STA $00 / LDA {p + 1} / STA $01 / LDA {p + 2} / STA $02 / LDY {i} / LDA [$00],Y / STA {z} / RTS"
    v = Vanilla.of("GetGlyph", at, f"{code} / db $00,$F0,$01")
    pointer, shown = v.end - 3, _bytes(values)
    return _hack(
        ask=[
            f"GetGlyph reads through the 24-bit pointer at {pointer}. Put the data {shown} at {new} and point there.",
            f"Place {shown} in free space at {new} and change the pointer at {pointer} (3 bytes) to it.",
            f"New data {shown} belongs at {new}; patch the long pointer at {pointer} so that GetGlyph reads it.",
        ],
        ask_test=[
            f"Insert the bytes {shown} at {new} and let the pointer in {pointer} (low, high, bank) lead "
            "GetGlyph to them."
        ],
        vanilla=[v],
        cases=d.cases({i: byte(x % n)} for x in range(12)),
        after=lambda mem: {z: byte(values[mem[i]])},
        scratch=[(0, 3)],
        references={
            "long": f"org {pointer} / dl {new} / org {new} / db {shown}",
            "label": f"org {pointer} / dl NewData / org {new} / NewData: / db {shown}",
        },
    )


@family("rom_hack", BANKS)
def bank_tiles(d: Draw) -> Draft:
    """Upload tiles from a free bank."""
    new, w = _free(d), h4(16 * d.number(0, 0x5FF))
    values, at = [d.immediate() for _ in range(8)], start(d)
    v = Vanilla.of(
        "LoadTiles",
        at,
        f"REP #$10 / LDA #$80 / STA $2115 / LDX #{w} / STX $2116 / LDX #$1801 / STX $4300 / LDX #$F000 / "
        "STX $4302 / LDA #$01 / "
        "STA $4304 / LDX #$0008 / STX $4305 / LDA #$01 / STA $420B / SEP #$10 / RTS",
    )
    shown, source, bank = _bytes(values), v.at("LDX #$F000") + 1, v.at("LDA #$01") + 1
    return _hack(
        ask=[
            f"LoadTiles uploads 8 bytes from $01F000. Make it upload {shown}, stored at {new}.",
            f"Put the tile data {shown} at {new} and patch the DMA source address and bank in LoadTiles.",
            f"Replace the graphics: {shown} go to free space at {new}, LoadTiles has to send them to VRAM.",
        ],
        ask_test=[f"The DMA in LoadTiles must take its 8 bytes from {new}, where you place {shown}. Write the patch."],
        vanilla=[v],
        cases=d.cases({} for _ in range(3)),
        after=lambda mem: After(vram={2 * w: bytes(values)}),
        references={
            "bytes": f"org {source} / dw {h4(new)} / org {bank} / db {h2(new >> 16)} / org {new} / db {shown}",
            "instructions": f"org {source - 1} / LDX #{h4(new)} / org {bank - 1} / LDA #{h2(new >> 16)} / "
            f"org {new} / db {shown}",
        },
    )


@family("rom_hack", BANKS)
def bank_code_table(d: Draw) -> Draft:
    """New code with its own table in a free bank, while the data bank stays 1."""
    g = take_damage(d)
    hp, (t,), new = g.result, elsewhere(d, g), _free(d)
    values = [d.immediate(0, 90) for _ in range(4)]
    shown, lines = _bytes(values), g.vanilla.lines[:3]
    body = f"LDA {hp} / LDX {t} / SEC / SBC.l .table,X / RTL / .table / db {shown}"
    data_bank = (
        f"PHB / PHK / PLB / LDX {t} / LDA .table,X / PLB / EOR #$FF / SEC / ADC {hp} / RTL / .table / db {shown}"
    )
    return patch(
        d,
        g,
        extra=lambda mem: {hp: byte(max(0, mem[hp] - values[mem[t]]))},
        inputs=lambda i: {t: byte(i % 4)},
        ask=[
            f"TakeDamage must subtract table[{t}] (0 to 3) instead, with the table {shown} next to the new "
            f"code at {new}.",
            f"Damage by enemy type: {t} (0-3) selects {shown}; put code and table into free space at {new} "
            "and hook TakeDamage. Data bank is "
            "$01.",
            f"Patch TakeDamage to use the amounts {shown}, indexed by the byte {t} (0..3). Code and table "
            f"belong at {new}.",
        ],
        ask_test=[
            f"Instead of a variable, TakeDamage takes one of {shown} according to {t} (0 to 3). Keep table "
            f"and new code in bank {h2(new >> 16)}."
        ],
        references={
            "long": redirect(g.vanilla, lines, "ByType", body, new >> 16),
            "data_bank": redirect(g.vanilla, lines, "ByType", data_bank, new >> 16),
        },
    )


@family("rom_hack", INTEGRATION)
def integrate_call(d: Draw) -> Draft:
    """Call an existing far routine from a hook."""
    g: Game = d.choice(GAMES)(d)
    (s,) = elsewhere(d, g)
    k, name = d.immediate(1, 200), g.vanilla.name
    sound = Vanilla.of("PlaySound", 0x01A000 + 0x10 * d.number(0, 0x80), f"STA {s} / LDA #$00 / RTL")
    task = patch(
        d,
        g,
        extra=lambda mem: {s: byte(k)},
        inputs=lambda i: {},
        ask=[
            f"Each {name} must also play sound {k}: hook it and call PlaySound (JSL, sound in A). "
            "Registers in use must be kept.",
            f"Patch {name} so that it calls the existing far routine PlaySound with A = {k}, and otherwise "
            "works as before.",
            f"Use PlaySound (ends with RTL, takes the sound in A) to play {k} whenever {name} runs. Write the hook.",
        ],
        ask_test=[
            f"Let {name} make the noise {k} through the game's own PlaySound (A = number, called by JSL). "
            "Give the asar patch."
        ],
        references={
            "saved": g.hook(
                "WithSound", f"{g.old} / PHA / LDA #{k} / JSL {sound.start} / PLA / RTL", d.number(0x10, 0x1F)
            ),
            "flags": g.hook(
                "WithSound",
                f"{g.old} / PHP / PHA / LDA #{k} / JSL {sound.start} / PLA / PLP / RTL",
                d.number(0x10, 0x1F),
            ),
        },
    )
    return replace(
        task,
        ask=[f"{a}\n{sound.shown}" for a in task.ask],
        ask_test=[f"{a}\n{sound.shown}" for a in task.ask_test],
        vanilla=f"{task.vanilla}\n{sound.asm}",
    )


@family("rom_hack", INTEGRATION)
def integrate_two_hooks(d: Draw) -> Draft:
    """The value before and after, by two hooks in one routine."""
    g: Game = d.choice([take_damage, tick_clock])(d)
    old, new = elsewhere(d, g, k=2)
    name, plain, first = g.vanilla.name, g.model, " / ".join(g.opening)
    bank = d.number(0x10, 0x1E)
    enter = f"LDA {g.result} / STA {old} / {first} / RTL"
    enter_x = f"LDX {g.result} / STX {old} / {first} / RTL"
    leave = g.hook("Leave", f"STA {new} / {g.old} / RTL", bank + 1)
    return patch(
        d,
        g,
        extra=lambda mem: {old: byte(mem[g.result]), new: plain(mem)[g.result]},
        inputs=lambda i: {},
        ask=[
            f"Patch {name} to log its effect: the old value of {g.result} goes to {old}, the new one to "
            f"{new}. Two hooks are needed.",
            f"Hook {name} twice: at its start copy {g.result} to {old}, and when it stores {g.result} copy "
            f"the new value to {new}.",
            f"For a damage log, {name} must leave the value of {g.result} from before in {old} and that "
            f"from after in {new}.",
        ],
        ask_test=[
            f"Record what {name} does to {g.result}: previous value in {old}, resulting value in {new}. "
            "Write the patch."
        ],
        references={
            "a": f"{redirect(g.vanilla, g.opening, 'Enter', enter, bank)} / {leave}",
            "x": f"{redirect(g.vanilla, g.opening, 'Enter', enter_x, bank)} / {leave}",
        },
    )


@family("rom_hack", INTEGRATION)
def integrate_state(d: Draw) -> Draft:
    """Fill in the empty state of a state machine."""
    s, a, b, c = d.addresses(4)
    k, new, name = d.immediate(2, 60), _free(d), d.choice(["Swim", "Climb", "Glide", "Crouch"])
    at = 0x01A000 + 0x40 * d.number(0, 0x40)
    walk = Vanilla.of("Walk", at + 0x10, f"INC {a} / RTS")
    jump = Vanilla.of("Jump", walk.end, f"INC {b} / RTS")
    stub = Vanilla.of(name, jump.end, "NOP / NOP / NOP / NOP / RTS")
    pointers = ",".join(str(h4(v.start)) for v in (walk, jump, stub))
    table = Vanilla.of("States", at, f"LDA {s} / ASL / TAX / JMP ({h4(at + 8)},X) / dw {pointers}")
    all_code = [table, walk, jump, stub]

    def after(mem: Memory) -> dict[int, bytes]:
        place = (a, b, c)[mem[s]]
        return {place: byte(mem[place] + (k if mem[s] == 2 else 1))}

    task = _hack(
        ask=[
            f"State 2 ({name}) is empty. Make it add {k} to the byte {c}, with code in free space at {new}.",
            f"Implement {name}: the byte {c} grows by {k}. Its 5 bytes in bank $01 are too small, so "
            f"continue at {new}.",
            f"Patch the stub {name} to call new code at {new} that adds {k:d} to {c}; the other states stay.",
        ],
        ask_test=[
            f"Give the state machine a working {name}: each time it adds {k} to {c}. The code goes to "
            f"{new}, the stub leads to it."
        ],
        vanilla=all_code,
        cases=d.cases({s: byte(i % 3), a: byte(i * 37), b: byte(i * 53), c: byte(255 - i * 20)} for i in range(12)),
        after=after,
        references={
            "jsl": f"org {stub.start} / JSL New{name} / org {new} / New{name}: / LDA {c} / CLC / ADC #{k} "
            f"/ STA {c} / RTL",
            "jml": f"org {stub.start} / JML New{name} / org {new} / New{name}: / LDA #{k} / CLC / ADC {c} "
            f"/ STA {c} / JML {stub.end - 1}",
        },
    )
    return replace(task, editable=[(int(stub.start), int(stub.end))])


@family("rom_hack", INTEGRATION)
def integrate_shared(d: Draw) -> Draft:
    """One counter for two routines."""
    first, second = d.sample(GAMES, 2)
    one = first(d)
    two = second(d)
    while places(one) & places(two):
        two = second(d)
    other = Vanilla(two.vanilla.name, one.vanilla.end + d.number(0, 3), two.vanilla.lines)
    two = replace(two, vanilla=other)
    (c,) = elsewhere(d, one, two)
    main = Vanilla.of("Main", 0x01B000, f"JSR {h4(one.vanilla.start)} / JSR {h4(other.start)} / RTS")
    names = f"{one.vanilla.name} and {other.name}"
    bank = d.number(0x10, 0x1E)

    def case(i: int) -> Case:
        return Case({**one.inputs(i), **two.inputs(i), c: byte(255 - i % 4)}, d.registers())

    def after(mem: Memory) -> dict[int, bytes]:
        return {**one.model(mem), **two.model(mem), c: byte(mem[c] + 2)}

    task = _hack(
        ask=[
            f"Hook both {names}: each of them has to increment the byte {c} when it runs, and do what it did before.",
            f"One shared counter {c} for {names}: INC {c} in each, with new code in free space. Nothing else changes.",
            f"Patch {names} so that both count their calls in {c}.",
        ],
        ask_test=[f"The byte {c} is to count the calls of {names} together. Write one asar patch with both hooks."],
        vanilla=[main, one.vanilla, other],
        cases=(case(i) for i in range(10)),
        after=after,
        references={
            "jsl": f"{one.hook('CountOne', f'{one.old} / INC {c} / RTL', bank)} / "
            f"{two.hook('CountTwo', f'{two.old} / INC {c} / RTL', bank + 1)}",
            "jml": f"{one.hook('CountOne', f'{one.old} / INC {c} / JML {one.after_site}', bank, 'JML')} / "
            f"{two.hook('CountTwo', f'{two.old} / INC {c} / JML {two.after_site}', bank + 1, 'JML')}",
        },
    )
    return replace(task, editable=[(int(v.start), int(v.end)) for v in (one.vanilla, other)], call=int(main.start))
