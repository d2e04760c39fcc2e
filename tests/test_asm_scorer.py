"""The assembly scorer end to end on the real sandbox, assembler and emulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hafs.errors import DataError
from hafs.sandbox import Limits, open_sandbox
from hafs.scorers import open_scorer
from hafs.types import Candidate, Prompt, Reference, Score
from hafs_snes import tools
from hafs_snes.scorer import CAUSES, AsmScorer, verify
from hafs_snes.scorer.assemble import Assembled, Assembler
from hafs_snes.scorer.run import Bench

pytestmark = pytest.mark.tools
ANSWERS = tomllib.loads((Path(__file__).parent / "asm_answers" / "answers.toml").read_text())["answer"]
BYTES = [0, 1, 2, 0x1F, 0x20, 0x7F, 0x80, 0xFF, 0x0C, 0x2C, 0x33, 0x5A, 0x91, 0xC6, 0xE8, 0xFE]
JUNK = {"A": 0xB35C, "X": 0x6D, "Y": 0x92, "P": 0x74, "DB": 1}


def word(x: int) -> str:
    return (x & 0xFFFF).to_bytes(2, "little").hex()


def vector(memory: dict[str, str], after: dict[str, Any], **registers: int) -> dict[str, Any]:
    return {"registers": {**JUNK, **registers}, "memory": memory, "after": after}


def _checks() -> dict[str, dict[str, Any]]:
    load = [vector({"0E20": f"{x:02x}"}, {"memory": {"0": f"{x & 0x1F:02x}"}}) for x in BYTES]
    pairs = [(x * 259 & 0xFFFF, y * 771 & 0xFFFF) for x, y in zip(BYTES, BYTES[::-1], strict=True)]
    add = [vector({"10": word(x) + word(y)}, {"memory": {"14": word(x + y)}}) for x, y in pairs]
    hide = [vector({}, {"memory": {f"{0x801 + 4 * k:x}": "f0" for k in range(128)}}, A=a) for a in (3, 0xF0F0)]
    page = [bytes((i * step + step) & 0xFF for i in range(256)).hex() for step in (7, 31)]
    copy = [vector({"2000": p}, {"memory": {"13000": p}}) for p in page]
    tiles = [vector({"2000": p[:128]}, {"vram": {"2000": p[:128]}}) for p in page]
    swinging = [vector({"0E20": f"{x:02x}"}, {"flags": {"C": int(x & 0x1F == 0xC)}}, P=0x34 | x & 3) for x in BYTES]
    product = [
        vector({"10": f"{x:02x}{y:02x}"}, {"memory": {"14": word(x * y)}})
        for x, y in zip(BYTES[:-3], BYTES[3:], strict=True)
    ]
    table = [3, 1, 4, 1, 5, 9, 2, 6]
    lookup = [vector({"10": f"{i:02x}"}, {"memory": {"11": f"{table[i]:02x}"}}) for i in range(8)]
    support = [vector({}, {"registers": {"A": [x + 10 & 0xFF, 0xFF]}}, A=x) for x in BYTES]
    routine = {"kind": "routine", "returns": "rts"}
    return {
        "load": {**routine, "entry": "LoadPlayerState", "keep": "XY", "vectors": load},
        "add": {**routine, "entry": "AddWords", "vectors": add},
        "hide": {**routine, "entry": "HideSprites", "vectors": hide},
        "copy": {**routine, "entry": "CopyPage", "vectors": copy},
        "check": {**routine, "entry": "IsSwinging", "keep": "XY", "vectors": swinging},
        "multiply": {**routine, "entry": "Multiply", "vectors": product},
        "upload": {**routine, "entry": "UploadTiles", "returns": "rtl", "vectors": tiles},
        "lookup": {**routine, "entry": "Lookup", "vectors": lookup},
        "support": {**routine, "entry": "Twice", "support": "AddFive:\n CLC\n ADC #$05\n RTS", "vectors": support},
    }


CHECKS = _checks()


def prompt(task: str, **changes: Any) -> Prompt:
    return Prompt(f"task {task}", checker="asm", check={**CHECKS[task], **changes})


def answers(p: Prompt, *texts: str) -> list[tuple[Prompt, Candidate]]:
    return [(p, Candidate(p.id, text)) for text in texts]


def stable(score: Score) -> str:
    return json.dumps(score.to_dict(), sort_keys=True)


@pytest.fixture(scope="module")
def scorer() -> Iterator[AsmScorer]:
    with AsmScorer(workers=1) as opened:
        yield opened


# --- right and wrong answers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(scorer: AsmScorer) -> dict[str, Score]:
    items = [answers(prompt(a["task"]), a["text"])[0] for a in ANSWERS]
    return dict(zip((a["name"] for a in ANSWERS), scorer.score(items), strict=True))


@pytest.mark.parametrize("answer", ANSWERS, ids=[a["name"] for a in ANSWERS])
def test_answers_get_the_right_cause(answer: dict[str, str], scored: dict[str, Score]) -> None:
    score = scored[answer["name"]]
    assert score.value is not None, score.reason
    assert score.cause == answer["cause"], score.details
    assert score.passed == (answer["cause"] == "")
    assert score.cause in CAUSES
    assert (score.value == 1.0) == score.passed
    assembles = not score.cause.startswith(("no code", "screened", "does not assemble"))
    assert (score.value > 0) == assembles == (score.key[0] == 1.0)


def test_nothing_of_a_file_leaks_into_a_score(scored: dict[str, Score]) -> None:
    everything = json.dumps([s.to_dict() for s in scored.values()])
    assert "root:" not in everything and "/bin/" not in everything


def test_right_answers_have_bytes_and_clocks(scored: dict[str, Score]) -> None:
    details = scored["fence with tag and prose around"].details
    assert (details["bytes"], details["clocks"]) == (8, 72)  # LDA.w AND.b STA.b RTS, above an empty routine
    assert details["correct"] == details["total"] == 16


def test_order_among_answers(scorer: AsmScorer) -> None:
    best_first = [
        "LoadPlayerState:\n LDA $0E20\n AND #$1F\n STA $00\n RTS",
        "LoadPlayerState:\n LDA $0E20\n NOP\n AND #$1F\n STA $00\n RTS",  # more bytes
        "LoadPlayerState:\n LDA $0E20\n STA $01\n AND #$1F\n STA $00\n RTS",  # clobbers
        "LoadPlayerState:\n LDA $0E20\n AND #$1E\n STA $00\n RTS",  # right for some vectors
        "LoadPlayerState:\n LDA $0E20\n STA $00\n BEQ done\n - BRA -\n done: RTS",  # returns for some
        "LoadPlayerState:\n LDA nowhere",  # does not assemble
    ]
    scores = list(scorer.score(answers(prompt("load"), *best_first)))
    assert [s.cause for s in scores[:3]] == ["", "", "clobber"]
    keys, values = [s.key for s in scores], [s.value for s in scores]
    assert keys == sorted(keys, reverse=True) and len(set(keys)) == len(keys)
    assert values == sorted(values, reverse=True)


def test_what_decides_is_the_last_of_the_key(scorer: AsmScorer) -> None:
    small = "CopyPage:\n LDX #$00\n- LDA $7E2000,X\n STA $7F3000,X\n INX\n BNE -\n RTS"
    fast = next(a["text"] for a in ANSWERS if a["name"] == "block move, bank kept")
    by = {}
    for decide in ("bytes", "clocks", None):
        by[decide] = [s.key for s in scorer.score(answers(prompt("copy", decide=decide), small, fast))]
    assert by["bytes"][0] > by["bytes"][1] and by[None] == by["bytes"]
    assert by["clocks"][0] < by["clocks"][1]


def test_the_stack_page_and_scratch_are_free(scorer: AsmScorer) -> None:
    text = "LoadPlayerState:\n LDA $0E20\n STA $0180\n STA $40\n AND #$1F\n STA $00\n RTS"
    (strict,) = scorer.score(answers(prompt("load"), text))
    (free,) = scorer.score(answers(prompt("load", scratch=[[0x40, 0x42]]), text))
    assert strict.cause == "clobber" and strict.details["clobbers"] == ["$7E0040"]
    assert free.passed


def test_a_missing_label_is_noted_and_forgiven(scorer: AsmScorer) -> None:
    (score,) = scorer.score(answers(prompt("load"), "```asm\n LDA $0E20\n AND #$1F\n STA $00\n RTS\n```"))
    assert score.passed and any("LoadPlayerState is missing" in x for x in score.details["lint"])


# --- hostile code behind the screen: the sandbox is the second wall ----------------------------------------


def assemble(source: str, **limits: Any) -> Assembled:
    return Assembler(tools.asar(), open_sandbox(), Limits(**limits)).assemble(source)


@pytest.mark.parametrize(
    "line",
    [
        'incsrc "/etc/passwd"',
        'incbin "/etc/passwd"',
        'incbin "/proc/self/environ"',
        'db readfile1("/etc/passwd",0)',
        '!a = inc\n!b = bin\n!a!b "/etc/passwd"',
        'print hex(readfile4("/etc/passwd",0))',
    ],
)
def test_the_assembler_cannot_read_files(line: str) -> None:
    made = assemble(f"lorom\norg $008000\n{line}\n")
    seen = " ".join(made.errors)
    assert not made.ok and "root:" not in seen and b"root:" not in made.image


@pytest.mark.parametrize(
    "loop", ["while 1\nendwhile", 'while 1\nprint "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"\nendwhile']
)
def test_an_endless_assembler_is_stopped(loop: str) -> None:
    made = assemble(f"lorom\norg $008000\n{loop}\n", seconds=1.5, output_bytes=1 << 16)
    assert made.kind == "limits" and made.errors


def test_ten_megabytes_of_answer(scorer: AsmScorer) -> None:
    load = "LoadPlayerState:\n LDA $0E20\n AND #$1F\n STA $00\n RTS\n"
    big = ["x" * 10_000_000, "NOP\n" * 2_500_000, load + " NOP\n" * 2_000_000, "`" * 10_000_000]
    scores = list(scorer.score(answers(prompt("load"), *big)))
    assert [s.cause for s in scores] == ["screened: too long"] * 4
    assert all(len(json.dumps(s.to_dict())) < 5000 for s in scores)


# --- the same answer, the same score -----------------------------------------------------------------------

TWICE = [a["text"] for a in ANSWERS if a["task"] in ("load", "copy") and not a["cause"]]


def test_scores_repeat_in_one_process_and_in_another(scorer: AsmScorer) -> None:
    items = [x for t in ("load", "copy") for x in answers(prompt(t), *TWICE)]
    first = [stable(s) for s in scorer.score(items)]
    with AsmScorer(workers=2) as other:
        assert [stable(s) for s in other.score(list(reversed(items)))] == first[::-1]
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_asm_scorer import *\n"
        "with AsmScorer(workers=1) as s:\n"
        "    items = [x for t in ('load', 'copy') for x in answers(prompt(t), *TWICE)]\n"
        "    for x in s.score(items): print(stable(x))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(Path(__file__).parent)], capture_output=True, text=True)
    assert ran.stdout.splitlines() == first, ran.stderr


def test_an_identical_answer_is_examined_once(scorer: AsmScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    examine = Bench.examine

    def counting(self: Bench, check: Any, seed: str, answer: str) -> Any:
        seen.append(answer)
        return examine(self, check, seed, answer)

    monkeypatch.setattr(Bench, "examine", counting)
    p = prompt("load")
    same = [(p, Candidate(p.id, TWICE[0], index=i)) for i in range(20)]
    scores = list(scorer.score(same + answers(p, TWICE[1])))
    assert sorted(seen) == sorted(TWICE[:2])
    assert [s.candidate_id for s in scores[:20]] == [c.id for _, c in same]
    assert len({s.value for s in scores}) == 1


# --- what breaks is missing, not zero ----------------------------------------------------------------------


def test_a_killed_emulator_comes_back(scorer: AsmScorer) -> None:
    (before,) = scorer.score(answers(prompt("load"), TWICE[0]))
    pid = scorer._benches[0].emulator.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    (after,) = scorer.score(answers(prompt("load"), TWICE[0]))
    assert stable(after) == stable(before)
    assert scorer._benches[0].emulator.pid != pid


def test_an_emulator_that_keeps_dying_leaves_the_candidate_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    import _ctypes

    monkeypatch.setenv("HAFS_BSNES_CORE", _ctypes.__file__)  # a library, but no emulator
    with AsmScorer(workers=1) as broken:
        (score,) = broken.score(answers(prompt("load"), TWICE[0]))
    assert score.value is None and "emulator" in score.reason and score.key == ()


@pytest.mark.parametrize("variable", ["HAFS_ASAR", "HAFS_BSNES_CORE"])
def test_a_missing_tool_leaves_candidates_unscored(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    with AsmScorer(workers=2) as without:
        scores = list(without.score(answers(prompt("load"), *TWICE)))
    assert all(s.value is None and s.reason and s.passed is None for s in scores)


def test_a_prompt_without_a_check_is_unscored(scorer: AsmScorer) -> None:
    p = Prompt("write a poem")
    (score,) = scorer.score(answers(p, "NOP"))
    assert score.value is None and "no check" in score.reason


def broken_checks() -> list[tuple[str, dict[str, Any]]]:
    good, one = CHECKS["load"], CHECKS["load"]["vectors"][0]
    return [
        ("kind", {**good, "kind": "poem"}),
        ("vectors", {**good, "vectors": []}),
        ("entrie", {**good, "entrie": "x"}),
        ("returns", {**good, "returns": "rti"}),
        ("keep", {**good, "keep": "Q"}),
        ("decide", {**good, "baseline": "RTS"}),
        ("frames", {**good, "frames": 0}),
        ("scratch[0]", {**good, "scratch": [[5]]}),
        ("vectors[1].memory.zz", {**good, "vectors": [one, {**one, "memory": {"zz": "00"}}]}),
        ("vectors[0].memory.1FFFF", {**good, "vectors": [{**one, "memory": {"1FFFF": "0000"}}]}),
        ("vectors[0].after.memory.1f0", {**good, "vectors": [{**one, "after": {"memory": {"1f0": "00"}}}]}),
        ("vectors[0].registers.A", {**good, "vectors": [{**one, "registers": {"A": 65536}}]}),
        ("vectors[0].after.flags.C", {**good, "vectors": [{**one, "after": {"flags": {"C": 2}}}]}),
        ("call", {**good, "kind": "patch"}),
        ("answer", {"kind": "value"}),
        ("answer.value", {"kind": "value", "answer": {"kind": "number", "value": "6"}}),
    ]


@pytest.mark.parametrize(("key", "check"), broken_checks(), ids=[k for k, _ in broken_checks()])
def test_a_malformed_check_is_named(scorer: AsmScorer, key: str, check: dict[str, Any]) -> None:
    p = Prompt("broken", checker="asm", check=check)
    with pytest.raises(DataError, match="'" + key.replace("[", r"\[").replace(".", r"\.") + "'"):
        scorer.score(answers(p, "NOP"))


# --- patches, questions, improvements ----------------------------------------------------------------------

VANILLA = """org $018000
TakeDamage:
LDA.w $0300
SEC
SBC.w $0301
BCS .alive
LDA.b #$00
.alive
STA.w $0300
LDA.b #$05
STA.w $0310
RTS
"""
HITS = [(9, 3, 0), (3, 9, 255), (0, 0, 1), (255, 255, 7), (200, 1, 3), (1, 200, 4)]


def hook() -> Prompt:
    vectors = [
        vector(
            {"300": f"{h:02x}{d:02x}", "320": f"{c:02x}"},
            {"memory": {"300": f"{max(0, h - d):02x}", "310": "05", "320": f"{c + 1 & 255:02x}"}},
        )
        for h, d, c in HITS
    ]
    check = {
        "kind": "patch",
        "returns": "rts",
        "vanilla": VANILLA,
        "editable": [[0x018000, 0x018014]],
        "call": 0x018000,
        "vectors": vectors,
    }
    return Prompt("count the hits", checker="asm", check=check)


COUNT = "CountHit:\nSTA.w $0300\nINC.w $0320\nLDA.b #$05\nRTL"


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("", f"```asm\norg $01800B\nJSL CountHit\nNOP\norg $108000\n{COUNT}\n```"),
        ("", f"```asm\nlorom\norg $01800B\nautoclean JSL CountHit\nNOP\nfreecode\n{COUNT}\n```"),
        ("wrong result", "org $01800B\nJSL Hit\nNOP\norg $108000\nHit:\nINC.w $0320\nLDA.b #$05\nRTL"),
        ("protected ROM", f"org $01800B\nJSL CountHit\nNOP\norg $018020\n{COUNT}"),
        ("protected ROM", f"org $01800B\nJSL CountHit\nNOP\norg $208000\n{COUNT}"),
        ("protected ROM", "org $008000\nNOP"),
        ("wrong mode", f"org $01800B\nJSL Hit\nNOP\norg $108000\nHit:\nPHK\nPLB\n{COUNT}"),
        ("screened: file access", 'org $108000\nincbin "/etc/passwd"'),
        ("does not assemble: too large", "org $10FFFF\nJSL $108000"),
        ("no code", "org $01800B\nSTA.w $0300"),
    ],
)
def test_patches(scorer: AsmScorer, cause: str, text: str) -> None:
    (score,) = scorer.score(answers(hook(), text))
    assert score.cause == cause, score.details
    assert score.passed == (cause == "")


def question(value: int = 6) -> Prompt:
    vectors = [vector({"300": "0903"}, {"memory": {"300": "06", "310": "05"}})]
    check = {
        "kind": "value",
        "returns": "rts",
        "vanilla": VANILLA,
        "call": 0x018000,
        "vectors": vectors,
        "answer": {"kind": "number", "value": value},
    }
    references = (Reference("hex", "9 - 3: the byte holds $06."), Reference("plain", "6"))
    return Prompt(f"what is at $0300? {value}", checker="asm", check=check, references=references)


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("", "The answer is **$06**."),
        ("", "$09 - $03 = %00000110"),
        ("", "answer: 0x6"),
        ("", "6"),
        ("wrong answer", "It is 7."),
        ("wrong answer", "It was 6 and is now 5"),
        ("no answer", "I do not know."),
    ],
)
def test_questions(scorer: AsmScorer, cause: str, text: str) -> None:
    (score,) = scorer.score(answers(question(), text))
    assert score.cause == cause and score.value == float(not cause) and score.passed == (not cause)


def test_verify_runs_references_and_vanilla_code(scorer: AsmScorer) -> None:
    scores = verify(question(), scorer)
    assert [s.passed for s in scores] == [True, True, True]
    wrong = question()
    check = json.loads(json.dumps(wrong.check))
    check["vectors"][0]["after"]["memory"]["300"] = "07"
    assert [s.passed for s in verify(replace(wrong, check=check), scorer)] == [True, True, False]


@pytest.mark.parametrize("decide", ["bytes", "clocks"])
def test_an_improvement_must_improve(scorer: AsmScorer, decide: str) -> None:
    slow = "LoadPlayerState:\n LDA.l $7E0E20\n NOP\n NOP\n NOP\n NOP\n AND #$1F\n STA.w $0000\n RTS"
    p = prompt("load", decide=decide, baseline=slow)
    texts = [slow, "LoadPlayerState:\n LDA $0E20\n AND #$1F\n STA $00\n RTS", "LoadPlayerState:\n RTS"]
    same, better, wrong = scorer.score(answers(p, *texts))
    assert same.cause == ("not smaller" if decide == "bytes" else "not faster") and same.value == 0.9
    assert better.passed and better.value == 1.0 and better.key > same.key
    assert wrong.cause == "wrong result"


def test_a_gap_below_the_tolerance_is_not_faster(scorer: AsmScorer) -> None:
    slow = "LoadPlayerState:\n LDA $0E20\n NOP\n AND #$1F\n STA $00\n RTS"
    better = slow.replace(" NOP\n", "")
    p = prompt("load", decide="clocks", baseline=slow)
    (score,) = scorer.score(answers(p, better))
    assert score.cause == "not faster" and score.tolerance == 40


def test_a_wrong_baseline_is_the_tasks_fault(scorer: AsmScorer) -> None:
    p = prompt("load", decide="bytes", baseline="LoadPlayerState:\n RTS")
    with pytest.raises(DataError, match="baseline"):
        list(scorer.score(answers(p, TWICE[0])))


def test_the_scorer_is_registered() -> None:
    with_name = open_scorer("asm", workers=1)
    assert isinstance(with_name, AsmScorer) and (with_name.name, with_name.arguments) == ("asm", {})
    with_name.close()
