"""The stages for a notebook or a script: what the verbs do, called from Python.

    from hafs import Workspace, init_workspace, load_prompts, generate, score, build_preferences, train_dpo, evaluate

Every function takes the workspace first, does what is not there yet, and returns what the verb of that name prints.
Settings are keywords, named as in `hafs.toml` (`beta=0.1`, `lora={"rank": 8}`); what is not given is the workspace's.
A user's mistake raises `hafs.errors.UsageError` or `DataError`, a failure `HafsError`; each says what to do in `fix`.
What is left out, guessed or odd comes as a Python warning (`HafsWarning`), in the words of the verb.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from hafs.backends import open_backend
from hafs.config import override
from hafs.errors import UsageError
from hafs.evals import Comparison, EvalResult
from hafs.evals.evaluate import evaluate as evaluate_model
from hafs.evals.leaks import refuse_trained_on
from hafs.evals.sealed import refuse_sealed
from hafs.generation.candidates import generate_candidates
from hafs.models.naming import role
from hafs.preferences import BuildReport
from hafs.preferences.collect import newest_groups, preference_groups
from hafs.scorers.run import score_candidates, scorer_for, try_commands
from hafs.store import Workspace
from hafs.tasks import benchmark as benchmark_of
from hafs.tasks import benchmark_names, task_file
from hafs.training import TrainResult
from hafs.training import train_dpo as run_dpo
from hafs.training import train_sft as run_sft
from hafs.training.data import examples
from hafs.types import Candidate, PreferenceGroup, Progress, Prompt, silent
from hafs.workflows.reading import examples_in_file, preferences_in_file, prompts_in_file
from hafs.workflows.results import compared, comparison_page
from hafs.workflows.training import (
    every_answer_of,
    is_finished,
    pass_rate,
    refuse_held_out,
    validation_prompts,
    without_marked,
)

Source = str | Path
"""A file, a folder of `datasets`, or a hub id, of any kind that docs/how-to/data.md lists."""


class HafsWarning(UserWarning):
    """Something about the data or the run that a person should know."""


def _say(line: str) -> None:
    warnings.warn(line.removeprefix("note: ").removeprefix("warning: "), HafsWarning, stacklevel=3)


def load_prompts(workspace: Workspace, source: Source, *, columns: str | None = None) -> list[Prompt]:
    """The prompts of a file of any kind, added to the workspace; one that comes twice is taken once.

    `columns` says what columns are for, as `--columns` does. Raises UsageError when there is no such file, DataError
    when no row is usable.
    """
    found = prompts_in_file(Path(source), columns, say=_say)
    with workspace.open_store() as store:
        refuse_sealed(store, found)
        store.add_prompts(found)
    return found


def load_preferences(source: Source, *, format: str = "", columns: str | None = None) -> list[PreferenceGroup]:
    """The preference groups of a file of any kind: pairs, rankings, one-sided labels. Raises as `load_prompts` does."""
    return preferences_in_file(Path(source), format, columns, say=_say).groups


def generate(
    workspace: Workspace,
    model: str | Path,
    prompts: Sequence[Prompt] | None = None,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> list[Candidate]:
    """Sampled answers to `prompts` (the workspace's of the train split without it); those that are there are not made
    again.

    `settings` are those of `[generate]`: `candidates` a prompt, `temperature`, `max_new_tokens` (tokens), `seed` …
    Raises UsageError for an unknown model or setting, HafsError when the backend can go on no more.
    """
    sampling = override(workspace.config.generate, **settings)
    with workspace.open_store() as store:
        chosen = _chosen(workspace, prompts)
        refuse_sealed(store, chosen)
        made = generate_candidates(store, open_backend(str(model)), chosen, sampling, progress)
    if made.cut:
        _say(f"{made.cut} answers were cut at {sampling.max_new_tokens} tokens (max_new_tokens)")
    for reason, n in made.failed.items():
        _say(f"{n} answers are missing, {reason}")
    return list(made.candidates)


def score(
    workspace: Workspace, scorer: str = "automatic", *, rescore: bool = False, progress: Progress = silent
) -> dict[str, int]:
    """Check the candidates that have no score; the number `scored` now, and of those that stay unscored by reason.

    `scorer` is "automatic" (each row's own checker) or an expression as in `hafs score --scorer`. Raises UsageError for
    an unknown one, HafsError when a checker cannot work.
    """
    with workspace.open_store() as store, closing(scorer_for(workspace.config, scorer)) as judge:
        try_commands(workspace.config, list(store.prompts()), scorer)
        done = score_candidates(store, judge, progress, rescore)
    return {"scored": done.scored, **dict(done.unscored)}


def build_preferences(
    workspace: Workspace,
    scorer: str = "automatic",
    *,
    split: str = "train",
    progress: Progress = silent,
    **settings: Any,
) -> tuple[list[PreferenceGroup], BuildReport]:
    """Rank each prompt's scored candidates and keep the edges as groups; with the report of what came of them.

    `settings` are those of `[preferences]`: `scheme`, `references`, `max_candidates` … Ties and equal texts never make
    a pair. Raises UsageError when no candidate has a checker.
    """
    pairing = override(workspace.config.preferences, **settings)
    with workspace.open_store() as store, closing(scorer_for(workspace.config, scorer)) as judge:
        groups, report = preference_groups(store, judge, pairing, progress, split=split)
        return list(groups), report


def train_sft(
    workspace: Workspace,
    model: str | Path,
    data: Source | Sequence[PreferenceGroup] | None = None,
    *,
    output: Path | None = None,
    validate: str | Path | None = None,
    columns: str | None = None,
    allow_contaminated: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> TrainResult:
    """Teach a model right answers: of a file, of groups, or (without `data`) the workspace's references.

    `validate` picks the checkpoint by pass rate, on a task file or PACK:N. `settings` are those of `[sft]`
    (`learning_rate`, `num_epochs`, `batch_size` prompts …). The model is in `output`/model, by default
    `models/sft/model` of the workspace; a finished run is returned at once, a killed one goes on.

    Raises UsageError for held-out prompts (or copies) among the training prompts, and for a run in `output` that
    differs; DataError when nothing is left to train on; HafsError for a loss or weight that is no number.
    """
    section = override(workspace.config.sft, **_rank(settings))
    if data is None:
        with workspace.open_store() as store:
            groups = examples(store.prompts(split=["train", "validation"]), section.answers)
    elif isinstance(data, str | Path):
        read = examples_in_file(Path(data), section.answers, columns, say=_say)
        groups = every_answer_of(read, section.turns, str(data), _say)
    else:
        groups = list(data)
    groups = without_marked(workspace, groups, _say)
    where = (str(data if isinstance(data, str | Path) else "the data"), output or workspace.root / "models" / "sft")
    with _ready(workspace, str(model), groups, where, validate, allow_contaminated, progress) as hooks:
        return run_sft(str(model), groups, section, where[1], progress=progress, **hooks)


def train_dpo(
    workspace: Workspace,
    model: str | Path,
    data: Source | Sequence[PreferenceGroup] | None = None,
    *,
    output: Path | None = None,
    validate: str | Path | None = None,
    columns: str | None = None,
    allow_contaminated: bool = False,
    allow_uncalibrated: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> TrainResult:
    """Make a model prefer the better answers: of a file, of groups, or (without `data`) of the groups built last.

    `settings` are those of `[dpo]` (`beta`, `learning_rate`, `loss`, `nll_weight`, `reference` …), the rest is as in
    `train_sft`; log-probabilities and rewards are in nats. `allow_uncalibrated` takes edges of a judge that no person's
    labels calibrated, which raise UsageError otherwise.
    """
    section = override(workspace.config.dpo, **_rank(settings))
    if data is None:
        with workspace.open_store() as store:
            groups = newest_groups(store)
    else:
        groups = load_preferences(data, columns=columns) if isinstance(data, str | Path) else list(data)
    groups = without_marked(workspace, groups, _say)
    where = (str(data if isinstance(data, str | Path) else "the data"), output or workspace.root / "models" / "dpo")
    with _ready(workspace, str(model), groups, where, validate, allow_contaminated, progress) as hooks:
        hooks["allow_uncalibrated"] = allow_uncalibrated
        return run_dpo(str(model), groups, section, where[1], progress=progress, **hooks)


def evaluate(
    workspace: Workspace,
    model: str | Path,
    benchmarks: str | Path | Sequence[str | Path] | None = None,
    *,
    name: str = "",
    columns: str | None = None,
    allow_contaminated: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> list[EvalResult]:
    """A model's greedy answers to benchmarks (names or task files; those of `[eval]` without any), checked.

    `name` is what `compare` calls the model, by default that of its directory. A result's `passed` of `scored` prompts
    were right; what could not be checked is unscored, never wrong. Raises UsageError for an unknown benchmark, and when
    the model was trained on its prompts unless `allow_contaminated`.
    """
    config = override(workspace.config.eval, **settings)
    given = [benchmarks] if isinstance(benchmarks, str | Path) else benchmarks
    named = benchmark_names(map(str, given if given is not None else config.benchmarks))
    asked = {which: _benchmark(source, columns) for which, source in named.items()}
    title = name or role(model)
    everything = [p for prompts in asked.values() for p in prompts]
    for line in refuse_trained_on(
        workspace, {title: str(model)}, everything, config.near_copy, allowed=allow_contaminated
    ):
        _say(line)
    found = []
    with workspace.open_store() as store, closing(scorer_for(workspace.config)) as scorer:
        refuse_sealed(store, everything)
        try_commands(workspace.config, everything)
        for which, prompts in asked.items():
            found.append(evaluate_model(store, scorer, str(model), title, which, prompts, config, progress))
    return found


def compare(
    workspace: Workspace, *names: str, reference: str = "sft", strict: bool = False, allow_contaminated: bool = False
) -> Comparison:
    """Evaluated models side by side, prompt by prompt: rates, paired differences and wins with intervals, a decision.

    `strict` promotes only when the interval of the gain is above zero. `hafs.evals.to_text` and `to_markdown` show it.
    Raises UsageError for a name that nothing was evaluated under.
    """
    return compared(names, workspace, reference, strict=strict, allowed=allow_contaminated)[0]


def report_page(
    workspace: Workspace,
    *names: str,
    reference: str = "sft",
    output: Path | None = None,
    allow_contaminated: bool = False,
) -> Path:
    """Write the page of a comparison, one file of HTML, and say where it is; its Markdown twin lies beside it."""
    return comparison_page(names, workspace, reference, output, allowed=allow_contaminated)[0]


def _chosen(workspace: Workspace, prompts: Sequence[Prompt] | None) -> list[Prompt]:
    if prompts is not None:
        return list(prompts)
    with workspace.open_store() as store:
        found = list(store.prompts(split="train"))
    if not found:
        raise UsageError(f"{workspace.root} has no prompts of the train split", "load_prompts(workspace, FILE)")
    return found


def _benchmark(which: str, columns: str | None) -> list[Prompt]:
    path = task_file(which)
    return benchmark_of(which) if path is None else prompts_in_file(path, columns, say=_say)


def _rank(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those of `lora` by their places, and alpha twice the rank where only the rank is given."""
    lora = settings.get("lora", {})
    flat = {k: v for k, v in settings.items() if k != "lora"} | {f"lora.{k}": v for k, v in lora.items()}
    return {"lora.alpha": 2 * flat["lora.rank"], **flat} if "lora.rank" in flat else flat


@contextmanager
def _ready(
    workspace: Workspace,
    model: str,
    groups: Sequence[PreferenceGroup],
    where: tuple[str, Path],
    validate: str | Path | None,
    allowed: bool,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Around a training: refuses what may not be trained on, opens what picks the checkpoint, closes it at the end."""
    if not groups:
        raise UsageError(f"{where[0]} has nothing to train on", "load_prompts, build_preferences, or give `data`")
    hooks: dict[str, Any] = {}
    with ExitStack() as stack:
        if not is_finished(where[1]):
            asked = validation_prompts(None if validate is None else str(validate), say=_say)
            picks = {f"validate {validate}": asked} if asked else {}
            refuse_held_out(workspace, workspace.config, {where[0]: groups}, picks, _say, allowed=allowed)
            if asked:
                hooks["validate"] = stack.enter_context(pass_rate(workspace.config, model, asked, progress))
        yield hooks
