"""Control flow: dispatch through tables, loops that search and count, slots."""

from __future__ import annotations

from hafs_snes.tasks.dsl import After, Case, Draft, Draw, Memory, byte, family, h2

CONTROL = "control flow"


@family("asm", CONTROL)
def jump_table(d: Draw) -> Draft:
    """Dispatch to one of several routines."""
    n, a, z = d.choice([3, 4]), d.address(), d.direct()
    values = d.sample(range(1, 256), n)
    names = [f"State{k}" for k in range(n)]
    routines = (f"{name}:\nLDA #{h2(v)}\nSTA {z}\nRTS" for name, v in zip(names, values, strict=True))
    tests = "".join(f"CMP #{h2(k)} / BNE .not{k} / JMP {names[k]} / .not{k} / " for k in range(n - 1))
    pointers = ",".join(names)
    return Draft(
        entry="RunState",
        support="\n".join(routines),
        ask=[
            f"the byte at {a} is a state 0 to {n - 1}; call the matching one of {', '.join(names)} (same "
            "bank, end with RTS, 8-bit A)",
            f"jump through a pointer table to {', '.join(names)} (in this bank, ending with RTS), state in {a}",
            f"state {a} (0 to {n - 1}) selects which of the subroutines {', '.join(names)} of this bank runs",
            f"run one of {', '.join(names)} by the number 0 to {n - 1} in {a}; they are in this bank and end with RTS",
            f"call {', '.join(names)} for {a} = 0 to {n - 1}, one of them; same bank, RTS routines",
            f"use the byte {a} as index into a table of the routines {', '.join(names)} (same bank) and jump there",
            f"for the value {a} holds (0 to {n - 1}) go to the routine of that number, {', '.join(names)}, "
            "which return with RTS",
            f"switch ({a}) from 0 to {n - 1} to the subroutines {', '.join(names)} of this bank",
            f"jump to the routine number {a} of {', '.join(names)}; {a} is 0 to {n - 1} and they return with RTS",
            f"take the state from {a} and run its routine, one of {', '.join(names)} for 0 to {n - 1} (RTS, same bank)",
            f"if {a} is 0 run {names[0]}, if it is 1 run {names[1]} and so on up to {names[-1]} (same bank, RTS)",
        ],
        ask_test=[
            f"the game mode in {a} selects {', '.join(names)} (0 to {n - 1}, RTS routines, same bank); run that one",
            f"call the subroutine whose number is in {a}, of {', '.join(names)} in this bank",
            f"{a} holds 0 to {n - 1}; go to the matching routine of {', '.join(names)}, all end with RTS",
        ],
        cases=d.cases({a: byte(i % n)} for i in range(12)),
        after=lambda mem: {z: byte(values[mem[a]])},
        references={
            "jump": f"LDA {a} / ASL / TAX / JMP (.table,X) / .table / dw {pointers}",
            "call": f"LDA {a} / ASL / TAX / JSR (.table,X) / RTS / .table / dw {pointers}",
            "chain": f"LDA {a} / {tests}JMP {names[-1]}",
        },
    )


@family("asm", CONTROL)
def count_equal(d: Draw) -> Draft:
    """Count the entries of an array that equal a constant."""
    n = d.choice([8, 12, 16, 32])
    a, z, k = d.address(n + 2), d.direct(), d.immediate()
    a = a + 1
    return Draft(
        entry="CountMatches",
        ask=[
            f"count how many of the {n} bytes at {a} are equal to {k}; store the count at {z}",
            f"put the number of entries of the {n}-byte table at {a} that hold {k} in {z}",
            f"{z} = number of bytes in {a} to {a + (n - 1)} with the value {k}",
            f"count the bytes {k} in the {n}-byte array at {a}, result in {z}",
            f"go through the {n} bytes from {a} on and count those that are {k}; the total goes to {z}",
            f"store at {z} how often {k} is found in the {n} bytes starting at {a}",
            f"clear {z}, then add one to it for each of the {n} bytes at {a} that equals {k}",
            f"for i = 0 to {n - 1}, if {a}[i] == {k} count one; save the count to {z}",
            f"compare each of the {n} bytes at {a} with {k} and write the number of matches to {z}",
            f"{z} becomes the count of {k} among the {n} bytes at {a}",
            f"write to {z} how many entries of the array {a} ({n} bytes) have the value {k}",
        ],
        ask_test=[
            f"go through the {n} bytes from {a} on and leave in {z} how often {k} is there",
            f"in {z} keep the number of bytes equal to {k} in the {n}-byte buffer {a}",
            f"for every {k} in the {n} bytes at {a} count one, result to {z}",
        ],
        cases=d.cases({a - 1: _matching(d, n, k, vary=i > 0)} for i in range(16)),
        after=lambda mem: {z: byte(mem.span(a, n).count(k))},
        references={
            "memory": f"STZ {z} / LDX #{h2(n - 1)} / LDA #{k} / .loop / CMP {a},X / BNE .next / INC {z} / "
            ".next / DEX / "
            "BPL .loop / RTS",
            "register": f"LDY #$00 / LDX #{h2(n - 1)} / LDA #{k} / .loop / CMP {a},X / BNE .next / INY / "
            ".next / DEX / "
            f"BPL .loop / STY {z} / RTS",
        },
    )


def _matching(d: Draw, n: int, k: int, vary: bool) -> bytes:
    """An array between two more bytes of the wanted value, so that one step too far shows."""
    inner = (d.choice([k, k, k ^ 1, d.number(0, 255)]) if vary else k for _ in range(n))
    return bytes([k, *inner, k])


