"""The task pack `python`: oracles and references agree, mutants do not, and the splits are apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from hafs import tasks
from hafs.scorers.python import PythonScorer
from hafs.tasks.python import python
from hafs.types import Candidate, Prompt, Score

FAMILIES = list(python.families.values())
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Mod: ast.FloorDiv,
    ast.In: ast.NotIn,
}
MOST_SURVIVORS = 0.06  # share of mutants that may pass: what passes does the same as the reference


@pytest.fixture(scope="module")
def scorer() -> Iterator[PythonScorer]:
    with PythonScorer() as scorer:
        yield scorer


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """The benchmark, and two training prompts of every family."""
    return [*tasks.benchmark("python"), *tasks.generate("python", "train", 70)]


def scores(scorer: PythonScorer, answers: list[tuple[Prompt, str]]) -> list[Score]:
    found = list(scorer.score([(p, Candidate(p.id, text)) for p, text in answers]))
    assert not [s.reason for s in found if s.value is None]
    return found


def test_every_reference_passes_without_a_finding(scorer: PythonScorer, prompts: list[Prompt]) -> None:
    answers = [(p, r.text) for p in prompts for r in p.references]
    for (p, text), got in zip(answers, scores(scorer, answers), strict=True):
        assert got.passed and not got.details["findings"], (p.family, text, got)


class Mutation(ast.NodeTransformer):
    """Changes the place-th operator, constant or comparison of a tree."""

    def __init__(self, place: int) -> None:
        self.left = place
        self.done = False

    def _mine(self) -> bool:
        self.left -= 1
        self.done |= self.left == -1
        return self.left == -1

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) in (int, bool) and self._mine():
            return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("op", "ops"):
            op = getattr(node, name, None)
            op = op[0] if isinstance(op, list) and op else op
            if type(op) in SWAPS and self._mine():
                new = SWAPS[type(op)]()
                setattr(node, name, [new, *node.ops[1:]] if name == "ops" else new)  # type: ignore[attr-defined]
        return super().generic_visit(node)


def mutants(text: str) -> list[str]:
    """The code of a reference with one thing changed, for everything that can be."""
    code = text.removeprefix("```python\n").removesuffix("```")
    out = []
    for place in range(99):
        change = Mutation(place)
        tree = change.visit(ast.parse(code))
        if not change.done:
            break
        out.append(ast.unparse(ast.fix_missing_locations(tree)))
    return out


def test_the_cases_tell_mutants_from_references(scorer: PythonScorer, prompts: list[Prompt]) -> None:
    chosen = {p.family: p for p in prompts}
    answers = [(p, m) for p in chosen.values() for m in mutants(p.references[0].text)]
    assert len(answers) > 100 and len(chosen) == len(FAMILIES)
    quick = [(p, m) for p, m in answers if "while" not in m]  # a mutant that never ends takes seconds
    alive = [(p.family, m) for (p, m), got in zip(quick, scores(scorer, quick), strict=True) if got.passed]
    assert len(alive) <= MOST_SURVIVORS * len(quick), "\n\n".join(f"{f}\n{m}" for f, m in alive)


def test_an_answer_that_returns_nothing_fails_everywhere(scorer: PythonScorer, prompts: list[Prompt]) -> None:
    answers = [(p, f"def {p.check['entry']}(*args):\n    return None\n") for p in prompts[200:]]
    assert not [p.family for (p, _), s in zip(answers, scores(scorer, answers), strict=True) if s.passed]


def test_there_are_families_of_every_category() -> None:
    assert len(FAMILIES) >= 30 and {f.category for f in FAMILIES} == set(python.shares)


def test_splits_share_no_text_and_the_test_split_has_its_own_phrasings() -> None:
    texts = {s: {p.text for p in tasks.generate("python", s, 150)} for s in tasks.SPLITS}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    for f in FAMILIES:
        for i in range(5):
            draft = f.draft(f"{f.name} {i}")
            assert draft.ask_test and not set(draft.ask_test) & set(draft.ask)


def test_a_longer_call_begins_with_a_shorter_one() -> None:
    assert tasks.generate("python", "train", 80)[:40] == tasks.generate("python", "train", 40)
    benchmark = tasks.benchmark("python")
    assert len({p.text for p in benchmark}) == len(benchmark) == 200 and {p.split for p in benchmark} == {"test"}
    assert {p.family for p in benchmark} == set(python.families)
