"""PPO from an SFT model, readable top to bottom: sample answers, rate them, work out advantages, take clipped steps.

Who computes what, on one frozen base, is in actors.py.

Details that are known to matter are marked with the number they have in Huang et al. 2024, "The N+ Implementation
Details of RLHF with PPO: A Case Study on TL;DR Summarization", or in Huang et al. 2022, "The 37 Implementation Details
of Proximal Policy Optimization" (cited as [37]). The objective is that of Schulman et al. 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hafs.config import PPOConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import encode_prompt, template_hash, tokenizer_hash
from hafs.models.loading import load_model, load_tokenizer, pick_precision
from hafs.models.naming import model_hash, resolve
from hafs.training.actors import POLICY, Actors, RewardAdapter, reward_adapter
from hafs.training.advantages import adapted_kl_weight, flat, gae, grpo, padded, rloo, whiten
from hafs.training.checkpoints import RunDirectory
from hafs.training.data import record_data
from hafs.training.logprobs import CandidateLogps, self_test
from hafs.training.packing import PackedRow, StepRows, TokenGroup, tokens_of
from hafs.training.rollout import SAME_MODEL, Batch, Rater, Rating, Rollout, Sampled, Sampler
from hafs.training.run import check_weights, settings_of, tracking
from hafs.training.runner import Runner, TrainResult, Validate, found_in, result_dict, seed_of
from hafs.training.saving import save_checked
from hafs.types import PreferenceGroup, Progress, Prompt, content_id, silent


class PPOTrainer(Runner):
    """Trains the policy of `actors` on `prompts`; keeps the best checkpoint by held-out score."""

    config: PPOConfig

    def __init__(
        self,
        actors: Actors,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[int, ...]],
        sample: Sampler,
        rate: Rater | None,
        config: PPOConfig,
        run: RunDirectory,
        *,
        validate: Validate | None = None,
        progress: Progress = silent,
        track: Callable[[Mapping[str, Any], int], None] | None = None,
    ) -> None:
        """`encoded` are the prompts' token ids. `rate` may be None where the actors have a reward model.

        `track` is given every line of the log and its step.
        """
        if not prompts:
            raise UsageError("there is no prompt to sample answers to", "check the prompts and max_length")
        if rate is None and actors.reward is None:
            raise UsageError("PPO needs something that rates answers", "give a scorer, a reward model, or both")
        if config.advantage != "gae" and config.rollouts < 2:
            raise UsageError(f"{config.advantage} compares answers of one prompt", "set rollouts to 2 or more")
        if config.kl == "adaptive" and not config.kl_weight:
            raise UsageError("an adaptive KL weight of 0 stays 0", "set kl_weight to what it begins with")
        super().__init__(
            config,
            run,
            len(prompts),
            validate=validate,
            progress=progress,
            track=track,
            more_state={
                "unscored": 0,
                "why": {},
                "alone": 0,
                "kl_weight": config.kl_weight,
                "first_entropy": None,
                "low_entropy": 0,
                "reward": [],
                "best_reward": None,
                "hacking": 0,
            },
        )
        self.actors, self.prompts, self.encoded = actors, prompts, encoded
        self._sample, self._rate = sample, rate
        self.parameters = actors.trained()
        # Detail 6: Adam's epsilon is 1e-5 as in OpenAI's code, not PyTorch's 1e-8.
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, eps=1e-5, weight_decay=config.weight_decay
        )
        self._same_model = False

    @contextmanager
    def validating(self) -> Iterator[Any]:
        """The network as the policy."""
        with self.actors.acting("policy"):
            yield self.actors.net

    def _result(self) -> TrainResult:
        s, result = self._state, super()._result()
        if s["unscored"]:
            result.warnings.append(
                f"{s['unscored']} sampled answers could not be rated ({self._why()}) and were left out"
            )
        if s["alone"]:
            result.warnings.append(
                f"{s['alone']} rated answers were the only one of their prompt, with which"
                f" {self.config.advantage} can compare nothing, and were left out"
            )
        return result

    # ---- a step

    def step(self, step: int) -> dict[str, float]:
        """Sample, rate, and make `epochs` passes over the answers; returns the step's metrics under TRL's names."""
        rate = self.set_rate(step)
        rollouts = self._rollouts(step)
        if not rollouts:
            raise HafsError(
                f"too few of the answers of step {step} could be rated: {self._why()}",
                "correct that; the same command goes on from the last checkpoint",
            )
        ended = [good for r in rollouts for good in r.ended]
        minibatches = self._minibatches(rollouts)
        batches = [b for m in minibatches for b in m]
        metrics = {**self._rewards(batches, ended), **self._distance(batches)}
        sums: dict[str, list[float]] = {}
        for epoch in range(self.config.epochs):
            generator = torch.Generator().manual_seed((seed_of(self.config.seed, step) * 101 + epoch) % 2**63)
            for i in torch.randperm(len(minibatches), generator=generator).tolist():
                for name, value in self._update(minibatches[i]).items():
                    sums.setdefault(name, []).append(value)
        if self.config.kl == "adaptive":
            self._state["kl_weight"] = adapted_kl_weight(
                self._state["kl_weight"],
                metrics["objective/kl"],
                self.config.kl_target,
                len(ended),
                self.config.kl_horizon,
            )
        return {
            **metrics,
            **{n: sum(v) / len(v) for n, v in sums.items()},
            "learning_rate": rate,
            "epoch": round(step / self.steps_per_epoch, 4),
        }

    def _rollouts(self, step: int) -> list[Rollout]:
        """The step's prompts with their rated answers; what could not be rated is left out and counted."""
        chosen = self.drawn(step)
        prompts = [self.prompts[i] for i in chosen]
        with self.actors.acting("policy"):
            sampled = self._sample(self.actors.net, prompts, self.config.rollouts, seed_of(self.config.seed, step))
        drafts = [
            TokenGroup(self.encoded[i], tuple(a.ids for a in row)) for i, row in zip(chosen, sampled, strict=True)
        ]
        rated = self._scores(prompts, sampled, drafts)
        found = []
        for draft, answers, values in zip(drafts, sampled, rated, strict=True):
            scored = {j: v for j, v in enumerate(values) if not isinstance(v, str)}
            for why in (v for v in values if isinstance(v, str)):  # missing is missing: not a score of 0
                self._state["unscored"] += 1
                self._state["why"][why] = self._state["why"].get(why, 0) + 1
            if len(scored) < (1 if self.config.advantage == "gae" else 2):
                self._state["alone"] += len(scored)
                continue
            keep = list(scored)
            ended = [answers[j].finish == "stop" for j in keep]
            # Detail 13: an answer that never ended is worth less, so that ending is learnt.
            scores = [
                scored[j] - (0.0 if good else self.config.missing_eos_penalty)
                for j, good in zip(keep, ended, strict=True)
            ]
            group = TokenGroup(draft.prompt, tuple(draft.candidates[j] for j in keep))
            found.append(Rollout(group, scores, ended, [answers[j].logps for j in keep]))
        self._state["tokens"] += sum(tokens_of([r.group], self.actors.shared) for r in found)
        return found

    def _scores(
        self, prompts: Sequence[Prompt], sampled: Sequence[Sequence[Sampled]], groups: Sequence[TokenGroup]
    ) -> list[list[Rating]]:
        """What the scorer says plus what the reward model says; why not where the scorer does not."""
        totals: list[list[Rating]] = [[0.0] * len(row) for row in sampled]
        if self._rate is not None:
            totals = [list(row) for row in self._rate(prompts, sampled)]
        if self.actors.reward is None:
            return totals
        model = self.actors.reward
        with self.actors.acting("reward"):
            for piece in StepRows(groups, self.config.row_tokens, shared=self.actors.shared).of(0):
                values = model(model.row(piece.groups)).tolist()
                for group in piece.groups:
                    i = next(i for i, g in enumerate(groups) if g is group)
                    mine, values = values[: len(group.candidates)], values[len(group.candidates) :]
                    totals[i] = [
                        t if isinstance(t, str) else t + self.actors.reward_weight * v
                        for t, v in zip(totals[i], mine, strict=True)
                    ]
        return totals

    def _minibatches(self, rollouts: Sequence[Rollout]) -> list[list[Batch]]:
        """The rollouts in minibatches of rows that stay as they are for the whole step.

        The log-probabilities before the first update come from the same rows as those after it, so the first ratio is
        exactly 1, not 1 up to rounding.
        """
        n = max(1, min(self.config.minibatches, len(rollouts)))
        of = {id(r.group): r for r in rollouts}
        out = []
        for part in ([r.group for r in rollouts[i::n]] for i in range(n)):
            work = StepRows(part, self.config.row_tokens, shared=self.actors.shared).of(0)
            rows = [self.actors.policy.row(p.groups) for p in work]
            with self.actors.acting("policy"):
                old, told = zip(*(self.actors.outputs(row) for row in rows), strict=True)
            with self.actors.acting("reference"):
                before = [self.actors.policy(row) for row in rows]
            values = [torch.zeros_like(o) if v is None else v for o, v in zip(old, told, strict=True)]
            if self.actors.value is not None and self.actors.value_apart:
                with self.actors.acting("value"):
                    values = [self.actors.value(row) for row in rows]
            known = [_known([of[id(g)] for g in row.groups], row) for row in rows]
            out.append(
                [Batch(row, *k, *parts) for row, k, *parts in zip(rows, known, old, before, values, strict=True)]
            )
        return out

    def _rewards(self, batches: Sequence[Batch], ended: Sequence[bool]) -> dict[str, float]:
        """Fill in every batch's advantages and returns; returns the metrics of the answers as they were sampled.

        A token's reward is -β (log π/π_ref) and the answer's score comes with its last token (detail 14); an entropy
        weight adds what the token surprised by, whose expected gradient is that of the entropy.
        """
        beta, config = self._state["kl_weight"], self.config
        kls, entropies, given, totals = [], [], [], []
        tables = []
        for batch in batches:
            lengths = batch.row.lengths.tolist()
            ratio, surprise = batch.old - batch.reference, -batch.old
            mask = padded(torch.ones_like(batch.old), lengths)
            reward = padded(-beta * ratio + config.entropy_weight * surprise, lengths)
            reward[torch.arange(len(lengths)), batch.row.lengths - 1] += batch.scores
            kls.append(padded(ratio, lengths).sum(1))
            entropies.append(padded(surprise, lengths).sum(1))
            given.append(batch.scores)
            totals.append(reward.sum(1))
            tables.append((reward, mask))
        self._advantages(batches, tables)
        sizes = torch.cat([b.row.lengths for b in batches]).float()
        mean = {
            name: float(torch.cat(parts).mean())
            for name, parts in (("kl", kls), ("entropy", entropies), ("scores", given), ("rlhf_reward", totals))
        }
        return {
            **{f"objective/{name}": value for name, value in mean.items()},
            "objective/entropy_per_token": float(torch.cat(entropies).sum() / sizes.sum()),
            "objective/kl_weight": beta,
            "tokens_per_answer": float(sizes.mean()),
            "ended": sum(ended) / len(ended),
            "answers": len(ended),
            "unscored": self._state["unscored"],
        }

    def _distance(self, batches: Sequence[Batch]) -> dict[str, float]:
        """How far what sampled the answers is from the policy as computed here; nothing where it is the policy itself.

        Raises HafsError if they are too far apart to be one model, in the first step after each start.
        """
        both = [(b.sampled[known], b.old[known]) for b in batches if (known := ~b.sampled.isnan()).any()]
        if not both:
            return {}
        change = torch.cat([sampled - old for sampled, old in both])
        gap = float(change.abs().mean())
        if not self._same_model and gap > SAME_MODEL:
            raise HafsError(
                f"what samples the answers is another model: its log-probabilities are {gap:.2f} nats a token off",
                "serve the very model, with its own chat template, that --sft-model names",
            )
        self._same_model = True
        capped = torch.cat([b.weights(math.inf) > self.config.importance_cap for b in batches]).float()
        return {
            "rollout/kl_per_token": float(change.mean()),
            "rollout/gap_per_token": gap,
            "rollout/capped": float(capped.mean()),
        }

    def _advantages(self, batches: Sequence[Batch], tables: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        config = self.config
        for batch, (reward, mask) in zip(batches, tables, strict=True):
            if config.advantage == "gae":
                values = padded(batch.values, batch.row.lengths.tolist())
                advantages, returns = gae(reward, values, mask, config.gamma, config.lam)
                batch.returns = flat(returns, mask)
            else:
                sizes = [len(g.candidates) for g in batch.row.groups]
                whole, scores = reward.sum(1).split(sizes), batch.scores.split(sizes)
                parts = map(rloo, whole) if config.advantage == "rloo" else map(grpo, scores, whole)
                advantages = torch.cat(list(parts))[:, None] * mask
            batch.advantages = flat(advantages, mask)
        if config.whiten and config.advantage == "gae":  # over the whole step ([37] detail 7, here not by minibatch)
            every = torch.cat([b.advantages for b in batches])
            whitened = whiten(every, torch.ones_like(every)).split([len(b.advantages) for b in batches])
            for batch, advantages in zip(batches, whitened, strict=True):
                batch.advantages = advantages

    def _update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One optimiser step on a minibatch; every token of it weighs the same."""
        tokens = sum(len(b.old) for b in batches)
        sums = dict.fromkeys(
            ("loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio"), 0.0
        )
        for batch in batches:
            with self.actors.acting("policy", learning=True):
                logps, values = self.actors.outputs(batch.row)
                loss, ratio, clipped = policy_loss(logps, batch.old, batch.advantages, self.config.clip)
                loss = loss * batch.weights(self.config.importance_cap)
                error = torch.zeros(()) if values is None else self._value_error(values, batch)
                total = (loss.sum() + self.config.value_weight * error) / tokens
                self._finite(total, logps, batch)
                total.backward()
            self.tick()
            with torch.no_grad():
                change = logps - batch.old
                sums["loss/policy_avg"] += float(loss.sum())
                sums["policy/clipfrac_avg"] += float(clipped.sum())
                # Schulman's k3 estimator of KL(old || new): (ratio - 1) - log ratio.
                sums["policy/approxkl_avg"] += float((ratio - 1 - change).sum())
                sums["val/ratio"] += float(ratio.sum())
                sums["loss/value_avg"] += float(error)
        if self.actors.value is not None and self.actors.value_apart:
            for batch in batches:  # after all of the policy's: what is alike in size reuses its memory
                with self.actors.acting("value", learning=True):
                    error = self._value_error(self.actors.value(batch.row), batch)
                    (self.config.value_weight * error / tokens).backward()
                sums["loss/value_avg"] += float(error.detach())
        policy = [p for name, p in self.parameters.items() if f".{POLICY}." in name]
        value = [p for name, p in self.parameters.items() if f".{POLICY}." not in name]
        norm = float(nn.utils.clip_grad_norm_(policy, self.config.max_grad_norm))  # [37] detail 11
        nn.utils.clip_grad_norm_(value, self.config.max_grad_norm)  # apart: an early value error is no policy's step
        if not math.isfinite(norm):
            raise self.unsound(
                f"the gradient is {norm}; prompts: {self._named(g for b in batches for g in b.row.groups)}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**{name: value / tokens for name, value in sums.items()}, "grad_norm": norm}

    def _finite(self, loss: torch.Tensor, logps: torch.Tensor, batch: Batch) -> None:
        """Raise, naming the prompts, where the loss is no number."""
        value = float(loss.detach())
        if not math.isfinite(value):
            groups = batch.row.groups
            bad = found_in(batch.row.sums(logps).detach().tolist(), [len(g.candidates) for g in groups])
            raise self.unsound(f"the loss is {value}, from {self._named([groups[i] for i in bad] or groups)}")

    def _named(self, groups: Iterable[TokenGroup]) -> str:
        """The groups' prompts in words, four at most."""
        texts = dict(zip(self.encoded, (p.text for p in self.prompts), strict=True))
        return ", ".join(repr(texts.get(g.prompt, "?")[-80:]) for g in list(groups)[:4])

    def _value_error(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        return value_loss(values, batch.values, batch.returns, self.config.value_clip).sum()

    # ---- when to stop, what to keep

    def trouble(self, metrics: Mapping[str, float]) -> str:
        """What has gone wrong with the policy, in words, or nothing."""
        s = self._state
        s["reward"].append(metrics["objective/scores"])
        if s["best_reward"] is None:  # the first step's answers are the SFT model's
            s["best_reward"] = metrics["objective/scores"]
        kl, entropy = metrics["objective/kl"], metrics["objective/entropy_per_token"]
        if not math.isfinite(kl):
            raise self.unsound(f"the KL to the SFT model is {kl}")
        if kl > self.config.max_kl:
            return f"KL to the SFT model is {kl:.0f} nats an answer (limit {self.config.max_kl:g}): it has run away"
        if s["first_entropy"] is None:
            s["first_entropy"] = entropy
        s["low_entropy"] = s["low_entropy"] + 1 if entropy < self.config.min_entropy * s["first_entropy"] else 0
        if s["low_entropy"] >= 2:
            return (
                f"entropy fell from {s['first_entropy']:.3f} to {entropy:.3f} nats a token: the policy says one"
                " thing only and learns nothing more"
            )
        return ""

    def _why(self) -> str:
        """The commonest reason for which answers were not rated."""
        why = self._state["why"]
        return max(why, key=lambda reason: why[reason], default="")

    def judged(self, metrics: Mapping[str, float], score: float | None, best: bool) -> str:
        """Stop where the reward is gamed: more of it and fewer right answers than the best checkpoint had, by more
        than a standard error of its pass rate, several validations in a row."""
        s = self._state
        reward = sum(s["reward"]) / len(s["reward"]) if s["reward"] else None
        s["reward"] = []
        if best:
            s["best_reward"], s["hacking"] = reward, 0
        elif score is not None and reward is not None:
            rate, before = metrics.get("eval/pass_rate", score), s["best"].get("eval/pass_rate", s["best"]["score"])
            prompts = metrics.get("eval/prompts")
            error = math.sqrt(before * (1 - before) / prompts) if prompts else 0.0
            gamed = before - rate > error and reward > s["best_reward"]
            s["hacking"] = s["hacking"] + 1 if gamed else 0
            if s["hacking"] >= self.config.hacking_patience:
                return (
                    f"the reward rose while the held-out score fell ({before:.3f} to {rate:.3f}) at"
                    f" {s['hacking']} validations in a row: the reward is being gamed"
                )
        return ""


def train_ppo(
    model: str,
    prompts: Sequence[Prompt],
    config: PPOConfig,
    output: Path,
    *,
    sample: Sampler,
    rate: Rater | None = None,
    rater: Mapping[str, Any] | None = None,
    reward: str = "",
    reward_weight: float = 1.0,
    validate: Validate | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train `model` by PPO on `prompts`; the run's files and the trained policy are in `output`.

    `rate` rates answers, `rater` is what makes it the rater it is (name, version, arguments); `reward` is a run of
    `hafs train reward` on the same model. A finished run is returned at once. Raises UsageError for an unknown model,
    a reward model of another base, settings that PPO cannot have, or a run in `output` that differs.
    """
    path = resolve(model)
    if config.method == "full":
        raise UsageError(
            "PPO trains adapters: a fully trained policy would need a second model as reference",
            "leave method at lora or dora",
        )
    if config.paged_optimizer:
        raise UsageError("PPO trains adapters, whose optimiser needs no paging", "leave out --paged-optimizer")
    tokenizer = load_tokenizer(path)
    adapter = reward_adapter(Path(reward), model_hash(path)) if reward else None
    if reward and adapter is None:
        raise UsageError(
            f"{reward} is no finished reward model with an adapter on {model}",
            "train it on the same model, or give it as a scorer: --scorer reward:PATH",
        )
    run = RunDirectory(output)
    about = _about(path, tokenizer, prompts, config)
    about |= {"rater": dict(rater or {}), "reward": [_reward_hash(Path(reward)), reward_weight] if reward else []}
    with run.held():
        run.claim(about, defaults=settings_of(PPOConfig.model_validate({})))
        asked = [PreferenceGroup(p.text, (), (), p.system, p.id, p.family, p.split) for p in prompts]
        record_data(output, model, asked)
        done = run.finished()
        if done is not None:
            return TrainResult(**done)
        adapter = replace(adapter, weight=reward_weight) if adapter else None
        hooks: dict[str, Any] = {"sample": sample, "rate": rate, "validate": validate, "progress": progress}
        trainer, dropped = _trainer(path, tokenizer, prompts, config, run, adapter, **hooks)
        with tracking("ppo", config, output) as track:
            trainer.track(track)
            result = trainer.fit()
        result.dropped = dropped
        _save_policy(trainer, path, tokenizer, output / "model")
        run.finish(result_dict(result))
    return result


def _about(path: Path, tokenizer: Any, prompts: Sequence[Prompt], config: PPOConfig) -> dict[str, Any]:
    """What makes a run the run that it is, but for what rates the answers."""
    return {
        "kind": "ppo",
        "model": model_hash(path),
        "tokenizer": tokenizer_hash(tokenizer),
        "template": template_hash(tokenizer),
        "data": content_id(sorted(p.id for p in prompts)),
        "settings": settings_of(config),
    }


def _reward_hash(reward: Path) -> str:
    """The hash of a reward model, given as a run or as its directory."""
    return model_hash(reward / "model" if (reward / "model").is_dir() else reward)


def _trainer(
    path: Path,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: PPOConfig,
    run: RunDirectory,
    reward: RewardAdapter | None,
    **hooks: Any,
) -> tuple[PPOTrainer, int]:
    """The trainer on the model at `path`, and how many prompts are too long for it."""
    encoded = [tuple(encode_prompt(tokenizer, p.text, p.system, p.context, p.tools, config.thinking)) for p in prompts]
    fits = [i for i, ids in enumerate(encoded) if len(ids) + config.max_new_tokens <= config.max_length]
    net = load_model(path, config.precision, config.attention, config.quantize)
    check_weights(net, path)
    network = CandidateLogps(net)
    self_test(
        network,
        [TokenGroup(encoded[i], (encoded[i][:8],)) for i in fits[:2]],
        1e-3 if pick_precision(config.precision) == "fp32" else 0.1,
    )
    if network.own_head:
        raise UsageError(f"PPO does not know the head of {network.config.model_type}", "train another model")
    actors = Actors(net, config, reward, network.shared)
    trainer = PPOTrainer(
        actors,
        [prompts[i] for i in fits],
        [encoded[i] for i in fits],
        hooks.pop("sample"),
        hooks.pop("rate"),
        config,
        run,
        **hooks,
    )
    return trainer, len(prompts) - len(fits)


def _save_policy(trainer: PPOTrainer, path: Path, tokenizer: Any, output: Path) -> None:
    """The policy merged into its base, or as an adapter on it; the other adapters go."""
    net, config = trainer.actors.net, trainer.config
    net.set_adapter(POLICY)
    for name in set(net.peft_config) - {POLICY}:
        net.delete_adapter(name)
    groups = [TokenGroup(ids, (ids[:8],)) for ids in trainer.encoded[:2]]
    save_checked(net, tokenizer, config, output, trainer.actors.policy, groups)


def _known(rollouts: Sequence[Rollout], row: PackedRow) -> tuple[torch.Tensor, torch.Tensor]:
    """What is known of a row's answers before any pass: their scores, and their tokens' `Batch.sampled`."""
    told = [logps for r in rollouts for logps in r.logps]
    sampled = [
        p
        for logps, n in zip(told, row.lengths.tolist(), strict=True)
        for p in (*logps[:n], *[math.nan] * (n - len(logps)))
    ]
    device = row.labels.device
    return (torch.tensor([s for r in rollouts for s in r.scores], device=device), torch.tensor(sampled, device=device))


def policy_loss(
    logps: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, ratio, clipped) by token: max(-A ρ, -A clip(ρ, 1-ε, 1+ε)) with ρ = π/π_old.

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", eq. 7. `clipped` is 1 where the clip decides.
    """
    ratio = (logps - old).exp()
    plain, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, bounded), ratio.detach(), (bounded > plain).float().detach()


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Half the larger squared error of the value and of the value held within `clip` of the old one ([37] detail 9)."""
    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)
