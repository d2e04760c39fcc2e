"""Settings by name; apart from the settings, so that a help page loads nothing."""

from __future__ import annotations

from typing import Any

GUIDE: dict[str, dict[str, Any]] = {
    "generate": {"temperature": 0.8, "greedy": False},
    "preferences": {"scheme": "guide", "wrong_over_wrong": True},
    "dpo": {
        "beta": 0.1,
        "learning_rate": 5e-6,
        "num_epochs": 1,
        "nll_weight": 0.0,
        "batch_size": 2,
        "gradient_accumulation_steps": 8,
    },
}
"""The guide's defaults by section: sampling, pairing (wrong answers with each other too) and DPO."""

PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "gentle": (
        {"beta": 0.1, "learning_rate": 5e-6, "num_epochs": 1},
        "the safe start: small steps, whatever the data; take it first and look at the comparison",
    ),
    "moderate": (
        {"beta": 0.3, "learning_rate": 2e-5, "num_epochs": 1},
        "when gentle moved too little to be told from chance and no answer got worse; for clean data from a checker",
    ),
    "aggressive": (
        {"beta": 0.5, "learning_rate": 1e-4, "num_epochs": 2},
        "for a small model with a small adapter and a few hundred groups; may overfit, so only with --validate",
    ),
    "guide": (GUIDE["dpo"], "the guide's defaults, meant for a large model and thousands of groups"),
}
"""Strength of preference training: the guide's betas with learning rates for LoRA, and when to take each."""
