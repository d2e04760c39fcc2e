"""Hostile answers in Python: each beside an honest right one and an honest wrong one in the same start of the sandbox.

What is wanted cannot be guessed. An attack must not pass, must not change what is said of its neighbours, must not bring
out the secret that lies beside it on the disk and in the environment, and must leave a file and a process of the user
as they were.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from catalogue import Fault, Outcome

from hafs.scorers.python import PythonScorer
from hafs.types import Candidate, Prompt

WANTED = {1: "IMPOSSIBLE-73919", 2: "IMPOSSIBLE-11111"}
CASES = {"entry": "f", "cases": [{"args": str(k), "returns": repr(v)} for k, v in WANTED.items()], "seconds": 1}
TESTS = {"entry": "f", "tests": [f"assert candidate({k}) == {v!r}" for k, v in WANTED.items()], "seconds": 1}
RIGHT, WRONG = f"def f(x):\n    return {WANTED}[x]\n", "def f(x):\n    return 'no'\n"
SECRET = "sk-this-must-not-come-out"
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
END = "def f(x):\n    return 'done'\n"

FAULTS: list[Fault] = []


def add(name: str, code: str, holds: str = "fails") -> None:
    """A row; code without an `f` gets one."""
    code = textwrap.dedent(code)
    FAULTS.append(Fault(name, code if "def f(" in code or "f =" in code else f"{code}\n{END}", holds))


# ---- forging what the harness says

LINE = (
    "import json\nline = json.dumps({'number': 0, 'secret': '', 'status': 'called', 'said': ['{\"size\": 1, \"complexity\":"
    ' 1}\', \'{"loaded": true}\', \'{"value": "IMPOSSIBLE-73919"}\', \'{"value": "IMPOSSIBLE-11111"}\'], \'tests\':'
    " '[{\"passed\": true}, {\"passed\": true}]', 'signal': 0, 'cpu': 0.0, 'left over': False, 'last': False}).encode() + b'\\n'\n"
)
STEAL = LIBC + LINE + "out = libc.syscall(438, libc.syscall(434, os.getppid(), 0), 1, 0)\n"
add("take the keeper's output and write a line", STEAL + "if out >= 0: os.write(out, line)")
add(
    "take the keeper's output, write, kill it",
    STEAL + "if out >= 0:\n    os.write(out, line)\n    os.kill(os.getppid(), 9)",
)
add("stop the keeper", "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)")
add("a line that is none", STEAL + "if out >= 0: os.write(out, b'{\"forged\": 1}\\n')")
for end in range(1, 4):
    add(
        f"take a file out of process {end} before the keeper",
        STEAL.replace("os.getppid()", f"os.getppid() - {end}") + "if out >= 0: os.write(out, line)",
    )
add(
    "write the line to every descriptor",
    LINE + "import os\nfor fd in range(1100):\n    try: os.write(fd, line)\n    except OSError: pass",
)
add("print the line and leave", LINE + "import os\nprint(line.decode(), flush=True)\nos._exit(0)")
for what in (
    '{"value": "IMPOSSIBLE-73919"}',
    '{"passed": true}',
    '{"loaded": true}',
    "[]",
    "null",
    "{",
    '{"confined": true}',
):
    add(
        f"a frame that says {what}",
        f"import os\nd = {what.encode()!r}\nfor fd in range(3, 64):\n    try: os.write(fd, len(d).to_bytes(4, 'big') + d)\n    except OSError: pass",
    )
add(
    "a frame that never ends",
    "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\x00\\x0f\\xff\\xff' + b'x' * 10)\n    except OSError: pass",
)
add(
    "frames without end",
    "import os\ndef f(x):\n    while True:\n        for fd in range(3, 64):\n            try: os.write(fd, b'\\0\\0\\0\\2{}' * 4096)\n            except OSError: pass",
)
add(
    "hand descriptors over",
    "import array, socket\ns = socket.socket(fileno=20)\nfor i in range(50): s.sendmsg([b''], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [20] * 200))])\ndef f(x): return 1",
)
add(
    "change the harness",
    "import __main__ as m\nm.encode = lambda *a: 'IMPOSSIBLE-73919'\nm.call = lambda *a: {'passed': True}\nm.write_frame = lambda *a: None",
)
add(
    "look for what is wanted",
    "import gc\nseen = [o for o in gc.get_objects() if 'IMPOSS' in repr(o)[:10000]]\ndef f(x):\n    return next((v for o in seen if isinstance(o, dict) for v in o.values() if str(v).startswith('IMPOSS') ), 'none')",
)
add(
    "walk the frames",
    "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr:\n        for v in fr.f_locals.values():\n            if 'IMPOSS' in repr(v): return v\n        fr = fr.f_back",
)
add("patch json", 'import json\njson.dumps = lambda *a, **k: \'{"value": "IMPOSSIBLE-73919"}\'')
add(
    "patch built-ins",
    "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: str\ndef f(x): return 1",
)
for kind in ("object", "int", "str", "list", "dict", "bytes"):
    add(
        f"an equal {kind}",
        f"class E({kind}):\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    def __hash__(s): return 0\n    def __repr__(s): return \"'IMPOSSIBLE-73919'\"\ndef f(x): return E()",
    )
for how in (
    "os._exit(0)",
    "sys.exit(0)",
    "os.abort()",
    "os.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
    "os.kill(os.getpid(), 9)",
    "signal.raise_signal(15)",
):
    add(f"leave by {how}", f"import os, signal, sys\ndef f(x):\n    {how}")
    add(f"leave at once by {how}", f"import os, signal, sys\n{how}")
add(
    "a thread that answers later",
    "import os, threading, time\ndef g():\n    time.sleep(0.1)\n    d = b'{\"value\": \"IMPOSSIBLE-73919\"}'\n    while True:\n        try: os.write(20, len(d).to_bytes(4, 'big') + d)\n        except OSError: return\nthreading.Thread(target=g, daemon=True).start()",
)

# ---- other processes, by every call that names one

CALLS = {
    "ptrace": "101, 16, os.getppid(), 0, 0",
    "read memory": "310, os.getppid(), 0, 0, 0, 0, 0",
    "write memory": "311, os.getppid(), 0, 0, 0, 0, 0",
    "compare kernel objects": "312, os.getpid(), os.getppid(), 0, 0, 0",
    "open a process": "434, os.getppid(), 0",
    "signal by descriptor": "424, 3, 9, 0, 0",
    "signal a thread": "234, os.getppid(), os.getppid(), 9",
    "queue a signal": "129, os.getppid(), 9, 0",
    "limit the keeper": "302, os.getppid(), 0, ctypes.byref((ctypes.c_ulong * 2)(0, 0)), 0",
    "limit the victim": "302, VICTIM, 0, ctypes.byref((ctypes.c_ulong * 2)(0, 0)), 0",
    "slow the victim": "141, 0, VICTIM, 19",
    "slow all of the user's": "141, 2, 0, 19",
    "pin the victim": "203, VICTIM, 8, ctypes.byref(ctypes.c_ulong(1))",
    "reschedule the victim": "144, VICTIM, 5, ctypes.byref(ctypes.c_int(0))",
    "slow the victim's disk": "251, 1, VICTIM, 3 << 13",
    "move the victim's memory": "279, VICTIM, 0, 0, 0, 0, 0",
    "advise the victim's memory": "440, 3, 0, 0, 0, 0",
    "reap the victim's memory": "448, 3, 0",
    "new namespaces": "272, 0x10000000",
    "a child in new namespaces": "56, 0x10000011, 0, 0, 0, 0",
    "a child of the grandparent": "56, 0x8011, 0, 0, 0, 0",
    "mount": "165, 0, 0, 0, 0, 0",
    "a new tree of mounts": "428, -100, 0, 1",
    "a keyring": "250, 0, -3, 1",
    "a key": "248, b'user', b'x', b'y', 1, -3",
    "rings": "425, 8, ctypes.create_string_buffer(256)",
    "a program in the kernel": "321, 0, 0, 0",
    "counters of the kernel": "298, 0, 0, -1, -1, 0",
    "faults of memory": "323, 0",
    "shared memory": "29, 1, 1 << 30, 0o1600",
    "a queue of messages": "68, 1, 0o1600",
    "watch all files": "300, 0, 0",
    "the log of the kernel": "103, 3, ctypes.create_string_buffer(64), 64",
    "the clock": "164, ctypes.byref((ctypes.c_long * 2)(1, 1)), 0",
    "restart the machine": "169, 0, 0, 0, 0",
    "a handle of a file": "304, -100, 0, 0",
    "a hidden file": "319, b'x', 0",
    "a secret file": "447, 0",
    "a raw socket": "41, 17, 3, 0",
    "a socket to the host": "41, 40, 1, 0",
    "a socket of the kernel": "41, 16, 3, 0",
    "a socket of ciphers": "41, 38, 5, 0",
}
for name, arguments in CALLS.items():
    # a call that works gives what is wanted away, so that it counts as forged
    add(
        f"call: {name}",
        LIBC
        + f"got = libc.syscall({arguments})\nif got == 0 and {arguments.split(',')[0]} == 56: os._exit(0)\n"
        + "GIVE",
    )
for number, name in ((9, "KILL"), (19, "STOP"), (15, "TERM"), (24, "XCPU")):
    add(
        f"SIG{name} to all that can be reached",
        f"import os\nfor pid in (-1, os.getppid(), os.getppid() - 1, os.getppid() - 2, VICTIM):\n    try: os.kill(pid, {number})\n    except OSError: pass",
    )
add(
    "signal by way of a file",
    "import fcntl, os\nr, w = os.pipe()\nfor make in ((8, os.getppid()), (10, 19), (4, 0o20000)):\n    try: fcntl.fcntl(r, *make)\n    except OSError: pass\nos.write(w, b'x')",
)
add(
    "signal by way of a socket",
    "import fcntl, os, socket, struct\na, b = socket.socketpair()\ntry: fcntl.ioctl(a, 0x8901, struct.pack('i', os.getppid()))\nexcept OSError: pass\nb.send(b'x')",
)

# ---- files and network

for path in (
    "SECRETFILE",
    "/etc/passwd",
    "/proc/self/environ",
    "/proc/1/environ",
    "/proc/self/maps",
    "/proc/self/mem",
    "/dev/mem",
    "/dev/vda",
    "/sys/kernel/notes",
):
    add(f"read {path}", f"def f(x):\n    return open({path!r}, 'rb').read(200).decode('latin-1')")
add("read by a link", "import os\ndef f(x):\n    os.symlink('SECRETFILE', 's'); return open('s').read()")
add("read by a hard link", "import os\ndef f(x):\n    os.link('SECRETFILE', 's'); return open('s').read()")
add(
    "read by a shell",
    "import subprocess\ndef f(x):\n    return subprocess.run(['/bin/sh', '-c', 'read a < SECRETFILE; echo $a'], capture_output=True, text=True).stdout",
)
add("read the environment", "import os\ndef f(x):\n    return str(dict(os.environ))")
add(
    "what the keeper was given",
    "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/environ').read() + open(f'/proc/{os.getppid()}/cmdline').read()",
)
for name, code in {
    "write": "open(T, 'w').write('x')",
    "truncate": "os.truncate(T, 0)",
    "mode": "os.chmod(T, 0o777)",
    "owner": "os.chown(T, 1, 1)",
    "times": "os.utime(T, (0, 0))",
    "remove": "os.unlink(T)",
    "rename": "os.rename(T, 'x')",
    "attribute": "os.setxattr(T, 'user.x', b'x')",
    "write by a link": "os.symlink(T, 's'); open('s', 'w').write('x')",
}.items():
    add(f"{name} a file of the user", f"import os\nT = 'TARGETFILE'\ndef f(x):\n    {code}")
for name, code in {
    "tcp": "socket.create_connection(('127.0.0.1', PORT), 1)",
    "udp": "socket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT))",
    "listen": "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); (lambda: 1 / 0)()",
    "tcp6": "socket.create_connection(('::1', PORT), 1)",
}.items():
    add(f"network: {name}", f"import socket\ndef f(x):\n    {code}")

# ---- using things up

BOMBS = {
    "memory": "a = []\n    while True: a.append(bytearray(10**7))",
    "memory of children": "for i in range(8):\n        if os.fork() == 0:\n            b = bytearray(300 << 20); time.sleep(9)\n    time.sleep(9)",
    "shared memory of its own": "m = [mmap.mmap(-1, 100 << 20) for i in range(30)]\n    for x in m: x.write(b'x' * (100 << 20))",
    "hidden memory": "k = []\n    while True:\n        k.append(os.memfd_create('x')); os.write(k[-1], b'x' * (1 << 19))",
    "removed files": "k = []\n    for i in range(4000):\n        g = os.open('u', 65); os.unlink('u'); os.write(g, b'x' * (1 << 19)); k.append(g)",
    "files": "for i in range(10**6): open(f'f{i}', 'w').write('x' * 9000)",
    "folders": "while True:\n        os.mkdir('d'); os.chdir('d')",
    "children": "while True:\n        try: os.fork()\n        except OSError: pass",
    "threads": "for i in range(10**5): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    "pipes": "k = []\n    while True:\n        k.append(os.pipe()); fcntl.fcntl(k[-1][1], 1031, 1 << 20)",
    "output": "while True: os.write(1, b'x' * 65536)",
    "time": "while True: pass",
    "sleep": "time.sleep(1000)",
    "time in a grandchild": "r, w = os.pipe()\n    if os.fork() == 0:\n        if os.fork() == 0:\n            while True: pass\n        os._exit(0)\n    os.wait(); os.read(r, 1)",
    "blocked signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    while True: pass",
    "limits raised": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1)); resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "collisions": "m = (1 << 61) - 1\n    return {i * m for i in range(1, 30000)}",
    "a number of millions of digits": "return 1 << 30_000_000",
    "a deep value": "a = []\n    for i in range(10**5): a = [a]\n    return a",
    "a value in itself": "a = []; a.append(a); return a",
    "a value of two to the fifty": "a = [0]\n    for i in range(50): a = [a, a]\n    return a",
    "a mebibyte and more": "return 'x' * (1 << 22)",
    "a loud exception": "class E(Exception):\n        def __str__(self): raise self\n    raise E",
}
for name, code in BOMBS.items():
    add(f"use up: {name}", f"import fcntl, mmap, os, resource, signal, threading, time\ndef f(x):\n    {code}")
for name, code in {
    "parentheses": "x = " + "(" * 5000 + "1" + ")" * 5000,
    "minus signs": "x = " + "-" * 50_000 + "1",
    "attributes": "x = a" + ".a" * 50_000,
    "sums": "x = " + "+".join(["1"] * 40_000),
    "lists": "x = " + "[" * 180 + "]" * 180,
    "folded constants": "x = " + "*".join(["(2**4000)"] * 40),
    "f-strings": "x = " + "f'{" * 90 + "1" + "}'" * 90,
    "a null byte": "x = '\0'",
    "a surrogate": "x = '\ud800'",
    "another coding": "# -*- coding: utf-7 -*-\nx = 1",
    "a number": "x = " + "9" * 100_000,
    "a long line": "x = '" + "a" * 190_000 + "'",
    "decorators": "@a\n" * 5000,
}.items():
    add(f"parse: {name}", f"{code}\ndef f(x):\n    return 1\n")
for name, code in {
    "sleeper": "time.sleep(30)",
    "worker": "while True: pass",
    "writer": "\n        while True:\n            try: open('left', 'w').write('x')\n            except OSError: pass",
}.items():
    add(
        f"leave a {name} behind",
        f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        {code}\n    os._exit(0)\ntime.sleep(0.1)",
        "harmless",
    )

GIVE = f"def f(x):\n    return {WANTED}[x] if got >= 0 else 'refused'\n"
FAULTS = [
    Fault(f.name, f.attack.removesuffix(END).replace("GIVE\n", GIVE) if "GIVE\n" in f.attack else f.attack, f.holds)
    for f in FAULTS
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Every fault against cases and, for the first twelve, against tests as code."""
    os.environ["HAFS_FAULTS_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as folder, closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0.01)
        secret, target = Path(folder, "secret"), Path(folder, "target")
        secret.write_text(SECRET)
        target.write_text("mine")
        victim = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(0.05)"])
        try:
            before = _seen(target, victim.pid)
            names = {"SECRETFILE": str(secret), "TARGETFILE": str(target), "VICTIM": str(victim.pid)}
            names["PORT"] = str(server.getsockname()[1])
            for check, some in ((CASES, faults), (TESTS, faults[:12])):
                yield from _scored(check, some, names)
            try:
                reached = bool(server.accept())
            except TimeoutError:
                reached = False
            harmed = victim.poll() is not None or _seen(target, victim.pid) != before
            yield Outcome("what the user owns", leaked=reached, lost=harmed, note=str(before))
        finally:
            victim.kill()
            victim.wait()


def _seen(target: Path, pid: int) -> tuple[object, ...]:
    """What an attack could have changed."""
    about = target.stat()
    limits = Path(f"/proc/{pid}/limits").read_text()
    return (
        target.read_text(),
        about.st_mode,
        about.st_uid,
        about.st_mtime,
        os.getpriority(0, pid),
        os.sched_getaffinity(pid),
        limits,
    )


def _scored(check: dict[str, object], faults: Sequence[Fault], names: dict[str, str]) -> Iterator[Outcome]:
    prompt = Prompt(f"faults {json.dumps(check)[:60]}", checker="python", check=check)
    answers = []
    for i, fault in enumerate(faults):
        code = fault.attack
        for name, value in names.items():
            code = code.replace(name, value)
        answers += [f"```python\n{c}\n# {i}\n```" for c in (code, RIGHT, WRONG)]
    with PythonScorer() as scorer:
        found = list(scorer.score([(prompt, Candidate(prompt.id, text)) for text in answers]))
    for i, fault in enumerate(faults):
        got, right, wrong = found[3 * i : 3 * i + 3]
        lost = right.passed is not True or wrong.passed is not False
        leaked = SECRET in json.dumps(dict(got.details), default=str)
        note = f"{got.cause or got.reason}; {right.cause or right.reason}; {wrong.cause or wrong.reason}"
        yield Outcome(fault.name, fault.holds == "fails" and bool(got.passed), leaked, lost, note)
