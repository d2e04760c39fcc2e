"""What a training run will take in memory and time, said before any weight is loaded, and what to change if it is much.

`plan` takes the model's shapes (`shapes.py`), lays the groups out in the rows that the loop would compute, and adds up
bytes and floating-point operations (`estimate.py`). Time is operations divided by a throughput that a short matrix
product measures here.

One process is planned. Generation for `--validate`, and what other programs take, are not in the figures.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hafs.config import TrainConfig
from hafs.errors import UsageError
from hafs.training.costs import MachineLimits, copy_speed, stage_costs
from hafs.training.estimate import RunEstimate
from hafs.training.packing import TokenGroup, fit
from hafs.training.rows import available_memory, choose_rows
from hafs.training.shapes import Shape

if TYPE_CHECKING:
    from rich.console import RenderableType

EFFICIENCY = {"cpu": 0.65, "cuda": 0.5}
"""Throughput of a training step as a share of that of a lone matrix product. CPU: measured on one core in float32 as
0.5 to 0.9 for llamas 512 to 1024 wide (a model of toy size is far below). CUDA: not measured; the model FLOPs
utilisation that Chowdhery et al. 2022, "PaLM", section 4.1, report."""


@dataclass(frozen=True)
class Plan:
    """What a run takes: `memory` is the peak in bytes by part; `advice` is empty when it fits.

    `row_tokens` are those of the settings, or chosen for the memory (`rows_chosen`). `pair_tokens` are those of an
    epoch pair by pair, `tree_tokens` those of one tree over all groups, the fewest that rows of any size could have;
    `tokens_per_epoch` are those of the rows as they are.

    `costs` are the stages in operations and bytes, with the least time that each can take here and the limit that sets
    it (`costs.py`): the reference's of the whole run, the others' of an average step.

    Figures of the data are 0 and times None when no groups were given; times are None too for a device that is not
    here. `reference_seconds` is the one pass over all groups under the reference, and part of `total_seconds`.
    """

    model: str
    parameters: int
    trainable: int
    method: str
    precision: str
    quantize: str
    device: str
    row_tokens: int
    rows_chosen: bool
    prompts: int
    steps: int
    rows_per_step: float
    tokens_per_step: float
    tokens_per_step_max: int
    tokens_per_epoch: int
    longest_row: int
    pair_tokens: int
    tree_tokens: int
    memory: dict[str, int]
    available: int
    seconds_per_step: float | None
    reference_seconds: float | None
    total_seconds: float | None
    costs: tuple[dict[str, Any], ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes at the peak, all parts together."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether the peak is within the memory that is available."""
        return self.peak <= self.available

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON, with `peak` and `fits`."""
        lists = {"advice": list(self.advice), "costs": list(self.costs)}
        return {**asdict(self), **lists, "peak": self.peak, "fits": self.fits}


def plan(
    model_path: str | Path,
    config: TrainConfig,
    groups: Sequence[TokenGroup] | None,
    *,
    uses_reference: bool,
    limit: int | None = None,
    device: str = "auto",
) -> Plan:
    """What training the model called `model_path` on `groups` will take; reads its config.json only.

    `groups` are those trained on; None plans for two candidates as long as `config.max_length` allows. `limit` is the
    memory in bytes to fit in, else what is free here. `device` is "cpu", "cuda" or "auto": the CUDA device if there is
    one, else with a `limit` a card of that size elsewhere (the plan then has no times), else this processor. Raises
    UsageError for an unknown model, one that is no causal language model, `lora.targets` that name no layer, and "cuda"
    without a device and without a limit.
    """
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda or limit is not None else "cpu") if device == "auto" else device
    if limit is None and device == "cuda" and not cuda:
        raise UsageError("there is no CUDA device here to plan for", "give the memory of the card, as 16GB")
    shape = Shape.read(model_path)
    available = limit if limit is not None else available_memory(device)
    chosen = None if config.row_tokens else choose_rows(shape, config, groups, device, available)
    if chosen is not None:
        config = config.model_copy(update={"row_tokens": chosen.tokens})
    run = RunEstimate(shape, config, groups, device)
    memory = run.memory()
    limits = _limits(shape, run, device) if groups and (device == "cpu" or cuda) else None
    speed = limits.flops * EFFICIENCY[device] if limits else None
    reference = run.reference_flops() / speed if speed and uses_reference else 0.0 if speed else None
    per_step = run.step_flops() / speed if speed else None
    return Plan(
        model=str(model_path),
        parameters=run.parameters,
        trainable=run.trainable,
        method=config.method,
        precision=run.precision,
        quantize=config.quantize,
        device=device,
        row_tokens=config.row_tokens,
        rows_chosen=chosen is not None,
        **run.data(),
        memory=memory,
        available=available,
        seconds_per_step=per_step,
        reference_seconds=reference,
        total_seconds=None if per_step is None or reference is None else per_step * run.steps + reference,
        costs=tuple(cost.to_dict(limits) for cost in stage_costs(run, uses_reference)) if groups else (),
        advice=tuple(_advice(run, available)) if sum(memory.values()) > available else (),
    )


def _limits(shape: Shape, run: RunEstimate, device: str) -> MachineLimits:
    """What this machine does at best, measured."""
    return MachineLimits(_throughput(shape, run.precision, device, run.longest), copy_speed(device))


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "16GB" (10^9) or "15.5 GiB" (2^30), MB and MiB too. Raises UsageError for other text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise UsageError(f"{text!r} is no size of memory", "write a number and GB, GiB, MB or MiB, as 16GB")
    return round(float(found[1]) * unit)


# The machine.


def _throughput(shape: Shape, precision: str, device: str, rows: int, seconds: float = 0.3) -> float:
    """Operations a second of products of the model's own sizes, forward and backward, timed for about `seconds`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    middle = max(max(layer.middle, default=0) for layer in shape.layers)
    inputs, outputs = min(shape.hidden, 4096), min(middle or shape.hidden, 4096)
    weight = torch.ones(outputs, inputs, dtype=dtype, device=device)

    def product(size: int) -> float:
        x = torch.ones(size, inputs, dtype=dtype, device=device)
        begin = time.perf_counter()
        nn.functional.linear(x, weight) @ weight
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    size = min(8, rows)
    product(size)  # what only the first one has to do
    best, started = 0.0, time.monotonic()
    while time.monotonic() - started < seconds:
        took = product(size)
        best = max(best, 4 * size * inputs * outputs / took)
        if took < seconds / 10:
            size = min(2 * size, rows)
    return best


