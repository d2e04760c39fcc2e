"""The vendors' batch APIs: many requests in one submission at half price, answered within a day.

What is sent is told apart by custom ids; a submission can be found again by the intent that it was made with, so that
one whose id was lost is not made twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from hafs.errors import UsageError
from hafs.servers.address import mask
from hafs.servers.anthropic import AnthropicClient
from hafs.servers.client import Client, Reply, attempt, clean, member
from hafs.servers.errors import CallFailed
from hafs.servers.openai import OpenAIClient
from hafs.servers.transport import LARGEST_RESULTS, http_client

CLOCKS = 300.0
"""Seconds by which the vendor's clock may differ from ours."""

Request = tuple[str, dict[str, Any]]
"""A custom id and the request as the vendor takes it."""
Result = tuple[str, Reply | CallFailed]


class Intent(Protocol):
    """What is known of a submission before the vendor has given it an id: our id, its requests, when it was made."""

    @property
    def id(self) -> str: ...
    @property
    def asks(self) -> Any: ...
    @property
    def created(self) -> float: ...


class Vendor(Protocol):
    """The batch API of a vendor. Every method raises CallFailed."""

    async def submit(self, intent: str, requests: Sequence[Request]) -> str:
        """Submit requests by custom id; returns the batch's id."""
        ...

    async def find(self, batch: Intent, known: set[str]) -> tuple[str, bool]:
        """(id of the batch that carries this intent or "", whether it may still turn out to be there)."""
        ...

    async def state(self, remote_id: str) -> tuple[bool, int]:
        """(whether it has ended, how many requests are through)."""
        ...

    def results(self, remote_id: str) -> AsyncIterator[Result]:
        """What became of each request, in any order."""
        ...


class AnthropicBatches:
    """Message Batches. A batch carries nothing of ours but the custom ids."""

    def __init__(self, client: AnthropicClient, timeout: float) -> None:
        sdk = client.sdk.with_options(http_client=http_client(client.endpoint, most=LARGEST_RESULTS))
        self._api, self._client, self._timeout = sdk.messages.batches, client, timeout

    async def submit(self, intent: str, requests: Sequence[Request]) -> str:
        """See `Vendor`."""
        rows: Any = [{"custom_id": id, "params": body} for id, body in requests]
        made = await attempt(lambda: self._api.create(requests=rows, timeout=self._timeout), self._timeout)
        return str(made.id)

    async def find(self, batch: Intent, known: set[str]) -> tuple[str, bool]:
        """See `Vendor`. A batch of our size and time is ours if its results are; until they are there it may be."""
        maybe = False
        for remote in await self._recent(batch.created - CLOCKS):
            counts = remote.request_counts
            total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
            if remote.id in known or total != len(batch.asks):
                continue
            if remote.processing_status != "ended":
                maybe = True
                continue
            async for custom_id, _ in self.results(remote.id):
                if custom_id.startswith(batch.id):
                    return str(remote.id), False
                break
        return "", maybe

    async def _recent(self, since: float) -> list[Any]:
        async def listing() -> list[Any]:
            found = []
            async for remote in self._api.list(limit=100, timeout=self._timeout):
                if remote.created_at.timestamp() < since:
                    break
                found.append(remote)
            return found

        return list(await attempt(listing, self._timeout))

    async def state(self, remote_id: str) -> tuple[bool, int]:
        """See `Vendor`."""
        remote = await attempt(lambda: self._api.retrieve(remote_id, timeout=self._timeout), self._timeout)
        counts = remote.request_counts
        return remote.processing_status == "ended", counts.succeeded + counts.errored

    async def results(self, remote_id: str) -> AsyncIterator[Result]:
        """See `Vendor`."""
        async for row in _rows(self._api.with_streaming_response.results(remote_id), self._timeout):
            if isinstance(id := member(row, "custom_id"), str):
                yield id, self._result(member(row, "result"))

    def _result(self, result: Any) -> Reply | CallFailed:
        if (kind := member(result, "type")) != "succeeded":
            said = clean(member(member(member(result, "error"), "error"), "message"))
            return CallFailed(clean(kind)[:40] or "errored", mask(said, self._client.key) or clean(kind))
        try:
            return self._client.reply(member(result, "message"))
        except CallFailed as e:
            return e


