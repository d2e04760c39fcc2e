"""`hafs serve` over real HTTP: what it answers is what the model answers here, alone or among others."""

from __future__ import annotations

import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import tiny_network
from hafs.backends import Request, open_backend
from hafs.config import GenerateConfig
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import decode_answer, encode_prompt
from hafs.models.loading import load_model
from hafs.models.naming import model_hash
from serving import serving

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> TransformersBackend:
    return TransformersBackend(str(tiny_model), precision="fp32")


@pytest.fixture(scope="module")
def app(backend: TransformersBackend) -> Any:
    from hafs.serve.app import make_app

    return make_app(backend, "tiny", batch_size=8)


@pytest.fixture(scope="module")
def url(app: Any) -> Iterator[str]:
    with serving(app) as address:
        yield address


def post(url: str, body: dict[str, Any] | bytes, path: str = "/v1/chat/completions", key: str = "") -> Any:
    """(status, parsed reply)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, head), timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def ask(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 6, **more}


def local(backend: TransformersBackend, text: str, **settings: Any) -> Any:
    config = GenerateConfig(**{"temperature": 0.0, "max_new_tokens": 6, **settings})
    return backend.generate([Request("k", text)], config)[0]


def test_greedy_answers_are_the_models(url: str, backend: TransformersBackend) -> None:
    for text in ("hi", "count to three", "é\n🙂"):
        status, reply = post(url, ask(text, temperature=0, logprobs=True))
        here = local(backend, text)
        (choice,) = reply["choices"]
        tokens = choice["logprobs"]["content"]
        assert status == 200 and choice["message"]["content"] == here.text
        assert tuple(t["id"] for t in tokens) == here.token_ids
        assert sum(t["logprob"] for t in tokens) == pytest.approx(here.logprob, abs=1e-4)
        assert choice["finish_reason"] == here.finish
        assert reply["usage"]["prompt_tokens"] == len(encode_prompt(backend.tokenizer, text))


def test_a_seed_decides_whatever_else_is_asked_meanwhile(url: str, app: Any) -> None:
    def texts(seed: int) -> list[str]:
        reply = post(url, ask("same", temperature=1.0, seed=seed, n=3))[1]
        return [c["message"]["content"] for c in reply["choices"]]

    alone = [texts(seed) for seed in range(8)]
    before = app.state.batcher.batches
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(texts, range(8)))
    assert together == alone
    assert app.state.batcher.batches - before < 8, "requests that wait together share a batch"
    assert len({t for row in alone for t in row}) > 8


def test_a_stream_says_what_a_whole_reply_says(url: str) -> None:
    body = ask("stream", temperature=1.0, seed=5, n=2, logprobs=True)
    whole = post(url, body)[1]
    events = events_of(url, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert events[-1] == "[DONE]" and events[-2]["usage"] == whole["usage"]
    for i, choice in enumerate(whole["choices"]):
        mine = [e["choices"][0] for e in events[:-2] if e["choices"][0]["index"] == i]
        assert "".join(c["delta"]["content"] for c in mine) == choice["message"]["content"]
        assert [t["id"] for c in mine for t in c["logprobs"]["content"]] == [
            t["id"] for t in choice["logprobs"]["content"]
        ]
        assert [c["finish_reason"] for c in mine][-1] == choice["finish_reason"]
        assert mine[0]["delta"]["role"] == "assistant"


def events_of(url: str, body: dict[str, Any]) -> list[Any]:
    head = {"content-type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=60) as reply:
        lines = [line[6:].strip() for line in reply.read().decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_stop_texts_end_an_answer_and_are_not_in_it(url: str, backend: TransformersBackend) -> None:
    long = local(backend, "stop", max_new_tokens=30)
    whole = decode_answer(backend.tokenizer, long.token_ids)
    stop = next(whole[i : i + 2] for i in range(3, len(whole)) if "�" not in whole[i : i + 2])
    body = ask("stop", temperature=0, max_tokens=30, stop=[stop, "never there"])
    (choice,) = post(url, body)[1]["choices"]
    assert choice["message"]["content"] == whole[: whole.find(stop)] and choice["finish_reason"] == "stop"
    streamed = events_of(url, {**body, "stream": True})[:-1]
    assert "".join(e["choices"][0]["delta"]["content"] for e in streamed) == choice["message"]["content"]


def test_plain_completions_of_text_and_ids(url: str, backend: TransformersBackend) -> None:
    ids = list(backend.tokenizer("abc")["input_ids"])
    body = {"max_tokens": 4, "temperature": 0, "logprobs": 0}
    text = post(url, {**body, "prompt": "abc"}, "/v1/completions")[1]
    token = post(url, {**body, "prompt": ids}, "/v1/completions")[1]
    both = post(url, {**body, "prompt": ["abc", "xyz"]}, "/v1/completions")[1]
    assert text["choices"][0]["logprobs"] == token["choices"][0]["logprobs"]
    assert [c["index"] for c in both["choices"]] == [0, 1]
    assert both["choices"][0]["text"] == text["choices"][0]["text"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        ({"max_tokens": 3}, 400, "messages"),
        (ask(max_tokens=0), 400, "max_tokens"),
        (ask(temperature="hot"), 400, "temperature"),
        (ask(n=0), 400, "n:"),
        (ask(model="other"), 404, "there is no model 'other' here, only 'tiny'"),
        (ask(max_tokens=5000), 400, "the model takes 512"),
        (ask("x" * 600), 400, "the model takes 512"),
        (ask(tools=[{"type": "function"}]), 400, "does not show the tools"),
        (ask(response_format={"type": "json_schema"}), 400, "response_format json_schema is not supported"),
        (ask(logprobs=True, top_logprobs=3), 400, "top_logprobs is not supported"),
        (ask(top_k=40), 400, "top_k is not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "must be text"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(url: str, body: Any, status: int, words: str) -> None:
    got, reply = post(url, body)
    assert got == status and words in reply["error"]["message"]
    assert post(url, ask())[0] == 200, "and the server goes on"


def test_a_key_guards_everything_but_health(backend: TransformersBackend) -> None:
    from hafs.serve.app import make_app

    with serving(make_app(backend, "tiny", api_key="secret")) as url:
        assert post(url, ask())[0] == post(url, ask(), key="wrong")[0] == 401
        assert post(url, ask(), key="secret")[0] == 200
        with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
            assert reply.status == 200


def test_a_failure_of_the_model_is_an_error_and_not_an_end(backend: TransformersBackend) -> None:
    from hafs.serve.app import make_app

    broken = TransformersBackend.of(backend._net, backend.tokenizer)
    real, broken.decode = broken.decode, lambda *a, **k: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    with serving(make_app(broken, "tiny")) as url:
        status, reply = post(url, ask())
        assert status == 500 and "division by zero" in reply["error"]["message"]
        broken.decode = real  # type: ignore[method-assign]
        assert post(url, ask())[0] == 200


def test_stopping_ends_answers_that_are_under_way(backend: TransformersBackend) -> None:
    from hafs.serve.app import make_app

    app = make_app(backend, "tiny")
    with serving(app) as url, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, url, ask("long", max_tokens=450, temperature=1.0, n=8))
        while not app.state.batcher.batches:
            time.sleep(0.005)
        app.state.batcher.close()
        status, reply = slow.result()
        assert status == 503 and "stopping" in reply["error"]["message"]
        assert post(url, ask())[0] == 503


def test_the_backend_of_hafs_asks_it_like_any_server(url: str, backend: TransformersBackend, tiny_model: Path) -> None:
    pytest.importorskip("openai")
    remote = open_backend(f"openai:{url}")
    assert remote.model == model_hash(tiny_model), "its answers count as the model's own"
    config = GenerateConfig(candidates=2, temperature=0.0, max_new_tokens=6, batch_size=8)
    (batch,) = remote.plan([Request(t, t, n=2) for t in ("a", "b", "c")], config)
    got = remote.generate(batch, config)
    assert [(a.key, a.index) for a in got] == [(t, i) for t in "abc" for i in (0, 1)]
    for a in got:
        here = local(backend, a.key)
        assert (a.text, a.token_ids, a.finish) == (here.text, here.token_ids, here.finish)
        assert a.logprob == pytest.approx(here.logprob, abs=1e-4)
    warm = config.model_copy(update={"temperature": 1.0})
    once, again = ([a.token_ids for a in remote.generate(batch, warm)] for _ in range(2))
    assert once == again and len(set(once)) > 3


def adapter_in(folder: Path, tiny_model: Path, scale: float) -> Path:
    """A LoRA adapter on a tiny model, saved; it changes what the model says."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    net = get_peft_model(load_model(tiny_model, "fp32"), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=scale)
    net.save_pretrained(str(folder))
    return folder


