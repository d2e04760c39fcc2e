"""The transformers backend: greedy is the library's own greedy, sampling is the model's distribution, seeds decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from conftest import byte_tokenizer, tiny_network
from hafs.backends import Answer, Request, answers, open_backend
from hafs.config import GenerateConfig
from hafs.errors import UsageError
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import encode_prompt
from hafs.models.naming import model_hash

PROMPTS = ["a", "Hello there, a longer prompt that goes on", "mid length", "x" * 90, "Write a routine.\n\té"]
STOPS = [257, *range(26)]  # one token in ten ends an answer, so rows end at different steps
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 24},
    "qwen3": {},
    "gpt2": {},
}


def backend(family: str = "llama", seed: int = 0, **changes: Any) -> TransformersBackend:
    """A random model whose answers differ from prompt to prompt: untied, with larger weights than at the start."""
    untied = {} if family == "gpt2" else {"tie_word_embeddings": False}
    net = tiny_network(family, seed, **untied, **changes)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    net.generation_config.eos_token_id = STOPS
    return TransformersBackend.of(net, byte_tokenizer(), name="tiny")


@pytest.fixture(scope="module")
def llama() -> TransformersBackend:
    return backend()


def greedy(**changes: Any) -> GenerateConfig:
    return GenerateConfig(**{"temperature": 0.0, "max_new_tokens": 32, **changes})


def sampled(**changes: Any) -> GenerateConfig:
    return GenerateConfig(**{"temperature": 1.0, "max_new_tokens": 16, **changes})


def requests(n: int = 1, prompts: list[str] | None = None) -> list[Request]:
    return [Request(str(i), text, n=n) for i, text in enumerate(prompts or PROMPTS)]


def by_the_library(b: TransformersBackend, prompts: list[str], tokens: int) -> list[tuple[int, ...]]:
    """What `model.generate` answers greedily, each answer up to the token that ends it."""
    ids = [encode_prompt(b.tokenizer, text) for text in prompts]
    width = max(map(len, ids))
    out = b._net.generate(
        input_ids=torch.tensor([[257] * (width - len(i)) + i for i in ids]),
        attention_mask=torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids]),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=STOPS,
        pad_token_id=257,
    )
    ends = [next((k + 1 for k, t in enumerate(row) if t in STOPS), tokens) for row in out[:, width:].tolist()]
    return [tuple(row[:end]) for row, end in zip(out[:, width:].tolist(), ends, strict=True)]


def next_token(b: TransformersBackend, ids: list[int]) -> torch.Tensor:
    """[vocabulary] logits after `ids` by a plain forward pass."""
    with torch.no_grad():
        return b._net(input_ids=torch.tensor([ids])).logits[0, -1].float()


# greedy


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_the_librarys_greedy(family: str) -> None:
    b = backend(family, **FAMILIES[family])
    got = b.generate(requests(), greedy())
    assert [a.token_ids for a in got] == by_the_library(b, PROMPTS, 32)
    assert len({len(a.token_ids) for a in got}) > 1, "no row left the batch before another"


def test_an_answer_does_not_depend_on_the_rows_beside_it(llama: TransformersBackend) -> None:
    together = llama.generate(requests(), greedy())
    alone = [llama.generate([r], greedy())[0] for r in requests()]
    assert [(a.token_ids, a.finish) for a in together] == [(a.token_ids, a.finish) for a in alone]
    assert [a.logprob for a in together] == pytest.approx([a.logprob for a in alone], abs=1e-4)


def test_several_greedy_answers_to_one_prompt_are_the_same(llama: TransformersBackend) -> None:
    got = llama.generate(requests(n=3), greedy())
    assert [(a.key, a.index) for a in got] == [(str(i), k) for i in range(len(PROMPTS)) for k in range(3)]
    for key in map(str, range(len(PROMPTS))):
        assert len({a.token_ids for a in got if a.key == key}) == 1


def test_how_an_answer_ends(llama: TransformersBackend) -> None:
    got = llama.generate(requests(n=4), sampled(max_new_tokens=12))
    assert {a.finish for a in got} == {"stop", "length"}
    for a in got:
        inner = a.token_ids[:-1]
        assert not set(inner) & set(STOPS), "nothing follows the token that ends an answer"
        assert (a.finish == "stop") == (a.token_ids[-1] in STOPS)
        assert len(a.token_ids) == 12 if a.finish == "length" else len(a.token_ids) <= 12
        assert "<|im_" not in a.text


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_token_limit_is_kept(llama: TransformersBackend, tokens: int) -> None:
    got = llama.generate(requests(n=2), sampled(max_new_tokens=tokens))
    assert max(len(a.token_ids) for a in got) == tokens


# sampling


def ids_of(got: list[Answer]) -> list[tuple[int, ...]]:
    return [a.token_ids for a in got]


def test_seeds_decide_and_nothing_else_does(llama: TransformersBackend) -> None:
    first = llama.generate(requests(n=4), sampled(seed=1))
    torch.manual_seed(99)  # the global random state plays no part
    torch.rand(3)
    assert llama.generate(requests(n=4), sampled(seed=1)) == first
    assert ids_of(llama.generate(requests(n=4), sampled(seed=2))) != ids_of(first)
    assert len(set(ids_of(first))) > len(PROMPTS), "the answers to one prompt differ"
    relabelled = [Request(f"other {r.key}", r.text, n=r.n) for r in requests(n=4)]
    assert ids_of(llama.generate(relabelled, sampled(seed=1))) == ids_of(first)


def test_batches_of_one_seed_do_not_share_their_draws(llama: TransformersBackend) -> None:
    """Two batches must not use the same random numbers, or equal prompts would get equal answers."""
    config = sampled(max_new_tokens=1, seed=5)
    one = ids_of(llama.generate([Request("a", "same", n=200)], config))
    two = ids_of(llama.generate([Request("a", "same", n=200), Request("b", "other", n=1)], config))[:200]
    assert sum(x == y for x, y in zip(one, two, strict=True)) < 100


@pytest.mark.parametrize("config", [{}, {"temperature": 0.6}, {"top_p": 0.7}, {"temperature": 1.4, "top_p": 0.5}])
def test_the_logprob_is_that_of_a_plain_forward_pass(llama: TransformersBackend, config: dict[str, float]) -> None:
    """At temperature 1 and over the whole vocabulary, whatever the answer was sampled with."""
    for a in llama.generate(requests(n=2), sampled(**config)):
        prompt = encode_prompt(llama.tokenizer, PROMPTS[int(a.key)])
        with torch.no_grad():
            logits = llama._net(input_ids=torch.tensor([[*prompt, *a.token_ids]])).logits[0, len(prompt) - 1 : -1]
        steps = logits.double().log_softmax(-1)[range(len(a.token_ids)), list(a.token_ids)]
        assert a.logprob == pytest.approx(float(steps.sum()), abs=1e-4)


DRAWS = 20_000


def softmax(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The distribution that is asked for: the smallest set of likeliest tokens that reaches `top_p`, renormalised."""
    probs = (logits.double() / temperature).softmax(-1)
    if top_p == 1:
        return probs
    kept = torch.zeros_like(probs)
    for token in probs.argsort(descending=True).tolist():
        kept[token] = probs[token]
        if kept.sum() >= top_p:
            break
    return kept / kept.sum()


