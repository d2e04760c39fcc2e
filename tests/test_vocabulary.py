"""Vocabularies and adapters: tokens without an embedding, resized ones, tied heads, bases that moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import byte_tokenizer, tiny_network
from hafs.config import DPOConfig, SFTConfig
from hafs.errors import UsageError
from hafs.models.chat import encode_answer, encode_prompt
from hafs.models.loading import load_model, load_tokenizer
from hafs.models.naming import model_hash
from hafs.training import train_dpo, train_sft
from hafs.types import Edge, GroupCandidate, PreferenceGroup
from run_hafs import hafs

CALLS = ["<tool_call>", "</tool_call>"]
SMALL: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "num_epochs": 2,
    "precision": "fp32",
    "learning_rate": 1e-2,
    "validation_share": 0.0,
    "lora": {"rank": 4, "alpha": 8},
}
IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])


def put(path: Path, net: Any, tokenizer: Any) -> Path:
    net.save_pretrained(str(path))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(path))
    return path


def with_calls() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": CALLS})
    return tokenizer


def adapter(path: Path, base: Path, net: Any, tokenizer: Any, **settings: Any) -> tuple[Path, torch.Tensor]:
    """A random adapter on `net`, said to be on `base`; its directory and its logits."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    peft = get_peft_model(net, LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **settings)).eval()
    for name, parameter in peft.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    peft.peft_config["default"].base_model_name_or_path = str(base)
    with torch.no_grad():
        return put(path, peft, tokenizer), peft(IDS).logits


def logits(path: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = load_model(path, "fp32")(IDS).logits
    return found


def pairs() -> list[PreferenceGroup]:
    return [
        PreferenceGroup(f"add {i}", (GroupCandidate(f"<tool_call>add({i})"), GroupCandidate("no")), (Edge(0, 1),))
        for i in range(4)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("base") / "plain", tiny_network(), byte_tokenizer())


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fewer embeddings than its tokenizer has tokens."""
    tokenizer = with_calls()
    return put(tmp_path_factory.mktemp("short") / "short", tiny_network(vocab_size=len(tokenizer) - 2), tokenizer)


def test_a_token_without_an_embedding_is_refused_with_both_sizes(short: Path, tmp_path: Path) -> None:
    said = r"the tokenizer has 260 tokens and the model 258 embeddings: there is none for '<tool_call>'"
    with pytest.raises(UsageError, match=said) as caught:
        train_dpo(str(short), pairs(), DPOConfig(**SMALL), tmp_path / "run")
    assert "--resize-vocab" in caught.value.fix


@pytest.mark.parametrize("method", ["lora", "full"])
def test_new_tokens_are_trained_and_saved(short: Path, tmp_path: Path, method: str) -> None:
    examples = [PreferenceGroup(f"add {i}", (GroupCandidate("<tool_call>add"),), ()) for i in range(6)]
    settings = SMALL | {"resize_vocab": True, "method": method, "num_epochs": 6, "learning_rate": 2e-2}
    train_sft(str(short), examples, SFTConfig(**settings), tmp_path / "run")
    made, tokenizer = tmp_path / "run" / "model", load_tokenizer(tmp_path / "run" / "model")
    net = load_model(made, "fp32")
    assert net.get_input_embeddings().weight.shape[0] == len(tokenizer) == 260
    prompt, answer = encode_prompt(tokenizer, "add 1"), encode_answer(tokenizer, "<tool_call>add")
    assert answer[0] == tokenizer.convert_tokens_to_ids("<tool_call>")
    with torch.no_grad():
        logps = net(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    assert logps[answer[0]] > -1.0, "the new token is learnt"


def test_lora_on_a_tied_head_saves_the_model_that_was_trained(base: Path, tmp_path: Path) -> None:
    from hafs.training.checkpoints import RunDirectory
    from hafs.training.run import with_adapter

    groups = [
        PreferenceGroup(f"say {i}", (GroupCandidate(f"yes {i}"), GroupCandidate("no")), (Edge(0, 1),)) for i in range(4)
    ]
    config = DPOConfig(**SMALL | {"lora": {"rank": 4, "alpha": 8, "targets": "q_proj,lm_head"}})
    result = train_dpo(str(base), groups, config, tmp_path / "run")
    trained = with_adapter(load_model(base, "fp32"), config)
    weights = RunDirectory(tmp_path / "run").weights(result.best_step)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
        want = trained.eval()(IDS).logits
    saved = load_model(tmp_path / "run" / "model", "fp32")
    assert (want - logits(tmp_path / "run" / "model")).abs().max() < 1e-4
    assert (want - logits(base)).abs().max() > 1e-3, "it was trained"
    same = saved.get_input_embeddings().weight - load_model(base, "fp32").get_input_embeddings().weight
    assert same.abs().max() == 0 and saved.config.tie_word_embeddings is False


def test_an_adapter_with_a_head_of_its_own_is_loaded_as_peft_loads_it(base: Path, tmp_path: Path) -> None:
    where, want = adapter(
        tmp_path / "own",
        base,
        tiny_network(),
        byte_tokenizer(),
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens", "lm_head"],
    )
    assert (want - logits(where)).abs().max() < 1e-4
    put(tmp_path / "merged", load_model(where, "fp32"), byte_tokenizer())
    assert (want - logits(tmp_path / "merged")).abs().max() < 1e-4


def test_an_adapter_of_a_larger_vocabulary_is_put_on_a_base_of_its_size(base: Path, tmp_path: Path) -> None:
    net, tokenizer = tiny_network(), with_calls()
    net.resize_token_embeddings(270)
    where, want = adapter(
        tmp_path / "more", base, net, tokenizer, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]
    )
    assert (want - logits(where)).abs().max() < 1e-4


def test_an_adapter_without_tokenizer_goes_by_its_bases(base: Path, tmp_path: Path) -> None:
    where, _ = adapter(tmp_path / "bare", base, tiny_network(), None, target_modules=["q_proj"])
    assert load_tokenizer(where).chat_template == load_tokenizer(base).chat_template


def test_a_base_that_moved_is_named_and_can_be_given(base: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(base, old)
    where, want = adapter(tmp_path / "adapter", old, tiny_network(), None, target_modules=["q_proj"])
    before = model_hash(where)
    old.rename(new)
    for look in (load_model, load_tokenizer, model_hash):
        with pytest.raises(
            UsageError, match=r"adapter_config.json says that the adapter's base model is .*old.*not there"
        ) as caught:
            look(where)
        assert "hafs models rebase ADAPTER --base" in caught.value.fix
    said = hafs("models", "rebase", where, "--base", new, "--json").ok().json
    assert said["hash"] == before == model_hash(where)
    assert (want - logits(where)).abs().max() < 1e-4
    other = put(tmp_path / "other", tiny_network(hidden_size=32, head_dim=8), byte_tokenizer())
    hafs("models", "rebase", where, "--base", other).failed(2, "does not fit its base")
    assert json.loads((where / "adapter_config.json").read_text())["base_model_name_or_path"] == str(new.resolve())
