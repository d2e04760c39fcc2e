"""Things a game keeps in memory, for prompts: the words, and the name a routine would carry."""

from __future__ import annotations

from hafs_snes.tasks.dsl import Draw

_THINGS = (
    "player state",
    "sword level",
    "magic meter",
    "room flags",
    "sprite timer",
    "camera speed",
    "enemy health",
    "menu cursor",
    "door flags",
    "item slot",
    "anim frame",
    "game mode",
    "room index",
    "arrow count",
    "sound queue",
    "tile index",
)


def thing(d: Draw) -> tuple[str, str]:
    """A drawn thing in words and as a name: ("sword level", "SwordLevel")."""
    words = d.choice(_THINGS)
    return words, words.title().replace(" ", "")
