"""What a person has marked while looking: flags, prompts for people's queue, and what is left out of training.

A mark is about a whole prompt, or one answer to it. It is taken back, never deleted. What is left out makes no edge:
`Exclusions` says so of answers before they are paired, and of groups that are there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sqlalchemy import Connection, select, update

from hafs.errors import UsageError
from hafs.store import schema
from hafs.store.store import Store
from hafs.types import PreferenceGroup, Prompt, RatedAnswer, content_id

Learnt = TypeVar("Learnt", Prompt, PreferenceGroup)
"""What a training is given: prompts to sample answers to, or groups."""

FLAG, PERSON, LEFT_OUT = "flag", "person", "left out"
MARKS = (FLAG, PERSON, LEFT_OUT)


@dataclass(frozen=True)
class Mark:
    """A mark of a prompt (`candidate_id` is "") or of one answer to it: its kind, why, whose, since when."""

    id: str
    prompt_id: str
    candidate_id: str
    kind: str
    reason: str
    who: str
    made: float


def add_mark(store: Store, kind: str, prompt_id: str, candidate_id: str = "", reason: str = "", who: str = "") -> Mark:
    """Mark a prompt or an answer; the same mark again gets the new reason.

    Raises UsageError for an unknown kind, for what is left out without a reason, and for an answer that is not there.
    """
    if kind not in MARKS:
        raise UsageError(f"a mark cannot be {kind!r}", f"use one of: {', '.join(MARKS)}")
    if kind == LEFT_OUT and not reason.strip():
        raise UsageError("what is left out of training needs a reason", "say why in a few words")
    if candidate_id:
        found = store.get_candidate(candidate_id)
        if found is None or found.prompt_id != prompt_id:
            raise UsageError(f"the prompt has no answer {candidate_id}", "load the page again")
    mark = Mark(
        content_id("mark", kind, prompt_id, candidate_id),
        prompt_id,
        candidate_id,
        kind,
        reason.strip(),
        who,
        time.time(),
    )
    with store.connection(write=True) as conn:
        changed = update(schema.marks).where(schema.marks.c.id == mark.id).values(**vars(mark), undone=None)
        if not conn.execute(changed).rowcount:
            conn.execute(schema.marks.insert().values(**vars(mark), undone=None))
    return mark


def undo_mark(store: Store, id: str) -> bool:
    """Take a mark back; False when there is none."""
    t = schema.marks
    with store.connection(write=True) as conn:
        statement = update(t).where(t.c.id == id, t.c.undone.is_(None)).values(undone=time.time())
        return bool(conn.execute(statement).rowcount)


def marks(store: Store, kind: str | None = None, prompt_id: str | None = None) -> list[Mark]:
    """The marks that stand, the newest first."""
    with store.connection() as conn:
        return _marks(conn, kind, prompt_id)


def _marks(conn: Connection, kind: str | None, prompt_id: str | None) -> list[Mark]:
    t = schema.marks.c
    wanted = [c == v for c, v in ((t.kind, kind), (t.prompt_id, prompt_id)) if v is not None]
    columns = (t.id, t.prompt_id, t.candidate_id, t.kind, t.reason, t.who, t.made)
    query = select(*columns).where(t.undone.is_(None), *wanted).order_by(t.made.desc(), t.id)
    return [Mark(*row) for row in conn.execute(query)]


@dataclass
class Exclusions:
    """What people left out of training. What was met of it is counted: `prompts`, and `candidates` of others."""

    whole: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    prompts: int = 0
    candidates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, store: Store) -> Exclusions:
        """Those that stand in a workspace."""
        found = marks(store, LEFT_OUT)
        whole = frozenset(m.prompt_id for m in found if not m.candidate_id)
        return cls(whole, frozenset(m.candidate_id for m in found if m.candidate_id))

    def answers(self, found: Iterable[RatedAnswer]) -> list[RatedAnswer]:
        """The answers that may be learnt from."""
        all_of = list(found)
        kept = [a for a in all_of if a.id not in self.single] if self.single else all_of
        self.candidates += len(all_of) - len(kept)
        return kept

    def groups(self, found: Iterable[PreferenceGroup]) -> Iterator[PreferenceGroup]:
        """The groups without what was left out; those that have no edge and no label then are gone."""
        for group in found:
            if group.prompt_id and group.prompt_id in self.whole:
                self.prompts += 1
            elif (kept := self._without(group)) is not None:
                yield kept

    def kept(self, found: Iterable[Learnt]) -> Iterator[Learnt]:
        """The prompts, or the groups as `groups` gives them, that may be trained on."""
        for x in found:
            if isinstance(x, PreferenceGroup):
                yield from self.groups([x])
            elif x.id in self.whole:
                self.prompts += 1
            else:
                yield x

    def _without(self, group: PreferenceGroup) -> PreferenceGroup | None:
        gone = {i for i, c in enumerate(group.candidates) if c.id in self.single}
        if not gone:
            return group
        self.candidates += len(gone)
        place = {old: new for new, old in enumerate(i for i in range(len(group.candidates)) if i not in gone)}
        edges = tuple(
            replace(e, winner=place[e.winner], loser=place[e.loser])
            for e in group.edges
            if e.winner in place and e.loser in place
        )
        candidates = tuple(group.candidates[i] for i in place)
        if not edges and not any(c.label is not None for c in candidates):
            self.prompts += 1
            return None
        return replace(group, candidates=candidates, edges=edges)

    def __str__(self) -> str:
        """What was left out, in words; empty when nothing was met."""
        said = [f"{n} {what}" for n, what in ((self.prompts, "prompts"), (self.candidates, "answers")) if n]
        return f"{' and '.join(said)} are left out of training by a person's mark" if said else ""


def marked_queue(store: Store, who: str) -> str:
    """The queue of the prompts that were sent to people, for `hafs annotate start --queue`; gives its run's id.

    Raises UsageError when none was sent.
    """
    wanted = list(dict.fromkeys(m.prompt_id for m in reversed(marks(store, PERSON))))
    if not wanted:
        raise UsageError("no prompt was sent to people", "mark one first")
    rows = [{"id": id, "probability": None, "reason": "sent"} for id in wanted]
    about = {"prompts": len(rows), "who": who}
    return store.keep_run("annotation-queue", {"sent": "by hand"}, metrics=about, outputs={"prompts": rows})
