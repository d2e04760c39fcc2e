"""A real vLLM behind `openai:URL`: what it says of its tokens, adapters, verbs, rollouts, and what becomes of a run
when the server ends. `make test-vllm`; HAFS_TEST_VLLM=http://HOST:PORT takes a server that is there (with `FLAGS`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hafs.backends import Answer, Request, Unanswered, open_backend
from hafs.config import GenerateConfig, OnlineDPOConfig, PPOConfig, PreferencesConfig
from hafs.models.chat import encode_prompt
from hafs.models.loading import load_model, load_tokenizer
from hafs.models.naming import resolve
from hafs.store import open_store
from hafs.training.online import train_online_dpo
from hafs.training.ppo import train_ppo
from hafs.training.rollout import Rating, Sampled
from hafs.types import Prompt
from hafs.workflows.rollouts import ServedSampler, grouper
from run_hafs import hafs, workspace
from test_online import Vowels
from vllm_server import NAME, PYTHON, VllmServer, healthy, metric

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(3600)]
BOUND = 0.01
"""Nats a token, on average, that the server's log-probabilities may be off ours: both compute in fp32."""
GIVEN = os.environ.get("HAFS_TEST_VLLM", "").rstrip("/")
PROMPTS = [Prompt(f"Name {n} animals.", check={"want": "ok"}) for n in ("two", "three", "four", "five")]
CHATTY = GenerateConfig(candidates=1, temperature=1.0, top_p=1.0, max_new_tokens=12, batch_size=8, retries=1)
GREEDY = CHATTY.model_copy(update={"temperature": 0.0})
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    if not PYTHON.exists():
        pytest.skip("vLLM is not installed: make vllm")
    made = VllmServer(resolve("default"), tmp_path_factory.mktemp("vllm") / "vllm.log")
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> str:
    return GIVEN or str(request.getfixturevalue("server").url)


@pytest.fixture(scope="module")
def network() -> Any:
    return load_model(resolve("default"), "fp32")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve("default"))


def asked(url: str, requests: Sequence[Request], config: GenerateConfig = CHATTY) -> list[Answer]:
    backend = open_backend(f"openai:{url}#{NAME}")
    return [a for batch in backend.plan(requests, config) for a in backend.generate(batch, config)]


def gap(net: Any, tokenizer: Any, prompt: str, answer: Answer) -> float:
    """Nats a token between what the server says of an answer's tokens and what `net` does."""
    before = list(encode_prompt(tokenizer, prompt))
    ids = torch.tensor([[*before, *answer.token_ids]])
    with torch.no_grad():
        logps = net(ids).logits[0, len(before) - 1 : -1].float().log_softmax(-1)
    ours = logps.gather(-1, ids[0, len(before) :, None])[:, 0]
    return float((ours - torch.tensor(answer.logprobs)).abs().mean())


def test_it_tells_the_very_tokens_and_their_log_probabilities(url: str, network: Any, tokenizer: Any) -> None:
    requests = [Request.of(p, n=2) for p in PROMPTS[:2]]
    answers = asked(url, requests)
    assert [(a.key, a.index) for a in answers] == [(r.key, i) for r in requests for i in range(2)]
    text_of = {r.key: r.text for r in requests}
    for a in answers:
        assert a.token_ids and len(a.token_ids) == len(a.logprobs) <= 12
        assert tokenizer.decode(a.token_ids, skip_special_tokens=True) == a.text
        assert a.logprob == pytest.approx(sum(a.logprobs))
        assert gap(network, tokenizer, text_of[a.key], a) < BOUND
    assert len({a.text for a in answers}) > 1


def test_a_seed_samples_the_same_again_and_another_seed_does_not(url: str) -> None:
    requests = [Request.of(p, n=2) for p in PROMPTS[:2]]
    one = asked(url, requests)
    assert [a.token_ids for a in asked(url, requests)] == [a.token_ids for a in one]
    other = asked(url, requests, CHATTY.model_copy(update={"seed": 7}))
    assert [a.token_ids for a in other] != [a.token_ids for a in one]


def test_an_answer_ends_at_the_models_own_stop(url: str) -> None:
    whole, cut = (
        asked(url, [Request("k", "Reply with the word yes.")], GREEDY.model_copy(update={"max_new_tokens": n}))[0]
        for n in (100, 2)
    )
    assert whole.finish == "stop" and "<|im_end|>" not in whole.text
    assert cut.finish == "length" and len(cut.token_ids) == 2 and whole.text.startswith(cut.text)


