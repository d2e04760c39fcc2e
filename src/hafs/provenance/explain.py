"""The history of one thing: back to the prompt, the sampling, the model, the scores and the votes, and forward to the
runs that trained on it.

`explain` finds what an id, a path or the beginning of an id names (a preference group or its edge, a candidate, a
prompt, a model) and returns a tree of facts; every fact is in the workspace's database or in a training directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from hafs.errors import UsageError
from hafs.models.lineage import TrainingRun, ancestry, training_runs
from hafs.models.naming import DEFAULT_NAMES, model_hash
from hafs.store import Store, Workspace
from hafs.types import Annotation, Candidate, Edge, PreferenceGroup, Prompt, Ranking, Score, Verdict

__all__ = ["Fact", "explain"]

_SHORT = 100  # characters of a text in a line
_MANY = 20  # groups of a candidate that are told in full


@dataclass
class Fact:
    """A line of the history and what lies behind it; `data` holds the same as values."""

    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)
    behind: list[Fact] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    def to_rich(self) -> Tree:
        """The history as a tree for a terminal."""
        tree = Tree(Text(f"{self.kind}: {self.text}"))
        _grow(tree, self.behind)
        return tree


def _grow(tree: Tree, facts: Sequence[Fact]) -> None:
    for fact in facts:
        _grow(tree.add(Text.assemble((f"{fact.kind}: ", "bold"), fact.text)), fact.behind)


def explain(workspace: Workspace, store: Store, what: str) -> Fact:
    """The history of what `what` names: an id (or its first 6 digits or more), GROUP:NUMBER for one edge, or a model.

    Raises UsageError when nothing, or more than one thing, has that name.
    """
    place = Path(what).expanduser()
    if (place / "run.json").is_file() and (place / "model").is_dir():
        place = place / "model"
    history = _History(workspace, store, [place] if place.is_dir() else [])
    id, _, number = what.partition(":")
    if place.is_dir() or what in DEFAULT_NAMES:
        return history.model(model_hash(place if place.is_dir() else what), what)
    group = _one(store.groups(ids=_full(store, "groups", id)))
    if group is not None:
        return history.group(group, _edge_number(group, number))
    candidate = _one(store.candidates(ids=_full(store, "candidates", id)))
    if candidate is not None:
        return history.candidate(candidate)
    prompt = _one(store.prompts(ids=_full(store, "prompts", id)))
    if prompt is not None:
        return history.prompt_and_answers(prompt)
    if (model := history.known_model(id)) is not None:
        return history.model(model)
    raise UsageError(
        f"nothing here is called {what!r}",
        "give the id of a preference group, candidate or prompt, or a"
        " model's directory or hash; `hafs data export` writes ids",
    )


class _History:
    """The histories of a workspace's things; what several need is read once."""

    def __init__(self, workspace: Workspace, store: Store, models: Sequence[Path] = ()) -> None:
        self.store = store
        self.runs = training_runs([workspace.root], models)
        self._trained: dict[str, list[TrainingRun]] | None = None

    # ---- the things

    def group(self, group: PreferenceGroup, number: int | None = None) -> Fact:
        edges = list(enumerate(group.edges)) if number is None else [(number, group.edges[number])]
        text = f"{group.id}, {len(group.candidates)} candidates, {len(group.edges)} edges, {group.split}"
        data = {"id": group.id, "family": group.family, "split": group.split}
        fact = Fact("preference group", text, data)
        prompt = self.store.get_prompt(group.prompt_id) if group.prompt_id else None
        fact.behind.append(_prompt(prompt) if prompt else Fact("prompt", _short(group.prompt), {"text": group.prompt}))
        shown = {i for _, e in edges for i in (e.winner, e.loser)} if number is not None else None
        for i, c in enumerate(group.candidates):
            if shown is None or i in shown:
                known = self.store.get_candidate(c.id) if c.id else None
                inner = (
                    self._candidate(known)
                    if known
                    else Fact(
                        "text",
                        _short(c.text),
                        {"text": c.text},
                        [Fact("source", "not sampled here: a reference answer or an import")],
                    )
                )
                mark = " (not sampled by the model in training)" if c.off_policy else ""
                fact.behind.append(Fact(f"candidate {i}{mark}", inner.text, inner.data, inner.behind))
        for n, edge in edges:
            fact.behind.append(self._edge(group, n, edge))
        fact.behind += self._made_by(group)
        fact.behind += self._used_by(group.id)
        return fact

    def candidate(self, candidate: Candidate) -> Fact:
        fact = self._candidate(candidate, with_prompt=True)
        holding = [
            g
            for g in self.store.groups(prompt_ids=candidate.prompt_id)
            if any(c.id == candidate.id for c in g.candidates)
        ]
        for g in holding[:_MANY]:
            index = next(i for i, c in enumerate(g.candidates) if c.id == candidate.id)
            mine = [(n, e) for n, e in enumerate(g.edges) if index in (e.winner, e.loser)]
            wins = sum(e.winner == index for _, e in mine)
            inner = Fact("preference group", f"{g.id}, wins {wins} and loses {len(mine) - wins} edges", {"id": g.id})
            inner.behind = [self._edge(g, n, e) for n, e in mine] + self._used_by(g.id)
            fact.behind.append(inner)
        if not holding:
            fact.behind.append(Fact("used", "in no preference group"))
        return fact

    def prompt_and_answers(self, prompt: Prompt) -> Fact:
        fact = _prompt(prompt)
        fact.behind += [self._candidate(c) for c in self.store.candidates(prompt_ids=prompt.id)]
        for g in self.store.groups(prompt_ids=prompt.id):
            fact.behind.append(
                Fact("preference group", f"{g.id}, {len(g.edges)} edges", {"id": g.id}, self._used_by(g.id))
            )
        return fact

    def model(self, model: str, name: str = "") -> Fact:
        fact = Fact("model", f"{model}{f' ({name})' if name else ''}", {"hash": model, "name": name})
        chain = ancestry(model, self.runs)
        for run in chain:
            fact.behind.append(self._training(run))
        base = chain[-1].parent if chain else model
        where = f", which lay in {chain[-1].began_at}" if chain and chain[-1].began_at else ""
        fact.behind.append(Fact("began with", f"model {base}{where}; no run known here made it", {"model": base}))
        for done in self.store.runs(kind=["eval", "eval-sampled"]):
            if done.model == model and done.outputs:
                m = done.metrics
                said = f"{m['passed']} of {m['scored']} right" if "scored" in m else f"{m.get('answers')} answers"
                about = {"run": done.id, "benchmark": done.config["benchmark"], **m}
                kind = "evaluated" if done.kind == "eval" else "sampled"
                fact.behind.append(Fact(kind, f"{done.config['benchmark']} as {done.config['name']}: {said}", about))
        n = sum(1 for _ in self.store.candidates(model=model))
        fact.behind.append(Fact("answered", f"{n} candidates in this workspace", {"candidates": n}))
        later = [r for r in self.runs if r.parent == model]
        fact.behind += [Fact("trained on by", _run_text(r), {"directory": str(r.directory)}) for r in later]
        return fact

    def known_model(self, beginning: str) -> str | None:
        """The hash of a model that is known here and begins so."""
        hashes = {h for r in self.runs for h in (r.model, r.parent)} | {r.model for r in self.store.runs(kind="eval")}
        found = sorted(h for h in hashes if h and len(beginning) >= 6 and h.startswith(beginning))
        if len(found) > 1:
            raise UsageError(f"{len(found)} models begin with {beginning}", "give more digits")
        if found:
            return found[0]
        return beginning if len(beginning) == 20 and _one(self.store.candidates(model=beginning)) else None

    # ---- what lies behind

    def _candidate(self, c: Candidate, with_prompt: bool = False) -> Fact:
        fact = Fact("candidate", f"{c.id}: {_short(c.text)}", {"id": c.id, "text": c.text})
        if with_prompt and (prompt := self.store.get_prompt(c.prompt_id)) is not None:
            fact.behind.append(_prompt(prompt))
        how = ", ".join(f"{k} {v}" for k, v in c.sampling.items())
        logprob = "" if c.logprob is None else f", log-probability {c.logprob:.3f}"
        cut = ", cut at the token limit" if c.finish == "length" else ""
        text = f"{c.source}, seed {c.seed}, answer {c.index}{f', {how}' if how else ''}{logprob}{cut}"
        about = {k: v for k, v in c.to_dict().items() if k != "text"}
        fact.behind.append(Fact("sampled", text, about))
        if c.model:
            chain = ancestry(c.model, self.runs)
            made = [Fact("made by", _run_text(r), {"directory": str(r.directory)}) for r in chain]
            fact.behind.append(Fact("model", f"{c.model} ({c.model_name})", {"hash": c.model}, made))
        fact.behind += [_score(s) for s in self.store.scores(candidate_ids=c.id)]
        said: list[Verdict | Annotation] = list(self.store.verdicts(prompt_ids=c.prompt_id))
        said += list(self.store.annotations(prompt_ids=c.prompt_id))
        fact.behind += [_vote(v, c.id) for v in said if c.id in v.shown]
        given = [r for r in self.store.rankings(prompt_ids=c.prompt_id) if any(c.id in tier for tier in r.tiers)]
        fact.behind += [_ranking(r, c.id) for r in given]
        return fact

    def _edge(self, group: PreferenceGroup, number: int, e: Edge) -> Fact:
        calibrated = "" if e.calibrated is None else ", calibrated" if e.calibrated else ", NOT calibrated"
        text = (
            f"candidate {e.winner} beats candidate {e.loser}, weight {e.weight:g}, probability {e.p:g}, by"
            f" {e.source or 'an unnamed source'}{calibrated}"
        )
        fact = Fact(f"edge {number}", text, {"id": f"{group.id}:{number}", **asdict(e)})
        both = {group.candidates[e.winner].id, group.candidates[e.loser].id} - {""}
        said: list[Verdict | Annotation] = []
        if group.prompt_id and e.source.startswith("judge:"):
            said += list(self.store.verdicts(prompt_ids=group.prompt_id))
        if group.prompt_id and e.source.startswith("human"):
            said += list(self.store.annotations(prompt_ids=group.prompt_id))
        fact.behind += [_vote(v) for v in said if both <= set(v.shown)]
        scorer = e.source.partition("@")[0]
        fact.behind += [_score(s) for s in self.store.scores(candidate_ids=both) if s.scorer == scorer]
        return fact

    def _made_by(self, group: PreferenceGroup) -> list[Fact]:
        out = []
        for run in self.store.runs(kind="preferences"):
            if any(g.id == group.id for g in self.store.groups(run=run.id, ids=group.id)):
                about = ", ".join(f"{k} {v}" for k, v in run.config.items() if v not in ({}, ""))
                out.append(Fact("built by", f"run {run.id} ({about})", {"run": run.id, "config": dict(run.config)}))
        return out

    def _used_by(self, group: str) -> list[Fact]:
        if self._trained is None:
            self._trained = {}
            for run in self.runs:
                for row in run.trained_on():
                    self._trained.setdefault(row.group, []).append(run)
        found = self._trained.get(group, [])
        facts = [Fact("trained on by", _run_text(r), {"directory": str(r.directory), "model": r.model}) for r in found]
        return facts or [Fact("trained on by", "no run that is known here")]

    def _training(self, run: TrainingRun) -> Fact:
        rows = list(run.trained_on())
        sources: dict[str, int] = {}
        for row in rows:
            for source in row.sources:
                sources[source] = sources.get(source, 0) + 1
        fact = Fact(
            "made by",
            _run_text(run),
            {
                "directory": str(run.directory),
                "kind": run.kind,
                "model": run.model,
                "parent": run.parent,
                "data": run.data,
                "template": run.template,
                "tokenizer": run.tokenizer,
                "settings": dict(run.settings),
                "result": dict(run.result or {}),
            },
        )
        seen = (
            f"{len(rows)} groups (hash {run.data})" if rows else f"groups of hash {run.data}, not recorded one by one"
        )
        by = ", ".join(f"{n} by {source}" for source, n in sorted(sources.items()))
        fact.behind.append(Fact("data", f"{seen}{f': {by}' if by else ''}", {"groups": len(rows), "sources": sources}))
        chosen = ("learning_rate", "num_epochs", "beta", "loss", "seed", "precision", "method")
        text = ", ".join(f"{k} {run.settings[k]}" for k in chosen if k in run.settings)
        fact.behind.append(Fact("settings", text, dict(run.settings)))
        return fact


