"""What a cluster costs and gains: rows a second through the driver and through the database, one worker against two.

Workers are this machine's, the database is PostgreSQL over TCP. A worker is killed in the middle of sampling, another
in the middle of scoring: what is lost then, and what is there twice, is counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from cluster_nodes import postgres
from common import peak_mb, result, seconds
from hafs.backends import Answer, Capabilities, Request
from hafs.cluster import Crew, open_crew
from hafs.config import ClusterConfig, GenerateConfig
from hafs.generation.candidates import Sampler, generate_candidates
from hafs.scorers import open_scorer
from hafs.scorers.run import SCORE_CHUNK, Scored, score_candidates
from hafs.store import Store, open_store
from hafs.store.engine import database_url
from hafs.types import Candidate, Prompt

ANSWERS = 8


@dataclass(frozen=True)
class Nothing:
    """Work that takes no time."""

    accelerated = False

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[str]], Scored]]:
        """Open nothing."""
        yield lambda ids: Scored(len(ids), {})


class Mute:
    """A backend that answers at once."""

    name = model = "mute"
    capabilities = Capabilities(n=True, logprobs=True, seed=True, batch=True)

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """Batches of as many answers as the settings say."""
        each = max(1, config.batch_size // config.candidates)
        return [list(requests[i : i + each]) for i in range(0, len(requests), each)]

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """Some text for each."""
        return [
            Answer(r.key, r.index + i, f"answer {r.index + i} " + "lda #$12 " * 40, tuple(range(120)), -1.0, "stop")
            for r in batch
            for i in range(r.n)
        ]


@contextmanager
def database(server: str, name: str) -> Iterator[Store]:
    """An empty database of that name."""
    admin = create_engine(database_url(f"{server}/postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    with open_store(f"{server}/{name}") as store:
        yield store


def crew_of(workers: int, store: Store, stack: ExitStack) -> Crew:
    """So many workers on this machine, ready: what they have to load is loaded."""
    crew = stack.enter_context(open_crew(ClusterConfig(address="local", workers=workers), store.url))
    list(crew.map(Nothing(), [["x"]] * workers, workers))
    return crew


def prompts(n: int, check: str = "") -> list[Prompt]:
    """Prompts, checked by a command where one is given."""
    checked = {"checker": "code", "check": {"run": check}} if check else {"checker": "text:min_words=1"}
    return [Prompt(f"write routine {i}", **checked) for i in range(n)]  # type: ignore[arg-type]


def driver(server: str, n: int) -> dict[str, float]:
    """Rows a second of one process that samples without a model, of the driver, and of one worker that scores."""
    with database(server, "driver") as store, ExitStack() as stack:
        asked = prompts(n // ANSWERS)
        store.add_prompts(asked)
        sampler = Sampler(store, Mute(), GenerateConfig(candidates=ANSWERS, batch_size=64))
        batches = Mute().plan([Request.of(p, ANSWERS) for p in asked], sampler.config)
        kept = seconds(lambda: [sampler(batch) for batch in batches])
        crew = crew_of(1, store, stack)

        def through() -> None:
            ids = [c.id for _, c in store.to_score("text", "2", {})]
            chunks = [ids[i : i + SCORE_CHUNK] for i in range(0, len(ids), SCORE_CHUNK)]
            assert sum(len(chunk) for chunk, _ in crew.map(Nothing(), chunks, 1)) == n

        passed = seconds(through)
        with closing(open_scorer("text:min_words=1")) as scorer:
            warm = seconds(lambda: score_candidates(store, scorer, crew=crew, prompt_ids=[asked[0].id]))
            scored = seconds(lambda: score_candidates(store, scorer, crew=crew))
        tracemalloc.start()
        held = list(store.candidates())
        size = tracemalloc.get_traced_memory()[0] / len(held)
        tracemalloc.stop()
    print(f"{n} rows: kept {n / kept:.0f}/s by one sampling process, through the driver {n / passed:.0f}/s,")
    print(f"  scored by one worker at no cost {n / scored:.0f}/s (its start took {warm:.1f} s)")
    print(f"  a candidate takes {size:.0f} bytes in the driver's memory")
    rates = {"rows_per_s_driver": n / passed, "rows_per_s_sampled": n / kept, "rows_per_s_scored": n / scored}
    return {**rates, "bytes_a_candidate": size}


CHECK = "import sys\nn = 0\nfor i in range({loops}):\n    n += i * i % 7\nsys.exit(n % 2)\n"


def scale(server: str, folder: Path, n: int, loops: int) -> dict[str, float]:
    """How much faster two workers check than one, the work being a checker's: a program run for each answer."""
    script = folder / "check.py"
    script.write_text(CHECK.format(loops=loops))
    took = {}
    for workers in (1, 2):
        with database(server, f"scale_{workers}") as store, ExitStack() as stack:
            asked = prompts(n, f"python3 {script} {{file}}")
            store.add_prompts(asked)
            store.add_candidates(Candidate(p.id, f"```python\n{i}\n```") for i, p in enumerate(asked))
            crew = crew_of(workers, store, stack)
            scorer = stack.enter_context(closing(open_scorer("code")))
            first = [p.id for p in asked[: 2 * SCORE_CHUNK]]
            score_candidates(store, scorer, crew=crew, prompt_ids=first)  # both are ready after it
            took[workers] = seconds(
                lambda store=store, scorer=scorer, crew=crew: score_candidates(store, scorer, crew=crew)
            )
    n -= 2 * SCORE_CHUNK
    print(f"{n} answers checked in {took[1]:.1f} s by one worker, {took[2]:.1f} s by two")
    return {"scale_2_workers": took[1] / took[2]}


