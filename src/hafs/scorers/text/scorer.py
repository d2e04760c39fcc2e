"""The scorer of prose; `measures.py` has what it measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hafs.errors import DataError, HafsError, MissingTool, UsageError
from hafs.scorers.text.measures import fluency, found, language, languages, length, repetition, words
from hafs.scorers.text.worker import Bounded
from hafs.types import Candidate, Prompt, Score

__all__ = ["TextScorer", "Wanted"]

FIX = "write it as text:min_words=20,max_words=200,language=en,regex=...,json,model=NAME"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a text; empty or 0 is not asked. `schema` is a JSON schema."""

    min_words: int = 0
    max_words: int = 0
    language: str = ""
    regex: str = ""
    json: bool = False
    schema: Mapping[str, Any] | None = None


class TextScorer:
    """Scores any text; a prompt with checker "text" may ask for more by the keys of `Wanted` in its check."""

    name = "text"
    version = "3"

    def __init__(self, argument: str = "", **_: Any) -> None:
        settings = _settings(argument)
        model = settings.pop("model", "")
        if model is True:
            raise UsageError("the scorer text: model names no model", FIX)
        self._wanted = _checked(settings, "the scorer text")
        asked = {k: v for k, v in asdict(self._wanted).items() if v}
        self.arguments: Mapping[str, Any] = asked
        self._judge: Any = None
        self._bounded = Bounded()
        self._model = model
        if model:
            from hafs.models.naming import model_hash, resolve

            self.arguments = {**asked, "model": model_hash(resolve(model))}

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """See `Scorer.score`. Raises DataError when a prompt's check is malformed, before anything is scored."""
        wanted = {p.id: self._of(p) for p, _ in items}
        for prompt, candidate in items:
            blank: dict[str, Any] = {
                "candidate_id": candidate.id,
                "scorer": self.name,
                "version": self.version,
                "arguments": self.arguments,
            }
            try:
                yield self._scored(blank, prompt, candidate, wanted[prompt.id])
            except MissingTool as e:
                yield Score(**blank, reason=f"{e.what} ({e.fix})" if e.fix else e.what)
            except HafsError as e:
                yield Score(**blank, reason=e.what)
            except Exception as e:  # what one answer did to our own code must not end the scoring of all
                yield Score(**blank, reason=f"the scorer failed on this answer: {type(e).__name__}: {e}"[:300])

    def close(self) -> None:
        """Let go of the model and of the process."""
        self._judge = None
        self._bounded.close()

    def _of(self, prompt: Prompt) -> Wanted:
        if prompt.checker != self.name or not prompt.check:
            return self._wanted
        return _checked(prompt.check, f"the check of prompt {prompt.id}", self._wanted)

    def _scored(self, blank: dict[str, Any], prompt: Prompt, candidate: Candidate, wanted: Wanted) -> Score:
        text = candidate.text
        n = len(words(text))
        details: dict[str, Any] = {"words": n}
        parts = {"repetition": repetition(text)}
        musts: dict[str, bool] = {}
        if not text.strip():
            parts["content"] = 0.0
            musts["empty"] = False
        if wanted.min_words or wanted.max_words:
            parts["length"] = length(n, wanted.min_words, wanted.max_words)
            musts["too short" if n < wanted.min_words else "too long"] = parts["length"] == 1.0
        if wanted.language:
            details["language"] = language(text)
            musts["wrong language"] = details["language"] == wanted.language
            parts["language"] = float(musts["wrong language"])
        if wanted.regex:
            musts["pattern not found"] = self._bounded.found(wanted.regex, text)
            parts["regex"] = float(musts["pattern not found"])
        if wanted.json or wanted.schema is not None:
            self._json(text, wanted, parts, musts, details)
        if self._model:
            details["perplexity"] = perplexity = self._perplexity(prompt, text)
            parts["fluency"] = fluency(perplexity)
        details["parts"] = {k: round(v, 6) for k, v in parts.items()}
        cause = next((name for name, held in musts.items() if not held), "")
        return Score(
            **blank,
            value=round(sum(parts.values()) / len(parts), 6),
            passed=not cause if musts else None,
            cause=cause,
            details=details,
        )

    def _json(
        self, text: str, wanted: Wanted, parts: dict[str, float], musts: dict[str, bool], details: dict[str, Any]
    ) -> None:
        musts["not JSON"], problem = self._bounded.json(text, wanted.schema)
        if wanted.schema is not None and musts["not JSON"]:
            musts["not by the schema"] = not problem
            if problem:
                details["problems"] = [problem]
        parts["json"] = 1.0 if all(musts.get(k, True) for k in ("not JSON", "not by the schema")) else 0.0

    def _perplexity(self, prompt: Prompt, text: str) -> float:
        """exp of the mean negative log-probability of the answer's tokens given the prompt, under the named model."""
        if self._judge is None:
            self._judge = _Judge(self._model)
        return float(self._judge.perplexity(prompt, text))


class _Judge:
    """A causal language model that reads answers."""

    def __init__(self, model: str) -> None:
        from hafs.models.loading import load_model, load_tokenizer
        from hafs.models.naming import resolve

        path = resolve(model)
        self._tokenizer, self._net = load_tokenizer(path), load_model(path).eval()

    def perplexity(self, prompt: Prompt, text: str) -> float:
        """See `TextScorer._perplexity`; raises HafsError when the text does not fit the model."""
        import torch

        from hafs.models.chat import encode_answer, encode_prompt

        head = encode_prompt(self._tokenizer, prompt.text, prompt.system, prompt.context, prompt.tools)
        tail = encode_answer(self._tokenizer, text)
        most = getattr(self._net.config, "max_position_embeddings", None)
        if most and len(head) + len(tail) > most:
            raise HafsError(f"prompt and answer are {len(head) + len(tail)} tokens, more than the model's {most}")
        with torch.no_grad():
            logits = self._net(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].float()
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(tail))
        return math.exp(min(float(nll), 700.0))


def _settings(argument: str) -> dict[str, Any]:
    """The argument `key=value,key` as a mapping; a comma inside a regex is written `\\x2c`."""
    out: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in argument.split(","))):
        key, given, value = part.partition("=")
        if given and not value:
            raise UsageError(f"the scorer text: {key} is empty", FIX)
        out[key] = value if given else True
    for key in ("min_words", "max_words"):
        if key in out:
            if not str(out[key]).isdecimal():
                raise UsageError(f"the scorer text: {key} is {out[key]!r}, no number", FIX)
            out[key] = int(out[key])
    return out


def _checked(data: Mapping[str, Any], where: str, base: Wanted = Wanted()) -> Wanted:
    kinds = {"min_words": int, "max_words": int, "language": str, "regex": str, "json": bool, "schema": dict}
    for key, value in data.items():
        if key not in kinds:
            raise DataError(f"{where}: there is no {key!r}", FIX)
        if not isinstance(value, kinds[key]) or (kinds[key] is int and isinstance(value, bool)):
            raise DataError(f"{where}: {key} is {value!r}, not {kinds[key].__name__}", FIX)
    try:
        found(data.get("regex", ""), "")
    except DataError as e:
        raise DataError(f"{where}: {e.what}", e.fix) from e
    wanted = replace(base, **data)
    if min(wanted.min_words, wanted.max_words) < 0 or 0 < wanted.max_words < wanted.min_words:
        raise DataError(f"{where}: no text has {wanted.min_words} to {wanted.max_words} words", FIX)
    if data.get("language") and wanted.language not in (known := languages() or {wanted.language}):
        raise DataError(f"{where}: there is no language {wanted.language!r}", f"use one of: {', '.join(sorted(known))}")
    return wanted
