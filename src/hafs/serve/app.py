"""The web application: /v1/models, /v1/chat/completions, /v1/completions, /health; adapters, where they are allowed."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from hafs.annotate.web.gate import LOOPBACK, Gate
from hafs.errors import UsageError
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import whole
from hafs.serve.batching import Batcher, DecodedRow, DecodingJob, ShownText
from hafs.serve.protocol import (
    MOST_ANSWERS,
    AdapterRequest,
    BadRequest,
    ChatRequest,
    CompletionRequest,
    StreamWriter,
    chat_prompt,
    check,
    room,
    text_prompts,
)

LARGEST_BODY = 8 << 20
"""Bytes of a request."""
HANG_UP = 0.5
"""Seconds between looks at whether the client of a reply that is not streamed is still there."""


def make_app(
    backend: TransformersBackend,
    name: str,
    api_key: str = "",
    batch_size: int = 16,
    adapters: Path | None = None,
    hosts: Iterable[str] | None = LOOPBACK,
) -> FastAPI:
    """The application that serves `backend` under `name`; with a key, every /v1 request must carry it.

    Clients may load adapters that are in the directory `adapters`; without it they may not. It answers to the names
    `hosts` alone (None: to any), and to no page of another origin.
    """
    batcher = Batcher(backend, batch_size)
    loaded: dict[str, str] = {}

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    async def allowed(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if api_key and not secrets.compare_digest(given.encode(), api_key.encode()):
            raise BadRequest("the API key is missing or wrong", 401, "invalid_api_key")

    app = FastAPI(title="hafs serve", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.batcher = batcher
    app.add_middleware(Gate, hosts=hosts, most=LARGEST_BODY, headers={}, programs=True, refuse=_refuse)
    _errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=[Depends(allowed)])
    async def models() -> dict[str, Any]:
        return _list_models(backend, name, loaded)

    @app.post("/v1/chat/completions", dependencies=[Depends(allowed)])
    async def chat(asked: ChatRequest, request: Request) -> Any:
        adapter = _chosen(asked, name, loaded)
        prompts = [chat_prompt(backend.tokenizer, asked)]
        return await _reply(request, batcher, asked, prompts, adapter or name, asked.logprobs, adapter)

    @app.post("/v1/completions", dependencies=[Depends(allowed)])
    async def complete(asked: CompletionRequest, request: Request) -> Any:
        adapter = _chosen(asked, name, loaded)
        prompts = text_prompts(backend.tokenizer, asked.prompt)
        return await _reply(request, batcher, asked, prompts, adapter or name, asked.logprobs is not None, adapter)

    if adapters is not None:
        _adapters(app, batcher, name, loaded, adapters.resolve(), [Depends(allowed)])
    return app


def _list_models(backend: TransformersBackend, name: str, loaded: Mapping[str, str]) -> dict[str, Any]:
    """The model, then the adapters that were loaded."""
    kept = {"object": "model", "created": 0, "owned_by": "hafs"}
    about = {"id": name, **kept, "hash": backend.model, "max_model_len": backend.limit}
    more = [{"id": id, **kept, "root": path, "parent": name} for id, path in loaded.items()]
    return {"object": "list", "data": [about, *more]}


def _chosen(asked: ChatRequest | CompletionRequest, name: str, loaded: Mapping[str, str]) -> str:
    """The adapter that a request asks for, "" for the model itself; raises BadRequest for what is not here."""
    if asked.model not in ("", name, *loaded):
        here = ", ".join(map(repr, (name, *loaded)))
        raise BadRequest(f"there is no model {asked.model!r} here, only {here}", 404, "model_not_found")
    check(asked)
    return asked.model if asked.model in loaded else ""


def _adapters(
    app: FastAPI, batcher: Batcher, name: str, loaded: dict[str, str], home: Path, guards: Sequence[Any]
) -> None:
    """vLLM's way to load and unload LoRA adapters while the server runs; only those in the directory `home`."""

    def load(asked: AdapterRequest) -> None:
        try:
            path = Path(asked.lora_path).resolve()
            path.exists()
        except (ValueError, OSError) as e:
            raise BadRequest("the path of the adapter is none") from e
        if not path.is_relative_to(home):
            raise BadRequest(f"{path} is not in {home}, from where adapters may be loaded")
        with batcher.between:
            if asked.lora_name in (name, *loaded):
                raise BadRequest(f"there is a model {asked.lora_name!r} already")
            try:
                batcher.backend.load_adapter(asked.lora_name, path)
            except UsageError as e:
                raise BadRequest(str(e)) from e
            loaded[asked.lora_name] = str(path)

    def unload(asked: AdapterRequest) -> None:
        with batcher.between:
            if asked.lora_name not in loaded:
                raise BadRequest(f"there is no adapter {asked.lora_name!r} here", 404, "model_not_found")
            del loaded[asked.lora_name]
            batcher.backend.unload_adapter(asked.lora_name)

    @app.post("/v1/load_lora_adapter", dependencies=guards)
    async def load_lora_adapter(asked: AdapterRequest) -> PlainTextResponse:
        await asyncio.to_thread(load, asked)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", dependencies=guards)
    async def unload_lora_adapter(asked: AdapterRequest) -> PlainTextResponse:
        await asyncio.to_thread(unload, asked)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")


