"""The commands of the guide run under the names that it gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from run_hafs import hafs

MODULES = {"generate_preferences": "--candidates-per-prompt", "dpo_trainer": "--sft-model"}
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("module", "flag"), MODULES.items())
def test_the_modules_of_the_guide_are_the_verbs(module: str, flag: str) -> None:
    command = [sys.executable, "-m", f"agents.training.{module}", "--help"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and flag in ran.stdout, ran.stderr


def test_the_names_of_the_guide_say_the_new_ones() -> None:
    hafs("generate_preferences", "--model", "x").failed(
        2, "`hafs generate_preferences` is called `hafs preferences generate`"
    )
    hafs("dpo_trainer", "--sft_model", "x", "--help").failed(2, "`hafs dpo_trainer` is called `hafs train dpo`")
