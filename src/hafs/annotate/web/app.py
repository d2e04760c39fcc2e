"""The page as an ASGI application: `create_app` puts the annotation service behind HTTP.

Every answer is HTML made here; the browser's part is htmx, which swaps it in, and `annotate.js`, which keeps the
ranking that a person is making. `render.py` makes candidates safe to show, `security.py` decides who may ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hafs.annotate.items import Card, Item
from hafs.annotate.service import AnnotationService
from hafs.annotate.visible import visible
from hafs.annotate.web import render
from hafs.annotate.web.door import Form, Person, Reader, Sender, SignedOut, person, signed
from hafs.annotate.web.gate import Gate
from hafs.annotate.web.security import Busy, Logins, Sessions
from hafs.errors import HafsError
from hafs.types import Annotation

__all__ = ["create_app"]

LONGEST_NAME = 60
KEPT = {"tiers", "confidence", "value", "note", "edited", "edited_of", "seconds"}
"""What a draft is made of."""
ANSWERS = {"all_bad": "all bad", "cannot_judge": "cannot judge", "skipped": "skipped", "flagged": "flagged"}


class DraftForm(BaseModel):
    """An answer in the making; `AnnotationService.submit` says what the parts mean."""

    model_config = ConfigDict(extra="ignore")

    tiers: list[list[str]] = Field([], max_length=8)
    confidence: str | None = Field("", max_length=20)
    seconds: float | None = Field(None, ge=0, le=86_400)
    note: str = Field("", max_length=4_000)
    value: int | None = Field(None, ge=-1000, le=1000)
    edited: str | None = Field(None, max_length=200_000)
    edited_of: str = Field("", max_length=1)


class Sent(DraftForm):
    """An answer as the browser sends it."""

    model_config = ConfigDict(extra="forbid")

    lease: str = Field(max_length=200)
    answer: str = Field(max_length=20)
    confidence: str = Field("", max_length=20)


def create_app(
    service: AnnotationService,
    *,
    token: str,
    accounts: Mapping[str, str] | None = None,
    allowed_hosts: Iterable[str] = ("127.0.0.1", "localhost", "[::1]"),
    login: str = "",
) -> FastAPI:
    """The page of a service, for whoever has the link `/?token=TOKEN` (and `&name=NAME`, else it asks).

    With `accounts` (name to a hash by `security.hash_password`) people log in instead, which is what serving beyond
    this machine needs. `allowed_hosts` are the names it may be called by, `login` is the name that is
    filled in where it asks for one. Sessions are signed with `token`: a server
    started with the same token goes on with them.
    """
    app = FastAPI(openapi_url=None, title="hafs annotate")
    app.add_middleware(Gate, hosts=allowed_hosts)
    app.mount("/static", StaticFiles(packages=[("hafs.annotate.web", "static")]))
    sessions, logins = Sessions(token), Logins(accounts) if accounts is not None else None
    app.state.sessions, app.state.logins = sessions, logins
    pages = _Pages(service)
    _add_errors(app, pages, login)
    _add_door(app, pages, login)
    _add_work(app, service, pages)
    return app


def _add_errors(app: FastAPI, pages: _Pages, login: str) -> None:
    """What is shown to whoever may not come in, and where something failed."""
    sessions, logins = app.state.sessions, app.state.logins

    @app.exception_handler(SignedOut)
    def signed_out(request: Request, error: Exception) -> Response:
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={"HX-Redirect": "/"})
        named = sessions.name(request.cookies.get(sessions.cookie)) == ""
        return pages.page("enter.html", 401, state="login" if logins else "name" if named else "link", login=login)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(str(error.detail), error.status_code)

    @app.exception_handler(HafsError)
    def failed(request: Request, error: HafsError) -> Response:
        if request.url.path == "/":
            return pages.page("enter.html", 409, state="failed", error=error)
        return PlainTextResponse(f"{error.what}. {error.fix}".strip(), 409)


def _add_door(app: FastAPI, pages: _Pages, login: str) -> None:
    """How people come in, by link or password, and leave."""
    sessions, logins = app.state.sessions, app.state.logins

    def entered(request: Request, name: str) -> Response:
        """The session's cookie with a page of our own that goes on: a redirect would still count as cross-site."""
        return signed(pages.page("enter.html", state="entered" if name else "name", login=login), request, name)

    @app.get("/")
    def index(request: Request, token: str = "", name: str = "") -> Response:
        if token and logins is None:
            if not sessions.knows(token):
                raise SignedOut
            return entered(request, _name(name))
        return pages.whole(person(request))

    @app.post("/enter")
    def enter(request: Request, fields: Form) -> Response:
        name = _name(fields.get("name", ""))
        if logins is not None:
            address = request.client.host if request.client else ""
            try:
                right = logins.try_password(name, fields.get("password", ""), address)
            except Busy:
                return pages.page("enter.html", 503, state="login", told="busy")
            if not right:
                told = "wrong" if right is False else "wait"
                return pages.page("enter.html", 401 if right is False else 429, state="login", told=told)
        elif sessions.name(request.cookies.get(sessions.cookie)) is None:
            raise SignedOut
        return entered(request, name)

    @app.post("/leave")
    def leave(request: Request, who: Sender) -> Response:
        return signed(Response(headers={"HX-Redirect": "/"}), request, "")


