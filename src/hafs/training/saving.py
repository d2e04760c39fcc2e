"""Writing a trained model, and the proof that what was written is what was trained.

The model is written beside its place, loaded again from the files alone, and its log-probabilities are compared with
those of the model in memory. Where they differ by more than rounding, what was there before stays.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hafs.config import TrainConfig
from hafs.errors import HafsError
from hafs.models.loading import load_model, pick_precision, save_model
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.packing import TokenGroup

ROUNDING = {"fp32": 1e-3, "bf16": 0.1}
"""Nats a token that merging and storing in a precision may change, on average."""


def save_checked(
    net: Any, tokenizer: Any, config: TrainConfig, output: Path, network: CandidateLogps, groups: Sequence[TokenGroup]
) -> None:
    """Write `net` (an adapter merged into its base, unless the settings say otherwise) to `output`, and check it.

    `network` is the trained model as it computes log-probabilities, `groups` what they are compared on. It is let go:
    after this its weights are gone. Raises HafsError, leaving `output` as it was, if the files say something else.
    """
    probe = [TokenGroup(g.prompt, g.candidates[:2]) for g in groups[:2]]
    before = log_probabilities(network, probe, config)
    merge = config.method != "full" and config.save == "merged" and config.quantize == "none"
    trained = None if merge else _tensors(net)
    merged = net.merge_and_unload() if merge else net

    def check(part: Path) -> None:
        if config.quantize != "none":  # on a base in other precision: the same adapter is all that can be asked
            _same_tensors(trained or {}, part, output)
            return
        _release(merged)
        again = CandidateLogps(load_model(part, _precision(config)), network.shared)
        again.own_head = network.own_head
        compare(before, log_probabilities(again, probe, config), _precision(config), output)

    save_model(merged, tokenizer, output, check=check)


@torch.no_grad()
def log_probabilities(network: CandidateLogps, groups: Sequence[TokenGroup], config: TrainConfig) -> torch.Tensor:
    """[labels] of the groups' candidates under `network` in evaluation mode."""
    network.eval()
    if not groups:
        return torch.zeros(0)
    with autocast(network, config.precision):
        return network(network.row(groups)).float().cpu()


def compare(before: torch.Tensor, after: torch.Tensor, precision: str, output: Path) -> None:
    """Raise HafsError when two log-probabilities of the same tokens differ by more than rounding."""
    gap = float((before - after).abs().mean()) if len(before) else 0.0
    if not gap <= ROUNDING[precision]:  # NaN is no rounding either
        raise HafsError(
            f"the model that was written does not compute what was trained: read again from {output.parent}, it is"
            f" {gap:.3g} nats a token off; it was not kept, and what was at {output} is unchanged",
            "train with --method full or with other lora.targets (an adapter on a head that is tied to the embeddings"
            ' cannot be merged), or save the adapter alone (save = "adapter")',
        )


def _precision(config: TrainConfig) -> str:
    return pick_precision("fp32" if config.method == "full" else config.precision)


def _tensors(net: Any) -> dict[str, torch.Tensor]:
    """Copies of what is trained, by name."""
    return {n: p.detach().cpu().clone() for n, p in net.named_parameters() if p.requires_grad}


def _same_tensors(trained: dict[str, torch.Tensor], part: Path, output: Path) -> None:
    """Raise HafsError unless the adapter's file holds every trained tensor."""
    from safetensors.torch import load_file

    found = load_file(str(part / "adapter_model.safetensors"))
    for name, tensor in trained.items():
        key = name.replace(".default.", ".")
        if key not in found or not torch.equal(found[key].to(tensor.dtype), tensor):
            raise HafsError(f"the adapter that was written for {output} lacks or alters {key}", "run the command again")


def _release(net: Any) -> None:
    """Free the memory of a model that is not needed any more, so that there is never a second one beside it."""
    for module in net.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    table[name] = (
                        torch.nn.Parameter(tensor.to("meta"), requires_grad=False)
                        if isinstance(tensor, torch.nn.Parameter)
                        else tensor.to("meta")
                    )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


Check = Callable[[Path], None]
"""What looks at a model's folder before it takes its place, and raises HafsError if it is not good."""
