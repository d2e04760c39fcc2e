"""`hafs open`: the workbench, a page that shows the workspace live; `--show` prints what one of its pages shows."""

from __future__ import annotations

import getpass
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at

if TYPE_CHECKING:
    from hafs.store import Store, Workspace


def register(app: typer.Typer) -> None:
    app.command("open")(open_workbench)


def open_workbench(
    show: str = typer.Option(
        None, "--show", help="Print what a page shows (now, prompts?family=sum) and serve nothing."
    ),
    port: int = typer.Option(8766, min=0, max=65535, help="0 takes a free one; so does a taken port."),
    no_browser: bool = typer.Option(False, "--no-browser", help="Print the link and open nothing."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Open the workspace in a browser: what runs, every prompt and answer, models, data, loop, judges.

    The page is for this machine alone, and for whoever has the link. It keeps nothing of its own: close it, stop it
    with Ctrl-C, and open it again at any time.
    """
    space = workspace_at(workspace)
    with space.open_store() as store:
        if show is not None:
            from hafs.workbench.view import OpenWorkspace, to_text
            from hafs.workbench.views import view_at

            view = view_at(OpenWorkspace(space, store, getpass.getuser()), show)
            emit(view.to_dict(), to_text(view), json)
            return
        emit(_serve(space, store, port, not no_browser, json), "", json)


def _serve(space: Workspace, store: Store, port: int, browser: bool, as_json: bool) -> dict[str, Any]:
    """Serve the page until Ctrl-C."""
    import sys

    from hafs.cli.page import listen, page_token, page_tools
    from hafs.errors import UsageError

    page_tools()
    from hafs.annotate.web.gate import server_of
    from hafs.workbench.app import create_workbench, link_of

    token = page_token(space.root)
    try:
        sock = listen("127.0.0.1", port)
    except UsageError:
        sock = listen("127.0.0.1", 0)
    with closing(sock):
        app = create_workbench(space, store, token=token)
        link = link_of(f"http://127.0.0.1:{sock.getsockname()[1]}", token, getpass.getuser())
        print(f"Open {link}\nCtrl-C ends it; nothing is lost.", file=sys.stderr if as_json else sys.stdout, flush=True)
        if browser:
            import webbrowser

            webbrowser.open(link)
        with suppress(KeyboardInterrupt):
            server_of(app, lifespan="off", timeout_graceful_shutdown=3).run(sockets=[sock])
    return {"link": link}
