"""ROM hacking: hook implementation and feature implementation.

The answer is an asar patch on a routine of our own game. It may change the routine's bytes and use banks $10 to
$1F; it is judged by running the patched routine and by which bytes of the ROM differ.
"""

from __future__ import annotations

from dataclasses import replace

from hafs_snes.tasks.dsl import Draft, Draw, Memory, byte, family, h2, h4, word
from hafs_snes.tasks.game import (
    GAMES,
    Game,
    add_coin,
    behind,
    elsewhere,
    move_player,
    patch,
    redirect,
    take_damage,
    tick_clock,
)

HOOK = "hook implementation"
FEATURE = "feature implementation"


def _bank(d: Draw) -> int:
    return d.number(0x10, 0x1F)


@family("rom_hack", HOOK)
def hook_count(d: Draw) -> Draft:
    """Count the calls of a routine."""
    g: Game = d.choice(GAMES)(d)
    (c,) = elsewhere(d, g)
    name = g.vanilla.name
    return patch(
        d,
        g,
        extra=lambda mem: {c: byte(mem[c] + 1)},
        inputs=lambda i: {c: byte(d.number(0, 255))},
        ask=[
            f"Write an asar patch that hooks {name} so that each call also increments the byte at {c}; "
            "nothing else may change.",
            f"Add a call counter to {name}: INC {c} every time it runs, in new code in free space.",
            f"Patch {name} with a JSL to new code that does INC {c} besides what the replaced code did.",
        ],
        ask_test=[f"How often does {name} run? Make it count in the byte {c} with a hook into a free bank."],
        references={
            "jsl": g.hook("CountCall", f"{g.old} / INC {c} / RTL", _bank(d)),
            "jml": g.hook("CountCall", f"{g.old} / INC {c} / JML {g.after_site}", _bank(d), "JML"),
        },
    )


@family("rom_hack", HOOK)
def hook_add(d: Draw) -> Draft:
    """Add to a byte in a hook, where the accumulator may be in use."""
    g: Game = d.choice(GAMES)(d)
    (c,) = elsewhere(d, g)
    k, name = d.immediate(2, 99), g.vanilla.name
    return patch(
        d,
        g,
        extra=lambda mem: {c: byte(mem[c] + k)},
        inputs=lambda i: {c: byte(d.number(0, 255))},
        ask=[
            f"Hook {name} with an asar patch so that every call adds {k} to the byte at {c}. What it did "
            "before must stay the same.",
            f"Patch {name}: {c} grows by {k} each time, in new code in free space; take care of registers "
            "that are in use.",
            f"Extend {name} by a JSL to free space that adds {k:d} to {c}, without disturbing the rest.",
        ],
        ask_test=[
            f"Each run of {name} is worth {k:d} more points in the byte {c}: write the hook and its code "
            "in a free bank."
        ],
        references={
            "saved": g.hook("AddBonus", f"{g.old} / PHA / LDA {c} / CLC / ADC #{k} / STA {c} / PLA / RTL", _bank(d)),
            "saved_flags": g.hook(
                "AddBonus", f"{g.old} / PHP / PHA / CLC / LDA #{k} / ADC {c} / STA {c} / PLA / PLP / RTL", _bank(d)
            ),
        },
    )


