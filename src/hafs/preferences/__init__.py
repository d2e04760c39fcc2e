"""Preferences: rankings from scores, groups from rankings, and preference pairs in and out of files."""

from hafs.preferences.build import (
    BuildReport,
    Pairing,
    build_groups,
    group_from_edges,
    group_from_ranking,
    groups_from_answers,
    groups_of_scorer,
)
from hafs.preferences.formats import FORMATS, read_preferences, write_preferences
from hafs.preferences.labels import group_from_labels, group_from_people, people_edges, people_said
from hafs.preferences.mix import Mixed, Mixing, mix
from hafs.preferences.pairs import Preferences, from_pairs, to_pairs
from hafs.preferences.ranking import rank, same_text
from hafs.preferences.schemes import SCHEMES, pair, spread
from hafs.preferences.stats import Stats

__all__ = [
    "FORMATS",
    "SCHEMES",
    "BuildReport",
    "Mixed",
    "Mixing",
    "Pairing",
    "Preferences",
    "Stats",
    "build_groups",
    "from_pairs",
    "group_from_edges",
    "group_from_labels",
    "group_from_people",
    "group_from_ranking",
    "groups_from_answers",
    "groups_of_scorer",
    "mix",
    "pair",
    "people_edges",
    "people_said",
    "rank",
    "read_preferences",
    "same_text",
    "spread",
    "to_pairs",
    "write_preferences",
]
