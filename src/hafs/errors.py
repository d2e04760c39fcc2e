"""What can go wrong, in words for the person who typed the command.

Every error that a user can cause derives from `HafsError` and says what happened, why, and what to do.
The command line prints it without a traceback and exits with `exit_code`: 2 for bad usage, 1 for failure.
"""

from __future__ import annotations


class HafsError(Exception):
    """A failure with a message for the user: `what` happened, and `fix`, what to do about it."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what if not fix else f"{what}\n  fix: {fix}")
        self.what = what
        self.fix = fix


class UsageError(HafsError):
    """The command was called wrongly: an unknown name, a missing file, a value out of range."""

    exit_code = 2


class DataError(UsageError):
    """A file's content is not what the command needs (no usable row, a missing column)."""


class MissingTool(HafsError):
    """A tool, model or optional dependency is not installed; `fix` is the command that installs it."""


class SandboxUnavailable(MissingTool):
    """No sandbox works on this machine and the user did not say to run without one."""
