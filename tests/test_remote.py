"""Backends that ask a server: what it does not answer is named and counted, what it did answer is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hafs.backends import Request, Unanswered, is_local, open_backend, split_name
from hafs.config import GenerateConfig
from hafs.errors import HafsError, UsageError
from hafs.generation.candidates import generate_candidates
from hafs.servers.ollama import address, installed
from hafs.store import Store, open_store
from hafs.types import Prompt
from run_hafs import hafs, lines, workspace

pytest.importorskip("openai")
pytest.importorskip("anthropic")

PROMPTS = [Prompt(f"prompt {i}") for i in range(6)]
TEXTS = {p.text for p in PROMPTS}
CONFIG = GenerateConfig(candidates=2, max_new_tokens=6, batch_size=4, concurrency=4, retries=2, seed=3)

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@contextmanager
def stub(answer: Callable[[str, dict[str, Any]], Reply]) -> Iterator[str]:
    """A real HTTP server that speaks as `answer` says: (path, request) -> (status, reply, headers)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, reply, *head = answer(self.path, json.loads(body) if body else {})
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(head[0] if head else {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "someone"}]}


def openai_like(chat: Callable[[str], Reply]) -> Callable[[str, dict[str, Any]], Reply]:
    """A server that lists one model and answers a prompt as `chat` says."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        return (200, MODELS) if path == "/v1/models" else chat(body["messages"][-1]["content"])

    return answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "a.db") as opened:
        yield opened


# names


def test_names_of_models(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    assert split_name("openai:http://h:1/v1#m") == ("openai", "http://h:1/v1#m")
    assert split_name("ollama:hafs-coder:14b") == ("ollama", "hafs-coder:14b")
    assert split_name("anthropic:claude-x") == ("anthropic", "claude-x")
    for local in ("default", "owner/name", str(tiny_model), "hafs-coder:14b", "C:\\models", "a:b/c"):
        assert is_local(local), local


def test_a_bare_tag_is_ollamas_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def ollama(path: str, body: dict[str, Any]) -> Reply:
        if path == "/api/tags":
            return 200, {"models": [{"name": "hafs-coder:14b", "digest": "d1"}]}
        return (200, MODELS) if path == "/v1/models" else (200, completion(f"{body['model']} says {body['seed'] > 0}"))

    with stub(ollama) as url:
        monkeypatch.setenv("OLLAMA_HOST", url)
        assert installed() == {"hafs-coder:14b": "d1"}
        bare, named = open_backend("hafs-coder:14b"), open_backend("ollama:hafs-coder:14b")
        assert bare.model == named.model and bare.name == "ollama:hafs-coder:14b"
        (answer,) = bare.generate([Request("k", "hello")], CONFIG)
        assert (answer.text, answer.finish, answer.length) == ("hafs-coder:14b says True", "stop", 2)
        assert answer.logprob is None and answer.token_ids == ()
        with pytest.raises(UsageError, match=r"has no model 'other' \(it has: hafs-coder:14b\)"):
            open_backend("ollama:other")
    with pytest.raises(HafsError, match="Ollama does not answer"):
        open_backend("ollama:hafs-coder:14b")


@pytest.mark.parametrize(
    ("host", "at"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("box:99", "http://box:99"),
        ("https://box", "https://box:11434"),
    ],
)
def test_where_ollama_listens(host: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert address() == at


# failures


def test_slow_down_is_heeded_and_the_answer_comes(store: Store) -> None:
    times: dict[str, list[float]] = {}

    def chat(text: str) -> Reply:
        times.setdefault(text, []).append(time.monotonic())
        first = len(times[text]) == 1 and text == "prompt 0"
        return (429, {"error": {"message": "slow down"}}, {"retry-after": "1"}) if first else (200, completion(text))

    with stub(openai_like(chat)) as url:
        one = CONFIG.model_copy(update={"candidates": 1, "concurrency": 1})
        made = generate_candidates(store, open_backend(f"openai:{url}"), PROMPTS[:2], one)
    assert [c.text for c in made.candidates] == ["prompt 0", "prompt 1"] and not made.failed
    waited = times["prompt 0"][1] - times["prompt 0"][0]
    assert waited >= 0.9, "the server's Retry-After is kept"


def test_a_prompt_that_is_refused_is_counted_and_the_rest_is_answered(store: Store) -> None:
    bad = {
        "prompt 1": (400, {"error": {"message": "too long"}}),
        "prompt 2": (200, {"object": "chat.completion", "choices": []}),
        "prompt 3": (200, completion("", "content_filter")),
        "prompt 4": (500, {"error": {"message": "boom"}}),
    }
    with stub(openai_like(lambda text: bad.get(text, (200, completion(text))))) as url:
        backend = open_backend(f"openai:{url}")
        config = CONFIG.model_copy(update={"retries": 0, "batch_size": 12})
        made = generate_candidates(store, backend, PROMPTS, config)
        assert sorted(c.text for c in made.candidates) == ["prompt 0"] * 2 + ["prompt 5"] * 2
        assert made.failed == {
            "HTTP 400: too long": 2,
            "the reply is no chat completion": 2,
            "the model refused (content_filter)": 2,
            "HTTP 500: boom": 2,
        }
        bad.clear()  # it was mended: the same call asks for what is missing and for nothing else
        again = generate_candidates(store, backend, PROMPTS, config)
    assert again.new == 8 and not again.failed
    assert [(c.text, c.index) for c in again.candidates] == [(p.text, i) for p in PROMPTS for i in (0, 1)]


@pytest.mark.parametrize(
    ("status", "reply", "words"),
    [
        (401, {"error": {"message": "no key"}}, "refuses the key: no key"),
        (404, {"error": {"message": "what model"}}, "has no model 'm': what model"),
        (503, {"error": {"message": "loading"}}, r"is not ready \(HTTP 503\): loading"),
        (429, {"error": {"message": "too many"}}, "still says to slow down"),
        (400, {"error": {"message": "no temperature"}}, "4 of 4 requests got no answer: HTTP 400: no temperature"),
        (200, b"<html>hello</html>", "got no answer"),
    ],
)
def test_where_nothing_is_answered_the_run_ends_with_the_reason(
    store: Store, status: int, reply: Any, words: str
) -> None:
    asked = []
    with stub(openai_like(lambda text: (text in TEXTS and asked.append(text), (status, reply))[1])) as url:
        config = CONFIG.model_copy(update={"retries": 0})
        with pytest.raises(HafsError, match=words) as e:
            generate_candidates(store, open_backend(f"openai:{url}"), PROMPTS, config)
    assert "0 of 12 answers are in the workspace" in e.value.what
    assert len(asked) <= 4, "the batches after it are not asked"


def test_an_engine_that_ended_is_not_asked_again_and_what_to_do_is_said(store: Store) -> None:
    """As vLLM on a CPU ends of a seed and a prompt that it reads in parts: every request would end it anew."""
    asked: list[str] = []

    def chat(prompt: str) -> Reply:
        asked.append(prompt)
        if len(asked) <= 2:
            return 200, completion("fine")
        said = "EngineCore encountered an issue. See stack trace (above) for the root cause."
        return 500, {"error": {"message": said, "type": "InternalServerError"}}

    with stub(openai_like(chat)) as url, pytest.raises(HafsError, match="its engine has ended") as e:
        backend = open_backend(f"openai:{url}")
        generate_candidates(store, backend, PROMPTS, CONFIG.model_copy(update={"concurrency": 1}))
    assert "--no-enable-chunked-prefill" in e.value.fix and "the same command goes on" in e.value.fix
    assert len(asked) == 3 and len(list(store.candidates())) == 2


def test_no_more_requests_are_under_way_than_asked_for() -> None:
    now, most, lock = 0, 0, threading.Lock()
    three = threading.Barrier(3)  # opens when three are under way at once, four times

    def chat(text: str) -> Reply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        three.wait(timeout=60)
        with lock:
            now -= 1
        return 200, completion(text)

    with stub(openai_like(chat)) as url:
        backend = open_backend(f"openai:{url}")
        config = CONFIG.model_copy(update={"concurrency": 3})
        backend.generate([Request(str(i), str(i)) for i in range(12)], config)
    assert most == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai:http://127.0.0.1:9/v1#m", "does not answer"),
        ("openai:ftp://x#m", "is no address"),
        ("openai:gpt", "needs a key"),
        ("anthropic:claude", "needs a key"),
        ("vllm:default", "vllm serve default"),
    ],
)
def test_a_server_that_cannot_be_asked(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    root = workspace(tmp_path / "w")
    (tmp_path / "p.jsonl").write_text('{"text": "hello"}\n')
    ran = hafs("generate", "--model", name, "--prompts", tmp_path / "p.jsonl", "-w", root)
    ran.failed(ran.code, words, "fix: ")
    assert ran.code in (1, 2) and ran.out == ""


def test_the_verb_says_what_is_unanswered(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", "[generate]\ncandidates = 2\nretries = 0\n")
    (tmp_path / "p.jsonl").write_text('{"text": "good"}\n{"text": "bad"}\n')
    answers = {"good": (200, completion("yes")), "bad": (400, {"error": {"message": "too long"}})}
    with stub(openai_like(answers.__getitem__)) as url:
        argv = ["generate", "--model", f"openai:{url}", "--prompts", tmp_path / "p.jsonl", "-w", root]
        ran = hafs(*argv, "--output", tmp_path / "out.jsonl").ok()
    assert "2 candidates for 2 prompts (2 new)" in ran.out
    assert "unanswered: 2 answers, HTTP 400: too long" in ran.err
    assert [row["text"] for row in lines(tmp_path / "out.jsonl")] == ["yes", "yes"]


def test_anthropics_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def claude(path: str, body: dict[str, Any]) -> Reply:
        asked.append(body)
        said = {"refuse": "refusal", "long": "max_tokens"}.get(body["messages"][0]["content"], "end_turn")
        return 200, {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "stop_reason": said,
            "content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}],
            "usage": {"input_tokens": 5, "output_tokens": 7},
        }

    with stub(claude) as url:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        backend = open_backend("anthropic:claude-x")
        assert not backend.capabilities.seed and not backend.capabilities.logprobs
        with pytest.raises(Unanswered, match=r"the model refused \(refusal\)") as e:
            backend.generate([Request(t, t, "be brief") for t in ("fine", "long", "refuse")], CONFIG)
    got = [(a.key, a.text, a.finish, a.length, a.logprob) for a in e.value.answers]
    assert got == [("fine", "two parts", "stop", 7, None), ("long", "two parts", "length", 7, None)]
    assert not e.value.fatal and all(b["system"] == "be brief" and b["max_tokens"] == 6 for b in asked)


# a server that dies


@contextmanager
def process(*argv: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and the first line that it prints."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen([sys.executable, "-m", *map(str, argv)], text=True, env={**os.environ}, **pipes)
    try:
        assert running.stdout is not None
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.wait()


def dies_and_finishes(store: Store, start: Callable[[int], Any], url_of: Callable[[str], str]) -> None:
    """Generate until the server is killed, start it again, and go on; the answers are those of an undisturbed run."""
    config = CONFIG.model_copy(update={"retries": 1, "temperature": 1.0})
    with start(0) as (server, line):
        url = url_of(line)
        backend = open_backend(f"openai:{url}")

        def kill(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if done == 1:
                server.kill()
                server.wait()

        with pytest.raises(HafsError, match="does not answer") as e:
            generate_candidates(store, backend, PROMPTS, config, kill)
    kept = {c.id: c for c in store.candidates()}
    assert len(kept) == 4 and "4 of 12 answers are in the workspace" in e.value.what
    with start(int(url.rpartition(":")[2].split("/")[0])) as (_, line):
        backend = open_backend(f"openai:{url_of(line)}")
        made = generate_candidates(store, backend, PROMPTS, config)
        assert made.new == 8 and len(made.candidates) == 12
        assert kept.keys() < {c.id for c in made.candidates}
        assert len({(c.prompt_id, c.index) for c in store.candidates()}) == 12 == len(list(store.candidates()))
        told = store.token_ids(c.id for c in made.candidates)
        assert {id: len(ids) for id, ids in told.items()} == {c.id: c.n_tokens for c in made.candidates}
        assert all(c.logprob is not None and c.logprob < 0 for c in made.candidates)
        assert generate_candidates(store, backend, PROMPTS, config).new == 0


@pytest.mark.slow
def test_hafs_serve_is_killed_half_way(tiny_model: Path, store: Store) -> None:
    pytest.importorskip("uvicorn")

    def start(port: int) -> Any:
        return process("hafs", "serve", tiny_model, "--port", str(port), "--precision", "fp32", "--json")

    dies_and_finishes(store, start, lambda line: str(json.loads(line)["url"]))
