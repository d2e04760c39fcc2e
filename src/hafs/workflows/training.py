"""What comes before a training and around it: what may be trained on, what picks the checkpoint, where it goes.

Verbs and the Python interface train through here, so both refuse the same things, and before the work begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hafs.config import Config
from hafs.errors import HafsError, UsageError
from hafs.evals.evaluate import PassRate
from hafs.evals.leaks import HeldOut, WorkspaceTexts, held_out, refuse_leaks
from hafs.evals.sealed import refuse_sealed
from hafs.models.loading import load_tokenizer
from hafs.models.naming import resolve
from hafs.scorers.run import checkers, scorer_for, try_commands
from hafs.store import Workspace
from hafs.store.marks import Exclusions, Learnt
from hafs.tasks import generate
from hafs.types import PreferenceGroup, Progress, Prompt, silent
from hafs.workflows.reading import Say, prompts_in_file


def validation_prompts(spec: str | None, columns: str | None = None, *, say: Say) -> list[Prompt]:
    """The prompts that pick a checkpoint: those of a task file, PACK:N of a pack's validation split, or none.

    Raises UsageError for what is neither.
    """
    if spec is None:
        return []
    if Path(spec).expanduser().exists():
        return prompts_in_file(Path(spec).expanduser(), columns, say=say)
    pack, _, count = spec.partition(":")
    if not (count.isdecimal() and int(count)):
        raise UsageError(f"--validate {spec}: there is no such file", "give a task file, or PACK:N such as asm:48")
    return generate(pack, "validation", int(count))


def without_tests(prompts: Iterable[Prompt], where: str, say: Say) -> list[Prompt]:
    """The prompts without those of the test split, which are counted and never trained on."""
    found = list(prompts)
    kept = [p for p in found if p.split != "test"]
    if left := len(found) - len(kept):
        say(f"note: {where}: {left} of {len(found)} prompts are of the test split and are left out")
    if found and not kept:
        raise UsageError(f"all {len(found)} prompts of {where} are of the test split", "train on other prompts")
    return kept


def without_marked(workspace: Workspace | None, found: Iterable[Learnt], say: Say) -> list[Learnt]:
    """The groups or prompts without what people left out of training in the workspace; how much that was is said.

    Raises UsageError when nothing is left.
    """
    rows = list(found)
    if workspace is None:
        return rows
    with workspace.open_store() as store:
        excluded = Exclusions.of(store)
    kept = list(excluded.kept(rows))
    if said := str(excluded):
        say(f"note: {said}")
    if rows and not kept:
        raise UsageError("all of the data are left out of training by marks", "take marks back: `hafs open`")
    return kept


def refuse_held_out(
    workspace: Workspace | None,
    config: Config,
    training: Mapping[str, Iterable[Prompt | PreferenceGroup]],
    picks: Mapping[str, Sequence[Prompt]],
    say: Say,
    *,
    allowed: bool = False,
) -> None:
    """Refuse, before any work, what may not be trained on: sealed prompts, and held-out ones or copies of them.

    `training` are prompts or groups by where they are from, `picks` prompts that pick a checkpoint by what they are
    called. Raises UsageError; what is `allowed` is said.
    """
    texts: dict[str, list[str]] = {}
    asked = [p for found in picks.values() for p in found]
    for where, rows in training.items():
        mine = [row if isinstance(row, Prompt) else _prompt_of(row) for row in rows]
        asked += mine
        texts[where] = [p.text for p in mine if p.split != "test"]
    if workspace is not None:
        with workspace.open_store() as store:
            refuse_sealed(store, asked)
    held = [HeldOut(name, found, picks=True) for name, found in picks.items()] + held_out(workspace)
    near = config.eval.near_copy
    for line in refuse_leaks(texts, held, near, allowed=allowed, others=WorkspaceTexts(workspace)):
        say(f"warning: {line}")


def _prompt_of(group: PreferenceGroup) -> Prompt:
    return Prompt(group.prompt, group.system, split=group.split, context=group.context, tools=group.tools)


@contextmanager
def pass_rate(config: Config, model: str, prompts: Sequence[Prompt], progress: Progress = silent) -> Iterator[PassRate]:
    """What picks a checkpoint by the share of `prompts` answered right; its scorer is closed at the end.

    Raises HafsError when one of the prompts' checkers cannot work.
    """
    try:
        scorer = scorer_for(config)
        checkers(scorer, prompts)  # opens each, so that one that cannot work ends the run before the long work
        try_commands(config, prompts)
    except HafsError as e:
        raise HafsError(f"--validate needs a scorer that works: {e.what}", e.fix) from e
    try:
        yield PassRate(load_tokenizer(resolve(model)), prompts, scorer, config.eval, progress=progress)
    finally:
        scorer.close()


def is_finished(run: Path) -> bool:
    """Whether the directory holds a training run that has ended."""
    try:
        return bool(json.loads((run / "run.json").read_text(encoding="utf-8")).get("result"))
    except (OSError, ValueError, AttributeError):
        return False


def every_answer_of(groups: list[PreferenceGroup], turns: str, where: str, say: Say) -> list[PreferenceGroup]:
    """The examples with every assistant turn of a conversation as one, unless `turns` is "last"."""
    from hafs.data.examples import every_answer

    if turns == "last" or not any(g.context for g in groups):
        return groups
    every = every_answer(groups)
    if len(every) > len(groups):
        say(f'{where}: {len(groups)} rows have {len(every)} answers to learn (turns = "last" learns the last of each)')
    return every