def fit(counts: Counter[int], probs: torch.Tensor) -> float:
    """The p-value of a chi-square test; tokens expected fewer than five times are one bin."""
    n = sum(counts.values())
    expected = [(float(p) * n, counts[t]) for t, p in enumerate(probs) if p > 0]
    bins = [(e, c) for e, c in expected if e >= 5]
    rest = [(e, c) for e, c in expected if e < 5]
    if rest:
        bins.append((sum(e for e, _ in rest), sum(c for _, c in rest)))
    expectation, observed = zip(*bins, strict=True)
    return float(chisquare(observed, expectation, sum_check=False).pvalue)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6), (2.0, 0.9)])
def test_sampled_frequencies_are_the_models(temperature: float, top_p: float) -> None:
    b = backend(seed=3)
    with torch.no_grad():
        b._net.lm_head.weight.mul_(2)  # likely and unlikely tokens, so that a wrong distribution shows
    prompt = encode_prompt(b.tokenizer, "count")
    config = sampled(temperature=temperature, top_p=top_p, max_new_tokens=2, batch_size=DRAWS, seed=7)
    got = b.generate([Request("p", "count", n=DRAWS)], config)
    first = Counter(a.token_ids[0] for a in got)
    asked = softmax(next_token(b, prompt), temperature, top_p)
    assert set(first) <= {t for t, p in enumerate(asked) if p > 0}
    assert fit(first, asked) > 1e-3
    wrong = softmax(next_token(b, prompt), temperature * 1.2, top_p)
    assert set(first) - {t for t, p in enumerate(wrong) if p > 0} or fit(first, wrong) < 1e-3  # the test can fail
    # the second token, given the commonest first one that does not end the answer
    common = next(t for t, _ in first.most_common() if t not in STOPS)
    second = Counter(a.token_ids[1] for a in got if a.token_ids[0] == common)
    assert sum(second.values()) > 200
    assert fit(second, softmax(next_token(b, [*prompt, common]), temperature, top_p)) > 1e-3


