"""What of the data a run does not train on: counted, said, and written beside the run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.errors import DataError
from hafs.files.jsonl import write_jsonl
from hafs.training.packing import TokenGroup
from hafs.types import PreferenceGroup

FILE = "left_out.jsonl"
OF_TESTS = "it is of the test split"


@dataclass
class LeftOut:
    """Prompts, and answers of prompts that are kept, that are not trained on; `rows` has them all, with the reason."""

    max_length: int
    tests: int = 0
    refused: int = 0
    long: int = 0
    answers: int = 0
    edges: int = 0
    longest: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def test(self, number: int, group: PreferenceGroup) -> None:
        """Note a prompt of the test split, which nothing is trained on."""
        self.tests += 1
        self._row(number, group, OF_TESTS)

    def refuse(self, number: int, group: PreferenceGroup, why: str) -> None:
        """Note a prompt that the model's chat template does not take."""
        self.refused += 1
        self._row(number, group, why)

    def compare(self, number: int, group: PreferenceGroup, whole: TokenGroup, kept: TokenGroup | None) -> None:
        """Note what of a group does not fit into `max_length` tokens."""
        sizes = [len(whole.prompt) + len(c) for c in whole.candidates]
        self.longest = max(self.longest, *sizes)
        over = [i for i, size in enumerate(sizes) if size > self.max_length]
        if kept is None:
            self.long += 1
            why = f"{max(sizes)} tokens are more than max_length {self.max_length}" if over else "an answer is empty"
            self._row(number, group, why)
        elif over:
            self.answers += len(over)
            self.edges += len(whole.edges) - len(kept.edges)
            texts = [group.candidates[i].text for i in over]
            why = f"answers of up to {max(sizes)} tokens are more than max_length {self.max_length}"
            self._row(number, group, why, answers=texts, edges=len(whole.edges) - len(kept.edges))

    def _row(self, number: int, group: PreferenceGroup, why: str, **more: Any) -> None:
        self.rows.append({"row": number, "group": group.id, "prompt": group.prompt, "reason": why, **more})

    def check(self, groups: int, kept: int) -> None:
        """Raise DataError when nothing is left of the data."""
        if groups and not kept:
            first = self.rows[0]["reason"] if self.rows else "there is no answer"
            fix = "see what the chat template takes" if self.refused else "raise max_length, or shorten the rows"
            fix = "train on other prompts" if self.tests == groups else fix
            raise DataError(f"there is nothing to train on: all {groups} prompts are left out ({first})", fix)

    def write(self, output: Path) -> None:
        """Write the rows into the run's directory, by the main process alone."""
        if self.rows and os.environ.get("RANK", "0") == "0":
            write_jsonl(output / FILE, self.rows)

    def notes(self, groups: int, output: Path | None = None) -> list[str]:
        """One line for each kind of what is left out."""
        found = []
        if self.tests:
            found.append(f"{self.tests} of {groups} prompts are of the test split and are left out")
        if self.refused:
            example = next(r for r in self.rows if "max_length" not in r["reason"] and r["reason"] != OF_TESTS)
            where = f"the first is row {example['row']}: {example['reason']}"
            found.append(f"{self.refused} of {groups} prompts are left out, refused by the chat template; {where}")
        if self.long:
            found.append(
                f"{self.long} of {groups} prompts are left out, longer than max_length {self.max_length} tokens"
                f" (the longest has {self.longest})"
            )
        if self.answers:
            found.append(
                f"{self.answers} answers to prompts that are kept are left out as too long, and {self.edges} edges with"
                " them"
            )
        if found and output is not None:
            found.append(f"what is left out is in {output / FILE}, with the reasons")
        return found
