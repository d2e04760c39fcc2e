"""A judge's endpoint that speaks the real wire formats over real HTTP and misbehaves on demand.

Anthropic messages and message batches, OpenAI chat completions, files and batches. It is its own small HTTP server, so
that it can cut, drip, hang and die where a framework would not let it. Run as a program it serves in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FENCE = re.compile(r"^<<<(SYSTEM|REQUEST) ([0-9a-f]{16})$", re.MULTILINE)


@dataclass
class Question:
    """What a judge was asked: the fenced texts by name in the order shown, the turns, the body of the request."""

    body: dict[str, Any]
    turns: list[str]
    number: int = 0
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> dict[str, str]:
        """The candidates by label."""
        return {name: text for name, text in self.texts.items() if len(name) == 1}

    @property
    def protocol(self) -> str:
        """Which protocol asks."""
        if "KNOWN" in self.texts:
            return "reference"
        task = self.turns[0].split("\n\n")[-1]
        return {"Comp": "pairwise", "Grad": "pointwise"}.get(task[:4], "listwise")


def question_of(body: dict[str, Any], number: int) -> Question:
    """Read the request of either wire format; fences are recognised by their real mark alone."""
    turns = [m["content"] for m in body["messages"] if m["role"] != "system"]
    found = Question(body, turns, number)
    if first := FENCE.search(turns[0]):
        mark = first[2]
        for m in re.finditer(rf"^<<<(\w+) {mark}\n(.*?)\n\1 {mark}>>>$", turns[0], re.DOTALL | re.MULTILINE):
            found.texts[m[1]] = m[2]
    return found


def reply(**said: Any) -> str:
    """A judge's reply in the agreed form."""
    return json.dumps({"reason": "because", **said})


def quality(text: str) -> int:
    """What the test candidates say of themselves: the number behind "quality"."""
    m = re.search(r"quality (\d+)", text)
    return int(m[1]) if m else 0


def by(value: Callable[[str], float]) -> Callable[[Question], str]:
    """A judge that goes by `value` of a text, in every protocol."""

    def judge(q: Question) -> str:
        values = {label: value(text) for label, text in q.answers.items()}
        if q.protocol == "listwise":
            tiers = [[x for x in values if values[x] == v] for v in sorted(set(values.values()), reverse=True)]
            return reply(answer="ranked", ranking=tiers)
        if q.protocol == "pairwise":
            gap = values["A"] - values["B"]
            sign = ">>" if abs(gap) > 2 else ">"
            return reply(verdict="A=B" if not gap else f"A{sign}B" if gap > 0 else f"B{sign}A")
        if q.protocol == "pointwise":
            return reply(answer="graded", grade=max(1, min(10, int(values["A"]))))
        return reply(verdict="correct" if values["A"] >= 7 else "wrong" if values["A"] < 4 else "partly")

    return judge


honest = by(quality)
inverted = by(lambda text: 10 - quality(text))


def always_first(q: Question) -> str:
    """A judge that prefers whatever is shown first."""
    if q.protocol == "listwise":
        return reply(answer="ranked", ranking=[[label] for label in q.answers])
    if q.protocol == "pairwise":
        return reply(verdict="A>>B")
    if q.protocol == "pointwise":
        return reply(answer="graded", grade=10)
    return reply(verdict="correct" if next(n for n in q.texts if n != "REQUEST") == "A" else "wrong")


Behaviour = str | tuple[int, dict[str, str]] | None
"""How a request goes wrong: "hang", "drip", "cut", "cut_json", "no_json", "wrong_json", "refuse", "length", "close", or
(status, headers); None: it does not."""


