"""`hafs generate`: candidates for prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hafs.cli.common import (
    Cluster,
    Json,
    Preset,
    WorkspaceDir,
    crew_at,
    emit,
    note,
    progress_bars,
    say_unanswered,
    with_preset,
    workspace_at,
)
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, Show, prompts_from, show_prompts
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.config import GenerateConfig
    from hafs.store import Store
    from hafs.types import Prompt

NumSamples = Annotated[
    int | None, typer.Option("--num-samples", "-n", min=1, help="How many prompts; all without it.", show_default=False)
]
Candidates = Annotated[
    int | None,
    typer.Option("--candidates-per-prompt", "--num-candidates", help="Answers a prompt.", show_default=False),
]
Greedy = Annotated[
    bool | None,
    typer.Option("--greedy/--sampled-only", help="The likeliest answer is a candidate too.", show_default=False),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", help="Prompts: a file of any kind; else the workspace's.", show_default=False),
]
Split = Annotated[str, typer.Option("--split", help="Of the workspace's prompts: train, validation or test.")]


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


@with_settings("generate", candidates="")
def generate(
    *,
    model: str = typer.Option(
        None,
        help="What answers: HF directory, hub id, `default`, or a server's"
        " (ollama:TAG, openai:URL#MODEL, anthropic:MODEL).",
    ),
    prompts: Prompts = None,
    columns: ColumnsOption = None,
    show: Show = None,
    num_samples: NumSamples = None,
    candidates_per_prompt: Candidates = None,
    split: Split = "train",
    preset: Preset = None,
    output: Path = typer.Option(None, help="Also write the candidates here (JSON lines)."),
    cluster: Cluster = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
    settings: Given,
) -> None:
    """Sample several answers to each prompt into the workspace; what is there is not generated again."""
    from hafs.backends import open_backend, open_planner
    from hafs.config import override
    from hafs.files.jsonl import write_jsonl
    from hafs.generation.candidates import generate_candidates
    from hafs.scorers.run import try_commands

    space = workspace_at(workspace)
    if candidates_per_prompt is not None:
        settings = {**settings, "candidates": candidates_per_prompt}
    sampling: GenerateConfig = override(with_preset(space.config.generate, preset, "generate"), **settings)
    with space.open_store() as store, progress_bars(quiet=json) as progress:
        chosen = choose_prompts(store, prompts, split, num_samples, columns)
        show_prompts(chosen, show, space.config.model.name if model is None else model, workspace)
        try_commands(space.config, [p for p in chosen if p.checker])
        named = space.config.model.name if model is None else model
        with crew_at(space, store, cluster) as crew:
            backend = open_planner(named) if crew else open_backend(named)
            made = generate_candidates(store, backend, chosen, sampling, progress, crew)
    if output is not None:
        write_jsonl(output, made.candidates)
    data = {
        "prompts": len(chosen),
        "candidates": len(made.candidates),
        "new": made.new,
        "cut": made.cut,
        "failed": made.failed,
    }
    text = f"{len(made.candidates)} candidates for {len(chosen)} prompts ({made.new} new)"
    if made.cut:
        text += f"; {made.cut} were cut at {sampling.max_new_tokens} tokens (--max-new-tokens)"
    emit(data, text, json)
    say_unanswered(made.failed)


def choose_prompts(
    store: Store, file: Path | None, split: str, n: int | None, columns: str | None = None
) -> list[Prompt]:
    """The prompts of a file, or the store's of a split; at most `n` of them."""
    from hafs.evals.sealed import refuse_sealed

    found = prompts_from(file, columns) if file is not None else list(store.prompts(split=split))
    refuse_sealed(store, found)
    if not found:
        raise UsageError(
            f"{store.where} has no prompts of the {split} split", "`hafs tasks generate`, or give --prompts"
        )
    if n and n > len(found):
        note(f"{n} prompts were asked for, there are {len(found)}")
    return found[:n]
