"""The list of candidates with its filters, one prompt's whole story, and the marks that people set there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any
from urllib.parse import urlencode

from hafs.errors import UsageError
from hafs.store import browse
from hafs.store.browse import CandidateQuery
from hafs.store.marks import MARKS, marks
from hafs.types import PreferenceGroup
from hafs.workbench.view import OpenWorkspace, Query, Sheet, View

FRESH = 20.0
WORDS = ("family", "split", "source", "model", "outcome", "cause", "mark", "text")
FILTERS = (*WORDS, "shortest", "longest", "disagree", "benchmark")


def prompts(bench: OpenWorkspace, query: Query) -> View:
    """A page of the list."""
    asked = read_query(bench, query)
    page = browse.browse(bench.store, asked)
    kept = {k: v for k in FILTERS if (v := query.get(k, "").strip())}
    rows = tuple(
        (r.id, r.prompt_id, r.family, r.split, r.model_name, r.outcome, r.cause, str(r.length), r.prompt, r.text)
        for r in page.rows
    )
    header = ("id", "prompt_id", "family", "split", "model", "outcome", "cause", "characters", "prompt", "answer")
    choices = _choices(bench) | {
        "outcome": [(o, o) for o in browse.OUTCOMES],
        "mark": [(m, m) for m in MARKS],
        "disagree": [("any", "somebody disagrees")],
    }
    values = {
        "rows": page.rows,
        "choices": choices,
        "given": kept,
        "more": f"/prompts?{urlencode(kept | {'after': page.after})}" if page.after else "",
        "start": f"/prompts?{urlencode(kept)}" if asked.after else "",
        "marked": _marked(bench),
    }
    return View(
        "prompts",
        "Prompts and answers",
        sheets=(Sheet("Candidates", header, rows),),
        values=values,
        template="list.html",
    )


_OFFERED: dict[str, tuple[float, dict[str, list[tuple[str, str]]]]] = {}


def _choices(bench: OpenWorkspace) -> dict[str, list[tuple[str, str]]]:
    """What the filters can be set to, looked up at most every `FRESH` seconds: it asks of every row."""
    when, found = _OFFERED.get(bench.store.url, (0.0, {}))
    if time.monotonic() - when > FRESH or not found:
        found = browse.choices(bench.store)
        found["benchmark"] = [(name, name) for name in sorted(_benchmarks(bench))]
        _OFFERED[bench.store.url] = time.monotonic(), found
    return found


def _benchmarks(bench: OpenWorkspace) -> dict[str, set[str]]:
    """The prompts of each benchmark that a model was evaluated on here."""
    if next(bench.store.runs(kind="eval"), None) is None:
        return {}
    from hafs.evals.kept import newest_results

    found: dict[str, set[str]] = {}
    for result in newest_results(bench.store):
        found.setdefault(result.benchmark, set()).update(r.prompt_id for r in result.results)
    return found


def read_query(bench: OpenWorkspace, query: Query) -> CandidateQuery:
    """The filters of a link. Raises UsageError for a length that is no number."""
    lengths = {}
    for name in ("shortest", "longest"):
        text = query.get(name, "").strip()
        if text and not text.isdigit():
            raise UsageError(f"{name} is a number of characters, not {text!r}", "write it in digits")
        lengths[name] = int(text or 0)
    given: dict[str, Any] = {**{k: query.get(k, "").strip() for k in WORDS}, **lengths}
    asked = CandidateQuery(**given, after=query.get("after", ""))
    bounds = [set(disagreed(bench))] if query.get("disagree") else []
    bounds += [_benchmarks(bench).get(name, set())] if (name := query.get("benchmark", "")) else []
    return replace(asked, prompt_ids=sorted(set.intersection(*bounds))) if bounds else asked


def disagreed(bench: OpenWorkspace) -> list[str]:
    """The prompts of which a judge, a person and the checker order two answers in different ways."""
    said: dict[tuple[str, str, str], set[bool]] = {}
    asked = set()

    def put(prompt: str, tiers: Any) -> None:
        place = {id: i for i, tier in enumerate(tiers) for id in tier}
        for a, b in combinations(sorted(place), 2):
            if place[a] != place[b]:
                said.setdefault((prompt, a, b), set()).add(place[a] < place[b])

    for found in (bench.store.verdicts(), bench.store.annotations()):
        for row in found:
            if row.tiers:
                asked.add(row.prompt_id)
                put(row.prompt_id, row.tiers)
    values: dict[str, dict[str, Any]] = {}
    of = {c.id: c.prompt_id for c in bench.store.candidates(prompt_ids=sorted(asked))} if asked else {}
    for score in bench.store.scores(prompt_ids=sorted(asked), scored=True) if asked else ():
        values.setdefault(of[score.candidate_id], {})[score.candidate_id] = score.key or (score.value,)
    for prompt, keys in values.items():
        put(prompt, [[id for id, k in keys.items() if k == key] for key in sorted(set(keys.values()), reverse=True)])
    return sorted({prompt for (prompt, _, _), orders in said.items() if len(orders) > 1})


def _marked(bench: OpenWorkspace) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mark in marks(bench.store):
        found.setdefault(mark.candidate_id or mark.prompt_id, []).append(mark.kind)
    return found


def story(bench: OpenWorkspace, query: Query) -> View:
    """Everything about one prompt."""
    from hafs.provenance.explain import explain

    id = query.get("id", "")
    found = browse.story(bench.store, id)
    known = marks(bench.store, prompt_id=id)
    groups = list(bench.store.groups(prompt_ids=id))
    letter = {c.id: chr(65 + i) if i < 26 else str(i + 1) for i, c in enumerate(found.candidates)}
    sheets = [_answers(found, letter), _scores(found, letter), _rankings(bench, id, letter), _edges(groups, letter)]
    values = {
        "story": found,
        "letter": letter,
        "marks": known,
        "left": query.get("left", ""),
        "right": query.get("right", ""),
        "sheets": sheets,
        "history": explain(bench.space, bench.store, id),
    }
    return View(
        "prompt",
        "One prompt",
        sheets=tuple(sheets),
        values=values | {"diff": _diff(found, query)},
        template="story.html",
    )


def _answers(found: browse.PromptStory, letter: dict[str, str]) -> Sheet:
    rows = tuple((letter[c.id], c.id, c.model_name, c.source, c.text) for c in found.candidates)
    return Sheet("Answers", ("letter", "id", "model", "source", "text"), rows)


def _scores(found: browse.PromptStory, letter: dict[str, str]) -> Sheet:
    words = {None: "", True: "yes", False: "no"}
    rows = [
        (letter[id], f"{s.scorer}@{s.version}", _number(s.value), words[s.passed], s.cause, s.reason)
        for id, scores in found.scores.items()
        for s in scores
    ]
    return Sheet("Scores", ("letter", "scorer", "value", "passed", "cause", "reason"), tuple(rows))


def _rankings(bench: OpenWorkspace, id: str, letter: dict[str, str]) -> Sheet:
    """What judges, people and imported rankings say, in letters."""
    store = bench.store
    rows = [("verdict", v.judge, _order(v.tiers, letter) or v.outcome, v.reason) for v in store.verdicts(prompt_ids=id)]
    for a in store.annotations(prompt_ids=id):
        rows.append(("person", a.annotator, _order(a.tiers, letter) or a.answer, a.note))
    rows += [("ranking", r.source, _order(r.tiers, letter), "") for r in store.rankings(prompt_ids=id)]
    return Sheet("Rankings", ("who", "name", "order", "why"), tuple(rows))


def _edges(groups: Sequence[PreferenceGroup], letter: dict[str, str]) -> Sheet:
    rows = []
    for g in groups:
        names = [letter.get(c.id, "reference") for c in g.candidates]
        rows += [(g.id[:8], names[e.winner], names[e.loser], f"{e.weight:g}", f"{e.p:g}", e.source) for e in g.edges]
    return Sheet("Edges", ("group", "winner", "loser", "weight", "probability", "source"), tuple(rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _order(tiers: Any, letter: dict[str, str]) -> str:
    return " › ".join(" = ".join(letter.get(id, "?") for id in tier) for tier in tiers)


def _diff(found: browse.PromptStory, query: Query) -> Any:
    """What differs between the two answers that the link names, else between the best and the worst."""
    from hafs.annotate.web.render import diff

    text = {c.id: c.text for c in found.candidates}
    passed = {
        id: max((s.value for s in rows if s.value is not None), default=-1.0) for id, rows in found.scores.items()
    }
    order = sorted(text, key=lambda id: -passed[id])
    left, right = query.get("left") or (order[-1] if order else ""), query.get("right") or (order[0] if order else "")
    if left not in text or right not in text or left == right:
        return None
    return {"left": left, "right": right, "lines": diff(text[left], text[right])}
