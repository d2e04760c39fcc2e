"""The words of the project as plain data: prompt, candidate, score, ranking, edge, preference group.

These classes cross every boundary (store, files, training), so they know nothing but themselves.
Each has `to_dict` / `from_dict` for JSON lines, and an `id` made from its content: the same thing gets the same id
on every machine, so repeating a verb finds what is already there.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple, Self

__all__ = [
    "Annotation",
    "Candidate",
    "CandidateLabel",
    "Edge",
    "GroupCandidate",
    "PreferenceGroup",
    "Progress",
    "Prompt",
    "Queued",
    "Ranking",
    "RatedAnswer",
    "Reference",
    "Score",
    "Verdict",
    "content_id",
    "same_text",
    "silent",
]

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called by long work at every step: (what is being done, done, total, newest figures)."""


def silent(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """The progress of work that nobody watches."""


_LARGEST = sys.float_info.max  # compared with, as math.isfinite fails for an int that is larger
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=list)


def content_id(*parts: Any) -> str:
    """A 20-hex-digit id of `parts` (anything JSON can write); equal content has an equal id on every machine."""
    return _hashed(_ENCODER.encode(parts))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def same_text(text: str) -> str:
    """`text` without trailing white space on any line; two answers for which this is equal are one."""
    text = text.rstrip()
    return "\n".join(line.rstrip() for line in text.split("\n")) if _BLANK_END.search(text) else text


_BLANK_END = re.compile(r"\n(?<=\s\n)")  # begins with a letter of its own, so the search jumps from line to line


class _Row:
    """JSON in and out for the dataclasses below; unknown keys are refused by name."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        extra = sorted(set(row) - known - {"id"})
        if extra:
            raise ValueError(f"unknown key {extra[0]!r} for {cls.__name__}")
        return cls(**{k: v for k, v in row.items() if k in known})


def _without_empty(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """`row` without those of the columns `names` that are empty."""
    return {k: v for k, v in row.items() if v or k not in names}


def conversation_text(context: Sequence[Mapping[str, Any]], text: str = "") -> str:
    """A conversation as one text: who says it in brackets, then what is said; `text` alone without a conversation."""
    if not context:
        return text
    turns = [*context, *([{"role": "user", "content": text}] if text else [])]
    parts = []
    for turn in turns:
        calls = [f"calls {json.dumps(c.get('function', c), ensure_ascii=False)}" for c in turn.get("tool_calls") or ()]
        parts.append(f"[{turn.get('role', '')}]\n" + "\n".join([str(turn.get("content") or ""), *calls]).strip())
    return "\n\n".join(parts)


def call_text(message: Mapping[str, Any]) -> str:
    """An answer that calls tools, as one text: its message as JSON. `call_in` reads it again."""
    calls = [dict(c) for c in message["tool_calls"]]
    said = {"content": str(message.get("content") or ""), "role": "assistant", "tool_calls": calls}
    return json.dumps(said, ensure_ascii=False)


def call_in(text: str) -> dict[str, Any] | None:
    """The message of an answer that `call_text` wrote; None for any other text."""
    if not (text.startswith('{"content": "') and '"role": "assistant", "tool_calls": [' in text):
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and set(said) == {"content", "role", "tool_calls"} else None


@dataclass(frozen=True)
class Reference:
    """A known right answer of a prompt, proven by the prompt's checker."""

    name: str
    text: str


@dataclass(frozen=True)
class Prompt(_Row):
    """One request to a model, with how to check the answer when that is known.

    `checker` names a scorer (such as "asm"), `check` is that scorer's data for this prompt. `split` is train,
    validation or test. `context` are the chat messages between the system text and the text; where the conversation
    ends with a tool's result, they are all of it and the text is empty. `tools` are those that the model may call, as
    JSON schemas.
    """

    text: str
    system: str = ""
    family: str = ""
    category: str = ""
    split: str = "train"
    source: str = ""
    checker: str = ""
    check: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    tags: tuple[str, ...] = ()
    context: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """The prompt's identity is what the model reads (system text, conversation, text, tools)."""
        if not self.context and not self.tools:
            return content_id("prompt", self.system, self.text)
        context, tools = (json.dumps(list(part), sort_keys=True) for part in (self.context, self.tools))
        return content_id("prompt", self.system, context, self.text, tools)

    @property
    def shown(self) -> str:
        """What people and judges are shown of it: its text, with the conversation before it where there is one."""
        return conversation_text(self.context, self.text)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **_without_empty(asdict(self), "context", "tools")}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Prompt:
        refs = tuple(r if isinstance(r, Reference) else Reference(**r) for r in row.get("references", ()))
        listed = {name: tuple(row.get(name) or ()) for name in ("tags", "context", "tools")}
        return super().from_dict({**row, "references": refs, **listed})


