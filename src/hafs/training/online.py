"""Online DPO: every step samples answers from the model as it is, compares them, and takes DPO's step on those groups.

Guo et al. 2024, "Direct Language Model Alignment from Online AI Feedback". What samples and what compares is given; a
prompt whose answers are all right, or all wrong, teaches nothing, so another one is drawn in its place and that is
counted.
The reference is the SFT model, or the policy as it was some steps ago.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hafs.config import OnlineDPOConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import encode_prompt, template_hash, tokenizer_hash
from hafs.models.loading import load_model, load_tokenizer, pick_precision
from hafs.models.naming import model_hash, resolve
from hafs.training.checkpoints import RunDirectory
from hafs.training.data import record_data
from hafs.training.logprobs import CandidateLogps, autocast, self_test
from hafs.training.objectives import Sums, add, means
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import PackedRow, StepRows, TokenGroup, tokens_of
from hafs.training.rollout import Sampled, Sampler
from hafs.training.run import adapter_config, check_weights, settings_of, tracking
from hafs.training.runner import Runner, TrainResult, Validate, result_dict, seed_of
from hafs.training.saving import save_checked
from hafs.types import PreferenceGroup, Progress, Prompt, content_id, silent

POLICY, REFERENCE = "default", "reference"

Grouper = Callable[[Sequence[Prompt], Sequence[Sequence[Sampled]]], Sequence[PreferenceGroup | str]]
"""(prompts, their answers) -> for each prompt its group, whose candidates' ids are the answers' places, or why none."""


class OnlineDPOTrainer(Runner):
    """Trains an adapter on `net` by DPO on its own answers; keeps the best checkpoint by held-out score."""

    config: OnlineDPOConfig

    def __init__(
        self,
        net: Any,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[int, ...]],
        sample: Sampler,
        compare: Grouper,
        config: OnlineDPOConfig,
        run: RunDirectory,
        *,
        shared: bool | None = None,
        validate: Validate | None = None,
        progress: Progress = silent,
    ) -> None:
        """`net` has its adapter, and a second one called "reference" where the reference moves."""
        if not prompts:
            raise UsageError("there is no prompt to sample answers to", "check the prompts and max_length")
        state = {"drawn": 0, "skipped": {}, "moved": 0}
        super().__init__(config, run, len(prompts), validate=validate, progress=progress, more_state=state)
        self.net, self.prompts, self.encoded = net, prompts, encoded
        self.network, self.objective = CandidateLogps(net, shared), PreferenceObjective(config)
        self._sample, self._compare = sample, compare
        named = dict(net.named_parameters())
        self._policy = {n: p for n, p in named.items() if f".{POLICY}." in n}
        self._reference = {n: p for n, p in named.items() if f".{REFERENCE}." in n}
        # a reference that moves is part of the state: it comes after what the optimiser counts
        self.parameters = {**self._policy, **self._reference}
        self.optimizer = torch.optim.AdamW(
            self._policy.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    @contextmanager
    def validating(self) -> Iterator[Any]:
        """The network as the policy."""
        with self._acting(POLICY):
            yield self.net

    @contextmanager
    def _acting(self, name: str, learning: bool = False) -> Iterator[None]:
        """Compute as the policy or as the reference, which is the bare base until it has an adapter of its own."""
        self.net.train(learning and self.config.activation_checkpointing)
        with torch.set_grad_enabled(learning), autocast(self.network, self.config.precision):
            if name == REFERENCE and not self._reference:
                with self.net.disable_adapter():
                    yield
                return
            self.net.set_adapter(name)
            for parameter in self._policy.values():
                parameter.requires_grad_(True)
            yield

    # ---- a step

    def step(self, step: int) -> dict[str, float]:
        """Sample and compare until there are groups enough, then one optimiser step on them."""
        rate = self.set_rate(step)
        self._move(step)
        groups, sampled = self._groups(step)
        if not groups:
            raise HafsError(
                f"no answers of step {step} could be compared: {self._skipped()}",
                "other prompts, more answers a prompt (--rollouts), or a higher temperature; the same command goes on"
                " from the last checkpoint",
            )
        sums = self._learn(groups)
        norm = float(nn.utils.clip_grad_norm_(self._policy.values(), self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise self.unsound(f"the gradient is {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._state["tokens"] += tokens_of(groups, self.network.shared)
        return {
            **means(sums),
            "groups": len(groups),
            "answers": sampled,
            "drawn": self._state["drawn"],
            "skipped": sum(self._state["skipped"].values()),
            "grad_norm": norm,
            "learning_rate": rate,
            "epoch": round(step / self.steps_per_epoch, 4),
        }

    def _move(self, step: int) -> None:
        """Let the policy become its own reference, where it is time."""
        every = self.config.reference_every
        if not every or step == 1 or (step - 1) % every:
            return
        with torch.no_grad():
            for name, parameter in self._reference.items():
                parameter.copy_(self._policy[name.replace(f".{REFERENCE}.", f".{POLICY}.")])
        self._state["moved"] += 1

    def _groups(self, step: int) -> tuple[list[TokenGroup], int]:
        """As many groups as a step has prompts, if the draws allowed suffice, and how many answers were sampled.

        Which prompts are drawn depends on seed and step alone, so a run that was killed draws the same ones again.
        """
        first = self.drawn(step)
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, self._items, step))
        others = [i for i in torch.randperm(self._items, generator=generator).tolist() if i not in set(first)]
        allowed = [*first, *others[: len(first) * self.config.redraws]]
        found: list[TokenGroup] = []
        sampled = 0
        while allowed and len(found) < len(first):
            wanted = len(first) - len(found)
            now, allowed = allowed[:wanted], allowed[wanted:]
            prompts = [self.prompts[i] for i in now]
            with self._acting(POLICY):
                seed = seed_of(self.config.seed, step, sampled)
                answers = self._sample(self.net, prompts, self.config.rollouts, seed)
            sampled += sum(map(len, answers))
            self._state["drawn"] += len(now)
            for i, row, group in zip(now, answers, self._compare(prompts, answers), strict=True):
                if isinstance(group, str):
                    self._state["skipped"][group] = self._state["skipped"].get(group, 0) + 1
                else:
                    found.append(_tokens(self.encoded[i], row, group))
            self.tick("sampling")
        return found, sampled

    def _learn(self, groups: Sequence[TokenGroup]) -> Sums:
        """The gradient of DPO's loss on the groups, and its metrics."""
        scale = 1 / self.objective.normaliser(groups)
        total: Sums = {}
        for piece in StepRows(groups, self.config.row_tokens, shared=self.network.shared).of(0):
            row = self.network.row(piece.groups)
            before = self._before(row)
            with self._acting(POLICY, learning=True):
                loss, sums = self.objective.loss(self.network(row), before, row)
                if not math.isfinite(float(loss.detach())):
                    raise self.unsound(f"the loss is {float(loss.detach())}")
                (loss * scale).backward()
            if "kl" in sums:  # the policy sampled the answers: what they lost since is its distance
                sums["kl"] = -sums["kl"][0], sums["kl"][1]
            add(total, sums)
            self.tick()
        return total

    def _before(self, row: PackedRow) -> torch.Tensor:
        """What the reference says of a row's answers, as the objective takes it."""
        if not self.objective.uses_reference:
            return torch.zeros(len(row.lengths), device=row.lengths.device)
        with self._acting(REFERENCE):
            logps = self.network(row)
        return logps if self.objective.reference_by_token else row.sums(logps)

    # ---- when to stop, what is said at the end

    def trouble(self, metrics: Mapping[str, float]) -> str:
        """That the policy has run away from its reference, or nothing."""
        kl = metrics.get("kl", 0.0)
        if kl > self.config.max_kl:
            return f"KL to the reference is {kl:.2f} nats a token (limit {self.config.max_kl:g}): it has run away"
        return ""

    def _skipped(self) -> str:
        skipped = self._state["skipped"]
        return ", ".join(f"{why} ({n})" for why, n in sorted(skipped.items(), key=lambda x: -x[1])) or "none was drawn"

    def _result(self) -> TrainResult:
        result = super()._result()
        if self._state["skipped"]:
            result.warnings.append(
                f"{sum(self._state['skipped'].values())} of {self._state['drawn']} prompts drawn taught nothing and"
                f" were drawn anew: {self._skipped()}"
            )
        return result


