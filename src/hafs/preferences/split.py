"""Which groups validate: by prompt, never by pair, since all pairs of one prompt hang together."""

from __future__ import annotations

from collections.abc import Iterable

from hafs.errors import DataError
from hafs.types import PreferenceGroup, content_id


def split_groups(
    groups: Iterable[PreferenceGroup], share: float = 0.1, seed: int = 0
) -> tuple[list[PreferenceGroup], list[PreferenceGroup]]:
    """Split into training and validation groups; all groups of a prompt go to the same side.

    Groups that are of the validation split stay there. Where none is, `share` (0 to 1) of the prompts
    validates, rounded to at least one and at most all but one when there are two or more; which ones depends
    on their text and `seed`, not on their order. A `share` of 0 keeps all for training.

    Raises DataError when a group is of the test split.
    """
    groups = list(groups)
    tests = sum(group.split == "test" for group in groups)
    if tests:
        raise DataError(f"{tests} of {len(groups)} groups are of the test split", "train on other prompts")
    chosen = {_key(group, 0) for group in groups if group.split == "validation"}
    if not chosen and share > 0:
        keys = sorted({_key(group, seed) for group in groups})
        chosen = set(keys[: min(max(1, round(share * len(keys))), len(keys) - 1)])
    else:
        seed = 0
    train = [group for group in groups if _key(group, seed) not in chosen]
    return train, [group for group in groups if _key(group, seed) in chosen]


def _key(group: PreferenceGroup, seed: int) -> str:
    """A pseudo-random but fixed place of the group's prompt among all prompts."""
    more = [group.context] if group.context else []
    return content_id("split", seed, group.system, group.prompt, *more)