# planning


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.integers(1, 6)), max_size=12),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_a_plan_has_every_request_once_and_does_not_depend_on_their_order(
    llama: TransformersBackend, rows: list[tuple[str, int]], size: int, random: Any
) -> None:
    asked = [Request(text, text, n=n) for text, n in dict(rows).items()]
    shuffled = random.sample(asked, len(asked))
    plan = llama.plan(asked, sampled(batch_size=size))
    assert plan == llama.plan(shuffled, sampled(batch_size=size))
    assert sorted((r for batch in plan for r in batch), key=str) == sorted(asked, key=str)
    assert all(sum(r.n for r in batch) <= size or len(batch) == 1 for batch in plan)


def test_answers_are_those_of_the_planned_batches(llama: TransformersBackend) -> None:
    config = sampled(batch_size=4)
    batches = list(answers(llama, requests(n=2), config))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert batches == [llama.generate(batch, config) for batch in llama.plan(requests(n=2), config)]


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_generated(llama: TransformersBackend) -> None:
    with pytest.raises(UsageError, match=r"more than the 512 tokens that tiny was made for"):
        llama.plan(requests(prompts=["short", "y" * 500]), sampled())
    with pytest.raises(UsageError, match="lower max_new_tokens"):
        llama.plan(requests(), sampled(max_new_tokens=600))


def test_half_a_character_is_answered_too(llama: TransformersBackend) -> None:
    """A lone surrogate can come out of a JSON escape; no tokenizer takes it."""
    lone = llama.generate(requests(prompts=["a \ud800 b"]), greedy())
    assert lone[0].token_ids == llama.generate(requests(prompts=["a � b"]), greedy())[0].token_ids


# opening


def test_a_backend_is_opened_by_model(tiny_model: Path) -> None:
    b = open_backend(str(tiny_model), precision="fp32")
    assert (b.name, b.model) == (str(tiny_model), model_hash(tiny_model))
    (answer,) = b.generate([Request("k", "hello")], greedy(max_new_tokens=3))
    assert answer.key == "k" and len(answer.token_ids) <= 3


@pytest.mark.parametrize(("model", "kind"), [("no-such-model", "transformers"), ("default", "no-such-kind")])
def test_an_unknown_backend_or_model_is_refused(model: str, kind: str) -> None:
    with pytest.raises(UsageError, match="there is no"):
        open_backend(model, kind)


@pytest.mark.model
def test_the_embedded_model_answers_as_the_library_does() -> None:
    b = TransformersBackend("default", precision="fp32")
    prompts = ["Say hello.", "Which number comes after three, in one word?"]
    got = b.generate(requests(prompts=prompts), greedy(max_new_tokens=8))
    for text, answer in zip(prompts, got, strict=True):
        ids = torch.tensor([encode_prompt(b.tokenizer, text)])
        out = b._net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, pad_token_id=0
        )
        assert out[0, ids.shape[1] :].tolist() == list(answer.token_ids)
