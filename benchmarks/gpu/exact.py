"""Part `exact`: what a card computes is what fp32 on plain sequences computes, within bounds that are said.

Each check is a row: how far apart, the bound, whether it holds. Losses are those of a whole course of DPO steps.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from part import Asked, asked, groups_of, tiny_config

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},
    "gemma": {},
    "mistral": {"sliding_window": 16},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
"""Model types with what their tiny configurations need; windows are shorter than the texts."""

STEPS = 12
BF16, NF4, TREE, FLEX, RESUME = 0.05, 0.05, 1e-3, 1e-3, 1e-4
"""Bounds: of the largest difference of a step's loss in a course (nats), of log-probabilities (nats a token)."""


def network(family: str, device: str, precision: str = "fp32", **changes: Any) -> Any:
    """A random network of a family in evaluation mode, the same weights in every precision."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = tiny_config(family, **{**FAMILIES[family], **changes})
    net = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    return net.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def settings(**changes: Any) -> Any:
    from hafs.config import DPOConfig

    more = {
        "learning_rate": 2e-3,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "validation_share": 0.0,
        "row_tokens": 512,
    }
    return DPOConfig(**{**more, "precision": "fp32", "save_steps": STEPS // 2, "save_minutes": 1e3, **changes})


class Stopped(Exception):
    """Stands for a kill in the middle of a course."""


def course(net: Any, config: Any, groups: Sequence[Any], folder: Path, stop_at: int = 0) -> list[float]:
    """The losses of a course of DPO steps on `net`; in `folder` it goes on where it was. It dies in step `stop_at`."""
    import json

    from accelerate import Accelerator

    from hafs.training.checkpoints import RunDirectory
    from hafs.training.logprobs import CandidateLogps
    from hafs.training.loop import Trainer
    from hafs.training.objectives.preference import PreferenceObjective
    from hafs.training.reference import ReferenceCache, fill_reference
    from hafs.training.run import with_adapter

    class Killed(Trainer):
        def step(self, step: int) -> dict[str, float]:
            if step == stop_at:
                raise Stopped
            return super().step(step)

    accelerator = Accelerator(cpu=net.device.type == "cpu")
    cache, plain = ReferenceCache(None, ["exact"]), CandidateLogps(net)
    fill_reference(cache, plain, groups, config, accelerator)
    network = CandidateLogps(with_adapter(net, config), plain.shared)
    run = RunDirectory(folder)
    run.claim({})
    trainer = Killed(
        network, PreferenceObjective(config), groups, [], config, run, reference=cache, accelerator=accelerator
    )
    trainer.fit()
    return [row["loss"] for row in map(json.loads, run.log.read_text().splitlines()) if "loss" in row]


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def largest(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def tree(ask: Asked) -> None:
    """The token tree against plain forward passes, family by family."""
    from hafs.training.logprobs import CandidateLogps, _plain

    for family in FAMILIES:
        net = network(family, ask.device)
        groups = groups_of(2, 40, 24)
        model = CandidateLogps(net)
        row = model.row(groups)
        want = torch.stack([_plain(net, g.prompt, c) for g in groups for c in g.candidates])
        gap = float(((row.sums(model(row)) - want).abs() / row.lengths).max().detach())
        ask.tell(f"tree against plain sequences, {family}", gap=gap, bound=TREE, holds=gap <= TREE)


def flex(ask: Asked) -> None:
    """FlexAttention against SDPA by branches: log-probabilities, and gradients relative to their length."""
    from hafs.training.logprobs import CandidateLogps

    if ask.rehearse:
        ask.tell("Flex against SDPA: not on a processor, where FlexAttention has no backward pass")
        return
    for family in ("llama", "qwen2", "mistral", "gemma3_text"):
        found = []
        for attention in ("sdpa", "flex_attention"):
            net = network(family, ask.device)
            net.set_attn_implementation(attention)
            model = CandidateLogps(net)
            logps = model(model.row(groups_of(2, 200, 150)))
            logps.sum().backward()
            slope = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
            found.append((logps.detach(), slope))
        (a, x), (b, y) = found
        gap = float((a - b).abs().max())
        slope = float((x - y).norm() / x.norm())
        ask.tell(f"Flex against SDPA, {family}", gap=gap, bound=FLEX, holds=gap <= FLEX)
        ask.tell(f"Flex against SDPA, gradient, {family}", gap=slope, bound=10 * FLEX, holds=slope <= 10 * FLEX)


def precisions(ask: Asked) -> None:
    """A course in bf16 against one in fp32; one on a 4-bit base against one in fp32 on what the 4 bits say."""
    groups = groups_of(2 * STEPS, 40, 24)
    want = course(network("llama", ask.device), settings(), groups, fresh(ask.folder / "fp32"))
    got = course(network("llama", ask.device, "bf16"), settings(precision="bf16"), groups, fresh(ask.folder / "bf16"))
    gap = largest(want, got)
    fell = want[0] - want[-1]
    ask.tell(
        f"loss of {STEPS} steps, which falls by {fell:.3f}, bf16 against fp32", gap=gap, bound=BF16, holds=gap <= BF16
    )
    try:
        from large import four_bits
    except ImportError as e:
        ask.tell(f"NF4 was not tried: {e}")
        return
    net = network("llama", ask.device)
    quantised, plain = four_bits(copy.deepcopy(net), torch.float32), copy.deepcopy(net)
    dequantise(plain, quantised)
    want = course(plain, settings(), groups, fresh(ask.folder / "plain"))
    got = course(quantised, settings(quantize="nf4"), groups, fresh(ask.folder / "nf4"))
    gap = largest(want, got)
    ask.tell(f"loss of {STEPS} steps, NF4 against fp32 of the same 4 bits", gap=gap, bound=NF4, holds=gap <= NF4)


@torch.no_grad()
def dequantise(plain: Any, quantised: Any) -> None:
    """Give `plain` the numbers that the 4 bits of `quantised` stand for."""
    import bitsandbytes as bnb

    for name, module in quantised.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.copy_(weight)


def resume(ask: Asked) -> None:
    """A course that died in its eighth step and went on, against one that did not."""
    groups = groups_of(2 * STEPS, 40, 24)
    want = course(network("llama", ask.device), settings(), groups, fresh(ask.folder / "whole"))
    folder = fresh(ask.folder / "killed")
    with suppress(Stopped):
        course(network("llama", ask.device), settings(), groups, folder, stop_at=8)
    got = course(network("llama", ask.device), settings(), groups, folder)
    gap = largest(want, got)
    ask.tell("loss of a course that was killed and resumed", gap=gap, bound=RESUME, holds=gap <= RESUME)


CHECKS: tuple[Callable[[Asked], None], ...] = (tree, precisions, resume, flex)


if __name__ == "__main__":
    ask = asked()
    for check in CHECKS:
        check(ask)