def _add_work(app: FastAPI, service: AnnotationService, pages: _Pages) -> None:
    """The prompt in hand: shown, answered, taken back, looked at closely."""

    @app.get("/item")
    def item(who: Reader) -> Response:
        return pages.work(who)

    @app.post("/submit")
    def submit(who: Sender, fields: Form) -> Response:
        sent = _sent(fields)
        service.draft(who.name, sent.lease, sent.model_dump(include=KEPT))  # what taking the answer back begins with
        return pages.work(who, service.submit(who.name, **sent.model_dump()))

    @app.post("/draft", status_code=204)
    def draft(who: Sender, fields: Form) -> Response:
        service.draft(who.name, fields.get("lease", ""), _draft(fields))
        return Response(status_code=204)

    @app.post("/undo")
    def undo(who: Sender) -> Response:
        if service.undo(who.name) is None:
            return PlainTextResponse("There is no answer to take back.", 409)
        return pages.work(who)

    @app.get("/diff")
    def diff(who: Reader, lease: str, left: str, right: str) -> Response:
        held = pages.held(who, lease)
        return pages.page(
            "diff.html", lines=render.diff(_card(held, left).text, _card(held, right).text), left=left, right=right
        )

    @app.get("/answer/{label}")
    def answer(who: Reader, label: str, lease: str, exact: bool = False) -> Response:
        text = _card(pages.held(who, lease), label).text
        return PlainTextResponse((text if exact else visible(text)).encode("utf-8", "replace"))

    @app.post("/check")
    def check(who: Sender, fields: Form) -> Response:
        found = service.check(who.name, fields.get("lease", ""), fields.get("label", ""))
        return pages.page("check.html", label=fields.get("label", ""), found=_plain(found))

    @app.get("/stats")
    def stats(who: Reader) -> Response:
        return pages.stats(who)


class _Pages:
    """The templates, filled in."""

    def __init__(self, service: AnnotationService) -> None:
        self._service = service
        self._templates = Environment(
            loader=PackageLoader("hafs.annotate.web", "templates"),
            autoescape=True,  # the texts come from models: they are hostile input
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "rendered": render.rendered,
            "raw": render.raw,
            "visible": visible,
            "duration": duration,
        }
        self._templates.globals["SHOWN"] = render.SHOWN

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        answer = HTMLResponse(self._templates.get_template(template).render(**values), status)
        if template == "enter.html":  # under no-referrer its form would be sent with the origin "null"
            answer.headers["Referrer-Policy"] = "same-origin"
        return answer

    def whole(self, who: Person) -> HTMLResponse:
        """The document, with what is to be done in it."""
        return self.page("page.html", who=who, **self._now(who, None))

    def work(self, who: Person, last: Annotation | None = None) -> HTMLResponse:
        """What is to be done now: an item, or the end. `last` is the answer just given."""
        return self.page("work.html", who=who, **self._now(who, last))

    def stats(self, who: Person) -> HTMLResponse:
        """How everybody is doing."""
        progress = self._service.progress(who.name)
        return self.page("stats.html", who=who, progress=progress, stats=_plain(self._service.stats()), ended=False)

    def held(self, who: Person, lease: str) -> Item:
        """The item that somebody has in hand, when it is the one they mean."""
        item = self._service.next_item(who.name)
        if item is None or item.lease != lease:
            raise HTTPException(409, "This prompt is no longer yours. Load the page again.")
        return item

    def _now(self, who: Person, last: Annotation | None) -> dict[str, Any]:
        item = self._service.next_item(who.name)
        values: dict[str, Any] = {"item": item, "progress": self._service.progress(who.name), "last": None}
        if item is not None:
            values |= {"start": json.dumps(_start(item)), "checks": self._service.settings.checks}
            values["check_label"] = self._service.check_label
        else:
            values |= {"stats": _plain(self._service.stats()), "ended": True}
        if last is not None and (rows := self._service.reveal(last)):
            values["last"] = {"said": _said(last), "rows": _plain(rows)}
        return values


def _start(item: Item) -> dict[str, Any]:
    """What the browser begins with: the draft, else the answer that was taken back, else nothing."""
    before = item.draft or item.previous
    return {key: before[key] for key in KEPT if before.get(key)}


def _said(annotation: Annotation) -> str:
    """An answer in letters: `C › A = B › D`."""
    if annotation.answer != "ranked":
        return ANSWERS[annotation.answer]
    if not annotation.tiers:
        return f"{annotation.value:.0f} of 4"
    label = {id: chr(65 + i) for i, id in enumerate(annotation.shown)}
    return " › ".join(" = ".join(label[id] for id in tier) for tier in annotation.tiers)


def _sent(fields: Mapping[str, str]) -> Sent:
    try:
        return Sent.model_validate_json(fields.get("state", ""))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HTTPException(422, f"The answer cannot be read: {where} {first['msg']}") from None


def _draft(fields: Mapping[str, str]) -> dict[str, Any]:
    """What a draft keeps, each part of the kind that an answer has: the page is filled in from it again."""
    try:
        return DraftForm.model_validate_json(fields.get("state", "")).model_dump(exclude_unset=True)
    except ValidationError:
        raise HTTPException(422, "A draft is a JSON object with the parts of an answer.") from None


def _card(item: Item, label: str) -> Card:
    for card in item.cards:
        if card.label == label:
            return card
    raise HTTPException(404, "There is no such answer.")


def _name(text: str) -> str:
    return visible(" ".join(text.split()))[:LONGEST_NAME]


def _plain(data: Any) -> Any:
    """Data as JSON has it, so that templates need to know no classes."""
    return json.loads(json.dumps(data, default=str))


def duration(seconds: float | None) -> str:
    """A time in words: 42 s, 3 min, 1 h 20 min."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
