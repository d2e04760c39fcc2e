"""Candidates made while somebody looks at others: one thread works through the prompts that are needed next.

It is what `hafs annotate start --model` gives to the annotation service. The models are loaded by the thread, at the
first prompt; candidates go into the store prompt by prompt, so that whatever was made stays when the program ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from hafs.backends import Backend
from hafs.config import GenerateConfig
from hafs.errors import HafsError
from hafs.generation.candidates import generate_candidates
from hafs.store import Store
from hafs.types import Prompt

CLOSING_SECONDS = 30.0
"""How long `close` waits for the prompt in work."""


class Preparer:
    """Makes the candidates of `config` with every model of `backends` (each opened when first needed).

    Calling it with prompts replaces what is planned; with `wait` it returns when the first has its candidates, and
    raises what went wrong with it. Use it as a context manager, or call `close`.
    """

    def __init__(self, store: Store, backends: Sequence[Callable[[], Backend]], config: GenerateConfig) -> None:
        self._store, self._opens, self._config = store, list(backends), config
        self._backends: list[Backend] = []
        self._planned: list[Prompt] = []
        self._done: set[str] = set()
        self._failed: dict[str, Exception] = {}
        self._change = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, prompts: Sequence[Prompt], wait: bool) -> None:
        """See the class; raises HafsError when it was closed while waiting."""
        with self._change:
            failed = dict.fromkeys(self._failed) if not wait else {}
            if wait:
                self._failed.pop(prompts[0].id, None)
            self._planned = [p for p in prompts if p.id not in self._done and p.id not in failed]
            self._start()
            self._change.notify_all()
            if wait:
                self._wait(prompts[0].id)

    def close(self) -> None:
        """Stop after the prompt in work."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="candidates", daemon=True)
            self._thread.start()

    def _wait(self, id: str) -> None:
        self._change.wait_for(lambda: id in self._done or id in self._failed or self._stopped)
        if id in self._failed:
            raise self._failed[id]
        if id not in self._done:
            raise HafsError("the program is ending", "run the same command again; it goes on from here")

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._planned or self._stopped)
                if self._stopped:
                    return
                prompt = self._planned.pop(0)
            try:
                self._make(prompt)
            except Exception as error:  # it belongs to whoever waits for this prompt
                with self._change:
                    self._failed[prompt.id] = error
                    self._change.notify_all()
            else:
                with self._change:
                    self._done.add(prompt.id)
                    self._change.notify_all()

    def _make(self, prompt: Prompt) -> None:
        while len(self._backends) < len(self._opens):
            self._backends.append(self._opens[len(self._backends)]())
        for backend in self._backends:
            generate_candidates(self._store, backend, [prompt], self._config)
