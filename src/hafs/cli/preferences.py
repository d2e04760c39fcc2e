"""`hafs preferences`: from scored candidates to preference groups; in one go from a model with `generate`.

What works on groups that are there (import, export, combine, stats) is in mixing.py.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli import mixing
from hafs.cli.common import (
    Json,
    Preset,
    WorkspaceDir,
    emit,
    note,
    progress_bars,
    say_unanswered,
    say_unscored,
    with_preset,
    workspace_at,
)
from hafs.cli.generate import Candidates, Greedy, NumSamples, Prompts, Split, choose_prompts
from hafs.cli.reading import ColumnsOption
from hafs.cli.score import Budget, ScorerName, no_judge, the_protocol
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.config import Config, GenerateConfig, PreferencesConfig
    from hafs.preferences import BuildReport
    from hafs.preferences.collect import BuiltGroups
    from hafs.store import Store, Workspace

Scheme = Annotated[
    str | None,
    typer.Option("--scheme", help="all, best-worst, or guide (best-worst, second-second worst).", show_default=False),
]
References = Annotated[
    str | None,
    typer.Option(
        "--references",
        help="Known answers as winners: never, when-needed (no sample is right), always.",
        show_default=False,
    ),
]
WrongOverWrong = Annotated[
    bool | None,
    typer.Option(
        "--wrong-over-wrong/--right-over-wrong",
        help="Edges that say which of two wrong answers is better; by default only a right one wins.",
        show_default=False,
    ),
]
From = Annotated[
    str, typer.Option("--from", help="scores (of the scorer), or human (what people said in `hafs annotate`).")
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Also write the groups here (JSON lines).", show_default=False)
]
Pairs = Annotated[bool, typer.Option("--pairs", help="Write prompt / chosen / rejected rows instead of groups.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Preference groups: from rankings, in and out of files, mixed.", no_args_is_help=True)
    group.command("build")(build)
    group.command("generate")(generate)
    mixing.register(group)
    app.add_typer(group, name="preferences")


def build(
    source: From = "scores",
    scorer: ScorerName = "automatic",
    scheme: Scheme = None,
    references: References = None,
    wrong_over_wrong: WrongOverWrong = None,
    preset: Preset = None,
    split: Split = "train",
    model: str = typer.Option(None, help="Only candidates of this model; without it, of all models together."),
    annotator: list[str] = typer.Option([], help="With `--from human`: only what this person said (repeatable)."),
    labels: bool = typer.Option(
        None, "--labels/--no-labels", help="Label every answer by pass or fail (by its rating), for the loss kto."
    ),
    output: Output = None,
    pairs: Pairs = False,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Rank each prompt's scored candidates and keep the edges; ties and equal texts never make a pair.

    With `--from human` the ranking is what people said. Exit code 1 when no group comes of it.
    """
    from hafs.backends import identify
    from hafs.judge.clients import judge_of
    from hafs.preferences.collect import groups_from_people, preference_groups
    from hafs.scorers.run import scorer_for, scorer_name

    if source not in ("scores", "human"):
        raise UsageError(f"preferences cannot come from {source!r}", "--from scores, or --from human")
    space = workspace_at(workspace)
    pairing = _pairing(space.config, scheme, references, wrong_over_wrong, preset, labels)
    if source == "human":
        with space.open_store() as store:
            groups, report = groups_from_people(store, pairing, annotators=annotator or None, split=split)
            return _finish(groups, report, output, pairs, json)
    only = identify(model) if model else None
    if named := judge_of(scorer_name(space.config, scorer)):
        _no_pairing(scheme, references, wrong_over_wrong)
        with space.open_store() as store:
            ids = [p.id for p in store.prompts(split=split)]
            return _judged_groups(space, store, named, ids, only, output, pairs, json)
    with space.open_store() as store, closing(scorer_for(space.config, scorer)) as judge:
        with progress_bars(quiet=json) as progress:
            groups, report = preference_groups(store, judge, pairing, progress, split=split, model=only)
        return _finish(groups, report, output, pairs, json)


