"""Who takes part in PPO: policy, reference, value function and reward model, adapters and heads on one frozen base.

The reference is that base with its adapters switched off. So the memory is that of one model, as for DPO. Numbers of
details are those of Huang et al. 2024 (see ppo.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLora
from torch import nn

from hafs.config import PPOConfig
from hafs.errors import UsageError
from hafs.training.checkpoints import RunDirectory
from hafs.training.heads import CandidateRewards, TokenValues, scalar_head
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.packing import PackedRow
from hafs.training.run import adapter_config


@dataclass(frozen=True)
class RewardAdapter:
    """A reward model as an adapter and a head for the base that the policy has, too."""

    weights: Mapping[str, torch.Tensor]
    rank: int
    alpha: int
    targets: str
    weight: float = 1.0

    def like(self, config: PPOConfig) -> bool:
        """Whether PPO's adapters are of the same form, so that these weights mean the same in them."""
        lora = config.lora
        return config.method == "lora" and (self.rank, self.alpha, self.targets) == (
            lora.rank,
            lora.alpha,
            lora.targets,
        )


POLICY = "default"
"""The policy's adapter has the name under which PEFT saves an adapter that stands alone."""


class Actors:
    """The base with its adapters, seen as policy, reference, value function and reward model in turn."""

    def __init__(self, net: Any, config: PPOConfig, reward: RewardAdapter | None, shared: bool | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.reward_weight = reward.weight if reward else 0.0
        wanted = adapter_config(config)
        gae = config.advantage == "gae"
        self.value_apart = gae and config.value_function == "adapter"
        self.net = _with_adapters(
            net,
            {
                POLICY: wanted,
                **({"value": wanted} if self.value_apart else {}),
                **({"reward": _peft_of(reward)} if reward else {}),
            },
        )
        for module in self.net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # detail 4: a probability ratio must differ from 1 by what was learnt alone
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        self.policy = CandidateLogps(self.net, shared)
        self.shared = self.policy.shared
        self.value: TokenValues | None = None
        self.reward: CandidateRewards | None = None
        if gae:
            self.net.value_head = scalar_head(self.net)
            nn.init.zeros_(self.net.value_head.weight)  # what is not known yet leaves advantages to the rewards
            self.value = TokenValues(self.net, self.net.value_head, self.shared)
        if reward is not None:
            self._load_reward(reward)
        if config.activation_checkpointing:
            self.net.gradient_checkpointing_enable({"use_reentrant": False})

    def _load_reward(self, reward: RewardAdapter) -> None:
        """Put the reward model's weights in; the value function starts as the reward model where it can (detail 11)."""
        head = scalar_head(self.net)
        own = dict(self.net.named_parameters())
        starts = self.value_apart and reward.like(self.config)
        with torch.no_grad():
            head.weight.copy_(reward.weights["score.weight"])
            for name, tensor in reward.weights.items():
                if name == "score.weight":
                    continue
                own[name.replace(f".{POLICY}.", ".reward.")].copy_(tensor)
                if starts:
                    own[name.replace(f".{POLICY}.", ".value.")].copy_(tensor)
            if starts:
                self.net.value_head.weight.copy_(reward.weight * head.weight)
        self.reward = CandidateRewards(self.net, self.shared, head.requires_grad_(False))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters of the policy's and the value function's adapters and of the value head, by name."""
        parts = (f".{POLICY}.", ".value.", "value_head")
        return {n: p for n, p in self.net.named_parameters() if any(part in n for part in parts)}

    def outputs(self, row: PackedRow) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The policy's log-probabilities of a row's labels; and their values, where they need no pass of their own.

        The value head learns from the policy's hidden states and not they from it, so it cannot pull the policy away.
        """
        hidden = self.policy.hidden(row)
        values = None if self.value is None or self.value_apart else self.value.read(hidden.detach(), row)
        return self.policy.logps(hidden, row), values

    @contextmanager
    def acting(self, name: str, learning: bool = False) -> Iterator[None]:
        """Compute as "policy", "value", "reward" or "reference"; `learning` keeps what a backward pass needs.

        Activation checkpointing is the one thing that needs the training mode.
        """
        self.net.train(learning and self.config.activation_checkpointing)
        with torch.set_grad_enabled(learning), autocast(self.policy, self.config.precision):
            if name == "reference":
                with self.net.disable_adapter():
                    yield
                return
            self.net.set_adapter(POLICY if name == "policy" else name)
            for parameter in self.trained().values():
                parameter.requires_grad_(True)
            yield


def _with_adapters(net: Any, wanted: Mapping[str, PeftLora]) -> Any:
    from peft import get_peft_model

    (first, config), *others = wanted.items()
    try:
        peft = get_peft_model(net, config, adapter_name=first)
        for name, other in others:
            peft.add_adapter(name, other)
    except ValueError as e:
        raise UsageError(f"no adapter could be put on the model: {e}", "check lora.targets") from e
    peft.requires_grad_(False)
    return peft


def _peft_of(reward: RewardAdapter) -> PeftLora:
    targets = reward.targets if reward.targets == "all-linear" else reward.targets.split(",")
    return PeftLora(r=reward.rank, lora_alpha=reward.alpha, target_modules=targets, task_type="CAUSAL_LM")


def reward_adapter(path: Path, base: str) -> RewardAdapter | None:
    """The reward model of a finished `hafs train reward` run as an adapter for the base with hash `base`.

    `path` is the run's directory or the model in it. None when it is no such run, or was trained on another base.
    """
    run_path = path.parent if path.name == "model" else path
    if not (run_path / "run.json").is_file():
        return None
    run = RunDirectory(run_path)
    identity = run.about()["identity"]
    result = run.finished()
    settings = identity["settings"]
    fits = identity["kind"] == "reward" and identity["model"] == base and settings["method"] == "lora"
    if result is None or not fits:
        return None
    lora = settings["lora"]
    return RewardAdapter(run.weights(result["best_step"]), lora["rank"], lora["alpha"], lora["targets"])