@dataclass(frozen=True)
class Candidate(_Row):
    """One answer of one model to one prompt.

    `logprob` is the sum of the sampled tokens' log-probabilities under the sampling model (nats), `n_tokens` their
    number, `finish` "stop" or "length". `model` is the model's content hash, `model_name` what the user called it.
    `thought` is what a thinking model wrote before the answer; `text` is the answer alone.
    """

    prompt_id: str
    text: str
    model: str = ""
    model_name: str = ""
    seed: int = 0
    index: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    logprob: float | None = None
    n_tokens: int | None = None
    finish: str = ""
    source: str = "generate"
    thought: str = ""

    @property
    def id(self) -> str:
        more = [self.thought] if self.thought else []
        return content_id(
            "candidate", self.prompt_id, self.model, self.seed, self.index, self.sampling, self.source, self.text, *more
        )

    @property
    def unfinished(self) -> bool:
        """Whether it is a thought that came to no answer."""
        return bool(self.thought) and not self.text.strip()

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **_without_empty(asdict(self), "thought")}


@dataclass(frozen=True)
class Score(_Row):
    """What a scorer says of a candidate: a value, or unscored with the reason. A failure is missing, never a number.

    `value` is in [0, 1], higher is better. `key` orders candidates of one prompt lexicographically (higher is
    better); two keys whose last parts differ by at most `tolerance` and are equal before it tie. `passed` says
    whether the answer is fully right, `cause` names why it is not (for failure analysis).
    """

    candidate_id: str
    scorer: str
    version: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    reason: str = ""
    key: tuple[float, ...] = ()
    tolerance: float = 0.0
    passed: bool | None = None
    cause: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("an unscored candidate needs a reason")

    @property
    def id(self) -> str:
        return content_id("score", self.candidate_id, self.scorer, self.version, self.arguments)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Score:
        return super().from_dict({**row, "key": tuple(row.get("key", ()))})


class RatedAnswer(NamedTuple):
    """A candidate with what one scorer says of it: all that rankings and groups need. Without a value it is unscored.

    `key`, `tolerance` and `passed` are those of `Score`, but a key is never empty where there is a value. `off_policy`
    is that of `GroupCandidate`, `finish` and `thought` those of `Candidate`.
    """

    id: str
    text: str
    value: float | None = None
    key: tuple[float, ...] = ()
    tolerance: float = 0.0
    passed: bool | None = None
    off_policy: bool = False
    finish: str = ""
    thought: str = ""


@dataclass(frozen=True)
class Ranking(_Row):
    """Candidates of one prompt from best to worst in tiers; ties are one tier. `source` says who ranked ("asm@1")."""

    prompt_id: str
    tiers: tuple[tuple[str, ...], ...]
    source: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return content_id("ranking", self.prompt_id, self.tiers, self.source)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Ranking:
        return super().from_dict({**row, "tiers": tuple(tuple(t) for t in row["tiers"])})


OUTCOMES = ("ranked", "tie", "abstain", "malformed")


@dataclass(frozen=True)
class Verdict(_Row):
    """What a judge said in one asking, or that it said nothing usable. Outcomes are never collapsed into each other.

    `shown` are the candidates in the order the judge saw them. `outcome` is "ranked" (`tiers` holds their ids, best
    first), "tie" (all are equal), "abstain" (it would not say, or refused) or "malformed" (its answer could not be
    read, `reason` says why). `judge` names the model, `protocol` how it was asked and in which version
    ("pairwise@1"). `strength` is 1 for a slight and 2 for a clear preference, `value` a grade in [0, 1] where the
    protocol grades one candidate alone. `shuffle` numbers the orders in which the same candidates were shown.
    """

    prompt_id: str
    judge: str
    protocol: str
    shown: tuple[str, ...]
    outcome: str
    tiers: tuple[tuple[str, ...], ...] = ()
    strength: float = 1.0
    value: float | None = None
    shuffle: int = 0
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"a verdict cannot be {self.outcome!r}")
        if self.outcome == "ranked" and not self.tiers and self.value is None:
            raise ValueError("a ranked verdict needs its tiers or a value")

    @property
    def id(self) -> str:
        return content_id("verdict", self.prompt_id, self.judge, self.protocol, self.shown, self.shuffle)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Verdict:
        tiers = tuple(tuple(tier) for tier in row.get("tiers", ()))
        return super().from_dict({**row, "shown": tuple(row["shown"]), "tiers": tiers})


