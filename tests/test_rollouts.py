"""PPO whose answers a server samples, over real HTTP, with the policy's adapter loaded there at every step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import byte_tokenizer, tiny_network
from hafs.config import PPOConfig
from hafs.errors import HafsError, UsageError
from hafs.generation.transformers import TransformersBackend
from hafs.training.ppo import train_ppo
from hafs.training.rollout import Rating, Sampled
from hafs.types import Prompt
from hafs.workflows.rollouts import ServedSampler
from run_hafs import hafs
from serving import serving

pytest.importorskip("openai")

PROMPTS = [Prompt(f"say {i}") for i in range(8)]


def count_of_a(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
    return [[a.text.count("a") / 8 for a in row] for row in answers]


def config(**changes: Any) -> PPOConfig:
    base = {
        "batch_size": 4,
        "rollouts": 8,
        "max_new_tokens": 8,
        "num_epochs": 3,
        "learning_rate": 1e-2,
        "epochs": 2,
        "minibatches": 2,
        "kl_weight": 0.0,
        "missing_eos_penalty": 0.0,
        "warmup_ratio": 0.0,
        "schedule": "constant",
        "advantage": "rloo",
        "precision": "fp32",
        "lora": {"rank": 8, "alpha": 16},
    }
    return PPOConfig(**{**base, **changes})


def saved(folder: Path, **changes: Any) -> Path:
    tiny_network(**changes).save_pretrained(str(folder))
    byte_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "sft", initializer_range=0.2)


def served(model: Path, adapters: Path | None) -> Any:
    from hafs.serve.app import make_app

    return serving(make_app(TransformersBackend(str(model), "fp32"), "policy", batch_size=16, adapters=adapters))


@pytest.fixture
def url(model: Path, tmp_path: Path) -> Iterator[str]:
    with served(model, tmp_path) as address:
        yield address


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_server_samples_with_the_policy_of_every_step(url: str, model: Path, tmp_path: Path) -> None:
    """What it says of its tokens is what the policy says, though the policy has moved far from where it began."""
    with ServedSampler(f"openai:{url}", byte_tokenizer(), 8, 32, tmp_path / "run" / "rollouts") as sample:
        train_ppo(str(model), PROMPTS, config(), tmp_path / "run", sample=sample, rate=count_of_a)
    steps = [row for row in rows(tmp_path / "run") if "rollout/gap_per_token" in row]
    assert len(steps) == 6 and steps[-1]["objective/kl"] > 0.05
    assert all(row["rollout/gap_per_token"] < 1e-4 and row["rollout/capped"] == 0 for row in steps)
    assert not (tmp_path / "run" / "rollouts").exists(), "adapters that served their turn are gone"


def test_a_server_that_loads_no_adapters_is_refused(model: Path, tmp_path: Path) -> None:
    with served(model, None) as url, pytest.raises(UsageError, match="loads no adapters while it runs"):  # noqa: SIM117
        with ServedSampler(f"openai:{url}", byte_tokenizer(), 8, 32, tmp_path / "run" / "rollouts") as sample:
            train_ppo(str(model), PROMPTS, config(), tmp_path / "run", sample=sample, rate=count_of_a)


def test_a_backend_without_adapters_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be given the adapter"):
        ServedSampler(str(model), byte_tokenizer(), 8, 32, tmp_path)


def test_a_server_of_another_model_is_found_out(url: str, tmp_path: Path) -> None:
    other = saved(tmp_path / "other", initializer_range=0.3)
    with pytest.raises(HafsError, match="is another model"):  # noqa: SIM117
        with ServedSampler(f"openai:{url}", byte_tokenizer(), 8, 32, tmp_path / "run" / "rollouts") as sample:
            train_ppo(str(other), PROMPTS, config(), tmp_path / "run", sample=sample, rate=count_of_a)


@pytest.mark.slow
def test_it_learns_from_what_a_server_samples(url: str, model: Path, tmp_path: Path) -> None:
    """Reward: the share of a's among eight tokens; as well as with answers of its own."""
    with ServedSampler(f"openai:{url}", byte_tokenizer(), 8, 32, tmp_path / "run" / "rollouts") as sample:
        train_ppo(str(model), PROMPTS, config(num_epochs=12), tmp_path / "run", sample=sample, rate=count_of_a)
    rewards = [row["objective/scores"] for row in rows(tmp_path / "run") if "objective/scores" in row]
    assert sum(rewards[:2]) / 2 < 0.05 and sum(rewards[-2:]) / 2 > 0.9, rewards


def test_by_command(url: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(p.to_dict()) + "\n" for p in PROMPTS))
    hafs("init", tmp_path / "w").ok()
    (tmp_path / "w" / "hafs.toml").write_text(
        '[ppo]\nprecision = "fp32"\nbatch_size = 4\nepochs = 1\n[ppo.lora]\nrank = 4\nalpha = 8\n'
    )
    argv = [
        "train",
        "ppo",
        "-w",
        tmp_path / "w",
        "--sft-model",
        model,
        "--prompts",
        tmp_path / "prompts.jsonl",
        "--scorer",
        "text:max_words=2",
        "--output-dir",
        tmp_path / "run",
        "--max-new-tokens",
        "6",
        "--rollouts-from",
        f"openai:{url}",
        "--advantage",
        "rloo",
        "--json",
    ]
    done = hafs(*argv).ok().json
    assert done["steps"] == 2 and all(
        "rollout/gap_per_token" in row for row in rows(tmp_path / "run") if row["step"] and len(row) > 1
    )
    assert hafs(*argv).ok().json == done