class OpenAIBatches:
    """The Batch API: a file of requests, and a batch whose metadata names our intent."""

    def __init__(self, client: OpenAIClient, timeout: float) -> None:
        large = http_client(client.endpoint, client.transport_key, LARGEST_RESULTS)
        self._client, self._timeout = client, timeout
        self._sdk = client.sdk.with_options(http_client=large)

    async def submit(self, intent: str, requests: Sequence[Request]) -> str:
        """See `Vendor`."""
        lines = [
            json.dumps({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
            for id, body in requests
        ]
        file = (f"hafs-{intent}.jsonl", "\n".join(lines).encode("utf-8", "replace"), "application/jsonl")
        sent = await attempt(
            lambda: self._sdk.files.create(file=file, purpose="batch", timeout=self._timeout), self._timeout
        )
        made = await attempt(
            lambda: self._sdk.batches.create(
                input_file_id=sent.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"hafs_intent": intent},
                timeout=self._timeout,
            ),
            self._timeout,
        )
        return str(made.id)

    async def find(self, batch: Intent, known: set[str]) -> tuple[str, bool]:
        """See `Vendor`."""

        async def listing() -> str:
            async for remote in self._sdk.batches.list(limit=100, timeout=self._timeout):
                if (remote.metadata or {}).get("hafs_intent") == batch.id:
                    return str(remote.id)
                if remote.created_at < batch.created - CLOCKS:
                    break
            return ""

        return str(await attempt(listing, self._timeout)), False

    async def state(self, remote_id: str) -> tuple[bool, int]:
        """See `Vendor`."""
        remote = await attempt(lambda: self._sdk.batches.retrieve(remote_id, timeout=self._timeout), self._timeout)
        through = (remote.request_counts.completed + remote.request_counts.failed) if remote.request_counts else 0
        return remote.status in ("completed", "failed", "expired", "cancelled"), through

    async def results(self, remote_id: str) -> AsyncIterator[Result]:
        """See `Vendor`."""
        remote = await attempt(lambda: self._sdk.batches.retrieve(remote_id, timeout=self._timeout), self._timeout)
        for file_id in (remote.output_file_id, remote.error_file_id):
            if file_id is None:
                continue
            opening = self._sdk.files.with_streaming_response.content(file_id)
            async for row in _rows(opening, self._timeout):
                if isinstance(id := member(row, "custom_id"), str):
                    yield id, self._result(row)

    def _result(self, row: Any) -> Reply | CallFailed:
        response = member(row, "response")
        if member(response, "status_code") != 200:
            said = member(row, "error") or member(member(response, "body"), "error")
            code, message = clean(member(said, "code")), clean(member(said, "message"))
            return CallFailed(code[:40] or "errored", mask(message, self._client.key) or "errored")
        try:
            return self._client.reply(member(response, "body"))
        except CallFailed as e:
            return e


async def _rows(opening: Any, timeout: float) -> AsyncIterator[Any]:
    """The JSON rows of a file that an SDK streams; one that cannot be read is left out, for its question to be missed.

    Raises CallFailed when the file ends early or is too large.
    """
    response = await attempt(opening.__aenter__, timeout)
    try:
        lines = _lines(response.iter_bytes())
        while (line := await attempt(lambda: anext(lines, None), timeout)) is not None:
            with suppress(ValueError, RecursionError):
                yield json.loads(line)
    finally:
        await opening.__aexit__(None, None, None)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines as JSON lines have them: they end with a line feed and with nothing else that Unicode knows."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def open_vendor(client: Client, timeout: float) -> Vendor:
    """The batch API of a client's endpoint. Raises UsageError where there is none."""
    if isinstance(client, AnthropicClient):
        return AnthropicBatches(client, max(600.0, timeout))
    if isinstance(client, OpenAIClient):
        return OpenAIBatches(client, max(600.0, timeout))
    raise UsageError("a replay sends no batches", "leave --batch out")
