"""TRL as an oracle: on the same pairs, model and settings our loss and its gradients are TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from conftest import byte_tokenizer, tiny_network
from hafs.models.chat import encode_prompt
from hafs.training.logprobs import CandidateLogps
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import shared_row, tokenize
from hafs.types import Edge, GroupCandidate, PreferenceGroup

trl = pytest.importorskip("trl")

PAIRS = [("write a", "A", "aa"), ("write bcd", "BCD", "b"), ("ef", "EFG HI", "no"), ("x", "y", "zzz")]
OURS = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo", "robust": "robust"}


def policy() -> Any:
    """A tiny model with a new adapter: its output is the base model's."""
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(tiny_network(), lora)


def trained(net: Any) -> Any:
    """The policy some steps later: its adapter is not zero any more (TRL keeps a copy of it as the reference)."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "lora_B.default" in name:
                p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return net


def adapter_gradient(net: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for n, p in sorted(net.named_parameters()) if p.grad is not None])


@pytest.mark.slow
@pytest.mark.parametrize("loss", OURS)
def test_loss_and_gradient_are_trls(tmp_path: Path, loss: str) -> None:
    from datasets import Dataset

    tokenizer, beta, smoothing = byte_tokenizer(), 0.3, 0.1 if loss == "robust" else 0.0
    prompts = [tokenizer.decode(encode_prompt(tokenizer, p)) for p, _, _ in PAIRS]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, (_, c, r) in zip(prompts, PAIRS, strict=True)]
    args = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=beta,
        loss_type=[loss],
        label_smoothing=smoothing,
        max_length=256,
        use_cpu=True,
        per_device_train_batch_size=len(PAIRS),
        report_to="none",
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=False,
    )
    theirs = policy()
    trainer = trl.DPOTrainer(model=theirs, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    trained(theirs).zero_grad()
    their_loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    their_loss.backward()

    net = trained(policy())
    groups = [
        tokenize(tokenizer, PreferenceGroup(p, (GroupCandidate(c), GroupCandidate(r)), (Edge(0, 1),)))
        for p, c, r in PAIRS
    ]
    row = shared_row(groups)
    model = CandidateLogps(net)
    with torch.no_grad(), net.disable_adapter():
        reference = row.sums(model(row))
    total, _ = PreferenceObjective(loss=loss, beta=beta, label_smoothing=smoothing).loss(model(row), reference, row)
    ours = total / len(groups)
    ours.backward()
    assert ours.item() == pytest.approx(their_loss.item(), rel=1e-5)
    torch.testing.assert_close(adapter_gradient(net), adapter_gradient(theirs), rtol=1e-4, atol=1e-6)