@family("rom_hack", HOOK)
def hook_skip(d: Draw) -> Draft:
    """Skip a routine while a lock is set."""
    g: Game = d.choice(GAMES)(d)
    (lock,) = elsewhere(d, g)
    first, name, end = " / ".join(g.opening), g.vanilla.name, g.vanilla.at("RTS")
    test = f"LDA {lock} / BNE .skip / {first} / JML {behind(g.vanilla, g.opening)} / .skip / JML {end}"
    test_x = f"LDX {lock} / BEQ .go / JML {end} / .go / {first} / JML {behind(g.vanilla, g.opening)}"
    plain = g.model

    def model(mem: Memory) -> dict[int, bytes]:
        return {} if mem[lock] else plain(mem)

    return patch(
        d,
        replace(g, model=model),
        extra=lambda mem: {},
        inputs=lambda i: {lock: byte((0, 1, 0x80, 0, 0xFF, 2)[i % 6])},
        ask=[
            f"Patch {name}: when the byte at {lock} is not zero it must return without doing anything, else as before.",
            f"Write an asar patch that makes {name} do nothing while {lock} is non-zero. Hook its start.",
            f"Add a lock to {name}: {lock} = 0 means run as before, any other value means leave at once.",
        ],
        ask_test=[f"A cutscene sets {lock} to a non-zero value; {name} has to be skipped then. Hook its start."],
        references={
            "a": redirect(g.vanilla, g.opening, "CheckLock", test, _bank(d), "JML"),
            "x": redirect(g.vanilla, g.opening, "CheckLock", test_x, _bank(d), "JML"),
        },
    )


@family("rom_hack", HOOK)
def hook_mirror(d: Draw) -> Draft:
    """Keep a copy of a variable up to date."""
    g: Game = d.choice([take_damage, tick_clock])(d)
    (c,) = elsewhere(d, g)
    name, plain = g.vanilla.name, g.model
    return patch(
        d,
        g,
        extra=lambda mem: {c: plain(mem)[g.result]},
        inputs=lambda i: {},
        ask=[
            f"Hook {name} so that the new value of {g.result} is also stored at {c}; the rest stays as it is.",
            f"Patch {name} to keep a mirror of {g.result} in {c}: whenever it stores {g.result} the same "
            f"value goes to {c}.",
            f"The status bar reads {c}. Make {name} write the value of {g.result} there too, with a hook "
            "into free space.",
        ],
        ask_test=[f"After {name} has run, {c} must hold the same byte as {g.result}. Write the asar patch for that."],
        references={
            "store": g.hook("Mirror", f"STA {c} / {g.old} / RTL", _bank(d)),
            "jml": g.hook("Mirror", f"STA {c} / {g.old} / JML {g.after_site}", _bank(d), "JML"),
        },
    )


@family("rom_hack", HOOK)
def hook_if_flag(d: Draw) -> Draft:
    """Do something in a hook only while a flag is set."""
    g: Game = d.choice(GAMES)(d)
    c, f = elsewhere(d, g, k=2)
    m, name = h2(d.choice([0x01, 0x02, 0x04, 0x10, 0x40, 0x80])), g.vanilla.name
    return patch(
        d,
        g,
        extra=lambda mem: {c: byte(mem[c] + (mem[f] & m != 0))},
        inputs=lambda i: {c: byte(d.number(0, 255)), f: byte((0, m, 255, ~m)[i % 4])},
        ask=[
            f"Hook {name}: if the bit {m} of {f} is set, increment {c}; otherwise do only what it did before.",
            f"Write a patch for {name} that counts in {c} how often it runs while ({f} AND {m}) is not zero.",
            f"Extend {name} with new code in free space: when {f} has the bit {m}, INC {c}. Keep the rest.",
        ],
        ask_test=[f"While the debug bit {m} in {f} is on, every {name} has to be counted in {c}. Write the asar hook."],
        references={
            "and": g.hook(
                "Debug", f"{g.old} / PHA / LDA {f} / AND #{m} / BEQ .off / INC {c} / .off / PLA / RTL", _bank(d)
            ),
            "bit": g.hook(
                "Debug", f"{g.old} / PHA / LDA #{m} / BIT {f} / BEQ .off / INC {c} / .off / PLA / RTL", _bank(d)
            ),
        },
    )


