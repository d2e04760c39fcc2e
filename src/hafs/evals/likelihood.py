"""How likely a model finds the right answers: perplexity of the references, without sampling anything.

Of a prompt it is the mean log-probability of a token over all its references' tokens; of a benchmark the mean over
prompts, exponentiated: exp(mean of -log p per token). The interval resamples prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hafs.statistics import Estimate, bootstrap_mean
from hafs.types import GroupCandidate, PreferenceGroup, Progress, Prompt, silent

__all__ = ["perplexity", "reference_nll"]

LONGEST = 1 << 15  # tokens of a prompt and a reference; longer ones are left out


def reference_nll(
    model: str, prompts: Sequence[Prompt], *, precision: str = "auto", progress: Progress = silent
) -> dict[str, float]:
    """The mean negative log-probability of a reference's token (nats) by prompt id, for prompts with references.

    What was computed is kept in the cache beside the references of training, by the model's content hash and the token
    ids, so that a killed run goes on and a repeated one is free. Raises UsageError for an unknown model.
    """
    from accelerate import Accelerator

    from hafs.config import TrainConfig
    from hafs.files.fetch import cache_root
    from hafs.models.loading import load_model, load_tokenizer, pick_precision
    from hafs.models.naming import model_hash, resolve
    from hafs.training.logprobs import CandidateLogps, self_test
    from hafs.training.packing import fit, tokenize
    from hafs.training.reference import ReferenceCache, fill_reference

    path: Path = resolve(model)
    config = TrainConfig.model_validate({"precision": pick_precision(precision)})
    tokenizer = load_tokenizer(path)
    groups = {}
    for p in prompts:
        texts = tuple(GroupCandidate(t) for t in dict.fromkeys(r.text for r in p.references) if t.strip())
        if texts and (
            tokens := fit(
                tokenize(tokenizer, PreferenceGroup(p.text, texts, (), p.system, context=p.context, tools=p.tools)),
                LONGEST,
            )
        ):
            groups[p.id] = tokens
    cache = ReferenceCache(cache_root() / "reference", [model_hash(path), config.precision, "auto", "none"])
    if any(cache.get(g) is None for g in groups.values()):
        network = CandidateLogps(load_model(path, config.precision))
        self_test(network, list(groups.values()), 1e-3 if config.precision == "fp32" else 0.1)
        fill_reference(cache, network, list(groups.values()), config, Accelerator(), progress)
    out = {}
    for prompt_id, group in groups.items():
        sums = cache.get(group) or []
        out[prompt_id] = -sum(sums) / sum(map(len, group.candidates))
    return out


def perplexity(nll: Sequence[float], level: float = 0.95, *, draws: int = 4000, seed: int = 0) -> Estimate:
    """Perplexity from the prompts' mean negative log-probabilities (nats), with its interval (`draws` resamples)."""
    e = bootstrap_mean(nll, level=level, draws=draws, seed=seed)
    if e.value is None or e.low is None or e.high is None:
        return e
    return replace(e, value=math.exp(e.value), low=math.exp(e.low), high=math.exp(e.high))
