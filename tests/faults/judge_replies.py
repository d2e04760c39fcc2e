"""Judges that misbehave, over real HTTP, through both SDKs: for a while, for good, and in what they say.

No verdict may be made of a failure; the verdicts of other questions are those of an undisturbed judge; once the judge
is itself again, the same run ends with those of an undisturbed one. The key must not be in what is kept.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from catalogue import Fault, Outcome

from hafs.errors import HafsError
from hafs.servers import limits
from judge_server import Behaviour, JudgeServer, Question, honest
from judge_work import client_of, filled, run

SECRET = "sk-this-must-not-come-out"
HOW: dict[str, Behaviour] = {
    "408": (408, {}),
    "409": (409, {}),
    "429": (429, {}),
    "429, wait": (429, {"retry-after": "0.02"}),
    "429, wait for ever": (429, {"retry-after": "1e308"}),
    "429, wait backwards": (429, {"retry-after": "-5"}),
    "500": (500, {}),
    "502": (502, {}),
    "503": (503, {}),
    "529": (529, {}),
    "redirected": (307, {"location": "http://127.0.0.1:9/v1"}),
    "closed": "close",
    "cut": "cut",
    "half a JSON": "cut_json",
    "a page": "no_json",
    "another JSON": "wrong_json",
    "a refusal": "refuse",
    "too long": "length",
    "hangs": "hang",
    "drips": "drip",
    "400": (400, {}),
    "401": (401, {}),
    "403": (403, {}),
    "404": (404, {}),
    "413": (413, {}),
    "422": (422, {}),
}
SAYS = {
    "nothing": "",
    "blanks": " \n\t" * 1000,
    "prose": "Both are fine, thank you for asking.",
    "null": "null",
    "a list": "[]",
    "deep": '{"ranking": ' + "[" * 5000 + "]" * 5000 + "}",
    "a long number": '{"ranking": ' + "9" * 5000 + "}",
    "infinite": '{"answer": "ranked", "ranking": 1e999}',
    "surrogates": '{"reason": "\\ud800 \\u0000", "ranking": [["\\udfff"]]}',
    "a label that is none": '{"reason": "x", "answer": "ranked", "ranking": [["Z"], ["Q"]]}',
    "a label twice": '{"reason": "x", "answer": "ranked", "ranking": [["A"], ["A"], ["B"], ["C"]]}',
    "a label too few": '{"reason": "x", "answer": "ranked", "ranking": [["B"], ["A"]]}',
    "labels of other types": '{"reason": "x", "answer": "ranked", "ranking": [[0], [1], [2]]}',
    "an object for a list": '{"reason": "x", "answer": "ranked", "ranking": {"A": 1, "B": 2, "C": 3}}',
    "two objects that differ": '{"reason": "", "answer": "ranked", "ranking": [["A"], ["B"], ["C"]]} {"reason": "", "answer": "ranked", "ranking": [["C"], ["B"], ["A"]]}',
    "a megabyte": "x" * 1_000_000,
    "braces": "{" * 20_000,
    "a thought without an end": "<think>" + '{"reason": "", "answer": "ranked", "ranking": [["C"], ["B"], ["A"]]}',
    "escapes": "\x1b]0;title\x07\x1b[2J",
    "a key of ours": SECRET,
}

SHORT = 24
FAULTS = [
    *(
        Fault(f"{api}, {when}: {name}", f"{api}|{when}|{name}")
        for name in HOW
        for api in ("openai", "anthropic")
        for when in ("once", "always")
    ),
    *(Fault(f"openai says: {name}", f"openai|says|{name}") for name in SAYS),
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each misbehaviour, on half of the prompts."""
    before, base = dict(os.environ), limits._BASE
    os.environ |= {"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET, "HAFS_API_KEY": SECRET}
    limits._BASE = 0.002
    try:
        with JudgeServer(honest).running() as server, tempfile.TemporaryDirectory() as folder:
            wanted = judged(Path(folder), "openai", server)
        for fault in faults:
            yield tried(fault, wanted)
    finally:
        limits._BASE = base
        os.environ.clear()
        os.environ |= before


Verdicts = dict[tuple[str, ...], tuple[str, Any]]


def judged(folder: Path, api: str, server: JudgeServer, **manner: Any) -> Verdicts:
    """Run the judge over a workspace of four prompts and read all verdicts that there are then."""
    os.environ["ANTHROPIC_BASE_URL"] = server.url
    with filled(folder) as store:
        with suppress(HafsError):  # an endpoint that refuses everything stops the run
            run(store, client_of(api, server), **{"concurrency": 2, "attempts": 2, "timeout": 0.5, **manner})
        known = {p.id: p.text for p in store.prompts()}
        return {(known[v.prompt_id], *v.shown): (v.outcome, v.tiers) for v in store.verdicts()}


def tried(fault: Fault, wanted: Verdicts) -> Outcome:
    """What comes of a fault on two of four prompts, and of the same run once the judge is well."""
    api, when, name = fault.attack.split("|")
    seen: Counter[str] = Counter()

    def hit(q: Question) -> bool:
        seen[q.turns[0]] += 1
        return q.texts.get("REQUEST") in ("prompt 0", "prompt 1") and (when != "once" or seen[q.turns[0]] == 1)

    misbehave: Callable[[Question], Behaviour] = lambda q: HOW[name] if when != "says" and hit(q) else None  # noqa: E731
    says: Callable[[Question], str] = lambda q: SAYS[name] if when == "says" and hit(q) else honest(q)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        with JudgeServer(says, misbehave, drip=0.02).running() as server:
            try:
                first = judged(where, api, server)
            except Exception as e:  # a traceback for the user
                return Outcome(fault.name, lost=True, note=f"{type(e).__name__}: {e}")
        with JudgeServer(honest).running() as server:
            last = judged(where, api, server, timeout=20.0)
        leaked = any(
            SECRET.encode() in p.read_bytes() for p in where.glob("hafs.db*") if p.is_file()
        ) and SECRET not in SAYS.get(name, "")
    made = {k: v for k, v in first.items() if k[0] in ("prompt 0", "prompt 1") and decided(v)}
    forged = any(wanted.get(k) != v for k, v in made.items()) or (when == "always" and bool(made))
    others = {k: v for k, v in first.items() if decided(v)}
    settled = {k for k, v in first.items() if v[0] == "abstain"}  # who would not say is not asked again
    lost = any(wanted[k] != v for k, v in others.items()) or any(
        last.get(k) != v for k, v in wanted.items() if k not in settled
    )
    return Outcome(fault.name, forged, leaked, lost, f"made {made}; {len(first)} then {len(last)} of {len(wanted)}")


def decided(verdict: tuple[str, Any]) -> bool:
    """Whether it prefers something: an abstention or an unreadable reply does not."""
    return verdict[0] in ("ranked", "tie")
