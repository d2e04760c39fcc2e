"""One-sided labels and ORPO: against TRL on the same data, against the formulas, and through a whole run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import byte_tokenizer
from hafs.config import DPOConfig
from hafs.errors import UsageError
from hafs.models.chat import encode_prompt
from hafs.training import train_dpo
from hafs.training.logprobs import CandidateLogps
from hafs.training.losses import Labelled, Strength, kto
from hafs.training.objectives.labels import LabelObjective, label_notes, label_weights, mismatched
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import TokenGroup, fit, tokenize
from hafs.types import CandidateLabel, Edge, GroupCandidate, PreferenceGroup
from test_training_run import LORA, SMALL, Killed, kill_at, log_of, preferences, same

GOOD, BAD = CandidateLabel(True), CandidateLabel(False)
ROWS = [
    ("write a", "A", True),
    ("write bcd", "b", False),
    ("ef", "EFG HI", True),
    ("x", "zzz", False),
    ("y", "Y", True),
]
PAIRS = [("write a", "A", "aa"), ("write bcd", "BCD", "b"), ("ef", "EFG HI", "no"), ("x", "y", "zzz")]
QUICK: dict[str, Any] = {**SMALL, "num_epochs": 1, "lora": {**LORA, "dropout": 0.0}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))


def labelled(prompt: str, text: str, good: bool) -> PreferenceGroup:
    return PreferenceGroup(prompt, (GroupCandidate(text, label=CandidateLabel(good)),), ())


def dpo_config(**settings: Any) -> DPOConfig:
    return DPOConfig(**{"loss": "kto", **settings})


def away(net: Any) -> Any:
    """The policy a few steps later, when answers to other prompts have become a little likelier."""
    from test_training_trl import trained

    with torch.no_grad():
        for name, p in trained(net).named_parameters():
            if "lora_B.default" in name:
                p.mul_(0.2)
    return net


def reference_and_kl(net: Any, objective: LabelObjective, groups: list[TokenGroup]) -> tuple[Any, torch.Tensor]:
    """The row with its reference; tells the objective the step's reference point as the loop does."""
    model = CandidateLogps(net)
    row, others = model.row(groups), model.row(mismatched(groups, 256))
    with torch.no_grad():
        with net.disable_adapter():
            reference, before = row.sums(model(row)), others.sums(model(others))
        objective.kl = max(0.0, float((others.sums(model(others)) - before).mean()))
    return row, reference


