"""`hafs loop run`: rounds of evaluation, preferences and DPO that decide for themselves."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import Cluster, Json, WorkspaceDir, crew_at, emit, note, progress_bars, workspace_at
from hafs.cli.reading import ColumnsOption
from hafs.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hafs.workflows.loop.run import LoopOutcome


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Rounds that decide for themselves.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("run")(run)
    app.add_typer(group, name="loop")


def run(
    sft_model: str = typer.Option(None, help="A fine-tuned model to begin with; without it, SFT comes first."),
    model: str = typer.Option(None, help="What SFT begins with: HF directory, hub id, or `default`."),
    prompts: Path = typer.Option(None, help="A task file in place of the task pack of [loop]."),
    columns: ColumnsOption = None,
    max_rounds: int = typer.Option(None, min=0),
    target: list[str] = typer.Option(None, help="BENCHMARK=SHARE: stop when this share is passed; may be repeated."),
    patience: int = typer.Option(None, min=1, help="Rounds without a gain before it stops."),
    max_minutes: float = typer.Option(None, help="Begin no round that would take it past this."),
    budget: float = typer.Option(None, help="The same in US dollars; needs price_per_hour under [loop]."),
    open_page: bool = typer.Option(False, "--open", help="Open the report in a browser at the end."),
    cluster: Cluster = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """SFT, then rounds of failures, preferences, DPO and a decision: promote, roll back, stop.

    Killed or stopped, the same command goes on; done, it prints how it ended.
    """
    from hafs.config import override
    from hafs.workflows.loop.run import Loop
    from hafs.workflows.loop.run import run as run_loop

    space = workspace_at(workspace)
    limits = override(
        space.config.loop,
        prompts=str(prompts.expanduser().resolve()) if prompts else None,
        columns=columns,
        max_rounds=max_rounds,
        target=_targets(target),
        patience=patience,
        max_minutes=max_minutes,
        budget=budget,
    )
    config = space.config.model_copy(update={"loop": limits})
    chosen = sft_model or model or config.model.name
    command = shlex.join(["hafs", *sys.argv[1:]])
    with progress_bars(quiet=json) as progress, space.open_store() as store, crew_at(space, store, cluster) as crew:
        loop = Loop(config, chosen, taught=sft_model is not None, command=command)
        outcome = run_loop(loop, space, say=(lambda _: None) if json else note, progress=progress, crew=crew)
    emit(outcome.to_dict(), closing(outcome), json)
    if open_page:
        from hafs.cli.report import show

        show(outcome.report)


def _targets(given: list[str] | None) -> dict[str, float] | None:
    """{benchmark: share} of the flags; None without any."""
    if not given:
        return None
    out = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            out[name] = float(share)
        except ValueError as e:
            raise UsageError(f"--target {text!r} is no target", "write it as asm=0.85") from e
        if not 0 < out[name] <= 1:
            raise UsageError(f"--target {text!r}: a share lies between 0 and 1", "write it as asm=0.85")
    return out


def closing(outcome: LoopOutcome) -> RenderableType:
    """The scores of every model, what was decided in each round, and where the report is."""
    from rich.console import Group
    from rich.text import Text

    from hafs.evals.tables import Cell, Table, rich_table
    from hafs.evals.words import interval, model_title, percent, points, title
    from hafs.statistics import Estimate

    def rate(e: Any) -> Cell:
        found = Estimate(**e)
        return Cell(percent(found.value), f"{interval(found)}, n={found.n}")

    done = {x["name"]: x for x in outcome.rounds}
    beside = {x["winners"]["name"]: x for x in outcome.rounds if x.get("winners")}
    benchmarks = list(next(iter(outcome.scores.values())))
    rows = []
    for name, rates in outcome.scores.items():
        x = done.get(name)
        w = beside.get(name)
        gain = Estimate(**x["gain"]) if x else Estimate(**w["winners"]["gain"]) if w else None
        change = Cell(points(gain.value), interval(gain, change=True)) if gain else Cell("")
        decided = "" if x is None else "promoted" if x["action"] == "promote" else "rolled back"
        if w or (x and x.get("winners") and x["winners"]["kept"]):
            decided = "promoted" if (w or x or {}).get("kept") == name else "not kept"
        rows.append((Cell(model_title(name)), *(rate(rates[b]) for b in benchmarks), change, Cell(decided)))
    header = ("Model", *(title(b) for b in benchmarks), "Change (points)", "Decision")
    said = [x["reason"] for x in outcome.rounds]
    end = (
        f"Stopped. {outcome.stop.reason}\n"
        f"Kept: {outcome.kept} ({outcome.kept_path}). It took {sum(outcome.seconds.values()) / 60:.1f} minutes.\n"
        f"Report: {outcome.report}"
    )
    return Group(rich_table(Table("", header, tuple(rows))), *map(Text, said), Text(), Text(end))
