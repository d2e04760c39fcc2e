"""Part `step`: how much of the device's arithmetic a training step uses, what it waits for, and what compiling brings.

Model FLOPs utilisation: the operations that the planner counts for the step (benchmarks and tests hold it against the
layers' shapes) over what a lone matrix product reaches in that time on this device.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from part import Asked, asked, groups_of, shape, timed

SIZES = {"rehearse": (2, 48, 24, 256), "card": (16, 512, 384, 8192)}
"""Groups a step, tokens of a prompt and of an answer, tokens of a row."""


def peak(device: str, size: int, dtype: torch.dtype) -> float:
    """Operations a second of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(timed(lambda: a @ a, device) for _ in range(5))


def main(ask: Asked) -> None:
    from large import random_on

    from hafs.config import DPOConfig
    from hafs.training.estimate import RunEstimate
    from hafs.training.shapes import Shape

    name = "Qwen2.5-7B"
    count, prompt, answer, row = SIZES["rehearse" if ask.rehearse else "card"]
    groups = groups_of(count, prompt, answer)
    best = peak(ask.device, 256 if ask.rehearse else 8192, torch.bfloat16)
    ask.tell("a lone matrix product in bf16", TFLOPs=best / 1e12)
    config = DPOConfig(precision="bf16", row_tokens=row, batch_size=count, gradient_accumulation_steps=1)
    for attention in ("sdpa",) if ask.rehearse else ("sdpa", "flex"):
        net = random_on(shape(name, ask.rehearse), "none", ask.device, torch.bfloat16)
        if attention == "flex":
            net.set_attn_implementation("flex_attention")
        work = RunEstimate(Shape.of(net), config, groups, ask.device).step_flops()
        step = stepper(net, config, groups)
        step()  # warm
        took = min(timed(step, ask.device) for _ in range(1 if ask.rehearse else 5))
        ask.tell(
            f"{'tiny' if ask.rehearse else name}, {attention}",
            **{"TFLOP a step": work / 1e12, "s a step": took, "utilisation": work / took / best},
        )
        if attention == "sdpa":
            waits(ask, step)
            profile(ask, step)
            compiled(ask, net, config, groups, took)


def stepper(net: Any, config: Any, groups: Any, compile: bool = False) -> Any:
    """Forward and backward of all rows of a step, without the optimiser."""
    from hafs.training.logprobs import CandidateLogps, autocast
    from hafs.training.objectives.preference import PreferenceObjective
    from hafs.training.packing import StepRows
    from hafs.training.run import with_adapter

    model = CandidateLogps(net if hasattr(net, "peft_config") else with_adapter(net, config)).train()
    if compile:
        for layer in model._backbone.layers:
            layer.compile(dynamic=True)
    objective, pieces = PreferenceObjective(config), StepRows(groups, config.row_tokens).of(0)

    def step() -> None:
        for piece in pieces:
            row = model.row(piece.groups)
            with autocast(model, config.precision):
                logps = model(row)
            objective.loss(logps, row.sums(logps).detach(), row)[0].backward()
        model.zero_grad()

    return step


def waits(ask: Asked, step: Any) -> None:
    """How often the processor waits for the device in a step."""
    if ask.rehearse:
        ask.tell("waits for the device in a step: counted on a card alone")
        return
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    ask.tell("waits for the device in a step", count=sum("synchroniz" in str(w.message) for w in seen))


def profile(ask: Asked, step: Any) -> None:
    """The operators that a step spends most of its time in."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler_of

    kinds = [ProfilerActivity.CPU] if ask.rehearse else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profiler_of(activities=kinds) as found:
        step()
    side = "self_cpu_time_total" if ask.rehearse else "self_device_time_total"
    events = sorted(found.key_averages(), key=lambda e: -getattr(e, side))
    total = sum(getattr(e, side) for e in events)
    for event in events[:8]:
        ask.tell(f"operator {event.key[:60]}", share=getattr(event, side) / total, calls=event.count)


def compiled(ask: Asked, net: Any, config: Any, groups: Any, plain: float) -> None:
    """The same step with its layers compiled."""
    if ask.rehearse:
        ask.tell("torch.compile: tried on a card alone, where it has minutes")
        return
    try:
        step = stepper(net, config, groups, compile=True)
        first = timed(step, ask.device)
        took = min(timed(step, ask.device) for _ in range(3))
    except Exception as e:
        ask.tell(f"torch.compile failed: {type(e).__name__}: {str(e).splitlines()[0][:200]}")
        return
    ask.tell("layers compiled", **{"s the first time": first, "s a step": took, "times as fast": plain / took})


if __name__ == "__main__":
    main(asked())
