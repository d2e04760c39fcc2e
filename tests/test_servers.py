"""What is behind an address may be hostile, odd or new: keys stay where they belong, replies have bounds, and what an
endpoint takes is found by asking it. Real HTTP on this machine."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.backends import Request, open_backend
from hafs.config import GenerateConfig
from hafs.errors import UsageError
from hafs.servers.address import key_for, key_variable, mask, proxy_for
from hafs.servers.client import GREEDY, Reply, Sampling
from hafs.servers.errors import CallFailed
from hafs.servers.loop import wait
from judge_server import JudgeServer
from judge_work import filled, run

pytest.importorskip("anthropic")
OpenAIClient = pytest.importorskip("hafs.servers.openai").OpenAIClient

KEY = "sk-a-key-of-openai"
CONFIG = GenerateConfig(candidates=1, max_new_tokens=6, batch_size=4, concurrency=4, retries=0, temperature=0.7)


class Server(ThreadingHTTPServer):
    """Answers as `act` says (it writes to the handler) and keeps every request's path, headers and body."""

    daemon_threads = True

    def __init__(self, act: Callable[[Any, dict[str, Any]], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.act = act
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def posts(self) -> list[dict[str, Any]]:
        """The bodies of the questions."""
        return [body for path, _, body in self.seen if path.endswith("/chat/completions")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        with suppress(OSError):
            self.server.act(self, body)

    do_GET = do_POST = do

    def send(self, data: Any, status: int = 200, **headers: str) -> None:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(act: Callable[[Any, dict[str, Any]], None]) -> Iterator[Server]:
    server = Server(act)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, **usage: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2, **usage}}


def fine(handler: Any, body: dict[str, Any]) -> None:
    """A server of one model, which says hello."""
    if handler.path.endswith("/models"):
        handler.send({"data": [{"id": "m"}]})
    else:
        handler.send(completion("hello"))


def ask(url: str, sampling: Sampling = GREEDY) -> Reply:
    """One question to a server."""

    async def once() -> Reply:
        client = OpenAIClient("m", f"{url}/v1")
        try:
            return await client.send("", [("user", "hi")], None, 16, 20.0, sampling)
        finally:
            await client.close()

    return wait(once())


# keys


def test_a_key_goes_only_to_the_host_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": KEY,
        "OPENAI_ADMIN_KEY": KEY,
        "OPENAI_ORG_ID": "org-secret",
        "OPENAI_PROJECT_ID": "proj-secret",
        "OPENAI_CUSTOM_HEADERS": "X-Secret: header-secret",
    }.items():
        monkeypatch.setenv(name, value)
    with serving(fine) as server:
        ask(server.url)
        open_backend(f"openai:{server.url}").generate([Request("k", "hi")], CONFIG)
        sent = json.dumps([headers for _, headers, _ in server.seen])
        assert len(server.seen) == 3 and KEY not in sent and "secret" not in sent and "authorization" not in sent
        own = f"HAFS_KEY_127_0_0_1_{server.server_port}"
        assert key_variable(f"{server.url}/v1") == own
        monkeypatch.setenv(own, "key-of-this-host")
        ask(server.url)
        _, headers, _ = server.seen[-1]
        assert headers["authorization"] == "Bearer key-of-this-host" and "secret" not in json.dumps(headers)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")  # said beside the key: there it belongs
        ask(server.url)
        assert server.seen[-1][1]["authorization"] == f"Bearer {KEY}"


def test_no_key_in_the_clear_beyond_private_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_KEY_MODELS_EXAMPLE_ORG", "k")
    assert key_for("https://models.example.org/v1") == "k"
    with pytest.raises(UsageError, match=r"HAFS_KEY_MODELS_EXAMPLE_ORG would go to models.example.org in the clear"):
        OpenAIClient("m", "http://models.example.org/v1")
    with pytest.raises(UsageError, match="holds a user or password"):
        OpenAIClient("m", "http://me:pw@127.0.0.1:1/v1")


NAMES = st.lists(st.sampled_from(["api", "openai", "com", "example", "org", "a-b", "0"]), min_size=2, max_size=4)


@given(st.sampled_from(["http", "https"]), NAMES.map(".".join))
@settings(max_examples=50, deadline=None)
def test_no_foreign_host_has_openais_variable(scheme: str, host: str) -> None:
    wanted = "OPENAI_API_KEY" if (scheme, host) == ("https", "api.openai.com") else "HAFS_KEY_"
    assert key_variable(f"{scheme}://{host}/v1").startswith(wanted)
    for near in (
        f"{host}.api.openai.com",
        f"api.openai.com.{host}",
        f"{host}/api.openai.com",
        f"{host}#api.openai.com",
    ):
        assert key_variable(f"https://{near}").startswith("HAFS_KEY_")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with serving(fine) as other, serving(lambda h, _: h.send(b"", status, location=f"{other.url}/v1/x")) as server:
        with pytest.raises(CallFailed, match=f"sends us on to {other.url}.*redirects are not followed"):
            ask(server.url)
        assert not other.seen


