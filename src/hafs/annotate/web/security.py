"""Who may talk to the page: sessions, CSRF tokens, passwords. Hosts, origins and sizes are the gate's (`gate.py`)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

__all__ = ["Busy", "Logins", "Sessions", "hash_password", "verify_password"]

SESSION_SECONDS = 30 * 86400

TRIES, TRIES_OF_ADDRESS, TRIES_SECONDS = 5, 20, 60.0
"""Wrong passwords for one name and in all from one address in so many seconds, before that address has to wait."""
AT_ONCE = 2
"""Passwords that are hashed at the same time: each takes 64 MiB and as long as it is meant to."""

_HASHER = PasswordHasher()


class Busy(Exception):
    """As many passwords are being checked as may be at once."""


def hash_password(password: str) -> str:
    """What to keep of a password: a line of argon2id, by argon2-cffi with its recommended parameters."""
    return _HASHER.hash(_secret(password))


def verify_password(password: str, kept: str) -> bool:
    """Whether a password is the one that was kept, by argon2 or by the scrypt of earlier versions; False for other
    lines."""
    if kept.startswith("scrypt:"):
        return _verify_scrypt(password, kept)
    try:
        return _HASHER.verify(kept, _secret(password))
    except (Argon2Error, InvalidHashError):
        return False


def _verify_scrypt(password: str, kept: str) -> bool:
    """Whether it is the password of `scrypt:n:r:p:salt:hash`, salt and hash in base64."""
    try:
        _, n, r, p, salt, hashed = kept.split(":")
        known, cost = base64.b64decode(hashed, validate=True), {"n": int(n), "r": int(r), "p": int(p)}
        if len(known) < 16:
            return False
        made = hashlib.scrypt(_secret(password), salt=base64.b64decode(salt), **cost, maxmem=2**26, dklen=32)
        return hmac.compare_digest(made, known)
    except ValueError:
        return False


def _secret(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


class Logins:
    """Names and their password hashes. An address with too many wrong passwords has to wait; nobody else does.

    Few passwords are checked at once, and who comes then is told so at once: a flood of logins holds up no other page.
    """

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = accounts
        self._nobody = hash_password(secrets.token_hex())
        self._wrong: dict[str, list[tuple[float, str]]] = {}
        self._lock = threading.Lock()
        self._free = threading.Semaphore(AT_ONCE)

    def knows(self, name: str) -> bool:
        """Whether there is such an account."""
        return name in self._accounts

    def try_password(self, name: str, password: str, address: str) -> bool | None:
        """Whether it is right; None when the address has to wait. Unknown names take as long as known ones.

        Raises Busy when too many are checked already.
        """
        if self._waits(name, address):
            return None
        if not self._free.acquire(blocking=False):
            raise Busy
        try:
            right = verify_password(password, self._accounts.get(name, self._nobody))
        finally:
            self._free.release()
        if not right:
            with self._lock:
                self._wrong.setdefault(address, []).append((time.monotonic(), name))
        return right

    def _waits(self, name: str, address: str) -> bool:
        with self._lock:
            since = time.monotonic() - TRIES_SECONDS
            self._wrong = {who: tries for who, tries in self._wrong.items() if tries[-1][0] > since}
            recent = [of for at, of in self._wrong.get(address, ()) if at > since]
            return len(recent) >= TRIES_OF_ADDRESS or recent.count(name) >= TRIES


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
