"""Part `large`: models of 14B and 7B shape with random weights, trained under a limit on the allocator.

Groups of four answers, each 2,048 tokens long with its prompt, two-pass, activations computed again. Beside what the
process took stands what the planner had said. A processor has no such limit: there the figure is the process's growth.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from part import Asked, asked, groups_of, shape

CASES = (("Qwen2.5-14B", "nf4", 16), ("Qwen2.5-7B", "none", 24))
STEPS = 20


def four_bits(net: Any, compute: torch.dtype, device: Any = None) -> Any:
    """`net` with the linear layers of its blocks in NF4, those without weights with random ones. Raises ImportError."""
    import bitsandbytes as bnb

    head = net.get_output_embeddings()
    for name, module in list(net.named_modules()):
        if isinstance(module, torch.nn.Linear) and module is not head:
            parent = net.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _four_bits(bnb, module, compute, device or module.weight.device))
    net.is_loaded_in_4bit = True
    return net


def _four_bits(bnb: Any, layer: Any, compute: torch.dtype, device: Any) -> Any:
    made = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        compute,
        compress_statistics=True,
        quant_type="nf4",
    )
    weight = layer.weight.data
    if weight.is_meta:  # never in memory as a whole model
        weight = torch.empty(weight.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
    made.weight = bnb.nn.Params4bit(
        weight.to("cpu" if torch.device(device).type == "cuda" else device),
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    )
    if layer.bias is not None:
        made.bias = torch.nn.Parameter(torch.zeros(layer.out_features, dtype=compute), requires_grad=False)
    return made.to(device)


def random_on(config: Any, quantize: str, device: str, precision: torch.dtype) -> Any:
    """A network of random weights made on the device, layer by layer, so that no more than it is ever there."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        net = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=precision)
    if quantize == "nf4":
        four_bits(net, precision, device)
    for module in net.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                made = torch.empty(parameter.shape, dtype=precision, device=device)
                made = made.fill_(1.0) if parameter.dim() == 1 and key == "weight" else made.normal_(0, 0.02)
                setattr(module, key, torch.nn.Parameter(made, requires_grad=False))
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.to(device))
    net.tie_weights()
    return net.eval()


def train(ask: Asked, name: str, quantize: str, limit: int) -> None:
    """`STEPS` steps of the model called `name` under `limit` GB, beside what the planner says."""
    from accelerate import Accelerator

    from hafs.config import DPOConfig
    from hafs.training.checkpoints import RunDirectory
    from hafs.training.logprobs import CandidateLogps
    from hafs.training.loop import Trainer
    from hafs.training.objectives.preference import PreferenceObjective
    from hafs.training.plan import plan
    from hafs.training.reference import ReferenceCache, fill_reference
    from hafs.training.run import with_adapter
    from train import memory_mb

    config, tiny = shape(name, ask.rehearse), ask.rehearse
    steps, row = (2, 128) if tiny else (STEPS, 2048)
    groups = groups_of(steps, row // 4, row - row // 4, words=250 if tiny else 150_000)
    settings = DPOConfig(
        precision="bf16",
        two_pass=True,
        row_tokens=row,
        activation_checkpointing=True,
        quantize=quantize,
        batch_size=1,
        gradient_accumulation_steps=1,
        validation_share=0.0,
        save_steps=10**6,
        save_minutes=1e3,
    )
    folder = ask.folder / name
    config.save_pretrained(str(folder))
    said = plan(folder, settings, groups, uses_reference=True, limit=limit * 10**9, device="cpu" if tiny else "cuda")
    if not tiny:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        total = torch.cuda.get_device_properties(0).total_memory
        context = total - torch.cuda.mem_get_info()[0]
        torch.cuda.set_per_process_memory_fraction(min(1.0, (limit * 1e9 - context) / total))
    before, began = memory_mb("VmRSS"), time.perf_counter()
    net = random_on(config, quantize, ask.device, torch.bfloat16)
    accelerator, cache = Accelerator(cpu=tiny), ReferenceCache(None, ["large"])
    fill_reference(cache, CandidateLogps(net), groups, settings, accelerator)
    network, run = CandidateLogps(with_adapter(net, settings)), RunDirectory(folder / f"run-{time.time_ns()}")
    run.claim({})
    Trainer(
        network, PreferenceObjective(settings), groups, [], settings, run, reference=cache, accelerator=accelerator
    ).fit()
    rows = [r for r in map(json.loads, run.log.read_text().splitlines()) if "loss" in r]
    peak = (memory_mb("VmHWM") - (before if tiny else 0)) / 1024 * 1.073741824
    kind = "NF4" if quantize == "nf4" else "bf16"
    figures = {
        "limit GB": limit,
        "planned GB": said.peak / 1e9,
        "took GB": peak,
        "steps": len(rows),
        "s a step": rows[-1]["seconds"] / len(rows),
        "s in all": time.perf_counter() - began,
        "holds": len(rows) == steps and (tiny or peak <= limit),
    }
    ask.tell(f"{'tiny, in the place of ' if tiny else ''}{name}, {kind}, LoRA r = 32", **figures)


if __name__ == "__main__":
    ask = asked()
    for name, quantize, limit in CASES:
        try:
            train(ask, name, quantize, limit)
        except (ImportError, torch.OutOfMemoryError) as e:
            ask.tell(f"{name} under {limit} GB did not train: {type(e).__name__}: {str(e).splitlines()[0]}")
            if isinstance(e, torch.OutOfMemoryError):
                raise
