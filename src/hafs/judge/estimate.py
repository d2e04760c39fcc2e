"""What a run would cost before anything is sent: tokens, dollars and minutes, offline.

Tokens are characters times a rate: what the judge's own calls in the ledger showed, or an assumption before there are
enough of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hafs.judge.prices import Price, most_tokens
from hafs.judge.run.calling import Manner
from hafs.judge.run.ledger import Means
from hafs.judge.work import Work

CHARS_PER_TOKEN = 3.2
"""Of prose and code mixed (English alone about 4, assembly about 2.5)."""
SECONDS = 4.0
"""For one call, where nothing is known of the judge."""

_SCHEMA_TOKENS = 100


@dataclass(frozen=True)
class Estimate:
    """What is left for one judge: questions, tokens in and out, expected dollars and the most they can be, minutes.

    Dollars are None without a price; `minutes` are None for a batch, which takes up to a day. `decided` questions need
    no asking, `skipped` prompts have nothing to judge. `measured` says whether the judge's own calls gave the rates.
    """

    judge: str
    protocol: str
    prompts: int
    questions: int
    decided: int
    skipped: int
    input_tokens: int
    output_tokens: int
    dollars: float | None
    most: float | None
    minutes: float | None
    measured: bool
    price_date: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return asdict(self)


def estimate(work: Work, price: Price | None, manner: Manner, batch: bool = False) -> Estimate:
    """Go through the questions that a run would ask and add them up; nothing is sent or stored."""
    means = work.ledger.means(work.judge, work.protocol.id)
    questions = chars = decided = skipped = prompts = 0
    most = 0.0
    for page in work.pages():
        prompts += page.prompts
        decided += page.decided + len(page.verdicts)
        skipped += page.skipped
        questions += len(page.asks)
        chars += sum(ask.chars for ask in page.asks)
        if price is not None:
            most += sum(
                price.cost(most_tokens(a.system, a.text, str(a.schema)), manner.max_tokens, batch) for a in page.asks
            )
    tokens_in, tokens_out, seconds = _rates(means, work.protocol.reply_tokens)
    n_in, n_out = tokens_in(questions, chars), round(questions * tokens_out)
    return Estimate(
        work.judge,
        work.protocol.id,
        prompts,
        questions,
        decided,
        skipped,
        n_in,
        n_out,
        price.cost(n_in, n_out, batch) if price else None,
        most if price else None,
        None if batch else questions * seconds / manner.concurrency / 60,
        means is not None,
        price.date if price else "",
    )


def _rates(means: Means | None, reply_tokens: int) -> tuple[Callable[[int, int], int], float, float]:
    """(tokens in of so many questions and characters, tokens of a reply, seconds of a call)."""
    if means is None:
        return lambda n, chars: round(chars / CHARS_PER_TOKEN + n * _SCHEMA_TOKENS), float(reply_tokens), SECONDS
    return lambda n, chars: round(chars * means.tokens_per_char), means.output_tokens, means.seconds