def _prompt(p: Prompt) -> Fact:
    about = ", ".join(
        x for x in (p.family, p.category, p.split, p.source, f"checked by {p.checker}" * bool(p.checker)) if x
    )
    text = f"{p.id}: {_short(p.text)}{f' ({about})' if about else ''}"
    return Fact("prompt", text, {"id": p.id, "text": p.text, "system": p.system, "family": p.family, "split": p.split})


def _score(s: Score) -> Fact:
    name = f"{s.scorer}@{s.version}"
    if s.value is None:
        said = f"unscored, because {s.reason}"
    else:
        verdict = "" if s.passed is None else " passed" if s.passed else f" failed: {s.cause or 'no cause given'}"
        said = f"{s.value:g}{verdict}"
    return Fact("score", f"{name} {said}", s.to_dict())


def _vote(v: Verdict | Annotation, candidate: str = "") -> Fact:
    place = f", this one in tier {_tier(v.tiers, candidate)} of {len(v.tiers)}" if candidate and v.tiers else ""
    if isinstance(v, Verdict):
        text = f"{v.judge} by {v.protocol}: {v.outcome}{place}{f' ({v.reason})' if v.reason else ''}"
        return Fact("verdict", text, v.to_dict())
    sure = f", {v.confidence}" if v.confidence else ""
    return Fact("annotation", f"{v.annotator} ({v.mode}): {v.answer}{sure}{place}", v.to_dict())


