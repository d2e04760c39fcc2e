"""The short form of the catalogue of faults in `tests/faults`: `make faults` runs all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import assembly_answers
import catalogue
import clocks
import damaged_files
import floods
import fuzz
import hostile_models
import judge_replies
import pages
import python_answers
import text_answers


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(k, marks=pytest.mark.tools) if "assembly" in k else k
        for k in catalogue.KINDS
        if k != "damaged_files"  # its rows are many and small: `make faults` alone has them
    ],
)
def test_what_must_hold_holds(kind: str) -> None:
    found = list(catalogue.outcomes(kind, quick=True))
    assert len(found) > 1 and [o for o in found if not o.survived] == []


def test_the_catalogue_is_as_long_as_it_says() -> None:
    answers = (python_answers, assembly_answers, text_answers)
    modules = (*answers, judge_replies, clocks, damaged_files, hostile_models, floods, pages)
    assert sum(len(m.FAULTS) for m in modules) >= 400
    for module in modules:
        names = [f.name for f in module.FAULTS]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_parser_of_foreign_bytes_gives_a_result_or_an_error_for_people(target: str) -> None:
    kept = list(fuzz.corpus(target))
    assert len(kept) > 2
    for data in kept:
        fuzz.attempt(target, data)
    fuzz.by_hypothesis(target, 30)
