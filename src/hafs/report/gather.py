"""What a report shows, gathered from evaluations, preference groups and the training logs of a workspace."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from hafs.evals import Comparison, EvalResult
from hafs.evals.words import interval, percent
from hafs.preferences.ranking import rank
from hafs.report import Pairs, PairSource, ReportData, Rerun, Stage, Training, differing_examples, failures_by_cause
from hafs.scorers import Scorer
from hafs.scorers.run import checkers, stored_answers
from hafs.statistics import bootstrap_mean
from hafs.store import Store
from hafs.types import PreferenceGroup, Ranking


def gather_report(
    title: str,
    results: Mapping[str, list[EvalResult]],
    comparison: Comparison,
    models: Path,
    groups: Sequence[PreferenceGroup] = (),
    skipped: Mapping[str, int] | None = None,
    stages: tuple[Stage, ...] = (),
    rerun: Rerun | None = None,
) -> ReportData:
    """What a report shows, from evaluations and from the training logs under `models`/NAME."""
    reference, candidate = comparison.reference, comparison.candidate
    return ReportData(
        title=title,
        comparison=comparison,
        training=tuple(t for name in results if (t := training_of(name, models / name)) is not None),
        pairs=Pairs(sources(groups), dict(skipped or {})) if groups else None,
        failures=failures_by_cause(results[reference], results[candidate]),
        examples=differing_examples(results[reference], results[candidate]),
        stages=stages,
        rerun=rerun,
    )


def training_of(name: str, run: Path) -> Training | None:
    """The curves of a training run, when it has any."""
    log = run / "log.jsonl"
    if not log.is_file():
        return None
    rows = tuple(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    result = json.loads((run / "run.json").read_text(encoding="utf-8")).get("result", {})
    return Training(name, rows, kept=result.get("best_step"), note=" ".join(result.get("warnings", ())))


def sources(groups: Sequence[PreferenceGroup]) -> tuple[PairSource, ...]:
    """How many groups and edges each source has given."""
    by_source: dict[str, list[int]] = {}
    for group in groups:
        for source in {e.source for e in group.edges}:
            count = by_source.setdefault(source, [0, 0])
            count[0] += 1
            count[1] += sum(e.source == source for e in group.edges)
    return tuple(PairSource(name, n, edges) for name, (n, edges) in sorted(by_source.items()))


def facts(results: Mapping[str, list[EvalResult]]) -> dict[str, str]:
    """What a figure depends on beside the settings: model hashes and package versions."""
    hashes = {f"model {name}": rows[0].model for name, rows in results.items()}
    return {**hashes, **{p: version(p) for p in ("hafs", "torch", "transformers", "peft")}}


def judge_cards(store: Store) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The judges that were calibrated in this workspace: a title and the figures of each calibration, newest first."""
    found = [r for r in store.runs(kind="calibration") if r.status == "finished"]
    return tuple(
        (f"Judge {r.config.get('judge', r.model) or ''}, calibrated".replace("  ", " "), dict(r.metrics)) for r in found
    )


def agreement(store: Store, scorer: Scorer) -> tuple[str, ...]:
    """How often people order two answers as each other and as the checker does, in words; nothing without people.

    A pair counts where both sides order it; the pairs of a prompt are averaged first, the intervals go by prompt.
    """
    people: dict[str, dict[str, Ranking]] = defaultdict(dict)
    for annotation in store.annotations():
        if (ranking := annotation.ranking()) is not None:
            people[ranking.prompt_id][annotation.annotator] = ranking  # of several looks the newest
    if not people:
        return ()
    orders = {prompt: {who: _order(r) for who, r in by.items()} for prompt, by in people.items()}
    prompts = list(store.prompts(ids=list(people)))
    names_of = [s.name for s, _ in checkers(scorer, prompts)]
    checked = stored_answers(store, scorer, prompts)
    machine = {prompt.id: _order(rank(found)) for prompt, found in checked if found}
    with_machine = [(p, o, machine[p]) for p, by in orders.items() if p in machine for o in by.values()]
    among = [(p, a, b) for p, by in orders.items() for a, b in combinations(by.values(), 2)]
    names = {who for by in orders.values() for who in by}
    lines = [f"{len(names)} {'person' if len(names) == 1 else 'people'} ranked the answers to {len(people)} prompts."]
    checker = f"the checker {names_of[0]}" if len(names_of) == 1 else "each prompt's checker"
    sides = ((f"people and {checker}", with_machine), ("two people", among))
    return (*lines, *(line for who, found in sides if (line := _agreed(who, found))))


Order = Mapping[tuple[str, str], bool]


def _order(ranking: Ranking) -> Order:
    """{(one id, another id): whether the first is better} of every two candidates in different tiers."""
    tier = {id: i for i, ids in enumerate(ranking.tiers) for id in ids}
    return {(a, b): tier[a] < tier[b] for a, b in combinations(sorted(tier), 2) if tier[a] != tier[b]}


def _agreed(who: str, found: Sequence[tuple[str, Order, Order]]) -> str:
    same = [(p, float(a[pair] == b[pair])) for p, a, b in found for pair in a.keys() & b.keys()]
    if not same:
        return ""
    e = bootstrap_mean([x for _, x in same], [p for p, _ in same])
    return f"Of two answers that both order, {who} agree on {percent(e.value)} ({interval(e)}, {e.n} prompts)."
