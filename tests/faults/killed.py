"""kill -9 before each write of every verb of the path, after the last one, and at random moments.

The same command again must then end well, and leave what it leaves undisturbed: the same rows, the same files, and no
others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from boundaries import MOMENTS, PATH, Ended, Play, Verb, places, playing
from catalogue import Fault, Outcome

LOOP = 40
"""Boundaries of the loop that are tried: it passes all those of the verbs that it is made of, several times."""

FAULTS = [Fault(f"killed at a write: {verb.name}", verb.name) for verb in PATH] + [
    Fault(f"killed at a random moment: {verb.name}", verb.name) for verb in PATH if verb.long
]
QUICK = ("sft", "generate")


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each verb killed at each place."""
    verbs = {verb.name: verb for verb in PATH}
    with playing() as play:
        for fault in FAULTS[: len(PATH)] if quick else faults:
            verb = verbs[fault.attack]
            if quick and verb.name not in QUICK:
                continue
            quiet = play.undisturbed(verb)
            yield Outcome(f"{verb.name}: undisturbed", lost=quiet.code != 0, note=quiet.text[-300:])
            if "random" in fault.name:
                draw = random.Random(verb.name)
                for _ in range(MOMENTS):
                    moment = draw.uniform(0, quiet.seconds)
                    yield tried(play, verb, f"after {moment:.3f} s", play.run(verb, play.fresh(verb), after=moment))
                continue
            most = 2 if quick else LOOP if verb.name == "loop" else None
            for at, what in places(quiet.passed, most):
                yield tried(play, verb, what, play.run(verb, play.fresh(verb), at))


def tried(play: Play, verb: Verb, what: str, broken: Ended) -> Outcome:
    """What comes of the same command again in the folder in which the last one broke off."""
    root = play.folder / "here"
    again = play.run(verb, root)
    differing = play.differs(verb, root)
    lost = again.code != 0 or bool(differing) or not (broken.code < 0 or broken.explained)
    note = f"{broken.code}, then {again.code}; differs in {differing[:5]}"
    if lost:
        note += f"; {broken.text[-600:] if broken.code >= 0 else ''}; {again.text[-600:] if again.code else ''}"
    return Outcome(f"{verb.name}: {what}", lost=lost, note=note)
