"""hafs: preference data, preference training, and proof that the model got better.

`hafs --help` is the way in from a shell. From Python the stages are functions of this module, loaded when they are
first used: `from hafs import init_workspace, load_prompts, train_dpo, …` (docs/how-to/python.md).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hafs.errors import DataError, HafsError, UsageError
    from hafs.store import Workspace, find_workspace, init_workspace, open_workspace
    from hafs.workflows.notebook import (
        HafsWarning,
        build_preferences,
        compare,
        evaluate,
        generate,
        load_preferences,
        load_prompts,
        report_page,
        score,
        train_dpo,
        train_sft,
    )

__version__ = "0.1.0"

_STAGES = (
    "HafsWarning build_preferences compare evaluate generate load_preferences load_prompts report_page score train_dpo"
    " train_sft"
)
_FROM = {
    **dict.fromkeys(("DataError", "HafsError", "UsageError"), "hafs.errors"),
    **dict.fromkeys(("Workspace", "find_workspace", "init_workspace", "open_workspace"), "hafs.store"),
    **dict.fromkeys(_STAGES.split(), "hafs.workflows.notebook"),
}

__all__ = [
    "DataError",
    "HafsError",
    "HafsWarning",
    "UsageError",
    "Workspace",
    "build_preferences",
    "compare",
    "evaluate",
    "find_workspace",
    "generate",
    "init_workspace",
    "load_preferences",
    "load_prompts",
    "open_workspace",
    "report_page",
    "score",
    "train_dpo",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """A name of the Python interface, loaded now; torch and the database come with the stages that need them."""
    if name not in _FROM:
        raise AttributeError(f"module 'hafs' has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)
