"""`hafs export`: a trained model as files for others, with a model card and the proof that it is the same model."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, progress_bars
from hafs.cli.evaluate import benchmark_prompts
from hafs.cli.reading import ColumnsOption
from hafs.cli.serve import workspace_model
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.export import Exported
    from hafs.store import Store, Workspace
    from hafs.types import Progress, Prompt


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    model: str = typer.Argument(
        None,
        help="A name under `models/` of the workspace (dpo), an HF directory, or"
        " `default`; else the workspace's model.",
    ),
    format: str = typer.Option("safetensors", "--format", help="safetensors, adapter, gguf or ollama."),
    output: Path = typer.Option(None, help="The directory to write; by default exports/NAME-FORMAT here."),
    name: str = typer.Option(None, help="What the model is called; by default its name here."),
    quantize: str = typer.Option("q8_0", help="Of GGUF: f32, f16, bf16, q8_0, q6_k, q5_k_m or q4_k_m."),
    precision: str = typer.Option("auto", help="Of an adapter's merged weights: auto, fp32 or bf16."),
    base: str = typer.Option(
        "auto", help="The base that an adapter was trained on: none (as it is), nf4 (in 4 bits); auto asks the run."
    ),
    base_name: str = typer.Option("", help="What an exported adapter calls its base (a hub id)."),
    licence: str = typer.Option("", "--licence", "--license", help="For the model card, as `apache-2.0`."),
    check: str = typer.Option(None, help="Compare pass rates on this benchmark: a name or a task file."),
    columns: ColumnsOption = None,
    check_prompts: int = typer.Option(None, min=1, help="Only its first N prompts."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write a model as files for others: weights, a model card, and for Ollama a Modelfile.

    A GGUF file is read back by llama.cpp and must see the same tokens as training did; with --check, its pass rate must
    lie in the interval of the trained model's. Exit code 1 when either is not so; the files are kept.
    """
    from hafs.export import export_model
    from hafs.export.card import origin
    from hafs.export.write import checked
    from hafs.models.naming import role
    from hafs.store import workspace_or_none

    _one_of("precision", precision, ("auto", "fp32", "bf16"))
    _one_of("base", base, ("auto", "none", "nf4"))
    chosen = workspace_model(model, workspace)
    space = workspace_or_none(workspace)
    asked = _prompts(check, columns, check_prompts, space) if check else []
    title = name or role(chosen)
    with ExitStack() as stack:
        store = stack.enter_context(space.open_store()) if space else None
        progress = stack.enter_context(progress_bars(quiet=json))
        where = (_path(chosen), space.root if space else None, store)
        made = export_model(
            chosen,
            output or Path("exports") / f"{title}-{format}",
            format,
            name=title,
            quantize=quantize,
            precision=precision,
            base=base,
            base_name=base_name,
            licence=licence,
            origin=origin(*where),
            progress=progress,
            temperature=space.config.generate.temperature if space else 0.8,
        )
        found = _check(made, chosen, title, space, store, (check, asked), progress)
        checked(made, title, origin(*where), licence, found["notes"])  # the check has added evaluations
    _show(made, title, format, found, json)


def _prompts(check: str, columns: str | None, most: int | None, space: Workspace | None) -> list[Prompt]:
    """The prompts of --check, whose answers are kept in a workspace."""
    found = benchmark_prompts(check, columns)[:most]
    if space is None:
        raise UsageError("--check keeps its answers in a workspace, and there is none here", "hafs init DIR")
    return found


def _show(made: Exported, title: str, format: str, found: dict[str, Any], as_json: bool) -> None:
    """Say what was written and what the checks found; exit code 1 when the file is not the trained model."""
    lines = [f"{title} as {format} in {made.path}", *(f"  {line}" for line in (*made.files, *made.notes))]
    lines += [f"  {line}" for line in found["notes"]]
    data = {"path": str(made.path), "gguf": str(made.gguf) if made.gguf else None, "format": format, **found}
    emit(data, "\n".join(lines), as_json)
    if not found["same"]:
        note(
            "error: the exported file is not the trained model (see above)\n  fix: export --format safetensors, or a"
            " larger --quantize"
        )
        raise typer.Exit(1)


def _check(
    made: Exported,
    model: str,
    title: str,
    space: Workspace | None,
    store: Store | None,
    on: tuple[str | None, list[Prompt]],
    progress: Progress,
) -> dict[str, Any]:
    """What was checked: `same` (False when anything differs), the figures, and `notes` in words."""
    found: dict[str, Any] = {"same": True, "notes": []}
    benchmark, prompts = on
    with ExitStack() as stack:
        served = str(made.path)
        if made.gguf is not None:
            from hafs.export.llamacpp import TEXTS, llama_server, same_tokens
            from hafs.models.loading import load_tokenizer

            tokenizer = load_tokenizer(_path(model))
            url = stack.enter_context(llama_server(made.gguf))
            texts = [(t, s) for t in TEXTS for s in ("", "Be brief.")] + [(p.text, p.system) for p in prompts]
            tokens = same_tokens(url, tokenizer, texts)
            found["tokens"] = {"texts": tokens.texts, "different": list(tokens.different)}
            found["same"] = not tokens.different
            found["notes"].append(
                f"llama.cpp reads {tokens.texts - len(tokens.different)} of {tokens.texts} chats as"
                " the same tokens as the training tokenizer"
            )
            served = f"openai:{url}"
        if benchmark and space is not None and store is not None:
            label = made.gguf.stem if made.gguf else f"{title}-{made.path.name}"
            rates = _rates(space, store, benchmark, prompts, [(model, title), (served, label)], progress)
            found["rates"], found["same"] = rates, found["same"] and rates["within"]
            found["notes"].append(rates["words"])
    return found


def _rates(
    space: Workspace,
    store: Store,
    benchmark: str,
    prompts: list[Any],
    models: list[tuple[str, str]],
    progress: Progress,
) -> dict[str, Any]:
    """Pass rates of the trained model and the exported one on the same prompts, and whether they agree."""
    from hafs.evals.evaluate import evaluate
    from hafs.evals.words import interval, percent
    from hafs.scorers.run import scorer_for
    from hafs.statistics import wilson

    where = Path(benchmark).stem if Path(benchmark).is_file() else benchmark
    kept = f"{where} ({len(prompts)} prompts)"
    with closing(scorer_for(space.config)) as scorer:
        before, after = (
            evaluate(store, scorer, model, name, kept, prompts, space.config.eval, progress) for model, name in models
        )
    trained, exported = (wilson(r.passed, r.scored, space.config.eval.level) for r in (before, after))
    if trained.value is None or exported.value is None or trained.low is None or trained.high is None:
        within, words = False, "nothing could be scored, so the pass rates cannot be compared"
    else:
        within = trained.low <= exported.value <= trained.high
        reached = f"{after.passed} of {after.scored} prompts of {where} passed ({percent(exported.value)})"
        words = (
            f"{reached}, the trained model {before.passed} of {before.scored}"
            f" ({percent(trained.value)}, {interval(trained)})"
        )
    return {
        "benchmark": where,
        "trained": {"passed": before.passed, "scored": before.scored},
        "exported": {"passed": after.passed, "scored": after.scored},
        "within": within,
        "words": words,
    }


def _path(model: str) -> Path:
    from hafs.models.naming import resolve

    return resolve(model)


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"there is no {what} {value!r}", f"use one of: {', '.join(allowed)}")