@dataclass(frozen=True)
class Annotation(_Row):
    """What a person said of a prompt's candidates in one sitting.

    `mode` is "rank", "ab" (two models side by side), "rate" (one candidate) or "review" (of a judge's verdict).
    `shown` are the candidates in the order the person saw them. `answer` is "ranked" (`tiers`, best first; what is
    in no tier was left unranked), "all_bad", "cannot_judge", "skipped" or "flagged"; a rating is in `value`.
    `confidence` is "slight", "clear" or empty, `seconds` the time it took, `submitted` seconds since 1970 (UTC),
    `serial` the person's how-manieth look at this prompt (0 first; later ones are repeats for consistency).
    An annotation that was taken back is not deleted: `undone` is when.
    """

    prompt_id: str
    annotator: str
    shown: tuple[str, ...]
    answer: str
    tiers: tuple[tuple[str, ...], ...] = ()
    mode: str = "rank"
    value: float | None = None
    confidence: str = ""
    seconds: float | None = None
    submitted: float = 0.0
    serial: int = 0
    note: str = ""
    undone: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return content_id("annotation", self.prompt_id, self.annotator, self.mode, self.shown, self.submitted)

    def ranking(self) -> Ranking | None:
        """The ranking it makes, of source "human:NAME"; None when it ranks fewer than two candidates."""
        if self.answer != "ranked" or self.undone is not None or sum(map(len, self.tiers)) < 2:
            return None
        about = {"annotation": self.id, "confidence": self.confidence, "mode": self.mode}
        return Ranking(self.prompt_id, self.tiers, f"human:{self.annotator}", about)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Annotation:
        tiers = tuple(tuple(tier) for tier in row.get("tiers", ()))
        return super().from_dict({**row, "shown": tuple(row["shown"]), "tiers": tiers})


@dataclass(frozen=True)
class Queued:
    """A prompt for a person (its id), with which probability it was chosen, for weighting later, and why."""

    id: str
    probability: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Edge(_Row):
    """`winner` beats `loser` (indices into a group's candidates) with a weight and a probability that this is right.

    `source` says who said so: a scorer ("asm@1"), a person ("human:ann"), a judge ("judge:claude-opus-4-5@1") or
    "reference". `calibrated` is None except for a judge's edges: whether the judge was calibrated on people's labels.
    `margin` is by how much the winner is better, on the scale of the source, where that is known.
    """

    winner: int
    loser: int
    weight: float = 1.0
    p: float = 1.0
    source: str = ""
    calibrated: bool | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        if not (type(self.winner) is int and type(self.loser) is int):
            raise ValueError("an edge names its candidates by whole numbers")
        if self.winner == self.loser:
            raise ValueError("an edge needs two different candidates")
        if not (0 < self.weight <= _LARGEST and 0.0 <= self.p <= 1.0):
            raise ValueError("an edge needs a finite weight above 0 and a probability in [0, 1]")
        if self.margin is not None and not abs(self.margin) <= _LARGEST:
            raise ValueError("the margin of an edge is a finite number")

    @cached_property
    def encoded(self) -> str:
        """The JSON of it that goes into a group's id."""
        return _ENCODER.encode({f.name: getattr(self, f.name) for f in fields(self)})


def unbeaten(edges: Sequence[Edge]) -> list[int]:
    """The candidates that win an edge and lose none, in their order; a coin toss (p = 0.5) is neither."""
    decided = [(e.winner, e.loser) if e.p > 0.5 else (e.loser, e.winner) for e in edges if e.p != 0.5]
    return sorted({winner for winner, _ in decided} - {loser for _, loser in decided})