@pytest.mark.slow
def test_kto_is_trls(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from test_training_trl import adapter_gradient, policy

    tokenizer = byte_tokenizer()
    rows = [
        {"prompt": tokenizer.decode(encode_prompt(tokenizer, p)), "completion": c, "label": good} for p, c, good in ROWS
    ]
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    args = trl.KTOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        loss_type="kto",
        max_length=256,
        use_cpu=True,
        per_device_train_batch_size=len(ROWS),
        report_to="none",
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=False,
        train_sampling_strategy="sequential",
        **weights,
    )
    theirs = policy()
    trainer = trl.KTOTrainer(model=theirs, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    away(theirs).zero_grad()
    their_loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    their_loss.backward()

    net = away(policy())
    groups = [tokenize(tokenizer, labelled(*row)) for row in ROWS]
    objective = LabelObjective(dpo_config(beta=0.3, **weights))
    row, reference = reference_and_kl(net, objective, groups)
    assert objective.kl > 0.01, "a reference point of 0 would not show how it is computed"
    total, sums = objective.loss(CandidateLogps(net)(row), reference, row)
    ours = total / objective.normaliser(groups)
    ours.backward()
    assert ours.item() == pytest.approx(their_loss.item(), rel=1e-5)
    assert sums["kl"][0] / sums["kl"][1] == pytest.approx(trainer._metrics["train"]["kl"][-1], rel=1e-4)
    torch.testing.assert_close(adapter_gradient(net), adapter_gradient(theirs), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_orpo_is_trls_with_the_nll_of_the_answer_alone(tmp_path: Path) -> None:
    """TRL adds the NLL of prompt and answer; the paper's, and ours, is the answer's."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from test_training_trl import adapter_gradient, policy, trained

    tokenizer = byte_tokenizer()
    prompts = [tokenizer.decode(encode_prompt(tokenizer, p)) for p, _, _ in PAIRS]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, (_, c, r) in zip(prompts, PAIRS, strict=True)]
    args = ORPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        max_length=256,
        use_cpu=True,
        per_device_train_batch_size=len(PAIRS),
        report_to="none",
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=False,
    )
    theirs = policy()
    trainer = ORPOTrainer(model=theirs, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    trained(theirs).zero_grad()
    chosen, rejected = trainer.concatenated_forward(trainer.model, next(iter(trainer.get_train_dataloader())))[:2]
    their_loss = -chosen.mean() - trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    their_loss.backward()

    net = trained(policy())
    groups = [
        tokenize(tokenizer, PreferenceGroup(p, (GroupCandidate(c), GroupCandidate(r)), (Edge(0, 1),)))
        for p, c, r in PAIRS
    ]
    model = CandidateLogps(net)
    row = model.row(groups)
    total, _ = PreferenceObjective(loss="orpo", beta=0.3).loss(model(row), torch.zeros(2 * len(PAIRS)), row)
    (total / len(groups)).backward()
    assert float(total.detach()) / len(groups) == pytest.approx(their_loss.item(), rel=1e-5)
    torch.testing.assert_close(adapter_gradient(net), adapter_gradient(theirs), rtol=1e-4, atol=1e-6)


@given(st.floats(-20, 20), st.booleans(), st.floats(0, 5), st.sampled_from([0.1, 0.5]))
def test_kto_is_the_papers_formula(ratio: float, good: bool, kl: float, beta: float) -> None:
    answers = Labelled(torch.tensor([ratio]), torch.tensor([good]), torch.tensor(kl))
    got = float(kto.function(answers, Strength(beta, desirable=1.2, undesirable=0.4)))
    gain = beta * (ratio - kl) if good else beta * (kl - ratio)
    assert got == pytest.approx((1.2 if good else 0.4) * (1 - 1 / (1 + math.exp(-gain))), rel=1e-4, abs=1e-6)


def test_a_label_of_its_own_goes_before_what_pairs_say() -> None:
    group = TokenGroup(
        (1,),
        ((2,), (3,), (4,), (5,)),
        (Edge(0, 1), Edge(0, 2, weight=2.0), Edge(1, 2)),
        (None, None, CandidateLabel(True, 3.0), None),
    )
    assert label_weights(group) == [1.0, 0.0, 3.0, 0.0]
    assert label_weights(replace(group, labels=())) == [1.0, 0.0, -1.0, 0.0]
    objective = LabelObjective(dpo_config())
    assert objective.takes(group) and not objective.takes(TokenGroup((1,), ((2,),)))
    short = fit(replace(group, candidates=((2,) * 9, (3,), (4,), (5,))), 5)
    assert short is not None and label_weights(short) == [1.0, 3.0, 0.0]


def test_mismatched_answers_are_of_another_prompt() -> None:
    groups = [TokenGroup((i // 2,), ((9, i),), (), (GOOD,)) for i in range(6)]
    for group, other in zip(groups, mismatched(groups, 99), strict=True):
        assert other.prompt == group.prompt and other.candidates[0][1] // 2 != group.prompt[0]
    assert mismatched(groups[:1], 99, among=groups)[0].candidates == ((9, 2),)
    with pytest.raises(UsageError, match="one prompt only"):
        mismatched(groups[:2], 99)


def test_labels_are_said_to_be_out_of_balance() -> None:
    groups = [TokenGroup((i,), ((i,),), (), (GOOD if i % 5 == 0 else BAD,)) for i in range(20)]
    (said,) = label_notes(groups, dpo_config())
    assert "4 good and 16 bad answers, weighed 0.25 to 1" in said and "--undesirable-weight 0.19 to 0.25" in said
    assert not label_notes(groups, dpo_config(undesirable_weight=0.22))
    assert "every label says good" in label_notes(groups[::5], dpo_config())[0]


def one_sided(n: int = 16) -> list[PreferenceGroup]:
    """Every prompt has one answer: capitals are good."""
    return [labelled(f"word {i}", f"WORD{i}" if i % 2 else f"word{i}", bool(i % 2)) for i in range(n)]


def test_labels_alone_train_resume_and_move_the_right_way(tiny_model: Path, tmp_path: Path) -> None:
    lively = {**QUICK, "num_epochs": 8, "learning_rate": 5e-3, "beta": 0.3, "loss": "kto", "eval_steps": 8}
    config = DPOConfig(**lively)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_dpo(str(tiny_model), one_sided(), config, whole)
    rows = [r for r in log_of(whole) if "loss" in r]
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-5) and rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < 0.45 and rows[-1]["rewards/chosen"] > rows[-1]["rewards/rejected"]
    with pytest.raises(Killed):
        train_dpo(str(tiny_model), one_sided(), config, cut, progress=kill_at(10))
    train_dpo(str(tiny_model), one_sided(), config, cut)
    same(cut, whole)


def test_labels_mix_with_pairs_and_pairs_alone_do(tiny_model: Path, tmp_path: Path) -> None:
    result = train_dpo(
        str(tiny_model), [*one_sided(8), *preferences(8)], DPOConfig(**{**QUICK, "loss": "kto"}), tmp_path / "both"
    )
    assert result.steps > 0 and not any("nothing that this objective" in w for w in result.warnings)
    mixed = train_dpo(str(tiny_model), [*one_sided(8), *preferences(8)], DPOConfig(**QUICK), tmp_path / "dpo")
    assert any("8 prompts have nothing that this objective learns from" in w for w in mixed.warnings)
    with pytest.raises(UsageError, match="labels of single answers and not one pair") as said:
        train_dpo(str(tiny_model), one_sided(8), DPOConfig(**QUICK), tmp_path / "none")
    assert "--loss kto" in said.value.fix
    for wrong in ({"label_smoothing": 0.1}, {"ld_alpha": 0.5}):
        with pytest.raises(UsageError, match="compare two answers"):
            LabelObjective(dpo_config(**wrong))


def test_orpo_needs_no_reference_and_teaches_the_winner(tiny_model: Path, tmp_path: Path) -> None:
    config = DPOConfig(**{**QUICK, "num_epochs": 5, "learning_rate": 5e-3, "loss": "orpo"})
    train_dpo(str(tiny_model), preferences(), config, tmp_path / "run")
    assert not (tmp_path / "cache" / "reference").exists()
    rows = [r for r in log_of(tmp_path / "run") if "loss" in r]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["nll"] < rows[0]["nll"]


def test_a_file_of_labels_is_trained_on_by_command(tiny_model: Path, tmp_path: Path) -> None:
    from run_hafs import hafs

    data = tmp_path / "kto.jsonl"
    rows = [{"prompt": f"{i}+1?", "completion": f"={i + 1}", "label": i % 2} for i in range(8)]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    common = ("train", "dpo", "--sft_model", tiny_model, "--preference_data", data, "--output_dir", tmp_path / "run")
    assert hafs(*common).code == 2
    done = hafs(*common, "--loss", "kto", "--undesirable-weight", "0.9", "--num_epochs", "1", "--json").ok()
    assert done.json["steps"] >= 1
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["settings"]
    assert (settings["loss"], settings["undesirable_weight"]) == ("kto", 0.9)
