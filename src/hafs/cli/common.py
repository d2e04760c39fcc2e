"""What every verb shares: opening the workspace, progress bars with time left, and output for people or scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hafs.cluster import Crew
    from hafs.store import Store, Workspace
    from hafs.types import Progress

Preset = Annotated[
    str | None,
    typer.Option("--preset", help="guide: the guide's defaults of sampling and pairing.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
WorkspaceDir = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="The workspace; by default the one you are in.", show_default=False),
]

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Work on a Ray cluster (extra `cluster`): ray://HOST:10001, HOST:6379, or local; needs PostgreSQL.",
        show_default=False,
    ),
]


@contextmanager
def crew_at(space: Workspace, store: Store, address: str | None) -> Iterator[Crew | None]:
    """The workers of the cluster named by flag or by [cluster] in hafs.toml; None where none is."""
    from hafs.cluster import open_crew
    from hafs.config import override

    config = override(space.config.cluster, address=address)
    if not config.address:
        yield None
        return
    with open_crew(config, store.url) as crew:
        yield crew


AllowContaminated = Annotated[
    bool, typer.Option("--allow-contaminated", help="Go on although held-out prompts are in the training data.")
]


def workspace_at(directory: Path | None) -> Workspace:
    """The workspace named by flag, by $HAFS_WORKSPACE, or the one around the current directory."""
    from hafs.store import find_workspace, open_workspace

    found = open_workspace(directory) if directory else find_workspace()
    noted_at(found.root)
    return found


def noted_at(root: Path) -> None:
    """Note long work in the workspace at `root`."""
    _AT["root"] = root


_AT: dict[str, Path] = {}
"""The workspace that this process has opened."""


def _root() -> Path | None:
    """The workspace that long work is noted in: the one that was opened, else the one around the current directory."""
    if "root" in _AT:
        return _AT["root"]
    from hafs.errors import HafsError
    from hafs.store import workspace_or_none

    try:
        found = workspace_or_none()
    except HafsError:  # its settings cannot be read: the verb that needs them says so
        return None
    return found.root if found else None


def emit(data: Mapping[str, Any], text: Any, as_json: bool) -> None:
    """Print a result to standard output: `data` as JSON, or `text` (a string or a rich renderable)."""
    if as_json or isinstance(text, str):
        print(json.dumps(data, ensure_ascii=False) if as_json else text, flush=True)
        return
    from rich.console import Console

    Console(highlight=False).print(text)


def note(message: str) -> None:
    """A remark on standard error, out of the way of a result."""
    print(message, file=sys.stderr)


def say_unscored(unscored: Mapping[str, int]) -> None:
    """Name why candidates are unscored and how many there are of each reason."""
    for reason, n in unscored.items():
        note(f"unscored: {n} candidates, {reason}")


def say_unanswered(failed: Mapping[str, int]) -> None:
    """Name why answers are missing and how many there are of each reason."""
    for reason, n in failed.items():
        note(f"unanswered: {n} answers, {reason}")
    if failed:
        note("the same command asks for these again")


def none_scored(scored: int, unscored: Mapping[str, int]) -> None:
    """Name why candidates are unscored; exit code 1 when there were some and not one could be scored."""
    say_unscored(unscored)
    if unscored and not scored:
        note("error: nothing could be scored\n  fix: `hafs doctor` shows what is missing; the answers are kept")
        raise typer.Exit(1)


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Progress]:
    """Yields a `Progress`: bars with time left on a terminal, a line every ten seconds elsewhere; what is done is also
    noted in the workspace, where `hafs open` sees it."""
    from hafs.files.activity import record_progress, recorded

    with _shown_progress(quiet) as show, recorded(_root()):

        def report(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            show(what, done, total, figures)
            record_progress(what, done, total, figures)

        yield report


@contextmanager
def _shown_progress(quiet: bool) -> Iterator[Progress]:
    """What the person at the terminal sees of it."""
    if quiet:
        yield lambda what, done, total, figures: None
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """What the work itself says is left, counted down; else what the bar's own speed says."""

        max_refresh = 1.0

        def render(self, task: Task) -> Text:
            until = task.fields.get("until")
            if until is None or task.finished:
                return super().render(task)
            minutes, seconds = divmod(max(0, round(until - time.monotonic())), 60)
            hours, minutes = divmod(minutes, 60)
            return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=120) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, figures="", until=None)
            left = figures.get("seconds_left")
            until: dict[str, Any] = {} if left is None else {"until": time.monotonic() + left}
            bars.update(tasks[what], completed=done, total=total, figures=_short(figures), **until)

        yield report


class _Lines:
    """Progress for a log file: one line when a step begins, every ten seconds, and when it ends."""

    def __init__(self) -> None:
        self._what = ""
        self._began = self._last = 0.0
        self._first = 0

    def __call__(self, what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._first, self._last = what, now, done, 0.0
        if now - self._last >= 10 or done == total:
            self._last = now
            rate = (now - self._began) / max(1, done - self._first)
            known = figures.get("seconds_left")
            seconds = rate * (total - done) if known is None and done > self._first else known
            left = f", {round(seconds)} s left" if seconds is not None and (known or done < total) else ""
            note(f"{what} {done}/{total}{left} {_short(figures)}".rstrip())


_SHOWN = ("loss", "rewards/accuracies", "eval/score", "eval/pass_rate", "eval/loss")


def _short(figures: Mapping[str, float]) -> str:
    return " ".join(f"{k.split('/')[-1]} {figures[k]:.3f}" for k in _SHOWN if k in figures)


def with_preset(section: Any, name: str | None, kind: str) -> Any:
    """A section of the settings with what a preset says of it put over it; raises UsageError for an unknown preset."""
    from hafs.config import override
    from hafs.errors import UsageError
    from hafs.presets import GUIDE

    if name not in (None, "guide"):
        raise UsageError(f"there is no preset {name!r} of sampling and pairing", "--preset guide, or leave it out")
    return override(section, **GUIDE[kind]) if name else section
