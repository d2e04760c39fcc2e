"""Peak memory of PPO against DPO on the same model and lengths, and of PPO as four models beside it.

    make bench-rlhf

Each runs one step in a process of its own: four prompts of 64 tokens with four answers of 64. PPO has policy,
reference, value function and reward model on one base; "naive" holds three more copies of the weights, as a layout of
four models does (a lower bound of it: their adapters and activations are counted once).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import result
from train import Shape, fit, loaded, memory_mb, settings

SHAPE = Shape(64, 64, 4, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="default")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options.model)))
        return
    peaks = {}
    for name in WORKERS:
        command = [sys.executable, __file__, "--worker", name, "--model", options.model]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        peaks[name] = json.loads(done.stdout.splitlines()[-1])["peak_mb"]
        print(f"  {name}: peak {peaks[name]:.0f} MiB", flush=True)
    result(ppo_memory_vs_dpo=peaks["ppo"] / peaks["dpo"], naive_memory_vs_dpo=peaks["naive"] / peaks["dpo"])


def _spec(model: str) -> dict[str, Any]:
    return {"model": model, "groups": SHAPE.groups, "shape": [SHAPE.prompt, SHAPE.answer, SHAPE.answers, SHAPE.groups]}


def dpo(model: str) -> dict[str, float]:
    """One step of DPO with a cold reference cache."""
    from accelerate import Accelerator

    from hafs.training.logprobs import CandidateLogps
    from hafs.training.reference import ReferenceCache, fill_reference
    from hafs.training.run import with_adapter

    net, _, groups, _ = loaded(_spec(model))
    config = settings(len(groups))
    cache = ReferenceCache(Path(tempfile.mkdtemp()), ["benchmark"])
    network = CandidateLogps(net)
    fill_reference(cache, network, groups, config, Accelerator())
    fit(CandidateLogps(with_adapter(net, config), network.shared), groups, cache, config)
    return {"peak_mb": memory_mb("VmHWM")}


def ppo(model: str, copies: int = 0) -> dict[str, float]:
    """One step of PPO with a value function and a reward model, answers of 64 tokens sampled by the policy itself."""
    import torch

    from hafs.config import GenerateConfig, PPOConfig
    from hafs.generation.transformers import _decode, _drawer
    from hafs.models.loading import load_model
    from hafs.models.naming import resolve
    from hafs.training.actors import Actors, RewardAdapter
    from hafs.training.checkpoints import RunDirectory
    from hafs.training.ppo import PPOTrainer
    from hafs.training.rollout import Sampled
    from hafs.types import Prompt

    net, _, groups, _ = loaded(_spec(model))
    others = [load_model(resolve(model)) for _ in range(copies)]
    for weights in (p for other in others for p in other.parameters()):
        weights.detach().sum()  # weights mapped from a file are in memory once they have been read
    lengths = {"rollouts": SHAPE.answers, "max_new_tokens": SHAPE.answer, "batch_size": SHAPE.groups}
    config = PPOConfig(**lengths, epochs=1, minibatches=1)  # type: ignore[arg-type]
    head = {"score.weight": torch.zeros(1, net.config.get_text_config().hidden_size)}
    actors = Actors(net, config, RewardAdapter(head, config.lora.rank, config.lora.alpha, config.lora.targets))
    decoding = GenerateConfig(candidates=SHAPE.answers, temperature=1.0, max_new_tokens=SHAPE.answer)  # type: ignore[call-arg]

    def sample(net: Any, prompts: Any, n: int, seed: int) -> list[list[Sampled]]:
        draw = _drawer(net.device, decoding, [], seed)
        rows = _decode(net, [g.prompt for g in groups], [n] * len(groups), [], decoding, draw)
        answers = [Sampled(tuple(ids), "", finish) for ids, _, finish in rows]
        return [answers[i * n : (i + 1) * n] for i in range(len(groups))]

    run = RunDirectory(Path(tempfile.mkdtemp()) / "run")
    run.claim({})
    prompts = [Prompt(str(i)) for i in range(len(groups))]
    PPOTrainer(actors, prompts, [g.prompt for g in groups], sample, None, config, run).step(1)
    return {"peak_mb": memory_mb("VmHWM")}


WORKERS = {"dpo": dpo, "ppo": ppo, "naive": lambda model: ppo(model, copies=3)}


if __name__ == "__main__":
    main()
