"""Code of an imaginary game, for patches and questions: what it does, and where to hook it.

The code is our own. `Vanilla` knows the size of each instruction from its text, so a listing shows real
addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hafs_snes.tasks.dsl import Case, Draft, Draw, Hex, Memory, byte, h6, word

HACK_NOTE = "Banks $10-$1F are free."
_LABEL = re.compile(r"\.?[A-Za-z_]\w*:?$")
_ALONE = re.compile(
    r"(CL|SE)[CDIV]|T[AXYSDC]{2}|TCD|TDC|TSC|TCS|XBA|XCE|NOP|RT[SLI]|IN[XY]|DE[XY]|P[HL][ABDKPXY]|(ASL|LSR|ROL|ROR|INC|DEC)"
)
_SHORT_JUMP = re.compile(r"(B(CC|CS|EQ|NE|MI|PL|VC|VS|RA))\b")


def size_of(line: str) -> int:
    """Bytes an instruction or data line takes; a label takes none. Raises ValueError when in doubt."""
    op, _, operand = line.partition(" ")
    if op in ("db", "dw"):
        return (operand.count(",") + 1) * (1 if op == "db" else 2)
    if not operand:
        if _ALONE.fullmatch(op):
            return 1
        if _LABEL.match(line):
            return 0
    digits = re.search(r"\$([0-9A-F]+)", operand)
    if _SHORT_JUMP.match(op) or op in ("REP", "SEP"):
        return 2
    if op in ("JSR", "JMP"):
        return 3
    if op in ("JSL", "JML"):
        return 4
    if digits:
        return 1 + len(digits[1]) // 2
    if operand.startswith("."):
        return 3
    raise ValueError(f"what size has {line!r}?")


@dataclass(frozen=True)
class Vanilla:
    """Code at an address: `lines` are labels and instructions, `name` the label in front."""

    name: str
    start: Hex
    lines: tuple[str, ...]

    @classmethod
    def of(cls, name: str, start: int, code: str) -> Vanilla:
        """Code written on one line with " / " between instructions."""
        return cls(name, h6(start), tuple(part.strip() for part in code.split(" / ")))

    @property
    def end(self) -> Hex:
        """The address behind the last byte."""
        return self.start + sum(map(size_of, self.lines))

    @property
    def asm(self) -> str:
        """The source to assemble."""
        return "\n".join([f"org {self.start}", f"{self.name}:", *self.lines])

    @property
    def shown(self) -> str:
        """The listing a prompt shows: label lines, and the address in front of each instruction."""
        out, at = [f"{self.name}:"], self.start
        for line in self.lines:
            size = size_of(line)
            out.append(f"{at} {line}" if size else line)
            at = at + size
        return "\n".join(out)

    def at(self, start: str, nth: int = 0) -> Hex:
        """The address of the `nth` line that begins with `start`. Raises ValueError when there is none."""
        found, at = 0, self.start
        for line in self.lines:
            if line.startswith(start):
                if found == nth:
                    return at
                found += 1
            at = at + size_of(line)
        raise ValueError(f"{self.name} has no line {nth} that begins with {start!r}")


Model = Callable[[Memory], dict[int, bytes]]


@dataclass(frozen=True)
class Game:
    """A vanilla routine with a model of it.

    `site` are consecutive instructions that every call runs, of 4 bytes or more, which can move elsewhere as
    they are; `result` is the variable the routine is about, `inputs` draws the memory that vector number i
    needs.
    """

    vanilla: Vanilla
    model: Model
    inputs: Callable[[int], dict[int, bytes]]
    site: tuple[str, ...]
    result: Hex
    where: Mapping[str, Hex]

    @property
    def editable(self) -> list[tuple[int, int]]:
        """The routine's own bytes."""
        return [(int(self.vanilla.start), int(self.vanilla.end))]

    def hook(self, new: str, code: str, bank: int = 0x10, jump: str = "JSL") -> str:
        """A patch that replaces the site by a jump to the label `new` in a free bank, where `code` goes."""
        return redirect(self.vanilla, self.site, new, code, bank, jump)

    @property
    def old(self) -> str:
        """The site's instructions as code."""
        return " / ".join(self.site)

    @property
    def opening(self) -> tuple[str, ...]:
        """The first instructions of the routine, as many as a long jump needs room for."""
        n = next(n for n in range(1, 9) if sum(map(size_of, self.vanilla.lines[:n])) >= 4)
        return self.vanilla.lines[:n]

    @property
    def after_site(self) -> Hex:
        """The address of the first instruction behind the site."""
        return behind(self.vanilla, self.site)


def behind(vanilla: Vanilla, lines: Sequence[str]) -> Hex:
    """The address behind consecutive instructions of a routine."""
    return vanilla.at(lines[0]) + sum(map(size_of, lines))


def redirect(vanilla: Vanilla, lines: Sequence[str], new: str, code: str, bank: int = 0x10, jump: str = "JSL") -> str:
    """A patch that replaces consecutive instructions by a jump to the label `new`: `code` in a free bank."""
    fill = "NOP / " * (sum(map(size_of, lines)) - 4)
    return f"org {vanilla.at(lines[0])} / {jump} {new} / {fill}org {h6(bank << 16 | 0x8000)} / {new}: / {code}"


def start(d: Draw) -> int:
    """Where a vanilla routine begins."""
    return 0x018000 + 0x20 * d.number(0, 0x80)


