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
from dataclasses import dataclass, replace
from typing import Any

import torch

from hafs.models.chat import Tokenizer, encode_answer, encode_prompt
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

    `input_ids`, `positions`: [lines, length]. The shared layout has one line; `group` and `segment` [length] say for
    each token which group it is of and which segment (0 the prompt, 1.. the candidates), `spans` where each group
    lies. The unshared layout has `padding` [lines, length] (1 = token) instead. `where`: [labels], index into the
    flattened hidden states; `labels`: [labels]; `owner`: [labels], the candidate (counted over the row) that a label
    belongs to; `lengths`: [candidates] tokens; `groups`: the groups in the order of their candidates.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    where: torch.Tensor
    labels: torch.Tensor
    owner: torch.Tensor
    lengths: torch.Tensor
    groups: tuple[TokenGroup, ...]
    group: torch.Tensor | None = None
    segment: torch.Tensor | None = None
    spans: tuple[tuple[int, int], ...] = ()
    padding: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Row:
        """The row with its tensors on `device`."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)

    def sums(self, logps: torch.Tensor) -> torch.Tensor:
        """[candidates] log-probability of each candidate (nats), from those of its tokens [labels]."""
        return logps.new_zeros(len(self.lengths)).index_add(0, self.owner, logps)


def tokenize(tokenizer: Tokenizer, group: PreferenceGroup) -> TokenGroup:
    """The token ids of a group under the model's own chat template; answers end as turns do, unless they were cut.

    Raises TemplateRefuses where the template takes no such conversation.
    """
    return TokenGroup(
        tuple(encode_prompt(tokenizer, group.prompt, group.system, group.context, group.tools)),
        tuple(tuple(encode_answer(tokenizer, c.text, end=not c.cut)) for c in group.candidates),
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
        replace(e, winner=new[e.winner], loser=new[e.loser]) for e in group.edges if e.winner in new and e.loser in new
    )
    if not keep or (group.edges and not edges):
        return None
    return TokenGroup(group.prompt, tuple(group.candidates[i] for i in keep), edges)


def pieces(group: TokenGroup, row_tokens: int) -> list[list[TokenGroup]]:
    """A group as rows of at most `row_tokens`: each holds the prompt and the next candidates, at least one.

    The pieces' candidates, one after the other, are the group's; edges stay with the whole group.
    """
    rows: list[list[TokenGroup]] = []
    mine: list[tuple[int, ...]] = []
    for candidate in group.candidates:
        if mine and TokenGroup(group.prompt, (*mine, candidate)).shared_tokens > row_tokens:
            rows.append([TokenGroup(group.prompt, tuple(mine))])
            mine = []
        mine.append(candidate)
    return [*rows, [TokenGroup(group.prompt, tuple(mine))]]


def share(rows: Sequence[list[list[TokenGroup]]], processes: int) -> list[list[int]]:
    """Which of the bundles of `rows` each process computes: the next largest goes to who has least to do.

    A bundle is the rows of one group that was split, or one row of whole groups; it stays together.
    """
    size = [sum(g.shared_tokens for row in bundle for g in row) for bundle in rows]
    load, mine = [0] * processes, [list[int]() for _ in range(processes)]
    for i in sorted(range(len(rows)), key=lambda i: -size[i]):
        least = load.index(min(load))
        load[least] += size[i]
        mine[least].append(i)
    return [sorted(m) for m in mine]


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


@dataclass(frozen=True)
class Piece:
    """A row to compute: its groups (or parts of one), the whole groups that it completes, its number in the step.

    A piece that does not `count` keeps a process with less to do in step with the others; its loss is zero.
    """

    groups: tuple[TokenGroup, ...]
    whole: tuple[TokenGroup, ...]
    index: int
    counts: bool = True

    @property
    def tokens(self) -> int:
        """Tokens of the shared layout."""
        return sum(g.shared_tokens for g in self.groups)


class StepRows:
    """The rows of a step and who computes them: the same for every process, and for any number of them the same rows.

    Whole groups go to one process each; every process computes equally many rows. With `two_pass` a group longer than
    a row is split (`split` says whether one was).
    """

    def __init__(
        self, groups: Sequence[TokenGroup], row_tokens: int, two_pass: bool = False, processes: int = 1
    ) -> None:
        bundles: list[list[list[TokenGroup]]] = []
        wholes: list[list[TokenGroup]] = []
        for members in pack(groups, row_tokens):
            parts = pieces(members[0], row_tokens) if two_pass and len(members) == 1 else []
            parts = parts if len(parts) > 1 else [members]
            bundles.append(parts)
            wholes.append(members)
        self.split = any(len(b) > 1 for b in bundles)
        self._rows: list[list[Piece]] = [[] for _ in bundles]
        index = 0
        for i, (bundle, complete) in enumerate(zip(bundles, wholes, strict=True)):
            for j, part in enumerate(bundle):
                done = tuple(complete) if j + 1 == len(bundle) else ()
                self._rows[i].append(Piece(tuple(part), done, index))
                index += 1
        self._shares = share(bundles, processes)
        self._most = max((sum(len(bundles[i]) for i in mine) for mine in self._shares), default=0)

    def of(self, process: int) -> list[Piece]:
        """The pieces of one process in order, filled up to the number that the busiest one has."""
        mine = [piece for i in self._shares[process] for piece in self._rows[i]]
        if len(mine) < self._most:
            least = min((p for row in self._rows for p in row), key=lambda p: p.tokens)
            mine += [replace(least, counts=False)] * (self._most - len(mine))
        return mine


def shared_row(groups: Sequence[TokenGroup]) -> Row:
    """Lay groups out in one line in the shared layout described above."""
    ids: list[int] = []
    positions: list[int] = []
    of_group: list[int] = []
    segment: list[int] = []
    where: list[int] = []
    spans: list[tuple[int, int]] = []
    for g, group in enumerate(groups):
        *head, last = group.prompt
        first = len(ids)
        ids += head
        positions += range(len(head))
        segment += [0] * len(head)
        for s, candidate in enumerate(group.candidates, 1):
            where += range(len(ids), len(ids) + len(candidate))
            ids += [last, *candidate[:-1]]
            positions += range(len(head), len(head) + len(candidate))
            segment += [s] * len(candidate)
        of_group += [g] * (len(ids) - first)
        spans.append((first, len(ids)))
    return Row(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.tensor(where),
        *_labels(groups),
        tuple(groups),
        group=torch.tensor(of_group),
        segment=torch.tensor(segment),
        spans=tuple(spans),
    )


def unshared_row(groups: Sequence[TokenGroup]) -> Row:
    """One right-padded line per candidate, prompt and all; each unique candidate is still computed once."""
    lines = [(g.prompt, c) for g in groups for c in g.candidates]
    width = max(len(p) + len(c) - 1 for p, c in lines)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    padding = torch.zeros(len(lines), width, dtype=torch.long)
    where: list[int] = []
    for i, (prompt, candidate) in enumerate(lines):
        tokens = [*prompt, *candidate[:-1]]
        ids[i, : len(tokens)] = torch.tensor(tokens)
        padding[i, : len(tokens)] = 1
        start = i * width + len(prompt) - 1
        where += range(start, start + len(candidate))
    positions = torch.arange(width).expand(len(lines), -1)
    return Row(ids, positions, torch.tensor(where), *_labels(groups), tuple(groups), padding=padding)


def _labels(groups: Sequence[TokenGroup]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(labels, owner, lengths) of all candidates in order; both layouts give them alike."""
    candidates = [c for g in groups for c in g.candidates]
    lengths = torch.tensor([len(c) for c in candidates])
    labels = torch.tensor([token for c in candidates for token in c])
    return labels, torch.repeat_interleave(torch.arange(len(candidates)), lengths), lengths
