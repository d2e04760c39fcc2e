"""What an endpoint can do, found out by asking it: structured output, a system text, a seed, temperature 0, logprobs.

Servers differ and some ignore what they do not know, so structured output counts only when the schema's only allowed
value came back against what the question suggests. The result is kept for each model and endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from hafs.judge.clients import ABILITIES, CallFailed, Client, EndpointDown, ReplayClient, Reply
from hafs.judge.run.calling import Caller
from hafs.judge.run.ledger import ANSWERED, Call, Ledger

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


async def set_up(caller: Caller, ledger: Ledger, again: bool = False) -> dict[str, bool]:
    """Set the client to what its endpoint can do, probing it the first time (or `again`).

    Raises EndpointDown when it does not answer, Stopped when the budget does not allow the probe.
    """
    client = caller.client
    if isinstance(client, ReplayClient):
        return dict(client.abilities)
    known = None if again else ledger.abilities(client.endpoint, client.model)
    if known is None:
        about = Call("probe", client.model, client.endpoint, "probe", "", caller.run_id)

        async def send(structured: bool, logprobs: bool) -> Reply:
            schema = SCHEMA if structured else None
            reply, _ = await caller.call(
                about, SYSTEM, [("user", QUESTION)], schema, lambda reply: (ANSWERED, "", None), logprobs, attempts=3
            )
            return reply

        try:
            known = await probe(client, send)
        except CallFailed as e:
            raise EndpointDown(
                f"{client.endpoint} does not answer: {e.message}", "see that it runs, then run the command again"
            ) from e
        ledger.remember(client.endpoint, client.model, known)
    client.abilities = known
    return dict(known)


async def probe(client: Client, send: Send) -> dict[str, bool]:
    """The abilities of the client's endpoint; the client is set to them.

    All at once first; where that is refused, one by one. Raises EndpointDown when even the bare question is refused,
    and what `send` raises for other failures.
    """
    have = [a for a in ABILITIES if a == "logprobs" or a in client.abilities]
    found = await _try(client, send, have)
    if found is None:
        try:
            client.abilities = dict.fromkeys(ABILITIES, False)
            await send(False, False)
        except CallFailed as e:
            if e.kind != "request":
                raise
            raise EndpointDown(
                f"{client.endpoint} refuses {client.model}: {e.message}", "check the model's name and --base-url"
            ) from e
        each = [await _try(client, send, [ability]) for ability in have]
        found = {k: v for one in each if one for k, v in one.items() if v}
    client.abilities = {a: bool(found.get(a)) for a in ABILITIES}
    return dict(client.abilities)


async def _try(client: Client, send: Send, wanted: list[str]) -> dict[str, bool] | None:
    """Which of the `wanted` abilities work when asked for together; None when the request is refused."""
    client.abilities = {a: a in wanted for a in ABILITIES}
    try:
        reply = await send("structured" in wanted, "logprobs" in wanted)
    except CallFailed as e:
        if e.kind not in ("request", "server"):
            raise
        return None
    found = dict.fromkeys(wanted, True)
    if "structured" in wanted:
        found["structured"] = _obeyed(reply.text)
    if "logprobs" in wanted:
        found["logprobs"] = reply.logprobs
    return found


def _obeyed(text: str) -> bool:
    try:
        said: Any = json.loads(text)
    except ValueError:
        return False
    return bool(said == {"colour": "teal"})
