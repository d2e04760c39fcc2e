"""References, bugs and baselines of every family, proven with the real assembler and emulator.

The oracle of a family is Python, its references are assembly: they agree on every vector. Mutants of a reference must
fail on some vector, else the vectors have a hole; the few that pass do the same as the reference.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from hafs.types import Candidate, Prompt, Score
from hafs_snes.scorer import AsmScorer, verify
from hafs_snes.scorer.grade import CLOCK_TOLERANCE
from hafs_snes.tasks.dsl import FAMILIES, Draw, Family
from hafs_snes.tasks.fix import BUGS, Bug

pytestmark = pytest.mark.tools

ALL = [f for pack in FAMILIES.values() for f in pack.values()]
IMPROVED = [f for f in FAMILIES["asm"].values() if f.category == "optimisation"]
OPPOSITES = [
    ("BCC", "BCS"),
    ("BEQ", "BNE"),
    ("BMI", "BPL"),
    ("BVC", "BVS"),
    ("ADC", "SBC"),
    ("AND", "ORA"),
    ("INC", "DEC"),
    ("INX", "DEX"),
    ("INY", "DEY"),
    ("CLC", "SEC"),
    ("ASL", "LSR"),
    ("ROL", "ROR"),
    ("TSB", "TRB"),
    ("RTS", "RTL"),
]
OPPOSITE = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
MOST_SURVIVORS = 0.06  # share of mutants that may pass; what passes does the same as the reference, or waits less


@pytest.fixture(scope="module")
def scorer() -> Iterator[AsmScorer]:
    with AsmScorer() as scorer:
        yield scorer


def instance(f: Family, seed: object) -> Prompt:
    """An instance of a family, whatever its split."""
    draft = f.make(Draw(f"{f.name} {seed}"))
    return f.prompt(draft, draft.ask[0], "train", "phrasing 0")


def score(scorer: AsmScorer, prompt: Prompt, *codes: str) -> list[Score]:
    """Scores of texts as answers to a prompt; every one must have been scored."""
    scores = list(scorer.score([(prompt, Candidate(prompt.id, code)) for code in codes]))
    assert not [s.reason for s in scores if s.value is None]
    return scores


def prove(scorer: AsmScorer, prompt: Prompt) -> None:
    """Every reference passes, a question's vanilla code too, and the first reference is the best one."""
    scores = verify(prompt, scorer)
    for reference, got in zip([*prompt.references, None], scores, strict=False):
        name = reference.name if reference else "vanilla code"
        assert got.passed, f"{prompt.family}/{name}: {got.reason or got.cause} {got.details}\n{prompt.text}"
    if prompt.check["kind"] != "value":
        measure, slack = ("clocks", CLOCK_TOLERANCE) if prompt.check["decide"] == "clocks" else ("bytes", 0)
        costs = [got.details[measure] for got in scores]
        assert costs[0] <= min(costs) + slack


@pytest.mark.parametrize("f", ALL, ids=lambda f: f"{f.pack}-{f.name}")
def test_references_are_right(scorer: AsmScorer, f: Family) -> None:
    prove(scorer, instance(f, "one"))


@pytest.mark.slow
@pytest.mark.parametrize("f", ALL, ids=lambda f: f"{f.pack}-{f.name}")
def test_references_are_right_for_other_parameters(scorer: AsmScorer, f: Family) -> None:
    prove(scorer, instance(f, "two"))


@pytest.mark.parametrize("f", IMPROVED, ids=lambda f: f.name)
def test_code_to_improve_is_right_but_not_good_enough(scorer: AsmScorer, f: Family) -> None:
    prompt = instance(f, "one")
    (same,) = score(scorer, prompt, str(prompt.check["baseline"]))
    assert not same.passed
    assert same.cause == ("not smaller" if prompt.check["decide"] == "bytes" else "not faster")


@pytest.mark.parametrize(
    "bug", [b for bugs in BUGS.values() for b in bugs], ids=lambda b: f"{b.source.name}-{b.old}-{b.new}"
)
def test_a_bug_that_is_shown_fails(scorer: AsmScorer, bug: Bug) -> None:
    for seed in ("one", "two"):
        draft = bug.source.make(Draw(f"bug {seed}"))
        prompt = bug.source.prompt(draft, draft.ask[0], "train", "phrasing 0")
        (got,) = score(scorer, prompt, bug.shown(draft))
        assert not got.passed, bug.shown(draft)


@pytest.mark.parametrize("f", [f for f in ALL if f.pack == "rom_hack"], ids=lambda f: f.name)
def test_leaving_the_game_as_it_is_fails(scorer: AsmScorer, f: Family) -> None:
    prompt = instance(f, "one")
    (nothing,) = score(scorer, prompt, "org $1F8000\nNOP")
    assert not nothing.passed


def mutants(code: str) -> list[str]:
    """The code with one instruction dropped, one turned into its opposite, or one number a little off.

    Left out are mutants that are known to be the same: extra bits in REP and SEP, and waiting less.
    """
    lines, out = code.split("\n"), []
    for i, line in enumerate(lines):
        op = line.split(" ")[0]
        if line.endswith(":") or line[0] == "." or op in ("org", "NOP"):
            continue
        changed = [OPPOSITE[op] + line[len(op) :]] if op in OPPOSITE else []
        for m in re.finditer(r"\$([0-9A-F]+)", line) if op not in ("REP", "SEP") else ():
            n = len(m[1])
            for step in (1, -1):
                changed.append(f"{line[: m.start(1)]}{(int(m[1], 16) + step) % 16**n:0{n}X}{line[m.end(1) :]}")
        if op not in ("db", "dw", "dl"):
            out.append("\n".join(lines[:i] + lines[i + 1 :]))
        out += ["\n".join([*lines[:i], new, *lines[i + 1 :]]) for new in changed]
    return out


def survivors(scorer: AsmScorer, f: Family, seed: object, most: int) -> tuple[list[str], int]:
    """Mutants of the references of an instance that pass, out of how many; at most `most` are tried."""
    prompt = instance(f, seed)
    if prompt.check["kind"] == "value":
        return [], 0
    tried = [code for r in prompt.references for code in mutants(r.text)]
    tried = random.Random(f.name).sample(tried, min(most, len(tried)))
    scores = score(scorer, prompt, *tried)
    return [code for code, got in zip(tried, scores, strict=True) if got.passed], len(tried)


@pytest.mark.slow
@pytest.mark.parametrize("category", sorted({f.category for f in ALL} - {"vanilla analysis"}))
def test_the_vectors_tell_mutants_from_references(scorer: AsmScorer, category: str) -> None:
    alive: list[str] = []
    total = 0
    for f in ALL:
        if f.category == category and not f.name.startswith(("fix_", "shrink_", "speed_up_")):
            passed, n = survivors(scorer, f, "mutants", most=12)
            alive += [f"{f.name}:\n{code}" for code in passed]
            total += n
    assert len(alive) <= MOST_SURVIVORS * total, "\n\n".join(alive)
