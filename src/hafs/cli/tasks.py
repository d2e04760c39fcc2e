"""`hafs tasks`: prompts whose answers can be checked, generated or from a file."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, progress_bars, say_unscored, workspace_at
from hafs.cli.reading import ColumnsOption, mapping, say_reading


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Prompts whose answers a program can check.", no_args_is_help=True)
    group.command("list")(listing)
    group.command("generate")(generate)
    group.command("check")(check)
    app.add_typer(group, name="tasks")


def listing(json: Json = False) -> None:
    """The task packs and benchmarks there are."""
    from hafs import registry
    from hafs.tasks import BENCHMARKS, benchmark

    sizes = {name: len(benchmark(name)) for name in BENCHMARKS}
    data = {"packs": registry.names("tasks"), "benchmarks": sizes}
    lines = [f"packs       {', '.join(data['packs'])}"]
    lines += [f"benchmark   {name}: {n} held-out prompts" for name, n in sizes.items()]
    emit(data, "\n".join(lines), json)


def generate(
    pack: str = typer.Argument(help="The task pack, such as `asm`."),
    split: str = typer.Option("train", help="train, validation or test."),
    num_samples: int = typer.Option(100, "--num-samples", "-n", min=1, help="How many prompts."),
    seed: int = typer.Option(0),
    families: str = typer.Option("", help="Only these families, comma-separated."),
    tags: str = typer.Option("", help="Only families with these tags, comma-separated (`easy`)."),
    output: Path = typer.Option(None, help="Write them here as JSON lines; else into the workspace."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Generate prompts of a pack: the same ones for the same arguments, on every machine."""
    from hafs import tasks
    from hafs.files.jsonl import write_jsonl

    prompts = tasks.generate(pack, split, num_samples, seed, _words(families), _words(tags))
    if output is not None:
        write_jsonl(output, prompts)
        where, new = str(output), len(prompts)
    else:
        with workspace_at(workspace).open_store() as store:
            where, new = store.where, store.add_prompts(prompts)
    emit({"prompts": len(prompts), "new": new, "where": where}, f"{len(prompts)} prompts ({new} new) in {where}", json)


def check(file: Path = typer.Argument(help="A task file."), columns: ColumnsOption = None, json: Json = False) -> None:
    """Run every reference answer of a task file through its checker; exit code 1 when one fails or cannot be run."""
    from hafs.data import read_prompts
    from hafs.data.remarks import of_prompts
    from hafs.scorers.run import check_references

    loaded = read_prompts(file, mapping(columns))
    say_reading(file, loaded.notes, loaded.bad_rows, of_prompts(loaded.rows))
    with progress_bars(quiet=json) as progress:
        report = check_references(loaded.rows, progress)
    lines = [f"{report.right} of {report.total} reference answers are right"]
    lines += [f"  {problem}" for problem in report.problems]
    data = {
        "right": report.right,
        "total": report.total,
        "problems": report.problems,
        "unscored": dict(report.unscored),
    }
    emit(data, "\n".join(lines), json)
    say_unscored(report.unscored)
    if report.problems or report.unscored or loaded.bad:
        raise typer.Exit(1)


def _words(text: str) -> list[str] | None:
    return [w.strip() for w in text.split(",") if w.strip()] or None
