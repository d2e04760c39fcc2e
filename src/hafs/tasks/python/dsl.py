"""The words a family of Python tasks is written in.

A family is a function that draws parameters from a random.Random and returns a `Draft`: what is asked (several
phrasings, some kept for the test split), the arguments of each case, an oracle that says what must come out, and
reference answers. The oracle is not the reference: the two are written apart, and tests run one against the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hafs.types import Prompt, Reference

HELD_OUT = "held-out phrasing"
FRAMES = (
    "Write a Python function {sig} that {ask}.",
    "In Python: a function {sig} that {ask}.",
    "I need a Python function {sig}. It {ask}.",
    "Python function {sig}: {ask}.",
    "Define {sig} in Python so that it {ask}.",
    "Give me Python code for {sig}, which {ask}.",
)
"""How a request and the signature are put together; every family shares them, in every split."""


@dataclass(frozen=True)
class PythonDraft:
    """One instance of a family. `ask` continues "a function that …"; `inputs` are the arguments of each case.

    `oracle` gets the arguments of a case and gives its value; the exception that it raises is the one that is wanted.
    `references` are whole answers, best first.
    """

    entry: str
    params: str
    ask: Sequence[str]
    ask_test: Sequence[str]
    inputs: Sequence[tuple[Any, ...]]
    oracle: Callable[..., Any]
    references: Mapping[str, str]

    def check(self) -> dict[str, Any]:
        """The row's check data."""
        return {"entry": self.entry, "cases": [self._case(args) for args in self.inputs]}

    def _case(self, args: tuple[Any, ...]) -> dict[str, str]:
        text = ", ".join(map(repr, args))
        try:
            return {"args": text, "returns": repr(self.oracle(*args))}
        except (ValueError, TypeError, KeyError, IndexError) as e:
            return {"args": text, "raises": type(e).__name__}


@dataclass(frozen=True)
class PythonFamily:
    """A named kind of task with the category it counts for."""

    name: str
    category: str
    make: Callable[[random.Random], PythonDraft]
    tags: tuple[str, ...] = ()

    def draft(self, label: str) -> PythonDraft:
        """The instance that `label` stands for."""
        return self.make(random.Random(label))

    def text(self, draft: PythonDraft, pick: random.Random, held_out: bool) -> tuple[str, str]:
        """(prompt text, tag that names its phrasing); held-out phrasings are those of the test split."""
        options = draft.ask_test if held_out else draft.ask
        i = pick.randrange(len(options))
        signature = f"`{draft.entry}({draft.params})`"
        return pick.choice(FRAMES).format(sig=signature, ask=options[i]), HELD_OUT if held_out else f"phrasing {i}"

    def prompt(self, draft: PythonDraft, text: str, split: str, phrasing: str) -> Prompt:
        """The finished row."""
        references = tuple(Reference(name, f"```python\n{code}```") for name, code in draft.references.items())
        return Prompt(
            text=text,
            family=self.name,
            category=self.category,
            split=split,
            source="python",
            checker="python",
            check=draft.check(),
            references=references,
            tags=(*self.tags, phrasing),
        )


FAMILIES: dict[str, PythonFamily] = {}


def family(category: str) -> Callable[[Callable[[random.Random], PythonDraft]], PythonFamily]:
    """Register the decorated function as a family; names are unique."""

    def register(make: Callable[[random.Random], PythonDraft]) -> PythonFamily:
        if make.__name__ in FAMILIES:
            raise ValueError(f"two families named {make.__name__}")
        FAMILIES[make.__name__] = made = PythonFamily(make.__name__, category, make)
        return made

    return register


def define(entry: str, params: str, body: str) -> str:
    """The code of a function: `body` is its lines, not indented."""
    lines = "".join(f"    {line}\n" if line else "\n" for line in body.split("\n"))
    return f"def {entry}({params}):\n{lines}"


def numbers(r: random.Random, n: int = 8, low: int = -20, high: int = 20) -> list[int]:
    """`n` whole numbers."""
    return [r.randint(low, high) for _ in range(n)]


def lists(r: random.Random, low: int = -20, high: int = 20) -> list[tuple[list[int]]]:
    """Arguments that are lists of whole numbers: the empty one, one of one, and others with and without repeats."""
    return [([],), ([r.randint(low, high)],), ([3, 3, 3],), *((numbers(r, n, low, high),) for n in (2, 5, 8, 12))]


WORDS = ("apple", "river", "stone", "Level", "noon", "Python", "tree", "go", "banana", "Sky", "moon", "radar", "zebra")


def phrase(r: random.Random, n: int) -> str:
    """`n` words with single spaces."""
    return " ".join(r.choice(WORDS) for _ in range(n))


def texts(r: random.Random) -> list[tuple[str]]:
    """Arguments that are texts: the empty one, a letter, words, digits and punctuation."""
    return [("",), ("a",), ("A1b2, c3!",), ("zebra ZEBRA xyz XYZ",), *((phrase(r, n),) for n in (1, 2, 4, 6))]
