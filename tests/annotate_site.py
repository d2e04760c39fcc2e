"""A real page for tests: the annotation service over a real store, served by uvicorn, and Debian's Chromium."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hafs.annotate.service import AnnotationService
from hafs.annotate.web.app import create_app
from hafs.annotate.web.gate import server_of
from hafs.config import AnnotateSettings
from hafs.store import Store, open_store
from hafs.types import Annotation, Candidate, Prompt, Queued

TOKEN = "a-token-of-the-tests"
LINK = f"/?token={TOKEN}&name=ann"


def chromium() -> str:
    """Where Chromium is; without one the test is skipped."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs a Chromium: apt-get install chromium")


def fill(store: Store, texts: Sequence[Sequence[str]], prompt: Callable[[int], str] = "Prompt {}".format) -> list[str]:
    """One prompt for each list of answers; gives the prompts' ids."""
    prompts = [Prompt(prompt(i)) for i in range(len(texts))]
    store.add_prompts(prompts)
    store.add_candidates(
        Candidate(p.id, text, model=f"m{i}", model_name=f"model-{i}", index=i)
        for p, answers in zip(prompts, texts, strict=True)
        for i, text in enumerate(answers)
    )
    return [p.id for p in prompts]


def graded(prompts: int, answers: int) -> list[list[str]]:
    """Answers that say how good they are: `grade 0` is the best."""
    return [
        [f"Routine{p}:\n    LDA.b #${p:02X}\n    RTS ; grade {grade}" for grade in range(answers)]
        for p in range(prompts)
    ]


@dataclass
class Site:
    """A served page: its address, its store, and a clock that a test can turn on."""

    address: str
    store: Store
    asked: list[str]
    clock: list[float]

    def annotations(self, **filters: Any) -> list[Annotation]:
        """What is kept, in the order of the prompts, without what was taken back."""
        return sorted(self.store.annotations(**filters), key=lambda a: self.asked.index(a.prompt_id))

    def texts(self, annotation: Annotation) -> list[list[str]]:
        """The tiers of an annotation as the candidates' texts."""
        known = {c.id: c.text for c in self.store.candidates(ids=annotation.shown)}
        return [[known[id] for id in tier] for tier in annotation.tiers]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = server_of(app, lifespan="off", timeout_graceful_shutdown=3)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def site(
    folder: Path,
    texts: Sequence[Sequence[str]],
    *,
    check: Any = None,
    accounts: Any = None,
    prompt: Callable[[int], str] = "Prompt {}".format,
    **settings: Any,
) -> Iterator[Site]:
    """A page over a new store with these answers, asked in their order and once each unless the settings say else."""
    clock = [1_000_000.0]
    with open_store(folder / "store.sqlite") as store:
        asked = fill(store, texts, prompt)
        chosen = AnnotateSettings(**{"overlap": 0, "repeats": 0, **settings})
        service = AnnotationService(store, chosen, clock=lambda: clock[0], check=check, queued=map(Queued, asked))
        with served(create_app(service, token=TOKEN, accounts=accounts)) as address:
            yield Site(address, store, asked, clock)
