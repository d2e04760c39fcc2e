"""Where PPO's answers come from, the model in training or a server that has its adapter, and what rates them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from hafs.backends import Backend, Request, TakesAdapters, answers, open_backend
from hafs.config import GenerateConfig, PreferencesConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import Thinking, stop_ids
from hafs.preferences.build import groups_from_answers
from hafs.scorers import Scorer
from hafs.training.actors import POLICY
from hafs.training.online import Grouper
from hafs.training.rollout import Rater, Rating, Sampled, Sampler
from hafs.types import Candidate, PreferenceGroup, Prompt, Score


def policy_sampler(
    tokenizer: Any, max_new_tokens: int, batch_size: int, thinking: Thinking = "keep", temperature: float = 1.0
) -> Sampler:
    """Answers of the model in training, at temperature 1 unless said, as the transformers backend decodes."""
    from hafs.generation.transformers import TransformersBackend

    def sample(net: Any, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sampled]]:
        backend = TransformersBackend.of(net, tokenizer)
        config = _config(n, max_new_tokens, batch_size, seed, thinking).model_copy(update={"temperature": temperature})
        return _sampled(backend, prompts, config)

    return sample


class ServedSampler:
    """Answers of a server that is given the policy's adapter at every step. A Sampler; a context manager.

    The adapter lies in `directory`, on a disk that the server reads, for as long as it is in use.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        max_new_tokens: int,
        batch_size: int,
        directory: Path,
        thinking: Thinking = "keep",
    ) -> None:
        """`name` is a backend's, as `openai:http://127.0.0.1:8010/v1`; raises UsageError if it takes no adapters."""
        backend = open_backend(name)
        if not isinstance(backend, TakesAdapters):
            raise UsageError(
                f"{name} cannot be given the adapter of a model in training",
                "a server that can: `hafs serve` or vLLM, as openai:URL",
            )
        self._backend: Any = backend
        self._tokenizer, self._directory = tokenizer, directory
        self._max_new_tokens, self._batch_size = max_new_tokens, batch_size
        self._thinking = thinking
        self._before: Path | None = None
        self._mine = secrets.token_hex(4)  # a run that was killed may have left its adapter of this step at the server

    def __call__(self, net: Any, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sampled]]:
        """`n` answers to each prompt; raises HafsError when the server does not tell its tokens."""
        adapter = self._directory / f"policy-{seed}-{self._mine}"
        net.save_pretrained(str(adapter), selected_adapters=[POLICY])
        self._use(adapter)
        config = _config(n, self._max_new_tokens, self._batch_size, seed, self._thinking)
        found = _sampled(self._backend, prompts, config)
        if not all(a.ids and a.logps for row in found for a in row):
            raise HafsError(
                f"{self._backend.name} does not tell the tokens that it samples or their log-probabilities",
                "`hafs serve` and vLLM do",
            )
        ends = stop_ids(self._tokenizer, getattr(net, "generation_config", None))
        return [[_ended(a, ends) for a in row] for row in found]

    def _use(self, adapter: Path | None) -> None:
        self._backend.use_adapter(adapter)
        if self._before is not None:
            shutil.rmtree(self._before)
        self._before = adapter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the server as it was, if it is there yet."""
        with suppress(HafsError):
            self._use(None)
        shutil.rmtree(self._directory, ignore_errors=True)


def _config(n: int, max_new_tokens: int, batch_size: int, seed: int, thinking: Thinking = "keep") -> GenerateConfig:
    return GenerateConfig(
        candidates=n,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        concurrency=batch_size,
        seed=seed,
        thinking=thinking,
    )


def _ended(answer: Sampled, ends: Sequence[int]) -> Sampled:
    """With the token that ended it, which a server may leave out and the policy must learn, too."""
    complete = answer.finish != "stop" or answer.ids[-1] in ends
    return answer if complete else replace(answer, ids=(*answer.ids, ends[0]))


def _sampled(backend: Backend, prompts: Sequence[Prompt], config: GenerateConfig) -> list[list[Sampled]]:
    found: list[dict[int, Sampled]] = [{} for _ in prompts]
    requests = [Request.of(p, config.candidates, key=str(i)) for i, p in enumerate(prompts)]
    for batch in answers(backend, requests, config):
        for a in batch:
            found[int(a.key)][a.index] = Sampled(a.token_ids, a.text, a.finish, a.logprobs)
    return [[row[i] for i in sorted(row)] for row in found]


def rater(scorer: Scorer) -> Rater:
    """A scorer's values as PPO takes them, and its reasons where there is none.

    A policy says more and more often what it has said before: an answer that has its value is not scored again.
    """
    known: dict[tuple[str, str, str], float] = {}

    def rate(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
        keys = [[(p.id, a.text, a.finish) for a in row] for p, row in zip(prompts, answers, strict=True)]
        prompt_of = {p.id: p for p in prompts}
        new = list(dict.fromkeys(key for row in keys for key in row if key not in known))
        reasons: dict[tuple[str, str, str], str] = {}
        asked = [(prompt_of[id], Candidate(id, text, finish=finish)) for id, text, finish in new]
        for key, score in zip(new, scorer.score(asked), strict=True):
            if score.value is None:
                reasons[key] = score.reason or "no reason given"
            else:
                known[key] = score.value
        return [[known[key] if key in known else reasons[key] for key in row] for row in keys]

    return rate


def grouper(scorer: Scorer, pairing: PreferencesConfig) -> Grouper:
    """Sampled answers as preference groups by what a scorer says of them, as `hafs preferences build` would pair them.

    An answer that has its score is not scored again: a policy says more and more often what it has said before.
    """
    known: dict[tuple[str, str, str], Score] = {}

    def compare(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[PreferenceGroup | str]:
        keys = {(p.id, a.text, a.finish): p for p, row in zip(prompts, answers, strict=True) for a in row}
        new = [key for key in keys if key not in known]
        asked = [(keys[key], Candidate(key[0], key[1], finish=key[2])) for key in new]
        for key, score in zip(new, scorer.score(asked), strict=True):
            if score.value is not None:
                known[key] = score
        return [_group(p, row, known, pairing) for p, row in zip(prompts, answers, strict=True)]

    return compare


def _group(
    prompt: Prompt, answers: Sequence[Sampled], known: Mapping[tuple[str, str, str], Score], pairing: PreferencesConfig
) -> PreferenceGroup | str:
    """The group of a prompt's answers, each candidate named by its place among them; or why there is none."""
    made = [Candidate(prompt.id, a.text, index=i, finish=a.finish) for i, a in enumerate(answers)]
    scores = [known.get((prompt.id, a.text, a.finish)) for a in answers]
    scored = [(c, replace(s, candidate_id=c.id) if s else None) for c, s in zip(made, scores, strict=True)]
    passed = {s.passed for s in scores if s is not None}
    if passed == {True} and not pairing.efficiency:
        return "every answer is right"
    found, report = groups_from_answers([(prompt, scored)], **pairing.model_dump())
    groups = list(found)
    if not groups:
        return next(iter(report.skipped))
    place = {c.id: str(c.index) for c in made}
    return replace(groups[0], candidates=tuple(replace(c, id=place[c.id]) for c in groups[0].candidates))
