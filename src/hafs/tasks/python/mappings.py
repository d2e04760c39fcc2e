"""Families on dictionaries."""

from __future__ import annotations

import random

from hafs.tasks.python.dsl import PythonDraft, define, family, phrase, texts

KEYS = ("a", "b", "c", "dog", "cat", "x1", "blue")


def table(r: random.Random, n: int) -> dict[str, int]:
    """A dictionary of `n` short keys."""
    return {k: r.randint(-9, 9) for k in r.sample(KEYS, n)}


@family("mappings")
def word_counts(r: random.Random) -> PythonDraft:
    least = r.randint(1, 5)
    lower = r.choice([True, False])
    entry = r.choice(["word_counts", "count_words", "frequencies", "tally"])
    case = "in lower case" if lower else "as they are written"
    rule = f" of at least {least} characters" if least > 1 else ""

    def oracle(text: str) -> dict[str, int]:
        words = [w.lower() if lower else w for w in text.split() if len(w) >= least]
        return {w: len([v for v in words if v == w]) for w in words}

    keep = f" if len(word) >= {least}" if least > 1 else ""
    words = f"(word for word in text{'.lower()' if lower else ''}.split(){keep})"
    return PythonDraft(
        entry,
        "text",
        [
            f"returns a dict from each word{rule} in text, {case}, to how often it occurs",
            f"counts the words{rule} of text, taken {case}, in a dict",
        ],
        [f"builds a dict of the words{rule} of text ({case}) and their numbers"],
        [*texts(r), (phrase(r, 12),)],
        oracle,
        {
            "get": define(
                entry,
                "text",
                f"counts = {{}}\nfor word in {words[1:-1].partition(' for word in ')[2].partition(' if ')[0]}:\n"
                + (
                    f"    if len(word) >= {least}:\n        counts[word] = counts.get(word, 0) + 1\n"
                    if least > 1
                    else "    counts[word] = counts.get(word, 0) + 1\n"
                )
                + "return counts",
            )
        },
    )


@family("mappings")
def invert(r: random.Random) -> PythonDraft:
    which = r.choice(["smallest", "largest"])
    k = r.choice([0, 1, 5, 10, 100])
    entry = r.choice(["invert", "swap", "reverse_lookup", "by_value"])
    more = f" plus {k}" if k else ""

    def oracle(data: dict[str, int]) -> dict[int, str]:
        pick = min if which == "smallest" else max
        return {v + k: pick(key for key in data if data[key] == v) for v in data.values()}

    add = f" + {k}" if k else ""
    turn = ", reverse=True" if which == "smallest" else ""
    return PythonDraft(
        entry,
        "data",
        [
            f"returns a dict from each value{more} of the dict data to its key, the {which} of several",
            f"swaps keys and values{more} of data; where keys share a value the {which} key is kept",
        ],
        [f"inverts the dict data (each value{more} to the {which} key that has it)"],
        [({},), *((table(r, n),) for n in (1, 3, 5, 7)), ({"a": 1, "b": 1},)],
        oracle,
        {"comprehension": define(entry, "data", f"return {{data[key]{add}: key for key in sorted(data{turn})}}")},
    )


