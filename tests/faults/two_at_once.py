"""Two of everything at once in one workspace: each ends well or says who is there, and what is left in the end is what
one alone leaves. Annotators besides, two at one queue: nobody's answer is lost, and no prompt is answered twice."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from boundaries import PATH, finished, playing
from catalogue import Fault, Outcome

TIMES = 2
"""How often two of a verb are begun at the same time."""
PEOPLE = (2, 3, 5)

FAULTS = [Fault(f"two at once: {verb.name}", verb.name) for verb in PATH] + [
    Fault(f"{n} annotators at one queue", str(n)) for n in PEOPLE
]
QUICK = ("generate", "sft", "2")


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each verb twice at the same time, then once more."""
    verbs = {verb.name: verb for verb in PATH}
    with playing() as play:
        for fault in FAULTS if quick else faults:
            if quick and fault.attack not in QUICK:
                continue
            if fault.attack.isdigit():
                yield annotators(int(fault.attack))
                continue
            verb = verbs[fault.attack]
            play.undisturbed(verb)
            for time in range(1 if quick else TIMES):
                root = play.fresh(verb)
                both = [play.start(verb, root) for _ in range(2)]
                ended = [finished(pid, out) for pid, out in both]
                last = play.run(verb, root)
                differing = play.differs(verb, root)
                well = all(e.explained for e in ended) and min(e.code for e in ended) == 0 == last.code
                words = [e.text[-500:] for e in (*ended, last) if not e.explained or e.code]
                note = f"{[e.code for e in ended]}, then {last.code}; differs in {differing[:5]}; {words}"
                yield Outcome(f"{fault.name}, {time + 1}", lost=not well or bool(differing), note=note)


def annotators(people: int, prompts: int = 24) -> Outcome:
    """Processes that each answer what the queue gives them until it gives nothing."""
    from annotate_site import fill, graded
    from hafs.annotate.service import AnnotationService
    from hafs.config import AnnotateSettings
    from hafs.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        with open_store(path) as store:
            fill(store, graded(prompts, 3))
        children = []
        for person in range(people):
            if pid := os.fork():
                children.append(pid)
                continue
            code = 1
            try:
                service = AnnotationService(open_store(path), AnnotateSettings(overlap=0, repeats=0))
                while (item := service.next_item(f"person {person}")) is not None:
                    service.submit(f"person {person}", item.lease, answer="all_bad")
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        with open_store(path) as store:
            found = Counter(a.prompt_id for a in store.annotations())
    lost = any(codes) or len(found) != prompts or set(found.values()) != {1}
    return Outcome(f"{people} annotators at one queue", lost=lost, note=f"{codes}; {found.total()} of {prompts}")
