"""The one service behind both faces: who gets which item, what they answer, and taking it back.

Every item is given by a lease in the database, chosen and written in one exclusive transaction, so two people never
get the same item unless it is to be answered by several. An answer is kept in the transaction that closes its lease:
sending it twice, or once more after the server was killed, finds the answer that is there.

What a person sees again (a share of the prompts, unannounced) is spaced by `REPEAT_GAP` other items; what several
people see is drawn by the seed, so that a restart draws the same.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from hafs.annotate.items import Card, Item, Progress, make_cards, make_progress
from hafs.annotate.queue import Entry, Queue
from hafs.annotate.ranking import LABELS, implied_edges, pair_orders, parse_ranking
from hafs.annotate.stats import statistics_of
from hafs.config import AnnotateSettings
from hafs.errors import UsageError
from hafs.store import Desk, Lease, Store
from hafs.types import Annotation, Candidate, Prompt, Queued, content_id, same_text

__all__ = [
    "ANSWERS",
    "LABELS",
    "AnnotateSettings",
    "AnnotationService",
    "Card",
    "Item",
    "Prepare",
    "Progress",
    "implied_edges",
    "parse_ranking",
]

ANSWERS = ("ranked", "all_bad", "cannot_judge", "skipped", "flagged")
CONFIDENCES = ("", "slight", "clear")
RATINGS = (1, 2, 3, 4)
REPEAT_GAP = 8
"""Items between two looks of one person at a prompt, while there are others."""

AHEAD = 4
"""Prompts whose candidates are prepared while a person ranks."""


class Prepare(Protocol):
    """Makes candidates: `prompts` in the order they are needed; with `wait` it returns when the first has its own."""

    def __call__(self, prompts: Sequence[Prompt], wait: bool) -> None: ...


@dataclass(frozen=True)
class _State:
    """The leases of the mode as they are now."""

    leases: Sequence[Lease]
    now: float

    def of(self, annotator: str) -> list[Lease]:
        return [lease for lease in self.leases if lease.annotator == annotator and lease.released is None]

    def answered(self, annotator: str) -> list[Lease]:
        return [lease for lease in self.of(annotator) if lease.annotation is not None]


class AnnotationService:
    """The queue of a workspace for any number of annotators; safe to share among threads and processes.

    `check(prompt, text)` gives a checker's result (when `settings.checks`, behind a button named `check_label`),
    `prepare` makes candidates where a prompt has none. `queued` are the prompts to ask about; without it, all that have
    candidates.
    """

    def __init__(
        self,
        store: Store,
        settings: AnnotateSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        check: Callable[[Prompt, str], Mapping[str, Any]] | None = None,
        check_label: str = "",
        generate: Prepare | None = None,
        queued: Iterable[Queued] | None = None,
        tests: bool = False,
    ) -> None:
        self.store = store
        self.check_label = check_label or "Check"
        self.settings = settings or AnnotateSettings()  # type: ignore[call-arg]
        self.queue = Queue(store, self.settings, queued, making=generate is not None, tests=tests)
        self._clock, self._check, self._generate = clock, check, generate
        self._refreshing = threading.RLock()

    # ---- asking

    def next_item(self, annotator: str) -> Item | None:
        """The item that this annotator has in hand, else a new one; None when nothing is left for them."""
        _named(annotator)
        while True:
            with self._refreshing:
                self.queue.refresh(self._waiting()[: AHEAD + 1])
            with self._refreshing, self.store.desk() as desk:
                state = self._state(desk)
                lease = self._in_hand(desk, state, annotator) or self._grant(desk, state, annotator)
                waiting = self._waiting()
            if lease is not None:
                self._prepare(waiting[:AHEAD], wait=False)
                return self._item(lease)
            if not waiting or self._generate is None:
                return None
            self._prepare(waiting[: AHEAD + 1], wait=True)
            with self._refreshing:
                self.queue.refresh(waiting[:1])
                missing = self.queue.waits(waiting[0])
            if missing:
                raise UsageError(f"no answers came for the prompt {waiting[0]}", "try another model or other prompts")

    def progress(self, annotator: str) -> Progress:
        """How far the annotator is, what is left counted for them alone."""
        with self._refreshing:
            with self.store.desk() as desk:
                state = self._state(desk)
            mine = list(self.store.annotations(annotator=annotator, mode=self.settings.mode))
            return make_progress(mine, self._left(state, annotator))

    def draft(self, annotator: str, lease: str, state: Mapping[str, Any]) -> None:
        """Keep what a face wants to find again in `Item.draft`; it also keeps the lease from expiring.

        Raises UsageError for a lease that is not this annotator's. After the answer it does nothing.
        """
        with self.store.desk() as desk:
            held = self._lease(desk, annotator, lease)
            if held.open:
                desk.change_lease(lease, draft=dict(state), expires=self._clock() + self.settings.lease_seconds)

    def check(self, annotator: str, lease: str, label: str) -> Mapping[str, Any]:
        """What the checker says of a card. The answer will say that it was looked at, since that unblinds.

        Raises UsageError when checks are off, or the lease or label is wrong.
        """
        if not self.settings.checks or self._check is None:
            raise UsageError("checking an answer is switched off", "`checks = true` under [annotate], or --checks")
        with self.store.desk() as desk:
            held = self._lease(desk, annotator, lease)
            id = _card(held, label)
            seen = list(dict.fromkeys([*held.details.get("checked", ()), id]))
            desk.change_lease(lease, details={**held.details, "checked": seen})
        prompt, candidate = self.store.get_prompt(held.prompt_id), self.store.get_candidate(id)
        assert prompt is not None and candidate is not None
        return self._check(prompt, candidate.text)

    # ---- answering

    def submit(
        self,
        annotator: str,
        lease: str,
        *,
        answer: str,
        tiers: Sequence[Sequence[str]] = (),
        confidence: str = "",
        seconds: float | None = None,
        note: str = "",
        value: float | None = None,
        edited: str | None = None,
        edited_of: str = "",
    ) -> Annotation:
        """Keep an answer; the same lease again gives the annotation that is there.

        `tiers` are labels or candidate ids, best first; `value` is the rating 1 to 4 of mode "rate"; `edited` is a
        better text for the card `edited_of`, which becomes a candidate. Without `seconds` it is the time since the
        item was given. A lease that expired is accepted while nobody else has the prompt. Raises UsageError for a
        wrong lease or answer.
        """
        with self.store.desk() as desk:
            held = self._lease(desk, annotator, lease)
            if held.annotation is not None:
                known = desk.annotation(held.annotation)
                assert known is not None
                return known
            now = self._clock()
            placed = tuple(tuple(_card(held, name) for name in tier) for tier in tiers)
            self._validate(answer, placed, confidence, value)
            details = {key: value for key, value in held.details.items() if key != "skipped"}
            if edited is not None and (candidate := self._edited(annotator, held, edited, edited_of)) is not None:
                desk.add_candidates([candidate])
                details["edited"] = {"candidate": candidate.id, "of": candidate.sampling["edited_from"]}
            if held.mode == "review" and answer == "ranked":
                value = self._agrees(details["verdict"], placed)
            made = Annotation(
                held.prompt_id,
                annotator,
                held.shown,
                answer,
                placed if answer == "ranked" else (),
                held.mode,
                value,
                confidence,
                round(now - held.granted, 3) if seconds is None else seconds,
                now,
                held.serial,
                note,
                details=details,
            )
            while desk.annotation(made.id) is not None:  # taken back and given again within the clock's resolution
                made = Annotation.from_dict({**made.to_dict(), "submitted": made.submitted + 0.001})
            desk.add_annotation(made)
            desk.change_lease(lease, annotation=made.id, details={**held.details, "skipped": answer == "skipped"})
            return made

    def undo(self, annotator: str) -> Item | None:
        """Take back the annotator's last answer and give that item again in the same order; None without one.

        Raises UsageError when it was skipped and somebody else has it now.
        """
        with self._refreshing:
            with self.store.desk() as desk:
                state = self._state(desk)
                done = state.answered(annotator)
                answers = [(desk.annotation(lease.annotation or ""), lease) for lease in done]
                known = [(a, lease) for a, lease in answers if a is not None]
                if not known:
                    return None
                last, lease = max(known, key=lambda pair: pair[0].submitted)
                now = state.now
                if lease.details.get("skipped") and not self._place_left(state, lease):
                    raise UsageError("the prompt that you skipped has gone to somebody else", "go on with the next")
                desk.undo_annotation(last.id, now)
                again = {
                    "annotation": None,
                    "details": {**lease.details, "skipped": False},
                    "granted": now,
                    "expires": now + self.settings.lease_seconds,
                    "previous": _previous(last),
                }
                desk.change_lease(lease.id, **again)
                reopened = desk.lease(lease.id)
            assert reopened is not None
            return self._item(reopened)

    def reveal(self, annotation: Annotation) -> list[dict[str, Any]]:
        """For each card as shown: label, candidate, model, model_name, source, scores, and the judges' verdicts.

        Empty when `settings.reveal` is off.
        """
        if not self.settings.reveal:
            return []
        candidates = {c.id: c for c in self.store.candidates(ids=annotation.shown)}
        scores = list(self.store.scores(candidate_ids=annotation.shown))
        verdicts = [
            v for v in self.store.verdicts(prompt_ids=annotation.prompt_id) if set(v.shown) & set(annotation.shown)
        ]
        rows = []
        for label, id in zip(LABELS, annotation.shown, strict=False):
            c = candidates[id]
            mine = [
                {
                    "scorer": f"{s.scorer}@{s.version}",
                    "value": s.value,
                    "passed": s.passed,
                    "cause": s.cause,
                    "reason": s.reason,
                }
                for s in scores
                if s.candidate_id == id
            ]
            said = [
                {
                    "judge": v.judge,
                    "protocol": v.protocol,
                    "outcome": v.outcome,
                    "place": _place(v.tiers, id),
                    "of": len(v.tiers),
                    "value": v.value,
                }
                for v in verdicts
                if id in v.shown
            ]
            rows.append(
                {
                    "label": label,
                    "candidate": id,
                    "model": c.model,
                    "model_name": c.model_name,
                    "source": c.source,
                    "scores": mine,
                    "verdicts": said,
                }
            )
        return rows

    def stats(self) -> dict[str, Any]:
        """Counts and times by annotator, agreement, self-consistency and gold accuracy; see `statistics_of`."""
        answers = list(self.store.annotations(mode=self.settings.mode))
        with self._refreshing:
            found = statistics_of(answers, self.queue.gold)
            return {"mode": self.settings.mode, "prompts": len(self.queue.prompts), "equal": self.queue.equal, **found}

    # ---- inside: choosing

    def _state(self, desk: Desk) -> _State:
        return _State(desk.leases(self.settings.mode), self._clock())

    def _in_hand(self, desk: Desk, state: _State, annotator: str) -> Lease | None:
        """The open lease of the annotator that was given last, kept from expiring."""
        mine = [lease for lease in state.of(annotator) if lease.open and self._asked(lease)]
        if not mine:
            return None
        lease = max(mine, key=lambda held: held.granted)
        desk.change_lease(lease.id, expires=state.now + self.settings.lease_seconds)
        return lease

    def _asked(self, lease: Lease) -> bool:
        """Whether a lease is of an item that is still in the queue."""
        return any(entry.same_as(lease.shown) for entry in self.queue.entries(lease.prompt_id))

    def _grant(self, desk: Desk, state: _State, annotator: str) -> Lease | None:
        """A new lease: a repeat that is due, else the next item with a free place, else a repeat that is early."""
        repeat = self._due(state, annotator, gap=REPEAT_GAP)
        entry = None if repeat else next(iter(self._free(state, annotator)), None)
        if entry is None and repeat is None:
            repeat = self._due(state, annotator, gap=0)
        if repeat is not None:
            return self._give(desk, state, annotator, repeat.prompt_id, repeat.shown, repeat.serial + 1, repeat.details)
        if entry is None:
            return None
        self._take_over(desk, state, entry)
        details = {"seed": self.settings.seed, **entry.about()}
        return self._give(desk, state, annotator, entry.prompt_id, entry.cards, 0, details)

    def _place_left(self, state: _State, lease: Lease) -> bool:
        """Whether others leave a place for the holder of a lease."""
        if lease.details.get("gold"):
            return True
        same = set(lease.shown)
        others = {
            other.annotator
            for other in state.leases
            if other.prompt_id == lease.prompt_id and same & set(other.shown) and self._counts(other, state)
        }
        return len(others - {lease.annotator}) < self._places(lease.prompt_id)

    def _take_over(self, desk: Desk, state: _State, entry: Entry) -> None:
        """Release expired leases of an item, the oldest first, until there is a place for one more person."""
        of = [lease for lease in state.leases if lease.prompt_id == entry.prompt_id and entry.same_as(lease.shown)]
        taken = sum(self._counts(lease, state) for lease in of)
        expired = [lease for lease in of if lease.open and lease.expires <= state.now]
        spare = len(expired) if entry.gold else self._places(entry.prompt_id) - taken - 1
        for lease in expired[: max(0, len(expired) - spare)]:
            desk.change_lease(lease.id, released=state.now)

    def _give(
        self,
        desk: Desk,
        state: _State,
        annotator: str,
        prompt_id: str,
        cards: Sequence[str],
        serial: int,
        details: Mapping[str, Any],
    ) -> Lease:
        seed = self.settings.seed
        shown = sorted(cards, key=lambda id: content_id("shown", seed, annotator, prompt_id, serial, id))
        kept = {key: value for key, value in details.items() if key not in ("checked", "skipped")}
        lease = Lease(
            secrets.token_urlsafe(16),
            prompt_id,
            annotator,
            self.settings.mode,
            tuple(shown),
            serial,
            state.now,
            state.now + self.settings.lease_seconds,
            details=kept,
        )
        desk.add_lease(lease)
        return lease

    def _free(self, state: _State, annotator: str) -> Iterable[Entry]:
        """The items that the annotator may get, in order."""
        by_prompt: dict[str, list[Lease]] = {}
        for lease in state.leases:
            by_prompt.setdefault(lease.prompt_id, []).append(lease)
        for prompt_id in self.queue.plan():
            for entry in self.queue.entries(prompt_id):
                of = [lease for lease in by_prompt.get(prompt_id, ()) if entry.same_as(lease.shown)]
                if any(lease.annotator == annotator and lease.released is None for lease in of):
                    continue
                others = {
                    lease.annotator for lease in of if lease.annotator != annotator and self._counts(lease, state)
                }
                if entry.gold or len(others) < self._places(prompt_id):
                    yield entry

    def _counts(self, lease: Lease, state: _State) -> bool:
        """Whether a lease takes a place: it is answered (not skipped), or open and not expired."""
        if lease.annotation is not None:
            return not lease.details.get("skipped")
        return lease.open and lease.expires > state.now

    def _places(self, prompt_id: str) -> int:
        """How many people answer a prompt."""
        return self.settings.raters if _drawn(self.settings.overlap, "overlap", self.settings.seed, prompt_id) else 1

    def _repeats(self, annotator: str, lease: Lease) -> bool:
        """Whether the annotator is to see an answered item again."""
        share, seed = self.settings.repeats, self.settings.seed
        return lease.serial == 0 and _drawn(
            share, "repeat", seed, annotator, lease.prompt_id, tuple(sorted(lease.shown))
        )

    def _due(self, state: _State, annotator: str, gap: int) -> Lease | None:
        """The first answered item that is to be seen again and lies at least `gap` items back."""
        mine = state.of(annotator)
        again = {(lease.prompt_id, frozenset(lease.shown)) for lease in mine if lease.serial > 0}
        answered = [lease for lease in mine if lease.annotation is not None]
        for i, lease in enumerate(answered):
            if len(answered) - 1 - i < gap or lease.details.get("skipped") or not self._asked(lease):
                continue
            if self._repeats(annotator, lease) and (lease.prompt_id, frozenset(lease.shown)) not in again:
                return lease
        return None

    def _left(self, state: _State, annotator: str) -> int:
        """How many items are left for the annotator: in hand, free, to be made, and to be seen again."""
        mine = state.of(annotator)
        again = {(lease.prompt_id, frozenset(lease.shown)) for lease in mine if lease.serial > 0}
        held = [lease for lease in mine if lease.open and self._asked(lease)]
        free = list(self._free(state, annotator))
        looked = [
            lease for lease in mine if lease.serial == 0 and self._asked(lease) and not lease.details.get("skipped")
        ]
        repeats = sum(
            self._repeats(annotator, lease) and (lease.prompt_id, frozenset(lease.shown)) not in again
            for lease in looked
        )
        share, seed = self.settings.repeats, self.settings.seed
        repeats += sum(_drawn(share, "repeat", seed, annotator, e.prompt_id, tuple(sorted(e.cards))) for e in free)
        unmade = 0 if self._generate is None else sum(self.queue.waits(q.id) for q in self.queue.prompts)
        return len(held) + len(free) + repeats + unmade

    def _waiting(self) -> list[str]:
        """The prompts that have no candidates yet, in the order they will be asked."""
        if self._generate is None:
            return []
        return [id for id in self.queue.plan() if self.queue.waits(id)]

    def _prepare(self, prompt_ids: Sequence[str], wait: bool) -> None:
        if self._generate is None or not prompt_ids:
            return
        known = {p.id: p for p in self.store.prompts(ids=list(prompt_ids))}
        self._generate([known[id] for id in prompt_ids if id in known], wait)

    # ---- inside: one item

    def _item(self, lease: Lease) -> Item:
        prompt = self.store.get_prompt(lease.prompt_id)
        candidates = {c.id: c for c in self.store.candidates(ids=lease.shown)}
        assert prompt is not None and len(candidates) == len(set(lease.shown))
        progress = self.progress(lease.annotator)
        return Item(
            prompt,
            make_cards(lease, candidates),
            lease.id,
            lease.mode,
            lease.serial,
            progress.done + 1,
            max(progress.total, progress.done + 1),
            lease.draft,
            lease.previous,
        )

    def _lease(self, desk: Desk, annotator: str, id: str) -> Lease:
        """The annotator's lease; raises UsageError when it is not theirs or the prompt went to somebody else."""
        lease = desk.lease(id)
        if lease is None or lease.annotator != annotator:
            raise UsageError("this item was not given to you", "ask for the next one")
        if lease.released is not None:
            minutes = self.settings.lease_seconds / 60
            raise UsageError(
                f"after {minutes:.0f} minutes this prompt was given to somebody else",
                "ask for the next one; lease_seconds under [annotate] sets the time",
            )
        return lease

    def _validate(self, answer: str, tiers: Sequence[Sequence[str]], confidence: str, value: float | None) -> None:
        """Raise UsageError for an answer that says nothing usable."""
        if answer not in ANSWERS:
            raise UsageError(f"an answer cannot be {answer!r}", f"use one of: {', '.join(ANSWERS)}")
        if confidence not in CONFIDENCES:
            raise UsageError(f"confidence cannot be {confidence!r}", "use slight or clear")
        if answer != "ranked":
            return
        if self.settings.mode == "rate":
            if value not in RATINGS:
                raise UsageError(f"a rating is a whole number from 1 to 4, not {value}", "1 is worst, 4 is best")
            return
        named = [id for tier in tiers for id in tier]
        if len(set(named)) != len(named):
            raise UsageError("a card is ranked twice", "name each once")
        if len(named) < 2 or not all(tiers):
            raise UsageError("a ranking names at least two cards", "rank two or more, or say all bad or cannot judge")

    def _edited(self, annotator: str, held: Lease, text: str, of: str) -> Candidate | None:
        """The candidate that an edit makes; None when the text is that of its card."""
        original = self.store.get_candidate(_card(held, of))
        assert original is not None
        if same_text(text) == same_text(original.text) or not text.strip():
            return None
        about = {"edited_from": original.id}
        return Candidate(held.prompt_id, text, sampling=about, finish="stop", source=f"edited:{annotator}")

    def _agrees(self, verdict_id: str, tiers: Sequence[Sequence[str]]) -> float | None:
        """1 when the person's order of a verdict's candidates is the verdict's, 0 when not; None when it is silent."""
        verdict = next(self.store.verdicts(ids=verdict_id), None)
        if verdict is None:
            return None
        theirs, judges = pair_orders(tiers), pair_orders(verdict.tiers)
        shared = [theirs[pair] == judges[pair] for pair in judges if pair in theirs]
        return float(all(shared)) if shared else None


