"""The workspace database: its tables, the numbered migrations that make them, and how values are written.

The tables below are what queries are built from; the migrations are plain SQL, so that what version 1 was
never changes when a later version adds to it. Both run unchanged on SQLite and on PostgreSQL. Columns other
than `id` and `added` stand in the order of the dataclass's fields, so a row becomes an object by position.

Two types need care. Lists and mappings are JSON text in one canonical form, so they can be compared for
equality. Text that a model wrote may hold any character; NUL (which PostgreSQL refuses) and lone surrogates
(which neither database can encode) are escaped on the way in and restored on the way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    inspect,
    text,
)

from hafs.errors import HafsError
from hafs.types import Edge, GroupCandidate, Reference

_ESCAPE = "\x1a"
_UNSAFE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile(_ESCAPE + "([0-9a-f]{4})")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def escape_text(value: str) -> str:
    """`value` with the characters that a database refuses written as U+001A and four hex digits."""
    if value.isascii() and "\x00" not in value and _ESCAPE not in value:  # the search below looks at every character
        return value
    return _UNSAFE.sub(lambda m: f"{_ESCAPE}{ord(m[0]):04x}", value)


def unescape_text(value: str) -> str:
    """The inverse of `escape_text`."""
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), value) if _ESCAPE in value else value


class AnyText(TypeDecorator[str]):
    """Text of any characters, NUL and lone surrogates included."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescape_text(value)


