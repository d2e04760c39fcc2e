"""Evaluating a model: greedy and sampled, checkers by prompt, exact match, perplexity, nothing computed twice."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import DRAWS, KILLS, byte_tokenizer, nominal, tiny_network
from forked import Forks
from hafs.errors import UsageError
from hafs.evals.likelihood import perplexity, reference_nll
from hafs.evals.sampled import SampledPrompt, SampledResult, paired_change, sampled_result, sampled_table
from hafs.scorers import open_scorer
from hafs.scorers.exact import normalised
from hafs.statistics import bootstrap_mean, pass_at_k
from hafs.store import open_workspace
from hafs.types import Candidate, Prompt, Reference, Score
from run_hafs import hafs, lines, own_cache, workspace


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_cache(tmp_path_factory.mktemp("cache")) as path:
        yield path


# pass@k


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_answer(n: int, data: Any) -> None:
    passed, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    answers = [i < passed for i in range(n)]
    draws = [any(d) for d in itertools.combinations(answers, k)]
    assert pass_at_k(n, passed, k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_refuses_what_it_cannot_estimate_and_bears_large_n() -> None:
    for n, passed, k in ((3, 1, 4), (3, 4, 1), (3, 1, 0)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(n, passed, k)
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [1, 4])
def test_pass_at_k_is_unbiased_and_its_interval_covers(k: int) -> None:
    """Prompts of very different difficulty, eight answers each, many benchmarks drawn: 95 % means 95 %."""
    rng = np.random.default_rng(k)
    rates = rng.beta(0.6, 0.6, (DRAWS, 120))
    passed = rng.binomial(8, rates)
    truth = float(np.mean(1 - (1 - rng.beta(0.6, 0.6, 2_000_000)) ** k))
    found = [drawn([(8, c) for c in row], samples=8).pass_at(k) for row in passed.tolist()]
    assert nominal(sum(e.low <= truth <= e.high for e in found))
    assert np.mean([e.value for e in found]) == pytest.approx(truth, abs=0.004)


@pytest.mark.parametrize("n", [6, 20])
def test_few_prompts_of_which_hardly_any_passes_are_covered(n: int) -> None:
    """pass@4 of four answers is 0 or 1 for each prompt. Counts are whole numbers, so that at one rate the coverage is a
    little above 95 % and at the next below; over rates from 1 to 30 % it is nominal. No interval is without a width."""
    rng = np.random.default_rng(n)
    rates = rng.uniform(0.01, 0.3, DRAWS)
    hits = 0
    for rate in rates:
        e = drawn([(4, c) for c in (4 * (rng.random(n) < rate)).tolist()]).pass_at(4)
        hits += e.low <= rate <= e.high
    assert nominal(hits)
    for passed, shown in ((0, "0.0%"), (4, "100.0%")):
        old = drawn([(4, passed)] * n, "sft")
        (row,) = sampled_table({"sft": [old], "dpo": [drawn([(4, passed)] * n)]}, [1], "sft").rows
        e, change = old.pass_at(1), paired_change(drawn([(4, passed)] * n), old, 1)
        assert row[1].text == shown and e.high - e.low > 1 / n and change.low < -1 / n and change.high > 1 / n


def test_several_answers_a_prompt_at_a_low_rate_are_covered_far_better_than_by_a_bootstrap() -> None:
    """pass@1 of four answers at 5 % on 20 prompts: mostly one to three prompts pass at all, and say little of how much
    prompts vary. 95 % is not reached for that reason at every rate; a bootstrap covers in about four cases of five."""
    rng = np.random.default_rng(11)
    passed = rng.binomial(4, rng.beta(0.1, 1.9, (DRAWS, 20)))
    found = [drawn([(4, c) for c in row]).pass_at(1) for row in passed.tolist()]
    resampled = [bootstrap_mean(row / 4, draws=400, seed=i) for i, row in enumerate(passed)]
    ours, theirs = (sum(e.low <= 0.05 <= e.high for e in ends) / DRAWS for ends in (found, resampled))
    assert ours > 0.92 and theirs < 0.85


def test_the_paired_change_of_pass_at_k_covers() -> None:
    """Two models on the same 100 prompts, the second a little better on each: the bootstrap by prompt covers."""
    rng = np.random.default_rng(3)
    old = rng.beta(0.8, 0.8, (DRAWS, 100))
    new = np.clip(old + 0.05, 0, 1)
    base = rng.beta(0.8, 0.8, 2_000_000)
    truth = float(np.mean((1 - base) ** 2 - (1 - np.clip(base + 0.05, 0, 1)) ** 2))
    hits = 0
    for a, b in zip(rng.binomial(4, new).tolist(), rng.binomial(4, old).tolist(), strict=True):
        e = paired_change(drawn([(4, c) for c in a]), drawn([(4, c) for c in b]), 2, draws=500)
        hits += e.low <= truth <= e.high
    assert nominal(hits)


def drawn(passes: list[tuple[int, int]], name: str = "dpo", samples: int = 4) -> SampledResult:
    rows = tuple(SampledPrompt(f"p{i}", "c", "f", n, c) for i, (n, c) in enumerate(passes))
    return SampledResult(name, "asm", rows, decoding={"candidates": samples, "temperature": 0.8})


def test_unscored_answers_are_no_failures() -> None:
    prompt = Prompt("task", references=(Reference("r", "a"),))
    made = [Candidate(prompt.id, "a", index=i) for i in range(3)]
    scores = {
        made[0].id: Score(made[0].id, "exact", "1", value=1.0, passed=True),
        made[1].id: Score(made[1].id, "exact", "1", reason="it died"),
    }
    r = sampled_result("m", "", "", "b", {"candidates": 3}, [prompt], made, scores)
    assert (r.results[0].n, r.results[0].passed) == (1, 1)
    assert r.unscored() == {"it died": 1, "the answer was not scored": 1}
    assert r.pass_at(1).value == 1.0
    assert r.pass_at(2).value is None and r.pass_at(2).n == 0, "one scored answer says nothing about two tries"
    assert SampledResult.from_dict(json.loads(json.dumps(r.to_dict()))) == r
    with pytest.raises(UsageError, match="pass@4 needs at least 4 answers"):
        r.pass_at(4)


def test_the_sampled_table_pairs_by_prompt() -> None:
    sft, dpo = drawn([(4, 1), (4, 2), (2, 2)], "sft"), drawn([(4, 2), (4, 4), (4, 0)])
    change = paired_change(dpo, sft, 1)
    assert (change.n, change.value) == (3, pytest.approx((0.25 + 0.5 - 1) / 3))
    assert paired_change(dpo, sft, 4).n == 2, "the prompt with two scored answers has no pass@4"
    table = sampled_table({"sft": [sft], "dpo": [dpo]}, [1, 4], "sft")
    assert [row[0].text for row in table.rows] == ["ASM Benchmark, pass@1", "ASM Benchmark, pass@4"]
    assert table.rows[0][1].text == "58.3%" and "−8.3" in table.rows[0][2].sub


# the scorer `exact`


@given(st.text(max_size=20))
def test_normalising_is_idempotent_and_blind_to_case_and_spaces(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert normalised(f"  {text}\n.") == once


def test_exact_match_goes_by_content() -> None:
    prompt = Prompt("q", references=(Reference("a", "The  Answer is 1.5"), Reference("b", "1.5")))
    texts = ["the answer IS 1.5.", '"1.5"', "15", "", "the answer"]
    scorer = open_scorer("exact", workers=2, sandbox="auto")
    found = list(scorer.score([(prompt, Candidate(prompt.id, t)) for t in texts]))
    assert [s.passed for s in found] == [True, True, False, False, False]
    assert [s.cause for s in found[2:]] == ["another answer", "no answer", "another answer"]
    (none,) = scorer.score([(Prompt("q"), Candidate("q", "x"))])
    assert none.value is None and "no reference" in none.reason


# a real model


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model that says more than the last token of its prompt (its embeddings are not tied)."""
    path = tmp_path_factory.mktemp("talker")
    tiny_network(tie_word_embeddings=False).save_pretrained(str(path))
    byte_tokenizer().save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, talker: Path, cache: Path) -> Path:
    root = workspace(tmp_path_factory.mktemp("w"))
    answers = hafs(
        "generate",
        "--model",
        talker,
        "--prompts",
        prompts_file(root),
        "--temperature",
        "0",
        "-n",
        "6",
        "--candidates-per-prompt",
        "1",
        "-w",
        root,
        "--output",
        root / "greedy.jsonl",
        "--json",
    )
    answers.ok()
    said = {row["prompt_id"]: row["text"] for row in lines(root / "greedy.jsonl")}
    known = [i for i in range(6) if normalised(said[Prompt(f"say {i}").id])][:2]
    assert len(known) == 2, "the tiny model says nothing"
    rows = [
        Prompt(
            f"say {i}",
            category=f"c{i % 2}",
            references=(Reference("r", said[Prompt(f"say {i}").id] if i in known else f"ref {i}"),),
        )
        for i in range(6)
    ]
    (root / "own.jsonl").write_text("".join(json.dumps(p.to_dict()) + "\n" for p in rows))
    return root


