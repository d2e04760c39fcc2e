"""Write docs/cards.md: which models train on which card. `--check` fails when it is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from hafs.training.cards import table

PAGE = Path(__file__).parent / "cards.md"

HEAD = """# Which models train on which card

Made by `python docs/cards.py`; `hafs doctor --cards` prints the same, and `hafs doctor --device` the row of the card
that it sees. These are the planner's figures (`hafs train dpo --dry-run`, held against what a process takes in
`pytest tests/test_plan.py`); no card has measured this table.

Models have the sizes of Qwen2.5. An answer is as long with its prompt as the heading says; since a row is one answer
with its prompt (`--two-pass`), more answers take no more memory. LoRA of rank 32 on every linear layer. *yes* fits with
activations kept, *twice* with `--activation-checkpointing`, which computes them twice; then the GB at the peak. *no*
says what it would need. A card of 16 GB is taken as 16 · 10^9 bytes, of which the system keeps some.

"""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(table()).rstrip() + "\n"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made:
            sys.exit(f"{PAGE} is not what the code says: run `python docs/cards.py`")
    else:
        PAGE.write_text(made, encoding="utf-8")
