"""Families on lists."""

from __future__ import annotations

import random
from collections.abc import Callable

from hafs.tasks.python.dsl import PythonDraft, define, family, lists, numbers


@family("sequences")
def keep_divisible(r: random.Random) -> PythonDraft:
    k = r.randint(2, 9)
    keep = r.choice([True, False])
    entry = r.choice(["keep", "filtered", f"by_{k}", "select"])
    return PythonDraft(
        entry,
        "values",
        [
            f"returns a list of the values that are {'' if keep else 'not '}divisible by {k}, in order",
            f"keeps of the list values those that {k} {'divides' if keep else 'does not divide'}",
        ],
        [f"filters values down to the {'multiples' if keep else 'numbers that are no multiples'} of {k}"],
        lists(r),
        lambda values: [v for v in values if (v % k == 0) is keep],
        {"comprehension": define(entry, "values", f"return [v for v in values if v % {k} {'==' if keep else '!='} 0]")},
    )


@family("sequences")
def chunks(r: random.Random) -> PythonDraft:
    n = r.randint(2, 6)
    drop = r.choice([True, False])
    entry = r.choice(["chunks", "pieces", "batches", f"groups_of_{n}"])
    last = "an incomplete last one is left out" if drop else "the last one may be shorter"

    def oracle(values: list[int]) -> list[list[int]]:
        found: list[list[int]] = []
        rest = list(values)
        while rest:
            found, rest = [*found, rest[:n]], rest[n:]
        return [c for c in found if len(c) == n or not drop]

    end = f"len(values) - {n - 1}" if drop else "len(values)"
    return PythonDraft(
        entry,
        "values",
        [
            f"cuts the list values into lists of {n} items; {last}",
            f"splits values into chunks of length {n}, where {last}",
        ],
        [f"returns values as a list of lists with {n} items each; {last}"],
        lists(r),
        oracle,
        {"slices": define(entry, "values", f"return [values[i : i + {n}] for i in range(0, {end}, {n})]")},
    )


@family("sequences")
def unique(r: random.Random) -> PythonDraft:
    which = r.choice(["first", "last"])
    entry = r.choice(["unique", "distinct", "dedupe", "without_repeats"])
    most = r.choice([0, 3, 4, 5, 6])
    more = f", at most {most} of them from the start" if most else ""

    def oracle(values: list[int]) -> list[int]:
        out = [v for i, v in enumerate(values) if v not in (values[:i] if which == "first" else values[i + 1 :])]
        return out[:most] if most else out

    cut = f"[:{most}]" if most else ""
    code = (
        f"return list(dict.fromkeys(values)){cut}"
        if which == "first"
        else f"return list(dict.fromkeys(values[::-1]))[::-1]{cut}"
    )
    return PythonDraft(
        entry,
        "values",
        [
            f"removes repeats from the list values and keeps the {which} of equal items in its place{more}",
            f"returns the different items of values, in the order in which they come {which}{more}",
        ],
        [f"lists each item of values once, where its {which} occurrence is{more}"],
        [*lists(r, 0, 6), (list(range(9)),)],
        oracle,
        {"dict": define(entry, "values", code)},
    )


@family("sequences")
def nth_largest(r: random.Random) -> PythonDraft:
    n = r.randint(1, 4)
    what = r.choice(["largest", "smallest"])
    word = ["", "second-", "third-", "fourth-"][n - 1]
    instead = r.choice([None, 0, -1])
    entry = r.choice([f"{word.rstrip('-') or 'the'}_{what}", "pick", "ranked", "find"])
    turn = ", reverse=True" if what == "largest" else ""
    return PythonDraft(
        entry,
        "values",
        [
            f"returns the {word}{what} of the different numbers in values, or {instead} if there are too few",
            f"finds the {word}{what} value in the list values, repeats counted once; {instead} when there is none",
        ],
        [f"gives the {word}{what} distinct number of values ({instead} if there are not enough)"],
        lists(r),
        lambda values: ([*sorted(set(values), key=lambda v: -v if what == "largest" else v), *[instead] * 4])[n - 1],
        {
            "sort": define(
                entry,
                "values",
                f"ranked = sorted(set(values){turn})\nreturn ranked[{n - 1}] if len(ranked) >= {n} else {instead}",
            )
        },
    )


