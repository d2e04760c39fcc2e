"""Scores answers in 65816 assembly (SNES) by assembling and running them.

    answer ── extract ── screen ── assemble ── run ── grade ──> Score

- extract.py   finds the code in an answer (fences, prose, nothing at all), or the number a question asks for
- screen.py    lets only harmless commands through; lint.py notes what is suspicious
- assemble.py  runs asar in the sandbox; harness.asm is the cartridge that calls the code and reports back
- machine.py   the emulated console (bsnes) in the process of worker.py, which emulator.py starts and restarts
- compare.py   all memory against what the vector asks for: wrong results, clobbers, stack, register widths, …
- run.py       one answer through all of this; grade.py turns the report into value, order and cause
- scorer.py    the pool that does this for many candidates at once
- check.py     the check data of a prompt: which code to call, input vectors, wanted results

Every vector starts from one save state at a fixed place on the screen, with all 128 KB of WRAM random (from
the prompt's id and the vector's number) but for the bytes the vector names, and junk in the hardware
registers. So luck does not pass, and clocks repeat.

An answer passes when it is right on every vector and changes nothing else. `grade.CAUSES` lists all causes of
failure. A tool that is missing or broke makes a candidate unscored, with the reason; it never makes it 0.

    with AsmScorer() as scorer:
        for score in scorer.score([(prompt, candidate), ...]):
            print(score.value, score.cause, score.details)
"""

from hafs_snes.scorer.grade import CAUSES
from hafs_snes.scorer.scorer import AsmScorer, verify

__all__ = ["CAUSES", "AsmScorer", "verify"]
