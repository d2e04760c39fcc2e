"""`hafs tasks`: prompts whose answers can be checked, generated or from a file."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, progress_bars, say_unscored, workspace_at
from hafs.cli.reading import ColumnsOption, Show, mapping, say_reading, show_prompts


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Prompts whose answers a program can check.", no_args_is_help=True)
    group.command("list")(listing)
    group.command("generate")(generate)
    group.command("check")(check)
    group.command("split")(split)
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


def check(
    file: Path = typer.Argument(help="A task file."),
    columns: ColumnsOption = None,
    show: Show = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Run every reference answer of a task file through its checker; exit code 1 when one fails or cannot be run."""
    from hafs.data import read_prompts
    from hafs.data.remarks import of_prompts
    from hafs.scorers.run import check_references

    loaded = read_prompts(file, mapping(columns))
    say_reading(file, loaded.notes, loaded.bad_rows, of_prompts(loaded.rows))
    show_prompts(loaded.rows, show, None, workspace)
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


def split(
    file: Path = typer.Argument(help="A task file."),
    output_dir: Path = typer.Option(
        None, "--output-dir", "--output_dir", help="Where to write; by default beside the file."
    ),
    validation: float = typer.Option(0.15, min=0, max=0.5, help="The share that picks checkpoints."),
    test: float = typer.Option(0.2, min=0, max=0.5, help="The share that is kept for the end."),
    by: str = typer.Option(
        "", help="What stays together: family or copies; without it family where there are at least three."
    ),
    near_copy: float = typer.Option(
        None, min=0.05, max=1, help="Similarity that makes a copy; else the setting eval.near_copy."
    ),
    seed: int = typer.Option(0, help="Draws the split."),
    columns: ColumnsOption = None,
    show: Show = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Split a task file into train, validation and test that share no family, or no near copies."""
    from hafs.cli.train.common import workspace_settings
    from hafs.data import read_prompts
    from hafs.data.remarks import of_prompts
    from hafs.errors import UsageError
    from hafs.evals.split import split_prompts
    from hafs.files.jsonl import write_jsonl

    if by not in ("", "family", "copies"):
        raise UsageError(f"prompts cannot be split by {by!r}", "--by family, or --by copies")
    near = workspace_settings(workspace)[1].eval.near_copy if near_copy is None else near_copy
    loaded = read_prompts(file, mapping(columns))
    say_reading(file, loaded.notes, loaded.bad_rows, of_prompts(loaded.rows))
    show_prompts(loaded.rows, show, None, workspace)
    unique = list({p.id: p for p in reversed(loaded.rows)}.values())[::-1]
    shares = {"validation": validation, "test": test}
    made = split_prompts(unique, shares, seed=seed, near_copy=near, by=by)
    folder = output_dir or file.parent
    paths = {name: folder / f"{file.stem}.{name}.jsonl" for name in made.parts}
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{len(unique)} prompts ({len(loaded.rows) - len(unique)} repeats left out), split by {made.by}"]
    for name, part in made.parts.items():
        write_jsonl(paths[name], part)
        families = sorted({p.family for p in part if p.family})
        lines.append(f"  {name}: {len(part)} prompts in {paths[name]}" + _listed(families))
    lines += [f"  kept together as near copies: {' | '.join(repr(p.text[:60]) for p in c)}" for c in made.clusters[:10]]
    if len(made.clusters) > 10:
        lines.append(f"  and {len(made.clusters) - 10} more clusters of near copies")
    data = {
        "by": made.by,
        "repeats": len(loaded.rows) - len(unique),
        "sizes": {name: len(part) for name, part in made.parts.items()},
        "files": {name: str(path) for name, path in paths.items()},
        "clusters": [[p.id for p in c] for c in made.clusters],
    }
    emit(data, "\n".join(lines), json)


def _listed(families: list[str]) -> str:
    """Some of the families' names, in brackets."""
    if not families:
        return ""
    return f" ({', '.join(families[:6])}{' …' if len(families) > 6 else ''})"


def _words(text: str) -> list[str] | None:
    return [w.strip() for w in text.split(",") if w.strip()] or None