def prompts_file(root: Path) -> Path:
    path = root / "prompts.jsonl"
    path.write_text("".join(json.dumps({"text": f"say {i}"}) + "\n" for i in range(6)))
    return path


def run_eval(root: Path, model: Path, *more: str) -> Any:
    return hafs("eval", "run", "--model", model, "--name", "m", "--benchmark", root / "own.jsonl", "-w", root, *more)


def test_a_file_of_questions_with_answers_needs_no_checker(here: Path, talker: Path) -> None:
    (said,) = run_eval(here, talker, "--json").ok().json["results"]
    assert (said["passed"], said["scored"], said["coverage"]) == (2, 6, 1.0)
    assert {name: e["n"] for name, e in said["categories"].items()} == {"c0": 3, "c1": 3}
    assert said["exact_match"]["value"] == pytest.approx(2 / 6)
    assert said["length"]["n"] == 6 and 0 < said["length"]["value"] <= 12
    printed = run_eval(here, talker).ok().out
    assert printed.startswith("m on ") and "33.3%" in printed and "  c0: " in printed
    alone = hafs("eval", "--model", talker, "--name", "m", "--benchmark", here / "own.jsonl", "-w", here).ok()
    assert alone.out == printed, "`hafs eval` is `hafs eval run`"


def test_prompts_of_several_checkers_each_go_to_their_own(here: Path, talker: Path) -> None:
    rows = (here / "own.jsonl").read_text() + json.dumps({"text": "no checker, no reference"}) + "\n"
    (here / "mixed.jsonl").write_text(rows)
    ran = hafs("eval", "--model", talker, "--name", "x", "--benchmark", here / "mixed.jsonl", "-w", here, "--json")
    (said,) = ran.ok().json["results"]
    assert (said["scored"], said["passed"]) == (6, 2)
    assert sum(said["unscored"].values()) == 1


