"""Task packs for the Super Nintendo's processor: `asm` (routines) and `rom_hack` (patches of our own game).

Families live in modules by subject: bits, arithmetic, memory, control, loops, hardware, video, routines, buffers,
optimise and fix make up `asm`; patches, banks and analysis make up `rom_hack`, on the routines of game.py. dsl.py is
what they are written in.
"""

from __future__ import annotations

from dataclasses import replace

from hafs.tasks.pack import TaskPack
from hafs.types import Prompt
from hafs_snes.tasks import (  # noqa: F401  (importing a module adds its families)
    analysis,
    arithmetic,
    banks,
    bits,
    buffers,
    control,
    fix,
    hardware,
    loops,
    memory,
    optimise,
    patches,
    routines,
    video,
)
from hafs_snes.tasks.dsl import FAMILIES

__all__ = ["CONVENTION", "asm", "rom_hack", "with_convention"]

asm = TaskPack(
    "asm",
    FAMILIES["asm"],
    {
        "basic operations": 20,
        "memory access": 15,
        "control flow": 15,
        "hardware interaction": 20,
        "optimisation": 15,
        "complex routines": 15,
    },
)

rom_hack = TaskPack(
    "rom_hack",
    FAMILIES["rom_hack"],
    {
        "hook implementation": 20,
        "bank allocation": 20,
        "feature implementation": 20,
        "integration": 20,
        "vanilla analysis": 20,
    },
)

CONVENTION: dict[str, str] = {
    "routine": (
        "SNES 65816, asar syntax. Unless the request says otherwise, the routine is entered in native mode "
        "with 8-bit A, X and Y "
        "(M=1, X=1), decimal mode off, direct page $0000, and the data bank equal to the bank the code is "
        "in, so that $0000-$1FFF "
        "is WRAM, $2100-$43FF are the hardware registers, and labels in the code can be read with absolute "
        "addressing. Return with "
        "{returns}, with the stack, M, X, D, data bank and direct page as they were on entry. A, X, Y and "
        "the other flags may change "
        "unless stated. Write no memory other than what is asked for. Answer with one asm code block."
    ),
    "patch": (
        "Write an asar patch for a 1 MB LoROM SNES game. Vanilla code is shown with its addresses; change "
        "only those bytes of it that "
        "you have to. Banks $10-$1F are free space. The code runs in native mode with 8-bit A, X and Y, "
        "data bank $01 and direct page "
        "$0000. Write no memory other than what is asked for. Answer with one asm code block."
    ),
    "value": (
        "SNES 65816 code is shown with its addresses. It is entered in native mode with 8-bit A, X and Y, "
        "decimal mode off, data bank "
        "$01 and direct page $0000. End your answer with the number that is asked for, in hex with a $."
    ),
}
"""By kind of check: what a model that is not trained on these tasks has to know."""


def with_convention(prompt: Prompt) -> Prompt:
    """The same prompt with the conventions as its system text, for models not trained on these tasks."""
    text = CONVENTION[prompt.check["kind"]].format(returns=prompt.check["returns"].upper())
    return replace(prompt, system=text)
