"""What is trained on: examples of prompts with references, edges that may be used, and the record of a run's data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hafs.data import example_of
from hafs.errors import UsageError
from hafs.files.jsonl import write_jsonl
from hafs.models.lineage import DATA_FILE
from hafs.types import PreferenceGroup, Prompt


def examples(prompts: Iterable[Prompt], answers: int = 0) -> list[PreferenceGroup]:
    """One example for each prompt that has references: the first `answers` of them (0: all), the prompt computed
    once."""
    return [example_of(p, answers) for p in prompts if p.references]


def winner_examples(groups: Iterable[PreferenceGroup], answers: int = 0) -> list[PreferenceGroup]:
    """The right winners of preference groups as examples for fine-tuning (rejection sampling, Yuan et al. 2023): the
    first `answers` of each group (0: all); where nothing is compared, those that are labelled good. A group whose
    winners are all known to be wrong gives none.
    """
    out = []
    for group in groups:
        good = [i for i, c in enumerate(group.candidates) if c.label is not None and c.label.good]
        winners = group.winners if group.edges else good
        kept = tuple(group.candidates[i] for i in winners[: answers or None])
        if kept:
            out.append(replace(group, candidates=kept, edges=()))
    return out


def check_calibrated(groups: Iterable[PreferenceGroup], allow: bool = False) -> None:
    """Refuse edges of a judge that was not calibrated on people's labels, unless they are allowed.

    Nobody knows what such an edge is worth: its probability is the judge's own. Raises UsageError that counts them.
    """
    judges = Counter(e.source for g in groups for e in g.edges if e.calibrated is False)
    if judges and not allow:
        names = ", ".join(sorted(judges))
        raise UsageError(
            f"{sum(judges.values())} edges come of a judge that was not calibrated on people's labels ({names})",
            "`hafs judge calibrate`, then `hafs judge build`; or `--allow-uncalibrated` to train on them all the same",
        )


def record_data(output: Path, model: str, groups: Sequence[PreferenceGroup]) -> None:
    """Write beside a run what it was trained on: the model it began with, then a line for each group.

    A line names the prompt, the ids of group and candidates, where the edges came from, and how many there are;
    `hafs.models.lineage` reads it. Only the main process of several writes, and what is there stays.
    """
    path = output / DATA_FILE
    if path.exists() or os.environ.get("RANK", "0") != "0":
        return
    known = Path(model).expanduser()
    rows: list[dict[str, Any]] = [{"model": str(known.resolve()) if known.is_dir() else model}]
    rows += [
        {
            "group": g.id,
            "prompt_id": g.prompt_id,
            "prompt": g.prompt,
            "system": g.system,
            "split": g.split,
            "candidates": [c.id for c in g.candidates if c.id],
            "sources": sorted({e.source for e in g.edges}),
            "edges": len(g.edges),
        }
        for g in groups
        if g.split != "test"  # which is left out
    ]
    write_jsonl(path, rows)
