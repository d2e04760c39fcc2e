"""What every kind of fault is made of, and the runner of all: `make faults`.

A kind is one file in this folder with `FAULTS`, its rows, and `outcomes(faults, quick)`, which causes them against the
real component and says of each what came of it; where a row stands for many ("at every write of this verb"), each of
them, or a few where it has to be `quick`. A row is a name, what is done, and what must hold. A new kind is a new file and
its name in `KINDS`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

KINDS = (
    "python_answers",
    "assembly_answers",
    "text_answers",
    "killed",
    "full_disk",
    "judge_replies",
    "two_at_once",
    "clocks",
    "damaged_files",
    "hostile_models",
    "floods",
    "pages",
)
SHORT = 9  # of the short form, one row in so many (a kind may have a number of its own); the first are always in it


@dataclass(frozen=True)
class Fault:
    """One row: `holds` is "fails" (it must not pass), "slow" (it may pass, with no better clocks than honest code) or
    "harmless" (whatever is said of it, all others are what they were).
    """

    name: str
    attack: str
    holds: str = "fails"


@dataclass(frozen=True)
class Outcome:
    """What came of a fault. `forged`: a wrong answer passed; `leaked`: a secret came out; `lost`: somebody else's work,
    file, process or score was harmed. `note` says what was seen.
    """

    fault: str
    forged: bool = False
    leaked: bool = False
    lost: bool = False
    note: str = ""

    @property
    def survived(self) -> bool:
        """Whether nothing that must hold was broken."""
        return not (self.forged or self.leaked or self.lost)


def short(faults: Sequence[Fault], every: int, first: int = 4) -> list[Fault]:
    """The rows that `make test` tries."""
    return [*faults[:first], *faults[first::every]]


def outcomes(kind: str, quick: bool = False) -> Iterator[Outcome]:
    """What comes of the faults of a kind."""
    module: Any = importlib.import_module(kind)
    yield from module.outcomes(short(module.FAULTS, getattr(module, "SHORT", SHORT)) if quick else module.FAULTS, quick)


def main() -> int:
    """Run the catalogue (or the kinds named; of each a few rows after `--quick`), say what broke, and end with the line
    of the result.
    """
    found, quick = [], "--quick" in sys.argv
    for kind in [word for word in sys.argv[1:] if word != "--quick"] or KINDS:
        for outcome in outcomes(kind, quick):
            found.append(outcome)
            if not outcome.survived:
                print(f"{kind}: {outcome.fault}: {outcome}", flush=True)
        print(f"{kind}: {len(found)} so far, {sum(o.survived for o in found)} survived", flush=True)
    counts = {name: sum(getattr(o, name) for o in found) for name in ("survived", "lost", "leaked", "forged")}
    print("RESULT " + json.dumps({"faults": len(found), **counts}))
    return 0 if counts["survived"] == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
