"""A workspace is a directory with `hafs.toml` and, unless that names a PostgreSQL server, the database
`hafs.db`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hafs.config import DEFAULT_TOML, Config, load_config
from hafs.errors import HafsError, UsageError
from hafs.store.engine import database_url
from hafs.store.store import Store, open_store

CONFIG_NAME = "hafs.toml"
DATABASE_NAME = "hafs.db"
ENVIRONMENT = "HAFS_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """A workspace directory and its checked settings."""

    root: Path
    config: Config

    def open_store(self) -> Store:
        """Open `hafs.db` in the workspace, or what `url` under [store] in `hafs.toml` names.

        Raises what `hafs.store.open_store` raises.
        """
        url = database_url(self.config.store.url or DATABASE_NAME, self.root)
        return open_store(url.render_as_string(hide_password=False))


def init_workspace(directory: str | Path) -> Workspace:
    """Make a workspace, or finish making it: an existing `hafs.toml` or database is left as it is.

    Raises HafsError when the directory cannot be written, UsageError when its `hafs.toml` is wrong.
    """
    root = Path(directory).expanduser().resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / CONFIG_NAME).exists():
            with (root / CONFIG_NAME).open("x", encoding="utf-8") as f:
                f.write(DEFAULT_TOML)
    except OSError as e:
        raise HafsError(f"could not make a workspace in {root}: {e.strerror}", "choose another directory") from e
    workspace = open_workspace(root)
    workspace.open_store().close()
    return workspace


class NoWorkspace(UsageError):
    """There is no workspace here; some verbs need none."""


def open_workspace(directory: str | Path) -> Workspace:
    """The workspace in `directory` itself; raises UsageError when there is none or it is set up wrongly."""
    root = Path(directory).expanduser().resolve()
    if not os.path.lexists(root / CONFIG_NAME):
        raise UsageError(f"{root} is no hafs workspace (it has no {CONFIG_NAME})", f"hafs init {root}")
    return Workspace(root, load_config(root / CONFIG_NAME))


def find_workspace(start: str | Path | None = None) -> Workspace:
    """The workspace to work in: the first one from `start` upwards.

    Without `start` it is the one that $HAFS_WORKSPACE names, else the first from the current directory
    upwards. Raises NoWorkspace when there is none.
    """
    named = os.environ.get(ENVIRONMENT)
    if start is None and named:
        return open_workspace(named)
    first = Path(start or Path.cwd()).expanduser().resolve()
    for directory in (first, *first.parents):
        if os.path.lexists(directory / CONFIG_NAME):
            return open_workspace(directory)
    raise NoWorkspace(f"there is no hafs workspace in {first} or above it", "hafs init DIR")


def workspace_or_none(directory: str | Path | None = None) -> Workspace | None:
    """The workspace in `directory`, or the one to work in; None where none is named and there is none.

    Raises UsageError for one that is there and cannot be read: its settings and its sealed sets would be ignored.
    """
    if directory is not None:
        return open_workspace(directory)
    try:
        return find_workspace()
    except NoWorkspace:
        return None
