"""Requests that mean no good, to the page and to `hafs serve`, over real sockets: after each, and while some go on, an
honest request gets its answer; none gets an error of the server, a file, or what needs a key."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from boundaries import playing
from catalogue import Fault, Outcome

KEY = "sk-this-must-not-come-out"
PAGE, SERVE = "page", "serve"
ABOUT = {PAGE: ("/", b"token"), SERVE: ("/health", b"ok")}


def head(method: str, path: str, *lines: str, host: str = "HOST", body: str = "") -> str:
    """A request as it goes over the wire; HOST becomes the server's own name."""
    length = f"content-length: {len(body.encode())}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{length}" + "".join(f"{x}\r\n" for x in lines) + f"\r\n{body}"


AUTH, JSON = f"authorization: Bearer {KEY}", "content-type: application/json"
BODIES = {
    "nothing": "",
    "no JSON": "{",
    "null": "null",
    "a list": "[]",
    "deep": "[" * 100_000,
    "deep that closes": "[" * 50_000 + "]" * 50_000,
    "a long number": '{"max_tokens": ' + "9" * 6000 + "}",
    "infinite": '{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    "not a number": '{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "below nothing": '{"messages": [{"role": "user", "content": "x"}], "max_tokens": -5, "n": -1}',
    "a billion answers": '{"messages": [{"role": "user", "content": "x"}], "n": 1000000000}',
    "a billion tokens": '{"messages": [{"role": "user", "content": "'
    + "x" * 100_000
    + '"}], "max_tokens": 1000000000}',
    "surrogates": '{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 2}',
    "NULs": '{"messages": [{"role": "user", "content": "\\u0000"}], "max_tokens": 2}',
    "roles": '{"messages": [{"role": "__class__", "content": {"a": 1}}], "max_tokens": 2}',
    "a million messages": '{"messages": ['
    + ",".join(['{"role":"user","content":"x"}'] * 50_000)
    + '], "max_tokens": 2}',
    "empty messages": '{"messages": []}',
    "ends without end": '{"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stop": ["'
    + '","'.join("abc" for _ in range(20_000))
    + '"]}',
    "another model": '{"model": "../../etc/passwd", "messages": [{"role": "user", "content": "x"}]}',
    "twice a name": '{"messages": [], "messages": 1, "n": 1, "n": []}',
}
FORMS = {
    "nothing": "",
    "not a form": "{}",
    "a lease that is none": "lease=x&answer=ranked",
    "a lease of NULs": "lease=%00&answer=ranked",
    "no UTF-8": "lease=%ff%fe&answer=%ff",
    "surrogates": "lease=%ed%a0%80&answer=ranked",
    "deep tiers": "lease=x&answer=ranked&tiers=" + "[" * 50_000,
    "tiers of another kind": 'lease=x&answer=ranked&tiers={"a":[1]}',
    "seconds without end": "lease=x&answer=ranked&tiers=[]&seconds=1e999",
    "seconds that are none": "lease=x&answer=ranked&tiers=[]&seconds=NaN",
    "a state of nonsense": "lease=x&state=null&label=A",
    "a deep state": "lease=x&state=" + "[" * 90_000,
    "a hundred thousand fields": "&".join(f"f{i}=1" for i in range(100_000)),
    "a field twice": "lease=x&lease=y&answer=a&answer=b",
    "a label of nonsense": "lease=x&label=../../A&answer=ranked",
    "a long token": "token=" + "a" * 100_000 + "&name=x",
    "a token of no ASCII": "token=%c3%a9&name=x&password=%c3%a9",
    "a name of control characters": "token=a-token-of-the-tests&name=%00%1b%5b2J",
    "a password of megabytes": "name=x&password=" + "a" * 1_500_000,
}
COMMON = {
    "another host": head("GET", "ROOT", AUTH, host="evil.example"),
    "no host": "GET ROOT HTTP/1.1\r\n\r\n",
    "two hosts": head("GET", "ROOT", "host: evil.example", AUTH),
    "a host of control characters": head("GET", "ROOT", host="a\x0bb"),
    "another origin": head("POST", "POSTED", "origin: http://evil.example", AUTH, JSON, body="{}"),
    "origin null": head("POST", "POSTED", "origin: null", AUTH, JSON, body="{}"),
    "an origin that begins alike": head("POST", "POSTED", "origin: http://HOST.evil.example", AUTH, JSON, body="{}"),
    "cross-site": head("POST", "POSTED", "sec-fetch-site: cross-site", AUTH, JSON, body="{}"),
    "a long path": head("GET", "/" + "a" * 60_000),
    "a way up": head("GET", "/static/../../../../../../etc/passwd"),
    "a way up, in percent": head("GET", "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
    "a way up, twice in percent": head("GET", "/static/%252e%252e/%252e%252e/etc/passwd"),
    "a way up, backwards": head("GET", "/static/..\\..\\..\\etc\\passwd"),
    "an absolute path": head("GET", "//etc/passwd"),
    "a file of static by its whole path": head("GET", "/static//etc/passwd"),
    "a NUL in the path": head("GET", "/static/%00/etc/passwd"),
    "no UTF-8 in the path": head("GET", "/%ff%fe%fd"),
    "a whole address as path": head("GET", "http://127.0.0.1:9/x"),
    "many headers": head("GET", "ROOT", *(f"x-{i}: y" for i in range(5000))),
    "a long header": head("GET", "ROOT", "x: " + "y" * 200_000),
    "a long cookie": head("GET", "ROOT", "cookie: " + "a=b; " * 8000),
    "a cookie of nonsense": head("GET", "ROOT", "cookie: hafs_0=..."),
    "a header in two lines": head("GET", "ROOT", "x: a\r\n b"),
    "a length that is none": head("POST", "POSTED", "content-length: abc", AUTH),
    "a length below nothing": head("POST", "POSTED", "content-length: -1", AUTH),
    "a length of exabytes": head("POST", "POSTED", "content-length: 9999999999999999999", AUTH),
    "two lengths": head("POST", "POSTED", "content-length: 2", "content-length: 3", AUTH) + "{}x",
    "a length and chunks": head("POST", "POSTED", "content-length: 2", "transfer-encoding: chunked", AUTH)
    + "0\r\n\r\n",
    "a chunk of exabytes": head("POST", "POSTED", "transfer-encoding: chunked", AUTH) + "ffffffffffffffff\r\nx",
    "a chunk of nothing known": head("POST", "POSTED", "transfer-encoding: chunked", AUTH) + "zz\r\nx",
    "another coding": head("POST", "POSTED", "transfer-encoding: gzip", AUTH),
    "a method that is none": head("NONSENSE", "ROOT"),
    "TRACE": head("TRACE", "ROOT", "cookie: secret=1"),
    "CONNECT": head("CONNECT", "127.0.0.1:9"),
    "another version": "GET ROOT HTTP/9.9\r\nhost: HOST\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "a" * 100,
    "noise": "".join(chr(i * 7 % 256) for i in range(4000)),
    "a switch of protocols": head(
        "GET", "ROOT", "upgrade: websocket", "connection: upgrade", "sec-websocket-key: x", "sec-websocket-version: 13"
    ),
    "requests in a row": head("GET", "ROOT") * 300,
    "waits for leave": head("POST", "POSTED", "expect: 100-continue", "content-length: 9", AUTH),
    "a body of megabytes": head("POST", "POSTED", AUTH, JSON, body="x" * 9_000_000),
    "no key": head("POST", "POSTED", JSON, body="{}"),
    "a key of no ASCII": head("POST", "POSTED", "authorization: Bearer \xe9", JSON, body="{}"),
}
SLOW = {
    "200 half heads": "GET ROOT HTTP/1.1\r\nhost: HOST\r\n",
    "200 connections that say nothing": "",
    "200 half bodies": head("POST", "POSTED", "content-length: 100", AUTH, JSON) + "{",
    "200 that do not read": head("GET", "ROOT", AUTH) * 20,
}
NUMBER = 200
POSTED = {PAGE: ("/submit", "/draft", "/enter", "/undo", "/check"), SERVE: ("/v1/chat/completions", "/v1/completions")}

SHORT = 30
FAULTS = [
    *(Fault(f"{to}: {name}", f"{to}|once|{name}") for to in (PAGE, SERVE) for name in COMMON),
    *(Fault(f"{to}: {name}", f"{to}|many|{name}") for to in (PAGE, SERVE) for name in SLOW),
    *(Fault(f"serve: body: {name}", f"serve|body|{name}") for name in BODIES),
    *(Fault(f"page: form: {name}", f"page|form|{name}") for name in FORMS),
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each request to its server."""
    with servers() as at:
        for fault in faults:
            to, how, name = fault.attack.split("|")
            before = time.monotonic()
            replies = list(attacked(at[to], to, how, name))
            note = f"{[r[:60] for r in replies][:4]} in {time.monotonic() - before:.1f} s"
            alive = ask(at[to], head("GET", ABOUT[to][0], "connection: close"), 30.0)
            lost = not 200 <= status_of(alive) < 500 or any(status_of(r) == 500 for r in replies)
            leaked = any(b"root:x" in r or (KEY.encode() in r) for r in replies)
            forged = name.startswith(
                ("another host", "another origin", "cross-site", "no key", "a key of no", "an origin", "origin null")
            ) and 200 in map(status_of, replies)
            yield Outcome(fault.name, forged, leaked, lost, note + ("" if alive else "; it does not answer any more"))


def status_of(reply: bytes) -> int:
    """The status of a reply; 0 without one."""
    return int(reply[9:12]) if reply.startswith(b"HTTP/1.1 ") else 0


def attacked(server: str, to: str, how: str, name: str) -> Iterator[bytes]:
    """Send what the row says to every address that takes it; gives the replies."""
    paths = POSTED[to] if how in ("body", "form") or "POSTED" in {**COMMON, **SLOW}[name] else ("",)
    for path in paths:
        if how == "body":
            yield ask(server, head("POST", path, AUTH, JSON, "connection: close", body=BODIES[name]), 60.0)
            continue
        if how == "form":
            yield ask(
                server,
                head("POST", path, *_session(), f"origin: {server}", "connection: close", body=FORMS[name]),
                60.0,
            )
            continue
        wire = {**COMMON, **SLOW}[name].replace("ROOT", ABOUT[to][0]).replace("POSTED", path)
        if how == "once":
            yield ask(server, wire, 3.0)
            continue
        with contextlib.ExitStack() as stack:
            for _ in range(NUMBER):
                with contextlib.suppress(OSError):
                    stack.enter_context(opened(server)).sendall(on_wire(server, wire))
            yield ask(server, head("GET", ABOUT[to][0], "connection: close"), 30.0)


def _session() -> tuple[str, ...]:
    """The headers of somebody who is in."""
    from annotate_site import TOKEN
    from hafs.annotate.web.security import Sessions

    sessions = Sessions(TOKEN)
    cookie = sessions.open("ann")
    form = "content-type: application/x-www-form-urlencoded"
    return form, f"cookie: {sessions.cookie}={cookie}", f"x-csrf-token: {sessions.csrf(cookie)}"


def opened(server: str) -> socket.socket:
    parts = urlsplit(server)
    return socket.create_connection((parts.hostname or "", parts.port or 0), 30.0)


def on_wire(server: str, text: str) -> bytes:
    return text.replace("HOST", urlsplit(server).netloc).encode("latin-1", "replace")


def ask(server: str, text: str, patience: float) -> bytes:
    """The reply to a request, as far as it comes in time."""
    found = b""
    with opened(server) as s, contextlib.suppress(OSError):
        s.settimeout(patience)
        sender = threading.Thread(target=_send, args=(s, on_wire(server, text)))
        sender.start()
        while len(found) < 1 << 20 and (piece := s.recv(1 << 16)):
            found += piece
            if b"\r\n\r\n" in found and "connection: close" not in text:
                break
        sender.join(0.1)
    return found


def _send(s: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        s.sendall(data)


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """The page and `hafs serve`, each as it is served."""
    from annotate_site import TOKEN, fill, graded, served
    from hafs.annotate.service import AnnotationService
    from hafs.annotate.web.app import create_app
    from hafs.config import AnnotateSettings
    from hafs.generation.transformers import TransformersBackend
    from hafs.serve.app import make_app
    from hafs.store import open_store

    with playing() as play, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        play.prepare("sft")
        store = stack.enter_context(open_store(Path(folder, "store.db")))
        fill(store, graded(3, 3))
        page = create_app(AnnotationService(store, AnnotateSettings()), token=TOKEN)
        backend = TransformersBackend(str(play.prepared["sft"] / "model"), precision="fp32")
        serve = make_app(backend, "tiny", api_key=KEY)
        yield {PAGE: stack.enter_context(served(page)), SERVE: stack.enter_context(served(serve))}