@family("mappings")
def merge(r: random.Random) -> PythonDraft:
    how = r.choice(["adds", "takes the larger of", "takes the smaller of", "multiplies"])
    entry = r.choice(["merge", "combine", "union", "join_counts"])
    missing = r.choice([True, False])
    rule = "all keys of both" if missing else "only the keys that are in both"

    def both(a: int, b: int) -> int:
        return {
            "adds": a + b,
            "takes the larger of": max(a, b),
            "takes the smaller of": min(a, b),
            "multiplies": a * b,
        }[how]

    def oracle(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
        out = {k: both(a[k], b[k]) for k in a if k in b}
        return {**a, **b, **out} if missing else out

    code = {
        "adds": "a[k] + b[k]",
        "takes the larger of": "max(a[k], b[k])",
        "takes the smaller of": "min(a[k], b[k])",
        "multiplies": "a[k] * b[k]",
    }[how]
    body = (
        f"shared = {{k: {code} for k in a if k in b}}\nreturn {{**a, **b, **shared}}"
        if missing
        else f"return {{k: {code} for k in a if k in b}}"
    )
    return PythonDraft(
        entry,
        "a, b",
        [
            f"merges two dicts of numbers into a new one with {rule}; for a key in both it {how} the two values",
            f"returns a dict with {rule} of a and b, and {how} the values that a key has in both",
        ],
        [f"combines the dicts a and b ({rule}) and {how} the values of shared keys"],
        [({}, {}), (table(r, 3), {}), (table(r, 4), table(r, 4)), (table(r, 6), table(r, 5)), ({"a": 2}, {"a": 5})],
        oracle,
        {"comprehension": define(entry, "a, b", body)},
    )


@family("mappings")
def group_by(r: random.Random) -> PythonDraft:
    k = r.randint(2, 9)
    entry = r.choice(["group", "group_by", f"by_remainder_{k}", "buckets"])
    order = r.choice(["in their order", "sorted"])

    def oracle(values: list[int]) -> dict[int, list[int]]:
        source = sorted(values) if order == "sorted" else values
        return {v % k: [w for w in source if w % k == v % k] for v in values}

    source = "sorted(values)" if order == "sorted" else "values"
    return PythonDraft(
        entry,
        "values",
        [
            f"groups the numbers of values by their remainder modulo {k}: a dict from remainder to the list of "
            f"numbers, {order}",
            f"returns a dict from v % {k} to the list of all v of values with that remainder, {order}",
        ],
        [f"sorts values into a dict by v % {k}, each entry a list of the numbers, {order}"],
        [([],), ([k, 2 * k, 1],), ([r.randint(0, 60) for _ in range(9)],), ([r.randint(-30, 30) for _ in range(9)],)],
        oracle,
        {
            "setdefault": define(
                entry,
                "values",
                f"groups = {{}}\nfor value in {source}:\n    groups.setdefault(value % {k}, "
                "[]).append(value)\nreturn groups",
            )
        },
    )


@family("mappings")
def best_key(r: random.Random) -> PythonDraft:
    what = r.choice(["largest", "smallest"])
    instead = r.choice(["", None, "none", "-"])
    entry = r.choice(["best", f"key_of_{what}", "winner", "top"])

    def oracle(data: dict[str, int]) -> object:
        wanted = (max if what == "largest" else min)(data.values(), default=0)
        return next((k for k in sorted(data) if data[k] == wanted), instead)

    shown = "None" if instead is None else f'"{instead}"'
    key = "(-data[k], k)" if what == "largest" else "(data[k], k)"
    return PythonDraft(
        entry,
        "data",
        [
            f"returns the key of the dict data with the {what} value, alphabetically first on a tie, and {instead!r} "
            "for an empty dict",
            f"finds which key of data has the {what} value (the alphabetically first of several; {instead!r} if data "
            "is empty)",
        ],
        [
            f"gives the key whose value in data is {what}; ties go to the alphabetically first key, {instead!r} "
            "stands for none"
        ],
        [({},), ({"b": 1, "a": 1},), *((table(r, n),) for n in (1, 3, 5, 7))],
        oracle,
        {"min": define(entry, "data", f"return min(data, key=lambda k: {key}, default={shown})")},
    )


@family("mappings")
def keep_values(r: random.Random) -> PythonDraft:
    k = r.randint(-5, 6)
    sign = r.choice([">", "<", ">=", "<="])
    word = {">": "greater than", "<": "less than", ">=": "at least", "<=": "at most"}[sign]
    entry = r.choice(["keep", "filter_values", "only", "select"])
    check = {">": lambda v: v > k, "<": lambda v: v < k, ">=": lambda v: v >= k, "<=": lambda v: v <= k}[sign]
    return PythonDraft(
        entry,
        "data",
        [
            f"returns a dict of the entries of data whose value is {word} {k}",
            f"keeps those entries of the dict data that have a value {sign} {k}",
        ],
        [f"drops from a copy of data everything with a value that is not {word} {k}"],
        [({},), ({"x": k, "y": k + 1, "z": k - 1},), *((table(r, n),) for n in (1, 4, 7))],
        lambda data: dict(filter(lambda item: check(item[1]), data.items())),
        {
            "comprehension": define(
                entry, "data", f"return {{key: value for key, value in data.items() if value {sign} {k}}}"
            )
        },
    )
