"""Shared fixtures: a tiny random model with a byte tokenizer, built here, so most tests need no download."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from forked import Forks, forking

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

KILLS = int(os.environ.get("HAFS_TEST_KILLS", "6"))
DRAWS = 2000
"""How often a run is killed at random moments, and how many samples the simulations of intervals draw."""


def nominal(hits: float) -> bool:
    """Whether intervals at 95 % held the truth in 93 to 97 % of the draws."""
    return 0.93 <= hits / DRAWS <= 0.97


# How long an example takes says something of the machine only; each run draws other ones.
settings.register_profile("hafs", deadline=None, max_examples=50)
settings.load_profile("hafs")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """One token a byte, with the ChatML marks as special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def tiny_config(model_type: str = "llama", **changes: Any) -> Any:
    """A two-layer, 64-wide configuration of a model family."""
    from transformers import AutoConfig

    sizes = {
        "vocab_size": 260,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
        "tie_word_embeddings": True,
    }
    if model_type == "gpt2":
        sizes = {
            "vocab_size": 260,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 512,
            "bos_token_id": 256,
            "eos_token_id": 257,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }
    return AutoConfig.for_model(model_type, **{**sizes, **PECULIAR.get(model_type, {}), **changes})


MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
PECULIAR: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mistral": {"sliding_window": 4},
    "gemma2": {**MIXED, "query_pre_attn_scalar": 16},
    "gemma3_text": MIXED,
    "olmo3": MIXED,
    "cohere2": MIXED,
    "gpt_oss": {**MIXED, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""What a family's tiny configuration needs beside the sizes: experts, and windows shorter than the tests' texts."""


def tiny_network(model_type: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A random network of a family in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = tiny_config(model_type, **changes)
    try:
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    except ValueError:  # families without SDPA
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny random llama and its tokenizer."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_network().save_pretrained(str(path))
    byte_tokenizer().save_pretrained(str(path))
    return path


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes that begin with torch and hafs imported."""
    with forking() as found:
        yield found


LONGEST = (
    "test_cli.py",
    "test_annotate_page.py",
    "test_bad_input.py",
    "test_task_references.py",
    "test_engine_trl.py",
    "test_recipe.py",
    "test_export.py",
    "test_training_run.py",
    "test_training_processes.py",
    "test_loop.py",
)
"""Files that take longest; they go first, so that the workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and leave the tests that need a GPU out where there is none."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Torch on one thread: two workers share two cores, and results do not depend on the split of a sum."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