@family("rom_hack", FEATURE)
def feature_constant(d: Draw) -> Draft:
    """Change a constant."""
    g: Game = d.choice([take_damage, add_coin, tick_clock])(d)
    request, k, name = g.where["request"], d.immediate(61, 250), g.vanilla.name
    at = g.vanilla.at(f"STA {request}") - 2
    return patch(
        d,
        g,
        extra=lambda mem: {request: byte(k)},
        inputs=lambda i: {},
        ask=[
            f"In {name} the value stored at {request} should be {k}. Write the asar patch; change as little as you "
            "can.",
            f"Patch {name} so that {request} gets {k} instead.",
            f"Another request: {name} must store {k} at {request}.",
        ],
        ask_test=[f"One byte of {name} has to change so that it writes {k} to {request}. Give the patch."],
        references={"byte": f"org {at + 1} / db {k}", "instruction": f"org {at} / LDA #{k}"},
        n=8,
    )


@family("rom_hack", FEATURE)
def feature_coin_limit(d: Draw) -> Draft:
    """A life for fewer coins."""
    g = add_coin(d)
    n = d.choice([5, 10, 20, 25, 50, 60, 75])
    coins, lives, plain = g.result, g.where["lives"], g.model

    def extra(mem: Memory) -> dict[int, bytes]:
        full = mem[coins] + 1 >= n
        return {**plain(mem), coins: byte(0 if full else mem[coins] + 1), lives: byte(mem[lives] + full)}

    at = g.vanilla.at("CMP")
    return patch(
        d,
        g,
        extra=extra,
        inputs=lambda i: {coins: byte((n - 1, 0, n - 2, n - 1)[i] if i < 4 else d.number(0, n - 1))},
        ask=[
            f"An extra life should cost {n} coins instead of 100. Patch this routine.",
            f"Patch AddCoin so that {n} coins give a life.",
            f"Change the number of coins for a life from 100 to {n} with an asar patch.",
        ],
        ask_test=[f"Make lives cheaper: at {n} coins the counter goes back to 0 and a life is added. Patch AddCoin."],
        references={"byte": f"org {at + 1} / db {h2(n)}", "instruction": f"org {at} / CMP #{h2(n)}"},
    )


@family("rom_hack", FEATURE)
def feature_invincible(d: Draw) -> Draft:
    """Take a store out."""
    g = take_damage(d)
    hp = g.result
    at, rest = g.vanilla.at(f"STA {hp}"), g.vanilla.at("LDA #$", 1)
    keep = g.model
    return patch(
        d,
        replace(g, model=lambda mem: {at_: data for at_, data in keep(mem).items() if at_ != hp}),
        extra=lambda mem: {},
        inputs=lambda i: {},
        ask=[
            f"Make the player invincible: this routine must no longer change {hp}, everything else stays.",
            f"Disable only the store to {hp} in this code with an asar patch.",
            f"Patch TakeDamage so that {hp} keeps its value; the sound request stays.",
        ],
        ask_test=[
            f"Cheat code: TakeDamage may not write to {hp} any more but must go on requesting its sound. "
            "Give the patch."
        ],
        references={
            "branch": f"org {g.vanilla.start} / BRA Rest / org {rest} / Rest:",
            "nop": f"org {at} / NOP / NOP / NOP",
        },
        n=8,
    )


@family("rom_hack", FEATURE)
def feature_armour(d: Draw) -> Draft:
    """Take only a part of the damage."""
    g = take_damage(d)
    hp, damage, shift = g.result, g.where["damage"], d.choice([1, 2])
    part = " / ".join(["LSR"] * shift)
    lines = g.vanilla.lines[:3]
    return patch(
        d,
        g,
        extra=lambda mem: {hp: byte(max(0, mem[hp] - (mem[damage] >> shift)))},
        inputs=lambda i: {damage: byte((255, 1, 2, 3, 128)[i] if i < 5 else d.number(0, 255))},
        ask=[
            f"Armour: patch TakeDamage to subtract only 1/{1 << shift} of the damage at {damage} (rounded down).",
            f"Write an asar patch after which TakeDamage takes {damage} divided by {1 << shift} (unsigned, "
            f"rounded down) off {hp}.",
            f"The player gets armour. In TakeDamage the damage has to be divided by {1 << shift} first; "
            f"{damage} itself stays as it is.",
        ],
        ask_test=[
            f"Damage is to count 1/{1 << shift} only (round down), without changing {damage}. Patch "
            "TakeDamage, new code in free space."
        ],
        references={
            "invert": redirect(
                g.vanilla, lines, "Armour", f"LDA {damage} / {part} / EOR #$FF / SEC / ADC {hp} / RTL", _bank(d)
            ),
            "stack": redirect(
                g.vanilla,
                lines,
                "Armour",
                f"LDA {damage} / {part} / PHA / LDA {hp} / SEC / SBC $01,S / PLX / RTL",
                _bank(d),
            ),
        },
    )