def test_the_results_of_a_batch_are_not_fetched_from_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hafs.servers.anthropic import AnthropicClient
    from hafs.servers.batch import open_vendor

    with serving(fine) as other:
        batch = {
            "id": "b",
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "results_url": f"{other.url}/results",
        }
        with serving(lambda h, _: h.send(batch)) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
            monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

            async def fetch() -> None:
                async for _ in open_vendor(AnthropicClient("claude-x"), 20).results("b"):
                    pass

            with pytest.raises(CallFailed, match="names an address of another one"):
                wait(fetch())
        assert not other.seen


def test_a_key_that_comes_back_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(handler: Any, body: dict[str, Any]) -> None:
        key = handler.headers["authorization"].removeprefix("Bearer ")
        if body["messages"][-1]["content"] == "hi":
            handler.send({"error": {"message": f"bad key {key} given"}}, 401)
        else:
            handler.send(completion(f"your key is {key}"))

    with serving(echo) as server:
        monkeypatch.setenv(key_variable(server.url), KEY)
        with pytest.raises(CallFailed, match=r"bad key \*\*\* given") as e:
            ask(server.url)
        assert e.value.kind == "auth"
        client = OpenAIClient("m", f"{server.url}/v1")
        assert wait(client.send("", [("user", "again")], None, 16, 20.0)).text == "your key is ***"
    assert mask("a short key is found in any text: k", "k").endswith(" k")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_for_this_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert proxy_for("http://models.example.org/v1") == "http://127.0.0.1:9"
    with serving(fine) as server:
        assert ask(server.url).text == "hello"
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        assert open_backend(f"openai:{server.url}").generate([Request("k", "hi")], CONFIG)[0].text == "hello"


# replies


def chunks(handler: Any, piece: bytes, times: int) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for _ in range(times):
        handler.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


