"""Single measures of a text, each from 0 (bad) to 1 (good)."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import regex

from hafs.errors import DataError, HafsError, MissingTool
from hafs.scorers.fences import fences

__all__ = ["as_json", "fluency", "found", "language", "languages", "length", "matches_schema", "repetition", "words"]

LONGEST_PATTERN_TEXT = 20_000  # characters that a pattern is searched in
PATTERN_SECONDS = 1.0  # processor time of one search; (a+)+$ would need years


def words(text: str) -> list[str]:
    """The words of a text, lower case."""
    return re.findall(r"\w+", text.lower())


def length(n: int, low: int, high: int) -> float:
    """1 for a number of words in the band; outside, the ratio to its nearer end."""
    if n < low:
        return n / low
    return high / n if high and n > high else 1.0


def repetition(text: str) -> float:
    """The lower of two: the share of 4-grams of words that are not repeats, and how little the text is compressed,
    where 1 is a quarter of its size or more. Texts under 20 words are taken as they are: 1.
    """
    found = words(text)
    if len(found) < 20:
        return 1.0
    grams = Counter(zip(found, found[1:], found[2:], found[3:], strict=False))
    data = text.encode("utf-8", "replace")
    packed = len(zlib.compress(data, 9)) / len(data)
    return min(len(grams) / sum(grams.values()), packed * 4, 1.0)


def fluency(perplexity: float) -> float:
    """Perplexity as a number from 0 to 1: 1 / (1 + ln perplexity / ln 20); a perplexity of 20 is a half."""
    return 1.0 / (1.0 + math.log(max(perplexity, 1.0)) / math.log(20.0))


def language(text: str) -> str:
    """The ISO 639-1 code of the text's language, code blocks left out. Raises MissingTool."""
    try:
        from py3langid import classify
    except ImportError as e:
        raise MissingTool("the package py3langid is not installed", "pip install 'hafs[text]'") from e
    _, outside = fences(text.splitlines())
    return str(classify("\n".join(outside) or text)[0])


def languages() -> set[str]:
    """The codes that `language` may give; none without the package that knows them."""
    try:
        from py3langid import rank
    except ImportError:
        return set()
    return {str(code) for code, _ in rank("")}


def as_json(text: str) -> tuple[bool, Any]:
    """(whether the text, or its last fenced block, is JSON, the value)."""
    blocks, _ = fences(text.splitlines())
    for part in (text, *(b.text for b in reversed(blocks))):
        try:
            return True, json.loads(part)
        except (ValueError, RecursionError):
            continue
    return False, None


_BRACES = re.compile(r"(\\N\{[^}]*\}|\\.)|\{(?!\d*,?\d*\})", re.S)


def found(pattern: str, text: str) -> bool:
    """Whether a pattern, in the words of `re`, is somewhere in the text. Raises HafsError when that takes too long.

    `^` and `$` are the ends of the text, as in `re`: with those of lines, an answer of a thousand lines would hold any
    pattern. `regex` searches, since `re` cannot be stopped. To it braces that are no number of repeats ask for a fuzzy
    match, so they are escaped. DataError is for a pattern that one of the two refuses.
    """
    try:
        re.compile(pattern)
        search = regex.compile(_BRACES.sub(lambda m: m[1] or r"\{", pattern)).search
    except (re.error, regex.error, RecursionError) as e:
        raise DataError(f"the regex is wrong: {e}", "correct it") from e
    try:
        return search(text[:LONGEST_PATTERN_TEXT], timeout=PATTERN_SECONDS) is not None
    except TimeoutError as e:
        raise HafsError(f"the regex took longer than {PATTERN_SECONDS:g} s on the answer", "write it simpler") from e


def matches_schema(value: Any, schema: Mapping[str, Any]) -> str:
    """What is wrong with a value by a JSON schema, or "". Raises MissingTool, DataError for a broken schema."""
    try:
        import jsonschema
        import referencing
    except ImportError as e:
        raise MissingTool("the package jsonschema is not installed", "pip install 'hafs[text]'") from e
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as e:
        raise DataError(f"the prompt's JSON schema is wrong: {e.message}", "correct the schema") from e
    try:  # an empty registry: what the schema refers to outside of itself is not fetched
        errors = sorted(kind(schema, registry=referencing.Registry()).iter_errors(value), key=_place)
    except RecursionError as e:
        raise HafsError("the answer or the schema is nested too deep to be checked", "write the schema simpler") from e
    except referencing.exceptions.Unresolvable as e:
        raise HafsError(
            f"the prompt's JSON schema refers to {e.ref!r}, which is not in it", "correct the schema"
        ) from e
    return errors[0].message[:200] if errors else ""


def _place(error: Any) -> list[str]:
    return list(map(str, error.path))
