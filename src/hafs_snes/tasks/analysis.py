"""ROM hacking: vanilla analysis. A routine and its input are shown; the answer is the value it leaves.

Every question carries the code and one vector, so the emulator proves the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from hafs_snes.tasks.dsl import Case, Draft, Draw, Hex, byte, family, h2, h4, word
from hafs_snes.tasks.game import Vanilla, start

ANALYSIS = "vanilla analysis"


def _question(
    d: Draw, code: str, inputs: Mapping[Hex, Hex], stored: Mapping[int, bytes], asked: Hex, extra: str = ""
) -> Draft:
    """What byte does `asked` hold afterwards? `inputs` are addresses with values, as wide as they print.

    `stored` is everything the code writes, `extra` more code that belongs to the routine.
    """
    vanilla = Vanilla.of(
        d.choice(["Update", "Process", "Refresh", "Compute"]), start(d), code + (f" / {extra}" if extra else "")
    )
    before = ", ".join(f"{at} = {value}" for at, value in inputs.items())
    answer = next(data[asked - at] for at, data in stored.items() if at <= asked < at + len(data))
    memory = {int(at): value.to_bytes(value.digits // 2, "little") for at, value in inputs.items()}
    name = vanilla.name
    given = f"with {before}" if before else "as shown"
    return Draft(
        kind="value",
        ask=[
            f"{name} runs {given}. Which byte is at {asked} afterwards? Answer with the hex value.\n{vanilla.shown}",
            f"What value does {asked} hold after {name} has run {given}? One byte, in hex.\n{vanilla.shown}",
            f"Predict the byte at {asked} when {name} returns, called {given}; answer in hex.\n{vanilla.shown}",
        ],
        ask_test=[f"Trace {name}, called {given}: what ends up in the byte {asked}? Give it in hex.\n{vanilla.shown}"],
        cases=[Case(memory, d.registers())],
        after=lambda mem: stored,
        references={"answer": str(h2(answer))},
        vanilla=vanilla.asm,
        call=int(vanilla.start),
        answer=answer,
    )


@family("rom_hack", ANALYSIS)
def predict_sum(d: Draw) -> Draft:
    """Addition, a mask, an exclusive or."""
    a, z, x = d.address(), d.direct(), d.immediate()
    k, m, e = d.immediate(1), d.immediate(1), d.immediate(1)
    code = f"LDA {a} / CLC / ADC #{k} / AND #{m} / EOR #{e} / STA {z} / RTS"
    return _question(d, code, {a: x}, {z: byte((x + k) & m ^ e)}, z)


@family("rom_hack", ANALYSIS)
def predict_loop(d: Draw) -> Draft:
    """A loop that adds a constant."""
    n, k, z, s = d.number(3, 9), d.immediate(2, 40), d.direct(), d.immediate(0, 40)
    code = f"LDX #{h2(n)} / LDA #{s} / .loop / CLC / ADC #{k} / DEX / BNE .loop / STA {z} / RTS"
    return _question(d, code, {}, {z: byte(s + n * k)}, z)


@family("rom_hack", ANALYSIS)
def predict_branch(d: Draw) -> Draft:
    """An unsigned comparison."""
    a, z, k = d.address(), d.direct(), d.immediate(1, 254)
    x = h2(d.choice([k, k - 1, k + 1, d.number(0, 255)]))
    p, q, b = d.immediate(), d.immediate(), d.choice(["BCC", "BCS", "BEQ", "BNE", "BMI", "BPL"])
    less, same, minus = x < k, x == k, (x - k) & 0x80 != 0
    taken = {"BCC": less, "BCS": not less, "BEQ": same, "BNE": not same, "BMI": minus, "BPL": not minus}[b]
    code = f"LDX #{p} / LDA {a} / CMP #{k} / {b} .done / LDX #{q} / .done / STX {z} / RTS"
    return _question(d, code, {a: x}, {z: byte(p if taken else q)}, z)


@family("rom_hack", ANALYSIS)
def predict_table(d: Draw) -> Draft:
    """A table look-up with an offset."""
    a, z, o = d.address(), d.direct(), d.number(0, 1)
    values = [d.immediate() for _ in range(8)]
    i = h2(d.number(0, 3))
    code = f"LDA {a} / ASL / TAX / LDA .table+{o},X / STA {z} / RTS"
    table = ",".join(map(str, values))
    return _question(d, code, {a: i}, {z: byte(values[2 * i + o])}, z, f".table / db {table}")


@family("rom_hack", ANALYSIS)
def predict_word(d: Draw) -> Draft:
    """16-bit arithmetic, of which one byte is asked."""
    a, z = d.address(2), d.direct()
    x, k = h4(d.number(0, 0xFFFF)), h4(d.number(0, 0xFFFF))
    op = d.choice(["ADC", "SBC"])
    value = x + k if op == "ADC" else x - k
    code = f"REP #$20 / LDA {a} / {'CLC' if op == 'ADC' else 'SEC'} / {op} #{k} / STA {z} / SEP #$20 / RTS"
    return _question(d, code, {a: x}, {z: word(value)}, z + d.number(0, 1))


@family("rom_hack", ANALYSIS)
def predict_stack(d: Draw) -> Draft:
    """Pushes and pulls."""
    a, b = d.addresses(2)
    z, y = d.directs(2)
    x, w, k = d.immediate(), d.immediate(), d.immediate(1)
    code = f"LDA {a} / PHA / LDA {b} / PHA / LDA #{k} / PLX / STX {z} / CLC / ADC $01,S / STA {y} / PLA / RTS"
    return _question(d, code, {a: x, b: w}, {z: byte(w), y: byte(x + k)}, d.choice([z, y]))


@family("rom_hack", ANALYSIS)
def predict_shifts(d: Draw) -> Draft:
    """Shifts and rotations through the carry."""
    a, z, x = d.address(), d.direct(), d.immediate()
    ops = [d.choice(["ASL", "LSR", "ROL", "ROR"]) for _ in range(d.number(2, 4))]
    value, carry = int(x), 0
    for op in ops:
        into = carry if op[:2] == "RO" else 0
        value, carry = (value << 1 | into, value >> 7) if op[2] == "L" else (value >> 1 | into << 7, value & 1)
        value &= 0xFF
    return _question(d, f"LDA {a} / CLC / {' / '.join(ops)} / STA {z} / RTS", {a: x}, {z: byte(value)}, z)


@family("rom_hack", ANALYSIS)
def predict_call(d: Draw) -> Draft:
    """A subroutine called twice."""
    a, z, x = d.address(), d.direct(), d.immediate()
    k, m = d.immediate(1), h2(d.choice([0x0F, 0x3F, 0x7F, 0xF0]))
    value = int(x)
    for _ in range(2):
        value = (value + k) & m
    code = f"LDA {a} / JSR .step / JSR .step / STA {z} / RTS"
    return _question(d, code, {a: x}, {z: byte(value)}, z, f".step / CLC / ADC #{k} / AND #{m} / RTS")
