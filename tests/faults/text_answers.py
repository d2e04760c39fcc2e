"""Texts, patterns and schemas made to take years, to break a parser, or to fetch something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from catalogue import Fault, Outcome

from hafs.scorers import open_scorer
from hafs.types import Candidate, Prompt

MANY = "a" * 40 + "!"


def any_of(depth: int) -> dict[str, Any]:
    """A schema of alternatives of alternatives."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"anyOf": [schema, schema]}
    return schema


def row(name: str, answer: str, holds: str = "fails", **check: Any) -> Fault:
    return Fault(name, json.dumps({"answer": answer, "check": check}), holds)


def schema(name: str, answer: str, holds: str = "fails", **schema: Any) -> Fault:
    return row(name, answer, holds, schema=schema)


FAULTS = [
    schema("schema that points at itself", "1", **{"$ref": "#"}),
    schema("schema from a file", "1", **{"$ref": "file:///etc/passwd"}),
    schema("schema from the network", "1", **{"$ref": "http://127.0.0.1:9/x"}),
    schema("pattern of a schema that never ends", json.dumps(MANY), type="string", pattern="^(a+)+$"),
    schema(
        "pattern of names that never ends", json.dumps({MANY: 1}), patternProperties={"^(a+)+$": False}, required=["x"]
    ),
    schema("pattern that backtracks", json.dumps("x" * 5000), pattern="(x+x+)+y"),
    schema("alternatives of alternatives", "1", **any_of(14)),
    schema("unique items by the thousand", json.dumps([{"a": i // 2} for i in range(4000)]), uniqueItems=True),
    schema("deep list", "[" * 100_000 + "]" * 100_000, type="array"),
    schema("deep list that parses", "[" * 900 + "1" + "]" * 900, type="array", items={"$ref": "#"}),
    schema("deep object", '{"a":' * 50_000 + "1" + "}" * 50_000, type="object", required=["b"]),
    schema("huge number", "1" + "0" * 100_000, type="string"),
    schema("infinite number", "1e999", type="string"),
    schema("not a number", "NaN", type="string"),
    schema("a name twice", '{"a": 1, "a": "x"}', properties={"a": {"type": "integer"}}),
    schema("lone surrogate", '"\\ud800"', type="integer"),
    schema("null bytes", "\0" * 1000, type="object"),
    schema("a type that is none", "1", type="nonsense"),
    schema("anchors that are not there", "1", **{"$ref": "#/definitions/none"}),
    schema("multiples of almost nothing", "1e308", multipleOf=1e-308, type="string"),
    row("regex that never ends", "a" * 19_000 + "b", regex="^(a+)+$"),
    row("regex of alternatives", "a" * 15_000 + "b", regex="^(a|aa)+$"),
    row("regex with a look back", "ab" * 9000, regex=r"^((ab)*)*c"),
    row("regex of words", "a " * 9000 + "!", regex=r"^(\w+\s?)*$"),
    row("a fence of a hundred thousand", "```" + "a" * 150_000 + "`", "fails", json=True),
    row("ticks alone", "`" * 150_000, "fails", json=True),
    row("tildes and ticks", "~`" * 70_000, "fails", json=True),
    row("blanks before a fence", " " * 150_000 + "```", "fails", json=True),
    row("fences by the thousand", "```\n" * 30_000, "fails", json=True),
    row("a megabyte of one word", "word " * 200_000, "harmless"),
    row("a megabyte without a blank", "x" * 1_000_000, "harmless"),
    row("combining marks", "e" + "\u0301" * 100_000, "harmless"),
    row("right to left", "\u202e" * 5000 + "}", "harmless"),
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each answer with its check, and beside it a right one to a check of its own."""
    beside = Prompt("Say JSON.", checker="text", check={"schema": {"type": "integer"}})
    scorer = open_scorer("text")
    try:
        for fault in faults:
            told = json.loads(fault.attack)
            asked = Prompt(f"text {fault.name}", checker="text", check=told["check"])
            items = [(asked, Candidate(asked.id, told["answer"])), (beside, Candidate(beside.id, "7"))]
            got, good = scorer.score(items)
            forged = fault.holds == "fails" and bool(got.passed)
            yield Outcome(fault.name, forged, lost=not good.passed, note=got.cause or got.reason)
    finally:
        scorer.close()
