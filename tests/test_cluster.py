"""Work on a cluster: the same ids and results as on one machine, whatever dies; nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from cluster_nodes import Machines, environment, machines
from hafs.cluster import open_crew
from hafs.config import ClusterConfig
from hafs.errors import MissingTool, UsageError
from hafs.judge.run.budget import BudgetSpent, Treasurer
from hafs.store import Store, open_store
from hafs.store.engine import database_url
from judge_server import JudgeServer, by, quality
from judge_work import greedy_usage
from run_hafs import hafs

on_nodes = pytest.mark.cluster
TESTS = Path(__file__).parent
SAMPLING = ("--batch-size", "6", "--max-new-tokens", "160", "--temperature", "1.0", "--candidates-per-prompt", "3")
PROMPTS = 48
SLOW = "import time, sys; time.sleep(0.15); sys.exit(len(open(sys.argv[1]).read()) % 2)\n"
"""A check that takes its time, as compiling and running does."""


# ---- without a cluster


def test_a_cluster_needs_a_database_that_its_nodes_see(tmp_path: Path) -> None:
    hafs("init", tmp_path).ok()
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n')
    argv = ("generate", "-w", tmp_path, "--prompts", tmp_path / "p.jsonl", "--model", "default")
    hafs(*argv, "--cluster", "ray://head:10001").failed(2, "SQLite", "postgresql://")
    (tmp_path / "hafs.toml").write_text('[cluster]\naddress = "head:6379"\n')
    hafs("score", "-w", tmp_path).failed(2, "SQLite", "--cluster local")


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingTool, match=r"pip install 'hafs\[cluster\]'"), open_crew(_at("local"), "sqlite:///x.db"):
        pass


def test_what_is_no_address_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="no address"), open_crew(_at("http://head:8265"), "postgresql://x/y"):
        pass


def test_a_claim_waits_for_the_workers_of_whoever_held_it(tmp_path: Path) -> None:
    """A command that was killed leaves workers for a moment: the next one begins when they have ended."""
    worker = subprocess.Popen(
        [sys.executable, "-c", JOINED, str(tmp_path / "hafs.db")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "joined\n"
    waiter = subprocess.Popen(
        [sys.executable, "-c", CLAIMED, str(tmp_path / "hafs.db")], stdout=subprocess.PIPE, text=True
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(3)
    worker.kill()
    worker.wait()
    assert waiter.communicate(timeout=60)[0] == "claimed\njoined\n"


JOINED = """
import sys
from hafs.store import open_store
with open_store(sys.argv[1]) as store, store.joined("work"):
    print("joined", flush=True)
    sys.stdin.read()
"""
CLAIMED = """
import sys
from hafs.store import open_store
with open_store(sys.argv[1]) as store, open_store(sys.argv[1]) as other, store.claimed("work", workers=True):
    print("claimed", flush=True)
    with other.joined("work"):
        print("joined", flush=True)
