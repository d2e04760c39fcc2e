"""A win rate is what a judge said of two models, however many others it has seen: replays with a known answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hafs.judge.calibrate import gather
from hafs.judge.winrate import WinRate, win_rate
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt, Verdict
from hafs.workflows.hybrid import judged_groups

Row = Mapping[str, object]
"""One judgement as AlpacaEval publishes it: of 1.0 (the first output is better) to 2.0 (the second is), 1.5 a tie."""


def judgements(models: int, instructions: int, seed: int = 0) -> list[Row]:
    """Judgements of `models` models against one baseline; each instruction favours one side in its own measure."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for m in range(models):
        for i in range(instructions):
            chance = 0.72 if m == 0 else 0.05 + 0.9 * m / models
            preference = 1.5 if rng.random() < 0.02 else 1.0 + float(rng.random() < chance)
            rows.append(
                {
                    "instruction": f"Instruction {i}",
                    "generator_1": "baseline",
                    "generator_2": f"model-{m}",
                    "output_1": f"The baseline's answer to {i}." + " More." * int(rng.integers(0, 9)),
                    "output_2": f"Model {m} answers {i}." + " More." * int(rng.integers(0, 9)),
                    "preference": preference,
                }
            )
    baseline = {row["instruction"]: row["output_1"] for row in rows}  # one answer of the baseline an instruction
    return [{**row, "output_1": baseline[row["instruction"]]} for row in rows]


def replay(store: Store, rows: Iterable[Row]) -> None:
    """The judgements as verdicts of a judge that was asked in both orders."""
    prompts, candidates, verdicts = {}, {}, []
    for row in rows:
        prompt = Prompt(str(row["instruction"]))
        prompts[prompt.id] = prompt
        ids = []
        for side in ("1", "2"):
            name = str(row[f"generator_{side}"])
            made = Candidate(prompt.id, str(row[f"output_{side}"]), f"hash-{name}", name)
            candidates[made.id] = made
            ids.append(made.id)
        tied = row["preference"] == 1.5
        order = ids if row["preference"] == 1.0 else ids[::-1]
        for shuffle, shown in enumerate((ids, ids[::-1])):
            tiers = () if tied else ((order[0],), (order[1],))
            outcome = "tie" if tied else "ranked"
            verdicts.append(Verdict(prompt.id, "gpt4", "pairwise@1", tuple(shown), outcome, tiers, shuffle=shuffle))
    store.add_prompts(prompts.values())
    store.add_candidates(candidates.values())
    store.add_verdicts(verdicts)


def published(rows: Iterable[Row], a: str, b: str) -> float:
    """The win rate as AlpacaEval counts it: the mean preference for one side."""
    shares = []
    for row in rows:
        sides = (row["generator_1"], row["generator_2"])
        if sides in ((a, b), (b, a)):
            second = float(str(row["preference"])) - 1
            shares.append(second if sides == (b, a) else 1 - second)
    return float(np.mean(shares))


def rates(rows: list[Row], pairs: Iterable[tuple[str, str]], path: Path) -> dict[tuple[str, str], WinRate]:
    with open_store(path) as store:
        replay(store, rows)
        evidence = gather(store)
        return {pair: win_rate(store, evidence, *pair) for pair in pairs}


@pytest.mark.parametrize("models", [2, 11])
def test_a_replay_gives_the_published_win_rates_for_any_number_of_models(models: int, tmp_path: Path) -> None:
    rows = judgements(models, 150)
    pairs = [(f"model-{m}", "baseline") for m in range(models)]
    together = rates(rows, pairs, tmp_path / "all.db")
    for pair, rate in together.items():
        assert rate.raw.judge.value == pytest.approx(published(rows, *pair), abs=1e-4)
        assert rate.missing == 0 and rate.prompts == 150
    mine = [row for row in rows if row["generator_2"] == "model-0"]
    alone = rates(mine, pairs[:1], tmp_path / "one.db")[pairs[0]]
    assert together[pairs[0]].raw == alone.raw
    assert together[pairs[0]].length_controlled == alone.length_controlled
    assert together[pairs[0]].judge_slope == alone.judge_slope


def round_robin(models: int, instructions: int) -> list[Row]:
    """Every two models; model 1 beats model 0 in 74 % of the instructions, whatever the others say of the two."""
    rng = np.random.default_rng(models)
    rows: list[Row] = []
    for one, other in combinations(range(models), 2):
        for i in range(instructions):
            chance = 0.74 if (one, other) == (0, 1) else (one + 1) / (one + other + 2)  # the two others favour 0
            rows.append(
                {
                    "instruction": f"Instruction {i}",
                    "generator_1": f"model-{one}",
                    "generator_2": f"model-{other}",
                    "output_1": f"Answer {one} to {i}.",
                    "output_2": f"Answer {other} to {i}.",
                    "preference": 1.0 + float(rng.random() < chance),
                }
            )
    return rows


@pytest.mark.parametrize("models", [3, 8])
def test_a_round_robin_keeps_every_verdict_and_every_edge(models: int, tmp_path: Path) -> None:
    rows = round_robin(models, 60)
    with open_store(tmp_path / "all.db") as store:
        replay(store, rows)
        evidence = gather(store)
        for one, other in combinations(range(models), 2):
            pair = (f"model-{one}", f"model-{other}")
            rate = win_rate(store, evidence, *pair).raw.judge.value
            assert rate == pytest.approx(published(rows, *pair), abs=1e-4)
        says = [o.says for j in evidence.judged for o in j.opinions]
        assert len(says) == len(rows) and set(says) == {"a", "b"}
        groups, report = judged_groups(store, max_candidates=models)
        assert report.judge_edges == len(rows) == sum(len(g.edges) for g in groups)
        assert report.against == sum(o.against for j in evidence.judged for o in j.opinions) > 0
