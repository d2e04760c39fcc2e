"""Held-out prompts stay out of training: looked for before any work begins, by the rule that `hafs tasks split` uses.

What is held out is known before a run: the prompts that pick its checkpoint, the benchmarks of the settings, and the
workspace's test prompts, with which whatever was evaluated there counts. So nothing has to be refused after a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hafs import registry
from hafs.backends import is_local
from hafs.data import read_prompts
from hafs.errors import UsageError
from hafs.evals.contamination import Hit, Index, refuse_contaminated, side_by_side
from hafs.models.naming import model_hash, resolve
from hafs.store import Workspace
from hafs.tasks import benchmark, benchmark_names, task_file
from hafs.types import Prompt

__all__ = ["HeldOut", "WorkspaceTexts", "held_out", "refuse_leaks", "refuse_trained_on"]


@dataclass(frozen=True)
class HeldOut:
    """Prompts that nothing may be trained on: what they are called, and whether they pick a checkpoint."""

    name: str
    prompts: Sequence[Prompt]
    picks: bool = False


def held_out(workspace: Workspace | None) -> list[HeldOut]:
    """What a workspace holds out: the benchmarks of its settings and its prompts of the test split.

    Raises UsageError for a benchmark that there is not.
    """
    if workspace is None:
        return []
    found = []
    for name, which in benchmark_names(workspace.config.eval.benchmarks).items():
        path = task_file(which)
        prompts = benchmark(which) if path is None else read_prompts(path).rows
        found.append(HeldOut(f"the benchmark {name}", prompts))
    with workspace.open_store() as store:
        tests = list(store.prompts(split="test"))
    return [*found, HeldOut("the workspace's test prompts", tests)] if tests else found


@dataclass(frozen=True)
class WorkspaceTexts:
    """Every prompt that a workspace knows, and those of its loop's task file, read when they are gone through.

    By these a template is known as one when few of its prompts are compared, as it was when they were split.
    """

    workspace: Workspace | None

    def __iter__(self) -> Iterator[str]:
        if self.workspace is None:
            return
        with self.workspace.open_store() as store:
            yield from (p.text for p in store.prompts())
        path = Path(self.workspace.config.loop.prompts).expanduser()
        if path.is_file():
            yield from (p.text for p in read_prompts(path).rows)


def refuse_leaks(
    training: Mapping[str, Iterable[str]],
    held: Iterable[HeldOut],
    near_copy: float,
    *,
    allowed: bool = False,
    others: Iterable[str] = (),
) -> list[str]:
    """Look for held-out prompts among those of the `training` data (texts by where they are from).

    From the similarity `near_copy` on a prompt is a copy, prompts of one template aside; of validation prompts that a
    task pack made only the same words count, since a pack keeps its splits apart by itself. Raises UsageError with
    the nearest two side by side, unless copies are `allowed`, which a prompt that picks the checkpoint and is in the
    training data word by word never is. `others` are further prompts by which templates are known. Returns what was
    allowed, in words.
    """
    texts = [(where, text) for where, found in training.items() for text in found]
    notes = []
    for part in held:
        hits = _hits(part.prompts, texts, near_copy, others)
        same = [h for h in hits if h.similarity == 1]
        if not hits:
            continue
        said = _said(part.name, hits, len(same), len(part.prompts))
        if same and part.picks:
            raise UsageError(said, "take them out of one of the two: `hafs tasks split FILE` shares them out")
        if not allowed:
            raise UsageError(
                said,
                "take them out of the training data (`hafs tasks split FILE` keeps copies together), say with"
                " --set eval.near_copy=0.7 from where on two prompts are copies, or train anyway with"
                " --allow-contaminated",
            )
        notes.append(f"contaminated: {said}")
    return notes


def refuse_trained_on(
    workspace: Workspace | None,
    models: Mapping[str, str],
    prompts: Iterable[Prompt],
    near_copy: float,
    *,
    allowed: bool = False,
) -> list[str]:
    """Look for `prompts` in what models (name -> model) were trained on, before they are asked.

    Served models are passed over: what they were trained on is not known here. Returns what a reader should know;
    raises UsageError as `refuse_contaminated` does.
    """
    local = {name: resolve(model) for name, model in models.items() if is_local(model)}
    found = refuse_contaminated(
        {p.id: p.text for p in prompts},
        {name: {model_hash(path)} for name, path in local.items()},
        [workspace.root] if workspace else [],
        local.values(),
        allowed=allowed,
        threshold=near_copy,
        others=WorkspaceTexts(workspace),
    )
    return [line for line in found if line.startswith("Contaminated")]


def _hits(
    prompts: Sequence[Prompt], training: Sequence[tuple[str, str]], near_copy: float, others: Iterable[str]
) -> list[Hit]:
    packs = set(registry.names("tasks"))
    made = {p.id: p.text for p in prompts if p.source in packs and p.split == "validation"}
    rest = {p.id: p.text for p in prompts if p.id not in made}
    parts = ((made, 1.0), (rest, near_copy))
    found = [hit for texts, limit in parts if texts for hit in Index(texts, limit, others).hits(training)]
    return sorted(found, key=lambda h: -h.similarity)


def _said(name: str, hits: Sequence[Hit], same: int, total: int) -> str:
    near = len(hits) - same
    kinds = " and ".join(part for n, part in ((same, f"{same} word by word"), (near, f"{near} as near copies")) if n)
    first = hits[0]
    return (
        f"{len(hits)} of the {total} prompts of {name} are in the training data, {kinds};"
        f" the nearest is in {first.where}, similarity {first.similarity:.2f}: {side_by_side(first)}"
    )
