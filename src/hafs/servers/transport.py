"""The connection under the SDKs: to one server and no other, through no proxy on private networks, and with a limit on
what a reply may grow to, counted after decompression.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

from hafs.errors import MissingTool
from hafs.servers.address import origin, proxy_for
from hafs.servers.errors import NotTaken

try:
    import httpx2
except ImportError as e:
    raise MissingTool("asking a server needs the packages openai and anthropic", "pip install 'hafs[judge]'") from e

LARGEST_REPLY = 8 << 20
"""Bytes of one reply."""
LARGEST_RESULTS = 512 << 20
"""Bytes of a file with the results of a batch."""
_STEP = 1 << 16


_PLAIN = {b"host", b"content-type", b"content-length", b"accept", b"user-agent", b"connection", b"transfer-encoding"}
"""Headers of a request that tell nothing of who asks."""


class OneServer(httpx2.AsyncBaseTransport):
    """Requests to the server of `url` alone, replies of at most `most` bytes.

    With `key` ("" is one, too) the request tells that key and nothing else of who asks: an SDK would add what the
    environment holds for its own vendor (organisation, administrator's key, headers).
    """

    def __init__(self, url: str, most: int, key: str | None) -> None:
        self._origin, self._most, self._key = origin(url), most, key
        self._inner = httpx2.AsyncHTTPTransport(
            proxy=proxy_for(url), limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and wrap the reply. Raises NotTaken for a request to another server: it would carry the key there."""
        if (asked := origin(str(request.url))) != self._origin:
            raise NotTaken("request", f"the server names an address of another one ({asked[1]}:{asked[2]})")
        if self._key is not None:
            request.headers = httpx2.Headers([(k, v) for k, v in request.headers.raw if k.lower() in _PLAIN])
            if self._key:
                request.headers["authorization"] = f"Bearer {self._key}"
        request.headers["accept-encoding"] = "gzip"
        response = await self._inner.handle_async_request(request)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        headers = [(k, v) for k, v in response.headers.raw if k.lower() not in (b"content-encoding", b"content-length")]
        body = _Bounded(response.stream, encoding, self._most)
        return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of a reply, decompressed in small steps; raises NotTaken beyond `most`."""

    def __init__(self, stream: Any, encoding: str, most: int) -> None:
        self._stream, self._encoding, self._most = stream, encoding, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise NotTaken("cut", f"the reply is compressed as {self._encoding[:40]!r}, which was not asked for")
        packed = self._encoding not in ("identity", "")
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        size = 0
        async for raw in self._stream:
            for piece in _inflated(inflate, raw) if inflate else (raw,):
                size += len(piece)
                if size > self._most:
                    raise NotTaken("large", f"the reply is larger than {self._most >> 20} MB")
                yield piece
        if inflate and size and not inflate.eof:
            raise NotTaken("cut", "the compressed reply ends before its end")

    async def aclose(self) -> None:
        await self._stream.aclose()


def _inflated(inflate: Any, raw: bytes) -> Any:
    """What `raw` decompresses to, never more than `_STEP` bytes at once."""
    while raw:
        try:
            piece = inflate.decompress(raw, _STEP)
        except zlib.error as e:
            raise NotTaken("cut", f"the reply cannot be decompressed: {e}") from e
        yield piece
        raw = inflate.unconsumed_tail


def http_client(
    url: str, key: str | None = None, most: int = LARGEST_REPLY, timeout: float = 600.0
) -> httpx2.AsyncClient:
    """A client for the server of `url`, to give to an SDK; `key` as of `OneServer`. It follows no redirects."""
    return httpx2.AsyncClient(
        transport=OneServer(url, most, key), trust_env=False, follow_redirects=False, timeout=httpx2.Timeout(timeout)
    )
