"""Runs inside the sandbox: takes answers one by one, calls each in a process of its own, says what came of it.

The file uses the standard library alone and is handed to the interpreter as text. For every answer two processes are
forked. The *answer's process* defines the answer and computes values; it never sees what is expected. Where the prompt
has tests as code, a *test process* runs them and asks the answer's process for values; where it has cases, the values
go out of the sandbox and are compared there. Nothing but plain values (`encode`) goes from the answer's process to
anyone, so the only way to pass is to return the right values.

Standard input holds two frames (4 bytes of length, JSON) for each answer: what the answer's process may know, and the
tests with a secret. The second is read when the answer's process has been forked, so no process has in memory what it
must not know. Standard output gets one JSON line for each answer, with the answer's number and secret: a line of
anybody else's has none.

The arguments are a filter of system calls in hexadecimal, under which answers and tests run (they can signal and reach
nobody), and the seconds after which whoever watches an answer is taken for broken.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 20  # of all that an answer's process may send, and of a file that it writes
DEEPEST = 60  # nested containers in a value
KEPT = 20  # the number of the first descriptor that a forked process keeps
OPEN_FILES = 64  # of an answer
CONFINED = b'{"confined": true}'
LOADED = '{"loaded": true}'
EXACT = 1 << 53
LETTERS = 16  # of a constant, that count as one more node
HIDDEN = 1000  # paths that a way to run hidden code counts as
HIDES = {
    *(
        "exec",
        "eval",
        "compile",
        "__import__",
        "__builtins__",
        "builtins",
        "importlib",
        "runpy",
        "marshal",
        "pickle",
        "ctypes",
    ),
    *(
        "globals",
        "locals",
        "vars",
        "__doc__",
        "__code__",
        "__globals__",
        "__getattribute__",
        "__subclasses__",
        "CodeType",
    ),
}
FOLDS = {"tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(ValueError):
    """A value that is not made of numbers, texts and the built-in containers."""


def encode(value: Any, depth: int = 0) -> Any:
    """`value` as JSON data that `decode` reads; raises NotPlain for anything but plain values."""
    if depth > DEEPEST:
        raise NotPlain("nested too deep")
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str.__str__(value)
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -EXACT < number < EXACT else {"int": hex(number)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in dict.items(value)]}
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset)
    for kind in kinds:
        if isinstance(value, kind):
            items = [encode(item, depth + 1) for item in kind.__iter__(value)]
            return items if kind is list else {kind.__name__: items}
    raise NotPlain(f"returned a value of type {type(value).__name__}, which is not plain data")


def decode(data: Any, depth: int = 0) -> Any:
    """The value behind `encode`d data; raises ValueError for anything else."""
    if depth > DEEPEST + 4:
        raise ValueError("nested too deep")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [decode(item, depth + 1) for item in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise ValueError("not an encoded value")
    ((kind, inner),) = data.items()
    try:
        if kind == "int":
            return int(inner, 16)
        if kind == "complex":
            return complex(*inner)
        if kind in ("bytes", "bytearray"):
            return (bytes if kind == "bytes" else bytearray).fromhex(inner)
        if kind == "range":
            return range(*inner)
        if kind == "dict":
            return {decode(k, depth + 1): decode(v, depth + 1) for k, v in inner}
        if kind in FOLDS:
            return FOLDS[kind](decode(item, depth + 1) for item in inner)
    except TypeError as e:
        raise ValueError(str(e)) from None
    raise ValueError("not an encoded value")


# ---- frames


def read_exactly(fd: int, n: int) -> bytes:
    """`n` bytes; raises EOFError when there are fewer."""
    parts = []
    while n:
        part = os.read(fd, min(n, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def read_frame(fd: int) -> bytes:
    """The next frame of a process that is trusted."""
    return read_exactly(fd, int.from_bytes(read_exactly(fd, 4), "big"))


def write_frame(fd: int, data: Any) -> None:
    """Write data as one frame."""
    text = json.dumps(data).encode()
    whole = len(text).to_bytes(4, "big") + text
    while whole:
        whole = whole[os.write(fd, whole) :]


class Frames:
    """Frames from a process that nobody trusts, until a deadline and up to a number of bytes."""

    def __init__(self, fd: int, deadline: float) -> None:
        self.fd, self.deadline, self.buffer, self.taken = fd, deadline, b"", 0

    def next(self) -> bytes | None:
        """The next frame; None at the end. Raises TimeoutError, and OverflowError when there is too much."""
        while True:
            if len(self.buffer) >= 4:
                size = int.from_bytes(self.buffer[:4], "big")
                if size > MOST_BYTES:
                    raise OverflowError
                if len(self.buffer) >= 4 + size:
                    frame, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
                    return frame
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise TimeoutError
            try:
                part = os.read(self.fd, 1 << 16)
            except ConnectionError:
                part = b""
            if not part:
                return None
            self.buffer += part
            self.taken += len(part)
            if self.taken > MOST_BYTES:
                raise OverflowError


# ---- the answer's process


def measure(tree: ast.AST) -> tuple[int, int]:
    """(number of nodes, McCabe's cyclomatic complexity with boolean operators counted) of a syntax tree.

    A constant counts by its length, but for docstrings: code and tables do not become small in a text. Where a name of
    `HIDES` stands, what runs is not what is seen: such code counts as more complex than any other.
    """
    nodes, paths, notes = 0, 1, documentation(tree)
    branching = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.match_case)
    for node in ast.walk(tree):
        nodes += not isinstance(node, ast.expr_context)
        if isinstance(node, branching):
            paths += 1
        elif isinstance(node, ast.comprehension):
            paths += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            paths += len(node.values) - 1
        elif isinstance(node, ast.Constant) and node not in notes:
            nodes += extent(node.value) // LETTERS
        elif HIDES & names(node):
            paths += HIDDEN
    return nodes, paths


def documentation(tree: ast.AST) -> set[ast.AST]:
    """The docstrings of a module, its classes and functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    first = [body[0].value for body in bodies if isinstance(body[0], ast.Expr)]
    return {node for node in first if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def extent(value: Any) -> int:
    """How long a constant is, in letters or digits."""
    if isinstance(value, str | bytes):
        return len(value)
    return value.bit_length() // 4 if isinstance(value, int) else 0


def names(node: ast.AST) -> set[str]:
    """The names that a node of a syntax tree uses."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Import):
        return {part for alias in node.names for part in alias.name.split(".")}
    if isinstance(node, ast.ImportFrom):
        return {*(node.module or "").split("."), *(alias.name for alias in node.names)}
    return set()


def raised(error: BaseException) -> dict[str, Any]:
    """What is said of an exception: its nearest built-in class and its words."""
    kinds = [k.__name__ for k in type(error).__mro__ if getattr(builtins, k.__name__, None) is k]
    try:
        words = str(error)[:200]
    except BaseException:
        words = ""
    return {"raised": kinds[0] if kinds else "Exception", "words": words}


def call(function: Any, args: list[Any]) -> dict[str, Any]:
    """What a call returns or raises."""
    try:
        return {"value": encode(function(*args))}
    except NotPlain as e:
        return {"raised": "", "words": str(e)}
    except BaseException as e:
        return raised(e)


def answer(job: dict[str, Any], fd: int) -> None:
    """The whole life of the answer's process: frames on its syntax, on its loading, then on each call."""
    try:
        tree = ast.parse(job["code"])
        code = compile(tree, "answer.py", "exec", dont_inherit=True)
    except BaseException as e:
        write_frame(fd, {"syntax": str(e)[:200]})
        return
    nodes, paths = measure(tree)
    write_frame(fd, {"size": nodes, "complexity": paths})
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    try:
        exec(code, space)
        if job["entry"] not in space:
            write_frame(fd, {"missing": job["entry"]})
            return
        exec(compile(job["support"], "support.py", "exec", dont_inherit=True), space)
        function = space[job["call"]]
    except BaseException as e:
        write_frame(fd, raised(e))
        return
    write_frame(fd, {"loaded": True})
    for args in job["cases"]:
        write_frame(fd, call(function, decode(args)))
    while not job["cases"]:
        write_frame(fd, call(function, decode(json.loads(read_frame(fd)))))


# ---- the test process


class Gone(BaseException):
    """The answer's process has ended."""


def tested(tests: dict[str, Any], fd: int) -> list[dict[str, Any]]:
    """A verdict for each test; `fd` is the socket to the answer's process."""
    said = Frames(fd, time.monotonic() + 3600)

    def candidate(*args: Any) -> Any:
        try:
            write_frame(fd, encode(list(args)))
            reply = said.next()
        except OSError:
            reply = None
        except OverflowError:
            raise Gone("too much output") from None
        try:
            row = json.loads(reply or b"")
            if "value" in row:
                return decode(row["value"])
            name, words = str(row["raised"]), str(row["words"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Gone from None
        kind: Any = getattr(builtins, name, None)
        plain = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
        error: Any = kind(words) if plain else Exception(words)  # a UnicodeError takes five arguments
        error.of_answer = name
        raise error

    space: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(tests["setup"], space)
    except BaseException as e:
        return [{"broken": f"{type(e).__name__}: {e}"[:200]}]
    space.update({"candidate": candidate, tests["entry"]: candidate})
    verdicts: list[dict[str, Any]] = []
    for test in tests["tests"]:
        try:
            exec(test, space)
            verdicts.append({"passed": True})
        except Gone as e:
            return [*verdicts, {"gone": str(e)}]
        except BaseException as e:
            of_answer, words = getattr(e, "of_answer", None), f"{type(e).__name__}: {e}"[:200]
            verdicts.append({"wrong": words} if of_answer is None else {"raised": of_answer, "words": str(e)[:200]})
    return verdicts


# ---- the parent of both


def restrict(program: bytes) -> None:
    """Put this process under a filter of system calls for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, head, 0, 0):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
    with suppress(PermissionError):
        os.kill(os.getppid(), 0)
        raise OSError("the filter of system calls does not hold")


def fork(work: Callable[..., object], job: dict[str, Any], program: bytes, *descriptors: int) -> int:
    """Fork a process that keeps `descriptors` alone and runs `work(job, *descriptors)`; returns its id.

    Its first frame, on the first descriptor, says that it is confined; it says nothing at all when it is not.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        kept = [os.dup2(fd, KEPT + i) for i, fd in enumerate(descriptors)]
        null = os.open("/dev/null", os.O_RDWR)
        for i in range(3):
            os.dup2(null, i)
        os.closerange(3, KEPT)
        os.closerange(KEPT + len(kept), 1024)
        restrict(program)
        limits = (
            (resource.RLIMIT_CPU, job["seconds"]),
            (resource.RLIMIT_AS, job["memory"]),
            (resource.RLIMIT_FSIZE, MOST_BYTES),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
        )
        for what, most in limits:
            resource.setrlimit(what, (most, most))
        random.seed(0)
        write_frame(kept[0], {"confined": True})
        work(job, *kept)
    finally:
        os._exit(0)


def run(job: dict[str, Any], program: bytes) -> dict[str, Any]:
    """One answer: what its process and its tests said, as text, and how the process ended.

    `status` is "ended" (by itself, before it had said all), "called", "tested", "timeout", "output" (too much) or
    "broken" (it could not be confined, and was not run).
    """
    ours, theirs = socket.socketpair()
    deadline = time.monotonic() + job["wall"]
    child = fork(answer, job, program, theirs.fileno())
    theirs.close()
    rest = json.loads(read_frame(0))
    tests = rest["tests"]
    frames, said, verdicts, tester, status = Frames(ours.fileno(), deadline), [], "", 0, "ended"
    mine = {"number": job["number"], "secret": rest["secret"]}
    try:
        if frames.next() != CONFINED:
            status = "broken"
        while status == "ended" and (frame := frames.next()) is not None:
            said.append(frame.decode("utf-8", "replace"))
            if tests and said[1:] == [LOADED]:
                r, w = os.pipe()
                limits = {**tests, "seconds": int(job["wall"]) + 1, "memory": job["memory"] + (256 << 20)}
                tester = fork(lambda job, out, fd: write_frame(out, tested(job, fd)), limits, program, w, ours.fileno())
                os.close(w)
                told = Frames(r, deadline)
                if told.next() != CONFINED:
                    status = "broken"
                    break
                verdicts, status = (told.next() or b"").decode(), "tested"
                break
            if len(said) == len(job["cases"]) + 2:
                status = "called"
                break
    except TimeoutError:
        status = "timeout"
    except OverflowError:
        status = "output"
    ours.close()
    by, _ = end(child)
    spent = 0.0
    if tester:
        spent = end(tester)[1]
        os.close(r)
    left = left_over()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # the answer, and what it started and did not wait for
    cpu = usage.ru_utime + usage.ru_stime - spent
    return {**mine, "status": status, "said": said, "tests": verdicts, "signal": by, "cpu": cpu, "left over": left}


def end(pid: int) -> tuple[int, float]:
    """Kill a process and its group; returns the signal that ended it (0: it exited) and its processor time (s)."""
    for kill in (os.killpg, os.kill):
        with suppress(OSError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, usage.ru_utime + usage.ru_stime


def left_over() -> bool:
    """Whether something that an answer started still runs; what has ended is waited for."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def clean() -> bool:
    """Empty the folder; whether that worked."""
    for entry in Path().iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    return not any(Path().iterdir())


def keep(program: bytes) -> bool:
    """One answer from standard input to standard output; whether there may be another after it."""
    try:
        found = run(json.loads(read_frame(0)), program)
    except EOFError:
        return False
    found["last"] = found["left over"] or not clean()
    line = json.dumps(found).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]
    return not found["last"]


def main() -> None:
    """Answers from standard input until it ends, or until one leaves a process or a file behind.

    Each has a keeper of its own, so that no process ever holds the tests of an earlier answer in its memory; a keeper
    that is not done in time is ended from here.
    """
    program, seconds = bytes.fromhex(sys.argv[1]), float(sys.argv[2])
    subreaper = ctypes.CDLL(None).prctl
    sys.set_int_max_str_digits(0)
    gc.freeze()  # forked processes share what is here
    while True:
        done, going = os.pipe()
        child = os.fork()
        if not child:
            os.close(done)
            subreaper(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what an answer's children leave comes to the keeper
            os._exit(0 if keep(program) else 1)
        os.close(going)
        in_time = bool(select.select([done], [], [], seconds)[0])  # readable when the keeper is gone
        os.close(done)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1]:
            return


if __name__ == "__main__":
    main()
