"""Scalar heads on a causal language model: a reward for a whole answer, a value for each of its tokens.

Both see the model as `CandidateLogps` does, in the same packed rows; only what is read off the hidden states differs.
A head is a module `score` of the network that it sits on, so that it is trained, kept and resumed with the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hafs.models.loading import save_model
from hafs.training.logprobs import CandidateLogps
from hafs.training.packing import PackedRow, TokenGroup


def scalar_head(net: Any) -> nn.Linear:
    """A new head for `net` in float32, without a bias; weights of deviation 1/sqrt(width + 1).

    Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO", detail 11, after Stiennon et al. 2020.
    """
    width = net.config.get_text_config().hidden_size
    head = nn.Linear(width, 1, bias=False)
    nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
    return head.to(next(net.parameters()).device)


class CandidateRewards(CandidateLogps):
    """`forward(row)` returns [candidates]: the reward of each candidate, read at its last token."""

    def __init__(self, net: Any, shared: bool | None = None, head: nn.Module | None = None) -> None:
        super().__init__(net, shared)
        if head is None and not hasattr(net, "score"):
            net.score = scalar_head(net)
        self._score: list[Any] = [net.score if head is None else head]  # in a list: registered once, as the net's

    def row(self, groups: Sequence[TokenGroup]) -> PackedRow:
        """As for log-probabilities, but with one label more a candidate: its last token is read, too."""
        return super().row([replace(g, candidates=tuple((*c, 0) for c in g.candidates)) for g in groups])

    def forward(self, row: PackedRow) -> torch.Tensor:
        last = self.hidden(row)[row.choice[row.lengths.cumsum(0) - 1]]
        head = self._score[0]
        return head(last.to(head.weight.dtype))[:, 0].to(torch.promote_types(last.dtype, torch.float32))


class TokenValues(CandidateLogps):
    """`forward(row)` returns [labels]: the value of the state in which each label is chosen."""

    def __init__(self, net: Any, head: nn.Module, shared: bool | None = None) -> None:
        super().__init__(net, shared)
        self._score: list[Any] = [head]

    def forward(self, row: PackedRow) -> torch.Tensor:
        return self.read(self.hidden(row), row)

    def read(self, hidden: torch.Tensor, row: PackedRow) -> torch.Tensor:
        """[labels] values of the row's states, whose hidden states, [choices, width], are these."""
        head = self._score[0]
        values = head(hidden.to(head.weight.dtype))[:, 0].to(torch.promote_types(hidden.dtype, torch.float32))
        return values[row.choice]


def save_classifier(net: Any, head: nn.Module, tokenizer: Any, output: Path) -> None:
    """Write `net` (a causal model, its adapter merged) and the head as a sequence-classification checkpoint.

    `AutoModelForSequenceClassification` reads the last token that is not padding. Where the tokenizer pads with its
    end-of-turn token, that would be the token before an answer's end, so the checkpoint pads with another one.
    """
    from transformers import AutoModelForSequenceClassification

    config = type(net.config).from_dict({**net.config.to_dict(), "num_labels": 1})
    tokenizer.pad_token_id = config.pad_token_id = padding_id(tokenizer)
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    setattr(classifier, classifier.base_model_prefix, net.base_model)
    classifier.score = head
    save_model(classifier, tokenizer, output)


def padding_id(tokenizer: Any) -> int:
    """A token that is not the one which ends an answer: another special one, else the first of the vocabulary."""
    ids = (tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids, 0, 1)
    return int(next(i for i in ids if i not in (None, tokenizer.eos_token_id)))