def test_answers_that_a_judge_compares_are_kept_unscored(here: Path, talker: Path, tmp_path: Path) -> None:
    judged = json.dumps({"text": "tell me a story", "checker": "judge:gpt-5"}) + "\n"
    (tmp_path / "some.jsonl").write_text((here / "own.jsonl").read_text() + judged)
    (tmp_path / "all.jsonl").write_text(judged)
    for file, scored in (("some", 6), ("all", 0)):
        argv = ["eval", "--model", talker, "--name", "j", "--benchmark", tmp_path / f"{file}.jsonl", "-w", here]
        ran = hafs(*argv, "--samples", "2", "--json").ok()
        (said,) = ran.json["results"]
        assert said["scored"] == scored
        assert said["unscored"] == {"its checker is a judge, which compares answers": 1}
        assert "hafs judge run" in ran.err and "hafs judge winrate" in ran.err
    with open_workspace(here).open_store() as store:
        assert [
            c.text for c in store.candidates(prompt_ids=Prompt("tell me a story").id) if not c.sampling["temperature"]
        ]


def test_sampled_answers_give_pass_at_k_and_are_kept(here: Path, talker: Path) -> None:
    flags = ["--samples", "3", "--k", "1", "--k", "3", "--temperature", "1.5", "--json"]
    (said,) = run_eval(here, talker, *flags).ok().json["results"]
    found = said["sampled"]["pass_at"]
    assert set(found) == {"1", "3"} and found["1"]["n"] == 6
    assert found["1"]["value"] <= found["3"]["value"]
    before = hafs("data", "counts", "-w", here, "--json").ok().json["candidates"]
    again = run_eval(here, talker, *flags).ok()
    assert again.json["results"] == [said]
    assert hafs("data", "counts", "-w", here, "--json").ok().json["candidates"] == before
    run_eval(here, talker, "--samples", "2", "--k", "4").failed(2, "pass@4 needs at least 4")
    run_eval(here, talker, "--k", "4").failed(2, "needs sampled answers", "--samples")