# What to change when it does not fit.

_Change = tuple[str, Callable[[RunEstimate], RunEstimate]]


def _advice(run: RunEstimate, available: int) -> list[str]:
    """Each setting that would help with what it saves, the largest saving first; then which of them together fit."""
    now = run.peak
    single = [(now - change(run).peak, text) for text, change in _changes(run)]
    advice = [f"{text} saves {size_text(saved)}" for saved, text in sorted(single, reverse=True) if saved > now / 100]
    chosen: list[_Change] = []
    best, tried = run, set[str]()
    while best.peak > available:
        more = next((c for c in _changes(best) if c[0].split(" =")[0] not in tried), None)
        if more is None:
            return [*advice, f"all together take {size_text(best.peak)}: a smaller model or more memory is needed"]
        tried.add(more[0].split(" =")[0])
        after = more[1](best)
        if after.peak < best.peak:
            best, chosen = after, [*chosen, more]
    for change in [*chosen]:  # what turned out not to be needed
        rest = [c for c in chosen if c is not change]
        if (without := _apply(run, rest)) is not None and without.peak <= available:
            best, chosen = without, rest
    return [*advice, f"this fits, with {size_text(best.peak)}: {', '.join(text for text, _ in chosen)}"]


def _apply(run: RunEstimate, changes: Sequence[_Change]) -> RunEstimate | None:
    """The run with changes made one after the other; None when one of them needs another that is not there."""
    for text, change in changes:
        if text not in [t for t, _ in _changes(run)]:
            return None
        run = change(run)
    return run


