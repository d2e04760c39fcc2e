"""Clocks that jump while a verb of the path runs, and while people answer: what is left must be what a good clock
leaves; a lease ends, is not lost to whoever holds it, and nobody's answer is kept twice or dropped."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from boundaries import PATH, playing
from catalogue import Fault, Outcome

YEAR = 365 * 86400.0
CLOCKS: dict[str, Callable[[float, int], float]] = {
    "1970": lambda now, n: now % 1000,
    "years behind": lambda now, n: now - 10 * YEAR,
    "after 2038": lambda now, n: now + 15 * YEAR,
    "an hour on at every look": lambda now, n: now + 3600.0 * n,
    "an hour back at every look": lambda now, n: now - 3600.0 * n,
    "anywhere": lambda now, n: now + random.Random(n).uniform(-YEAR, YEAR),
}
LEASES = {
    "a day on": 86_400.0,
    "a day back": -86_400.0,
    "30 years on": 30 * YEAR,
    "30 years back": -30 * YEAR,
    "to 1970": -1_000_000.0,
    "a second on": 1.0,
    "nowhere": 0.0,
}

FAULTS = [Fault(f"clock: {name}: {verb.name}", f"{name}|{verb.name}") for verb in PATH for name in CLOCKS] + [
    Fault(f"the clock goes {name} while somebody answers", name) for name in LEASES
]
QUICK = ("anywhere|generate", "a day on", "30 years back")


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each verb under each clock, each jump in the middle of an answer."""
    verbs = {verb.name: verb for verb in PATH}
    with playing() as play:
        for fault in [f for f in FAULTS if f.attack in QUICK] if quick else faults:
            name, _, of = fault.attack.partition("|")
            if not of:
                yield answering(fault.name, LEASES[name])
                continue
            verb = verbs[of]
            play.undisturbed(verb)
            root = play.fresh(verb)
            good = time.time
            time.time = jumping(CLOCKS[name])
            try:
                bad = play.run(verb, root)
            finally:
                time.time = good
            again = play.run(verb, root)
            differing = play.differs(verb, root)
            lost = bool(bad.code or again.code or differing)
            note = f"{bad.code}, {again.code}; differs in {differing[:5]}; {bad.text[-400:] if bad.code else ''}"
            yield Outcome(fault.name, lost=lost, note=note)


def jumping(clock: Callable[[float, int], float], real: Callable[[], float] = time.time) -> Callable[[], float]:
    """A clock in the place of the right one."""
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return clock(real(), looks)

    return now


def answering(name: str, jump: float) -> Outcome:
    """Ann takes a prompt, the clock jumps, Bob takes one, both answer, twice."""
    from annotate_site import fill, graded
    from hafs.annotate.service import AnnotationService
    from hafs.config import AnnotateSettings
    from hafs.errors import HafsError
    from hafs.store import open_store

    clock = [1_000_000.0]
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder, "store.db")) as store:
        fill(store, graded(2, 3))
        settings = AnnotateSettings(overlap=0, repeats=0, lease_seconds=100)
        service = AnnotationService(store, settings, clock=lambda: clock[0])
        items = {"ann": service.next_item("ann")}
        clock[0] += jump
        items["bob"] = service.next_item("bob")
        said = []
        for person, item in (*items.items(), *items.items()):
            try:
                if item is not None:
                    service.submit(person, item.lease, answer="all_bad")
            except HafsError as e:
                said.append(e.what)
        for _ in range(3):
            for person in items:
                if (left := service.next_item(person)) is not None:
                    service.submit(person, left.lease, answer="all_bad")
        kept = [a.prompt_id for a in store.annotations()]
    return Outcome(name, lost=sorted(kept) != sorted(set(kept)) or len(kept) != 2, note=f"{len(kept)} kept; {said}")
