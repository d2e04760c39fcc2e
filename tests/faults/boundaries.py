"""Verbs in forks of this process, and the boundaries of their writes: where a kill or a full disk is put.

A boundary is the moment before a file is opened to be written, made, renamed, synced or removed, before and after a
rename, and before and after a commit of the database. They are found by running the verb once and counting; a fault
then happens at the n-th. What a verb leaves is compared with what an undisturbed run leaves (`state_of`).
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from catalogue import TESTS

from run_hafs import SETTINGS

MOMENTS = 20
"""How often a verb is killed at a random moment, beside the boundaries."""


@dataclass(frozen=True)
class Verb:
    """A verb with its flags. `long`: it is killed at random moments besides."""

    name: str
    command: str
    long: bool = False


PATH = [
    Verb("import of prompts", "data import prompts prompts.jsonl"),
    Verb("prompts made", "tasks generate python -n 6 --output made.jsonl"),
    Verb("sft", "sft --model model --data sft.jsonl --output-dir models/sft --num-epochs 1 --save-steps 1", True),
    Verb("generate", "generate --model models/sft/model --prompts prompts.jsonl --candidates-per-prompt 3", True),
    Verb("score", "score --scorer automatic", True),
    Verb("judge", "judge run --judge local@JUDGE --split train --concurrency 1", True),
    Verb("build of preferences", "preferences build --output groups.jsonl"),
    Verb(
        "dpo",
        "train dpo --sft-model models/sft/model --preference-data groups.jsonl --output-dir models/dpo --save-steps 1 --num-epochs 1",
        True,
    ),
    Verb(
        "reward model",
        "train reward --sft-model models/sft/model --preference-data groups.jsonl --output-dir models/reward --save-steps 1 --num-epochs 1",
        True,
    ),
    Verb(
        "ppo",
        "train ppo --sft-model models/sft/model --reward-model models/reward/model --prompts prompts.jsonl --output-dir models/ppo --save-steps 1 --num-epochs 1",
        True,
    ),
    Verb("evaluation of sft", "eval --model models/sft/model --name sft --benchmark held.jsonl", True),
    Verb("evaluation of dpo", "eval --model models/dpo/model --name dpo --benchmark held.jsonl"),
    Verb("comparison", "compare sft dpo --html compared.html --markdown compared.md"),
    Verb("report", "report sft dpo --output report.html"),
    Verb("export of a model", "export models/dpo/model --output exported"),
    Verb("export of preferences", "preferences export --format trl trl.jsonl"),
    Verb("loop", "loop", True),
]


@dataclass(frozen=True)
class Ended:
    """How a fork ended: exit code (negative: a signal), what it printed, boundaries that it passed, seconds."""

    code: int
    text: str
    passed: Sequence[str]
    seconds: float

    @property
    def explained(self) -> bool:
        """Whether it ended well or with a message for people."""
        return "Traceback" not in self.text and (self.code == 0 or "rror: " in self.text)


Act = Callable[[str], None]
"""What happens at a boundary, which it is told."""


def kill(what: str) -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill(what: str) -> None:
    """Fail as a full disk does; what only follows a write cannot fail."""
    if what.startswith("before"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the disk of the test")


def watch(root: Path, reached: Act) -> None:
    """Call `reached` at every boundary of this process from now on; files outside `root` are none of its own."""
    import safetensors.torch
    import sqlalchemy.engine.default as engine
    import torch.serialization as pickled

    base = str(root)

    def ours(path: object) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return bool(text) and str(Path(text).absolute()).startswith(base)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            if ours(arguments[0]):
                reached(f"before opening {Path(os.fsdecode(arguments[0])).name}")
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree") and ours(arguments[0]):
            reached(f"{'before' if event == 'os.mkdir' else 'at'} {event} {Path(os.fsdecode(arguments[0])).name}")

    def around(owner: Any, name: str, words: str, which: int | None) -> None:
        inner = getattr(owner, name)

        def outer(*arguments: Any, **keywords: Any) -> Any:
            told = f"{words} {Path(str(arguments[which])).name}" if which is not None else words
            reached(f"before {told}")
            result = inner(*arguments, **keywords)
            reached(f"after {told}")
            return result

        setattr(owner, name, outer)

    around(os, "replace", "renaming to", 1)
    around(os, "fsync", "syncing", None)
    around(safetensors.torch, "serialize_file", "writing", 1)
    around(pickled, "_save", "pickling", None)
    around(engine.DefaultDialect, "do_commit", "a commit", None)
    sys.addaudithook(heard)


class Play:
    """Prepared folders, one for each verb of the path, in which it is the next; verbs run there in forks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.judge = folder, _Judge()
        self.prepared: dict[str, Path] = {}
        self.quiet: dict[str, Ended] = {}
        self._masked: dict[str, set[str]] = {}
        self._states: dict[str, dict[str, Any]] = {}
        _import_all()

    def prepare(self, upto: str | None = None) -> None:
        """Run the path once, keeping a copy of the folder before each verb (up to one, if it is named)."""
        root = self.folder / "path"
        if not root.exists():
            _begin(root)
        for verb in PATH:
            if verb.name not in self.prepared:
                self.prepared[verb.name] = self.folder / f"before {verb.name}"
                shutil.copytree(root, self.prepared[verb.name], symlinks=True)
                ended = self.run(verb, root)
                assert ended.code == 0, f"{verb.name}: {ended.text[-3000:]}"
            if verb.name == upto:
                return

    def fresh(self, verb: Verb) -> Path:
        """A new folder in which the verb is the next; always at the same place, since runs know their paths."""
        root = self.folder / "here"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.prepared[verb.name], root, symlinks=True)
        return root

    def run(self, verb: Verb, root: Path, at: int = 0, act: Act = kill, after: float | None = None) -> Ended:
        """Run the verb to its end, to a fault at its n-th boundary, or to a kill after so many seconds."""
        pid, out = self.start(verb, root, at, act)
        return finished(pid, out, after)

    def start(self, verb: Verb, root: Path, at: int = 0, act: Act = kill) -> tuple[int, Path]:
        """Begin to run the verb; gives the process and the file of what it prints."""
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".out", delete=False) as file:
            out = Path(file.name)
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _child(verb.command.replace("JUDGE", self.judge.url), root, out, at, act)
        return pid, out

    def undisturbed(self, verb: Verb) -> Ended:
        """The verb twice on its own: what it passes, what it leaves, and what of that differs from run to run."""
        if verb.name not in self.quiet:
            self.prepare(verb.name)
            states = []
            for _ in range(2):
                root = self.fresh(verb)
                self.quiet[verb.name] = self.run(verb, root)
                states.append(state_of(root))
            one, two = states
            self._masked[verb.name] = {k for k in {*one, *two} if one.get(k) != two.get(k)}
            self._states[verb.name] = two
        return self.quiet[verb.name]

    def differs(self, verb: Verb, root: Path) -> list[str]:
        """What there is otherwise than after an undisturbed run."""
        wanted, found, masked = self._states[verb.name], state_of(root), self._masked[verb.name]
        return sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k) and k not in masked)

    def close(self) -> None:
        self.judge.close()