def _tokens(prompt: tuple[int, ...], answers: Sequence[Sampled], group: PreferenceGroup) -> TokenGroup:
    """A group in the very tokens that were sampled."""
    candidates = tuple(answers[int(c.id)].ids for c in group.candidates)
    return TokenGroup(prompt, candidates, group.edges, tuple(c.label for c in group.candidates))


def train_online_dpo(
    model: str,
    prompts: Sequence[Prompt],
    config: OnlineDPOConfig,
    output: Path,
    *,
    sample: Sampler,
    compare: Grouper,
    comparer: Mapping[str, Any] | None = None,
    validate: Validate | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train `model` by DPO on answers that it gives to `prompts` in training; the run and the model are in `output`.

    `compare` makes groups of answers, `comparer` is what makes it what it is (name, version, arguments, pairing). A
    finished run is returned at once. Raises UsageError for what online DPO cannot do, and for a run that differs.
    """
    _refuse(config)
    path = resolve(model)
    tokenizer = load_tokenizer(path)
    run = RunDirectory(output)
    about = {
        "kind": "online-dpo",
        "model": model_hash(path),
        "tokenizer": tokenizer_hash(tokenizer),
        "template": template_hash(tokenizer),
        "data": content_id(sorted(p.id for p in prompts)),
        "comparer": dict(comparer or {}),
        "settings": settings_of(config),
    }
    with run.held():
        run.claim(about, defaults=settings_of(OnlineDPOConfig.model_validate({})))
        asked = [PreferenceGroup(p.text, (), (), p.system, p.id, p.family, p.split) for p in prompts]
        record_data(output, model, asked)
        if (done := run.finished()) is not None:
            return TrainResult(**done)
        encoded = [tuple(encode_prompt(tokenizer, p.text, p.system)) for p in prompts]
        fits = [i for i, ids in enumerate(encoded) if len(ids) + config.max_new_tokens <= config.max_length]
        trainer = OnlineDPOTrainer(
            _adapted(path, config, [encoded[i] for i in fits]),
            [prompts[i] for i in fits],
            [encoded[i] for i in fits],
            sample,
            compare,
            config,
            run,
            validate=validate,
            progress=progress,
        )
        with tracking("online-dpo", config, output) as track:
            trainer.track(track)
            result = trainer.fit()
        result.dropped = len(prompts) - len(fits)
        trainer.net.set_adapter(POLICY)
        if trainer.config.reference_every:
            trainer.net.delete_adapter(REFERENCE)
        probe = [TokenGroup(ids, (ids[:8],)) for ids in trainer.encoded[:2]]
        save_checked(trainer.net, tokenizer, config, output / "model", trainer.network, probe)
        run.finish(result_dict(result))
    return result


def _refuse(config: OnlineDPOConfig) -> None:
    for asked, what, fix in (
        (config.method == "full", "online DPO trains adapters: the base is its reference", "method lora or dora"),
        (config.engine != "hafs", "online DPO is not done through TRL", "leave engine at hafs"),
        (config.reference, "online DPO's reference is the model it starts from", "leave out reference"),
        (config.two_pass, "online DPO does not split a step in two passes", "leave out two_pass"),
        (config.paged_optimizer, "an adapter's optimiser needs no paging", "leave out --paged-optimizer"),
        (config.rollouts < 2, "online DPO compares answers of one prompt", "set rollouts to 2 or more"),
    ):
        if asked:
            raise UsageError(what, fix)


def _adapted(path: Path, config: OnlineDPOConfig, encoded: Sequence[tuple[int, ...]]) -> Any:
    """The model at `path` with the policy's adapter, and the reference's where it moves."""
    from peft import get_peft_model

    net = load_model(path, config.precision, config.attention, config.quantize)
    check_weights(net, path)
    groups = [TokenGroup(ids, (ids[:8],)) for ids in encoded[:2]]
    self_test(CandidateLogps(net), groups, 1e-3 if pick_precision(config.precision) == "fp32" else 0.1)
    torch.manual_seed(config.seed)
    try:
        peft = get_peft_model(net, adapter_config(config), adapter_name=POLICY)
        if config.reference_every:
            peft.add_adapter(REFERENCE, adapter_config(config))
    except ValueError as e:
        raise UsageError(f"no adapter could be put on the model: {e}", "check lora.targets") from e
    for module in peft.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if config.activation_checkpointing:
        peft.gradient_checkpointing_enable({"use_reentrant": False})
    return peft
