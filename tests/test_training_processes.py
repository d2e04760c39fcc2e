"""Several processes: the same result as one, however they share the model, and a run that changes their number."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forked import Forks

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_training_run import LORA, SMALL, preferences
from hafs.config import DPOConfig
from hafs.training import train_dpo
settings = {{**SMALL, "lora": {{**LORA, "dropout": 0.0}}, **{settings!r}}}
{before}
def progress(what, done, total, figures):
    if what == "training" and done == {stop}:
        raise SystemExit(9)
train_dpo({model!r}, preferences(), DPOConfig(**settings), Path({out!r}), progress=progress)
from accelerate import PartialState
assert PartialState().num_processes == {processes}
"""

SHARED = """
# Accelerate shards models on GPUs only; here its `prepare` does what it does there, by FSDP2 on the CPU.
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
def prepare(self, model, optimizer):
    mesh = init_device_mesh("cpu", (self.num_processes,))
    for layer in model.net.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1.0, weight_decay=0.0)
Accelerator.prepare = prepare
"""
"""Put before a run: its processes each hold a part of the model."""


def script(model: Path, out: Path, processes: int, stop: int = 0, before: str = "", **settings: Any) -> str:
    """A program that trains on so many processes; `stop` ends them inside that step."""
    where = {"tests": str(Path(__file__).parent), "model": str(model), "out": str(out)}
    return SCRIPT.format(settings=settings, before=before, stop=stop, processes=processes, **where)


def run(forks: Forks, model: Path, out: Path, processes: int, **more: Any) -> bool:
    """Train in forks with the environment that torchrun gives its processes; whether all ended well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"HAFS_CACHE": str(out.parent / "cache")}
    if processes > 1:
        common |= {
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} if processes > 1 else {} for i in range(processes)]
    return not any(forks.run(script(model, out, processes, **more), *({**common, **rank} for rank in ranks)))


def same(a: Path, b: Path) -> None:
    """Equal weights and curves, to the rounding that another order of sums brings.

    At the first step, where the policy is the reference, the signs of margins are rounding and nothing else.
    """
    signs = ("rewards/accuracies", "length_preference")
    one, two = (load_file(str(p / "model" / "model.safetensors")) for p in (a, b))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    logs = [[json.loads(x) for x in (p / "log.jsonl").read_text().splitlines()] for p in (a, b)]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]]
    for x, y in zip(*logs, strict=True):
        left, right = (
            {k: v for k, v in row.items() if k != "seconds" and (row["step"] > 1 or k not in signs)} for row in (x, y)
        )
        assert left == pytest.approx(right, rel=2e-3, abs=2e-4)


@pytest.fixture(scope="module")
def alone(forks: Forks, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    assert run(forks, tiny_model, out, 1)
    return out


def test_two_processes_of_torchrun_do_what_one_does(tiny_model: Path, alone: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(script(tiny_model, tmp_path / "run", 2))
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    env = {**os.environ, "HAFS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-6000:]
    same(alone, tmp_path / "run")


def test_a_run_goes_on_with_another_number_of_processes(
    forks: Forks, tiny_model: Path, alone: Path, tmp_path: Path
) -> None:
    assert not run(forks, tiny_model, tmp_path / "run", 2, stop=3)
    assert run(forks, tiny_model, tmp_path / "run", 1)
    same(alone, tmp_path / "run")


def test_processes_that_share_the_model_do_what_one_does(
    forks: Forks, tiny_model: Path, alone: Path, tmp_path: Path
) -> None:
    """Stopped in the middle and gone on with alone, too: a checkpoint holds whole tensors."""
    assert run(forks, tiny_model, tmp_path / "run", 2, before=SHARED)
    same(alone, tmp_path / "run")
    assert not run(forks, tiny_model, tmp_path / "again", 1, stop=3)
    assert run(forks, tiny_model, tmp_path / "again", 2, before=SHARED)
    same(alone, tmp_path / "again")


def test_groups_that_are_split_stay_in_step_over_processes(
    forks: Forks, tiny_model: Path, alone: Path, tmp_path: Path
) -> None:
    assert run(forks, tiny_model, tmp_path / "run", 2, two_pass=True, row_tokens=48)
    same(alone, tmp_path / "run")