def take_damage(d: Draw) -> Game:
    """Health goes down by the damage, not below zero; a sound is requested."""
    hp, damage, sound = d.addresses(3)
    k = d.immediate(1, 60)
    code = f"LDA {hp} / SEC / SBC {damage} / BCS .alive / LDA #$00 / .alive / STA {hp} / LDA #{k} / STA {sound} / RTS"
    values = d.edges8()
    return Game(
        Vanilla.of("TakeDamage", start(d), code),
        lambda mem: {hp: byte(max(0, mem[hp] - mem[damage])), sound: byte(k)},
        lambda i: {hp: byte(values[i]), damage: byte(d.number(0, 255))},
        (f"STA {hp}", f"LDA #{k}"),
        hp,
        {"health": hp, "damage": damage, "request": sound},
    )


def add_coin(d: Draw) -> Game:
    """A coin; a hundred of them are a life."""
    coins, lives, sound = d.addresses(3)
    k = d.immediate(1, 60)
    code = (
        f"LDA #{k} / STA {sound} / INC {coins} / LDA {coins} / CMP #$64 / BCC .done / STZ {coins} / INC "
        f"{lives} / .done / RTS"
    )

    def model(mem: Memory) -> dict[int, bytes]:
        full = mem[coins] + 1 >= 100
        return {sound: byte(k), coins: byte(0 if full else mem[coins] + 1), lives: byte(mem[lives] + full)}

    edges = [99, 0, 98, 99, 1]
    return Game(
        Vanilla.of("AddCoin", start(d), code),
        model,
        lambda i: {coins: byte(edges[i] if i < len(edges) else d.number(0, 99)), lives: byte(d.number(0, 98))},
        (f"LDA #{k}", f"STA {sound}"),
        coins,
        {"coins": coins, "lives": lives, "request": sound},
    )


def move_player(d: Draw) -> Game:
    """The position moves by a signed speed."""
    x, speed, steps = d.addresses(3, 2)
    code = (
        f"REP #$20 / LDA {x} / CLC / ADC {speed} / STA {x} / SEP #$20 / INC {steps} / LDA {steps} / AND "
        f"#$7F / STA {steps} / RTS"
    )
    values = d.edges16()
    return Game(
        Vanilla.of("MovePlayer", start(d), code),
        lambda mem: {x: word(mem.word(x) + mem.word(speed)), steps: byte(mem[steps] + 1 & 0x7F)},
        lambda i: {x: word(values[i]), speed: word(d.number(-300, 300)), steps: byte(d.number(0, 255))},
        ("SEP #$20", f"INC {steps}"),
        x,
        {"position": x, "speed": speed, "steps": steps},
    )


def tick_clock(d: Draw) -> Game:
    """A clock of frames and seconds, which asks for a redraw."""
    frames, seconds, redraw = d.addresses(3)
    k = d.immediate(1, 60)
    code = (
        f"LDA {frames} / INC / CMP #$3C / BCC .store / INC {seconds} / LDA #$00 / .store / STA {frames} / LDA #{k} / "
        f"STA {redraw} / RTS"
    )

    def model(mem: Memory) -> dict[int, bytes]:
        full = mem[frames] >= 59
        return {frames: byte(0 if full else mem[frames] + 1), seconds: byte(mem[seconds] + full), redraw: byte(k)}

    edges = [59, 0, 58, 59, 1]
    return Game(
        Vanilla.of("TickClock", start(d), code),
        model,
        lambda i: {frames: byte(edges[i] if i < len(edges) else d.number(0, 59)), seconds: byte(d.number(0, 255))},
        (f"STA {frames}", f"LDA #{k}"),
        frames,
        {"frames": frames, "seconds": seconds, "request": redraw},
    )


GAMES = (take_damage, add_coin, move_player, tick_clock)


def patch(
    d: Draw,
    game: Game,
    *,
    extra: Model,
    inputs: Callable[[int], dict[int, bytes]],
    ask: Sequence[str],
    ask_test: Sequence[str],
    references: Mapping[str, str],
    n: int = 12,
) -> Draft:
    """The task of changing a game: `extra` overrides what its routine stores, `inputs` adds to its inputs."""
    shown = f"{HACK_NOTE}\n{game.vanilla.shown}"
    return Draft(
        kind="patch",
        ask=[f"{a} {shown}" for a in ask],
        ask_test=[f"{a} {shown}" for a in ask_test],
        cases=(Case({**game.inputs(i), **inputs(i)}, d.registers()) for i in range(n)),
        after=lambda mem: {**game.model(mem), **extra(mem)},
        references=references,
        vanilla=game.vanilla.asm,
        editable=game.editable,
        call=int(game.vanilla.start),
    )


def places(game: Game) -> set[int]:
    """The low WRAM bytes the game's routine mentions, and their neighbours, which a word may cover."""
    named = (int(digits, 16) for digits in re.findall(r"\$([0-9A-F]{4})\b", game.vanilla.asm))
    return {at + i for at in named for i in range(-1, 3)}


def elsewhere(d: Draw, *games: Game, k: int = 1) -> list[Hex]:
    """`k` low WRAM bytes that no routine of the games uses."""
    used = set().union(*map(places, games))
    while True:
        found = d.addresses(k, 2)
        if used.isdisjoint(found):
            return found