def _ranking(r: Ranking, candidate: str) -> Fact:
    return Fact("ranking", f"{r.source}: tier {_tier(r.tiers, candidate)} of {len(r.tiers)}", r.to_dict())


def _tier(tiers: Sequence[Sequence[str]], candidate: str) -> str:
    return next((str(i) for i, tier in enumerate(tiers, 1) if candidate in tier), "none")


def _run_text(r: TrainingRun) -> str:
    state = f"made model {r.model}" if r.model else "has made no model yet"
    return f"{r.kind} in {r.directory}, {state}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"


def _edge_number(group: PreferenceGroup, number: str) -> int | None:
    if not number:
        return None
    if not number.isdecimal() or int(number) >= len(group.edges):
        raise UsageError(f"group {group.id} has no edge {number!r}", f"its edges are 0 to {len(group.edges) - 1}")
    return int(number)


def _one(rows: Iterator[Any]) -> Any:
    try:
        return next(rows, None)
    finally:
        rows.close()  # type: ignore[attr-defined]


def _full(store: Store, kind: str, beginning: str) -> str:
    """The id that begins so, when there is exactly one; else what was given."""
    if len(beginning) >= 20 or len(beginning) < 6:
        return beginning
    found = store.ids(kind, beginning)
    if len(found) > 1:
        raise UsageError(f"{len(found)} {kind} begin with {beginning}", "give more digits")
    return found[0] if found else beginning
