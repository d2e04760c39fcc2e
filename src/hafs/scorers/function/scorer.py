"""The scorer itself: finds the user's file, calls the harness, takes nothing for a score that is none."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, UsageError
from hafs.sandbox import Limits, Sandbox, open_sandbox
from hafs.scorers.code.command import command_of
from hafs.scorers.function import harness
from hafs.types import Candidate, Prompt, Score, content_id

__all__ = ["FunctionScorer"]

BATCH = 32
"""Answers of one start of the sandbox."""
SECONDS = 10.0
"""What the function may take for one answer."""
START = 60.0
"""What the start of the harness and the import of the file may take besides."""
FIX = "write it as my_check.py:score, a file and a function score(prompt, answer) in it"


class FunctionScorer:
    """Scores an answer by what `FILE.py:NAME` returns for it: `True`, `False`, a number from 0 to 1, or one of these
    with details. An exception, a wrong return or a time-out leaves the answer unscored.

    `arguments` hold the content of the file and of the modules beside it that it imports: after an edit answers are
    scored anew.
    """

    name = "function"
    version = "1"

    def __init__(self, argument: str = "", sandbox: str = "auto", **_: Any) -> None:
        file, _colon, name = argument.partition(":")
        self._file, self._name = Path(file).expanduser().absolute(), name or "score"
        if not file.endswith(".py") or not self._name.isidentifier():
            raise UsageError(f"the scorer function cannot read {argument!r}", FIX)
        if not self._file.is_file():
            raise UsageError(f"there is no {self._file}, which should have the function {self._name}", FIX)
        self._files = {m.name: m.read_bytes() for m in _modules(self._file)}
        if self._name not in _defined(self._file):
            raise UsageError(f"{self._file} has no function {self._name!r}", FIX)
        content = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self._files.items()}
        self.arguments: Mapping[str, Any] = {"function": f"{self._file.name}:{self._name}", "content": content}
        self._kind = sandbox
        self._box: Sandbox | None = None

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """See `Scorer.score`; equal answers to one prompt are asked about once a batch."""
        for at in range(0, len(items), BATCH):
            part = items[at : at + BATCH]
            unique = {content_id(p.id, c.text): (p, c.text) for p, c in part}
            said = dict(zip(unique, self._asked(list(unique.values())), strict=True))
            for prompt, candidate in part:
                found = said[content_id(prompt.id, candidate.text)]
                blank = (candidate.id, self.name, self.version, self.arguments)
                yield Score(*blank, reason=found) if isinstance(found, str) else Score(*blank, **found)

    def close(self) -> None:
        """Give back the sandbox."""
        if self._box is not None:
            self._box.close()
            self._box = None

    def _asked(self, pairs: Sequence[tuple[Prompt, str]]) -> list[dict[str, Any] | str]:
        """What the function says of each answer, or why nothing; one that ends the process costs itself alone."""
        out: list[dict[str, Any] | str] = []
        while len(out) < len(pairs):
            try:
                out += self._started(pairs[len(out) :])
            except HafsError as e:
                out += [f"{e.what} ({e.fix})" if e.fix else e.what] * (len(pairs) - len(out))
        return out

    def _started(self, pairs: Sequence[tuple[Prompt, str]]) -> list[dict[str, Any] | str]:
        """One start of the harness: what came of the first answers, at least one of them."""
        items = [{"prompt": p.text, "answer": text, "row": _row(p)} for p, text in pairs]
        asked = {"file": self._file.name, "name": self._name, "seconds": SECONDS, "items": items}
        python = command_of(sys.executable)
        source = Path(harness.__file__).read_text(encoding="utf-8")
        self._box = self._box or open_sandbox(self._kind)
        result = self._box.run(
            [*python.argv, "-sPB", "-c", source],
            files=self._files,
            read=python.read,
            stdin=json.dumps(asked).encode(),
            limits=Limits(seconds=START + SECONDS * len(items), memory_mb=2048, processes=32),
        )
        if result.status == "sandbox broken":
            raise HafsError(f"the sandbox is broken: {result.reason}", "hafs doctor")
        rows = [row for line in result.stdout.splitlines()[: len(items)] if (row := _parsed(line)) is not None]
        if rows and "broken" in rows[0]:
            raise HafsError(f"{self._file.name} cannot be used: {rows[0]['broken']}", "")
        found: list[dict[str, Any] | str] = [_checked(row) for row in rows]
        if len(found) < len(items):
            last = result.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
            found.append(f"{self._name} ended the process ({result.reason or result.status}{': ' * bool(last)}{last})")
        return found


def _row(prompt: Prompt) -> dict[str, Any]:
    """What a function with a parameter `row` gets beside the prompt's text."""
    row = prompt.to_dict()
    row["references"] = [r.text for r in prompt.references]
    return row


def _defined(file: Path) -> set[str]:
    """The names that a file gives a value at its top, as far as can be seen without running it."""
    names: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    return names


def _modules(file: Path) -> list[Path]:
    """The file and the modules beside it that it imports, in one or several steps."""
    found = [file]
    for one in found:
        for node in ast.walk(_tree(one)):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            beside = [file.with_name(f"{name.partition('.')[0]}.py") for name in named]
            found += [path for path in dict.fromkeys(beside) if path.is_file() and path not in found]
    return found


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as e:
        raise UsageError(f"{file} cannot be read as Python: {e}", "correct it; nothing has been scored with it") from e


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _checked(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """A line of the harness, which shares its process with the user's code, as parts of a score."""
    if isinstance(reason := row.get("reason"), str):
        return reason[:500]
    value, passed, details = row.get("value"), row.get("passed"), row.get("details")
    sound = isinstance(value, float) and math.isfinite(value) and 0 <= value <= 1
    if not sound or not isinstance(passed, bool) or not isinstance(details, dict):
        return f"the function's result cannot be read: {dict(row)!r:.200}"
    cause = str(row.get("cause", ""))[:200]
    return {"value": value, "key": (value,), "passed": passed, "cause": cause, "details": details}
