"""Who may talk to the page: hosts and origins, sessions, CSRF tokens, passwords, and the headers of every answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CSP", "Gate", "Logins", "Sessions", "hash_password", "verify_password"]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
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
SESSION_SECONDS = 30 * 86400

SCRYPT = {"n": 2**14, "r": 8, "p": 5}
"""OWASP's parameters for 16 MiB."""
TRIES, TRIES_SECONDS = 5, 60.0
"""Wrong passwords for one name in so many seconds, before it has to wait."""


def hash_password(password: str) -> str:
    """What to keep of a password: `scrypt:n:r:p:salt:hash`, salt and hash in base64."""
    salt = secrets.token_bytes(16)
    numbers = ":".join(str(SCRYPT[key]) for key in "nrp")
    return f"scrypt:{numbers}:{_base64(salt)}:{_base64(_scrypt(password, salt, **SCRYPT))}"


def verify_password(password: str, kept: str) -> bool:
    """Whether a password is the one that was kept; False for a line that `hash_password` did not write."""
    try:
        method, n, r, p, salt, hashed = kept.split(":")
        known = base64.b64decode(hashed, validate=True)
        if method != "scrypt" or len(known) < 16:
            return False
        return hmac.compare_digest(_scrypt(password, base64.b64decode(salt), n=int(n), r=int(r), p=int(p)), known)
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes, *, n: int, r: int, p: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=2**26, dklen=32)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Logins:
    """Names and their password hashes. A name with too many wrong passwords has to wait, known or not."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = accounts
        self._nobody = hash_password(secrets.token_hex())
        self._wrong: dict[str, list[float]] = {}
        self._one_at_a_time = threading.Lock()

    def knows(self, name: str) -> bool:
        """Whether there is such an account."""
        return name in self._accounts

    def try_password(self, name: str, password: str) -> bool | None:
        """Whether it is right; None when the name has to wait. Unknown names take as long as known ones."""
        with self._one_at_a_time:
            now = time.monotonic()
            self._wrong = {who: times for who, times in self._wrong.items() if times[-1] > now - TRIES_SECONDS}
            wrong = [at for at in self._wrong.get(name, []) if at > now - TRIES_SECONDS]
            if len(wrong) >= TRIES:
                return None
            if verify_password(password, self._accounts.get(name, self._nobody)):
                self._wrong.pop(name, None)
                return True
            self._wrong[name] = [*wrong, now]
            return False


class Sessions:
    """Signed cookies that say who somebody is. The key comes from the link's token: the same token, the same key."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.cookie = f"hafs_{self._sign('cookie')[:8]}"

    def knows(self, token: str) -> bool:
        """Whether this is the token of the link."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def open(self, name: str) -> str:
        """The cookie for a name ("" for somebody who had the link and has not said their name)."""
        body = base64.urlsafe_b64encode(f"{int(time.time()) + SESSION_SECONDS}:{name}".encode()).decode()
        return f"{body}.{self._sign('session', body)}"

    def name(self, cookie: str | None) -> str | None:
        """Whose cookie it is; None when it is not one of ours or too old."""
        body, _, signed = (cookie or "").partition(".")
        if not cookie or not hmac.compare_digest(signed.encode(), self._sign("session", body).encode()):
            return None
        until, _, name = base64.urlsafe_b64decode(body).decode().partition(":")
        return name if int(until) > time.time() else None

    def csrf(self, cookie: str) -> str:
        """The token that requests of this session carry beside the cookie."""
        return self._sign("csrf", cookie)

    def _sign(self, *what: str) -> str:
        return hmac.new(self._token, "\0".join(what).encode(), hashlib.sha256).hexdigest()


class Gate:
    """ASGI middleware: refuses foreign hosts and origins and large bodies, and puts the headers on every answer.

    `hosts` are host names, with a port or for any port.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST_BODY:
                return {"type": "http.disconnect"}
            return message

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
                del headers["server"]
            await send(message)

        refused = self._refused(scope["method"], Headers(scope=scope))
        app: ASGIApp = PlainTextResponse(refused[1], refused[0]) if refused else self._app
        return await app(scope, counted, sealed)

    def _refused(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if host not in self._hosts and _without_port(host) not in self._hosts:
            return 421, "This page does not answer to that host name."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return 413, "That is too large."
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        same = urlsplit(origin).netloc.lower() == host if origin else headers.get("sec-fetch-site") == "same-origin"
        return None if same else (403, "This request comes from another page.")


def _without_port(host: str) -> str:
    return host.rsplit(":", 1)[0] if host.rsplit(":", 1)[-1].isdigit() else host
