"""Preferences: rankings from scores, groups from rankings, and preference pairs in and out of files."""

from hafs.preferences.build import (
    BuildReport,
    Pairing,
    build_groups,
    group_from_edges,
    group_from_ranking,
    groups_from_answers,
)
from hafs.preferences.pairs import Preferences, from_pairs, read_preferences, to_pairs
from hafs.preferences.people import group_from_people
from hafs.preferences.ranking import rank, same_text
from hafs.preferences.schemes import SCHEMES, pair, spread
from hafs.preferences.split import split_groups

__all__ = [
    "SCHEMES",
    "BuildReport",
    "Pairing",
    "Preferences",
    "build_groups",
    "from_pairs",
    "group_from_edges",
    "group_from_people",
    "group_from_ranking",
    "groups_from_answers",
    "pair",
    "rank",
    "read_preferences",
    "same_text",
    "split_groups",
    "spread",
    "to_pairs",
]
