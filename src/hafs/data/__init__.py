"""Data as people have it: files of every kind as rows, rows of every shape as prompts, examples and conversations.

`containers.py` and `texts.py` open what holds the rows, `columns.py` knows what a column is for, `turns.py` reads
conversations, `rows.py` brings it together and keeps what could not be used.
"""

from hafs.data.columns import ROLES, Columns, ColumnsRow, asks, column_of, parse_columns, unknown, value_of
from hafs.data.examples import example_of, read_examples
from hafs.data.prompts import prompt_in, read_prompts
from hafs.data.rows import BadRow, Loaded, load, set_aside
from hafs.data.turns import Asked, answer_of, asked_in, asked_of, conversation_in, is_chat, text_of, turns_of
from hafs.data.writing import write_rows

__all__ = [
    "ROLES",
    "Asked",
    "BadRow",
    "Columns",
    "ColumnsRow",
    "Loaded",
    "answer_of",
    "asked_in",
    "asked_of",
    "asks",
    "column_of",
    "conversation_in",
    "example_of",
    "is_chat",
    "load",
    "parse_columns",
    "prompt_in",
    "read_examples",
    "read_prompts",
    "set_aside",
    "text_of",
    "turns_of",
    "unknown",
    "value_of",
    "write_rows",
]
