"""The workspace store: prompts, candidates, scores, rankings, preference groups and runs in one database.

`open_store` opens a database by path or URL; `find_workspace` and its siblings find the one of a directory.
"""

from hafs.store.desk import Desk, Lease
from hafs.store.files import Imported
from hafs.store.reading import Answers
from hafs.store.rows import Run
from hafs.store.store import Once, Store, open_store
from hafs.store.workspace import Workspace, find_workspace, init_workspace, open_workspace, workspace_or_none

__all__ = [
    "Answers",
    "Desk",
    "Imported",
    "Lease",
    "Once",
    "Run",
    "Store",
    "Workspace",
    "find_workspace",
    "init_workspace",
    "open_store",
    "open_workspace",
    "workspace_or_none",
]