def deaths(server: str, folder: Path, n: int) -> dict[str, float]:
    """What is lost and what is there twice when a worker is killed while it samples, and another while it scores."""
    from conftest import byte_tokenizer, tiny_network
    from hafs.backends import open_planner

    tiny_network().save_pretrained(str(folder / "tiny"))
    byte_tokenizer().save_pretrained(str(folder / "tiny"))
    script = folder / "slow.py"
    script.write_text("import time\ntime.sleep(0.03)\n")
    config = GenerateConfig(candidates=ANSWERS, batch_size=64, max_new_tokens=96, temperature=1.0)
    killed: list[int] = []

    def killing(what: str, done: int, total: int, figures: object) -> None:
        if total > 4 and done * 3 >= total and len(killed) < (1 if what == "generating" else 2):
            pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_worker(p)]
            os.kill(pids[0], 9)
            killed.append(pids[0])

    with database(server, "deaths") as store, ExitStack() as stack:
        crew = crew_of(2, store, stack)
        asked = prompts(n // ANSWERS, f"python3 {script} {{file}}")
        made = generate_candidates(store, open_planner(str(folder / "tiny")), asked, config, killing, crew)
        scorer = stack.enter_context(closing(open_scorer("code")))
        score_candidates(store, scorer, killing, crew=crew)
        places = {(c.prompt_id, c.index) for c in store.candidates()}
        rows, scores = sum(1 for _ in store.candidates()), [s.candidate_id for s in store.scores()]
        died = crew.died
    print(f"{died} workers killed: {len(made.candidates)} of {n} candidates, {len(set(scores))} scores")
    lost = (n - len(places)) + (n - len(set(scores)))
    return {"lost": lost, "doubled": rows - len(places) + len(scores) - len(set(scores)), "workers_killed": died}


def _is_worker(process: Path) -> bool:
    try:
        return (process / "cmdline").read_text().startswith("ray::Worker") and _under(process, os.getpid())
    except OSError:
        return False


def _under(process: Path, ancestor: int) -> bool:
    """Whether a process was started by another, or by one that it started."""
    pid = int(process.name)
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--answers", type=int, default=768)
    parser.add_argument("--loops", type=int, default=1_500_000)
    given = parser.parse_args()
    started = time.monotonic()
    os.environ.update(RAY_worker_niceness="0")  # by default Ray's workers give way to everything else
    for name in [k for k in os.environ if k.lower().endswith("_proxy")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="hafs-bench-"))
    folder.chmod(0o755)
    with postgres(folder, "127.0.0.1") as server:
        figures = driver(server, given.rows)
        figures |= scale(server, folder, given.answers, given.loops)
        figures |= deaths(server, folder, 1024)
    result(**figures, peak_mb=peak_mb(), seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