@family("asm", CONTROL)
def find_byte(d: Draw) -> Draft:
    """Index of the first entry with a value."""
    n = d.choice([8, 12, 16, 24])
    a, z, k = d.address(n + 2), d.direct(), d.immediate()
    a = a + 1

    def array(i: int) -> bytes:
        other = bytes(x if x != k else k ^ 1 for x in d.block(n))
        places = [[], [0], [n - 1], [1], [n - 2], [0, n - 1]][i] if i < 6 else d.sample(range(n), 2)
        return bytes([k, *(k if j in places else x for j, x in enumerate(other)), k])

    return Draft(
        entry="FindByte",
        ask=[
            f"search the {n} bytes at {a} for {k} and store the index of the first one at {z}, or $FF if there is none",
            f"{z} = first i below {n} with array[i] == {k}, array at {a}; $FF when no entry matches",
            f"look for {k} from {a} upwards, {n} entries; its index (from 0) or $FF goes to {z}",
            f"find the first {k} in the {n}-byte array at {a} and put its index in {z}; $FF if not found",
            f"store at {z} where {k} first stands in the {n} bytes from {a} on (0 is the first), $FF for nowhere",
            f"go through the {n} bytes at {a}; at the first {k} write its index to {z}, without one write $FF",
            f"for i = 0 to {n - 1}, if {a}[i] == {k} store i at {z} and stop; if none, store $FF",
            f"{z} becomes the index of the first byte {k} among the {n} bytes at {a}, or $FF",
            f"compare the {n} bytes at {a} with {k} in order and save the index of the first match to {z}, "
            "no match gives $FF",
            f"write the lowest index i with {a}[i] = {k} to {z}, or $FF if none of the {n} bytes is {k}",
            f"set {z} to $FF, then to the index of the first {k} in the {n}-byte table {a} if there is one",
        ],
        ask_test=[
            f"find where {k} is first in the {n}-byte table {a} and leave that index in {z}, $FF means nowhere",
            f"in {z} put the index of the first {k} in the bytes {a} to {a + (n - 1)}, $FF if there is none",
            f"look through {n} bytes from {a} on for {k}; the first gives its index (from 0) in {z}, no match $FF",
        ],
        cases=d.cases({a - 1: array(i), a + 255: byte(k)} for i in range(16)),
        after=lambda mem: {z: byte(mem.span(a, n).find(bytes([k])))},
        references={
            "down": f"LDY #$FF / LDX #{h2(n - 1)} / .loop / LDA {a},X / CMP #{k} / BNE .next / TXY / .next "
            "/ DEX / BPL .loop / "
            f"STY {z} / RTS",
            "up": f"LDX #$00 / LDA #{k} / .loop / CMP {a},X / BEQ .done / INX / CPX #{h2(n)} / BNE .loop / "
            "LDX #$FF / .done / "
            f"STX {z} / RTS",
        },
    )


@family("asm", CONTROL)
def store_if_free(d: Draw) -> Draft:
    """Use a slot if it is empty, answer in the carry."""
    n = d.choice([8, 16])
    a = d.address(n)

    def case(i: int) -> Case:
        slot, held = d.number(0, n - 1), (0, 1, 0, 0x80, 0, 0xFF, 5, 0)[i % 8]
        return Case({a + slot: byte(held)}, d.registers(X=slot, A=d.number(1, 255)))

    def after(mem: Memory) -> After:
        x, free = mem.registers["X"], mem[a + mem.registers["X"]] == 0
        return After({a + x: byte(mem.registers["A"])} if free else {}, flags={"C": int(free)})

    return Draft(
        entry="StoreSlot",
        keep="AX",
        ask=[
            f"A holds a value and X a slot (0 to {n - 1}); if the byte {a},X is zero store A there and set "
            "the carry, else clear it; keep A and X",
            f"with A = value and X = index below {n}, store A to {a}+X only if that byte is 0; carry = 1 if "
            "stored, else 0; A and X unchanged",
            f"slots are the {n} bytes at {a}; put A into slot X when it is free (0) and return carry set, "
            "else carry clear; A and X stay",
            f"if mem[{a} + X] is 0 write A to it and return carry 1, otherwise change nothing and return "
            "carry 0; keep A and X",
            f"store A in entry X of the {n}-byte table {a} if the entry is 0; answer in the carry (1 = "
            "stored) and keep A and X",
            f"test the byte {a},X; zero means store A there and set the carry, not zero means clear the "
            "carry; A and X are kept",
            f"write A to slot X of {a} unless the slot is in use (not 0); carry set if written, clear if "
            "not, A and X unchanged",
            f"use slot X of the table at {a} for the value A if it is empty (0); carry set = done, carry "
            "clear = full; A and X stay",
            f"if slot X of {a} is not zero return carry clear, else put A into it and return carry set; A "
            "and X as before",
            f"check if the byte at {a} + X is free (zero); if so save A in it with carry set, if not only "
            "clear the carry; keep A and X",
        ],
        ask_test=[
            f"if slot X of the table {a} ({n} bytes) is empty (0), write A into it and set the carry; a "
            "used slot is left alone and the carry cleared; keep A and X",
            f"put A in the byte {a} + X if that is 0, and tell by the carry whether it was (set = yes); A "
            "and X unchanged",
            f"the value A goes to entry X of {a} when the entry is zero, carry 1, and not when it is in "
            "use, carry 0; keep A and X",
        ],
        cases=(case(i) for i in range(16)),
        after=after,
        references={
            "y": f"LDY {a},X / BNE .full / STA {a},X / SEC / RTS / .full / CLC / RTS",
            "stack": f"PHA / LDA {a},X / CMP #$01 / PLA / BCS .full / STA {a},X / SEC / RTS / .full / CLC / RTS",
        },
    )