def test_a_prompt_that_comes_again_is_kept(url: str) -> None:
    """vLLM's blocks on a CPU are of 128 tokens: a prompt has to be longer than that."""
    request = Request("k", "Count these words. " + "apple pear " * 90)
    before = metric(url, "prefix_cache_hits_total")
    first, again = (asked(url, [request], GREEDY)[0] for _ in range(2))
    assert metric(url, "prefix_cache_hits_total") - before >= 128
    assert first.token_ids == again.token_ids


def test_a_request_that_is_cut_off_leaves_the_server_as_it_was(url: str) -> None:
    backend = open_backend(f"openai:{url}#{NAME}", timeout=0.05)
    config = CHATTY.model_copy(update={"max_new_tokens": 400, "retries": 0})
    with pytest.raises(Unanswered, match="does not answer") as e:
        backend.generate([Request("k", "Write a long story.")], config)
    assert e.value.fatal and "the same command goes on" in e.value.fix
    ends = time.monotonic() + 120
    while metric(url, "num_requests_running") and time.monotonic() < ends:
        time.sleep(0.5)
    assert metric(url, "num_requests_running") == 0, "it goes on with what nobody waits for"
    assert asked(url, [Request("k", "Say hi.")], GREEDY)[0].token_ids


def test_a_prompt_that_is_too_long_is_refused_alone(url: str) -> None:
    backend = open_backend(f"openai:{url}#{NAME}")
    with pytest.raises(Unanswered) as e:
        backend.generate([Request("a", "word " * 900), Request("b", "Say hi.")], GREEDY)
    assert [a.key for a in e.value.answers] == ["b"] and not e.value.fatal
    assert "400" in next(iter(e.value.failed))


