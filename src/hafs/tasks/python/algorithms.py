"""Families that take an algorithm."""

from __future__ import annotations

import random
from itertools import combinations

from hafs.tasks.python.dsl import PythonDraft, define, family, lists


@family("algorithms")
def balanced(r: random.Random) -> PythonDraft:
    pairs = r.sample(["()", "[]", "{}", "<>"], r.randint(1, 3))
    entry = r.choice(["balanced", "matched", "well_formed", "check_brackets"])
    shown = " and ".join(pairs)

    def oracle(text: str) -> bool:
        text = "".join(c for c in text if c in "".join(pairs))
        while any(p in text for p in pairs):
            for p in pairs:
                text = text.replace(p, "")
        return not text

    a, b = pairs[0][0], pairs[0][1]
    table = ", ".join(f'"{p[1]}": "{p[0]}"' for p in pairs)
    body = (
        f"pairs = {{{table}}}\nopened = []\nfor c in text:\n    if c in pairs.values():\n        opened.append(c)\n"
        "    elif c in pairs and (not opened or opened.pop() != pairs[c]):\n        return False\nreturn not opened"
    )
    return PythonDraft(
        entry,
        "text",
        [
            f"says whether the brackets {shown} in text are balanced, ignoring other characters",
            f"returns True if every bracket of {shown} in text is closed in the right order, else False; other "
            "characters do not matter",
        ],
        [f"tests if text nests its brackets {shown} correctly, whatever else is in it"],
        [
            ("",),
            (a + b,),
            (b + a,),
            (a + a + b,),
            (f"x{a}y{b}z",),
            (f"{a}{a}{b}{b}{a}{b}",),
            ("([)]",),
            ("{[()]}<>",),
            ("no brackets",),
        ],
        oracle,
        {"stack": define(entry, "text", body)},
    )