def test_adapters_are_loaded_and_unloaded_while_it_runs(tiny_model: Path, tmp_path: Path) -> None:
    from hafs.serve.app import make_app

    home = tmp_path / "adapters"
    one, two = adapter_in(home / "one", tiny_model, 0.5), adapter_in(home / "two", tiny_model, 2.0)
    tiny_network(intermediate_size=128).save_pretrained(str(tmp_path / "wide"))
    wide = adapter_in(home / "wide", tmp_path / "wide", 0.5)
    backend = TransformersBackend(str(tiny_model), precision="fp32")

    def said(url: str, model: str = "") -> str:
        status, reply = post(url, ask("hello", temperature=0, max_tokens=12, model=model))
        assert status == 200, reply
        assert reply["model"] == (model or "tiny")
        return reply["choices"][0]["message"]["content"]

    def tell(url: str, what: str, **body: Any) -> tuple[int, str]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/v1/{what}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, json.load(e)["error"]["message"]

    with serving(make_app(backend, "tiny", adapters=home)) as url:
        plain = said(url)
        assert tell(url, "load_lora_adapter", lora_name="w", lora_path=str(wide))[0] == 400
        assert said(url) == plain
        assert tell(url, "load_lora_adapter", lora_name="a", lora_path=str(one))[0] == 200
        first = said(url, "a")
        assert tell(url, "load_lora_adapter", lora_name="b", lora_path=str(two))[0] == 200
        second = said(url, "b")
        assert len({plain, first, second}) == 3
        assert (said(url), said(url, "a")) == (plain, first), "each model is what it was, whatever was loaded beside it"
        with urllib.request.urlopen(url + "/v1/models", timeout=60) as reply:
            assert [m["id"] for m in json.load(reply)["data"]] == ["tiny", "a", "b"]
        assert tell(url, "load_lora_adapter", lora_name="a", lora_path=str(two)) == (
            400,
            "there is a model 'a' already",
        )
        status, why = tell(url, "load_lora_adapter", lora_name="c", lora_path=str(tiny_model))
        assert status == 400 and "from where adapters may be loaded" in why
        status, why = tell(url, "load_lora_adapter", lora_name="c", lora_path=str(home))
        assert status == 400 and "holds no adapter" in why
        assert tell(url, "load_lora_adapter", lora_name="w", lora_path=str(wide))[0] == 400
        cut = shutil.copytree(two, home / "cut") / "adapter_model.safetensors"
        cut.write_bytes(cut.read_bytes()[:-100])
        for _ in range(2):
            assert tell(url, "load_lora_adapter", lora_name="w", lora_path=str(home / "cut"))[0] == 400
        assert (said(url), said(url, "a"), said(url, "b")) == (plain, first, second)
        assert post(url, ask(model="w"))[0] == 404
        assert tell(url, "unload_lora_adapter", lora_name="a")[0] == 200
        assert tell(url, "unload_lora_adapter", lora_name="a")[0] == 404
        assert said(url, "b") == second and post(url, ask(model="a"))[0] == 404
        assert tell(url, "unload_lora_adapter", lora_name="b")[0] == 200
        assert said(url) == plain
    with serving(make_app(backend, "tiny")) as url:
        assert tell(url, "load_lora_adapter", lora_name="a", lora_path=str(one))[0] == 404


def test_what_asks_for_too_much_or_from_elsewhere_is_refused(url: str) -> None:
    message = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/chat/completions", headers={"content-length": str(9 << 20)})
    assert connection.getresponse().status == 413
    connection.close()
    status, said = post(url, {"prompt": ["x"] * 300, "n": 64, "max_tokens": 1}, "/v1/completions")
    assert status == 400 and "more than 1024 answers" in said["error"]["message"]
    for stop in (["x"] * 65, "x" * 1001):
        assert post(url, {**message, "stop": stop})[0] == 400
    for more in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        head = {"content-type": "application/json", **more}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(message).encode(), head)
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(request, timeout=60)
        assert e.value.code in (403, 421) and json.load(e.value)["error"]["message"]
    status, said = post(url, b'{"messages": [{"role": "user", "content": "x"}], "model": "\\ud800"}')
    assert status == 404 and "there is no model" in said["error"]["message"]