def _refuse(status: int, why: str) -> JSONResponse:
    return error(status, why, "invalid_request_error")


def error(status: int, message: str, code: str) -> JSONResponse:
    """An error in OpenAI's form; its text can be sent whatever the request held."""
    return JSONResponse({"error": {"message": whole(message), "type": code, "code": code}}, status)


def _errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(BadRequest)
    async def bad(_: Request, e: BadRequest) -> JSONResponse:
        return error(e.status, str(e), e.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"] if p != "body")
        return error(400, f"{where or 'the request'}: {first['msg']}", "invalid_request_error")

    @app.exception_handler(404)
    async def nowhere(request: Request, _: Any) -> JSONResponse:
        return error(404, f"there is no {request.url.path} here", "not_found")


class _Answering:
    """The jobs of one request and what comes of them; rows are numbered over all prompts."""

    def __init__(
        self, batcher: Batcher, asked: ChatRequest | CompletionRequest, prompts: Sequence[list[int]], adapter: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.jobs: list[DecodingJob] = []
        if len(prompts) * asked.n > MOST_ANSWERS:
            raise BadRequest(f"{len(prompts)} prompts × n {asked.n} are more than {MOST_ANSWERS} answers a request")
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        for number, prompt in enumerate(prompts):
            first = number * asked.n

            def tell(i: int, what: Any, first: int = first) -> None:
                event = (first + i if i >= 0 else -1, what)
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self.events.put_nowait, event)

            self.jobs.append(
                DecodingJob(
                    prompt,
                    tell,
                    asked.n,
                    room(batcher.backend, prompt, asked.limit),
                    asked.temperature,
                    asked.top_p,
                    seed + number,
                    [s for s in stops if s],
                    adapter,
                )
            )
        try:
            for job in self.jobs:
                batcher.submit(job)
        except RuntimeError as e:
            self.cancel()
            raise BadRequest(str(e), 503, "unavailable") from e

    @property
    def rows(self) -> list[DecodedRow]:
        return [row for job in self.jobs for row in job.rows]

    def cancel(self) -> None:
        for job in self.jobs:
            job.cancelled = True


async def _reply(
    request: Request,
    batcher: Batcher,
    asked: ChatRequest | CompletionRequest,
    prompts: Sequence[list[int]],
    name: str,
    logprobs: bool,
    adapter: str,
) -> Any:
    work = _Answering(batcher, asked, prompts, adapter)
    chat = isinstance(asked, ChatRequest)
    thinking = asked.thinking if isinstance(asked, ChatRequest) else "keep"
    writer = StreamWriter(chat, name, batcher.backend.tokenizer, logprobs, sum(map(len, prompts)), thinking)
    if asked.stream:
        usage = bool((asked.stream_options or {}).get("include_usage"))
        return StreamingResponse(_stream(work, writer, usage), media_type="text/event-stream")
    try:
        while not all(row.finish for row in work.rows):
            try:
                index, what = await asyncio.wait_for(work.events.get(), HANG_UP)
            except TimeoutError:
                if await request.is_disconnected():
                    break
                continue
            if index < 0:
                stopping = isinstance(what, RuntimeError) and "stopping" in str(what)
                raise BadRequest(f"the answer failed: {what}", 503 if stopping else 500, "server_error")
    finally:
        work.cancel()
    return writer.whole(work.rows)


async def _stream(work: _Answering, writer: StreamWriter, usage: bool) -> AsyncIterator[str]:
    """Server-sent events: a piece for every token that shows text, the end of every row, and [DONE]."""
    rows = work.rows
    before = [ShownText("", 0, "")] * len(rows)
    going = set(range(len(rows)))
    try:
        while going:
            index, now = await work.events.get()
            if index < 0:
                yield _event({"error": {"message": f"the answer failed: {now}", "type": "server_error"}})
                return
            if len(now.text) == len(before[index].text) and not now.finish:
                continue
            yield _event(writer.piece(index, rows[index], before[index], now))
            before[index] = now
            if now.finish:
                going.discard(index)
        if usage:
            yield _event(writer.last(rows))
        yield "data: [DONE]\n\n"
    finally:
        work.cancel()


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
