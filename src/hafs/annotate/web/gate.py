"""What stands before a web application of ours: which hosts and origins it answers, how large and how slow a request
may be, and the headers of every answer. The annotation page and `hafs serve` have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LARGEST_BODY = 2_000_000
"""Bytes of a request."""
PATIENCE = 20.0
"""Seconds for the head of a request, and for each piece of its body."""
CONNECTIONS = 500
"""Connections at once; more are told that the server is busy."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Refuse = Callable[[int, str], Response]


class _Stop(Exception):
    """A request that is not read to its end."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def _plain(status: int, why: str) -> Response:
    return PlainTextResponse(why, status)


class Gate:
    """ASGI middleware: refuses foreign hosts and origins and large or slow bodies, and puts headers on every answer.

    `hosts` are host names, with a port or for any port; None takes any. `programs` lets requests through that name no
    origin, as programs send them; a browser names one. `refuse` makes the answer to what is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str] | None,
        most: int = LARGEST_BODY,
        headers: Mapping[str, str] = PAGE_HEADERS,
        programs: bool = False,
        refuse: Refuse = _plain,
    ) -> None:
        self._app, self._most, self._headers, self._programs, self._refuse = app, most, headers, programs, refuse
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None
        size, whole, begun, stopped = 0, False, False, False

        async def counted() -> Message:
            nonlocal size, whole, stopped
            try:
                message = await asyncio.wait_for(receive(), None if whole else PATIENCE)
            except TimeoutError:
                stopped = True
                raise _Stop(408, "The request did not come to its end.") from None
            whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._most:
                stopped = True
                raise _Stop(413, "That is too large.")
            return message

        async def sealed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                if (stopped and message["status"] >= 500) or begun:
                    return
                begun = True
                headers = MutableHeaders(scope=message)
                for key, value in self._headers.items():
                    headers.setdefault(key, value)
                del headers["server"]
            await send(message)

        if refused := self._refused(scope["method"], Headers(scope=scope)):
            return await self._refuse(*refused)(scope, receive, sealed)
        try:
            await self._app(scope, counted, sealed)
        except _Stop as e:
            if not begun:
                await self._refuse(e.status, e.why)(scope, receive, sealed)

    def _refused(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if self._hosts is not None and host not in self._hosts and _without_port(host) not in self._hosts:
            return 421, "This server does not answer to that host name."
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 18 or int(length) > self._most:
            return 413, "That is too large."
        origin = headers.get("origin")
        if method in ("GET", "HEAD") and not (self._programs and origin):
            return None
        site = headers.get("sec-fetch-site")
        if origin:
            same = urlsplit(origin).netloc.lower() == host
        else:
            same = site == "same-origin" or (self._programs and site in (None, "none"))
        return None if same else (403, "This request comes from another page.")


def _without_port(host: str) -> str:
    return host.rsplit(":", 1)[0] if host.rsplit(":", 1)[-1].isdigit() else host


class Impatient(H11Protocol):
    """Uvicorn's protocol, which by itself waits without end for the head of a request: half-open connections are
    closed after `PATIENCE` seconds."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waiting = self.loop.call_later(PATIENCE, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._waiting.cancel()
        elif self._waiting.cancelled():  # the next request of a connection that is kept
            self._waiting = self.loop.call_later(PATIENCE, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def server_of(app: Any, **options: Any) -> uvicorn.Server:
    """A server for an application, with limits on connections and on how long a request may take to come; the
    application finds it in `state.server`."""
    config = uvicorn.Config(app, http=Impatient, log_level="warning", limit_concurrency=CONNECTIONS, **options)
    server = uvicorn.Server(config)
    if (state := getattr(app, "state", None)) is not None:
        state.server = server
    return server