def test_perplexity_is_that_of_a_plain_forward_pass(here: Path, talker: Path) -> None:
    import torch

    from hafs.models.chat import encode_answer, encode_prompt
    from hafs.models.loading import load_model, load_tokenizer

    prompts = [Prompt.from_dict(row) for row in lines(here / "own.jsonl")]
    found = reference_nll(str(talker), [*prompts, Prompt("without a reference")], precision="fp32")
    assert set(found) == {p.id for p in prompts}
    net, tokenizer = load_model(talker, "fp32"), load_tokenizer(talker)
    for p in prompts:
        ids, answer = encode_prompt(tokenizer, p.text), encode_answer(tokenizer, p.references[0].text)
        with torch.no_grad():
            logits = net(input_ids=torch.tensor([[*ids, *answer]])).logits[0, len(ids) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum()
        assert found[p.id] == pytest.approx(-float(logp) / len(answer), abs=1e-4)
    (said,) = run_eval(here, talker, "--perplexity", "--json").ok().json["results"]
    assert said["perplexity"]["value"] == pytest.approx(math.exp(np.mean(list(found.values()))), rel=0.02)
    assert perplexity([]).value is None
    e = perplexity(list(found.values()))
    assert e.low <= e.value <= e.high


def test_perplexitys_interval_covers() -> None:
    rng = np.random.default_rng(9)
    nll = rng.gamma(4.0, 0.3, (DRAWS, 100))
    ends = [perplexity(row, draws=500, seed=i) for i, row in enumerate(nll.tolist())]
    assert nominal(sum(e.low <= math.exp(1.2) <= e.high for e in ends))


def test_a_scorer_with_other_arguments_gives_another_result(here: Path, talker: Path) -> None:
    """What identifies an evaluation is the scorer's name, version and arguments, of each that checks a row."""
    (here / "free.jsonl").write_text('{"text": "say something"}\n{"text": "say more"}\n')
    toml = (here / "hafs.toml").read_text()

    def passed(scorer: str) -> int:
        (here / "hafs.toml").write_text(f"{toml}\n[score]\nscorer = {scorer!r}\n")
        flags = ["--model", str(talker), "--name", "t", "--benchmark", str(here / "free.jsonl"), "--json"]
        (said,) = hafs("eval", *flags, "-w", here).ok().json["results"]
        return int(said["passed"])

    try:
        assert [passed("text:max_words=100000"), passed("text:min_words=5000")] == [2, 0]
        assert passed("text:max_words=100000") == 2
    finally:
        (here / "hafs.toml").write_text(toml)


KILLED = """
import json, os, random, signal, sys, time, traceback
import hafs.generation.transformers
from hafs.config import Config
from hafs.evals.evaluate import evaluate, evaluate_sampled, greedy
from contextlib import closing
from hafs.scorers.run import scorer_for
from hafs.store import open_store
from hafs.types import Prompt
root, model, kills = sys.argv[1:]
moments = random.Random(1)
config = Config.model_validate({"eval": {"max_new_tokens": 16, "batch_size": 3}})
sampling = greedy(config.eval).model_copy(update={"candidates": 3, "temperature": 1.2})
prompts = [Prompt(f"say {i}", references=({"name": "r", "text": f"r{i}"},)) for i in range(6)]
prompts = [Prompt.from_dict(p.to_dict()) for p in prompts]

def work(place, tell=lambda *_: None):
    with open_store(place) as store, closing(scorer_for(config)) as scorers:
        a = evaluate(store, scorers, model, "m", "own", prompts, config.eval, tell)
        b = evaluate_sampled(store, scorers, model, "m", "own", prompts, sampling, tell)
    return [{**r.to_dict(), "seconds": 0} for r in (a, b)]

def attempt(place, steps):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(place, lambda *_: os.write(writing, b"."))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    heard = 0
    while heard < steps and os.read(reading, 1):
        heard += 1
    time.sleep(moments.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)

for _ in range(int(kills)):
    attempt(f"{root}/killed.db", moments.randint(1, 12))
print(json.dumps([work(f"{root}/killed.db"), work(f"{root}/whole.db")]))
"""


def test_killed_anywhere_it_ends_with_the_same_result(forks: Forks, talker: Path, tmp_path: Path) -> None:
    done = forks.python(KILLED, tmp_path, talker, str(KILLS))
    killed, whole = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    assert killed == whole and len(whole[1]["results"]) == 6
