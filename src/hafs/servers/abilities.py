"""What an endpoint takes, found out by asking it once: never by its host's name.

Servers differ: newer models of OpenAI refuse `max_tokens` (they want `max_completion_tokens`), a temperature and
log-probabilities; some templates refuse a system text; some servers ignore what they do not know, so structured output
counts only when the schema's only allowed value came back against what the question suggests.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hafs.servers.client import Reply
from hafs.servers.errors import CallFailed, EndpointDown

JUDGING = ("structured", "system", "seed", "temperature", "logprobs")
"""What judging may use of an endpoint."""
ASSUMED: Mapping[str, bool] = {"structured": True, "system": True, "seed": True, "temperature": True}
"""What an endpoint of OpenAI's kind is taken to take until it was asked."""
LIMIT = "max_tokens"
"""Whether the limit of a reply goes by this name; where not, by `max_completion_tokens`."""

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["teal"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
SYSTEM = "You are asked for one word."
QUESTION = 'Which colour is grass? Reply with one JSON object and nothing else: {"colour": "…"}'

Send = Callable[[bool, bool], Awaitable[Reply]]
"""Send the question: (with the schema, with logprobs)."""


async def probe(client: Any, send: Send, wanted: Sequence[str] = JUDGING) -> dict[str, bool]:
    """Which of the abilities `wanted` the client's endpoint has; the client is set to them.

    All at once first; where that is refused, the bare question by either name of the limit, then all again under the
    name that is taken, then one by one. Raises EndpointDown when even the bare question is refused, and what `send`
    raises for other failures.
    """
    have = [a for a in wanted if a in client.abilities or a == "logprobs"]
    limit = True
    found = await _try(client, send, have, limit)
    if found is None:
        limit = await _limit(client, send)
        found = await _try(client, send, have, limit) if not limit else None
    if found is None:
        each = [await _try(client, send, [ability], limit) for ability in have]
        found = {k: v for one in each if one for k, v in one.items() if v}
    client.abilities = {**{a: bool(found.get(a)) for a in wanted}, LIMIT: limit}
    return dict(client.abilities)


async def _limit(client: Any, send: Send) -> bool:
    """Whether the bare question is taken with `max_tokens`; False: with `max_completion_tokens`."""
    refused: CallFailed | None = None
    for limit in (True, False):
        client.abilities = {LIMIT: limit, "more": False}
        try:
            await send(False, False)
        except CallFailed as e:
            if e.kind not in ("request", "missing"):
                raise
            refused = refused or e
        else:
            return limit
    raise EndpointDown(
        f"{client.endpoint} refuses {client.model}: {refused.message if refused else ''}",
        "check the model's name and --base-url",
    ) from refused


async def _try(client: Any, send: Send, wanted: Sequence[str], limit: bool) -> dict[str, bool] | None:
    """Which of the `wanted` abilities work when asked for together; None when the request is refused."""
    client.abilities = {**dict.fromkeys(wanted, True), LIMIT: limit, "more": "more" in wanted}
    try:
        reply = await send("structured" in wanted, "logprobs" in wanted)
    except CallFailed as e:
        if e.kind not in ("request", "missing", "server"):
            raise
        return None
    found = dict.fromkeys(wanted, True)
    if "structured" in wanted:
        found["structured"] = _obeyed(reply.text)
    if "logprobs" in wanted:
        found["logprobs"] = bool(reply.logprobs)
    return found


def _obeyed(text: str) -> bool:
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(said == {"colour": "teal"})
