"""Before the page and before `hafs serve`: foreign hosts and origins, large and slow requests, floods of logins."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("argon2")

from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from annotate_site import served
from hafs.annotate.web import gate, security
from hafs.annotate.web.app import Draft
from hafs.annotate.web.gate import LOOPBACK, Gate
from hafs.annotate.web.security import TRIES, TRIES_OF_ADDRESS, Busy, Logins, hash_password, verify_password


async def length(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


@pytest.fixture(params=["page", "programs"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(gate, "PATIENCE", 1.0)
    app = Starlette(routes=[Route("/", length, methods=["GET", "POST"])])
    app.add_middleware(Gate, hosts=LOOPBACK, most=1000, headers={}, programs=request.param == "programs")
    with served(app) as address:
        yield address


def send(url: str, method: str = "POST", body: Any = b"x", **headers: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, "/", body, {k.replace("_", "-"): v for k, v in headers.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def test_foreign_hosts_and_origins_are_refused(url: str, request: pytest.FixtureRequest) -> None:
    programs = "programs" in request.node.callspec.id
    own = {"origin": url}
    assert send(url, "GET") == send(url, **own) == 200
    assert send(url) == (200 if programs else 403), "a program names no origin, a browser does"
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", ""):
        assert send(url, host=host, **own) == send(url, "GET", host=host) == 421
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
        assert send(url, origin=origin) == 403
    assert send(url, sec_fetch_site="cross-site") == 403
    assert send(url, "GET", origin="http://evil.example") == (403 if programs else 200)


def test_large_bodies_are_refused_told_or_not(url: str) -> None:
    assert send(url, body=b"x" * 1000, origin=url) == 200
    assert send(url, body=b"x" * 1001, origin=url) == 413
    assert send(url, body=(b"x" * 600 for _ in range(3)), origin=url) == 413, "in pieces, without its length"
    for length in ("9" * 5000, "-1", "x"):
        assert send(url, origin=url, content_length=length) in (400, 413)


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"body"])
def test_half_open_connections_are_closed(url: str, begun: bytes) -> None:
    parts = urlsplit(url)
    head = f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {url}\r\nContent-Length: 9\r\n\r\n".encode()
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as half:
        half.sendall(head + b"x" if begun == b"body" else begun)
        said = b"".join(iter(lambda: half.recv(4096), b"")) if begun != b"body" else half.recv(4096)
    assert said.startswith(b"HTTP/1.1 408") if begun == b"body" else said == b""
    assert send(url, "GET") == 200


def test_old_hashes_are_accepted_and_new_ones_are_argon2() -> None:
    hashed = hashlib.scrypt(b"pw", salt=b"saltsaltsaltsalt", n=16384, r=8, p=5, maxmem=2**26, dklen=32)
    old = f"scrypt:16384:8:5:{base64.b64encode(b'saltsaltsaltsalt').decode()}:{base64.b64encode(hashed).decode()}"
    assert verify_password("pw", old) and not verify_password("px", old)
    new = hash_password("pw")
    assert new.startswith("$argon2id$") and verify_password("pw", new) and not verify_password("px", new)
    assert not any(verify_password("", line) for line in ("", "$argon2id$", "scrypt:1:1:1::", "scrypt:x"))


def test_wrong_passwords_hold_up_their_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_HASHER", PasswordHasher(1, 64, 1))  # quick: what is tested is who waits
    logins = Logins({"ann": hash_password("right")})
    assert [logins.try_password("ann", "no", "bad") for _ in range(TRIES)] == [False] * TRIES
    assert logins.try_password("ann", "right", "bad") is None
    assert logins.try_password("ann", "right", "good") is True, "nobody is locked out by somebody else"
    for i in range(TRIES_OF_ADDRESS - TRIES):
        assert logins.try_password(f"name {i}", "no", "bad") is False
    assert logins.try_password("another", "no", "bad") is None


def test_a_flood_of_logins_is_told_that_the_page_is_busy() -> None:
    logins = Logins({})
    said: Counter[str] = Counter()

    def log_in(i: int) -> None:
        try:
            said[str(logins.try_password("x", "y", str(i)))] += 1
        except Busy:
            said["busy"] += 1

    threads = [threading.Thread(target=log_in, args=(i,)) for i in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said["busy"] > 0 and said["False"] > 0 and sum(said.values()) == 60
    assert logins.try_password("x", "y", "later") is False


ODD_DRAFTS = [
    "",
    "null",
    "[]",
    '{"tiers": ' + "[" * 90_000,
    '{"note": "\\ud800"}',
    '{"seconds": NaN}',
    '{"seconds": 1e999}',
    '{"tiers": "<script>", "value": {"a": [1]}, "note": ["x"], "seconds": "soon"}',
    json.dumps({"value": 10**30}),
]


@pytest.mark.parametrize("state", ODD_DRAFTS)
def test_an_odd_draft_is_refused(state: str) -> None:
    with pytest.raises(ValueError):
        Draft.model_validate_json(state)


def test_a_draft_keeps_what_an_answer_has() -> None:
    state = {"tiers": [["A"], ["B", "C"]], "note": "n", "seconds": 3.5, "other": 1}
    kept = Draft.model_validate_json(json.dumps(state)).model_dump(exclude_unset=True)
    assert kept == {k: v for k, v in state.items() if k != "other"}
