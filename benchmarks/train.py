"""Preference training: hafs' engine against TRL's DPOTrainer on one machine, and where the difference comes from.

Both train the same model (SmolLM2-135M) on the same token ids with the same adapter, loss, optimiser, precision and
threads, one optimiser step on all pairs. hafs runs with its defaults, TRL with the batch size that a search finds to be
the fastest here. Runs alternate, each in a process of its own, so that its peak memory is its own; what is timed is the
optimiser step and, unless it is cached, the reference pass, not imports, loading, data or saving.

- `all_edges_k4`: four answers a prompt, all six edges; an answer is in three pairs, the prompt in six.
- `best_worst_r1`, `best_worst_r4`: one pair a prompt; the prompt is as long as an answer, or four times as long.
- `warm_cache`: as `all_edges_k4` when the reference's log-probabilities are known from before (TRL: precomputed).
- `demo_data`: prompts of the demo under the model's own template, all edges; `--data FILE` takes groups that
  `hafs preferences build` wrote, such as the demo's. Without it answers are made from the prompts' proven ones.
- `long_groups`: four answers of 384 tokens to a prompt of 512, for a card; only where it is asked for.
- `system_prompt`: 512 tokens of system text before every prompt, four answers, all edges. TRL computes four of the 24
  pairs, since its time is that of its pairs.

`dedup_gain` is what computing each unique answer once brings, `prefix_gain` what sharing the prompt brings on top, and
`vs_before` the time of the layout that the token tree replaced (before.py) over that of the tree, on `demo_data`; these
are measured on hafs' step alone. The last line is RESULT; the bars printed beside the figures are goals, not checks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import cuda, peak_mb, result, seconds, wait


@dataclass(frozen=True)
class Shape:
    """Groups of one size: tokens of a prompt, tokens of an answer (with the end of turn), answers, groups a step.

    `system` tokens before every prompt are the same in all; of TRL's pairs at most `limit` are computed (0: all).
    `data` marks a scenario whose groups are those of a file, or are made of the demo's prompts.
    """

    prompt: int
    answer: int
    answers: int
    groups: int
    system: int = 0
    limit: int = 0
    data: bool = False

    @property
    def pairs(self) -> int:
        """Edges of one group: all of them."""
        return math.comb(self.answers, 2)


SHAPES = {
    "all_edges_k4": Shape(64, 48, 4, 2),
    "best_worst_r1": Shape(64, 64, 2, 4),
    "best_worst_r4": Shape(128, 32, 2, 4),
    "demo_data": Shape(0, 0, 4, 4, data=True),
    "system_prompt": Shape(64, 48, 4, 4, system=512, limit=4),
    "long_groups": Shape(512, 384, 4, 1),
}
SCENARIOS = (*SHAPES, "warm_cache")
FOR_A_CARD = ("long_groups",)
"""Scenarios that a processor takes too long for; they are run where they are asked for."""

BATCHES = (1, 2, 4, 8)
CARD_BATCHES = (8, 16, 32, 64)
BARS = {
    "all_edges_k4_speed": ">= 8",
    "all_edges_k4_memory": "<= 0.35",
    "best_worst_r1_speed": ">= 1.8",
    "best_worst_r4_speed": ">= 4",
    "demo_data_speed": ">= 8",
    "system_prompt_speed": ">= 18",
    "vs_before": ">= 1.25",
}
TINY = Shape(8, 8, 2, 1)


def main() -> None:
    options = _options()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if options.worker:
        spec = json.loads(options.worker)
        print(json.dumps(WORKERS[spec["do"]](spec)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        if options.profile:
            bench.run("profile", "all_edges_k4")
            return
        if options.before:
            result(**bench.before())
            return
        result(**bench.all())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, default=2, help="alternations")
    parser.add_argument("--groups", type=int, help="groups a step, instead of each scenario's own number")
    parser.add_argument("--trl-batch", type=int, help="TRL's batch size in pairs, instead of searching for it")
    parser.add_argument("--data", type=Path, help="preference groups for demo_data, as `hafs preferences build` writes")
    parser.add_argument("--before", action="store_true", help="only vs_before, without TRL")
    parser.add_argument("--model", default="default", help="another model to train")
    parser.add_argument("--profile", action="store_true", help="only print the top operators of one step of hafs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


class Bench:
    """Starts the runs and compares them; imports no torch, so that what it starts has the machine to itself."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.wanted = options, options.scenario or [s for s in SCENARIOS if s not in FOR_A_CARD]
        self.env = {
            **os.environ,
            "TMPDIR": str(folder),
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.env.pop("PYTHONDONTWRITEBYTECODE", ""):  # or every run compiles torch and transformers anew
            self.env.setdefault("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        self.batch = options.trl_batch or 0

    def run(self, do: str, shape: str, **more: Any) -> dict[str, Any]:
        """One process that does one thing; its last line is what it found, the lines before are shown."""
        size = SHAPES[shape]
        spec = {
            "do": do,
            "model": self.options.model,
            "groups": self.options.groups or size.groups,
            **more,
            "shape": asdict(size),
            "data": str(self.options.data.resolve()) if self.options.data else "",
        }
        command = [sys.executable, __file__, "--worker", json.dumps(spec)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the run {spec} failed:\n{done.stderr[-3000:]}")
        *said, last = done.stdout.splitlines()
        if said:
            print("\n".join(said))
        found: dict[str, Any] = json.loads(last)
        return found

    def all(self) -> dict[str, float]:
        """Every wanted scenario; returns the figures of the RESULT line."""
        self.search()
        figures: dict[str, float] = {}
        if {"all_edges_k4", "warm_cache"} & {*self.wanted}:
            figures |= self.all_edges()
        for name in ("best_worst_r1", "best_worst_r4", *FOR_A_CARD):
            if name in self.wanted:
                figures |= self.compare(name, self.alternate(name, ["hafs", "trl"]))
        if "demo_data" in self.wanted:
            figures |= self.compare("demo_data", self.alternate("demo_data", ["hafs", "trl"])) | self.before()
        if "system_prompt" in self.wanted:
            figures |= self.compare("system_prompt", self.alternate("system_prompt", ["hafs", "trl"]))
        return figures

    def before(self) -> dict[str, float]:
        """What the token tree brings over the layout before it."""
        found = self.run("versus", "demo_data", cycles=max(2, self.options.runs))
        print(
            f"hafs' step on demo_data: {found['tokens_before']} tokens before, {found['tokens']} now;"
            f" time before / now, run by run: {', '.join(f'{r:.2f}' for r in found['ratios'])}"
        )
        return {"vs_before": statistics.median(found["ratios"])}

    def search(self) -> None:
        """Choose TRL's batch size: the fastest, and of those within 3 % of it the one that takes least memory."""
        print(f"TRL {version('trl')}; its padding_free is switched off in this release, and no row needs padding here")
        if self.batch:
            return
        tried = {}
        for batch in CARD_BATCHES if _on_a_card() else BATCHES:
            tried[batch] = found = self.run("trl", "all_edges_k4", batch=batch, limit=max(2, batch), warm=False)
            print(
                f"  TRL with {batch} pairs a pass: {_rate(found):.3f} pairs/s, peak {found['peak_mb']:.0f} MiB"
                f" ({found['precision']}, {found['threads']} threads)",
                flush=True,
            )
        fastest = max(map(_rate, tried.values()))
        near = [b for b, found in tried.items() if _rate(found) >= 0.97 * fastest]
        self.batch = min(near, key=lambda b: float(tried[b]["peak_mb"]))
        print(f"  TRL's best here: {self.batch} pairs a pass")

    def alternate(self, shape: str, peers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The runs of each peer ("hafs", "trl", "trl, warm"), taken in turns."""
        runs: dict[str, list[dict[str, Any]]] = {p: [] for p in peers}
        for _ in range(self.options.runs):
            for peer in peers:
                do, warm = peer.partition(",")[0], peer.endswith("warm")
                limit = None if _on_a_card() else SHAPES[shape].limit or None
                runs[peer].append(self.run(do, shape, batch=self.batch, warm=warm, limit=limit))
            _same_task([r[-1] for r in runs.values()], ("loss",) if limit else ("loss", "logps"))
        return runs

    def all_edges(self) -> dict[str, float]:
        """`all_edges_k4` and `warm_cache`, which share hafs' runs, and what the layout's two ideas bring apart."""
        cold, warm = ("all_edges_k4" in self.wanted), ("warm_cache" in self.wanted)
        runs = self.alternate("all_edges_k4", ["hafs"] + ["trl"] * cold + ["trl, warm"] * warm)
        figures: dict[str, float] = {}
        if cold:
            figures |= self.compare("all_edges_k4", runs, memory=True)
        if warm:
            ours = [{**r, "seconds": r["warm_seconds"]} for r in runs["hafs"]]
            figures |= self.compare("warm_cache", {"hafs": ours, "trl": runs["trl, warm"]})
            gain = statistics.median(r["seconds"] / r["warm_seconds"] for r in runs["hafs"])
            print(f"  hafs warm against hafs cold: {gain:.2f}x")
            figures["hafs_warm_vs_cold"] = gain
        if cold:
            gains = self.run("layouts", "all_edges_k4", cycles=max(1, self.options.runs - 2))
            print(
                f"hafs' step apart: each answer once {gains['dedup_gain']:.2f}x, and the prompt once"
                f" {gains['prefix_gain']:.2f}x on top"
            )
            figures |= {k: gains[k] for k in ("dedup_gain", "prefix_gain")}
        return figures

    def compare(self, name: str, runs: dict[str, list[dict[str, Any]]], memory: bool = False) -> dict[str, float]:
        """Print a scenario's medians and ratios; returns its figures."""
        ours, theirs = runs["hafs"], runs["trl"]
        first = ours[0]
        print(
            f"{name}: {first['groups']} groups, {first['pairs']} pairs; {first['precision']},"
            f" {first['threads']} threads"
        )
        for who, mine in (("hafs", ours), ("TRL", theirs)):
            print(
                f"  {who:4}  {_median(mine, _rate):7.3f} pairs/s   peak {_median(mine, _peak):5.0f} MiB,"
                f" {_median(mine, _grown):5.0f} above the loaded model   loss {mine[0]['loss']:.4f}"
            )
        ratios = [_rate(a) / _rate(b) for a, b in zip(ours, theirs, strict=True)]
        print(f"  hafs / TRL, run by run: {', '.join(f'{r:.2f}' for r in ratios)}")
        figures = {f"{name}_speed": statistics.median(ratios)}
        if memory:
            figures[f"{name}_memory"] = statistics.median(
                _peak(a) / _peak(b) for a, b in zip(ours, theirs, strict=True)
            )
            grown = statistics.median(_grown(a) / _grown(b) for a, b in zip(ours, theirs, strict=True))
            print(f"  memory above the loaded model: {grown:.3f} of TRL's")
            figures[f"{name}_memory_above"] = grown
        for key, value in figures.items():
            print(f"  {key} {value:.3f}" + (f"   (bar: {BARS[key]})" if key in BARS else ""), flush=True)
        return figures


def _on_a_card() -> bool:
    """Whether the runs compute on a GPU; told without torch, which this process does not import."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _rate(run: dict[str, Any]) -> float:
    return float(run["pairs"] / run["seconds"])


def _peak(run: dict[str, Any]) -> float:
    return float(run["peak_mb"])


def _grown(run: dict[str, Any]) -> float:
    return float(run["peak_mb"] - run["loaded_mb"])


def _median(runs: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> float:
    return statistics.median(map(of, runs))


def _same_task(runs: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Stop when the peers did not see the same answers: then the figures would mean nothing.

    Before the first update loss and log-probabilities are the model's own. (The tolerance is for the mean of passes
    of unequal size, which TRL logs.)
    """
    for key in keys:
        values = [r[key] for r in runs]
        if max(values) - min(values) > 0.05 * abs(values[0]):
            raise SystemExit(f"the engines did not train on the same thing: {key} {values}")


# What follows runs in a process of its own.


def data(tokenizer: Any, shape: Shape, n: int, seed: int = 0) -> list[Any]:
    """`n` token groups of random words of one token each, so that text and token ids say the same."""
    from hafs.training.packing import TokenGroup
    from hafs.types import Edge

    ids = range(min(len(tokenizer), 20_000))
    pool = [i for i in ids if re.fullmatch(" [a-z]+", tokenizer.decode([i]))]
    pool = pool or [i for i in ids if re.fullmatch("[a-z]", tokenizer.decode([i]))]
    rng = random.Random(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.choice(pool) for _ in range(count))

    def answer() -> tuple[int, ...]:
        return (*words(shape.answer - 1), tokenizer.eos_token_id)

    edges = tuple(Edge(i, j) for i, j in itertools.combinations(range(shape.answers), 2))
    system = words(shape.system)
    return [
        TokenGroup((*system, *words(shape.prompt)), tuple(answer() for _ in range(shape.answers)), edges)
        for _ in range(n)
    ]


def settings(groups: int, accumulation: int = 1) -> Any:
    """hafs' defaults, all of `groups` in one step, without validation and warm-up."""
    from hafs.config import DPOConfig

    return DPOConfig(  # type: ignore[call-arg]
        batch_size=groups,
        gradient_accumulation_steps=accumulation,
        validation_share=0,
        warmup_ratio=0,
        row_tokens=16384 if cuda() else 512,
    )


def loaded(spec: dict[str, Any]) -> tuple[Any, Any, list[Any], dict[str, Any]]:
    """(model, tokenizer, groups, what to report of the process) before training."""
    import torch

    from hafs.models.loading import load_model, load_tokenizer, pick_precision, quiet
    from hafs.models.naming import resolve

    quiet()
    path = resolve(spec["model"])
    tokenizer, net = load_tokenizer(path), load_model(path)
    shape = Shape(**spec["shape"])
    for weights in net.parameters():
        weights.detach().sum()  # weights mapped from a file are in memory once they have been read
    if shape.data:
        from groups import demo_groups

        groups = demo_groups(tokenizer, spec["data"], shape.answers, spec["groups"])
    else:
        groups = data(tokenizer, shape, spec["groups"])
    about = {
        "groups": len(groups),
        "pairs": sum(len(g.edges) for g in groups),
        "precision": pick_precision(),
        "threads": torch.get_num_threads(),
        "loaded_mb": memory_mb("VmRSS"),
    }
    return net, tokenizer, groups, about


def hafs(spec: dict[str, Any]) -> dict[str, Any]:
    """One step of hafs' loop: `seconds` with the reference pass, `warm_seconds` with its cache filled."""
    from accelerate import Accelerator

    from hafs.training.logprobs import CandidateLogps, self_test
    from hafs.training.reference import ReferenceCache, fill_reference
    from hafs.training.run import with_adapter

    net, tokenizer, groups, about = loaded(spec)
    config, folder = settings(len(groups)), Path(tempfile.mkdtemp())
    network, accelerator = CandidateLogps(net), Accelerator()
    self_test(network, groups, 0.1)
    warm_up(network, tokenizer, backward=False)

    def reference() -> ReferenceCache:
        cache = ReferenceCache(folder, ["benchmark"])
        fill_reference(cache, network, groups, config, accelerator)
        return cache

    first, again = seconds(reference), seconds(reference)
    network = CandidateLogps(with_adapter(net, config), network.shared)
    warm_up(network, tokenizer)
    took, row = fit(network, groups, reference(), config)
    return {
        **about,
        "seconds": first + took,
        "warm_seconds": again + took,
        "peak_mb": memory_mb("VmHWM"),
        "loss": row["loss"],
        "logps": row["logps/chosen"],
    }


def fit(network: Any, groups: Sequence[Any], cache: Any, config: Any, profiler: Any = None) -> tuple[float, Any]:
    """(seconds, the step's log row) of the loop itself, from its start to its end, without the time of checkpoints."""
    from hafs.training.checkpoints import RunDirectory
    from hafs.training.loop import Trainer
    from hafs.training.objectives.preference import PreferenceObjective

    class Untimed(RunDirectory):
        """A run's directory that adds up the time that its checkpoints take."""

        spent = 0.0

        def save(self, *args: Any, **kwargs: Any) -> None:
            self.spent += seconds(lambda: RunDirectory.save(self, *args, **kwargs))

        def weights(self, step: int) -> Any:
            started = time.perf_counter()
            found = RunDirectory.weights(self, step)
            self.spent += time.perf_counter() - started
            return found

    run = Untimed(Path(tempfile.mkdtemp()) / "run")
    run.claim({})
    trainer = Trainer(network, PreferenceObjective(config), groups, [], config, run, reference=cache)
    with profiler or nullcontext():
        took = seconds(trainer.fit)
    rows = [json.loads(line) for line in run.log.read_text().splitlines()]
    return took - run.spent, next(r for r in rows if "loss" in r)


def warm_up(network: Any, tokenizer: Any, backward: bool = True) -> None:
    """One pass on a tiny group (and back): what is set up once is set up."""
    import torch

    with torch.set_grad_enabled(backward):
        logps = network(network.row(data(tokenizer, TINY, TINY.groups, seed=1)))
    if backward:
        logps.sum().backward()
        network.zero_grad()


def trl(spec: dict[str, Any]) -> dict[str, Any]:
    """One step of TRL's trainer; `warm`: the reference is precomputed before the clock starts."""
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOTrainer

    from hafs.training.trl import lora_of, trl_arguments

    net, tokenizer, groups, about = loaded(spec)
    disable_progress_bars()
    pairs = [(g.prompt, g.candidates[e.winner], g.candidates[e.loser]) for g in groups for e in g.edges]
    pairs = pairs[: spec.get("limit")]
    batch = min(spec["batch"], len(pairs))
    config = settings(batch, math.ceil(len(pairs) / batch))
    clock: dict[str, Any] = {}

    class Clock(TrainerCallback):
        """From the beginning of the step, when its batches are there, to the end of the optimiser's update."""

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            wait()
            clock.setdefault("started", time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            wait()
            clock["ended"] = time.perf_counter()

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            clock.setdefault("row", dict(kwargs["logs"]))

    trainer: Any = DPOTrainer(
        model=net,
        args=trl_arguments(config, Path(tempfile.mkdtemp()), precompute_ref_log_probs=spec["warm"]),
        train_dataset=Dataset.from_list([_texts(tokenizer, p) for p in pairs]),
        processing_class=tokenizer,
        peft_config=lora_of(config),
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    theirs = [tuple(tuple(r[f"{k}_ids"]) for k in ("prompt", "chosen", "rejected")) for r in trainer.train_dataset]
    assert theirs == pairs, "TRL has other token ids"
    _warm_up_trl(trainer, data(tokenizer, TINY, TINY.groups, seed=1)[0])
    trainer.train()
    assert trainer.state.global_step == 1
    return {
        **about,
        "pairs": len(pairs),
        "seconds": clock["ended"] - clock["started"],
        "peak_mb": memory_mb("VmHWM"),
        "loss": clock["row"]["loss"],
        "logps": clock["row"]["logps/chosen"],
    }


def _texts(tokenizer: Any, pair: tuple[Any, Any, Any]) -> dict[str, str]:
    """A pair as text, without the end of turn, which TRL puts on."""
    prompt, chosen, rejected = pair
    return {
        "prompt": tokenizer.decode(prompt),
        "chosen": tokenizer.decode(chosen[:-1]),
        "rejected": tokenizer.decode(rejected[:-1]),
    }


def _warm_up_trl(trainer: Any, tiny: Any) -> None:
    sides = {"prompt_ids": tiny.prompt, "chosen_ids": tiny.candidates[0], "rejected_ids": tiny.candidates[1]}
    example = {k: list(v) for k, v in sides.items()} | {"ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0}
    trainer.model.eval()  # its figures stay out of those of the step
    trainer.compute_loss(trainer.model, trainer.data_collator([example])).backward()
    trainer.model.zero_grad()


def layouts(spec: dict[str, Any]) -> dict[str, Any]:
    """What the layout's two ideas bring to one step with a known reference: pair by pair, each answer once, shared."""
    from hafs.training.logprobs import CandidateLogps
    from hafs.training.packing import TokenGroup
    from hafs.training.reference import ReferenceCache
    from hafs.training.run import with_adapter
    from hafs.types import Edge

    net, tokenizer, groups, about = loaded(spec)
    apart = [
        TokenGroup(g.prompt, (g.candidates[e.winner], g.candidates[e.loser]), (Edge(0, 1),))
        for g in groups
        for e in g.edges
    ]
    cache = ReferenceCache(None, ["benchmark"])
    cache.put(groups, [0.0] * sum(len(g.candidates) for g in groups))
    net = with_adapter(net, settings(1))
    times: dict[str, list[float]] = {"pairs": [], "once": [], "shared": []}
    for _ in range(spec["cycles"]):
        for name, these in (("pairs", apart), ("once", groups), ("shared", groups)):
            network = CandidateLogps(net, shared=name == "shared")
            warm_up(network, tokenizer)
            times[name].append(fit(network, these, cache, settings(len(these)))[0])
    dedup, prefix = (
        statistics.median(x / y for x, y in zip(times[a], times[b], strict=True)) for a, b in itertools.pairwise(times)
    )
    return {**about, "dedup_gain": dedup, "prefix_gain": prefix}


def versus(spec: dict[str, Any]) -> dict[str, Any]:
    """One step, reference known, with the token tree and with the layout before it in turn."""
    from before import Before, before, size
    from hafs.training.logprobs import CandidateLogps
    from hafs.training.packing import StepRows
    from hafs.training.reference import ReferenceCache
    from hafs.training.run import with_adapter

    net, tokenizer, groups, about = loaded(spec)
    config, cache = settings(len(groups)), ReferenceCache(None, ["benchmark"])
    cache.put(groups, [0.0] * sum(len(g.candidates) for g in groups))
    net = with_adapter(net, config)
    ratios, network, old = [], CandidateLogps(net), Before(net)
    for _ in range(spec["cycles"]):
        warm_up(network, tokenizer)
        now, _ = fit(network, groups, cache, config)
        with before(net):
            warm_up(old, tokenizer)
            then, _ = fit(old, groups, cache, config)
        ratios.append(then / now)
    tokens = sum(piece.tokens for piece in StepRows(groups, config.row_tokens).of(0))
    return {**about, "ratios": ratios, "tokens": tokens, "tokens_before": sum(map(size, groups))}


def profile(spec: dict[str, Any]) -> dict[str, Any]:
    """Print the operators that one step of hafs spends its time in, and what takes memory."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler_of

    from hafs.training.logprobs import CandidateLogps
    from hafs.training.reference import ReferenceCache
    from hafs.training.run import with_adapter

    net, tokenizer, groups, about = loaded(spec)
    cache, config = ReferenceCache(None, ["benchmark"]), settings(len(groups))
    cache.put(groups, [0.0] * sum(len(g.candidates) for g in groups))
    network = CandidateLogps(with_adapter(net, config))
    warm_up(network, tokenizer)
    profiler = profiler_of(activities=[ProfilerActivity.CPU], profile_memory=True)
    took, _ = fit(network, groups, cache, config, profiler)
    for order in ("self_cpu_time_total", "self_cpu_memory_usage"):
        print(profiler.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=40))
    return {**about, "seconds": took}


WORKERS = {"hafs": hafs, "trl": trl, "layouts": layouts, "versus": versus, "profile": profile}


def memory_mb(field: str) -> float:
    """The process's memory (MiB): "VmRSS" now, "VmHWM" its peak; on a GPU what its tensors take there.

    On a processor it is resident memory, elsewhere than on Linux always the peak.
    """
    if cuda():
        import torch

        taken = {"VmRSS": torch.cuda.memory_allocated, "VmHWM": torch.cuda.max_memory_allocated}
        return taken[field]() / 2**20
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_mb()
    return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