@family("sequences")
def running(r: random.Random) -> PythonDraft:
    kind = r.choice(["sum", "maximum", "minimum", "product"])
    k = r.choice([0, 1, 2, 5, 10])
    entry = r.choice([f"running_{kind}", "running", "accumulated", "prefixes"])
    joins: dict[str, Callable[[int, int], int]] = {
        "sum": lambda a, b: a + b,
        "maximum": max,
        "minimum": min,
        "product": lambda a, b: a * b,
    }
    join = joins[kind]
    more = f", each plus {k}" if k else ""

    def oracle(values: list[int]) -> list[int]:
        out: list[int] = []
        for v in values:
            out.append(join(out[-1], v) if out else v)
        return [v + k for v in out]

    how = {
        "sum": "total + value",
        "maximum": "max(total, value)",
        "minimum": "min(total, value)",
        "product": "total * value",
    }[kind]
    add = f" + {k}" if k else ""
    body = (
        f"out, total = [], 0\nfor i, value in enumerate(values):\n    total = {how} if i else value\n"
        f"    out.append(total{add})\nreturn out"
    )
    return PythonDraft(
        entry,
        "values",
        [
            f"returns the list of running {kind}s of values{more}",
            f"gives for each place of values the {kind} of everything up to and including it{more}",
        ],
        [f"computes a list whose item i is the {kind} of the first i + 1 values{more}"],
        lists(r, -5, 9),
        oracle,
        {"loop": define(entry, "values", body)},
    )


@family("sequences")
def rotate(r: random.Random) -> PythonDraft:
    k = r.randint(1, 9)
    way = r.choice(["left", "right"])
    entry = r.choice(["rotate", f"rotate_{way}", "turn", "cycle"])

    def oracle(values: list[int]) -> list[int]:
        out = list(values)
        for _ in range(k if values else 0):
            out = [*out[1:], out[0]] if way == "left" else [out[-1], *out[:-1]]
        return out

    step = f"{k} % len(values)" if way == "left" else f"-{k} % len(values)"
    return PythonDraft(
        entry,
        "values",
        [
            f"returns values rotated by {k} places to the {way}",
            f"moves every item of values {k} places to the {way}, around the end",
        ],
        [f"turns the list values {k} steps to the {way}, cyclically"],
        lists(r),
        oracle,
        {
            "slices": define(
                entry, "values", f"if not values:\n    return []\nk = {step}\nreturn values[k:] + values[:k]"
            )
        },
    )


@family("sequences")
def pairs_with_sum(r: random.Random) -> PythonDraft:
    total = r.randint(-5, 20)
    entry = r.choice(["pairs", "count_pairs", f"pairs_with_{total}" if total >= 0 else "pairs_with", "two_sum_count"])
    return PythonDraft(
        entry,
        "values",
        [
            f"counts the pairs of places i < j with values[i] + values[j] == {total}",
            f"returns how many pairs of items of values, at different places, add up to {total}",
        ],
        [f"gives the number of index pairs (i < j) of values whose items sum to {total}"],
        [*lists(r, -6, 12), ([total, 0, total, 0],)],
        lambda values: len([1 for i, a in enumerate(values) for b in values[:i] if a + b == total]),
        {
            "seen": define(
                entry,
                "values",
                f"seen = {{}}\ncount = 0\nfor value in values:\n    count += seen.get({total} - value, 0)\n    "
                "seen[value] = seen.get(value, 0) + 1\nreturn count",
            )
        },
    )


@family("sequences")
def transpose(r: random.Random) -> PythonDraft:
    k = r.choice([1, 2, 3, -1, 10])
    entry = r.choice(["transpose", "columns", "flip", "swap_axes"])
    more = f" and multiplies every number by {k}" if k != 1 else ""
    tables = [
        ([],),
        ([[1]],),
        ([[1, 2], [3, 4]],),
        ([numbers(r, 3), numbers(r, 3)],),
        ([numbers(r, 2) for _ in range(4)],),
    ]
    return PythonDraft(
        entry,
        "rows",
        [
            f"transposes the table rows, a list of lists of equal length{more}",
            f"turns the columns of rows (lists of one length) into lists{more}",
        ],
        [f"swaps rows and columns of the rectangular list of lists rows{more}"],
        tables,
        lambda rows: [[row[i] * k for row in rows] for i in range(len(rows[0]) if rows else 0)],
        {
            "zip": define(
                entry,
                "rows",
                "return [list(column) for column in zip(*rows, strict=True)]"
                if k == 1
                else f"return [[value * {k} for value in column] for column in zip(*rows, strict=True)]",
            )
        },
    )