def _changes(run: RunEstimate) -> Iterator[_Change]:
    """The settings of `run` that could be changed, those first that change least in the result."""
    config, groups = run.config, run.given
    if not config.activation_checkpointing:
        yield "activation_checkpointing = true", lambda r: r.with_settings(r.given, activation_checkpointing=True)
    rows = max(len(g.prompt) - 1 + max(map(len, g.candidates)) for g in run.groups)
    if rows < run.longest:
        text = f"row_tokens = {rows}" if config.two_pass else f"two_pass = true with row_tokens = {rows}"
        yield text, lambda r: r.with_settings(r.given, two_pass=True, row_tokens=max(rows, 8))
    if config.method != "lora":
        yield 'method = "lora"', lambda r: r.with_settings(r.given, method="lora", quantize="none")
    if config.method != "full" and config.quantize == "none":
        text = 'quantize = "nf4"' + (" (merge the adapter into its base first)" if run.shape.adapter else "")
        yield text, lambda r: r.with_settings(r.given, quantize="nf4")
    if config.method != "full" and config.lora.dropout:
        yield "lora.dropout = 0", lambda r: r.with_settings(r.given, **{"lora.dropout": 0.0})
    if config.method != "full" and config.lora.rank > 8:
        yield "lora.rank = 8", lambda r: r.with_settings(r.given, **{"lora.rank": 8})
    if groups is None:
        half = max(8, config.max_length // 2)
        yield f"max_length = {half}", lambda r: r.with_settings(None, max_length=half)
        return
    lengths = sorted(len(g.prompt) + len(c) for g in groups for c in g.candidates)
    most = max(8, lengths[len(lengths) * 9 // 10])
    shorter = [g for g in (fit(g, most) for g in groups) if g is not None]
    if most < lengths[-1] and shorter:
        lost = len(lengths) - sum(len(g.candidates) for g in shorter)
        text = f"max_length = {most} (leaves out {lost} of {len(lengths)} candidates)"
        yield text, lambda r: r.with_settings(shorter, max_length=most)


# What is shown.


def size_text(size: float) -> str:
    """Bytes for people: "12.3 GB" (10^9), "45 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def to_rich(made: Plan) -> RenderableType:
    """The plan for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text("memory at the peak", style="bold"), title_justify="left")
    table.add_column("part")
    table.add_column("size", justify="right")
    for part, size in made.memory.items():
        table.add_row(part, size_text(size))
    table.add_section()
    table.add_row("together", size_text(made.peak), style="bold")
    table.add_row(f"available ({made.device})", size_text(made.available))
    verdict = "It fits." if made.fits else "It does not fit:"
    tables = [table, *([_cost_table(made)] if made.costs else [])]
    closing = [Text(verdict, style="bold"), *(Text(f"- {line}") for line in made.advice)]
    return Group(*(Text(line) for line in _lines(made)), *tables, *closing)


def _cost_table(made: Plan) -> RenderableType:
    """The stages, and how near the step as a whole is expected to be to what this machine can do."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text("cost by stage", style="bold"), title_justify="left")
    table.add_column("stage")
    for name in ("GFLOP", "bytes", "FLOP a byte", "at best", "limited by"):
        table.add_column(name, justify="right")
    for cost in made.costs:
        flops, moved = cost["flops"], cost["bytes"]
        least = _duration(cost["seconds"]) if "seconds" in cost else "-"
        row = (f"{flops / 1e9:,.1f}", size_text(round(moved)), f"{flops / moved:,.1f}", least, cost.get("limit", "-"))
        table.add_row(cost["stage"], *row)
    best = sum(c["seconds"] for c in made.costs if "seconds" in c and not c["stage"].startswith("reference"))
    if not best or made.seconds_per_step is None:
        return table
    expected = made.seconds_per_step
    said = f"a step takes {_duration(best)} at the machine's limits and is expected to take {_duration(expected)}"
    return Group(table, Text(f"{said}: {best / expected:.0%} of the limit"))


def _lines(made: Plan) -> Iterator[str]:
    base = "4-bit base" if made.quantize == "nf4" and made.method != "full" else made.precision
    total, trained = made.parameters / 1e6, made.trainable / 1e6
    yield f"{total:,.1f} million parameters, {trained:,.2f} million trained ({made.method}, {base})"
    how = "chosen for the memory there is" if made.rows_chosen else "as the settings say"
    yield f"rows of {made.row_tokens:,} tokens, {how}"
    if not made.prompts:
        yield f"no data given: planned for a row of {made.longest_row:,} tokens, two candidates of the greatest length"
        return
    yield (
        f"{made.prompts:,} prompts, {made.steps:,} steps; a step: {made.rows_per_step:.1f} rows, "
        f"{made.tokens_per_step:,.0f} tokens (at most {made.tokens_per_step_max:,})"
    )
    yield f"{made.tokens_per_epoch:,} tokens an epoch; the longest row has {made.longest_row:,}"
    if made.pair_tokens:
        fewer = made.pair_tokens / made.tokens_per_epoch
        counted = f"pairs {made.pair_tokens:,} tokens, tree {made.tokens_per_epoch:,}"
        yield f"{counted} ({fewer:.1f} times fewer; one tree over all groups: {made.tree_tokens:,})"
    if made.seconds_per_step is None or made.total_seconds is None:
        yield f"no time is given: there is no {made.device} device here to measure"
        return
    reference = f", {_duration(made.reference_seconds)} of it for the reference" if made.reference_seconds else ""
    yield f"about {_duration(made.seconds_per_step)} a step, {_duration(made.total_seconds)} in all{reference}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
