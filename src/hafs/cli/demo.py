"""`hafs demo`: the whole path on the embedded model and 13 easy families of the `asm` pack."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, emit, note, progress_bars


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    directory: Path = typer.Argument(None, help="The demo's workspace; by default `demo`, or `demo-SEED`."),
    seed: int = typer.Option(0, min=0, help="Of sampling and of every training."),
    json: Json = False,
) -> None:
    """Baseline, SFT, preferences, SFT on their winners, DPO and the table, on a real assembler and emulator.

    Repeated, it goes on or just prints the table.
    """
    from rich.console import Group

    from hafs.config import override, parse_config
    from hafs.evals import to_rich
    from hafs.store import init_workspace
    from hafs.workflows.recipe import Recipe, run

    config = parse_config(SETTINGS, "the demo")
    seeded = {name: override(getattr(config, name), seed=seed) for name in ("generate", "sft", "dpo")}
    recipe = Recipe(
        name="demo",
        pack="asm",
        tags=("easy",),
        benchmarks=("demo",),
        sft_prompts=SFT_PROMPTS,
        preference_prompts=PREFERENCE_PROMPTS,
        validation_prompts=VALIDATION_PROMPTS,
        config=config.model_copy(update=seeded),
    )
    with progress_bars(quiet=json) as progress:
        outcome = run(
            recipe,
            init_workspace(directory or Path(f"demo-{seed}" if seed else "demo")),
            say=(lambda _: None) if json else note,
            progress=progress,
        )
    total = sum(s.seconds for s in outcome.stages)
    closing = "" if outcome.attribution else "No winner was right, so SFT had none to learn from.\n"
    closing += (
        f"Kept: {outcome.promoted} ({outcome.promoted_path}). {outcome.comparison.reason}\n"
        f"The demo's 13 easy families are not the `asm` benchmark. It took {total / 60:.1f} minutes.\n"
        f"Report: {outcome.report}"
    )
    emit(outcome.to_dict(), Group(to_rich(outcome.comparison), closing), json)


SFT_PROMPTS = 288
PREFERENCE_PROMPTS = 96
VALIDATION_PROMPTS = 0  # the last checkpoint is taken: 24 prompts would choose by chance
LORA = {"rank": 16, "alpha": 32}
SETTINGS = {
    "sft": {
        "learning_rate": 1e-3,
        "num_epochs": 1,
        "batch_size": 3,
        "gradient_accumulation_steps": 1,
        "row_tokens": 640,
        "validation_share": 0.0,
        "save_steps": 10,
        "answers": 1,
        "lora": LORA,
    },
    "generate": {"candidates": 6, "temperature": 0.7, "max_new_tokens": 64, "batch_size": 120},
    "preferences": {"scheme": "all", "references": "never", "max_candidates": 6, "efficiency": False},
    "dpo": {
        "beta": 0.1,
        "learning_rate": 1e-4,
        "num_epochs": 1,
        "nll_weight": 1.0,
        "validation_share": 0.0,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "row_tokens": 640,
        "save_steps": 2,
        "eval_steps": 8,
        "lora": LORA,
    },
    "eval": {"max_new_tokens": 64, "batch_size": 96},
}
"""What two cores without bf16 do in ten minutes. The learning rates are for a small adapter on a small model; see
docs/log.md for how they were found."""
