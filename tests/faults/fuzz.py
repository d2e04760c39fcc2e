"""Fuzzing of every parser of foreign bytes: `make fuzz` (all of them, a minute each), or

    python tests/faults/fuzz.py TARGET [-max_total_time=60 ...]

With the package atheris (`pip install atheris`) coverage leads it, and what is new goes into `corpus/TARGET`; without it
hypothesis changes the corpus at random. A parser gives a result or raises HafsError, and nothing else. `make test`
replays the corpus and tries a few changes of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import catalogue  # noqa: F401  where the tests are

from hafs.errors import HafsError

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 4096


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="hafs-fuzz-"))


def _file(data: bytes, end: str) -> Path:
    path = _folder() / f"given{end}"
    path.write_bytes(data)
    return path


ENDS = (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".parquet", ".txt")


def _by_end(data: bytes) -> Path:
    """A file whose kind the first byte says."""
    return _file(data[1:], ENDS[data[0] % len(ENDS)] if data else ".jsonl")


def _text(data: bytes) -> str:
    """Bytes as text, with half characters where the bytes are those of one."""
    return data.decode("utf-8", "replace") if b"\xed\xa0\x80" not in data else f"\ud800{data.decode('latin-1')}"


def prompts(data: bytes) -> None:
    from hafs.data import read_prompts

    list(islice(read_prompts(_by_end(data)).rows, 50))


def examples(data: bytes) -> None:
    from hafs.data import read_examples

    list(islice(read_examples(_by_end(data)).rows, 50))


def preferences(data: bytes) -> None:
    from hafs.preferences.formats import read_preferences

    list(islice(read_preferences(_by_end(data)).groups, 50))


def rows(data: bytes) -> None:
    from hafs.store.files import read_rows
    from hafs.store.rows import KINDS

    kind = sorted(KINDS)[data[0] % len(KINDS)] if data else "prompts"
    list(islice(read_rows(_file(data[1:], ".jsonl"), kind).rows, 50))


def answers(data: bytes) -> None:
    from hafs.scorers.exact import normalised
    from hafs.scorers.python.extract import extract
    from hafs.scorers.text.measures import as_json, repetition, words

    text = _text(data)
    extract(text, "f"), extract(text, "f", "def f(x):\n")
    assert normalised(normalised(text)) == normalised(text)
    as_json(text), repetition(text), words(text)


def assembly(data: bytes) -> None:
    from hafs_snes.scorer.extract import extract, number

    text = data.decode("utf-8", "replace")
    extract(text, "f"), extract(text), number(text)


@cache
def _asked() -> list[Any]:
    from hafs.judge import open_protocol
    from hafs.types import Candidate, Prompt, Reference

    prompt = Prompt("say", references=(Reference("r", "known"),))
    found = [Candidate(prompt.id, f"answer {i}", index=i) for i in range(3)]
    names = ("listwise", "pairwise", "pointwise", "reference")
    return [next(iter(open_protocol(name).asks(prompt, found))) for name in names]


def replies(data: bytes) -> None:
    from hafs.judge.answers import Unreadable, read

    for ask in _asked():
        try:
            reading = read(ask, _text(data))
        except Unreadable:
            continue
        shown = {id for tier in reading.tiers for id in tier}
        assert shown <= set(ask.shown), "a judge voted for what it was not shown"


def runs(data: bytes) -> None:
    from hafs.training.checkpoints import RunDirectory, trim_log

    _file(data, "").replace(_folder() / "run.json")
    run = RunDirectory(_folder())
    trim_log(_file(data, ".log"), 3)
    run.about(), run.finished()


def settings(data: bytes) -> None:
    from hafs.config import load_config

    load_config(_file(data, ".toml"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (prompts, examples, preferences, rows, answers, assembly, replies, runs, settings)
}


def attempt(target: str, data: bytes) -> None:
    """Give a parser bytes; an error for people is what it may raise."""
    with suppress(HafsError):
        TARGETS[target](data)


def corpus(target: str) -> Iterator[bytes]:
    """What is kept for a parser."""
    for path in sorted((CORPUS / target).glob("*")):
        yield path.read_bytes()


def changed(data: bytes, at: int, piece: bytes, over: int) -> bytes:
    """`data` with a piece put in at a place, over so many bytes."""
    at %= len(data) + 1
    return (data[:at] + piece + data[at + over :])[:LONGEST]


def by_hypothesis(target: str, examples: int) -> None:
    """Change what is kept at random, so many times."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    piece = st.binary(max_size=8) | st.sampled_from(
        [b"[" * 2000, b"{" * 2000, b'"', b"\\ud800", b"\0", b"1e999", b"\n\n", b"\xff"]
    )

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(list(corpus(target))), st.integers(0, LONGEST), piece, st.integers(0, 64))
    def all_of(data: bytes, at: int, piece: bytes, over: int) -> None:
        attempt(target, changed(data, at, piece, over))

    all_of()


def main() -> None:
    """Fuzz one parser."""
    target, *flags = sys.argv[1:]
    try:
        import atheris
    except ImportError:
        print(f"{target}: the package atheris is not installed: hypothesis alone", flush=True)
        by_hypothesis(target, 3000)
        return
    with atheris.instrument_imports(include=["hafs", "hafs_snes"]):
        for data in corpus(target):
            attempt(target, data)
    folder = CORPUS / target
    atheris.Setup([sys.argv[0], str(folder), f"-max_len={LONGEST}", *flags], lambda data: attempt(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
