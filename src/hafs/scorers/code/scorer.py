"""The scorer of code in any language."""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hafs.errors import DataError, HafsError, MissingTool, UsageError
from hafs.sandbox import Limits, Result, Sandbox, interpreter, open_sandbox
from hafs.scorers.code import syntax
from hafs.scorers.code.command import Command, command_of, script_hashes, verdict
from hafs.scorers.fences import LONGEST_ANSWER, fences
from hafs.types import Candidate, Prompt, Score, content_id

__all__ = ["LANGUAGES", "CodeScorer"]

LANGUAGES: dict[str, tuple[str, ...]] = {
    "bash": ("sh", "shell", "zsh"),
    "c": ("h",),
    "clojure": ("clj",),
    "cpp": ("c++", "cc", "cxx", "hpp"),
    "csharp": ("cs", "c#"),
    "css": (),
    "dart": (),
    "dockerfile": ("docker",),
    "elixir": ("ex",),
    "erlang": ("erl",),
    "fortran": ("f90",),
    "go": ("golang",),
    "haskell": ("hs",),
    "html": (),
    "java": (),
    "javascript": ("js", "jsx"),
    "json": (),
    "julia": ("jl",),
    "kotlin": ("kt",),
    "lua": (),
    "make": ("makefile",),
    "nix": (),
    "ocaml": ("ml",),
    "perl": ("pl",),
    "php": (),
    "python": ("py", "python3"),
    "r": (),
    "ruby": ("rb",),
    "rust": ("rs",),
    "scala": (),
    "sql": (),
    "swift": (),
    "toml": (),
    "tsx": (),
    "typescript": ("ts",),
    "xml": (),
    "yaml": ("yml",),
    "zig": (),
}
"""The languages that are known, with the other tags that a code block may carry for them."""
_TAGS = {tag: name for name, tags in LANGUAGES.items() for tag in (name, *tags)}
BATCH = 32
FIX = "write it as code, code:LANGUAGE, code:run=COMMAND {file} or code:language=LANGUAGE,run=COMMAND {file}"


@dataclass(frozen=True)
class Settings:
    """What is done with an answer's code.

    `language` is one of LANGUAGES, "" for what the code block says. `run` is a command, in which {file} stands for the
    file of the code; `files` (name -> content) lie beside it, `read` are paths that the command may read besides those
    that it names itself. `seconds` and `memory_mb` limit it.
    """

    language: str = ""
    run: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    seconds: float = 10.0
    memory_mb: int = 1024


