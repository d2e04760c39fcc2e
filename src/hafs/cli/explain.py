"""`hafs explain`: where something comes from, and what was made of it."""

from __future__ import annotations

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    what: str = typer.Argument(
        help="The id of a preference group (GROUP:N for its edge N), candidate or prompt, or a model's directory or"
        " hash; of an id 6 digits are enough."
    ),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Tell the history of a pair, a candidate, a prompt or a model: what it was made from, and what trained on it."""
    from hafs.provenance.explain import explain

    space = workspace_at(workspace)
    with space.open_store() as store:
        fact = explain(space, store, what)
    emit(fact.to_dict(), fact.to_rich(), json)
