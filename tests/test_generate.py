"""Candidates in the workspace: nothing is generated twice, and a run that was killed ends like one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import byte_tokenizer, tiny_network
from hafs.backends import Answer, Request
from hafs.config import GenerateConfig
from hafs.generation.candidates import generate_candidates, sampling_of
from hafs.generation.transformers import TransformersBackend
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt

PROMPTS = [Prompt(f"prompt {'x' * (i % 4)} {i}", system="be brief" if i % 3 == 0 else "") for i in range(7)]
CONFIG = GenerateConfig(candidates=3, temperature=1.0, max_new_tokens=6, batch_size=6, seed=4)
BATCHES = 4  # two prompts of three answers each in a batch of six


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> TransformersBackend:
    return TransformersBackend(str(tiny_model), precision="fp32")


class Counting:
    """A real backend that counts the batches it is asked for."""

    def __init__(self, inner: TransformersBackend) -> None:
        self.inner, self.asked = inner, 0
        self.name, self.model, self.capabilities = inner.name, inner.model, inner.capabilities

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        return self.inner.plan(requests, config)

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        self.asked += 1
        return self.inner.generate(batch, config)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "a.db") as opened:
        yield opened


def rows(store: Store) -> list[Candidate]:
    return sorted(store.candidates(), key=lambda c: c.id)


def kill_after(batch: int) -> Any:
    def progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        assert (what, total) == ("generating", BATCHES)
        if done == batch:
            raise Killed

    return progress


def test_every_prompt_gets_its_candidates(backend: TransformersBackend, store: Store) -> None:
    made = generate_candidates(store, backend, PROMPTS, CONFIG)
    assert len(made.candidates) == made.new == 21
    assert made.cut == sum(c.finish == "length" for c in made.candidates) > 0
    for prompt in PROMPTS:
        mine = [c for c in made.candidates if c.prompt_id == prompt.id]
        assert [c.index for c in mine] == [0, 1, 2]
    for c in made.candidates:
        assert (c.model, c.model_name, c.seed) == (backend.model, backend.name, 4)
        assert c.sampling == sampling_of(CONFIG) and c.source == "generate"
        assert c.logprob is not None and c.logprob < 0 and c.n_tokens is not None and 0 < c.n_tokens <= 6
    assert rows(store) == sorted(made.candidates, key=lambda c: c.id)
    assert {p.id for p in store.prompts()} == {p.id for p in PROMPTS}


@pytest.mark.parametrize("batch", range(1, BATCHES + 1))
def test_killed_after_any_batch_it_ends_like_an_undisturbed_run(
    backend: TransformersBackend, tmp_path: Path, batch: int
) -> None:
    with open_store(tmp_path / "whole.db") as whole, open_store(tmp_path / "cut.db") as cut:
        undisturbed = generate_candidates(whole, backend, PROMPTS, CONFIG)
        with pytest.raises(Killed):
            generate_candidates(cut, backend, PROMPTS, CONFIG, kill_after(batch))
        kept = rows(cut)
        assert kept, "a batch that is done is stored"
        counting = Counting(backend)
        resumed = generate_candidates(cut, counting, PROMPTS, CONFIG)
        assert counting.asked == BATCHES - batch
        assert resumed.candidates == undisturbed.candidates
        assert resumed.new == 21 - len(kept)
        assert rows(cut) == rows(whole)


def test_repeating_adds_nothing_and_generates_nothing(backend: TransformersBackend, store: Store) -> None:
    first = generate_candidates(store, backend, PROMPTS, CONFIG)
    counting = Counting(backend)
    again = generate_candidates(store, counting, PROMPTS, CONFIG)
    assert (again.new, counting.asked) == (0, 0)
    assert again.candidates == first.candidates and again.cut == first.cut
    shuffled = generate_candidates(store, counting, PROMPTS[::-1], CONFIG)
    assert (shuffled.candidates, counting.asked) == (first.candidates, 0)


@pytest.mark.parametrize("change", [{"seed": 5}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_new_tokens": 5}])
def test_other_settings_add_their_own(backend: TransformersBackend, store: Store, change: dict[str, Any]) -> None:
    first = generate_candidates(store, backend, PROMPTS, CONFIG)
    other = generate_candidates(store, backend, PROMPTS, CONFIG.model_copy(update=change))
    assert other.new == 21 and not {c.id for c in first.candidates} & {c.id for c in other.candidates}
    assert generate_candidates(store, backend, PROMPTS, CONFIG).candidates == first.candidates


def test_the_candidates_of_another_model_are_not_taken(
    backend: TransformersBackend, tiny_model: Path, store: Store
) -> None:
    first = generate_candidates(store, backend, PROMPTS, CONFIG)
    other = TransformersBackend.of(backend._net, backend.tokenizer, name="other", model="another-hash")
    made = generate_candidates(store, other, PROMPTS, CONFIG)
    assert made.new == 21 and {c.model for c in made.candidates} == {"another-hash"}
    assert {c.text for c in made.candidates} == {c.text for c in first.candidates}  # it is the same network


def test_a_prompt_that_is_given_twice_is_asked_once(backend: TransformersBackend, store: Store) -> None:
    made = generate_candidates(store, backend, [*PROMPTS, *PROMPTS], CONFIG)
    assert len(made.candidates) == made.new == 21


PROGRAM = """
import sys
from hafs.generation.transformers import TransformersBackend
from hafs.generation.candidates import generate_candidates
from hafs.store import open_store
sys.path.insert(0, sys.argv[1])
from test_generate import CONFIG, PROMPTS
with open_store(sys.argv[2]) as store:
    backend = TransformersBackend(sys.argv[3], precision="fp32")
    generate_candidates(store, backend, PROMPTS, CONFIG, lambda what, done, total, figures: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_whole_batches(backend: TransformersBackend, tiny_model: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(tmp_path / "cut.db"), str(tiny_model)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with open_store(tmp_path / "cut.db") as cut, open_store(tmp_path / "whole.db") as whole:
        assert len(rows(cut)) % 3 == 0 and len(rows(cut)) >= 6
        undisturbed = generate_candidates(whole, backend, PROMPTS, CONFIG)
        assert generate_candidates(cut, backend, PROMPTS, CONFIG).candidates == undisturbed.candidates
        assert rows(cut) == rows(whole)


def test_the_likeliest_answer_is_a_candidate_too(backend: TransformersBackend, store: Store) -> None:
    sampled = generate_candidates(store, backend, PROMPTS[:3], CONFIG)
    both = generate_candidates(store, backend, PROMPTS[:3], CONFIG.model_copy(update={"greedy": True}))
    assert both.candidates[: len(sampled.candidates)] == sampled.candidates and both.new == 3
    likeliest = both.candidates[len(sampled.candidates) :]
    assert {c.prompt_id for c in likeliest} == {p.id for p in PROMPTS[:3]} and len(likeliest) == 3
    assert all(c.sampling["temperature"] == 0 and c.sampling["candidates"] == 1 for c in likeliest)
    assert generate_candidates(store, backend, PROMPTS[:3], CONFIG.model_copy(update={"greedy": True})).new == 0


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_what_all_prompts_begin_with_is_computed_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are those of whole prompts; a model with a window computes those, since padding would count in it."""
    net = tiny_network(family).double()
    backend = TransformersBackend.of(net, byte_tokenizer())
    prompts = [[*range(1, 41), *rest] for rest in ((50, 51), (60,), (70, 71, 72))]
    config = GenerateConfig(temperature=1.0, max_new_tokens=6)
    widths: list[tuple[int, ...]] = []
    net.model.embed_tokens.register_forward_pre_hook(lambda _, args: widths.append(tuple(args[0].shape)))
    once = backend.decode(prompts, [2, 1, 2], config, seed=3)
    assert widths[:2] == ([(1, 40), (3, 3)] if family == "llama" else [(3, 43), (5, 1)])
    monkeypatch.setattr("hafs.generation.transformers.WORTH_A_PASS", 10**9)
    whole = backend.decode(prompts, [2, 1, 2], config, seed=3)
    assert [(ids, finish) for ids, _, finish in once] == [(ids, finish) for ids, _, finish in whole]
    assert [lp for _, lp, _ in once] == pytest.approx([lp for _, lp, _ in whole], abs=1e-5)
    equal = backend.decode([prompts[0]] * 2, [1, 1], config, seed=3)  # of equal prompts each keeps a token of its own
    assert len(equal) == 2


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "mistral"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_cache_of_fixed_size_decodes_the_same(family: str, temperature: float) -> None:
    """Token by token what the growing one gives, ends of answers too; a model with a window goes on growing its own."""
    net = tiny_network(family).double()
    backend = TransformersBackend.of(net, byte_tokenizer())
    prompts = [[*range(1, 41), *rest] for rest in ((50, 51), (60,), (70, 71, 72))] + [[5, 6]]
    growing = GenerateConfig(temperature=temperature, max_new_tokens=40)
    fixed = growing.model_copy(update={"cache": "fixed"})
    want = backend.decode(prompts, [2, 1, 2, 2], growing, seeds=range(7))
    stops = backend.stops()
    ends = sorted({ids[len(ids) // 2] for ids, _, _ in want})[:2]  # so that some answers end early
    backend.stops = lambda: [*stops, *ends]  # type: ignore[method-assign]
    want, got = (backend.decode(prompts, [2, 1, 2, 2], config, seeds=range(7)) for config in (growing, fixed))
    assert [(ids, finish) for ids, _, finish in got] == [(ids, finish) for ids, _, finish in want]
    assert [lp for _, lp, _ in got] == pytest.approx([lp for _, lp, _ in want], abs=1e-4)
    assert {finish for _, _, finish in got} >= {"stop"}


def test_which_cache_decodes_is_no_part_of_what_a_candidate_is() -> None:
    assert sampling_of(CONFIG) == sampling_of(CONFIG.model_copy(update={"cache": "fixed"}))