@family("rom_hack", FEATURE)
def feature_border(d: Draw) -> Draft:
    """Stop at a border."""
    g = move_player(d)
    x, top, plain = g.result, h4(16 * d.number(4, 100)), g.model

    def extra(mem: Memory) -> dict[int, bytes]:
        moved = int.from_bytes(plain(mem)[x], "little")
        return {x: word(min(moved, top))}

    limit = f"CMP #{top} / BCC .ok / LDA #{top} / STA {x} / .ok / {g.old} / RTL"
    return patch(
        d,
        g,
        extra=extra,
        inputs=lambda i: {x: word(top + (0, -1, 1, -300, 5, -5)[i % 6])},
        ask=[
            f"Patch MovePlayer: after the move the unsigned word {x} must not be above {top}; if it is, "
            f"store {top} there.",
            f"A right border: limit the position {x} (unsigned word) to {top} at most, at the end of each "
            "move. Write the patch.",
            f"Extend MovePlayer with a hook that sets {x} to {top} whenever the new position (unsigned) is higher.",
        ],
        ask_test=[
            f"MovePlayer lets {x} grow without bound. Hook it so that the new value is min({x}, {top}), "
            "unsigned 16-bit."
        ],
        references={
            "first": g.hook("Border", limit, _bank(d)),
            "x": g.hook("Border", f"CMP #{top} / BCC .ok / LDA #{top} / .ok / STA {x} / {g.old} / RTL", _bank(d)),
        },
    )


@family("rom_hack", FEATURE)
def feature_last_hit(d: Draw) -> Draft:
    """Another sound when health reaches zero."""
    g = take_damage(d)
    hp, k, plain = g.result, d.immediate(61, 250), g.model
    damage, sound = g.where["damage"], g.where["request"]
    usual = g.site[1].split("#")[1]
    return patch(
        d,
        g,
        extra=lambda mem: {sound: byte(k)} if plain(mem)[hp] == b"\x00" else {},
        inputs=lambda i: {hp: byte((5, 6, 5, 1, 200, 0)[i % 6]), damage: byte((5, 5, 6, 0, 255, 0)[i % 6])},
        ask=[
            f"When the new health in {hp} is 0 the value stored at {sound} must be {k} instead of {usual}. "
            "Patch TakeDamage.",
            f"Add a death sound: TakeDamage stores {k} at {sound} if {hp} becomes 0, and {usual} as before if not.",
            f"Write an asar patch for TakeDamage: sound {k} for the last hit ({hp} = 0 afterwards), "
            f"{usual} for the others.",
        ],
        ask_test=[
            f"The hit that leaves {hp} at zero is to request {k} through {sound}; other hits keep {usual}. "
            "Patch the routine."
        ],
        references={
            "flags": g.hook(
                "HitSound", f"STA {hp} / TAX / BEQ .dead / LDA #{usual} / RTL / .dead / LDA #{k} / RTL", _bank(d)
            ),
            "compare": g.hook(
                "HitSound", f"STA {hp} / CMP #$01 / LDA #{usual} / BCS .done / LDA #{k} / .done / RTL", _bank(d)
            ),
        },
    )