"""


def test_what_a_dead_machine_had_set_aside_stays_spent() -> None:
    import asyncio

    async def story() -> None:
        budget = Treasurer(1.0, 0.25)
        await budget.reserve("a", 0.25)
        await budget.reserve("b", 0.25)
        await budget.settle("b", 0.25, 0.125)
        await budget.write_off("a")
        await budget.settle("a", 0.25, 0.0)  # a late word of the dead changes nothing
        with pytest.raises(BudgetSpent):
            await budget.reserve("b", 0.5)
        await budget.reserve("b", 0.375)

    asyncio.run(story())


def _at(address: str) -> ClusterConfig:
    return ClusterConfig(address=address)  # type: ignore[call-arg]


def test_two_workers_of_this_machine_do_what_one_process_does(tiny_model: Path, tmp_path: Path) -> None:
    """The one test with Ray in `make test`."""
    pytest.importorskip("ray")
    for name in ("one", "two"):
        hafs("init", tmp_path / name).ok()
    script(tmp_path, 0.0)
    prompts(tmp_path / "p.jsonl", 6, tmp_path / "check.py")
    found = []
    for name, where in (("one", ()), ("two", ("--cluster", "local"))):
        work = ("-w", str(tmp_path / name))
        argv = ("--prompts", str(tmp_path / "p.jsonl"), "--model", str(tiny_model), *SAMPLING, "--max-new-tokens", "8")
        for command in (("generate", *work, *argv, *where), ("score", *work, *where)):
            done = subprocess.run([sys.executable, "-m", "hafs", *command], env=clean(), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        with open_store(tmp_path / name / "hafs.db") as store:
            found.append(everything(store))
    assert found[0] == found[1]


# ---- three nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[Machines]:
    pytest.importorskip("ray")
    with machines() as made:
        yield made


@dataclass
class Place:
    """A workspace on the cluster's database, and the same on one machine."""

    root: Path
    url: str
    nodes: Machines

    def start(self, *argv: str, ray: str = "") -> subprocess.Popen[str]:
        """`hafs …` on the head, on the cluster."""
        where = ("-w", str(self.root), "--cluster", ray or self.nodes.address)
        return subprocess.Popen(
            self.nodes.command(*argv, *where, "--json"),
            env=environment(self.nodes.folder),
            stdout=subprocess.PIPE,
            stderr=(self.root / "err").open("a"),
            text=True,
            start_new_session=True,
        )

    def run(self, *argv: str, ray: str = "") -> dict[str, Any]:
        """The same, until it has ended well; what it printed."""
        return self.ended(self.start(*argv, ray=ray))

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0, (self.root / "err").read_text()
        found: dict[str, Any] = json.loads(out)
        return found

    def count(self, table: str, where: str = "true") -> int:
        """Rows of a table now."""
        engine = create_engine(database_url(self.url))
        with engine.connect() as conn:
            exists = conn.execute(text("SELECT to_regclass(:t)"), {"t": table}).scalar()
            n = conn.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar() if exists else 0
        engine.dispose()
        return int(n or 0)

    def wait(self, table: str, n: int, process: subprocess.Popen[str]) -> None:
        """Wait until a table has more than `n` rows."""
        until = time.monotonic() + 120
        while self.count(table) <= n:
            assert process.poll() is None and time.monotonic() < until, (self.root / "err").read_text()
            time.sleep(0.05)


