"""Who asks: the person behind a request, by the cookie that the link gave, and what their forms hold.

An application that uses these has `sessions` (and `logins`, or None) in its state.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request
from fastapi.responses import Response

from hafs.annotate.web.security import SESSION_SECONDS, Sessions


@dataclass(frozen=True)
class Person:
    """Somebody with a session."""

    name: str
    csrf: str


class SignedOut(Exception):
    """The request has no session: the answer is the page that asks for one."""


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise HTTPException(422, "The form cannot be read.") from error
    return {key: values[-1] for key, values in fields.items()}


def person(request: Request) -> Person:
    """Whose request it is; raises SignedOut."""
    sessions, logins = request.app.state.sessions, request.app.state.logins
    cookie = request.cookies.get(sessions.cookie)
    name = sessions.name(cookie)
    if not name or cookie is None or (logins is not None and not logins.knows(name)):
        raise SignedOut
    return Person(name, sessions.csrf(cookie))


def sender(request: Request, who: Annotated[Person, Depends(person)]) -> Person:
    """Whose request it is, when it came from our page: requests that change something carry the CSRF token."""
    if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), who.csrf.encode()):
        raise HTTPException(403, "The page is out of date. Load it again.")
    return who


Form = Annotated[dict[str, str], Depends(form)]
Reader = Annotated[Person, Depends(person)]
Sender = Annotated[Person, Depends(sender)]


def signed(answer: Response, request: Request, name: str) -> Response:
    """The answer with the cookie of the session that somebody has from now on."""
    sessions: Sessions = request.app.state.sessions
    answer.set_cookie(
        sessions.cookie,
        sessions.open(name),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer
