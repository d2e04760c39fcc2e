"""The workbench as an ASGI application: the views behind the annotation page's door, gate and style.

A page is HTML made here. The browser's part is htmx, which swaps what has changed, and `workbench.js`: it listens to
`/events`, which says when the workspace has changed, and takes keys. Nothing is kept but in the workspace.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from hafs.annotate.visible import visible
from hafs.annotate.web import render
from hafs.annotate.web.app import duration
from hafs.annotate.web.door import Form, Person, Reader, Sender, SignedOut, person, signed
from hafs.annotate.web.gate import LOOPBACK, Gate
from hafs.annotate.web.security import Sessions
from hafs.errors import HafsError
from hafs.files import activity
from hafs.store import Store, Workspace
from hafs.store.marks import add_mark, marked_queue, undo_mark
from hafs.workbench import views
from hafs.workbench.view import OpenWorkspace, View, called, to_csv

__all__ = ["create_workbench"]

LOOK = 1.0
"""Seconds between two looks at whether the workspace has changed."""
KINDS = {"csv": "text/csv", "json": "application/json", "svg": "image/svg+xml"}


def create_workbench(space: Workspace, store: Store, *, token: str, allowed_hosts: Iterable[str] = LOOPBACK) -> FastAPI:
    """The page of a workspace, for whoever has the link `/?token=TOKEN&name=NAME`."""
    app = FastAPI(openapi_url=None, title="hafs")
    app.add_middleware(Gate, hosts=allowed_hosts)
    rooms = ("hafs.annotate.web", "hafs.report", "hafs.workbench")
    app.mount("/static", StaticFiles(packages=[(room, "static") for room in rooms]))
    app.state.sessions, app.state.logins = Sessions(token), None
    pages = _Pages(space, store)

    _add_errors(app, pages)

    @app.get("/")
    def index(request: Request, token: str = "", name: str = "") -> Response:
        if token:
            if not app.state.sessions.knows(token):
                raise SignedOut
            answer = pages.filled("enter.html", state="entered", verb="hafs open")
            return signed(answer, request, visible(name)[:60] or "me")
        person(request)
        return RedirectResponse("/now", 303)

    @app.get("/events")
    async def events(who: Reader) -> Response:
        return StreamingResponse(_events(space.root, store, lambda: _ending(app)), media_type="text/event-stream")

    @app.post("/do/{what}")
    def do(what: str, who: Sender, fields: Form) -> Response:
        done = ACTIONS.get(what)
        if done is None:
            raise HTTPException(404, "There is no such action.")
        return PlainTextResponse(done(OpenWorkspace(space, store, who.name), fields))

    _add_views(app, pages)
    return app


def _add_errors(app: FastAPI, pages: _Pages) -> None:
    """What is shown to whoever may not come in, and where something failed."""

    @app.exception_handler(SignedOut)
    def signed_out(request: Request, error: Exception) -> Response:
        return pages.filled("enter.html", 401, state="link", verb="hafs open")

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(str(error.detail), error.status_code)

    @app.exception_handler(HafsError)
    def failed(request: Request, error: HafsError) -> Response:
        if request.method != "GET" or request.headers.get("hx-request"):
            return PlainTextResponse(f"{error.what}. {error.fix}".strip(), 409)
        return pages.trouble(person(request), error)


def _add_views(app: FastAPI, pages: _Pages) -> None:
    """The views as pages, and as files to take along."""

    @app.get("/{name}.{kind}")
    def export(name: str, kind: str, who: Reader, request: Request) -> Response:
        view = pages.view(who, name, request.query_params)
        if kind not in KINDS:
            raise HTTPException(404, f"A view is written as: {', '.join(KINDS)}.")
        named = {"Content-Disposition": f"attachment; filename=hafs-{name}.{kind}"}
        if kind == "json":
            return JSONResponse(view.to_dict(), headers=named)
        if kind == "svg":
            from hafs.workbench.picture import picture

            return Response(picture(view.title, view.pictures()), media_type=KINDS[kind], headers=named)
        return Response(to_csv(view).encode("utf-8", "replace"), media_type=KINDS[kind], headers=named)

    @app.get("/{name}")
    def shown(name: str, who: Reader, request: Request) -> Response:
        view = pages.view(who, name, request.query_params)
        return pages.shown(who, view, request)


class _Pages:
    """The templates, filled in; those of the annotation page and of the reports are among them."""

    def __init__(self, space: Workspace, store: Store) -> None:
        self._space, self._store = space, store
        folders = [_folder(room) / "templates" for room in ("hafs.workbench", "hafs.report", "hafs.annotate.web")]
        self._templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
            autoescape=True,  # the texts come from models: they are hostile input
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "rendered": render.rendered,
            "raw": render.raw,
            "visible": visible,
            "called": called,
            "duration": duration,
            "pct": lambda share: f"{100 * share:.2f}%",
            "line_chart": _late("hafs.report.charts", "line_chart"),
            "climb_chart": _late("hafs.report.climb", "climb_chart"),
            "runs": _runs_of_lines,
        }
        self._templates.globals |= {"nav": views.NAVIGATION, "workspace": space.root.name}

    def view(self, who: Person, name: str, query: Mapping[str, str]) -> View:
        """The view of that name. Raises 404 for one that there is not."""
        if name not in views.VIEWS:
            raise HTTPException(404, f"There is no page {visible(name)[:60]}.")
        return views.view_of(OpenWorkspace(self._space, self._store, who.name), name, query)

    def filled(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values), status)

    def shown(self, who: Person, view: View, request: Request) -> HTMLResponse:
        """The whole document, or for htmx what stands in its middle."""
        query = urlencode(dict(request.query_params))
        values = {**view.values, "view": view, "who": who, "query": f"?{query}" if query else ""}
        bare = request.headers.get("hx-request") and request.headers.get("hx-target") == "main"
        return self.filled(view.template, whole=not bare, **values)

    def trouble(self, who: Person, error: HafsError) -> HTMLResponse:
        """A page that says what went wrong."""
        view = View("trouble", "This did not work", f"{error.what}. {error.fix}".strip(), command="hafs doctor")
        return self.filled("view.html", 409, whole=True, view=view, who=who, query="")


def _folder(room: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(room)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def _late(module: str, name: str) -> Callable[[Any], Any]:
    """A function that is imported when it is first needed: the first page comes sooner."""
    return lambda value: getattr(importlib.import_module(module), name)(value)


def _runs_of_lines(blocks: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    """Blocks in runs of one kind: line charts stand side by side."""
    from itertools import groupby

    return [(kind, list(run)) for kind, run in groupby(blocks, lambda b: b.kind)]


# ---- what has changed


async def _events(root: Path, store: Store, ending: Callable[[], bool]) -> AsyncIterator[str]:
    """A line whenever the workspace has changed, as server-sent events; a comment now and then keeps the line open."""
    before, quiet = "", 0.0
    yield "retry: 2000\n\n"
    while not ending():
        mark = _state(root, store)
        if mark != before:
            yield f"event: changed\ndata: {mark}\n\n"
            before, quiet = mark, 0.0
        elif quiet >= 15:
            yield ": nothing new\n\n"
            quiet = 0.0
        await asyncio.sleep(LOOK)
        quiet += LOOK


def _ending(app: FastAPI) -> bool:
    """Whether the server was asked to stop: it waits for what is open."""
    server = getattr(app.state, "server", None)
    return bool(server is not None and server.should_exit)


def _state(root: Path, store: Store) -> str:
    """What changes when the workspace does: the newest change of its database, of what runs, of a training's log."""
    database = Path(store.where)
    files = [database, database.with_name(database.name + "-wal"), *(root / activity.FOLDER).glob("*.json")]
    newest = 0
    for file in files:
        try:
            newest = max(newest, file.stat().st_mtime_ns)
        except OSError:
            continue
    return f"{newest:x}.{len(files)}"


# ---- what a person does


def _stop(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    about = activity.stop(bench.root, fields.get("id", ""))
    return f"Process {about.pid} was asked to stop, as by Ctrl-C. The same command goes on: {about.command}"


def _forget(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    activity.forget(bench.root, fields.get("id", ""))
    return "It is not shown any more."


def _mark(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    about = (fields.get("prompt", ""), fields.get("candidate", ""), fields.get("reason", ""))
    mark = add_mark(bench.store, fields.get("kind", ""), *about, bench.who)
    if mark.kind == "person":
        run = marked_queue(bench.store, bench.who)
        return f"Sent. People are asked by: hafs annotate start --queue {run}"
    return f"Marked: {mark.kind}."


def _unmark(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    return "The mark is taken back." if undo_mark(bench.store, fields.get("id", "")) else "There is no such mark."


def _ask(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    from hafs.workbench.box import ask

    return ask(bench, fields)


def _vote(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    from hafs.workbench.box import vote

    return vote(bench, fields)


ACTIONS: dict[str, Callable[[OpenWorkspace, Mapping[str, str]], str]] = {
    "stop": _stop,
    "forget": _forget,
    "mark": _mark,
    "unmark": _unmark,
    "ask": _ask,
    "vote": _vote,
}
"""What a form of the page may ask for."""


def link_of(address: str, token: str, name: str) -> str:
    """The link that lets somebody in."""
    return f"{address}/?token={quote(token)}&name={quote(name)}"
