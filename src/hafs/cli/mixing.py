"""`hafs preferences import`, `export`, `formats`, `combine` and `stats`: groups in and out of files, mixed, counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, workspace_at
from hafs.cli.reading import ColumnsOption, Show, preferences_from, show_rows
from hafs.errors import HafsError, UsageError

if TYPE_CHECKING:
    from hafs.preferences import Mixed, Stats
    from hafs.preferences.formats import Written
    from hafs.types import PreferenceGroup

FormatName = Annotated[
    str, typer.Option("--format", help="A format of `hafs preferences formats`.", show_default=False)
]


def register(group: typer.Typer) -> None:
    group.command("import")(import_)
    group.command("export")(export)
    group.command("formats")(formats)
    group.command("combine")(combine)
    group.command("stats")(stats)


def import_(
    file: Path = typer.Argument(help="A file, a `datasets` folder, or a data set on the hub (owner/name)."),
    format: FormatName = "",
    columns: ColumnsOption = None,
    show: Show = None,
    model: str = typer.Option(None, help="Whose chat template `--show` uses; by default the workspace's model."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Read preferences of any format into the workspace, as its newest groups; without --format each row is detected.

    The first three are shown as the model will see them (`--show`). A row that cannot be used goes to FILE.bad.jsonl
    with its number and the reason.
    """
    from hafs.preferences.collect import keep_groups

    space = workspace_at(workspace)
    with space.open_store() as store:
        found = preferences_from(file, format, columns)
        kept = keep_groups(store, found.groups, {"file": str(file)}, lambda: {"groups": len(found.groups)})
    rows = (0 if json else 3) if show is None else show
    shown = show_rows(found.groups, rows, space.config.model.name if model is None else model)
    edges = sum(len(g.edges) for g in found.groups)
    data = {
        "groups": len(kept),
        "edges": edges,
        "formats": dict(found.formats),
        "bad": len(found.bad),
        "bad_rows": f"{file}.bad.jsonl" if found.bad else None,
        "repeated": found.repeated,
        "contradictions": found.contradictions,
        "draws": found.draws,
        "unpaired": found.unpaired,
        "shown": shown,
    }
    read_as = ", ".join(f"{_counted(n, 'row')} as {name}" for name, n in found.formats.items())
    text = f"{_counted(len(kept), 'group')} with {_counted(edges, 'edge')} from {file} ({read_as}); "
    text += _counted(len(found.bad), "bad row")
    emit(data, text, json)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def export(
    output: Path = typer.Argument(
        help="The file; its end says what holds the rows: .jsonl, .json, .csv, .parquet, .gz."
    ),
    format: FormatName = "groups",
    input: Path = typer.Option(None, "--input", help="Convert this file instead of the workspace's newest groups."),
    columns: ColumnsOption = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write preferences in a format; what the format has no place for is named."""
    from hafs.preferences.collect import newest_groups
    from hafs.workflows.training import without_marked

    if input is not None:
        groups = preferences_from(input, columns=columns).groups
    else:
        space = workspace_at(workspace)
        with space.open_store() as store:
            groups = newest_groups(store)
        if not groups:
            raise UsageError(f"{store.where} has no preference groups", "`hafs preferences build`, or give --input")
        groups = without_marked(space, groups, note)
    written = _written(output, groups, format)
    data = {
        "rows": written.rows,
        "file": str(output),
        "format": format,
        "lost": dict(written.lost),
        "left_out": dict(written.left_out),
    }
    emit(data, f"{written.rows} rows of {format} in {output}", json)


def formats(json: Json = False) -> None:
    """The formats that are read and written, and what each has a place for."""
    from hafs.preferences import FORMATS

    data = {name: {"about": f.about, "keeps": sorted(f.keeps)} for name, f in FORMATS.items()}
    lines = [
        f"{name:<14} {f.about}\n{'':<14} keeps {', '.join(sorted(f.keeps)) or 'texts alone'}"
        for name, f in FORMATS.items()
    ]
    emit({"formats": data}, "\n".join(lines), json)


def combine(
    files: list[Path] = typer.Argument(help="Files of preferences, in any format."),
    output: Path = typer.Option(..., "--output", "-o", help="Where the mix goes."),
    format: FormatName = "groups",
    weight: list[str] = typer.Option(None, "--weight", help="SOURCE=NUMBER, such as human=5; may be repeated."),
    duplicate: bool = typer.Option(False, "--duplicate", help="Repeat edges --weight times instead of weighing them."),
    per_prompt: int = typer.Option(0, min=0, help="At most so many edges a prompt; 0: all."),
    balance: list[str] = typer.Option(
        None, "--balance", help="family or source: equal weight in all; may be repeated."
    ),
    min_margin: float = typer.Option(0.0, min=0, help="Leave out edges whose known margin is smaller."),
    max_length_ratio: float = typer.Option(
        0.0, min=0, help="Leave out pairs where one is more times as long; 0: none."
    ),
    match_lengths: bool = typer.Option(False, help="Longer winners weigh as much as shorter ones."),
    conflicts: str = typer.Option("keep", help="Where people disagree with others: keep, people or drop."),
    columns: list[str] = typer.Option(
        None,
        "--columns",
        help="What the columns are for: prompt=question,chosen=best, or FILE:prompt=question; may be repeated.",
    ),
    json: Json = False,
) -> None:
    """Merge preferences of several sources: one group a prompt, repetitions once, every edge with its source.

    Says how far the sources agree on the pairs that both have judged.
    """
    from hafs.preferences import Mixing, mix

    how = Mixing(
        weights=dict(_weight(w) for w in weight or ()),
        duplicate=duplicate,
        per_prompt=per_prompt,
        balance=tuple(balance or ()),
        min_margin=min_margin,
        max_length_ratio=max_length_ratio,
        match_lengths=match_lengths,
        conflicts=conflicts,
    )
    if duplicate and format == "groups":
        format = "trl"
        note("repeated edges are rows of their own: written as trl, not as groups")
    mixed = mix(_sources(files, columns or ()), how)
    if not mixed.groups:
        raise HafsError("no edge is left", "loosen the filters")
    written = _written(output, mixed.groups, format)
    data = {
        "rows": written.rows,
        "groups": written.groups,
        "edges": written.edges,
        "weights": mixed.weights,
        "output": str(output),
        "left_out": dict(+mixed.left_out),
        "conflicts": mixed.conflicts,
        "left_out_groups": dict(written.left_out),
        "lost": dict(written.lost),
    }
    groups = f"{_counted(written.groups, 'group')} with {_counted(written.edges, 'edge')}"
    wrote = f"{_counted(written.rows, 'row')} of {format} in {output}, of {groups}"
    emit(data, f"{wrote}\n{_mixed_text(mixed)}", json)


def _sources(files: list[Path], columns: Sequence[str]) -> dict[str, list[PreferenceGroup]]:
    """The groups of each file by its name; refused where no file compares answers."""
    mapped = _columns_of(files, columns)
    named = {_name(file): preferences_from(file, columns=mapped.get(file)).groups for file in files}
    if len(named) < len(files):
        raise UsageError("two of the files have one name, which sources are named by", "rename one")
    if not any(g.edges for found in named.values() for g in found):
        raise UsageError(
            "the files compare no answers, so there is nothing to mix: labels of single answers are not mixed",
            "train on labels as they are: hafs train dpo --loss kto --preference-data FILE",
        )
    return named


def _written(output: Path, groups: list[PreferenceGroup], format: str) -> Written:
    """Write groups; what the format has no place for, and the groups that it cannot hold, are named."""
    from hafs.preferences import write_preferences

    written = write_preferences(output, groups, format)
    for name, n in written.lost.items():
        note(f"{format} cannot hold: {name} ({n} times)")
    for why, n in written.left_out.items():
        note(f"left out: {n} groups, {why}")
    return written


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError as e:
        raise UsageError(f"--weight {text} is no SOURCE=NUMBER", "write --weight human=5") from e


def _columns_of(files: list[Path], given: Sequence[str]) -> dict[Path, str]:
    """What `--columns` says of each file: FILE:MAPPING of one, a mapping alone of all others."""
    found: dict[Path, str] = {}
    rest = ""
    for text in given:
        head, colon, mapped = text.partition(":")
        named = [f for f in files if colon and head in (str(f), f.name, _name(f))]
        if colon and not named and "=" not in head:
            raise UsageError(
                f"--columns {text}: {head} is none of the files", f"use one of: {', '.join(map(str, files))}"
            )
        found |= dict.fromkeys(named, mapped)
        rest = rest if named else text
    return {**dict.fromkeys(files, rest), **found} if rest else found


def _name(file: Path) -> str:
    """What the edges of a file are called that name no source: its name without ends and "preferences_"."""
    return file.name.partition(".")[0].removeprefix("preferences").strip("_-") or "preferences"


def _mixed_text(mixed: Mixed) -> str:
    total = sum(mixed.weights.values())
    lines = [f"  {kind:<12} {w / total:6.1%} of the weight" for kind, w in sorted(mixed.weights.items())]
    lines += [f"left out: {n} edges, {why}" for why, n in (+mixed.left_out).items()]
    for row in mixed.conflicts:
        a, b = row["between"]
        lines.append(
            f"{a} and {b} agree on {row['agree']} of {row['compared']} pairs that both have"
            f" ({row['agreement']:.0%}, {row['low']:.0%} to {row['high']:.0%})"
        )
        for example in row["examples"][:1]:
            lines.append(f"  they differ on {example['prompt'][:60]!r}")
    return "\n".join(lines)


def stats(
    file: Path = typer.Argument(None, help="A file of any kind; else the workspace's newest groups."),
    columns: ColumnsOption = None,
    output: Path = typer.Option(None, help="Also draw it here (.svg or .html)."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """What is in preferences: sources, families, margins, and whether longer answers win."""
    from hafs.preferences import Stats
    from hafs.preferences.collect import newest_stats

    if file is not None:
        found = Stats()
        for group in preferences_from(file, columns=columns).groups:
            found.add(group)
    else:
        with workspace_at(workspace).open_store() as store:
            found = newest_stats(store)
    if output is not None:
        _draw(found, output)
    emit(found.to_dict(), _picture(found), json)
    if not found.groups:
        note("there are no preference groups: `hafs preferences build` or `hafs preferences import`")


def _draw(found: Stats, output: Path) -> None:
    """The picture of the terminal as a file of its own: a page like the reports, or an image."""
    import io

    from rich.console import Console

    from hafs.files.jsonl import atomic_write

    if output.suffix not in (".svg", ".html"):
        raise UsageError(f"{output} is neither .svg nor .html", "name it stats.svg")
    if output.suffix == ".html":
        drawn = _page(found)
    else:
        console = Console(record=True, width=100, file=io.StringIO())
        console.print(_picture(found))
        drawn = console.export_svg(title="preferences")
    with atomic_write(output) as f:
        f.write(drawn)


def _picture(found: Stats) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from hafs.preferences.stats import charts_of_stats, headline_of

    parts: list[Any] = [Text(headline_of(found))]
    for chart in charts_of_stats(found):
        table = Table(title=chart.title, box=None, show_header=False, title_justify="left", title_style="bold")
        most = max((n for _, n, _ in chart.rows), default=0) or 1
        for name, n, words in chart.rows:
            table.add_row(Text(name), Text("█" * round(40 * n / most) or ("▏" if n else "")), Text(words))
        parts.append(table)
    return Group(*parts)


def _page(found: Stats) -> str:
    """The charts as a page that looks like the reports."""
    from hafs.evals.tables import Cell, Table
    from hafs.preferences.stats import charts_of_stats, headline_of
    from hafs.report.blocks import Bar, BarGroup, Bars, ReportPage, Section
    from hafs.report.html import page_to_html

    sections = []
    for number, chart in enumerate(charts_of_stats(found)):
        most = max((n for _, n, _ in chart.rows), default=0) or 1
        groups = tuple(BarGroup(name, (Bar(name, n / most, words, "new"),)) for name, n, words in chart.rows)
        table = Table(chart.title, ("", "Count"), tuple((Cell(name), Cell(words)) for name, _, words in chart.rows))
        title = chart.title[:1].upper() + chart.title[1:]
        sections.append(Section(f"chart{number}", title, (Bars(title, groups, (), table),)))
    return page_to_html(ReportPage("Preferences", headline_of(found), None, "", (), tuple(sections)))
