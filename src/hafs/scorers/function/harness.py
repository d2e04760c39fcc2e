"""What runs in the sandbox for `hafs.scorers.function`: calls the user's function on each answer.

Standard input is one JSON object: `file`, `name`, `seconds` and `items`, each with `prompt`, `answer` and `row`. A line
of JSON comes out an answer: a value with `passed`, `cause` and `details`, or the `reason` why there is none. Standard
library only.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

LONGEST = 4000
"""Characters of details that are kept."""


class TooSlow(BaseException):
    """The function took longer than it may; no `except Exception` of the user's catches it."""


def main() -> None:
    """Read what is asked, load the file, answer."""
    asked = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the function prints is no result
    path = Path(asked["file"])
    sys.path.insert(0, str(path.parent))

    def say(row: dict[str, Any]) -> None:
        out.write(json.dumps(row) + "\n")
        out.flush()

    try:
        function = _loaded(path, asked["name"])
        with_row = "row" in inspect.signature(function).parameters
    except BaseException as e:  # whatever the user's file raises when it is imported is the file's own fault
        say({"broken": _fault(e, path)})
        return

    def alarm(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, alarm)
    for item in asked["items"]:
        more = {"row": item["row"]} if with_row else {}
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
        try:
            row = told(function(item["prompt"], item["answer"], **more), asked["name"])
        except TooSlow:
            row = {"reason": f"{asked['name']} took more than {asked['seconds']:g} seconds"}
        except BaseException as e:  # an exception or an exit of the function says nothing of the answer
            row = {"reason": f"{asked['name']} raised {_fault(e, path)}"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        say(row)


def _loaded(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise LookupError(f"{path.name} has no function {name!r}")
    return found


def _fault(error: BaseException, path: Path) -> str:
    """An exception in one line, with the line of the user's file that it came from."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    at = f" ({path.name} line {lines[-1]})" if lines else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] + at


def told(found: Any, name: str) -> dict[str, Any]:
    """What a function returned, as the parts of a score; with the `reason` where it is none."""
    value, details = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        return {"reason": f"{name} returned {found!r:.80}, not a number from 0 to 1, True, False, or one with details"}
    more = {"cause": details} if isinstance(details, str) else details if isinstance(details, dict) else None
    if more is None:
        return {"reason": f"{name} returned details of the type {type(details).__name__}, not a dict or a text"}
    passed = more.get("passed", value if isinstance(value, bool) else value >= 1)
    if not isinstance(passed, bool):
        return {"reason": f"{name} returned passed = {passed!r:.40}, not True or False"}
    text = json.dumps({str(k): v for k, v in more.items() if k not in ("passed", "cause")}, default=str)
    rest = json.loads(text)
    if len(text) > LONGEST:
        rest = {"cut": f"{len(text)} characters of details, of which {LONGEST} are kept", "text": text[:LONGEST]}
    cause = "" if passed else str(more.get("cause", ""))[:200]
    return {"value": float(value), "passed": passed, "cause": cause, "details": rest}


if __name__ == "__main__":
    main()
