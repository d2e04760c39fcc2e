"""Groups to rows: whose tokens one forward pass takes, and where the labels of each candidate are.

A row is the token tree of its groups' sequences (`tree.py`): the prompt of a group, and whatever else its sequences
have in common with each other or with those of other groups, is computed once. A *choice* is a node and a token that
follows it; candidates that say the same after the same share it, so a log-probability exists once, too, and each
candidate's labels are gathered from them. Dropout's mask is one a node: sequences that share a prefix share its mask.

The unshared layout (one padded line per candidate, the prompt repeated) is the fallback for models whose layers do
not take such a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hafs.errors import UsageError
from hafs.models.chat import Thinking, Tokenizer, encode_answer, encode_prompt
from hafs.training.tree import Tree, blocks, tree_of
from hafs.types import CandidateLabel, Edge, PreferenceGroup, unbeaten


@dataclass(frozen=True)
class TokenGroup:
    """A preference group in token ids: the prompt (at least one token), the candidates, the edges among them.

    `labels` has each candidate's own label, or None; it is empty where no candidate has one.
    """

    prompt: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    edges: tuple[Edge, ...] = ()
    labels: tuple[CandidateLabel | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UsageError("a prompt without a single token has no answer to predict", "give it a text or a template")

    @property
    def winners(self) -> list[int]:
        """The candidates that may be taught as answers: no edge beats them and their label does not say bad."""
        wrong = {i for i, label in enumerate(self.labels) if label is not None and not label.good}
        return [i for i in unbeaten(self.edges) if i not in wrong]

    @property
    def pair_tokens(self) -> int:
        """Tokens that training takes pair by pair, the prompt and both answers for every edge."""
        return sum(len(self.prompt) + len(self.candidates[i]) - 1 for e in self.edges for i in (e.winner, e.loser))


@dataclass(frozen=True)
class PackedRow:
    """What one forward pass takes, and where each candidate's labels are.

    `input_ids`, `positions`: [lines, length]. The shared layout has one line; `ends` [length] and `blocks` are those of
    its tree (`tree.py`). The unshared layout has `padding` [lines, length] (1 = token) instead. `where` [choices] are
    indices into the flattened hidden states, `chosen` [choices] the tokens that follow; `choice` [labels] is the choice
    that each label of each candidate is; `owner` [labels] the candidate (counted over the row) that a label belongs to;
    `lengths` [candidates] tokens; `groups` the groups in the order of their candidates; `host` the same row before it
    went to a device.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    where: torch.Tensor
    chosen: torch.Tensor
    choice: torch.Tensor
    owner: torch.Tensor
    lengths: torch.Tensor
    groups: tuple[TokenGroup, ...]
    ends: torch.Tensor | None = None
    blocks: tuple[tuple[int, int], ...] = ()
    padding: torch.Tensor | None = None
    host: PackedRow | None = None

    @property
    def on_host(self) -> PackedRow:
        """The row as it was before it went to a device: reading it waits for nothing."""
        return self.host or self

    @property
    def labels(self) -> torch.Tensor:
        """[labels] the tokens of all candidates, one candidate after the other."""
        return self.chosen[self.choice]

    def to(self, device: torch.device | str) -> PackedRow:
        """The row with its tensors on `device`."""
        device = torch.device(device)
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        moved: dict[str, Any] = {k: to_device(v, device) for k, v in tensors.items()}
        return replace(self, **moved, host=None if device == self.input_ids.device else self.on_host)

    def sums(self, logps: torch.Tensor) -> torch.Tensor:
        """[candidates] log-probability of each candidate (nats), from those of its tokens [labels]."""
        return logps.new_zeros(len(self.lengths)).index_add(0, self.owner, logps)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`; a GPU fetches it by itself, from memory that the system does not move."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def tokenize(tokenizer: Tokenizer, group: PreferenceGroup, thinking: Thinking = "keep") -> TokenGroup:
    """The token ids of a group under the model's own chat template; answers end as turns do, unless they were cut.

    Raises TemplateRefuses where the template takes no such conversation.
    """
    return TokenGroup(
        tuple(encode_prompt(tokenizer, group.prompt, group.system, group.context, group.tools, thinking)),
        tuple(tuple(encode_answer(tokenizer, c.text, not c.cut, thinking, c.thought)) for c in group.candidates),
        group.edges,
        tuple(c.label for c in group.candidates) if any(c.label for c in group.candidates) else (),
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
    labels = tuple(group.labels[i] for i in keep) if group.labels else ()
    if not keep or (group.edges and not edges and not any(labels)):
        return None
    return TokenGroup(group.prompt, tuple(group.candidates[i] for i in keep), edges, labels)


def tokens_of(groups: Iterable[TokenGroup], shared: bool = True) -> int:
    """Tokens that a row of `groups` has in the shared layout, or in the other one (without its padding)."""
    return len(tree_of(groups, shared))


def pieces(group: TokenGroup, row_tokens: int, shared: bool = True) -> list[list[TokenGroup]]:
    """A group as rows of at most `row_tokens`: each holds the prompt and the next candidates, at least one.

    The pieces' candidates, one after the other, are the group's; edges stay with the whole group.
    """
    rows: list[list[TokenGroup]] = []
    mine: list[tuple[int, ...]] = []
    tree = Tree(shared)
    for candidate in group.candidates:
        alone = TokenGroup(group.prompt, (candidate,))
        new = tree.missing(alone)
        if mine and len(tree) + len(new) > row_tokens:
            rows.append([TokenGroup(group.prompt, tuple(mine))])
            mine, tree = [], Tree(shared)
            new = tree.missing(alone)
        mine.append(candidate)
        tree.nodes.update(new)
    return [*rows, [TokenGroup(group.prompt, tuple(mine))]]


def share(sizes: Sequence[int], processes: int) -> list[list[int]]:
    """Which of the bundles of so many tokens each process computes: the next largest goes to who has least to do.

    A bundle is the rows of one group that was split, or one row of whole groups; it stays together.
    """
    load, mine = [0] * processes, [list[int]() for _ in range(processes)]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = load.index(min(load))
        load[least] += sizes[i]
        mine[least].append(i)
    return [sorted(m) for m in mine]


OPEN = 8
"""Rows that a group is tried in: those begun last, since prompts that begin alike come one after the other."""


def pack(groups: Iterable[TokenGroup], row_tokens: int, shared: bool = True) -> list[list[TokenGroup]]:
    """Whole groups to rows of at most `row_tokens` tokens; a longer group is a row alone.

    Groups come in the order of their prompts' tokens, and each goes where it adds the fewest. The rows depend on what
    the groups are, not on the order they are given in.
    """
    rows: list[tuple[Tree, list[TokenGroup]]] = []
    for group in sorted(groups, key=lambda g: (g.prompt, g.candidates)):
        room = [(tree.missing(group), tree, members) for tree, members in rows[-OPEN:]]
        room = [r for r in room if len(r[0]) + len(r[1]) <= row_tokens]
        if room:
            new, tree, members = min(room, key=lambda r: len(r[0]))
        else:
            tree, members = Tree(shared), []
            new = tree.missing(group)
            rows.append((tree, members))
        tree.nodes.update(new)
        members.append(group)
    return [members for _, members in rows]


@dataclass(frozen=True)
class Piece:
    """A row to compute: its groups (or parts of one), the whole groups that it completes, its number in the step.

    `tokens` are those of the layout, without padding. A piece that does not `count` keeps a process with less to do in
    step with the others; its loss is zero.
    """

    groups: tuple[TokenGroup, ...]
    whole: tuple[TokenGroup, ...]
    index: int
    tokens: int
    counts: bool = True


class StepRows:
    """The rows of a step and who computes them: the same for every process, and for any number of them the same rows.

    Whole groups go to one process each; every process computes equally many rows. With `two_pass` a group longer than
    a row is split (`split` says whether one was). `shared` is the layout that the model takes.
    """

    def __init__(
        self,
        groups: Sequence[TokenGroup],
        row_tokens: int,
        two_pass: bool = False,
        processes: int = 1,
        shared: bool = True,
    ) -> None:
        self._rows: list[list[Piece]] = []
        self.split = False
        index = 0
        for members in pack(groups, row_tokens, shared):
            parts = pieces(members[0], row_tokens, shared) if two_pass and len(members) == 1 else [members]
            self.split |= len(parts) > 1
            parts = parts if len(parts) > 1 else [members]
            bundle = []
            for part in parts:
                done = tuple(members) if part is parts[-1] else ()
                bundle.append(Piece(tuple(part), done, index, tokens_of(part, shared)))
                index += 1
            self._rows.append(bundle)
        self._shares = share([sum(p.tokens for p in bundle) for bundle in self._rows], processes)
        self._most = max((sum(len(self._rows[i]) for i in mine) for mine in self._shares), default=0)

    def of(self, process: int) -> list[Piece]:
        """The pieces of one process in order, filled up to the number that the busiest one has."""
        mine = [piece for i in self._shares[process] for piece in self._rows[i]]
        if len(mine) < self._most:
            least = min((p for row in self._rows for p in row), key=lambda p: p.tokens)
            mine += [replace(least, counts=False)] * (self._most - len(mine))
        return mine


def shared_row(groups: Sequence[TokenGroup]) -> PackedRow:
    """The token tree of `groups` in one line."""
    tree = tree_of(groups)
    laid = tree.layout()
    choices: dict[tuple[int, int], int] = {}
    choice: list[int] = []
    for group in groups:
        start = tree.path(0, group.prompt)[-1]
        for candidate in group.candidates:
            for node, token in zip(tree.path(start, candidate[:-1]), candidate, strict=False):
                choice.append(choices.setdefault((laid.places[node], token), len(choices)))
    return PackedRow(
        torch.tensor([laid.tokens]),
        torch.tensor([laid.depths]),
        torch.tensor([place for place, _ in choices]),
        torch.tensor([token for _, token in choices]),
        torch.tensor(choice),
        *_owners(groups),
        tuple(groups),
        ends=torch.tensor(laid.ends),
        blocks=tuple(blocks(laid.depths, laid.ends)),
    )


def unshared_row(groups: Sequence[TokenGroup]) -> PackedRow:
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
    labels = torch.tensor([token for _, c in lines for token in c])
    each = torch.arange(len(labels))
    return PackedRow(
        ids, positions, torch.tensor(where), labels, each, *_owners(groups), tuple(groups), padding=padding
    )


def _owners(groups: Sequence[TokenGroup]) -> tuple[torch.Tensor, torch.Tensor]:
    """(owner, lengths) of all candidates in order; both layouts give them alike."""
    lengths = torch.tensor([len(c) for g in groups for c in g.candidates])
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths), lengths
