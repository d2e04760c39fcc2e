"""Finding out once for a workspace what a judge's endpoint takes, as `hafs.servers.abilities` asks.

The result is kept for each model and endpoint.
"""

from __future__ import annotations

from dataclasses import replace

from hafs.judge.clients import ReplayClient
from hafs.judge.run.calling import Caller
from hafs.judge.run.ledger import ANSWERED, Call, Ledger
from hafs.servers.abilities import LIMIT, QUESTION, SCHEMA, SYSTEM, probe
from hafs.servers.client import GREEDY, Reply
from hafs.servers.errors import CallFailed, EndpointDown


async def set_up(caller: Caller, ledger: Ledger, again: bool = False) -> dict[str, bool]:
    """Set the client to what its endpoint can do, probing it the first time (or `again`).

    Raises EndpointDown when it does not answer, Stopped when the budget does not allow the probe.
    """
    client = caller.client
    if isinstance(client, ReplayClient):
        return dict(client.abilities)
    known = None if again else ledger.abilities(client.endpoint, client.model)
    if known is None or LIMIT not in known:  # what an earlier version kept does not say how the limit is called
        about = Call("probe", client.model, client.endpoint, "probe", "", caller.run_id)

        async def send(structured: bool, logprobs: bool) -> Reply:
            schema = SCHEMA if structured else None
            sampling = replace(GREEDY, logprobs=logprobs)
            reply, _ = await caller.call(
                about, SYSTEM, [("user", QUESTION)], schema, lambda reply: (ANSWERED, "", None), sampling, attempts=3
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
