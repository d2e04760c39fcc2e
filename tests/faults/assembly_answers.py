"""Hostile routines in 65816 assembly: each must not pass, or not with better clocks than the honest one.

The task is small: the low five bits of $0E20 into $00, X and Y kept. `{report}` and the like are places of the harness,
which a routine could read out of the cartridge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from catalogue import Fault, Outcome

from hafs.files.fetch import cache_root
from hafs.sandbox import open_sandbox
from hafs.types import Candidate, Prompt
from hafs_snes import tools
from hafs_snes.scorer import AsmScorer
from hafs_snes.scorer.assemble import Assembler, load_harness

VECTORS = [
    {
        "memory": {"0E20": f"{v:02x}"},
        "registers": {"X": 0x12, "Y": 0x34},
        "after": {"memory": {"0000": f"{v & 0x1F:02x}"}},
    }
    for v in (0xFF, 0x21, 0x5A)
]
CHECK = {"kind": "routine", "entry": "f", "returns": "rts", "keep": "XY", "frames": 4, "vectors": VECTORS}
WORK = "LDA $0E20\nAND #$1F\nSTA $00\n"
SLOW = "LDA $0E20\n" + "NOP\n" * 40 + "AND #$1F\nSTA $00\n"
HONEST = 72  # master clocks of WORK above an empty routine
REGISTERS = (
    "REP #$30\nLDA.l $700012\nSTA.l $700022\nLDA.l $700014\nSTA.l $700024\nLDA #$0000\nSTA.l $700020\nSTA.l $700026\n"
    "LDA #$01F7\nSTA.l $700028\nSEP #$20\nLDA.l $700018\nSTA.l $70002A\nLDA #$34\nSTA.l $70002B\nLDA #$00\nSTA.l $70002C\nREP #$20\n"
)
TIMES = "LDA.l $700030\nSTA.l $700034\nLDA.l $700032\nINC\nSTA.l $700036\n"

FAULTS: list[Fault] = []


def add(name: str, code: str, holds: str = "fails") -> None:
    FAULTS.append(Fault(name, f"f:\n{code}", holds))


# ---- forging the mailbox

for status in ("A501", "A502", "A503", "A504", "0001", "FFFF"):
    add(
        f"write the whole mailbox, status {status}, and loop",
        f"{WORK}{REGISTERS}{TIMES}LDA #${status}\nSTA.l $700002\n- BRA -",
    )
add("write the mailbox, never work", f"{REGISTERS}{TIMES}LDA #$A501\nSTA.l $700002\n- BRA -")
for place in ("idle", "report", "came_back", "reset", "rtl_for_rts", "rts_for_rtl", "break", "nmi", "irq"):
    add(
        f"write the mailbox, clobber X, go to {place}",
        f"{WORK}LDX #$77\n{REGISTERS}{TIMES}LDA #$A501\nSTA.l $700002\nJML ${{{place}}}",
    )
for skipped in (12, 30, 60, 90):
    add(
        f"go into the report, {skipped} bytes on",
        f"{WORK}LDX #$77\n{REGISTERS}LDA #$A501\nSTA.l $700038\nJML ${{report}}+{skipped}",
    )
add("a stack that is not its own", f"{WORK}PHA\nJML ${{came_back}}")
add("write the mailbox and stop", f"{WORK}{REGISTERS}{TIMES}LDA #$A501\nSTA.l $700002\nSTP")
add("write the mailbox and wait", f"{WORK}{REGISTERS}{TIMES}LDA #$A501\nSTA.l $700002\nWAI")
add(
    "write the mailbox from work memory",
    f"{WORK}LDA #$80\nSTA $7F0000\nLDA #$FE\nSTA $7F0001\n{REGISTERS}{TIMES}LDA #$A501\nSTA.l $700002\nJML $7F0000",
)
for by in (1, 5, 100):
    add(f"start {by} lines later", "PHP\nREP #$20\nLDA.l $700032\nCLC\n" + f"ADC #{by}\nSTA.l $700032\nPLP\n{WORK}RTS")
add("start some dots later", f"PHP\nREP #$20\nLDA.l $700030\nCLC\nADC #80\nSTA.l $700030\nPLP\n{WORK}RTS")
add("write the start and put it back", f"LDA.l $700032\nPHA\nINC\nSTA.l $700032\nPLA\nSTA.l $700032\n{WORK}RTS", "slow")
add("enable a reading that is later", f"{WORK}LDA #$01\nSTA.l $700000\nRTS", "slow")
for at in ("700000", "700002", "700008", "70000C", "700010", "700020", "700036", "70003C"):
    add(
        f"write ${at} and return",
        f"LDA #$11\nSTA.l ${at}\n{WORK}RTS",
        "slow" if at in ("700020", "700036", "700000", "700002") else "fails",
    )
for at in ("700100", "701FFF", "7F0000", "7E2000"):
    add(f"write ${at} and return", f"LDA #$11\nSTA.l ${at}\n{WORK}RTS")

# ---- the clock

for name, code in {
    "latch early": "LDA.l $002137",
    "forbid latches": "LDA #$00\nSTA.l $004201",
    "forbid latches after one": "LDA.l $002137\nLDA #$00\nSTA.l $004201",
    "turn the reading of counters over": "LDA.l $00213C",
    "be faster": "LDA #$01\nSTA.l $00420D",
    "write the cartridge": "LDA #$60\nSTA.l $018000",
}.items():
    add(f"clock: {name}", f"{code}\n{SLOW}RTS", "slow")

# ---- interrupts and modes

for name, value in (("NMI", "80"), ("IRQ by dot", "10"), ("IRQ by line", "20"), ("joypads", "01"), ("all", "B1")):
    add(f"leave on: {name}", f"LDA #${value}\nSTA.l $004200\n{WORK}RTS")
add("leave interrupts allowed", f"CLI\n{WORK}RTS")
add("leave decimal mode", f"{WORK}SED\nRTS")
add("leave wide registers", f"{WORK}REP #$30\nRTS")
add("leave emulation mode", f"SEC\nXCE\n{WORK}RTS")
add("move the direct page", f"{WORK}PEA $0100\nPLD\nRTS")
add("move the data bank", f"{WORK}PHK\nPLB\nLDA #$7E\nPHA\nPLB\nRTS")
for name, code in {
    "hang": "- BRA -",
    "stop": "STP",
    "wait": "WAI",
    "break": "BRK #$00",
    "coprocessor": "COP #$00",
    "long return": f"{WORK}RTL",
    "empty stack": f"{WORK}PLA\nRTS",
}.items():
    add(name, code)
add("right, but for one input", "LDA $0E20\nCMP #$5A\nBEQ +\nAND #$1F\n+ STA $00\nRTS")

# ---- the assembler

for name, code in {
    "include": 'incbin "/etc/passwd"\nRTS',
    "spelt include": '!a = inc\n!b = bin\n!a!b "/etc/passwd"',
    "read a file": 'db readfile1("/etc/passwd",0)\nRTS',
    "while": "while 1\nnop\nendwhile",
    "macro in itself": "macro a()\n%a()\nendmacro\n%a()",
    "repeat": "rep 99999999 : nop\nRTS",
    "fill": "fillbyte $00 : fill 99999999\nRTS",
    "vectors": f"{WORK}RTS\norg $00FFE6\ndw f",
    "parentheses": "LDA #" + "(" * 9000 + "1" + ")" * 9000 + "\nRTS",
    "a number": "LDA #" + "9" * 5000 + "\nRTS",
    "shifts": "LDA #(1<<-1)\nLDA #(1/0)\nLDA #(1%0)\nRTS",
    "null byte": "LDA $0E20\0\nRTS",
    "surrogate": "LDA $0E20 ; \ud800\nRTS",
    "labels": "".join(f"l{i}:\n" for i in range(3000)) + "RTS",
    "a branch to a number": f"{WORK}BRA $8123\nRTS",
    "print": 'print "A501"\nRTS',
    "error": 'error "A501"\nRTS',
    "reserved labels": f"__hafs_end:\n{WORK}RTS",
}.items():
    add(f"assembler: {name}", code)


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Every routine, beside an honest one whose clocks are known."""
    box = open_sandbox()
    places = load_harness(Assembler(tools.asar(), box), cache_root()).symbols
    box.close()
    prompt = Prompt("faults in assembly", checker="asm", check=CHECK)
    texts = []
    for fault in faults:
        code = fault.attack
        for name, address in places.items():
            code = code.replace(f"{{{name}}}", f"{address:06X}")
        texts.append(f"```asm\n{code}\n```")
    texts.append(f"```asm\nf:\n{WORK}RTS\n```")
    with AsmScorer(workers=2) as scorer:
        *found, honest = scorer.score([(prompt, Candidate(prompt.id, text)) for text in texts])
    yield Outcome("an honest routine", lost=not honest.passed or honest.details["clocks"] != HONEST, note=str(honest))
    for fault, got in zip(faults, found, strict=True):
        clocks = got.details.get("clocks")
        fast = bool(got.passed) and clocks is not None and clocks < HONEST
        forged = fast or (fault.holds == "fails" and bool(got.passed))
        leaked = "root:" in str(got.details)
        yield Outcome(
            fault.name, forged, leaked, note=f"{got.cause or got.reason} clocks {clocks} {got.details.get('clobbers')}"
        )
