"""Batches at both vendors: half price, repairs, what expires; killed at every step and started again, nothing is paid
twice and no answer is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hafs.judge.prices import load_prices
from hafs.judge.run import batches
from hafs.judge.run.ledger import Ledger, LedgerBatch
from hafs.servers import limits
from hafs.store import Store, open_store
from hafs.store.schema import judge_batches, judge_calls
from judge_server import JudgeServer, honest
from judge_work import OPUS, client_of, filled, greedy_usage, run

APIS = ("anthropic", "openai")
MODELS = {"anthropic": OPUS, "openai": "gpt-4o"}
KILLED = -signal.SIGKILL
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["anthropic", "openai", "hafs.judge.run.runner"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(limits, "_BASE", 0.002)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    with JudgeServer().running() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with filled(tmp_path) as opened:
        yield opened


def paid(server: JudgeServer, api: str, singly: int) -> float:
    """What the server charged, with `singly` calls (the probe) at full price."""
    price = load_prices().of(MODELS[api])
    assert price is not None
    each = [price.cost(*tokens) for tokens in server.paid]
    return sum(each[:singly]) + sum(each[singly:]) / 2


def keys(server: JudgeServer) -> Counter[str]:
    """How often each question was submitted, by the key in its custom id."""
    return Counter(id.partition("-")[2] for b in server.batches.values() for id, _ in b["items"])


@pytest.mark.parametrize("api", APIS)
def test_a_batch_makes_the_verdicts_of_single_calls_at_half_price(
    tmp_path: Path, store: Store, server: JudgeServer, api: str
) -> None:
    (result,) = run(store, client_of(api, server, MODELS[api]), protocol="pairwise", batch=True)
    assert (result.coverage, result.tally.asked, len(server.batches)) == (1.0, 24, 1)
    assert result.tally.cost == pytest.approx(paid(server, api, 1))
    assert sum(d["cost"] for d in Ledger(store).spending()) == pytest.approx(result.tally.cost)
    (again,) = run(store, client_of(api, server, MODELS[api]), protocol="pairwise", batch=True)
    assert (again.tally.decided, again.tally.attempts, len(server.batches)) == (24, 0, 1)
    (tmp_path / "single").mkdir()
    with filled(tmp_path / "single") as other:
        run(other, client_of(api, server, MODELS[api]), protocol="pairwise")
        assert list(other.verdicts()) == list(store.verdicts())


@pytest.mark.parametrize("api", APIS)
def test_what_a_batch_could_not_do(store: Store, server: JudgeServer, api: str) -> None:
    """Unreadable replies are repaired in a second batch; what expired or failed has no verdict and is asked again."""
    broken = {"prompt 0": "expired", "prompt 1": "errored"}
    server.batch_item = lambda id, q: broken.get(q.texts["REQUEST"])
    server.judge = lambda q: "dunno" if q.texts["REQUEST"] == "prompt 2" and len(q.turns) == 1 else honest(q)
    (result,) = run(store, client_of(api, server, MODELS[api]), batch=True)
    assert dict(result.tally.failed) == {"expired": 2, "errored": 2} and result.coverage == 0.5
    assert [len(b["items"]) for b in server.batches.values()] == [8, 2]
    assert len(list(store.verdicts())) == 4 and {v.outcome for v in store.verdicts()} == {"ranked"}
    server.batch_item = lambda id, q: None
    (again,) = run(store, client_of(api, server, MODELS[api]), batch=True)
    assert again.coverage == 1.0 and len(server.batches["batch_3"]["items"]) == 4


def test_replies_that_stay_unreadable_are_malformed(store: Store, server: JudgeServer) -> None:
    server.judge = lambda q: "dunno"
    (result,) = run(store, client_of("anthropic", server), batch=True)
    assert dict(result.reliability.verdicts) == {"malformed": 8} and len(server.batches) == 2


def test_large_work_goes_in_several_batches_within_the_budget(
    store: Store, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 5)
    price = load_prices().of(OPUS)
    assert price is not None
    server.usage = greedy_usage
    (result,) = run(store, client_of("anthropic", server), protocol="pairwise", batch=True, budget=0.3)
    assert "budget" in result.tally.stopped and 0.15 < paid(server, "anthropic", 1) <= 0.3
    assert 0 < (result.coverage or 0) < 1
    (rest,) = run(store, client_of("anthropic", server), protocol="pairwise", batch=True, budget=9.0)
    assert rest.coverage == 1.0 and set(keys(server).values()) == {1} and len(keys(server)) == 24


def test_single_calls_wait_for_a_batch_under_way(store: Store, server: JudgeServer) -> None:
    Ledger(store).put_batch(LedgerBatch("r", "local", server.v1, {"key": ["p", "listwise@1", [], 1]}, "b", "submitted"))
    (result,) = run(store, client_of("openai", server))
    assert "in a batch under way" in result.tally.stopped and not server.questions


# killed


def _child(path: str, url: str, api: str, fault: str, go: Any) -> None:
    """A run in a process of its own, once it may `go`; a `fault` names the method that it dies in."""
    go.wait()
    os.environ |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test"}
    if fault:
        name, _, method = fault.partition(".")
        setattr({"Ledger": Ledger, "Store": Store}[name], method, lambda *a: os.kill(os.getpid(), signal.SIGKILL))

    class Server:
        v1 = f"{url}/v1"

    run(open_store(path), client_of(api, Server, MODELS[api]), batch=True, budget=5.0)


STEPS = [
    *(("anthropic", step) for step in ("before create", "after create", "poll", "results")),
    *(("openai", step) for step in ("upload", "before create", "after create", "poll", "results")),
    ("anthropic", "Ledger.close_batch"),
    ("openai", "Store.add_verdicts"),
]


@pytest.mark.parametrize(("api", "step"), STEPS)
def test_killed_at_any_step_it_neither_pays_twice_nor_loses_an_answer(
    store: Store, server: JudgeServer, api: str, step: str
) -> None:
    fault = step if "." in step else ""
    server.polls_needed = 2
    go = processes.Event()
    child = processes.Process(target=_child, args=(store.where, server.url, api, fault, go))
    child.start()
    if not fault:
        server.kill = (step, child.pid or 0)
    go.set()
    child.join(300)  # the first child imports the SDKs, which a busy machine takes its time for
    assert child.exitcode == KILLED, "it died where it should"
    assert not list(store.verdicts())
    known = set(keys(server))
    (result,) = run(store, client_of(api, server, MODELS[api]), batch=True, budget=5.0)
    assert result.coverage == 1.0 and not result.tally.stopped
    assert set(keys(server).values()) == {1} and len(keys(server)) == 8, "every question was paid once"
    assert known <= set(keys(server))
    with store.connection() as conn:
        assert [*conn.execute(select(judge_batches.c.status)).scalars()] == ["done"]
        answered = select(judge_calls.c.key).where(judge_calls.c.status == "answered", judge_calls.c.key != "probe")
        assert len([*conn.execute(answered).scalars()]) == 8
    assert Ledger(store).spent(_run_id(store)) == pytest.approx(paid(server, api, 1))


def _run_id(store: Store) -> str:
    (judging,) = store.runs(kind="judge")
    return judging.id


@pytest.mark.parametrize("api", APIS)
def test_anothers_batch_of_the_same_size_is_not_taken_for_ours(store: Store, server: JudgeServer, api: str) -> None:
    """An intent that was never submitted, and a batch of the same size and time that someone else submitted."""
    asks: dict[str, Any] = {f"{i:020}": ["p", "listwise@1", [], 1] for i in range(2)}
    Ledger(store).put_batch(LedgerBatch("r", MODELS[api], server.url, asks, reserved=3.0))
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    server._new_batch([("theirs-1", body), ("theirs-2", body)], metadata={"project": "theirs"})
    (result,) = run(store, client_of(api, server, MODELS[api]), batch=True)
    assert result.coverage == 1.0 and len(server.batches) == 2
    assert not Ledger(store).open_batches(MODELS[api])
