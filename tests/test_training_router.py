"""The router's balancing loss of a mixture of experts: transformers' own figure, whichever way the row is laid out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import byte_tokenizer, tiny_network
from hafs.config import DPOConfig
from hafs.errors import UsageError
from hafs.training import train_dpo
from hafs.training.logprobs import CandidateLogps
from hafs.training.packing import TokenGroup, shared_row, tokenize, unshared_row
from hafs.training.router import token_weights
from hafs.types import Edge, GroupCandidate, PreferenceGroup

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, **EXPERTS},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1, **EXPERTS},
    "qwen3_moe": {"num_experts": 4, "decoder_sparse_step": 1, **EXPERTS},
    "olmoe": {"num_experts": 4, **EXPERTS},
}

tokens = st.lists(st.integers(3, 250), min_size=1, max_size=6).map(tuple)
groups = st.builds(TokenGroup, tokens, st.lists(tokens, min_size=1, max_size=3).map(tuple))


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {name: tiny_network(name, **more) for name, more in FAMILIES.items()}


def theirs(net: Any, members: list[TokenGroup]) -> torch.Tensor:
    """What transformers computes on one padded line an answer."""
    row = unshared_row(members)
    return net(input_ids=row.input_ids, attention_mask=row.padding, output_router_logits=True).aux_loss


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.lists(groups, min_size=1, max_size=3))
def test_it_is_transformers_own(networks: dict[str, Any], name: str, members: list[TokenGroup]) -> None:
    """On padded lines, and where a prompt is computed once for several answers."""
    for shared in {False, name == "qwen3_moe"}:
        model = CandidateLogps(networks[name], shared=shared)
        model.balance_routers(0.5)
        model.train()
        row = model.row(members)
        model(row)
        assert model.balance is not None and model.router is not None and model.router.weight == 0.5
        torch.testing.assert_close(model.balance, theirs(networks[name].eval(), members), rtol=1e-5, atol=1e-6)
        lengths = [len(g.prompt) + len(c) - 1 for g in members for c in g.candidates]
        assert int(token_weights(row).sum()) == sum(lengths)
        assert int(token_weights(shared_row(members)).sum()) == sum(lengths)
        model.eval()
        model(row)
        assert model.balance is None, "only in training"


def test_the_models_own_weight_none_and_a_model_without(networks: dict[str, Any]) -> None:
    for name, net in networks.items():
        model = CandidateLogps(net, shared=False)
        model.balance_routers(-1.0)
        own = net.config.router_aux_loss_coef
        assert (model.router.weight if model.router else 0.0) == own, name
        model.balance_routers(0.0)
        assert model.router is None
    dense = CandidateLogps(tiny_network())
    dense.balance_routers(-1.0)
    assert dense.router is None
    with pytest.raises(UsageError, match="llama has no router loss"):
        dense.balance_routers(0.1)


@pytest.mark.parametrize("two_pass", [False, True])
def test_a_step_adds_it(tmp_path: Path, two_pass: bool) -> None:
    """The first step's figure is that of all its rows; its weight changes what is learnt."""
    net, tokenizer = tiny_network("qwen3_moe", **FAMILIES["qwen3_moe"]), byte_tokenizer()
    net.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    made = [
        PreferenceGroup(f"question {i}", (GroupCandidate("yes " * 4), GroupCandidate("no")), (Edge(0, 1),))
        for i in range(4)
    ]
    small: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 1, "validation_share": 0.0}
    small |= {"precision": "fp32", "learning_rate": 1e-2, "lora": {"rank": 2, "dropout": 0.0}, "two_pass": two_pass}
    small |= {"row_tokens": 30 if two_pass else 4096}
    weights = {}
    for weight in (0.0, 3.0):
        out = tmp_path / f"{weight}"
        train_dpo(str(tmp_path / "model"), made, DPOConfig(router_weight=weight, **small), out)
        row = next(r for r in map(json.loads, (out / "log.jsonl").open()) if r["step"] == 1)
        weights[weight] = (out / "model/model.safetensors").read_bytes()
        assert ("router_loss" in row) == (weight > 0)
        if weight and not two_pass:
            want = theirs(net, [tokenize(tokenizer, g) for g in made])
            assert row["router_loss"] == pytest.approx(float(want), rel=1e-5)
    assert weights[0.0] != weights[3.0]
