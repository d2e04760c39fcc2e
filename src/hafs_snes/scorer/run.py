"""One answer from text to report: extract, screen, assemble in the sandbox, run on the emulator.

A `Bench` owns one assembler and one emulator and is used by one thread at a time. What it reports is facts;
grade.py turns them into a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hafs.errors import DataError
from hafs.sandbox import Sandbox
from hafs_snes.scorer.assemble import Assembled, Assembler, load_harness
from hafs_snes.scorer.check import Check
from hafs_snes.scorer.compare import Verdict, changed_places
from hafs_snes.scorer.emulator import Emulator, EmulatorDied, EmulatorHung
from hafs_snes.scorer.extract import extract, number
from hafs_snes.scorer.lint import Finding, lint
from hafs_snes.scorer.places import BLOCK, CODE, CODE_END, FREE, SUPPORT, TEST_BANKS, pc
from hafs_snes.scorer.screen import screen
from hafs_snes.scorer.syntax import commands, strip_comment

__all__ = ["Bench", "Report"]

STOPPING = frozenset({"WAI", "STP"})
START, END = "__hafs_start", "__hafs_end"
LONGEST_ANSWER = 100_000  # characters


@dataclass
class Report:
    """What happened to one answer. `stopped` says why it never ran ("" when it did); texts are for people.

    `size` is in bytes (of a patch: changed bytes), `clocks` the mean master clocks above an empty routine
    over all vectors, None unless every vector returned.
    """

    extracted: str = "none"
    stopped: str = ""
    assembles: bool = False
    total: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    size: int | None = None
    answer: int | None = None

    @property
    def returned(self) -> bool:
        return bool(self.verdicts) and all(v.returned for v in self.verdicts)

    @property
    def correct(self) -> int:
        return sum(v.correct for v in self.verdicts)

    @property
    def clobbers(self) -> list[str]:
        return list(dict.fromkeys(c for v in self.verdicts for c in v.clobbers))

    @property
    def clocks(self) -> int | None:
        known = [v.clocks for v in self.verdicts if v.clocks is not None]
        return round(sum(known) / len(known)) if known and len(known) == len(self.verdicts) else None

    @property
    def solved(self) -> bool:
        """All vectors correct and nothing clobbered."""
        return bool(self.verdicts) and self.correct == self.total and not self.clobbers

    def failures(self) -> Counter[str]:
        """How many vectors failed in which way."""
        return Counter(kind for v in self.verdicts for kind in {kind for kind, _ in v.problems})


class Bench:
    """An assembler and an emulator on a desk of their own. Use from one thread at a time."""

    def __init__(self, asar: Path, core: Path, cache: Path, sandbox: Sandbox, seconds: float = 60.0) -> None:
        """`cache` keeps the assembled harness, `seconds` limits the emulator's work on one answer (wall
        clock).
        """
        self.assembler = Assembler(asar, sandbox)
        self.harness = load_harness(self.assembler, cache)
        self.emulator = Emulator(core, self.harness.rom, self.harness.symbols, seconds)
        self._vanilla: dict[str, bytes] = {}
        self._baselines: dict[tuple[str, str], Report] = {}

    def close(self) -> None:
        """End the emulator's process and the sandbox."""
        self.emulator.close()
        self.assembler.sandbox.close()

    def examine(self, check: Check, seed: str, answer: str) -> Report:
        """Examine an answer. `seed` makes the memory that the check leaves open; it names the prompt.

        Raises AssemblerFailed or EmulatorDied when a tool broke, DataError when the check's own code is
        wrong.
        """
        if len(answer) > LONGEST_ANSWER:  # looking for code in megabytes costs minutes
            return Report(
                total=len(check.vectors),
                stopped="screened: too long",
                errors=[f"the answer has {len(answer)} characters"],
            )
        if check.kind == "value":
            return Report(answer=number(answer), total=len(check.vectors))
        found = extract(answer, check.entry)
        report = self.examine_code(check, seed, found.code)
        report.extracted = found.how
        return report

    def examine_code(self, check: Check, seed: str, code: str) -> Report:
        """Examine bare code of a routine or a patch."""
        report = Report(total=len(check.vectors))
        if not code.strip():
            report.stopped = "no code"
            return report
        screened = screen(code, patch=check.kind == "patch")
        if screened.errors:
            kind = screened.errors[0][0]
            report.stopped = f"{'does not assemble' if kind == 'unknown instruction' else 'screened'}: {kind}"
            report.errors = [text for _, text in screened.errors[:5]]
            return report
        report.findings = lint(screened.code, check.vectors[0].registers["P"])
        if check.kind == "patch":
            self._patch(check, seed, screened.code, report)
        else:
            self._routine(check, seed, screened.code, report)
        return report

    def vanilla(self, check: Check, seed: str) -> Report:
        """Run a check's vanilla code as it is, to prove what the check claims about it."""
        report = Report(extracted="vanilla", assembles=True, total=len(check.vectors), size=0)
        image = self._vanilla_image(check.vanilla)
        report.verdicts = self._run(check, seed, check.call, self._overlays(image), check.vanilla)
        return report

    def baseline(self, check: Check, seed: str) -> Report:
        """The report of the check's baseline, run once. Raises DataError when the baseline itself is not
        correct.
        """
        assert check.baseline is not None
        key = (seed, check.baseline)
        if key not in self._baselines:
            report = self.examine_code(check, seed, check.baseline)
            if not report.solved:
                why = report.stopped or ", ".join(report.failures()) or "it clobbers memory"
                raise DataError(f"the check's key 'baseline' is not a correct answer: {why}", "correct the task's row")
            self._baselines[key] = report
        return self._baselines[key]

    # -- a routine ---
    def _routine(self, check: Check, seed: str, code: str, report: Report) -> None:
        head = f"lorom\norg ${SUPPORT:06X}\n{check.support}\norg ${CODE:06X}\n{START}:\n"
        made = self.assembler.assemble(f"{head}{code}\n{END}:\n", first_line=head.count("\n"))
        if not self._assembled(made, report):
            return
        start, end = made.symbols[START], made.symbols[END]
        limit = SUPPORT if check.support else CODE_END
        report.size = end - start
        if end == start or end > limit:
            report.assembles = False
            report.stopped = "no code" if end == start else "does not assemble: too large"
            return
        entry = self._entry(check.entry, made.symbols, report)
        overlay = made.image[pc(CODE) : pc(CODE_END)].rstrip(b"\0")  # the rest is zero in the cartridge, too
        report.verdicts = self._run(check, seed, entry, [(pc(CODE), overlay)], f"{check.support}\n{code}")

    def _entry(self, label: str, symbols: Mapping[str, int], report: Report) -> int:
        """Where the label is; code without its label is called from its start, which is noted."""
        if not label:
            return symbols[START]
        for name, address in symbols.items():
            if name.lower() == label.lower() and CODE <= address < CODE_END:
                return address
        report.findings.append(Finding("label", f"the label {label} is missing; the code is called from its start"))
        return symbols[START]

    def _assembled(self, made: Assembled, report: Report) -> bool:
        report.assembles = made.ok
        if not made.ok:
            report.stopped, report.errors = f"does not assemble: {made.kind}", made.errors
        return made.ok

    # -- a patch ---
    def _patch(self, check: Check, seed: str, code: str, report: Report) -> None:
        before = self._vanilla_image(check.vanilla)
        made = self.assembler.assemble(f"lorom\n{code}\n", before, first_line=1)
        if not self._assembled(made, report):
            return
        grown = len(made.image) - len(before)
        changed = changed_places(made.image[: len(before)], before)
        report.size = len(changed) + grown
        allowed = [FREE] + [(pc(low), pc(low) + high - low) for low, high in check.editable]
        wrong = [i for i in changed if not any(low <= i < high for low, high in allowed)]
        if not report.size:
            report.assembles = False
            report.stopped = "no code"
        elif wrong or grown:
            places = [f"${_snes(i):06X}" for i in wrong[:4]] + ["behind the ROM's end"] * bool(grown)
            report.stopped = "protected ROM"
            report.errors = [f"{len(wrong) + grown} bytes outside of the allowed places: {', '.join(places)}"]
        else:
            report.verdicts = self._run(check, seed, check.call, self._overlays(made.image), f"{check.vanilla}\n{code}")

    def _vanilla_image(self, vanilla: str) -> bytes:
        """The harness with the check's vanilla code in it."""
        if vanilla not in self._vanilla:
            made = self.assembler.assemble(f"lorom\n{vanilla}\n", self.harness.rom, first_line=1)
            fix = "correct the task's row"
            if not made.ok:
                raise DataError(f"the check's key 'vanilla' does not assemble: {'; '.join(made.errors)}", fix)
            places = changed_places(made.image, self.harness.rom)
            if any(not (TEST_BANKS[0] <= i < TEST_BANKS[1] and i % 0x8000 < 0x7E00) for i in places):
                raise DataError("the check's key 'vanilla' writes outside of banks $01-$0D, $8000-$FDFF", fix)
            if len(self._vanilla) >= 64:
                self._vanilla.pop(next(iter(self._vanilla)))
            self._vanilla[vanilla] = made.image
        return self._vanilla[vanilla]

    def _overlays(self, image: bytes) -> list[tuple[int, bytes]]:
        """The blocks in which an image differs from the harness."""
        starts = dict.fromkeys(i - i % BLOCK for i in changed_places(image, self.harness.rom))
        return [(i, image[i : i + BLOCK]) for i in starts]

    # -- both ---
    def _run(self, check: Check, seed: str, call: int, overlays: list[tuple[int, bytes]], code: str) -> list[Verdict]:
        waits = any(c.word in STOPPING for line in code.split("\n") for c in commands(strip_comment(line)))
        job = {
            "overlays": [(at, data.hex()) for at, data in overlays],
            "call": call,
            "returns": check.returns,
            "seed": seed,
            "frames": check.frames,
            "keep": check.keep,
            "scratch": check.scratch,
            "vectors": check.rows,
            "waits": waits,
        }
        try:
            return self.emulator.run(job)
        except EmulatorHung:
            raise
        except EmulatorDied:
            return self.emulator.run(job)  # once more: it may have been the machine and not the code


def _snes(offset: int) -> int:
    return (offset // 0x8000) << 16 | 0x8000 | offset % 0x8000