@cache
def _play() -> Play:
    folder = tempfile.TemporaryDirectory(prefix="hafs-faults-")
    play = Play(Path(folder.name))
    mine = os.getpid()
    atexit.register(lambda: (play.close(), folder.cleanup()) if os.getpid() == mine else None)
    return play


@contextmanager
def playing() -> Iterator[Play]:
    """The play of this process, which all kinds share: preparing it takes longer than most faults."""
    yield _play()


def finished(pid: int, out: Path, after: float | None = None) -> Ended:
    """Wait for a fork; kill it after so many seconds."""
    began = time.monotonic()
    if after is not None:
        while time.monotonic() - began < after and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    text = out.read_text(errors="replace")
    passed = re.findall(r"^\x01(.*)$", text, re.MULTILINE)
    out.unlink()
    return Ended(os.waitstatus_to_exitcode(status), re.sub(r"^\x01.*\n", "", text, flags=re.MULTILINE), passed, seconds)


def _child(command: str, root: Path, out: Path, at: int, act: Act) -> None:
    """The whole life of a fork: it never returns."""
    code = 1
    try:
        os.setsid()
        file = os.open(out, os.O_WRONLY | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(file, fd)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        os.environ |= {"HAFS_CACHE": str(root / "cache"), "TMPDIR": str(root / "tmp")}
        tempfile.tempdir = None
        os.chdir(root)
        count = 0

        def reached(what: str) -> None:
            nonlocal count
            count += 1
            os.write(1, f"\n\x01{what}\n".encode())
            if count == at:
                act(what)

        watch(root, reached)
        code = _work(command)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _work(command: str) -> int:
    if command == "loop":
        return _loop()
    from hafs.cli import main

    sys.argv = ["hafs", *command.split()]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _loop() -> int:
    """The loop of the tests, on a model that learns a word: two rounds."""
    from hafs.errors import HafsError
    from hafs.store import init_workspace, open_workspace
    from hafs.workflows.loop.run import run
    from loop_toy import toy_loop, write_tasks

    here = Path("loop")
    try:
        if not (here / "tasks.jsonl").exists():
            here.mkdir(exist_ok=True)
            write_tasks(here, 24, 12, 4)
        there = here / "w"
        workspace = open_workspace(there) if (there / "hafs.toml").exists() else init_workspace(there)
        sizes = {"sft_prompts": 8, "round_prompts": 3, "checkpoint_prompts": 0, "decision_prompts": 6, "max_rounds": 1}
        run(toy_loop(here, Path("model").absolute(), **sizes), workspace)
    except HafsError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    return 0


def _begin(root: Path) -> None:
    """The folder that the path begins in: a workspace, a tiny model, prompts."""
    from conftest import byte_tokenizer, tiny_network
    from hafs.store import init_workspace

    init_workspace(root)
    (root / "tmp").mkdir()
    (root / "hafs.toml").write_text(SETTINGS)
    tiny_network().save_pretrained(str(root / "model"))
    byte_tokenizer().save_pretrained(str(root / "model"))
    rows = [
        {
            "text": f"Say {word} in lower case.",
            "checker": "exact",
            "check": {"answer": word.lower()},
            "references": [{"name": "plain", "text": word.lower()}],
            "split": split,
        }
        for split, words in (("train", ("ALPHA", "BETA", "GAMMA", "DELTA")), ("test", ("PORT", "STAR", "MOON")))
        for word in words
    ]
    for name, kept in (("prompts", "train"), ("held", "test")):
        _write(root / f"{name}.jsonl", [r for r in rows if r["split"] == kept])
    _write(
        root / "sft.jsonl", [{"prompt": f"say {i}", "completion": "one more " * i + f"number {i}"} for i in range(4)]
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _import_all() -> None:
    """What verbs import, so that forks begin with it."""
    import accelerate  # noqa: F401
    import openai  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import hafs.generation.transformers
    import hafs.judge.run.runner
    import hafs.training.run
    import hafs.workflows.loop.run  # noqa: F401

    torch.set_num_threads(1)


class _Judge:
    """A judge's server in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(TESTS / "judge_server.py")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


SPENT = {"attempts", "asked", "input_tokens", "output_tokens", "from_ledger"}
"""What a judge cost: who was killed has asked some of it before."""
PASSING = {
    "seconds",
    "started",
    "finished",
    "created",
    "time",
    "since",
    "pid",
    "eta",
    "when",
    "undone",
    "added",
    *SPENT,
}
"""Names of what differs from run to run although it may be equal by chance."""
LEDGERS = {"judge_calls"}
"""Tables that count attempts: who was killed has made more of them."""
NOT_STATE = re.compile(
    r"(^|/)(hafs\.db|tmp/|\.running/|loop/w/hafs\.db|cache/sandbox|cache/text)|\.claims|\.lock$|\.holder\.json$|__pycache__"
)


def state_of(root: Path) -> dict[str, Any]:
    """Everything that counts in a folder: rows of databases and contents of files, by place, without times."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name == "hafs.db":
            found |= {f"{name} {k}": v for k, v in _rows_of(path).items()}
        elif path.is_file() and not NOT_STATE.search(name):
            found |= {f"{name}{k}": v for k, v in _content_of(path).items()}
    return found


def _content_of(path: Path) -> dict[str, Any]:
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text(errors="replace").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        try:
            return dict(_leaves([json.loads(line) for line in lines], ""))
        except ValueError:
            return {"": "cut off"}
    return {"": hashlib.sha256(path.read_bytes()).hexdigest()}


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in PASSING:
                yield from _leaves(inner, f"{where}.{key}")
    elif isinstance(value, list):
        yield f"{where}#", len(value)
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{where}[{i}]")
    else:
        yield where, value


def _rows_of(path: Path) -> dict[str, Any]:
    """The rows of a database by table and the first column, which is the id or begins it."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        database = stack.enter_context(closing(sqlite3.connect(path)))
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in sorted(tables - LEDGERS):
            cursor = database.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            rows = sorted(
                (tuple(_plain(v) for n, v in zip(names, row, strict=True) if n not in PASSING) for row in cursor),
                key=str,
            )
            kept = [n for n in names if n not in PASSING]
            found[f"{table}#"] = len(rows)
            for i, row in enumerate(rows):
                found |= {f"{table}[{i}].{n}": v for n, v in zip(kept, row, strict=True)}
    return found


def _plain(value: Any) -> Any:
    """A cell without the times in its JSON."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.dumps(sorted(_leaves(json.loads(value), "")), default=str)
        except (ValueError, TypeError):
            return value
    return value


def places(passed: Sequence[str], most: int | None = None) -> list[tuple[int, str]]:
    """The boundaries to try, by number: those before a write, since what comes after the one before is the same, and
    the last; `most` of them, evenly spread."""
    found = [(i, what) for i, what in enumerate(passed, 1) if not what.startswith("after") or i == len(passed)]
    if most is None or most >= len(found):
        return found
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]