@family("algorithms")
def binary_search(r: random.Random) -> PythonDraft:
    instead = r.choice([-1, None, 0, -9])
    side = r.choice(["first", "last"])
    entry = r.choice(["search", "find_index", "position", f"{side}_index"])

    def oracle(values: list[int], x: int) -> object:
        places = [i for i, v in enumerate(values) if v == x]
        return (places[0] if side == "first" else places[-1]) if places else instead

    call = "bisect.bisect_left(values, x)" if side == "first" else "bisect.bisect_right(values, x) - 1"
    test = "i < len(values)" if side == "first" else "i >= 0"
    data = [sorted(r.randint(0, 12) for _ in range(n)) for n in (1, 4, 8, 15)]
    return PythonDraft(
        entry,
        "values, x",
        [
            f"returns the {side} place of x in the sorted list values, or {instead} if it is not there",
            f"searches the sorted list values for x and gives its {side} index; {instead} when it is missing",
        ],
        [f"finds the {side} index at which x stands in the ascending list values ({instead} for none)"],
        [([], 3), ([2, 2, 2], 2), *((v, v[len(v) // 2]) for v in data), *((v, 99) for v in data[:2])],
        oracle,
        {
            "bisect": "import bisect\n\n\n"
            + define(entry, "values, x", f"i = {call}\nreturn i if {test} and values[i] == x else {instead}")
        },
    )


@family("algorithms")
def fibonacci_like(r: random.Random) -> PythonDraft:
    a, b = r.randint(0, 5), r.randint(1, 6)
    k = r.choice([1, 2, 3])
    entry = r.choice(["sequence", "fib", "term", "nth"])
    rule = f"each later term is {'the one before' if k == 1 else f'{k} times the one before'} plus the one before that"

    def oracle(n: int) -> int:
        terms = [a, b]
        while len(terms) <= n:
            terms.append(k * terms[-1] + terms[-2])
        return terms[n]

    step = "a + b" if k == 1 else f"a + {k} * b"
    return PythonDraft(
        entry,
        "n",
        [
            f"returns term n of the sequence that begins with {a} (term 0) and {b} (term 1), where {rule}",
            f"computes the n-th term, counted from 0, of the sequence {a}, {b}, …, in which {rule}",
        ],
        [f"gives element n (from 0) of the series with the start {a}, {b}, in which {rule}"],
        [(v,) for v in (0, 1, 2, 3, 7, 20, 60)],
        oracle,
        {"loop": define(entry, "n", f"a, b = {a}, {b}\nfor _ in range(n):\n    a, b = b, {step}\nreturn a")},
    )


@family("algorithms")
def best_window(r: random.Random) -> PythonDraft:
    n = r.randint(2, 5)
    what = r.choice(["largest", "smallest"])
    instead = r.choice([None, 0, -1])
    entry = r.choice(["best_window", "window_sum", f"{what}_window", "extreme"])
    pick = max if what == "largest" else min
    code = "max" if what == "largest" else "min"
    return PythonDraft(
        entry,
        "values",
        [
            f"returns the {what} sum of {n} neighbouring numbers in values, or {instead} if there are fewer than {n}",
            f"finds the {what} sum over all windows of {n} consecutive items of values; {instead} for shorter lists",
        ],
        [f"gives the {what} total that {n} adjacent values have ({instead} when there are not {n})"],
        lists(r),
        lambda values: pick(
            [sum(values[i + j] for j in range(n)) for i in range(len(values) - n + 1)], default=instead
        ),
        {
            "windows": define(
                entry,
                "values",
                f"return {code}((sum(values[i : i + {n}]) for i in range(len(values) - {n - 1})), default={instead})",
            )
        },
    )


@family("algorithms")
def increasing(r: random.Random) -> PythonDraft:
    step = r.randint(1, 4)
    entry = r.choice(["longest_rise", "increasing", "streak", "longest_run"])

    def oracle(values: list[int]) -> int:
        spans = [
            (i, j)
            for i, j in combinations(range(len(values) + 1), 2)
            if all(b - a >= step for a, b in zip(values[i : j - 1], values[i + 1 : j], strict=True))
        ]
        return max((j - i for i, j in spans), default=0)

    body = (
        "best = length = 0\nfor i, value in enumerate(values):\n    rises = i > 0 and value - values[i - 1] >= "
        f"{step}\n"
        "    length = length + 1 if rises else 1\n    best = max(best, length)\nreturn best"
    )
    return PythonDraft(
        entry,
        "values",
        [
            f"returns the length of the longest stretch of values in which every number is at least {step} greater "
            "than the one before",
            f"finds how long the longest run of neighbours in values is where each item exceeds the last by {step} "
            "or more",
        ],
        [f"gives the greatest number of consecutive values that rise by at least {step} each time"],
        [
            *lists(r, 0, 15),
            ([9, *(step * i for i in range(5)), 2],),
            ([(step - 1) * i for i in range(5)],),
            ([(step + 1) * i for i in range(4)],),
        ],
        oracle,
        {"loop": define(entry, "values", body)},
    )


@family("algorithms")
def flatten(r: random.Random) -> PythonDraft:
    k = r.choice([1, 2, 3, -1, 10])
    back = r.choice([True, False])
    entry = r.choice(["flatten", "flat", "unnest", "leaves"])
    more = "".join([f", each times {k}" if k != 1 else "", ", in reverse order" if back else ""])
    data: list[tuple[list[object]]] = [
        ([],),
        ([1, 2],),
        ([[1], [[2, [3]]], 4],),
        ([[], [[[]]]],),
        ([[r.randint(0, 9), [r.randint(0, 9)]], r.randint(0, 9)],),
    ]

    def oracle(values: list[object]) -> list[int]:
        found = [int(c) * k for c in str(values).replace("[", " ").replace("]", " ").replace(",", " ").split()]
        return found[::-1] if back else found

    inner = "value" if k == 1 else f"value * {k}"
    walk = (
        "out = []\nwaiting = [values]\nwhile waiting:\n    value = waiting.pop()\n    if isinstance(value, list):\n"
        f"        waiting.extend({'value' if back else 'value[::-1]'})\n    else:\n        "
        f"out.append({inner})\nreturn out"
    )
    return PythonDraft(
        entry,
        "values",
        [
            f"returns all numbers of a list that holds numbers and lists of any depth as one flat list{more}",
            f"flattens the nested lists in values into one list of its numbers{more}",
        ],
        [f"collects the numbers of values, nested at any depth in lists, into one list{more}"],
        data,
        oracle,
        {"stack": define(entry, "values", walk)},
    )
