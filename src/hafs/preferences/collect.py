"""Preference groups of a workspace: built from scores or from people, kept as one run, read back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hafs.config import PreferencesConfig
from hafs.errors import UsageError
from hafs.judge.labels import read_labels
from hafs.preferences import BuildReport, Stats, group_from_labels
from hafs.preferences.parallel import Build, Built, build, few_cycles
from hafs.scorers import Scorer, prepare
from hafs.scorers.run import NO_CHECKER, AutomaticScorer, checkers_with_filters, of_prompts
from hafs.store import Store
from hafs.store.marks import Exclusions
from hafs.types import PreferenceGroup, Progress, content_id, silent


@dataclass(frozen=True)
class BuiltGroups:
    """The groups of a run in the store; they are read when they are gone through, so any number of them fits."""

    store: Store
    run: str
    n: int

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[PreferenceGroup]:
        return self.store.groups(run=self.run)


def preference_groups(
    store: Store, scorer: Scorer, config: PreferencesConfig, progress: Progress = silent, **filters: Any
) -> tuple[BuiltGroups, BuildReport]:
    """The workspace's candidates as preference groups, by what `scorer` says of them.

    They are kept in the store as the groups of a run of kind "preferences", so that builds do not mix.
    """
    prepare(scorer, store.prompts())
    pairing = config.model_dump(exclude=set() if config.labels else {"labels"})
    parts = [(scorer, filters)]
    if isinstance(scorer, AutomaticScorer):
        parts = checkers_with_filters(scorer, lambda: store.prompts(**of_prompts(filters)), filters)
    if not parts and next(store.prompts(**of_prompts(filters)), None) is not None:
        raise UsageError(f"no candidate here has a checker: {NO_CHECKER}", "or --scorer NAME")
    built = Built()
    for checker, which in parts:
        work = Build(store.url, checker.name, checker.version, dict(checker.arguments), pairing, which)
        built += build(store, work, progress)
    names = ", ".join(f"{s.name}@{s.version}" for s, _ in parts)
    arguments = [dict(s.arguments) for s, _ in parts]
    about = {"scorer": names, "arguments": arguments[0] if len(parts) == 1 else arguments, **pairing}
    return _noted(store, built.ids, about, built.report.to_dict(), built.stats), built.report


def keep_groups(
    store: Store, groups: Iterable[PreferenceGroup], about: Mapping[str, Any], metrics: Callable[[], Mapping[str, Any]]
) -> BuiltGroups:
    """Put groups into the store as those of a run of kind "preferences", with their statistics; never all in memory.

    What people left out of training is not among them, and how much that was is said and kept with the metrics.
    """
    stats, excluded = Stats(), Exclusions.of(store)
    ids: list[str] = []
    with few_cycles():
        for rows in store.encoded("groups", stats.counted(excluded.groups(groups))):
            store.add_encoded("groups", rows)
            ids += [row["id"] for row in rows]
    left = {"prompts": excluded.prompts, "candidates": excluded.candidates}
    if said := str(excluded):
        logging.getLogger(__name__).warning("%s", said)
    return _noted(store, ids, about, {**metrics(), **({"left_out": left} if said else {})}, stats)


def _noted(
    store: Store, ids: Sequence[str], about: Mapping[str, Any], metrics: Mapping[str, Any], stats: Stats
) -> BuiltGroups:
    """Groups that are in the store as those of a run of kind "preferences"."""
    made = store.once("preferences", about, {"groups": content_id(ids)})
    store.link_groups(made.id, ids)
    made.finish(metrics, {"stats": stats.to_dict()})
    return BuiltGroups(store, made.id, len(ids))


def newest_stats(store: Store) -> Stats:
    """What is in the groups that `newest_groups` gives; counted when they were built where that is known."""
    run = store.newest("preferences")
    if run is not None and "stats" in run.outputs:
        return Stats.from_dict(dict(run.outputs["stats"]))
    stats = Stats()
    for group in store.groups(run=run.id if run else None):
        stats.add(group)
    return stats


def groups_from_people(
    store: Store,
    config: PreferencesConfig,
    *,
    annotators: Sequence[str] | None = None,
    split: str | None = None,
    only: Collection[str] | None = None,
) -> tuple[BuiltGroups, BuildReport]:
    """What people said of the workspace's candidates as preference groups; kept like those of `preference_groups`.

    `annotators` are the people that count (all without it), `split` the prompts' split; with `only`, these prompts.
    """
    labels = read_labels(store, blind=False, annotators=annotators)
    report = BuildReport()
    options: dict[str, Any] = {"scheme": config.scheme, "max_candidates": config.max_candidates}
    if config.labels:
        options["one_sided"] = True

    def made() -> Iterator[PreferenceGroup]:
        asked = labels.of.keys() | labels.ratings.keys()
        for prompt in store.prompts(ids=sorted(asked if only is None else asked & set(only)), split=split):
            report.prompts += 1
            group = group_from_labels(prompt, store.candidates(prompt_ids=prompt.id), labels, **options)
            if group is None:
                report.skipped["nobody said that one answer is better than another"] += 1
                continue
            report.groups += 1
            report.edges += len(group.edges)
            yield group

    about = {"scorer": "human", "annotators": sorted(annotators or ()), "split": split, **options}
    if only is not None:
        about["prompts"] = content_id(sorted(only))
    return keep_groups(store, made(), about, report.to_dict), report


def newest_groups(store: Store) -> list[PreferenceGroup]:
    """The groups of the newest build (of everything imported when nothing was built)."""
    run = store.newest("preferences")
    return list(store.groups(run=run.id if run else None))