BOMB = gzip.compress(b'{"choices":[' + b" " * (64 << 20) + b"]}", 1)
HOSTILE: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "deep": (lambda h: h.send(b'{"choices":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "cut", "nested too deep"),
    "digits": (lambda h: h.send(b'{"choices":' + b"9" * 100_000 + b"}"), "cut", "cannot be read"),
    "bomb": (lambda h: h.send(BOMB, content_encoding="gzip"), "large", "larger than 8 MB"),
    "stream": (lambda h: chunks(h, b" " * (1 << 20), 600), "large", "larger than 8 MB"),
    "long text": (lambda h: h.send(completion("x" * 9_000_000)), "large", "larger than 8 MB"),
    "brotli": (lambda h: h.send(b"x", content_encoding="br"), "cut", "was not asked for"),
    "half gzip": (
        lambda h: h.send(gzip.compress(b"{" + b" " * 999)[:-9], content_encoding="gzip"),
        "cut",
        "ends before",
    ),
    "no gzip": (lambda h: h.send(b"hello", content_encoding="gzip"), "cut", "cannot be decompressed"),
    "no UTF-8": (lambda h: h.send(b'{"choices": "\xff\xfe"}'), "cut", "cannot be read|no chat completion"),
    "null": (lambda h: h.send(None), "cut", "no chat completion"),
    "empty": (lambda h: h.send(b""), "cut", ""),
    "page": (lambda h: h.send(b"<html>log in</html>", content_type="text/html"), "cut", "no chat completion"),
    "long error": (lambda h: h.send({"error": {"message": "x" * 1_000_000}}, 400), "request", "^400: x"),
    "waits": (lambda h: h.send({}, 429, retry_after="nan"), "rate_limit", "429"),
    "waits until": (lambda h: h.send({}, 429, retry_after="Wed, 99 Foo 99999999 07:28:00 GMT"), "rate_limit", "429"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_reply_is_one_failed_attempt(how: str) -> None:
    act, kind, words = HOSTILE[how]
    with serving(lambda h, _: act(h)) as server, pytest.raises(CallFailed, match=words) as e:
        ask(server.url)
    assert e.value.kind == kind and len(e.value.message) <= 2000 and e.value.retry_after is None


def test_counts_that_cannot_be_are_missing_and_text_can_be_kept() -> None:
    odd = completion("\ud800 a \x00 b", prompt_tokens=10**30, completion_tokens=-5)
    with serving(lambda h, _: h.send(odd)) as server:
        reply = ask(server.url)
    assert (reply.input_tokens, reply.output_tokens) == (None, None)
    assert reply.text.encode() and reply.text.startswith("\ufffd a ")


def test_a_hostile_judge_ends_no_run(tmp_path: Path) -> None:
    """Every second reply is odd: nothing is lost of the others, and the ledger says what came."""
    odd = [
        '{"reason": "\\ud800 \\u0000", "verdict": "A>B"}',
        '{"verdict": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"verdict": ' + "9" * 5000 + "}",
        '{"verdict": {}}',
        '{"verdict": 1e999}',
        "\ud800\x00",
        "{" * 100_000,
        "<think>" * 50_000,
    ]
    with filled(tmp_path, prompts=8, candidates=2) as store:
        good = '{"reason": "r", "verdict": "A>B"}'
        server = JudgeServer(lambda q: odd[q.number // 2 % len(odd)] if q.number % 2 else good)
        server.usage = lambda body: (10**30, 10**30)
        with server.running():
            (result,) = run(store, OpenAIClient("local", server.v1), protocol="pairwise", concurrency=1)
        assert sum(result.reliability.verdicts.values()) == 16 and not result.tally.failed
        assert result.reliability.verdicts["ranked"] >= 8
        for verdict in store.verdicts():
            json.dumps(verdict.to_dict(), ensure_ascii=False).encode()


# two at once


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_two_generators_at_once_make_what_was_asked_for(kind: str, tmp_path: Path) -> None:
    """Each answers with another text, so nothing but the claim keeps them from making everything twice."""
    from hafs.generation.candidates import generate_candidates
    from hafs.store import open_store
    from hafs.types import Prompt

    where: str | Path = tmp_path / "hafs.db"
    if kind == "postgres":
        where = os.environ.get("HAFS_TEST_POSTGRES") or pytest.skip("HAFS_TEST_POSTGRES names no server")
    number = itertools.count()

    def slow(handler: Any, body: dict[str, Any]) -> None:
        if handler.path.endswith("/models"):
            return handler.send({"data": [{"id": "m"}]})
        time.sleep(0.01)
        return handler.send(completion(f"answer {next(number)}"))

    config = CONFIG.model_copy(update={"candidates": 2})
    mine = uuid.uuid4().hex
    prompts = [Prompt(f"{mine} prompt {i}") for i in range(10)]
    made: list[Any] = []
    with serving(slow) as server, open_store(where) as first, open_store(where) as second:

        def generate(store: Any, asked: list[Prompt]) -> None:
            made.append(generate_candidates(store, open_backend(f"openai:{server.url}"), asked, config))

        orders = ((first, prompts), (second, prompts[::-1]))
        threads = [threading.Thread(target=generate, args=args) for args in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = list(first.candidates(prompt_ids=[p.id for p in prompts]))
        assert len(found) == 20 == len(server.posts()) == len({(c.prompt_id, c.index) for c in found})
        assert [len(g.candidates) for g in made] == [20, 20] and sum(g.new for g in made) == 20


# what an endpoint takes


def picky(*refused: str) -> Callable[[Any, dict[str, Any]], None]:
    """A server that refuses some fields, one at a time, as newer models do."""

    def act(handler: Any, body: dict[str, Any]) -> None:
        for name in refused:
            if name in body or (name == "system" and any(m["role"] == name for m in body.get("messages", ()))):
                return handler.send({"error": {"message": f"Unsupported parameter: {name!r}"}}, 400)
        return fine(handler, body)

    return act


@pytest.mark.parametrize(
    "refused",
    [("max_tokens",), ("max_tokens", "temperature", "logprobs"), ("temperature", "top_p", "seed"), ("system",)],
)
def test_what_a_server_refuses_is_found_once_and_said(
    refused: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """max_tokens, temperature and logprobs are what newer models of OpenAI refuse."""
    config = CONFIG.model_copy(update={"top_p": 0.9})
    with serving(picky(*refused)) as server, caplog.at_level(logging.WARNING):
        backend = open_backend(f"openai:{server.url}")
        batch = [Request(str(i), f"prompt {i}", "be brief") for i in range(8)]
        assert [a.text for a in backend.generate(batch, config)] == ["hello"] * 8
        found = len(server.posts())
        assert [a.text for a in backend.generate(batch, config)] == ["hello"] * 8
        later = server.posts()[found:]
    assert len(later) == 8, "what was found is kept"
    for body in later:
        assert not set(refused) & set(body) and body.get("max_tokens", body.get("max_completion_tokens")) == 6
        wanted = {"temperature": 0.7, "top_p": 0.9, "logprobs": True}
        assert all(body[k] == v for k, v in wanted.items() if k not in refused)
        assert "be brief" in json.dumps(body["messages"])
    said = " ".join(r.getMessage() for r in caplog.records)
    assert all(
        ("temperature" if n == "temperature" else n.split("_")[0]) in said
        for n in refused
        if "max" not in n and "log" not in n
    )
    assert ("log-probabilities" in said) == ("logprobs" in refused)


def test_a_judge_that_wants_max_completion_tokens(tmp_path: Path) -> None:
    picky = JudgeServer(refuses=("max_tokens", "temperature"))
    with filled(tmp_path, prompts=2, candidates=2) as store, picky.running() as server:
        (result,) = run(store, OpenAIClient("local", server.v1), protocol="pairwise")
        sent = [q.body for q in server.asked()]
    assert result.coverage == 1.0 and not result.tally.trouble["auth"]
    assert all(b["max_completion_tokens"] == 1024 and "temperature" not in b and b["seed"] == 0 for b in sent)