def test_an_adapter_is_asked_for_by_its_name(url: str, tokenizer: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    net: Any = get_peft_model(load_model(resolve("default"), "fp32"), LoraConfig(r=4, target_modules=["q_proj"]))
    torch.manual_seed(0)
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    net.save_pretrained(str(tmp_path / "moved"))
    backend: Any = open_backend(f"openai:{url}#{NAME}")
    request = Request.of(PROMPTS[0])
    backend.use_adapter(tmp_path / "moved")
    (answer,) = backend.generate([request], CHATTY)
    assert gap(net.eval(), tokenizer, request.text, answer) < BOUND
    with net.disable_adapter():
        assert gap(net, tokenizer, request.text, answer) > BOUND, "the adapter changes nothing"
        backend.use_adapter(None)
        (plain,) = backend.generate([request], CHATTY)
        assert gap(net, tokenizer, request.text, plain) < BOUND


# ---- rollouts


def count_of_a(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
    return [[float(a.text.count("a")) for a in row] for row in answers]


@pytest.mark.parametrize("advantage", ["gae", "rloo"])
def test_it_samples_with_the_policy_of_every_step(url: str, tokenizer: Any, tmp_path: Path, advantage: str) -> None:
    """PPO and RLOO: the adapter of every step is loaded anew, and what the server says is what the policy says."""
    settings = {
        "batch_size": 2,
        "rollouts": 2,
        "max_new_tokens": 8,
        "learning_rate": 1e-3,
        "epochs": 1,
        "minibatches": 1,
        "warmup_ratio": 0.0,
        "schedule": "constant",
        "precision": "fp32",
        "missing_eos_penalty": 0.0,
    }
    config = PPOConfig.model_validate({**settings, "advantage": advantage, "lora": LORA})
    with ServedSampler(f"openai:{url}#{NAME}", tokenizer, 8, 8, tmp_path / "run" / "rollouts") as sample:
        train_ppo(str(resolve("default")), PROMPTS, config, tmp_path / "run", sample=sample, rate=count_of_a)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    gaps = [row["rollout/gap_per_token"] for row in rows if "rollout/gap_per_token" in row]
    assert len(gaps) == 2 and max(gaps) < BOUND, gaps


def test_online_dpo_samples_from_it(url: str, tokenizer: Any, tmp_path: Path) -> None:
    settings = {
        "batch_size": 2,
        "rollouts": 3,
        "max_new_tokens": 6,
        "redraws": 1,
        "learning_rate": 1e-3,
        "precision": "fp32",
    }
    config = OnlineDPOConfig.model_validate({**settings, "lora": LORA})
    compare = grouper(Vowels(), PreferencesConfig(efficiency=False))
    with ServedSampler(f"openai:{url}#{NAME}", tokenizer, 6, 8, tmp_path / "run" / "rollouts") as sample:
        done = train_online_dpo(
            str(resolve("default")), PROMPTS, config, tmp_path / "run", sample=sample, compare=compare
        )
    assert done.steps == 2


# ---- verbs


def space_of(path: Path, prompts: int = 4) -> Path:
    space = workspace(
        path,
        "[generate]\ncandidates = 2\nmax_new_tokens = 8\nbatch_size = 4\nretries = 1\n[eval]\nmax_new_tokens = 8\n",
    )
    rows = [{"prompt": f"Say {i}.", "checker": "text", "check": {"min_words": 1}} for i in range(prompts)]
    (space / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return space


def test_generate_eval_and_a_judge(url: str, tmp_path: Path) -> None:
    space, model = space_of(tmp_path / "w"), f"openai:{url}#{NAME}"
    hafs("generate", "-w", space, "--model", model, "--prompts", space / "prompts.jsonl", "--json").ok()
    with open_store(space / "hafs.db") as store:
        candidates = list(store.candidates())
        assert len(candidates) == 8 and all(c.logprob is not None for c in candidates)
    held = {"prompt": "Name a fish.", "split": "test", "checker": "text", "check": {"min_words": 1}}
    (space / "held.jsonl").write_text(json.dumps(held) + "\n")
    found = hafs(
        "eval", "-w", space, "--model", model, "--name", "served", "--benchmark", space / "held.jsonl", "--json"
    )
    assert found.ok().json
    run = ("judge", "run", "-w", space, "--judge", f"{NAME}@{url}/v1", "--protocol", "pairwise", "--json")
    (judge,) = hafs(*run, "--max-tokens", "60", "--num-samples", "1").ok().json["judges"]
    assert judge["stopped"] == "" and judge["coverage"] > 0


# ---- the server ends: these come last


def _kill_after(space: Path, n: int, server: VllmServer) -> None:
    with open_store(space / "hafs.db") as store:
        while len(list(store.candidates())) < n and healthy(server.url):
            time.sleep(0.05)
    server.kill()


@pytest.mark.skipif(bool(GIVEN), reason="the server is not ours to kill")
def test_killed_half_way_and_started_again_nothing_is_lost(server: VllmServer, tmp_path: Path) -> None:
    space = space_of(tmp_path / "w", 12)
    run = ("generate", "-w", space, "--model", f"openai:{server.url}#{NAME}", "--prompts", space / "prompts.jsonl")
    killer = threading.Thread(target=_kill_after, args=(space, 4, server))
    killer.start()
    cut = hafs(*run, "--json")
    killer.join()
    cut.failed(1, "does not answer", "start the server, then the same command goes on")
    with open_store(space / "hafs.db") as store:
        kept = {c.id: c.text for c in store.candidates()}
    assert 4 <= len(kept) < 24
    server.start("--max-num-batched-tokens", "64", "--enable-chunked-prefill")
    hafs(*run, "--json").ok()
    with open_store(space / "hafs.db") as store:
        found = {c.id: c.text for c in store.candidates()}
    assert len(found) == 24 and kept.items() <= found.items()


@pytest.mark.skipif(bool(GIVEN), reason="the server is not ours to end")
def test_a_seed_that_ends_the_engine_is_said(server: VllmServer, tmp_path: Path) -> None:
    """On a CPU, a seed and a prompt that is read in parts end it ("CPU Generator does not use offset")."""
    if not healthy(server.url):
        server.start("--max-num-batched-tokens", "64", "--enable-chunked-prefill")
    space = space_of(tmp_path / "w", 2)
    long = {"prompt": "Count these words. " + "apple pear " * 90, "checker": "text", "check": {"min_words": 1}}
    (space / "prompts.jsonl").write_text(json.dumps(long) + "\n")
    run = ("generate", "-w", space, "--model", f"openai:{server.url}#{NAME}", "--prompts", space / "prompts.jsonl")
    hafs(*run).failed(1, "engine has ended", "--no-enable-chunked-prefill")
    assert "CPU Generator does not use offset" in server.log.read_text()
    server.kill()
    server.start("--no-enable-chunked-prefill")
    hafs(*run).ok()
    with open_store(space / "hafs.db") as store:
        assert len(list(store.candidates())) == 2
