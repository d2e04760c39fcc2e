"""Comparing models: pairs by prompt, nothing unscored counted, and a decision that follows its stated rules."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.errors import DataError, UsageError
from hafs.evals import Comparison, EvalResult, PromptResult, compare, eval_result, to_markdown, to_text
from hafs.evals.compare import pair_up, winner
from hafs.evals.tables import main_table, markdown_cell
from hafs.report import ReportData, render_html
from hafs.statistics import wilson
from hafs.types import Candidate, Prompt, Score


def answer(i: int, passed: bool | None, **more: Any) -> PromptResult:
    more.setdefault("value", None if passed is None else float(passed))
    more.setdefault("reason", "emulator died" if passed is None else "")
    return PromptResult(f"p{i}", f"prompt {i}", "loops" if i % 2 else "tables", passed=passed, **more)


def result(name: str, passes: list[bool | None], benchmark: str = "asm", **more: Any) -> EvalResult:
    rows = (answer(i, p, n_tokens=20 + i % 7) for i, p in enumerate(passes))
    return EvalResult(name, benchmark, tuple(replace(r, prompt_id=f"{benchmark} {r.prompt_id}") for r in rows), **more)


def against(gained: int, lost: int, both: int, neither: int) -> Comparison:
    """dpo against sft with the given numbers of prompts."""
    sft = [False] * gained + [True] * lost + [True] * both + [False] * neither
    dpo = [True] * gained + [False] * lost + [True] * both + [False] * neither
    return compare({"sft": [result("sft", sft)], "dpo": [result("dpo", dpo)]})


def scored(candidate: Candidate, **more: Any) -> Score:
    return Score(candidate.id, "asm", "1", **more)


def test_a_result_joins_prompts_answers_and_scores() -> None:
    prompts = [Prompt(f"task {i}", family="f", category="c", checker="asm") for i in range(5)]
    answers = [Candidate(p.id, f"answer {i}", n_tokens=i) for i, p in enumerate(prompts[:4])]
    scores = {
        answers[0].id: scored(answers[0], value=1.0, passed=True, key=(1.0, -7.0), tolerance=2.0),
        answers[1].id: scored(answers[1], value=0.2, passed=False, cause="hang"),
        answers[2].id: scored(answers[2], reason="emulator died"),
    }
    r = eval_result("sft", "abc", "models/sft", "asm", {"temperature": 0.0}, prompts, answers, scores, seconds=2.5)
    assert [x.passed for x in r.results] == [True, False, None, None, None]
    assert (r.passed, r.scored, r.coverage) == (1, 2, 0.4)
    assert r.unscored() == {"emulator died": 1, "the answer was not scored": 1, "no answer was generated": 1}
    assert r.results[0].key == (1.0, -7.0)
    assert r.results[1].prompt == "task 1"
    assert EvalResult.from_dict(json.loads(json.dumps(r.to_dict()))) == r


def test_a_prompt_of_two_benchmarks_counts_once() -> None:
    everything = {"sft": [False, True, False], "dpo": [True, True, None]}
    some = {name: EvalResult(name, "easy", result(name, passes).results[:1]) for name, passes in everything.items()}
    overall = compare({name: [result(name, everything[name]), some[name]] for name in everything}).overall["dpo"]
    assert (overall.gained, overall.lost, overall.difference.n, overall.left_out) == (1, 0, 2, 1)


def test_two_answers_to_one_prompt_are_refused() -> None:
    prompt = Prompt("task")
    answers = [Candidate(prompt.id, text) for text in "ab"]
    with pytest.raises(DataError, match="two answers to one prompt"):
        eval_result("sft", "", "", "asm", {}, [prompt], answers, {})
    with pytest.raises(DataError, match="two answers to one prompt"):
        EvalResult("sft", "asm", (answer(1, True), answer(1, False)))


def test_a_broken_file_is_named() -> None:
    row = result("sft", [True]).to_dict()
    with pytest.raises(DataError, match=r"no evaluation result: results\.0\.passed"):
        EvalResult.from_dict({**row, "results": [{**row["results"][0], "passed": "perhaps"}]})
    with pytest.raises(DataError, match="no evaluation result: benchmark"):
        EvalResult.from_dict({k: v for k, v in row.items() if k != "benchmark"})


@pytest.mark.parametrize(
    ("new", "old", "tolerance", "expected"),
    [
        ((1.0, 1.0, -7.0), (1.0, 0.5, 0.0), 2.0, 1),  # correctness before efficiency
        ((1.0, 1.0, -9.0), (1.0, 1.0, -7.0), 1.0, -1),  # slower by more than the tolerance
        ((1.0, 1.0, -9.0), (1.0, 1.0, -7.0), 2.0, 0),  # within it
        ((0.0, 1.0, -9.0), (1.0, 1.0, -9.5), 2.0, -1),  # the tolerance is for the last part alone
        ((), (), 0.0, 0),
    ],
)
def test_winner_by_key(new: tuple[float, ...], old: tuple[float, ...], tolerance: float, expected: int) -> None:
    a, b = (answer(0, True, value=0.5, key=key, tolerance=tolerance) for key in (new, old))
    assert winner(a, b) == expected
    assert winner(b, a) == -expected


def test_without_keys_the_value_decides() -> None:
    assert winner(answer(0, False, value=0.4), answer(0, False, value=0.2)) == 1


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.sampled_from([True, False, None])), min_size=1))
def test_unscored_prompts_never_count(cases: list[tuple[bool | None, bool | None]]) -> None:
    sft, dpo = result("sft", [a for a, _ in cases]), result("dpo", [b for _, b in cases])
    pair = compare({"sft": [sft], "dpo": [dpo]}).overall["dpo"]
    kept = [(a, b) for a, b in cases if a is not None and b is not None]
    assert pair.difference.n == len(kept) == len(cases) - pair.left_out
    assert pair.gained == sum(b and not a for a, b in kept)
    assert pair.lost == sum(a and not b for a, b in kept)
    assert pair.by_pass.wins + pair.by_pass.ties + pair.by_pass.losses == len(kept)
    if kept:
        assert pair.difference.value == pytest.approx((sum(b for _, b in kept) - sum(a for a, _ in kept)) / len(kept))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.randoms())
def test_the_order_of_prompts_does_not_matter(cases: list[tuple[bool, bool]], random: Any) -> None:
    def rows(name: str, which: int, order: list[int]) -> EvalResult:
        return EvalResult(name, "asm", tuple(answer(i, cases[i][which]) for i in order))

    order = list(range(len(cases)))
    mixed = random.sample(order, len(order))
    straight = compare({"sft": [rows("sft", 0, order)], "dpo": [rows("dpo", 1, order)]})
    shuffled = compare({"sft": [rows("sft", 0, order)], "dpo": [rows("dpo", 1, mixed)]})
    assert straight == shuffled


def test_a_real_gain_is_better_and_promoted() -> None:
    c = against(gained=20, lost=3, both=60, neither=17)
    assert (c.verdict, c.promote) == ("better", True)
    assert "DPO passes 80.0% of 100 prompts, SFT 63.0%: +17.0 points" in c.sentence
    assert "real at this size" in c.sentence
    assert "DPO is promoted" in c.reason


def test_a_small_gain_is_not_distinguishable_but_at_least_as_good() -> None:
    cases = {"gained": 6, "lost": 3, "both": 70, "neither": 21}
    c = against(**cases)
    assert (c.verdict, c.promote) == ("not distinguishable", True)
    assert "cannot be told from chance" in c.sentence
    assert "four times in five" in c.sentence
    passes = [[False] * 6 + [True] * 94, [True] * 6 + [False] * 3 + [True] * 91]
    strict = compare({n: [result(n, p)] for n, p in zip(("sft", "dpo"), passes, strict=True)}, strict=True)
    assert (strict.verdict, strict.promote) == ("not distinguishable", False)
    assert "reaches zero" in strict.reason


def test_equal_is_promoted_and_fewer_is_not() -> None:
    assert against(4, 4, 60, 32).promote
    c = against(3, 4, 60, 33)
    assert not c.promote
    assert "fewer prompts" in c.reason
    assert "SFT is kept" in c.reason


def test_a_model_that_is_the_reference_is_not_promoted_and_has_one_column() -> None:
    passes: list[bool | None] = [True] * 30 + [False] * 20
    sft, dpo = replace(result("sft", passes), model="h1"), replace(result("dpo", passes), model="h1")
    base = replace(result("baseline", [False] * 50), model="h0")
    c = compare({"baseline": [base], "sft": [sft], "dpo": [dpo]}, "sft")
    assert c.models == ("baseline", "sft") and c.same == {"dpo": "sft"} and not c.promote
    assert c.sentence == "DPO kept the SFT model: nothing was learnt that validation could see."
    assert "promoted" not in to_markdown(c) and "DPO kept the SFT model" in to_markdown(c)
    assert Comparison.from_dict(c.to_dict()) == c
    page = render_html(ReportData("t", comparison=c))
    assert "DPO kept the SFT model" in page and "DPO promoted" not in page
    twice = compare({"sft": [base], "a": [sft], "b": [dpo]}, "sft")
    assert twice.models == ("sft", "a") and twice.decisions["a"].promote and any("one model" in n for n in twice.notes)


def test_a_second_name_of_the_reference_is_not_counted_as_a_comparison() -> None:
    def rows(name: str, passes: list[bool | None], model: str) -> list[EvalResult]:
        return [replace(result(name, passes), model=model, benchmark=b) for b in ("asm", "test")]

    sft, dpo = rows("sft", [True] * 50, "h1"), rows("dpo", [True] * 50, "h1")
    assert not [n for n in compare({"sft": sft, "dpo": dpo}, "sft").notes if "Holm" in n]
    other = rows("other", [True] * 40 + [False] * 10, "h2")
    notes = compare({"sft": sft, "dpo": dpo, "other": other}, "sft").notes
    assert [n for n in notes if "2 comparisons were made" in n]


def test_a_collapse_is_worse() -> None:
    c = against(gained=2, lost=41, both=33, neither=20)
    assert (c.verdict, c.promote) == ("worse", False)


def test_a_borderline_result_says_so() -> None:
    c = against(gained=12, lost=3, both=60, neither=25)
    assert c.overall["dpo"].p < 0.05
    assert "borderline" not in c.sentence
    c = against(gained=10, lost=2, both=60, neither=28)
    assert c.overall["dpo"].p < 0.05
    c = against(gained=5, lost=0, both=60, neither=35)
    assert c.verdict == "better"
    assert c.overall["dpo"].p > 0.05
    assert "borderline" in c.sentence


def test_fewer_answers_that_assemble_stop_a_promotion() -> None:
    def rows(name: str, broken: int, passes: int) -> EvalResult:
        causes = ["does not assemble: bad operand"] * broken + ["wrong result"] * (100 - broken - passes)
        failed = [answer(i, False, cause=cause) for i, cause in enumerate(causes)]
        return EvalResult(name, "asm", (*failed, *(answer(100 - i, True) for i in range(passes, 0, -1))))

    same = compare({"sft": [rows("sft", 2, 60)], "dpo": [rows("dpo", 3, 62)]})
    assert same.promote
    c = compare({"sft": [rows("sft", 0, 60)], "dpo": [rows("dpo", 6, 62)]})
    assert c.overall["dpo"].gained == 2
    assert not c.promote
    assert "assemble" in c.reason


def test_what_the_checker_says_of_assembling_comes_first() -> None:
    assert answer(0, False, cause="wrong result").builds
    assert not answer(0, False, cause="no code").builds
    assert not answer(0, False, cause="wrong result", details={"assembles": False}).builds
    assert answer(0, None).builds is None


def test_too_few_scored_prompts_decide_nothing() -> None:
    sft, dpo = result("sft", [False] * 100), result("dpo", [True] * 60 + [None] * 40)
    c = compare({"sft": [sft], "dpo": [dpo]})
    assert not c.promote
    assert "60 of 100" in c.reason
    assert compare({"sft": [sft], "dpo": [dpo]}, min_coverage=0.5).promote
    nothing = compare({"sft": [sft], "dpo": [result("dpo", [None] * 100)]})
    assert (nothing.verdict, nothing.promote) == ("not distinguishable", False)
    assert "nothing can be said" in nothing.sentence
    assert "DPO 0 of 100 (100 × emulator died)" in to_text(nothing, 200)


def test_one_worse_benchmark_stops_a_promotion() -> None:
    better = {"sft": [False] * 40 + [True] * 160, "dpo": [True] * 200}
    worse = {"sft": [True] * 50, "dpo": [True] * 40 + [False] * 10}
    c = compare({n: [result(n, better[n]), result(n, worse[n], "rom_hack")] for n in ("sft", "dpo")})
    assert c.verdict == "better"
    assert not c.promote
    assert "worse on ROM Hack Benchmark" in c.reason
    assert c.overall["dpo"].difference.n == 250


def test_the_table_has_the_shape_of_the_guide() -> None:
    passes = {"baseline": [True] * 48 + [False] * 52, "sft": [True] * 75 + [False] * 25}
    passes["dpo"] = [True] * 82 + [False] * 18
    models = {n: [result(n, p), result(n, p, "rom_hack")] for n, p in passes.items()}
    c = compare(models, human={"sft": (31, 50), "dpo": (37, 50)})
    table = main_table(c)
    assert table.header == ("Metric", "Baseline", "SFT", "DPO")
    cells = [[cell.text for cell in row] for row in table.rows]
    assert cells == [
        ["ASM Benchmark", "48.0%", "75.0%", "82.0%"],
        ["ROM Hack Benchmark", "48.0%", "75.0%", "82.0%"],
        ["Human Preference", "-", "62.0%", "74.0%"],
        ["Win Rate vs SFT", "-", "-", "100.0%"],
    ]
    assert table.rows[0][2].sub == "65.7–82.5%, n=100"
    assert [cell.text for cell in main_table(compare(models)).rows[2]] == ["Human Preference", "-", "-", "-"]
    judged = compare(models, judged={"dpo": wilson(31, 50)})
    assert [cell.text for cell in main_table(judged).rows[-1]] == ["Judge's Win Rate vs SFT", "-", "-", "62.0%"]
    assert Comparison.from_dict(json.loads(json.dumps(judged.to_dict()))) == judged


def test_text_markdown_and_json_agree() -> None:
    sft, dpo = [False] * 12 + [True] * 88, [True] * 9 + [False] * 6 + [True] * 84 + [None]
    c = compare({"sft": [result("sft", sft)], "dpo": [result("dpo", dpo)]})
    row = json.loads(json.dumps(c.to_dict(), allow_nan=False))
    assert Comparison.from_dict(row) == c
    assert row["verdict"] == c.verdict
    assert row["promote"] == c.promote
    text, markdown = " ".join(to_text(c, 200).split()), to_markdown(c)
    for figure in ("88.0%", "93.9%", "9/3", "1 left out", "DPO 99 of 100 (1 × emulator died)", c.reason):
        assert figure in text
        assert figure in markdown
    assert "By category" not in text
    assert "ASM Benchmark by category" in text


def test_other_names_order_and_references() -> None:
    models = {"a": [result("a", [True] * 9 + [False])], "b": [result("b", [True] * 10)]}
    c = compare(models, reference="b")
    assert (c.candidate, c.candidates) == ("a", ("a",))
    c = compare({**models, "c": models["a"]}, reference="a")
    assert c.candidates == ("b", "c")
    assert c.candidate == "c"
    assert any("Holm" in note for note in c.notes)


def test_unlike_settings_and_prompts_are_noted() -> None:
    sft = result("sft", [True] * 10, decoding={"temperature": 0.0})
    dpo = result("dpo", [True] * 12, decoding={"temperature": 1.0})
    notes = " ".join(compare({"sft": [sft], "dpo": [dpo]}).notes)
    assert "other settings" in notes
    assert "other prompts" in notes
    assert pair_up(dpo, sft)[1] == 2


def test_what_is_missing_is_named() -> None:
    sft = result("sft", [True])
    with pytest.raises(UsageError, match="no result of the reference 'sft'"):
        compare({"dpo": [sft]})
    with pytest.raises(UsageError, match="nothing to compare sft with"):
        compare({"sft": [sft]})
    with pytest.raises(UsageError, match="dpo was not evaluated on rom_hack"):
        compare({"sft": [sft, result("sft", [True], "rom_hack")], "dpo": [result("dpo", [True])]})
    with pytest.raises(DataError, match="no comparison"):
        Comparison.from_dict({"reference": "sft"})


@given(st.text())
def test_markdown_cells_stay_in_their_cell(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell
    assert "|" not in cell.replace("\\|", "")
    assert "`" not in cell.replace("\\`", "")
    assert not any(f"<{c}" in cell for c in "abzABZ/!?")
