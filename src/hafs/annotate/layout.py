"""The answers as text for a terminal: side by side when the width allows, each under its letter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len, chop_cells

from hafs.annotate.items import Card, Item
from hafs.annotate.visible import visible

INDENT = 4
"""The width of "[A] "; an answer's further lines stand under its first one."""

COLUMN = 30
"""The least width of a column."""

GAP = 2
LONGEST = 80
"""Lines of an answer that are shown at once; `v` shows all of it."""


def screen(item: Item, width: int) -> str:
    """The prompt and the cards of `item` for a terminal of `width` columns."""
    parts = [f"System: {visible(item.prompt.system)}"] if item.prompt.system else []
    parts.append(f"Prompt: {visible(item.prompt.shown)}")
    return "\n".join([*parts, "", cards(item.cards, width)])


def cards(shown: Sequence[Card], width: int) -> str:
    """The cards in as few rows as fit without a broken line, else one below the other with long lines broken."""
    blocks = [_block(card) for card in shown]
    widths = [max(map(cell_len, block)) for block in blocks]
    for columns in range(len(shown), 0, -1):
        if math.ceil(len(shown) / columns) * columns - len(shown) >= columns / 2 and columns > 1:
            continue  # a row that is half empty: fewer columns fill it
        across = [max(COLUMN, max(widths[c::columns]) + GAP) for c in range(columns - 1)]
        last = max(widths[columns - 1 :: columns])
        if columns == 1 or sum(across) + last <= width:
            break
    if columns == 1:
        return "\n\n".join("\n".join(_broken(block, width)) for block in blocks)
    rows = [blocks[i : i + columns] for i in range(0, len(blocks), columns)]
    return "\n\n".join("\n".join(_beside(row, across)) for row in rows)


def _block(card: Card) -> list[str]:
    """A card's lines with its letter before the first."""
    lines = (visible(card.text).rstrip() or "(an empty answer)").expandtabs(4).split("\n")
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"... {len(lines) - LONGEST} more lines: v {card.label} shows them"]
    mark = f"[{card.label}] "
    return [(mark if i == 0 else " " * INDENT) + line.rstrip() for i, line in enumerate(lines)]


def _beside(blocks: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Blocks of a row as lines; `widths` are those of all columns but the last."""
    lines = []
    for i in range(max(map(len, blocks))):
        cells = [block[i] if i < len(block) else "" for block in blocks]
        padded = [cell + " " * (w - cell_len(cell)) for cell, w in zip(cells, widths, strict=False)]
        lines.append("".join([*padded, *cells[len(padded) :]]).rstrip())
    return lines


def _broken(block: Sequence[str], width: int) -> list[str]:
    """Lines that are too long in pieces, the further ones indented like the answer."""
    room = max(20, width - INDENT)
    lines: list[str] = []
    for line in block:
        head, rest = line[:INDENT], line[INDENT:]
        pieces = chop_cells(rest[: LONGEST * room], room) or [""]
        lines += [(head if i == 0 else " " * INDENT) + piece for i, piece in enumerate(pieces)]
        if len(rest) > LONGEST * room:
            lines.append(" " * INDENT + f"... {len(rest) - LONGEST * room} more characters")
    return lines
