"""How many tokens a row has, where the settings leave it open: what the memory there is has room for.

A result does not depend on it (but for rounding, and for dropout, whose masks are drawn by row). What was chosen is
part of what a run is, so a run that goes on keeps it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from hafs.config import TrainConfig
from hafs.errors import HafsError
from hafs.models.chat import TemplateRefuses
from hafs.training.checkpoints import RunDirectory
from hafs.training.estimate import RunEstimate
from hafs.training.packing import TokenGroup, fit, tokenize
from hafs.training.shapes import Shape
from hafs.types import PreferenceGroup

SIZES = {"cpu": (512, 256, 128, 64), "cuda": (16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64)}
"""Tokens of a row, the first that fits. On a processor no more than 512: larger ones hold more memory and are slower
there (docs/log.md, 2026-11-26)."""

SHARE = 0.85
"""Of the free memory that is planned for: the planner is some 15 % off, and other programs move."""

LONGEST = 64
"""Groups that a choice is made on, the longest ones: the largest row sets the peak."""


@dataclass(frozen=True)
class RowChoice:
    """The tokens of a row, and why, in words. `tight`: even this many are planned to take more than there is."""

    tokens: int
    why: str
    tight: bool = False


def available_memory(device: str) -> int:
    """Bytes that are free: on the CUDA device, or in main memory (all of it where the system does not say)."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) << 10 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose_rows(
    shape: Shape, config: TrainConfig, groups: Sequence[TokenGroup] | None, device: str, available: int
) -> RowChoice:
    """The largest rows whose peak is planned to fit in `available` bytes; the smallest where none does."""
    some = sorted(groups, key=lambda g: len(g.prompt) + sum(map(len, g.candidates)))[-LONGEST:] if groups else None
    size = peak = 0
    for size in SIZES[device]:
        peak = RunEstimate(shape, config.model_copy(update={"row_tokens": size}), some, device).peak
        if peak <= SHARE * available:
            break
    words = f"planned to take {peak / 1e9:.1f} of {available / 1e9:.1f} GB that are free"
    return RowChoice(size, words, peak > SHARE * available)


_Settings = TypeVar("_Settings", bound=TrainConfig)


def with_rows(
    config: _Settings, run: RunDirectory, path: Path, tokenizer: Any, groups: Sequence[PreferenceGroup], device: str
) -> tuple[_Settings, RowChoice | None]:
    """The settings with the tokens of a row chosen, where they leave that open, and the choice that was made now.

    A run that was begun keeps what it has. A model that cannot be planned gets the first of `SIZES` for a processor.
    """
    if config.row_tokens:
        return config, None
    recorded = run.recorded("row_tokens")
    if recorded is None:
        choice = _chosen(config, path, tokenizer, groups, device)
        return config.model_copy(update={"row_tokens": choice.tokens}), choice
    return config.model_copy(update={"row_tokens": int(recorded)}), None


def _chosen(
    config: TrainConfig, path: Path, tokenizer: Any, groups: Sequence[PreferenceGroup], device: str
) -> RowChoice:
    longest = sorted(groups, key=lambda g: len(g.prompt) + sum(len(c.text) for c in g.candidates))[-LONGEST:]
    some = []
    for group in longest:
        try:
            tokens = fit(tokenize(tokenizer, group, config.thinking), config.max_length)
        except (TemplateRefuses, HafsError):
            continue  # what cannot be trained on is refused where the data are read
        some += [tokens] if tokens is not None else []
    try:
        return choose_rows(Shape.read(path), config, some, device, available_memory(device))
    except Exception as e:  # an architecture that nobody has planned yet may raise anything
        return RowChoice(SIZES["cpu"][0], f"the model's memory could not be planned ({type(e).__name__}: {e})")