def _named(annotator: str) -> None:
    if not annotator.strip():
        raise UsageError("an annotator needs a name", "--name NAME")


@lru_cache(maxsize=100_000)
def _drawn(share: float, *what: Any) -> bool:
    """Whether something is in a share of all, the same every time it is asked."""
    return int(content_id(*what)[:12], 16) < share * 16**12


def _card(lease: Lease, name: str) -> str:
    """The candidate of a label or id; raises UsageError when the lease has no such card."""
    if name in lease.shown:
        return name
    place = LABELS.find(name.strip().upper()) if len(name.strip()) == 1 else -1
    if not 0 <= place < len(lease.shown):
        raise UsageError(f"there is no card {name[:40]!r}", f"use one of: {', '.join(LABELS[: len(lease.shown)])}")
    return lease.shown[place]


def _previous(annotation: Annotation) -> dict[str, Any]:
    labels = dict(zip(annotation.shown, LABELS, strict=False))
    tiers = [[labels[id] for id in tier] for tier in annotation.tiers]
    return {
        "answer": annotation.answer,
        "tiers": tiers,
        "confidence": annotation.confidence,
        "value": annotation.value,
        "note": annotation.note,
    }


def _place(tiers: Sequence[Sequence[str]], id: str) -> int | None:
    """The tier of a candidate, 1 for the best; None when it is in none."""
    return next((i for i, tier in enumerate(tiers, 1) if id in tier), None)