@dataclass(frozen=True)
class CandidateLabel(_Row):
    """A one-sided label: one answer by itself is good (desirable) or bad (undesirable), compared with no other.

    `weight`, `source` and `calibrated` are as in an `Edge`.
    """

    good: bool
    weight: float = 1.0
    source: str = ""
    calibrated: bool | None = None

    def __post_init__(self) -> None:
        if type(self.good) is not bool:
            raise ValueError(f"the label is {self.good!r}, not true or false")
        if not 0 < self.weight <= _LARGEST:
            raise ValueError("a label needs a finite weight above 0")

    @classmethod
    def read(cls, said: Any) -> CandidateLabel | None:
        """A label as JSON has it: an object, plain true or false, or null where there is none."""
        if said is None or isinstance(said, bool):
            return None if said is None else cls(said)
        if not isinstance(said, Mapping) or "good" not in said:
            raise ValueError(f"the label is {said!r}, not true, false or an object with 'good'")
        return cls.from_dict(said)


@dataclass(frozen=True)
class GroupCandidate(_Row):
    """A candidate inside a preference group; `off_policy` marks text the model did not sample (a reference).

    `label` is what is known of the candidate alone; a group may have labels, edges, or both.
    `finish` is "length" for an answer that was cut at the token limit: nobody is taught to end there.
    `thought` is that of `Candidate`.
    """

    text: str
    id: str = ""
    off_policy: bool = False
    label: CandidateLabel | None = None
    finish: str = ""
    thought: str = ""

    @property
    def cut(self) -> bool:
        """Whether the answer ended at the token limit."""
        return self.finish == "length"

    @property
    def wrong(self) -> bool:
        """Whether its label says that it is bad."""
        return self.label is not None and not self.label.good

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> GroupCandidate:
        label = CandidateLabel.read(row.get("label"))
        finish = "length" if row.get("finish") == "length" else ""
        return cls(
            str(row["text"]),
            str(row.get("id", "")),
            bool(row.get("off_policy", False)),
            label,
            finish,
            str(row.get("thought") or ""),
        )

    def encoded(self) -> dict[str, Any]:
        """What of it goes into a group's id; what a plain candidate has none of is left out."""
        more: dict[str, Any] = {"label": vars(self.label)} if self.label is not None else {}
        more |= {name: said for name in ("finish", "thought") if (said := getattr(self, name))}
        return {"text": self.text, "id": self.id, "off_policy": self.off_policy, **more}


@dataclass(frozen=True)
class PreferenceGroup(_Row):
    """A prompt, its unique candidates and the edges among them: the unit of preference training.

    A candidate may have a label of its own beside or in place of edges (`GroupCandidate.label`).

    `context` are the chat messages between the system text and the prompt, in a conversation of several turns; `tools`
    are the tools that the model could call, as JSON schemas.
    """

    prompt: str
    candidates: tuple[GroupCandidate, ...]
    edges: tuple[Edge, ...]
    system: str = ""
    prompt_id: str = ""
    family: str = ""
    split: str = "train"
    context: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if len({c.text for c in self.candidates}) != len(self.candidates):
            raise ValueError("candidates of a group must have different texts")
        n = len(self.candidates)
        if any(not (0 <= e.winner < n and 0 <= e.loser < n) for e in self.edges):
            raise ValueError("an edge points outside the group")

    @cached_property
    def id(self) -> str:
        return self.encoded()[0]

    def encoded(self) -> tuple[str, str, str]:
        """(id, candidates, edges), the latter two as the JSON that the id is a hash of."""
        candidates = _ENCODER.encode([c.encoded() for c in self.candidates])
        edges = f"[{','.join([e.encoded for e in self.edges])}]"
        parts = [_ENCODER.encode(["group", self.system, self.prompt])[:-1], candidates, edges]
        if self.context or self.tools:
            parts += [_ENCODER.encode(self.context), _ENCODER.encode(self.tools)]
        return _hashed(",".join(parts) + "]"), candidates, edges

    @property
    def winners(self) -> tuple[int, ...]:
        """The candidates that may be taught as answers, best first: no edge beats them and nobody knows them wrong."""
        wrong = {i for i, c in enumerate(self.candidates) if c.wrong}
        return tuple(i for i in unbeaten(self.edges) if i not in wrong)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PreferenceGroup:
        candidates = tuple(GroupCandidate.from_dict(c) for c in row["candidates"])
        edges = tuple(Edge.from_dict(e) for e in row["edges"])
        more = {name: tuple(row.get(name, ())) for name in ("context", "tools")}
        return super().from_dict({**row, "candidates": candidates, "edges": edges, **more})

    def pairs(self) -> Sequence[tuple[str, str, Edge]]:
        """(chosen text, rejected text, edge) for every edge."""
        return [(self.candidates[e.winner].text, self.candidates[e.loser].text, e) for e in self.edges]