class JudgeServer:
    """The endpoint. `judge` makes the reply's text, `misbehave` says how a question goes wrong."""

    def __init__(
        self,
        judge: Callable[[Question], str] = honest,
        misbehave: Callable[[Question], Behaviour] = lambda q: None,
        latency: float = 0.0,
        refuses: tuple[str, ...] = (),
        ignores_schema: bool = False,
        usage: Callable[[dict[str, Any]], tuple[int, int]] | None = None,
        drip: float = 0.05,
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.judge, self.misbehave, self.latency, self.drip = judge, misbehave, latency, drip
        self.refuses, self.ignores_schema = refuses, ignores_schema
        self.usage = usage or (lambda body: (len(json.dumps(body)) // 4, 60))
        self.questions: list[Question] = []
        self.paths: list[str] = []
        self.paid: list[tuple[int, int]] = []
        self.flying = self.most_flying = 0
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.polls_needed = 1
        self.batch_item: Callable[[str, Question], str | None] = lambda id, q: None
        self.kill: tuple[str, int] | None = None
        self.port = 0

    # ---- running

    async def serve(self, port: int = 0) -> asyncio.Server:
        """Listen; the port is in `self.port`."""
        server = await asyncio.start_server(self._connection, self.host, port, limit=1 << 26)
        self.port = server.sockets[0].getsockname()[1]
        return server

    @property
    def url(self) -> str:
        """The root, as the Anthropic SDK wants it."""
        return f"http://{self.host}:{self.port}"

    @property
    def v1(self) -> str:
        """The base URL of the OpenAI API."""
        return f"{self.url}/v1"

    def asked(self) -> list[Question]:
        """The questions of judging, without those of a probe."""
        return [q for q in self.questions if q.texts]

    @contextmanager
    def running(self) -> Iterator[JudgeServer]:
        """Serve in a thread of its own."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        def work() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self.serve())
            ready.set()
            loop.run_forever()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    # ---- HTTP

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *rest = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.paths.append(f"{method} {path}")
                await self._route(method, path.partition("?")[0], body, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _route(
        self, method: str, path: str, body: bytes, headers: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        if (method, path) in (("POST", "/v1/messages"), ("POST", "/v1/chat/completions")):
            await self._ask(path, json.loads(body), writer)
        elif path == "/api/version":
            await self._send(writer, 200, {"version": "0.1"})
        elif path.startswith("/v1/messages/batches"):
            await self._message_batches(method, path, body, writer)
        elif path.startswith(("/v1/files", "/v1/batches")):
            await self._openai_batches(method, path, body, headers, writer)
        else:
            await self._send(writer, 404, {"error": {"message": f"no {path}", "type": "not_found_error"}})

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        data: Any,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        writer.write(self._head(status, len(payload), headers, kind) + payload)
        await writer.drain()

    @staticmethod
    def _head(status: int, length: int, headers: dict[str, str] | None = None, kind: str = "application/json") -> bytes:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {length}"]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _die(self, stage: str) -> bool:
        """Kill the client at this stage, if so told; whether it was."""
        if not self.kill or self.kill[0] != stage:
            return False
        pid, self.kill = self.kill[1], None
        os.kill(pid, signal.SIGKILL)
        return True

    # ---- single calls

    async def _ask(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        question = question_of(body, len(self.questions))
        self.questions.append(question)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            self._die("ask")
            wrong = self.misbehave(question) if question.texts else None
            if refused := [f for f in self.refuses if f in body or f in json.dumps(body.get("messages", ""))]:
                wrong = (400, {"x-refused": refused[0]})
            await asyncio.sleep(self.latency)
            if isinstance(wrong, tuple):
                error = {"type": "error", "error": {"type": "some_error", "message": f"told to answer {wrong[0]}"}}
                await self._send(writer, wrong[0], error, wrong[1])
                return
            data = json.dumps(self._completion(path, body, question, wrong)).encode()
            await self._deliver(writer, data, wrong)
        finally:
            self.flying -= 1

    async def _deliver(self, writer: asyncio.StreamWriter, data: bytes, wrong: Behaviour) -> None:
        if wrong == "hang":
            await asyncio.sleep(3600)
        elif wrong == "drip":
            writer.write(self._head(200, len(data)))
            for i in range(len(data)):
                writer.write(data[i : i + 1])
                await writer.drain()
                await asyncio.sleep(self.drip)
        elif wrong == "cut":
            writer.write(self._head(200, len(data)) + data[: len(data) // 2])
            await writer.drain()
            writer.transport.abort()
        elif wrong == "close":
            writer.transport.abort()
        elif wrong == "cut_json":
            await self._send(writer, 200, data[: len(data) // 2])
        elif wrong == "no_json":
            await self._send(writer, 200, b"<html>Bad gateway</html>", kind="text/html")
        elif wrong == "wrong_json":
            await self._send(writer, 200, {"hello": "world"})
        else:
            await self._send(writer, 200, data)

    def _text(self, body: dict[str, Any], question: Question) -> str:
        if question.texts:
            return self.judge(question)
        structured = ("response_format" in body or "output_config" in body) and not self.ignores_schema
        return json.dumps({"colour": "teal" if structured else "green"})

    def _completion(self, path: str, body: dict[str, Any], question: Question, wrong: Behaviour) -> dict[str, Any]:
        n_in, n_out = self.usage(body)
        self.paid.append((n_in, n_out))
        text = "I cannot help with that." if wrong == "refuse" else self._text(body, question)
        if path == "/v1/messages":
            stop = {"refuse": "refusal", "length": "max_tokens"}.get(str(wrong), "end_turn")
            return {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "stop_reason": stop,
                "content": [{"type": "text", "text": text}],
                "stop_sequence": None,
                "usage": {"input_tokens": n_in, "output_tokens": n_out},
            }
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if wrong == "refuse":
            message = {"role": "assistant", "content": None, "refusal": text}
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "length" if wrong == "length" else "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "{", "logprob": -0.1, "bytes": [123], "top_logprobs": []}]}
        return {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
        }

    # ---- batches

    def _new_batch(self, items: list[tuple[str, dict[str, Any]]], **more: Any) -> dict[str, Any]:
        id = f"batch_{len(self.batches) + 1}"
        self.batches[id] = {"id": id, "items": items, "polls": 0, "created": time.time(), **more}
        return self.batches[id]

    def _all(self) -> list[dict[str, Any]]:
        """The batches, the newest first; looking at them, too, is a moment in which they go on."""
        for batch in self.batches.values():
            batch["polls"] += 1
        return list(self.batches.values())[::-1]

    def _ended(self, batch: dict[str, Any]) -> bool:
        return int(batch["polls"]) >= self.polls_needed

    def _became(self, batch: dict[str, Any], path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(custom id, "ok" or how it went wrong, completion) of each request, in reverse order."""
        for custom_id, body in reversed(batch["items"]):
            question = question_of(body, len(self.questions))
            how = self.batch_item(custom_id, question) or "ok"
            completion = self._completion(path, body, question, "refuse" if how == "refuse" else None)
            if batch.get("counted"):
                self.paid.pop()
            else:
                self.questions.append(question)
            yield custom_id, how, completion
        batch["counted"] = True

    async def _message_batches(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        parts = path.removeprefix("/v1/messages/batches").strip("/").split("/")
        if method == "POST" and parts == [""]:
            if self._die("before create"):
                return
            rows = json.loads(body)["requests"]
            batch = self._new_batch([(r["custom_id"], r["params"]) for r in rows])
            self._die("after create")
            await self._send(writer, 200, self._message_batch(batch))
        elif parts == [""]:
            found = [self._message_batch(b) for b in self._all()]
            page = {"data": found, "has_more": False, "first_id": None, "last_id": None}
            await self._send(writer, 200, page)
        elif parts[-1] == "results":
            rows = []
            for custom_id, how, completion in self._became(self.batches[parts[0]], "/v1/messages"):
                result: dict[str, Any] = {"type": "succeeded", "message": completion}
                if how in ("expired", "canceled"):
                    result = {"type": how}
                elif how == "errored":
                    error = {"type": "invalid_request_error", "message": "told to"}
                    result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": "r"}}
                rows.append(json.dumps({"custom_id": custom_id, "result": result}))
            await self._results(writer, "\n".join(rows).encode(), "application/x-jsonl")
        else:
            batch = self.batches[parts[0]]
            batch["polls"] += 1
            self._die("poll")
            await self._send(writer, 200, self._message_batch(batch))

    async def _results(self, writer: asyncio.StreamWriter, data: bytes, kind: str) -> None:
        if self.kill and self.kill[0] == "results":
            writer.write(self._head(200, len(data), None, kind) + data[: len(data) // 2])
            await writer.drain()
            self._die("results")
            writer.transport.abort()
            return
        await self._send(writer, 200, data, kind=kind)

    def _message_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        ended, n = self._ended(batch), len(batch["items"])
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(batch["created"]))
        return {
            "id": batch["id"],
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {
                "processing": 0 if ended else n,
                "succeeded": n if ended else 0,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
            },
            "created_at": when,
            "expires_at": when,
            "ended_at": when if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{batch['id']}/results" if ended else None,
        }

    async def _openai_batches(
        self, method: str, path: str, body: bytes, headers: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        parts = path.removeprefix("/v1/").split("/")
        if parts == ["files"]:
            if self._die("upload"):
                return
            boundary = headers["content-type"].partition("boundary=")[2].encode()
            content = next(p for p in body.split(b"--" + boundary) if b'name="file"' in p)
            id = f"file_{len(self.files) + 1}"
            self.files[id] = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            await self._send(
                writer,
                200,
                {
                    "id": id,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "f",
                    "purpose": "batch",
                    "status": "processed",
                },
            )
        elif parts[0] == "files":
            await self._results(writer, self.files[parts[1]], "application/octet-stream")
        elif method == "POST":
            if self._die("before create"):
                return
            made = json.loads(body)
            rows = [json.loads(line) for line in self.files[made["input_file_id"]].splitlines()]
            batch = self._new_batch([(r["custom_id"], r["body"]) for r in rows], metadata=made.get("metadata"))
            self._die("after create")
            await self._send(writer, 200, self._batch(batch))
        elif len(parts) == 1:
            found = [self._batch(b) for b in self._all()]
            await self._send(writer, 200, {"object": "list", "data": found, "has_more": False})
        else:
            batch = self.batches[parts[1]]
            batch["polls"] += 1
            self._die("poll")
            await self._send(writer, 200, self._batch(batch))

    def _batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        ended, n = self._ended(batch), len(batch["items"])
        if ended and "output" not in batch:
            batch["output"] = f"file_{len(self.files) + 1}"
            rows = []
            for custom_id, how, completion in self._became(batch, "/v1/chat/completions"):
                done = {"custom_id": custom_id, "response": {"status_code": 200, "body": completion}, "error": None}
                failed = {"custom_id": custom_id, "response": None, "error": {"code": how, "message": "told to"}}
                rows.append(json.dumps(failed if how in ("expired", "errored") else done))
            self.files[batch["output"]] = "\n".join(rows).encode()
        return {
            "id": batch["id"],
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "status": "completed" if ended else "in_progress",
            "input_file_id": "file_1",
            "created_at": int(batch["created"]),
            "metadata": batch["metadata"],
            "error_file_id": None,
            "output_file_id": batch.get("output"),
            "request_counts": {"total": n, "completed": n if ended else 0, "failed": 0},
        }


async def _cancel_all() -> None:
    """End every connection that is open."""
    others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _main(port: int, latency: float) -> None:
    server = JudgeServer(latency=latency)
    listening = await server.serve(port)
    print(server.port, flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(_main(given.port, given.latency))