class CodeScorer:
    """Scores the code in an answer by its syntax and by a command's verdict.

    Without a command the value is 1 without syntax errors, else half the share of the code that is outside of errors.
    A command's last line may be JSON, {"value": 0..1, "passed": true, "cause": "", "details": {}}, all but the value
    optional; else its exit code decides: 0 is 1, any other 0.
    """

    name = "code"
    version = "2"

    def __init__(self, argument: str = "", sandbox: str = "auto", **_: Any) -> None:
        self._settings = _parse(argument)
        self._kind = sandbox
        self._box: Sandbox | None = None
        asked = {k: v for k, v in vars(self._settings).items() if v != getattr(Settings(), k)}
        try:
            asked["grammars"] = version("tree-sitter-language-pack")
        except importlib.metadata.PackageNotFoundError:
            asked["grammars"] = "missing"
        self._asked: Mapping[str, Any] = asked
        self.arguments: Mapping[str, Any] = asked
        self.prepare(())

    def prepare(self, prompts: Iterable[Prompt]) -> None:
        """Take what the scripts hold that the scorer's command and those of `prompts` name into `arguments`: after a
        script is edited, answers are scored anew.
        """
        hashes = script_hashes(self._settings.run, self._settings.files)
        for prompt in prompts:
            if prompt.checker == self.name and (run := prompt.check.get("run")) and isinstance(run, str):
                hashes |= script_hashes(run, prompt.check.get("files", ()))
        self.arguments = {**self._asked, **({"scripts": dict(sorted(hashes.items()))} if hashes else {})}

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """See `Scorer.score`. Raises DataError when a prompt's check is malformed, before anything runs."""
        settings = {p.id: self._of(p) for p, _ in items}
        for at in range(0, len(items), BATCH):
            part = items[at : at + BATCH]
            found = [(settings[p.id], *find(c.text, settings[p.id].language)) for p, c in part]
            try:
                checked = self._syntax([(language, code) for _, language, code in found])
            except MissingTool as e:
                checked = [f"{e.what} ({e.fix})" if e.fix else e.what] * len(part)
            except HafsError as e:
                checked = [e.what] * len(part)
            known: dict[str, dict[str, Any] | str] = {}
            for (prompt, candidate), (asked, language, code), tree in zip(part, found, checked, strict=True):
                key = content_id(prompt.id, code)
                if key not in known:
                    try:
                        known[key] = self._judged(asked, language, code, tree)
                    except HafsError as e:
                        known[key] = f"{e.what} ({e.fix})" if e.fix else e.what
                    except Exception as e:  # what one answer did to our own code must not end the scoring of all
                        known[key] = f"the scorer failed on this answer: {type(e).__name__}: {e}"[:300]
                yield self._to_score(candidate, known[key])

    def close(self) -> None:
        """Give back the sandbox."""
        if self._box is not None:
            self._box.close()
            self._box = None

    def _of(self, prompt: Prompt) -> Settings:
        if prompt.checker != self.name or not prompt.check:
            return self._settings
        return _checked(prompt.check, f"the check of prompt {prompt.id}", self._settings)

    def _sandbox(self) -> Sandbox:
        self._box = self._box or open_sandbox(self._kind)
        return self._box

    def _syntax(self, codes: Sequence[tuple[str, str]]) -> list[dict[str, Any] | str]:
        """What tree-sitter says of each (language, code): errors, or why there is no answer; {} for no language."""
        asked = [i for i, (language, code) in enumerate(codes) if language and code]
        out: list[dict[str, Any] | str] = [{} for _ in codes]
        if asked and importlib.util.find_spec("tree_sitter_language_pack") is None:
            raise MissingTool("the package tree-sitter-language-pack is not installed", "pip install 'hafs[code]'")
        while asked:
            said = self._trees([codes[i] for i in asked])
            for i, row in zip(asked, said, strict=False):
                out[i] = row
            if len(said) < len(asked):
                out[asked[len(said)]] = "the parser of its language crashed on it"
            asked = asked[len(said) + 1 :]
        return out

    def _trees(self, codes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """The answers of syntax.py; fewer than `codes` when one of them brought it down."""
        program, read = interpreter()
        site = Path(sysconfig.get_paths()["platlib"])
        asked = json.dumps({"path": [str(site)], "codes": codes}).encode()
        source = Path(syntax.__file__).read_text(encoding="utf-8")
        limits = Limits(seconds=60.0, memory_mb=2048)
        result = self._sandbox().run([program, "-sPSB", "-c", source], read=[*read, site], stdin=asked, limits=limits)
        if result.status == "sandbox broken":
            raise HafsError(f"the sandbox is broken: {result.reason}", "hafs doctor")
        return [row for line in result.stdout.splitlines()[: len(codes)] if (row := _tree(line))]

    def _judged(self, asked: Settings, language: str, code: str, tree: dict[str, Any] | str) -> dict[str, Any] | str:
        """The parts of a Score, or why there is none."""
        if not code.strip():
            return {"value": 0.0, "key": (0.0, 0.0), "passed": False, "cause": "no code"}
        if isinstance(tree, str):
            return tree
        if not tree and not asked.run:
            return "the code names no language that is known (name one: code:LANGUAGE)"
        details = {"language": language, **tree}
        if tree.get("errors"):
            value = 0.0 if asked.run else round(0.5 * (1.0 - tree["share"]), 6)
            return {
                "value": value,
                "key": (0.0, 1.0 - tree["share"]),
                "passed": False,
                "cause": "syntax error",
                "details": details,
            }
        if not asked.run:
            return {"value": 1.0, "key": (1.0, 1.0), "details": details}
        try:
            command = command_of(asked.run, asked.files)
        except HafsError as e:
            return f"{e.what} ({e.fix})"
        said = verdict(self._run(command, asked, language, code), command)
        if isinstance(said, str):
            return said
        return {**said, "key": (1.0, said["value"]), "details": {**details, **said["details"]}}

    def _run(self, command: Command, asked: Settings, language: str, code: str) -> Result:
        name = f"answer.{(LANGUAGES.get(language) or (language or 'txt',))[0] if language != 'c' else 'c'}"
        argv = [word.replace("{file}", name) for word in command.argv]
        read = [*command.read, *(Path(p).absolute() for p in asked.read if Path(p).exists())]
        files = {name: code.encode("utf-8", "replace"), **{k: v.encode() for k, v in asked.files.items()}}
        limits = Limits(seconds=asked.seconds, memory_mb=asked.memory_mb, processes=32)
        return self._sandbox().run(argv, files=files, read=read, limits=limits)

    def _to_score(self, candidate: Candidate, said: dict[str, Any] | str) -> Score:
        blank = (candidate.id, self.name, self.version, self.arguments)
        return Score(*blank, reason=said) if isinstance(said, str) else Score(*blank, **said)


def _tree(line: bytes) -> dict[str, Any]:
    """A line of syntax.py; empty when it is none."""
    try:
        row = json.loads(line)
        kinds = {"errors": int, "share": float, "first": int}
        sound = row.keys() == kinds.keys() and all(isinstance(row[k], (kind, int)) for k, kind in kinds.items())
    except (ValueError, AttributeError, RecursionError):
        return {}
    return row if sound else {}


def find(answer: str, language: str = "") -> tuple[str, str]:
    """(language, code) of an answer: the blocks of `language`, or of the language of the last block that names one;
    without blocks the whole text when the language is given.
    """
    blocks, _ = fences(answer[:LONGEST_ANSWER].splitlines())
    named = [b for b in blocks if b.tag in _TAGS and (not language or _TAGS[b.tag] == language)]
    language = language or (_TAGS[named[-1].tag] if named else "")
    mine = [b for b in named if _TAGS[b.tag] == language] or [b for b in blocks if not b.tag]
    if mine:
        return language, "\n\n".join(b.text for b in mine) + "\n"
    return (language, "") if blocks else (language, answer[:LONGEST_ANSWER])


def _parse(argument: str) -> Settings:
    if not argument:
        return Settings()
    if argument in _TAGS:
        return Settings(language=_TAGS[argument])
    head, found, command = argument.partition("run=")
    data: dict[str, Any] = {"run": command} if found else {}
    for part in filter(None, (p.strip() for p in head.split(","))):
        key, given, value = part.partition("=")
        if not given:
            raise UsageError(f"the scorer code: there is no language {part!r}", f"use one of: {', '.join(LANGUAGES)}")
        kinds: dict[str, Any] = {"seconds": float, "memory_mb": int, "read": lambda text: text.split(":")}
        try:
            data[key] = kinds.get(key, str)(value)
        except ValueError as e:
            raise UsageError(f"the scorer code: {key} is {value!r}, no number", FIX) from e
    return _checked(data, "the scorer code", Settings())


def _checked(data: Mapping[str, Any], where: str, base: Settings) -> Settings:
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(data) - known):
        raise DataError(f"{where}: there is no {unknown[0]!r}", f"use some of: {', '.join(sorted(known))}")
    kinds: dict[str, Any] = {
        "language": str,
        "run": str,
        "files": dict,
        "read": (list, tuple),
        "seconds": (int, float),
        "memory_mb": int,
    }
    for key, value in data.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise DataError(f"{where}: {key} cannot be {value!r}", FIX)
    if not 0 < data.get("seconds", 1) < math.inf or not data.get("memory_mb", 1) > 0:
        raise DataError(f"{where}: seconds and memory_mb are numbers above 0", FIX)
    settings = replace(base, **{**data, **({"read": tuple(data["read"])} if "read" in data else {})})
    if settings.language and settings.language not in _TAGS:
        raise DataError(f"{where}: there is no language {settings.language!r}", f"use one of: {', '.join(LANGUAGES)}")
    try:
        shlex.split(settings.run)
    except ValueError as e:
        raise DataError(f"{where}: the command cannot be read: {e}", FIX) from e
    return replace(settings, language=_TAGS.get(settings.language, ""))