class Json(TypeDecorator[Any]):
    """A value as canonical JSON text; `dump` prepares it, `load` makes the field's type of it."""

    impl = Text
    cache_ok = True

    def __init__(self, load: Callable[[Any], Any] | None = None, dump: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.load = load
        self.dump = dump

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        plain = self.dump(value) if self.dump else value
        return _ENCODER.encode(plain)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        parsed = json.loads(value)
        return self.load(parsed) if self.load else parsed


class Encoded(Json):
    """A value that comes as canonical JSON text, and is kept as `Json` writes it: in ASCII."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\x7f" not in value):
            return value
        return _NOT_ASCII.sub(lambda m: json.dumps(m[0])[1:-1], value)


_NOT_ASCII = re.compile(r"[^ -~]")


def _tiers(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(tier) for tier in rows)


def references(rows: Sequence[dict[str, Any]]) -> tuple[Reference, ...]:
    """A prompt's references of what its column holds."""
    return tuple(Reference(**row) for row in rows)


def _group_candidates(rows: Sequence[dict[str, Any]]) -> tuple[GroupCandidate, ...]:
    return tuple(GroupCandidate.from_dict(row) for row in rows)


def _edges(rows: Sequence[dict[str, Any]]) -> tuple[Edge, ...]:
    return tuple(Edge(**row) for row in rows)


def _dicts(items: Sequence[Any]) -> list[dict[str, Any]]:
    return [vars(item) for item in items]  # these dataclasses are flat: the same as asdict, much faster


_metadata = MetaData()


def _table(name: str, *columns: Column[Any], later: Sequence[Column[Any]] = ()) -> Table:
    """A table of content-addressed rows: an id, a dataclass's fields in order, when it was added; `later` are the
    fields that a later version has added."""
    return Table(name, _metadata, Column("id", String, primary_key=True), *columns, Column("added", Double), *later)


prompts = _table(
    "prompts",
    Column("text", AnyText),
    Column("system", AnyText),
    Column("family", AnyText),
    Column("category", AnyText),
    Column("split", AnyText),
    Column("source", AnyText),
    Column("checker", AnyText),
    Column("check_data", Json),
    Column("reference_texts", Json(references, _dicts)),
    Column("tags", Json(tuple)),
    later=(Column("context", Json(tuple)), Column("tools", Json(tuple))),
)

candidates = _table(
    "candidates",
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("text", AnyText),
    Column("model", AnyText),
    Column("model_name", AnyText),
    Column("seed", BigInteger),
    Column("idx", BigInteger),
    Column("sampling", Json),
    Column("logprob", Double),
    Column("n_tokens", BigInteger),
    Column("finish", AnyText),
    Column("source", AnyText),
    later=(Column("thought", AnyText),),
)

candidate_tokens = Table(
    "candidate_tokens",
    _metadata,
    Column("candidate_id", String, ForeignKey("candidates.id"), primary_key=True),
    Column("token_ids", Json(tuple)),
)
"""The exact ids that were sampled, apart from the candidates: few readers want them, and they are long."""

scores = _table(
    "scores",
    Column("candidate_id", String, ForeignKey("candidates.id")),
    Column("scorer", AnyText),
    Column("version", AnyText),
    Column("arguments", Json),
    Column("value", Double),
    Column("reason", AnyText),
    Column("sort_key", Json(tuple)),
    Column("tolerance", Double),
    Column("passed", Boolean),
    Column("cause", AnyText),
    Column("details", Json),
)

rankings = _table(
    "rankings",
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("tiers", Json(_tiers)),
    Column("source", AnyText),
    Column("details", Json),
)

verdicts = _table(
    "verdicts",
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("judge", AnyText),
    Column("protocol", AnyText),
    Column("shown", Json(tuple)),
    Column("outcome", AnyText),
    Column("tiers", Json(_tiers)),
    Column("strength", Double),
    Column("value", Double),
    Column("shuffle", BigInteger),
    Column("reason", AnyText),
    Column("details", Json),
)

annotated = _table(
    "annotations",
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("annotator", AnyText),
    Column("shown", Json(tuple)),
    Column("answer", AnyText),
    Column("tiers", Json(_tiers)),
    Column("mode", AnyText),
    Column("value", Double),
    Column("confidence", AnyText),
    Column("seconds", Double),
    Column("submitted", Double),
    Column("serial", BigInteger),
    Column("note", AnyText),
    Column("undone", Double),
    Column("details", Json),
)

leases = _table(
    "leases",
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("annotator", AnyText),
    Column("mode", AnyText),
    Column("shown", Json(tuple)),
    Column("serial", BigInteger),
    Column("granted", Double),
    Column("expires", Double),
    Column("draft", Json),
    Column("previous", Json),
    Column("annotation", String),
    Column("released", Double),
    Column("details", Json),
)

groups = _table(
    "preference_groups",
    Column("prompt", AnyText),
    Column("candidates", Encoded(_group_candidates)),
    Column("edges", Encoded(_edges)),
    Column("system", AnyText),
    Column("prompt_id", AnyText),
    Column("family", AnyText),
    Column("split", AnyText),
    later=(Column("context", Json(tuple)), Column("tools", Json(tuple))),
)

runs = _table(
    "runs",
    Column("kind", AnyText),
    Column("config", Json),
    Column("inputs", Json),
    Column("status", AnyText),
    Column("outputs", Json),
    Column("metrics", Json),
    Column("model", AnyText),
    Column("started", Double),
    Column("finished", Double),
)

run_groups = Table(
    "run_groups",
    _metadata,
    Column("run_id", String, ForeignKey("runs.id"), primary_key=True),
    Column("group_id", String, ForeignKey("preference_groups.id"), primary_key=True),
)

judge_calls = Table(
    "judge_calls",
    _metadata,
    Column("id", String, primary_key=True),
    Column("key", String),
    Column("run_id", String),
    Column("judge", AnyText),
    Column("endpoint", AnyText),
    Column("protocol", AnyText),
    Column("prompt_id", String),
    Column("attempt", BigInteger),
    Column("status", String),
    Column("reason", AnyText),
    Column("chars", BigInteger),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost", Double),
    Column("seconds", Double),
    Column("started", Double),
    Column("batch_id", String),
    Column("raw", AnyText),
)

judge_batches = Table(
    "judge_batches",
    _metadata,
    Column("id", String, primary_key=True),
    Column("run_id", String),
    Column("judge", AnyText),
    Column("endpoint", AnyText),
    Column("remote_id", AnyText),
    Column("status", String),
    Column("asks", Json),
    Column("reserved", Double),
    Column("created", Double),
)

judge_endpoints = Table(
    "judge_endpoints",
    _metadata,
    Column("id", String, primary_key=True),
    Column("endpoint", AnyText),
    Column("model", AnyText),
    Column("abilities", Json),
    Column("probed", Double),
)

marks = Table(
    "marks",
    _metadata,
    Column("id", String, primary_key=True),
    Column("prompt_id", String, ForeignKey("prompts.id")),
    Column("candidate_id", String),
    Column("kind", String),
    Column("reason", AnyText),
    Column("who", AnyText),
    Column("made", Double),
    Column("undone", Double),
)

MIGRATIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        1,
        (
            """CREATE TABLE prompts (
            id TEXT PRIMARY KEY, text TEXT NOT NULL, system TEXT NOT NULL, family TEXT NOT NULL,
            category TEXT NOT NULL, split TEXT NOT NULL, source TEXT NOT NULL, checker TEXT NOT NULL,
            check_data TEXT NOT NULL, reference_texts TEXT NOT NULL, tags TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX prompts_by_split ON prompts (split, id)",
            """CREATE TABLE candidates (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), text TEXT NOT NULL,
            model TEXT NOT NULL, model_name TEXT NOT NULL, seed BIGINT NOT NULL, idx BIGINT NOT NULL,
            sampling TEXT NOT NULL, logprob DOUBLE PRECISION, n_tokens BIGINT, finish TEXT NOT NULL,
            source TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX candidates_by_prompt ON candidates (prompt_id, seed, idx)",
            """CREATE TABLE scores (
            id TEXT PRIMARY KEY, candidate_id TEXT NOT NULL REFERENCES candidates (id), scorer TEXT NOT NULL,
            version TEXT NOT NULL, arguments TEXT NOT NULL, value DOUBLE PRECISION, reason TEXT NOT NULL,
            sort_key TEXT NOT NULL, tolerance DOUBLE PRECISION NOT NULL, passed BOOLEAN, cause TEXT NOT NULL,
            details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX scores_by_candidate ON scores (candidate_id, scorer)",
            "CREATE INDEX scores_by_scorer ON scores (scorer, added, version, value, passed)",
            """CREATE TABLE rankings (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), tiers TEXT NOT NULL,
            source TEXT NOT NULL, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX rankings_by_prompt ON rankings (prompt_id)",
            """CREATE TABLE preference_groups (
            id TEXT PRIMARY KEY, prompt TEXT NOT NULL, candidates TEXT NOT NULL, edges TEXT NOT NULL,
            system TEXT NOT NULL, prompt_id TEXT NOT NULL, family TEXT NOT NULL, split TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX preference_groups_by_prompt ON preference_groups (prompt_id)",
            """CREATE TABLE runs (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, config TEXT NOT NULL, inputs TEXT NOT NULL,
            status TEXT NOT NULL, outputs TEXT NOT NULL, metrics TEXT NOT NULL, model TEXT NOT NULL,
            started DOUBLE PRECISION NOT NULL, finished DOUBLE PRECISION, added DOUBLE PRECISION NOT NULL)""",
            """CREATE TABLE run_groups (
            run_id TEXT NOT NULL REFERENCES runs (id),
            group_id TEXT NOT NULL REFERENCES preference_groups (id),
            PRIMARY KEY (run_id, group_id))""",
        ),
    ),
    (
        2,
        (
            """CREATE TABLE verdicts (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), judge TEXT NOT NULL,
            protocol TEXT NOT NULL, shown TEXT NOT NULL, outcome TEXT NOT NULL, tiers TEXT NOT NULL,
            strength DOUBLE PRECISION NOT NULL, value DOUBLE PRECISION, shuffle BIGINT NOT NULL,
            reason TEXT NOT NULL, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX verdicts_by_prompt ON verdicts (prompt_id, judge)",
            """CREATE TABLE annotations (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), annotator TEXT NOT NULL,
            shown TEXT NOT NULL, answer TEXT NOT NULL, tiers TEXT NOT NULL, mode TEXT NOT NULL,
            value DOUBLE PRECISION, confidence TEXT NOT NULL, seconds DOUBLE PRECISION,
            submitted DOUBLE PRECISION NOT NULL, serial BIGINT NOT NULL, note TEXT NOT NULL,
            undone DOUBLE PRECISION, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX annotations_by_prompt ON annotations (prompt_id, annotator)",
        ),
    ),
    (
        3,
        (
            """CREATE TABLE judge_calls (
            id TEXT PRIMARY KEY, key TEXT NOT NULL, run_id TEXT NOT NULL, judge TEXT NOT NULL, endpoint TEXT NOT NULL,
            protocol TEXT NOT NULL, prompt_id TEXT NOT NULL, attempt BIGINT NOT NULL, status TEXT NOT NULL,
            reason TEXT NOT NULL, chars BIGINT NOT NULL, input_tokens BIGINT, output_tokens BIGINT,
            cost DOUBLE PRECISION, seconds DOUBLE PRECISION, started DOUBLE PRECISION NOT NULL,
            batch_id TEXT NOT NULL, raw TEXT NOT NULL)""",
            "CREATE INDEX judge_calls_by_key ON judge_calls (key, status)",
            "CREATE INDEX judge_calls_by_run ON judge_calls (run_id, cost)",
            """CREATE TABLE judge_batches (
            id TEXT PRIMARY KEY, run_id TEXT NOT NULL, judge TEXT NOT NULL, endpoint TEXT NOT NULL,
            remote_id TEXT NOT NULL, status TEXT NOT NULL, asks TEXT NOT NULL, reserved DOUBLE PRECISION NOT NULL,
            created DOUBLE PRECISION NOT NULL)""",
            """CREATE TABLE judge_endpoints (
            id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, abilities TEXT NOT NULL,
            probed DOUBLE PRECISION NOT NULL)""",
        ),
    ),
    (
        5,
        (
            """CREATE TABLE leases (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), annotator TEXT NOT NULL,
            mode TEXT NOT NULL, shown TEXT NOT NULL, serial BIGINT NOT NULL,
            granted DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL, draft TEXT NOT NULL,
            previous TEXT NOT NULL, annotation TEXT, released DOUBLE PRECISION, details TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX leases_by_mode ON leases (mode, annotator)",
        ),
    ),
    (
        8,
        (
            "ALTER TABLE preference_groups ADD COLUMN context TEXT NOT NULL DEFAULT '[]'",
            "ALTER TABLE preference_groups ADD COLUMN tools TEXT NOT NULL DEFAULT '[]'",
        ),
    ),
    (
        9,
        (
            """CREATE TABLE candidate_tokens (
            candidate_id TEXT PRIMARY KEY REFERENCES candidates (id), token_ids TEXT NOT NULL)""",
        ),
    ),
    (
        10,
        (
            "ALTER TABLE prompts ADD COLUMN context TEXT NOT NULL DEFAULT '[]'",
            "ALTER TABLE prompts ADD COLUMN tools TEXT NOT NULL DEFAULT '[]'",
            "ALTER TABLE candidates ADD COLUMN thought TEXT NOT NULL DEFAULT ''",
        ),
    ),
    (
        11,
        (
            """CREATE TABLE marks (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), candidate_id TEXT NOT NULL,
            kind TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL, made DOUBLE PRECISION NOT NULL,
            undone DOUBLE PRECISION)""",
            "CREATE INDEX marks_by_kind ON marks (kind, prompt_id, candidate_id)",
            "CREATE INDEX candidates_for_browsing ON candidates (prompt_id, id, model, length(text))",
            "CREATE INDEX candidates_by_added ON candidates (added, id)",
            "CREATE INDEX candidates_by_model ON candidates (model, model_name)",
            "CREATE INDEX scores_by_outcome ON scores (passed, cause, candidate_id) WHERE value IS NOT NULL",
            "CREATE INDEX scored_candidates ON scores (candidate_id, passed, cause) WHERE value IS NOT NULL",
            "CREATE INDEX prompts_for_browsing ON prompts (family, split, id)",
        ),
    ),
)

_LOCK = 0x68616673  # "hafs": the advisory lock that lets one process migrate a PostgreSQL database at a time


def migrate(conn: Connection, where: str) -> int:
    """Bring the database behind `conn` (in a write transaction) to the newest version; returns that version.

    Raises HafsError when the database was made by a newer hafs.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    version = schema_version(conn)
    newest = MIGRATIONS[-1][0]
    if version > newest:
        raise HafsError(
            f"{where} has schema version {version}, this hafs knows versions up to {newest}",
            "the database was made by a newer hafs: upgrade this one",
        )
    if version == 0:
        conn.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)"))
        conn.execute(text("INSERT INTO schema_version (version) VALUES (0)"))
    for number, statements in MIGRATIONS:
        if number > version:
            for statement in statements:
                conn.execute(text(statement))
            conn.execute(text("UPDATE schema_version SET version = :number"), {"number": number})
    return newest


def schema_version(conn: Connection) -> int:
    """The version of the database behind `conn`; 0 when it is new."""
    if not inspect(conn).has_table("schema_version"):
        return 0
    return int(conn.execute(text("SELECT max(version) FROM schema_version")).scalar() or 0)