@pytest.fixture
def place(nodes: Machines, tmp_path: Path) -> Iterator[Place]:
    name = f"hafs_{uuid.uuid4().hex[:12]}"
    admin = create_engine(database_url(f"{nodes.postgres}/postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    url = f"{nodes.postgres}/{name}"
    (tmp_path / "hafs.toml").write_text(f'[store]\nurl = "{url}"\n')
    yield Place(tmp_path, url, nodes)
    for node in nodes.nodes[1:]:
        if not node.pids():
            nodes.start(node)
    with admin.connect() as conn:
        conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def clean() -> dict[str, str]:
    """The environment without proxies, which Ray would ask for its own machines."""
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {"RAY_worker_niceness": "0"}


def script(folder: Path, seconds: float = 0.15) -> None:
    (folder / "check.py").write_text(SLOW.replace("0.15", str(seconds)))


def prompts(path: Path, n: int, check: Path) -> None:
    rows = [
        {"prompt": f"prompt {i}", "checker": "code", "check": {"run": f"python3 {check} {{file}}"}} for i in range(n)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def everything(store: Store) -> list[dict[str, Any]]:
    """All candidates and scores, without when they were made."""
    rows = [*store.candidates(), *store.scores()]
    return sorted(({**r.to_dict(), "id": r.id} for r in rows), key=lambda r: r["id"])


def alone(tmp_path: Path, *commands: Sequence[str]) -> list[dict[str, Any]]:
    """What the same commands leave on one machine."""
    root = tmp_path / "alone"
    hafs("init", root).ok()
    for command in commands:
        hafs(*command, "-w", root).ok()
    with open_store(root / "hafs.db") as store:
        return everything(store)


def kill_a_worker(place: Place, driver: subprocess.Popen[str]) -> None:
    """A process of a node ends, as when memory runs out."""
    assert any(node.kill("ray::Worker") for node in place.nodes.nodes[1:])


def kill_a_node(place: Place, driver: subprocess.Popen[str]) -> None:
    """A machine loses its power."""
    assert place.nodes.nodes[2].kill()


def kill_the_driver(place: Place, driver: subprocess.Popen[str]) -> None:
    """The command is killed; whoever typed it types it again."""
    os.killpg(driver.pid, 9)
    driver.wait()


KILLS = [(0.1, kill_a_worker), (0.3, kill_a_node), (0.6, kill_the_driver)]
"""After which share of the work who dies; all three in one run."""


def survived(place: Place, command: Sequence[str], table: str, total: int) -> dict[str, Any]:
    """Run a command to its end, with a worker, a node and the command itself killed on the way; what it printed."""
    driver = place.start(*command)
    for share, kill in KILLS:
        place.wait(table, int(share * total), driver)
        kill(place, driver)
        assert place.count(table) < total, "it was over before anything could be killed"
    found = place.run(*command)
    place.nodes.start(place.nodes.nodes[2])
    return found


@on_nodes
def test_whatever_dies_the_candidates_and_scores_are_those_of_one_machine(
    place: Place, tiny_model: Path, tmp_path: Path
) -> None:
    script(tmp_path)
    prompts(tmp_path / "p.jsonl", PROMPTS, tmp_path / "check.py")
    generate = ("generate", "--prompts", str(tmp_path / "p.jsonl"), "--model", str(tiny_model), *SAMPLING)
    total = 3 * PROMPTS
    assert survived(place, generate, "candidates", total)["candidates"] == total
    survived(place, ("score",), "scores", total)
    assert place.count("candidates") == place.count("scores") == total
    assert place.run("score")["scored"] == 0
    with open_store(place.url) as store:
        made = everything(store)
    assert made == alone(tmp_path, generate, ("score",))


@on_nodes
def test_whatever_dies_a_judge_is_asked_once_within_its_budget(place: Place, tmp_path: Path) -> None:
    server = JudgeServer(by(quality), latency=0.2, usage=greedy_usage, host=place.nodes.gateway)
    (tmp_path / "prices.toml").write_text('[models]\n"local" = { price = [1.0, 1.0] }\n')
    with open_store(place.url) as store:
        fill(store, 120)
    with server.running():
        ask = ("judge", "run", "--judge", f"local@{server.v1}", "--concurrency", "6", "--budget", "10.0")
        (result,) = survived(place, ask, "judge_calls", 240)["judges"]
        assert place.count("verdicts") == 240 and result["coverage"] == 1.0
        asked = [q.turns[0] for q in server.asked()]
        under_way = 3 * 6  # what is in flight when somebody dies is asked again: its answer never came
        assert len(set(asked)) == 240 and len(asked) <= 240 + under_way
        assert place.count("judge_calls", "status = 'answered' and prompt_id <> ''") == 240
        paid = sum(n_in + n_out for n_in, n_out in server.paid) / 1e6
        with open_store(place.url) as store:
            assert paid - 1e-9 <= spent(store) <= 10.0
        assert place.run(*ask)["judges"][0]["asked"] == 0 and len(server.asked()) == len(asked)


@on_nodes
def test_one_budget_holds_for_all_nodes(place: Place, tmp_path: Path) -> None:
    server = JudgeServer(by(quality), latency=0.02, usage=greedy_usage, host=place.nodes.gateway)
    (tmp_path / "prices.toml").write_text('[models]\n"local" = { price = [1.0, 1.0] }\n')
    with open_store(place.url) as store:
        fill(store, 40)
    with server.running():
        ask = ("judge", "run", "--judge", f"local@{server.v1}", "--concurrency", "6", "--max-tokens", "1000")
        short = place.start(*ask, "--budget", "0.1")
        out, _ = short.communicate(timeout=240)
        (result,) = json.loads(out)["judges"]
        assert short.returncode == 1 and "budget" in result["stopped"]
        asked = result["asked"]
        paid = sum(n_in + n_out for n_in, n_out in server.paid) / 1e6
        assert 0.05 < paid <= 0.1 and 0 < asked < 80
        assert result["asked"] + result["unasked"] == 80
        with open_store(place.url) as store:
            assert spent(store) == pytest.approx(paid)
        (more,) = place.run(*ask, "--budget", "10")["judges"]
        assert more["asked"] == 80 - asked and place.count("verdicts") == 80


@on_nodes
def test_a_benchmark_and_groups_are_those_of_one_machine(place: Place, tiny_model: Path, tmp_path: Path) -> None:
    """Through the client's address, as from a machine that is no node."""
    script(tmp_path, 0.0)
    prompts(tmp_path / "p.jsonl", 8, tmp_path / "check.py")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    test = [{**row, "prompt": f"test {row['prompt']}"} for row in rows]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in test))
    evaluate = ("eval", "--model", str(tiny_model), "--benchmark", str(tmp_path / "test.jsonl"), "--samples", "2")
    evaluate = (*evaluate, "--max-new-tokens", "8")
    generate = ("generate", "--prompts", str(tmp_path / "p.jsonl"), "--model", str(tiny_model), *SAMPLING)
    hafs("init", tmp_path / "alone").ok()
    found = []
    for where, run in (
        (tmp_path / "alone", lambda *argv: hafs(*argv, "-w", tmp_path / "alone", "--json").ok().json),
        (tmp_path, lambda *argv: place.run(*argv, ray=place.nodes.client_address)),
    ):
        table = run(*evaluate)
        run(*generate)
        run("score")
        built = hafs("preferences", "build", "-w", where, "--output", where / "groups.jsonl").ok()
        for result in table["results"]:
            result.pop("seconds", None)
        found.append((table, built.out.replace(str(where), ""), (where / "groups.jsonl").read_text()))
    assert found[0] == found[1]


@on_nodes
def test_a_loop_ends_as_on_one_machine(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from hafs.store import init_workspace
    from hafs.workflows.loop.run import Loop, run
    from loop_toy import toy_config, write_tasks

    for name in [k for k in os.environ if k.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for path in write_tasks(tmp_path):  # workers do not know the toy's own scorer
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**r, "checker": "exact", "check": {}}) + "\n" for r in rows))
    config = toy_config(tmp_path, max_rounds=1)
    config = config.model_copy(update={"score": config.score.model_copy(update={"scorer": "automatic"})})
    found = []
    for name in ("alone", "local"):
        space = init_workspace(tmp_path / name)
        with ExitStack() as stack:
            store = stack.enter_context(space.open_store())
            crew = stack.enter_context(open_crew(_at(name), store.url)) if name == "local" else None
            outcome = run(Loop(config, str(tiny_model)), space, crew=crew).to_dict()
        found.append({k: v for k, v in outcome.items() if k not in ("seconds", "report", "kept_path")})
    assert found[0] == found[1]


