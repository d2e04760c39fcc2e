"""What the workspace store tells: every reading method, streaming in the order of the prompts' ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, Engine, Select, Text, and_, exists, func, select, type_coerce

from hafs.errors import UsageError
from hafs.store import schema
from hafs.store.engine import transaction
from hafs.store.query import Matching, by_scorer, in_prompts, matches
from hafs.store.rows import KINDS, Run, check_kind, columns
from hafs.types import Annotation, Candidate, PreferenceGroup, Prompt, Ranking, RatedAnswer, Score, Verdict

_DECODER = json.JSONDecoder()

Answers = tuple[Prompt, list[tuple[Candidate, Score | None]]]
"""A prompt with its candidates and what one scorer says of each; None where it has said nothing."""


class CandidateFilters(TypedDict, total=False):
    """Filters by what a candidate is: its prompt's id, split and family, its model's hash, its source."""

    prompt_ids: Matching
    split: Matching
    family: Matching
    model: Matching
    source: Matching


class Reader:
    """The reading side of an open database.

    In every method a filter is one value or a collection of values; None means no filter. What is given back as an
    iterator holds a connection until it is exhausted or closed; writing meanwhile is fine.
    """

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._dialect = engine.dialect.name
        self.where = where

    def prompts(
        self,
        *,
        ids: Matching = None,
        split: Matching = None,
        family: Matching = None,
        category: Matching = None,
        source: Matching = None,
    ) -> Iterator[Prompt]:
        """Prompts in the order of their ids."""
        t = schema.prompts.c
        of = ((t.id, ids), (t.split, split), (t.family, family), (t.category, category), (t.source, source))
        return self._stream("prompts", self._select("prompts", of).order_by(t.id))

    def count_prompts(self, *, prompt_ids: Matching = None, split: Matching = None, family: Matching = None) -> int:
        """How many prompts there are of these."""
        t = schema.prompts.c
        query = select(func.count()).where(*self._all((t.id, prompt_ids), (t.split, split), (t.family, family)))
        with self._reading() as conn:
            return int(conn.execute(query.select_from(schema.prompts)).scalar_one())

    def candidates(self, *, ids: Matching = None, **filters: Unpack[CandidateFilters]) -> Iterator[Candidate]:
        """Candidates by prompt, then by seed and index."""
        query = self._select("candidates", ((schema.candidates.c.id, ids),))
        return self._stream("candidates", self._of_candidates(query, filters))

    def scores(
        self,
        *,
        ids: Matching = None,
        candidate_ids: Matching = None,
        prompt_ids: Matching = None,
        scorer: Matching = None,
        version: Matching = None,
        model: Matching = None,
        split: Matching = None,
        family: Matching = None,
        scored: bool | None = None,
    ) -> Iterator[Score]:
        """Scores in the order of `candidates`; `scored` True or False keeps those with or without a value."""
        t, c = schema.scores.c, schema.candidates.c
        wanted = (
            (t.id, ids),
            (t.candidate_id, candidate_ids),
            (c.prompt_id, prompt_ids),
            (t.scorer, scorer),
            (t.version, version),
            (c.model, model),
        )
        query = self._select("scores", wanted).join(schema.candidates, t.candidate_id == c.id)
        query = query.where(*in_prompts(c.prompt_id, split, family, self._dialect))
        if scored is not None:
            query = query.where(t.value.is_not(None) if scored else t.value.is_(None))
        return self._stream("scores", query.order_by(c.prompt_id, c.seed, c.idx, c.id, t.id))

    def rankings(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        source: Matching = None,
        split: Matching = None,
        family: Matching = None,
    ) -> Iterator[Ranking]:
        """Rankings by prompt."""
        t = schema.rankings.c
        query = self._select("rankings", ((t.id, ids), (t.prompt_id, prompt_ids), (t.source, source)))
        query = query.where(*in_prompts(t.prompt_id, split, family, self._dialect))
        return self._stream("rankings", query.order_by(t.prompt_id, t.id))

    def verdicts(
        self, *, ids: Matching = None, prompt_ids: Matching = None, judge: Matching = None, protocol: Matching = None
    ) -> Iterator[Verdict]:
        """A judge's verdicts, by prompt."""
        t = schema.verdicts.c
        wanted = ((t.id, ids), (t.prompt_id, prompt_ids), (t.judge, judge), (t.protocol, protocol))
        return self._stream("verdicts", self._select("verdicts", wanted).order_by(t.prompt_id, t.judge, t.id))

    def annotations(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        annotator: Matching = None,
        mode: Matching = None,
        undone: bool = False,
    ) -> Iterator[Annotation]:
        """What people said, in the order they said it; `undone` brings what was taken back too."""
        t = schema.annotated.c
        wanted = ((t.id, ids), (t.prompt_id, prompt_ids), (t.annotator, annotator), (t.mode, mode))
        query = self._select("annotations", wanted)
        query = query if undone else query.where(t.undone.is_(None))
        return self._stream("annotations", query.order_by(t.submitted, t.id))

    def groups(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        split: Matching = None,
        family: Matching = None,
        run: Matching = None,
    ) -> Iterator[PreferenceGroup]:
        """Preference groups by prompt; `run` keeps those that this run made."""
        t, link = schema.groups.c, schema.run_groups.c
        query = self._select("groups", ((t.id, ids), (t.prompt_id, prompt_ids), (t.split, split), (t.family, family)))
        if run is not None:
            made = select(link.group_id).where(*matches(link.run_id, run, self._dialect))
            query = query.where(t.id.in_(made))
        return self._stream("groups", query.order_by(t.prompt_id, t.id))

    def runs(self, *, ids: Matching = None, kind: Matching = None) -> Iterator[Run]:
        """Runs, the newest first."""
        t = schema.runs.c
        query = self._select("runs", ((t.id, ids), (t.kind, kind)))
        return self._stream("runs", query.order_by(t.started.desc(), t.id))

    def ended(self, kind: Matching, **config: Any) -> list[Run]:
        """The finished runs of a kind with these settings, in the order of their ends."""
        found = [r for r in self.runs(kind=kind) if r.status == "finished" and config.items() <= dict(r.config).items()]
        return sorted(found, key=lambda r: r.finished or 0.0)

    def newest(self, kind: Matching, **config: Any) -> Run | None:
        """The run of a kind with these settings that ended last and well, or None."""
        return next(reversed(self.ended(kind, **config)), None)

    def answers(
        self,
        scorer: str,
        version: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **filters: Unpack[CandidateFilters],
    ) -> Iterator[Answers]:
        """Each prompt with its candidates and their scores by one scorer, in the order of the prompts' ids.

        Where `version` or `arguments` is not given, it is what the scorer had when it last scored here:
        scores of different versions or arguments are never mixed. Prompts without candidates come with an
        empty list. Raises UsageError when the scorer has scored nothing.
        """
        version, arguments = self._latest(scorer, version, arguments)
        t, c = schema.scores.c, schema.candidates.c
        query = select(*columns("candidates"), *columns("scores")).select_from(schema.candidates)
        given = and_(t.candidate_id == c.id, *by_scorer(scorer, version, arguments))
        n = len(columns("candidates"))
        for prompt, rows in self._by_prompt(query.outerjoin(schema.scores, given), filters):
            yield prompt, [(Candidate(*r[:n]), None if r[n] is None else Score(*r[n:])) for r in rows]

    def ranked_answers(
        self,
        scorer: str,
        version: str,
        arguments: Mapping[str, Any],
        between: tuple[str, str] = ("", ""),
        **filters: Unpack[CandidateFilters],
    ) -> Iterator[tuple[Prompt, list[RatedAnswer]]]:
        """What `answers` gives, with only what groups are made of; several times as fast.

        A prompt comes without category, source and what checks it; the order of its answers is not defined. `between`
        keeps to prompts with an id from the first (included) to the second (not included; "" for no end).
        """
        p, c, t = schema.prompts.c, schema.candidates.c, schema.scores.c
        asked = (p.id, p.text, p.system, p.family, p.split, p.reference_texts, p.context, p.tools)
        raw = (type_coerce(column, Text) for column in (*asked, c.id, c.text, c.finish, c.thought, t.sort_key))
        query: Any = select(*raw, t.value, t.tolerance, t.passed).select_from(schema.prompts)
        theirs = self._all((c.model, filters.get("model")), (c.source, filters.get("source")))
        query = query.outerjoin(schema.candidates, and_(c.prompt_id == p.id, *theirs))
        query = query.outerjoin(schema.scores, and_(t.candidate_id == c.id, *by_scorer(scorer, version, arguments)))
        named = ((p.id, filters.get("prompt_ids")), (p.split, filters.get("split")), (p.family, filters.get("family")))
        query = query.where(*self._all(*named), p.id >= between[0]).order_by(p.id)
        if between[1]:
            query = query.where(p.id < between[1])
        with self._reading() as conn:
            for _, rows in groupby(self._rows(conn, query), key=itemgetter(0)):
                found: list[RatedAnswer] = []
                for row in rows:
                    *prompt, id, text, finish, thought, key, value, tolerance, passed = row
                    thought = schema.unescape_text(thought or "")
                    if value is not None:
                        ranks = tuple(_DECODER.raw_decode(key)[0]) or (value,)
                        said = (value, ranks, tolerance, passed, False, finish, thought)
                        found.append(RatedAnswer(id, schema.unescape_text(text), *said))
                    elif id is not None:
                        found.append(RatedAnswer(id, schema.unescape_text(text), finish=finish, thought=thought))
                text, system, family, split = map(schema.unescape_text, prompt[1:5])
                known = schema.references(json.loads(prompt[5]))
                context, tools = (tuple(json.loads(part)) for part in prompt[6:8])
                made = Prompt(text, system, family, split=split, references=known, context=context, tools=tools)
                yield made, found

    def to_score(
        self,
        scorer: str,
        version: str,
        arguments: Mapping[str, Any],
        everything: bool = False,
        **filters: Unpack[CandidateFilters],
    ) -> Iterator[tuple[Prompt, Candidate]]:
        """The candidates, with their prompts, that this scorer has given no value: new and unscored ones; all of them
        with `everything`.
        """
        t, c = schema.scores.c, schema.candidates.c
        given = (t.candidate_id == c.id, t.value.is_not(None), *by_scorer(scorer, version, arguments))
        query = select(*columns("candidates"))
        query = query if everything else query.where(~exists(select(1).where(*given)))
        for prompt, rows in self._by_prompt(query, filters):
            yield from ((prompt, Candidate(*row)) for row in rows)

    def token_ids(self, candidate_ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The exact ids that were sampled for these candidates, where they are known, by candidate id."""
        t = schema.candidate_tokens
        query = select(t.c.candidate_id, t.c.token_ids)
        with self._reading() as conn:
            conditions = matches(t.c.candidate_id, list(candidate_ids), self._dialect)
            return {row.candidate_id: row.token_ids for row in conn.execute(query.where(*conditions))}

    def get_prompt(self, id: str) -> Prompt | None:
        """The prompt with this id, or None."""
        return next(self.prompts(ids=id), None)

    def get_candidate(self, id: str) -> Candidate | None:
        """The candidate with this id, or None."""
        return next(self.candidates(ids=id), None)

    def get_score(self, id: str) -> Score | None:
        """The score with this id, or None."""
        return next(self.scores(ids=id), None)

    def get_ranking(self, id: str) -> Ranking | None:
        """The ranking with this id, or None."""
        return next(self.rankings(ids=id), None)

    def get_group(self, id: str) -> PreferenceGroup | None:
        """The preference group with this id, or None."""
        return next(self.groups(ids=id), None)

    def get_run(self, id: str) -> Run | None:
        """The run with this id, or None."""
        return next(self.runs(ids=id), None)

    def ids(self, kind: str, beginning: str) -> list[str]:
        """The ids of a kind's rows that begin so, in order; at most 100."""
        check_kind(kind)
        t = KINDS[kind].table.c
        query = select(t.id).where(t.id.startswith(beginning, autoescape=True)).order_by(t.id).limit(100)
        with self._reading() as conn:
            return list(conn.execute(query).scalars())

    def counts(self) -> dict[str, int]:
        """How many rows of each kind there are; `unscored` counts the scores without a value."""
        queries = {name: select(func.count()).select_from(kind.table) for name, kind in KINDS.items()}
        queries["unscored"] = select(func.count()).where(schema.scores.c.value.is_(None))
        with self._reading() as conn:
            return {name: int(conn.execute(query).scalar_one()) for name, query in queries.items()}

    def scorers(self, *, arguments: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """For each scorer and version: the number of candidates scored, left unscored, and passed; of all arguments
        together, or with these `arguments`."""
        t = schema.scores.c
        figures = {
            "scored": func.count(t.value),
            "unscored": func.count() - func.count(t.value),
            "passed": func.count().filter(t.passed.is_(True)),
        }
        query = select(t.scorer, t.version, *(f.label(name) for name, f in figures.items()))
        if arguments is not None:
            query = query.where(t.arguments == arguments)
        with self._reading() as conn:
            found = conn.execute(query.group_by(t.scorer, t.version).order_by(t.scorer, t.version))
            return [dict(row) for row in found.mappings()]

    # ---- inside

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self.where)

    def _select(self, kind: str, wanted: Iterable[tuple[Any, Matching]]) -> Select[Any]:
        return select(*columns(kind)).where(*self._all(*wanted))

    def _all(self, *wanted: tuple[Any, Matching]) -> list[ColumnElement[bool]]:
        """The conditions that each column is what is wanted of it."""
        return [c for column, value in wanted for c in matches(column, value, self._dialect)]

    def _rows(self, conn: Connection, query: Select[Any]) -> Iterator[Any]:
        return iter(conn.execute(query, execution_options={"stream_results": True, "yield_per": 500}))

    def _stream(self, kind: str, query: Select[Any]) -> Iterator[Any]:
        with self._reading() as conn:
            for row in self._rows(conn, query):
                yield KINDS[kind].cls(*row)

    def _of_candidates(self, query: Select[Any], filters: CandidateFilters) -> Select[Any]:
        """`query` of candidates kept to what `filters` say, ordered by prompt, seed and index."""
        c = schema.candidates.c
        conditions = in_prompts(c.prompt_id, filters.get("split"), filters.get("family"), self._dialect)
        conditions += matches(c.prompt_id, filters.get("prompt_ids"), self._dialect)
        conditions += matches(c.model, filters.get("model"), self._dialect)
        conditions += matches(c.source, filters.get("source"), self._dialect)
        return query.where(*conditions).order_by(c.prompt_id, c.seed, c.idx, c.id)

    def _by_prompt(self, query: Select[Any], filters: CandidateFilters) -> Iterator[tuple[Prompt, list[Any]]]:
        """Every prompt with the rows of `query` that are its; a row begins with the prompt's id.

        Two reads in the same order are merged, so a prompt is read once however many candidates it has.
        """
        t = schema.prompts.c
        split, family = filters.get("split"), filters.get("family")
        wanted = ((t.id, filters.get("prompt_ids")), (t.split, split), (t.family, family))
        prompts = select(*columns("prompts"), t.id).where(*self._all(*wanted)).order_by(t.id)
        with self._reading() as conn:
            rows = self._rows(conn, self._of_candidates(query, filters))
            groups = groupby(rows, key=lambda row: row[0])
            id, members = next(groups, ("", iter(())))
            for *fields, prompt_id in self._rows(conn, prompts):
                while id and id < prompt_id:
                    id, members = next(groups, ("", iter(())))
                yield Prompt(*fields), list(members) if id == prompt_id else []

    def _latest(
        self, scorer: str, version: str | None, arguments: Mapping[str, Any] | None
    ) -> tuple[str, Mapping[str, Any]]:
        if version is not None and arguments is not None:
            return version, arguments
        t = schema.scores.c
        query = select(t.version, t.arguments).where(*by_scorer(scorer, version, arguments))
        with self._reading() as conn:
            found = conn.execute(query.order_by(t.added.desc()).limit(1)).first()
        if found is None:
            name = scorer if version is None else f"{scorer}@{version}"
            raise UsageError(f"{self.where} has no scores by {name}", f"hafs score --scorer {scorer}")
        return found[0], found[1]
