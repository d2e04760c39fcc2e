"""The Markdown page of what benchmarks/gpu/run.py found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any


def markdown(made: dict[str, Any]) -> str:
    """The whole page of a run, from what gpu.json holds."""
    return "\n".join(_lines(made))


def _lines(made: dict[str, Any]) -> Iterator[str]:
    rehearsal = made["rehearsal"]
    yield "# " + ("GPU: rehearsal, CPU" if rehearsal else f"GPU: {made['card'] or 'no card'}")
    yield ""
    if rehearsal:
        yield "No card was there. Every part ran with tiny shapes on a processor, to show that it runs to its end: no"
        yield "figure on this page says anything of a card, nor of hafs' speed."
        yield ""
    versions = ", ".join(f"{k} {v}" if v else f"no {k}" for k, v in made["versions"].items())
    where = f"{made['card']}, {made['gb']:.0f} GB" if made["card"] else f"processor, {made['threads']} threads"
    yield f"- {made['written']}, last call: `{made['command']}`"
    yield f"- {where}; Python {made['python']}"
    yield f"- {versions}"
    yield ""
    yield "| part | state | took | limit | |"
    yield "| --- | --- | ---: | ---: | --- |"
    for part in made["parts"].values():
        yield (
            f"| [{part['name']}](#{part['name']}) | {part['state']} | {part['seconds']:.0f} s | {part['limit']:.0f} s |"
            f" {_cell(part['said'])} |"
        )
    for part in made["parts"].values():
        yield ""
        yield f"## {part['name']}"
        yield ""
        if not part["rows"]:
            yield f"Nothing was measured: {part['said'] or part['state']}."
        for _, rows in itertools.groupby(part["rows"], key=lambda r: tuple(r)):
            yield from _table(list(rows))


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Rows of the same columns as a table; a row that only says something as a sentence."""
    columns = list(rows[0])
    if columns == ["what"]:
        yield from (f"- {row['what']}" for row in rows)
        yield ""
        return
    yield f"| {' | '.join(columns)} |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)
    for row in rows:
        yield f"| {' | '.join(_cell(row[c]) for c in columns)} |"
    yield ""


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "/").replace("\n", " ")[:300]