@on_nodes
def test_a_node_with_another_script_is_not_believed(place: Place, tmp_path: Path) -> None:
    if not place.nodes.own_addresses:
        pytest.skip("the nodes share their files' names")
    script(tmp_path, 0.0)
    prompts(tmp_path / "p.jsonl", 4, tmp_path / "check.py")
    from hafs.config import Config
    from hafs.scorers import open_scorer
    from hafs.scorers.run import Scoring, opened_as
    from hafs.types import Candidate, Prompt

    with open_store(place.url) as store:
        store.add_prompts([Prompt("x", checker="code", check={"run": f"python3 {tmp_path}/check.py {{file}}"})])
        store.add_candidates([Candidate(next(store.prompts()).id, "```python\n1\n```")])
        scorer = open_scorer("code", sandbox=Config().score.sandbox)
        job = Scoring(place.url, opened_as(scorer), '{"scripts": "other"}', 1, False)
        with pytest.raises(Exception, match="is another one here"), job.open():
            pass


TORCHRUN = """
import sys
sys.path.insert(0, {tests!r})
from test_training_processes import script
from pathlib import Path
exec(script(Path({model!r}), Path({out!r}), 2))
"""


@on_nodes
def test_training_on_two_nodes_is_that_of_one_process(
    nodes: Machines, forks: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """`torchrun` on each of two nodes, by gloo over the addresses of both."""
    from test_training_processes import run, same

    assert run(forks, tiny_model, tmp_path / "one" / "run", 1)
    program = tmp_path / "program.py"
    program.write_text(TORCHRUN.format(tests=str(TESTS), model=str(tiny_model), out=str(tmp_path / "run")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", nodes.nodes[0].address, "--master-port", "29400"]
    env = {**environment(nodes.folder), "HAFS_CACHE": str(tmp_path / "cache")}
    env |= {"GLOO_SOCKET_IFNAME": "eth0"} if nodes.own_addresses else {}
    started = [
        subprocess.Popen(
            [*node.prefix, *torchrun, "--node-rank", str(rank), str(program)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, node in enumerate(nodes.nodes[:2])
    ]
    for process in started:
        out, _ = process.communicate(timeout=280)
        assert process.returncode == 0, out[-6000:]
    same(tmp_path / "one" / "run", tmp_path / "run")


def fill(store: Store, n: int) -> None:
    """Prompts with two candidates each, who say how good they are."""
    from hafs.types import Candidate, Prompt

    made = [Prompt(f"prompt {i}") for i in range(n)]
    store.add_prompts(made)
    store.add_candidates(
        Candidate(p.id, f"answer {j} quality {(3 * j + i) % 9 + 1}", index=j)
        for i, p in enumerate(made)
        for j in range(2)
    )


def spent(store: Store) -> float:
    """Dollars by the ledger."""
    from hafs.judge.run.ledger import Ledger

    return sum(row["cost"] for row in Ledger(store).spending())
