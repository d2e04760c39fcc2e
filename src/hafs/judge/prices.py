"""What a call costs: a dated table of prices that a workspace may amend, and bounds on the tokens of a request."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from hafs.errors import UsageError

FILE = "prices.toml"
PREAMBLE_TOKENS = 600
"""More tokens than a chat template and a vendor's own words about a schema add to a request."""

_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens in and out, when that was looked up, and what a batch costs of it."""

    input: float
    output: float
    date: str = ""
    batch: float = 0.5

    def cost(self, input_tokens: int, output_tokens: int, batch: bool = False) -> float:
        """Dollars for one call."""
        full = (input_tokens * self.input + output_tokens * self.output) / 1e6
        return full * self.batch if batch else full


FREE = Price(0.0, 0.0)


@dataclass(frozen=True)
class Prices:
    """The table: prices by model."""

    models: Mapping[str, Price]

    def of(self, model: str) -> Price | None:
        """The price of a model, also under its name without a date; None when it is not in the table."""
        return self.models.get(model) or self.models.get(_DATED.sub("", model))


def load_prices(workspace: Path | None = None) -> Prices:
    """The built-in table with the rows of the workspace's `prices.toml` put over it.

    Raises UsageError for a file that cannot be read, naming the row.
    """
    found = _parse(resources.files("hafs.judge").joinpath(FILE).read_text(encoding="utf-8"), FILE)
    own = workspace / FILE if workspace else None
    if own is not None and own.is_file():
        found = {**found, **_parse(own.read_text(encoding="utf-8"), str(own))}
    return Prices(found)


def _parse(text: str, where: str) -> dict[str, Price]:
    fix = 'a row reads: "MODEL" = { price = [INPUT, OUTPUT], date = 2026-01-31 } under [models]'
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"{where} is not valid TOML: {e}", fix) from e
    batch, models = data.get("batch", 0.5), data.get("models", {})
    if unknown := sorted(set(data) - {"batch", "models"}):
        raise UsageError(f"{where}: unknown key {unknown[0]!r}", fix)
    if not isinstance(models, dict) or not _number(batch):
        raise UsageError(f"{where}: batch is a number and models a table", fix)
    return {name: _row(name, row, float(batch), where, fix) for name, row in models.items()}


def _row(name: str, row: Any, batch: float, where: str, fix: str) -> Price:
    price = row.get("price") if isinstance(row, dict) and not set(row) - {"price", "date"} else None
    if not isinstance(price, list) or len(price) != 2 or not all(map(_number, price)):
        raise UsageError(f"{where}: the row of {name!r} has no price [input, output]", fix)
    when = row.get("date", "")
    return Price(float(price[0]), float(price[1]), when.isoformat() if isinstance(when, date) else str(when), batch)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def most_tokens(*texts: str) -> int:
    """More tokens than `texts` can be with what goes around them: no tokenizer makes two tokens of one byte."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + PREAMBLE_TOKENS
