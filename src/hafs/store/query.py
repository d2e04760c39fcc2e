"""Conditions that the store's reading methods share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, any_, cast, exists, func, literal, select

from hafs.store import schema

Matching = str | Collection[str] | None
"""A filter: one value, a collection of values, or None for no filter."""


def matches(column: Any, value: Matching, dialect: str) -> list[ColumnElement[bool]]:
    """The condition that `column` is `value` or among its values; nothing when there is no filter.

    A collection goes to the database as one parameter, so it may hold any number of values.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [column == value]
    plain = cast(column, Text)
    values = [schema.escape_text(v) for v in value]
    if dialect == "postgresql":
        return [plain == any_(literal(values, ARRAY(Text)))]
    listed = func.json_each(json.dumps(values)).table_valued("value")
    return [column.in_(select(listed.c.value))]


def in_prompts(prompt_id: Any, split: Matching, family: Matching, dialect: str) -> list[ColumnElement[bool]]:
    """The condition that the prompt with `prompt_id` is of that split and family.

    It asks of each row instead of joining, so rows keep streaming in the order of their own index.
    """
    t = schema.prompts.c
    conditions = [*matches(t.split, split, dialect), *matches(t.family, family, dialect)]
    return [exists(select(1).where(t.id == prompt_id, *conditions))] if conditions else []


def by_scorer(scorer: str, version: str | None, arguments: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    """The condition that a score is by this scorer; version and arguments where they are given."""
    t = schema.scores.c
    conditions = [t.scorer == scorer]
    if version is not None:
        conditions.append(t.version == version)
    if arguments is not None:
        conditions.append(t.arguments == arguments)
    return conditions
