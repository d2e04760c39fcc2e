"""The LLM judge: what it is asked, how its answers are read, what they cost, and whether it contradicts itself.

`protocols` writes the questions, `answers` reads the replies, `clients` sends them, `runner` and `batches` do that for
many under one `budget`, `ledger` keeps every attempt, `consistency` holds the two orders of a comparison together.
"""

from hafs.judge.consistency import Reliability, Settled, consistent, reliability
from hafs.judge.protocols import PROTOCOLS, Ask, Protocol, open_protocol

__all__ = ["PROTOCOLS", "Ask", "Protocol", "Reliability", "Settled", "consistent", "open_protocol", "reliability"]
