"""Several processes: the same result as one, however they share the model, and a run that changes their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

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


def run(model: Path, out: Path, cache: Path, processes: int, stop: int = 0, before: str = "", **settings: Any) -> int:
    """Train on so many processes; `stop` ends them inside that step."""
    script = out.with_suffix(f".{processes}.{stop}.py")
    tests = str(Path(__file__).parent)
    where = {"tests": tests, "model": str(model), "out": str(out)}
    script.write_text(SCRIPT.format(settings=settings, before=before, stop=stop, processes=processes, **where))
    command = [sys.executable, str(script)]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launch, str(script)]
    env = {**os.environ, "HAFS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    if not stop and done.returncode:
        print(done.stdout[-3000:], done.stderr[-6000:])
    return done.returncode


def same(a: Path, b: Path) -> None:
    """Equal weights and curves, to the rounding that another order of sums brings."""
    one, two = (load_file(str(p / "model" / "model.safetensors")) for p in (a, b))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    logs = [[json.loads(x) for x in (p / "log.jsonl").read_text().splitlines()] for p in (a, b)]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]]
    for x, y in zip(*logs, strict=True):
        assert {k: v for k, v in x.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in y.items() if k != "seconds"}, rel=2e-3, abs=2e-4
        )


@pytest.fixture(scope="module")
def alone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    assert run(tiny_model, out, out.parent / "cache", 1) == 0
    return out


def test_two_processes_do_what_one_does(tiny_model: Path, alone: Path, tmp_path: Path) -> None:
    assert run(tiny_model, tmp_path / "run", tmp_path / "cache", 2) == 0
    same(alone, tmp_path / "run")


def test_a_run_goes_on_with_another_number_of_processes(tiny_model: Path, alone: Path, tmp_path: Path) -> None:
    assert run(tiny_model, tmp_path / "run", tmp_path / "cache", 2, stop=3) != 0
    assert run(tiny_model, tmp_path / "run", tmp_path / "cache", 1) == 0
    same(alone, tmp_path / "run")


def test_processes_that_share_the_model_do_what_one_does(tiny_model: Path, alone: Path, tmp_path: Path) -> None:
    """Stopped in the middle and gone on with alone, too: a checkpoint holds whole tensors."""
    assert run(tiny_model, tmp_path / "run", tmp_path / "cache", 2, before=SHARED) == 0
    same(alone, tmp_path / "run")
    assert run(tiny_model, tmp_path / "again", tmp_path / "cache", 1, stop=3) != 0
    assert run(tiny_model, tmp_path / "again", tmp_path / "cache", 2, before=SHARED) == 0
    same(alone, tmp_path / "again")


def test_groups_that_are_split_stay_in_step_over_processes(tiny_model: Path, alone: Path, tmp_path: Path) -> None:
    assert run(tiny_model, tmp_path / "run", tmp_path / "cache", 2, two_pass=True, row_tokens=48) == 0
    same(alone, tmp_path / "run")
