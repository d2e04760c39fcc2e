"""The group layout: a prompt once, each of its unique candidates once, many groups to a row.

One group is laid out as `prompt[:-1] | p_last, c1[:-1] | p_last, c2[:-1] | ...`. Every segment starts at the position
of the prompt's last token, so each hidden state of a segment predicts exactly one token of its candidate. The mask lets
a token see its own group's prompt and the earlier tokens of its own segment, nothing else: candidates do not see each
other, and groups that share a row do not either.

The unshared layout (one padded line per candidate, the prompt repeated) is the fallback for models whose layers do
not take such a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from hafs.chat import Tokenizer, encode_answer, encode_prompt
from hafs.types import Edge, PreferenceGroup


@dataclass(frozen=True)
class TokenGroup:
    """A preference group in token ids: the prompt (at least one token), the candidates, the edges among them."""

    prompt: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    edges: tuple[Edge, ...] = ()

    @property
    def shared_tokens(self) -> int:
        """Tokens that the shared layout computes: P - 1 plus every candidate's length."""
        return len(self.prompt) - 1 + sum(map(len, self.candidates))


@dataclass(frozen=True)
class Row:
    """What one forward pass takes, and where each candidate's labels are.

    `input_ids`, `positions`: [lines, length]. `mask`: bool [1, 1, length, length] (True = attend) for the shared
    layout, or [lines, length] (1 = token) for the unshared one. `where`: [labels], index into the flattened hidden
    states; `labels`: [labels]; `owner`: [labels], the candidate (counted over the row) that a label belongs to;
    `lengths`: [candidates] tokens; `groups`: the groups in the order of their candidates.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    where: torch.Tensor
    labels: torch.Tensor
    owner: torch.Tensor
    lengths: torch.Tensor
    groups: tuple[TokenGroup, ...]

    def to(self, device: torch.device | str) -> Row:
        """The row with its tensors on `device`."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return Row(**moved, groups=self.groups)


def tokenize(tokenizer: Tokenizer, group: PreferenceGroup) -> TokenGroup:
    """The token ids of a group under the model's own chat template; answers end with the end-of-turn token."""
    return TokenGroup(
        tuple(encode_prompt(tokenizer, group.prompt, group.system)),
        tuple(tuple(encode_answer(tokenizer, c.text)) for c in group.candidates),
        group.edges,
    )


def fit(group: TokenGroup, max_length: int) -> TokenGroup | None:
    """The group without candidates that exceed `max_length` tokens with the prompt; None when nothing useful is left.

    Nothing is ever cut: half an answer is another answer.
    """
    keep = [i for i, c in enumerate(group.candidates) if c and len(group.prompt) + len(c) <= max_length]
    if len(keep) == len(group.candidates):
        return group
    new = {old: i for i, old in enumerate(keep)}
    edges = tuple(
        Edge(new[e.winner], new[e.loser], e.weight, e.p, e.source)
        for e in group.edges
        if e.winner in new and e.loser in new
    )
    if not keep or (group.edges and not edges):
        return None
    return TokenGroup(group.prompt, tuple(group.candidates[i] for i in keep), edges)


def pack(groups: Iterable[TokenGroup], row_tokens: int) -> list[list[TokenGroup]]:
    """Whole groups to rows of at most `row_tokens` tokens (first fit, longest first); a longer group is a row alone."""
    rows: list[tuple[int, list[TokenGroup]]] = []
    for group in sorted(groups, key=lambda g: -g.shared_tokens):
        for i, (used, row) in enumerate(rows):
            if used + group.shared_tokens <= row_tokens:
                row.append(group)
                rows[i] = (used + group.shared_tokens, row)
                break
        else:
            rows.append((group.shared_tokens, [group]))
    return [row for _, row in rows]


def shared_row(groups: Sequence[TokenGroup]) -> Row:
    """Lay groups out in one line in the shared layout described above."""
    ids: list[int] = []
    positions: list[int] = []
    of_group: list[int] = []
    segment: list[int] = []  # 0 for the prompt, 1.. for the candidates of the group
    where: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    lengths: list[int] = []
    for g, group in enumerate(groups):
        *head, last = group.prompt
        ids += head
        positions += range(len(head))
        of_group += [g] * len(head)
        segment += [0] * len(head)
        for s, candidate in enumerate(group.candidates, 1):
            where += range(len(ids), len(ids) + len(candidate))
            ids += [last, *candidate[:-1]]
            positions += range(len(head), len(head) + len(candidate))
            of_group += [g] * len(candidate)
            segment += [s] * len(candidate)
            labels += candidate
            owner += [len(lengths)] * len(candidate)
            lengths.append(len(candidate))
    return Row(
        torch.tensor([ids]), torch.tensor([positions]), _mask(of_group, segment),
        torch.tensor(where), torch.tensor(labels), torch.tensor(owner), torch.tensor(lengths), tuple(groups),
    )  # fmt: skip


def _mask(of_group: Sequence[int], segment: Sequence[int]) -> torch.Tensor:
    """[1, 1, length, length] bool: same group, not later, and the other token is prompt or of the same segment."""
    g, s = torch.tensor(of_group), torch.tensor(segment)
    same_group = g[:, None] == g[None, :]
    visible = (s[None, :] == 0) | (s[:, None] == s[None, :])
    causal = torch.ones(len(g), len(g), dtype=torch.bool).tril()
    return (same_group & visible & causal)[None, None]


def unshared_row(groups: Sequence[TokenGroup]) -> Row:
    """One right-padded line per candidate, prompt and all; each unique candidate is still computed once."""
    lines = [(g.prompt, c) for g in groups for c in g.candidates]
    width = max(len(p) + len(c) - 1 for p, c in lines)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    mask = torch.zeros(len(lines), width, dtype=torch.long)
    where: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    for i, (prompt, candidate) in enumerate(lines):
        tokens = [*prompt, *candidate[:-1]]
        ids[i, : len(tokens)] = torch.tensor(tokens)
        mask[i, : len(tokens)] = 1
        start = i * width + len(prompt) - 1
        where += range(start, start + len(candidate))
        labels += candidate
        owner += [i] * len(candidate)
    positions = torch.arange(width).expand(len(lines), -1)
    lengths = torch.tensor([len(c) for _, c in lines])
    return Row(
        ids,
        positions,
        mask,
        torch.tensor(where),
        torch.tensor(labels),
        torch.tensor(owner),
        lengths,
        tuple(groups),
    )
