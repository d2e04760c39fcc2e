"""The token tree of a row: every distinct prefix of its sequences is one node, laid out in preorder.

A node is a token after all the tokens above it, so its depth is its position in each sequence that it is part of. In
preorder a node's subtree is the stretch from its own place to its `end`, and one rule says who sees whom: the token at
q sees the one at k when k <= q < end[k], which is to say when k is q itself or above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CALL = 1500
"""What one more call of attention costs, in pairs of a query and a key: reckoned from some 50 µs, not measured."""


class Sequences(Protocol):
    """A prompt and what may follow it, in token ids."""

    @property
    def prompt(self) -> tuple[int, ...]: ...

    @property
    def candidates(self) -> tuple[tuple[int, ...], ...]: ...


@dataclass(frozen=True)
class Layout:
    """A tree in preorder: `tokens`, `depths`, `ends` [places], and the place of every node (the root has none, -1)."""

    tokens: list[int]
    depths: list[int]
    ends: list[int]
    places: list[int]


@dataclass
class Tree:
    """Nodes by parent and token; the root, 0, is the empty prefix. A sequence's last token is a label, not a node.

    Of a tree that is not `shared` every sequence is a branch of its own: so much a model takes that shares nothing.
    """

    shared: bool = True
    nodes: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Tokens to compute."""
        return len(self.nodes)

    def missing(self, group: Sequences) -> dict[tuple[int, int], int]:
        """The nodes that `group` would add."""
        new: dict[tuple[int, int], int] = {}
        last = len(self.nodes)

        def walk(node: int, tokens: Iterable[int]) -> int:
            nonlocal last
            for token in tokens:
                known = self.nodes.get((node, token)) or new.get((node, token))
                if known is None:
                    last += 1
                    known = new[node, token] = last
                node = known
            return node

        start = walk(0, group.prompt) if self.shared else 0
        for candidate in group.candidates:
            if self.shared:
                walk(start, candidate[:-1])
            else:
                walk(-last - 1, (*group.prompt, *candidate[:-1]))
        return new

    def path(self, node: int, tokens: Iterable[int]) -> list[int]:
        """`node` and those that one token after the other leads to."""
        found = [node]
        for token in tokens:
            found.append(self.nodes[found[-1], token])
        return found

    def layout(self) -> Layout:
        """The nodes in preorder, children in the order in which they came."""
        count = len(self.nodes) + 1
        parents, tokens = [0] * count, [0] * count
        for (parent, token), node in self.nodes.items():
            parents[node], tokens[node] = parent, token
        sizes = [1] * count
        for node in range(count - 1, 0, -1):  # a parent is older than its children
            sizes[parents[node]] += sizes[node]
        places, depths, free = [-1] * count, [-1] * count, [0] * count
        for node in range(1, count):
            parent = parents[node]
            places[node], depths[node] = free[parent], depths[parent] + 1
            free[parent] += sizes[node]
            free[node] = places[node] + 1
        laid = Layout([0] * (count - 1), [0] * (count - 1), [0] * (count - 1), places)
        for node in range(1, count):
            place = places[node]
            laid.tokens[place], laid.depths[place], laid.ends[place] = tokens[node], depths[node], place + sizes[node]
        return laid


def tree_of(groups: Iterable[Sequences], shared: bool = True) -> Tree:
    """The tree of all sequences of `groups`."""
    tree = Tree(shared)
    for group in groups:
        tree.nodes.update(tree.missing(group))
    return tree


def blocks(depths: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]]:
    """The row in stretches [first, last) for each of which attention runs by itself, at the least cost.

    A stretch is a branch (its keys are those above it and its own, so nothing between branches is computed), or
    subtrees side by side, where these are so small that one call costs less than several.
    """
    cost: dict[int, float] = {}  # of the subtree that begins at a place, and how it is cut
    cut: dict[int, list[tuple[int, int]]] = {}

    def together(first: int, last: int) -> float:
        return CALL + (last - first) * (depths[first] + last - first)

    def beside(first: int, last: int) -> tuple[float, list[tuple[int, int]]]:
        """The subtrees that lie side by side in [first, last)."""
        if first == last:
            return 0.0, []
        apart, parts, at = 0.0, list[tuple[int, int]](), first
        while at < last:
            apart += cost.pop(at)
            parts += cut.pop(at)
            at = ends[at]
        whole = together(first, last)
        return (whole, [(first, last)]) if whole < apart else (apart, parts)

    for first, fork in reversed(_branches(ends)):
        below, parts = beside(fork, ends[first])
        apart, whole = together(first, fork) + below, together(first, ends[first])
        cost[first], cut[first] = (
            (whole, [(first, ends[first])]) if whole <= apart else (apart, [(first, fork), *parts])
        )
    return beside(0, len(ends))[1]


def _branches(ends: Sequence[int]) -> list[tuple[int, int]]:
    """The branches [first, last) in order: from one fork (or the row's beginning) to the next fork or leaf."""
    found, forests = [], [(0, len(ends))]
    while forests:
        at, last = forests.pop()
        while at < last:
            fork = at + 1
            while fork < ends[at] and ends[fork] == ends[at]:
                fork += 1
            found.append((at, fork))
            forests.append((fork, ends[at]))
            at = ends[at]
    return sorted(found)