def generate(
    model: str = typer.Option(None, help="What answers: HF directory, hub id, or `default`."),
    prompts: Prompts = None,
    columns: ColumnsOption = None,
    num_samples: NumSamples = None,
    candidates_per_prompt: Candidates = None,
    split: Split = "train",
    scorer: ScorerName = "automatic",
    scheme: Scheme = None,
    references: References = None,
    wrong_over_wrong: WrongOverWrong = None,
    greedy: Greedy = None,
    preset: Preset = None,
    output: Output = None,
    pairs: Pairs = False,
    budget: Budget = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """The three verbs in one: generate candidates, score them, build the groups. Exit code 1 when no group comes.

    With a judge as the scorer it is `hafs generate`, `hafs judge run` and `hafs judge build`.
    """
    from hafs.backends import open_backend
    from hafs.config import override
    from hafs.generation.candidates import generate_candidates
    from hafs.judge.clients import judge_of
    from hafs.preferences.collect import preference_groups
    from hafs.scorers.run import score_candidates, scorer_for, scorer_name, try_commands

    space = workspace_at(workspace)
    settings = with_preset(space.config.generate, preset, "generate")
    sampling = override(settings, candidates=candidates_per_prompt, greedy=greedy)
    if named := judge_of(scorer_name(space.config, scorer)):
        _no_pairing(scheme, references, wrong_over_wrong)
        wanted = (prompts, split, num_samples, columns)
        _generate_judged(space, named, model, wanted, sampling, budget, output, pairs, json)
        return
    no_judge(budget)
    pairing = _pairing(space.config, scheme, references, wrong_over_wrong, preset)
    with space.open_store() as store, closing(scorer_for(space.config, scorer)) as judge:
        with progress_bars(quiet=json) as progress:
            chosen = choose_prompts(store, prompts, split, num_samples, columns)
            try_commands(space.config, chosen, scorer)
            backend = open_backend(space.config.model.name if model is None else model)
            made = generate_candidates(store, backend, chosen, sampling, progress)
            which: dict[str, Any] = {"prompt_ids": [p.id for p in chosen], "model": backend.model}
            done = score_candidates(store, judge, progress, **which)
            groups, report = preference_groups(store, judge, pairing, progress, **which)
        say_unanswered(made.failed)
        say_unscored(done.unscored)
        _finish(groups, report, output, pairs, json)


def _generate_judged(
    space: Workspace,
    named: str,
    model: str | None,
    wanted: tuple[Path | None, str, int | None, str | None],
    sampling: GenerateConfig,
    budget: float | None,
    output: Path | None,
    pairs: bool,
    as_json: bool,
) -> None:
    """Candidates of a model, a judge's verdicts on them, and groups of these."""
    from hafs.backends import open_backend
    from hafs.cli.judge.run import ask, name_problems, open_clients, results_text
    from hafs.generation.candidates import generate_candidates
    from hafs.judge.run.runner import Judging
    from hafs.judge.work import Selection

    clients = open_clients([named], None, False)  # a missing key is said before anything is generated
    with space.open_store() as store:
        with progress_bars(quiet=as_json) as progress:
            chosen = choose_prompts(store, *wanted)
            backend = open_backend(space.config.model.name if model is None else model)
            made = generate_candidates(store, backend, chosen, sampling, progress)
        say_unanswered(made.failed)
        ids = [p.id for p in chosen]
        which = Selection(ids, backend.model, space.config.preferences.max_candidates)
        results = ask(space, store, clients, Judging(the_protocol(), which, budget=budget), quiet=as_json)
        note(results_text(results))
        short = name_problems(results)
        if not results[0].reliability.verdicts:
            note(
                "error: the judge gave no verdict, so there is no preference group\n  fix: see above; the answers are"
                " kept, and the same command goes on"
            )
            raise typer.Exit(1)
        _judged_groups(space, store, named, ids, backend.model, output, pairs, as_json)
    if short:
        raise typer.Exit(1)


def _judged_groups(
    space: Workspace,
    store: Store,
    named: str,
    prompt_ids: list[str],
    model: str | None,
    output: Path | None,
    pairs: bool,
    as_json: bool,
) -> None:
    """`hafs judge build` of some prompts."""
    from hafs.cli.judge.calibrate import finish
    from hafs.judge.clients import judge_name
    from hafs.workflows.hybrid import judged_groups

    mine = space.config.preferences
    unused = [k for k in ("scheme", "references") if getattr(mine, k) != type(mine).model_fields[k].default]
    if unused:
        note(
            f"note: `{' and '.join(unused)}` of [preferences] is about a scorer's ranking; a judge has an opinion on"
            " each pair or none, so it is not used here"
        )
    groups, report = judged_groups(
        store,
        [judge_name(named)],
        the_protocol().id,
        max_candidates=mine.max_candidates,
        prompt_ids=set(prompt_ids),
        model=model,
    )
    finish(groups, report, output, pairs, as_json)


def _no_pairing(scheme: str | None, references: str | None, wrong_over_wrong: bool | None) -> None:
    """Refuse what does not go with a judge."""
    flags = {"--scheme": scheme, "--references": references, "--wrong-over-wrong": wrong_over_wrong}
    for flag, value in flags.items():
        if value is not None:
            raise UsageError(
                f"{flag} is about a scorer's ranking; a judge has an opinion on each pair or none", f"leave {flag} out"
            )


def _pairing(
    config: Config,
    scheme: str | None,
    references: str | None,
    wrong_over_wrong: bool | None,
    preset: str | None,
    labels: bool | None = None,
) -> PreferencesConfig:
    """The settings of the pairing; a wrong one is refused here, before any work."""
    from hafs.config import override
    from hafs.preferences import Pairing

    found: PreferencesConfig = override(
        with_preset(config.preferences, preset, "preferences"),
        scheme=scheme,
        references=references,
        wrong_over_wrong=wrong_over_wrong,
        labels=labels,
    )
    Pairing(**found.model_dump())
    return found


def _finish(groups: BuiltGroups, report: BuildReport, output: Path | None, pairs: bool, as_json: bool) -> None:
    from hafs.files.jsonl import write_jsonl
    from hafs.preferences import to_pairs

    if groups and output is not None:
        write_jsonl(output, (row for g in groups for row in to_pairs(g)) if pairs else groups)
    emit({**report.to_dict(), "output": str(output) if groups and output else None}, str(report), as_json)
    if not groups:
        note(
            "error: no preference group came of the candidates\n  fix: more candidates a prompt, a higher temperature,"
            " `--references when-needed`, or `--wrong-over-wrong`"
        )
        raise typer.Exit(1)
