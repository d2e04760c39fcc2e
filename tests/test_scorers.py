"""Scorers of text and of code in any language, and several scorers as one."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.errors import DataError, UsageError
from hafs.files.jsonl import write_jsonl
from hafs.preferences import rank
from hafs.scorers import open_scorer
from hafs.scorers.code.scorer import LANGUAGES, find
from hafs.scorers.compose import parse
from hafs.scorers.text.measures import found, length, repetition
from hafs.types import Candidate, Prompt, Score
from run_hafs import hafs, workspace

PROMPT = Prompt("Say something.")


def scores(spec: str, *answers: str, prompt: Prompt = PROMPT) -> list[Score]:
    with closing(open_scorer(spec)) as scorer:
        return list(scorer.score([(prompt, Candidate(prompt.id, text)) for text in answers]))


# ---- names and expressions


def test_an_expression_is_read_in_levels_and_parts() -> None:
    assert [
        [(p.name, p.argument, p.weight) for p in level] for level in parse("python*0.7 + text:a=1 > code:rust*2")
    ] == [[("python", "", 0.7), ("text", "a=1", 1.0)], [("code", "rust", 2.0)]]
    assert parse("reward:models/rm")[0][0].argument == "models/rm"
    assert parse("judge:'a+b>c*d'")[0][0].argument == "a+b>c*d"
    assert parse("code:run=/bin/true {file}")[0][0].argument == "run=/bin/true {file}"


names = st.from_regex(r"[a-z_][a-z0-9_-]{0,5}", fullmatch=True)
arguments = st.text("abc =/.:{}+>*", max_size=6).map(str.strip)
weights = st.integers(1, 64).map(lambda n: n / 8)


@given(st.lists(st.lists(st.tuples(names, arguments, weights), min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_is_written_is_read_back(levels: list[list[tuple[str, str, float]]]) -> None:
    def term(name: str, argument: str, weight: float) -> str:
        return f"{name}:'{argument}'*{weight}" if argument else f"{name}*{weight}"

    spec = ">".join("+".join(term(*part) for part in level) for level in levels)
    assert [[(p.name, p.argument, p.weight) for p in level] for level in parse(spec)] == levels


@pytest.mark.parametrize(
    "spec", ["", "+", "text+", "text>>code", "text*0", "text*x", "text*-1", "te xt", "text:'a", "5"]
)
def test_a_wrong_expression_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="the scorer"):
        parse(spec)


def test_unknown_names_and_arguments_are_named() -> None:
    for spec, words in {
        "nobody": "nobody",
        "text+nobody": "nobody",
        "text:colour=1": "colour",
        "code:klingon": "klingon",
        "text:min_words=x": "min_words",
        "asm:x": "no argument",
        "python:x": "no argument",
        "text:regex=(": "regex",
        "code:run='": "cannot be read",
        "code:language=c,seconds=abc": "seconds is 'abc', no number",
        "code:language=c,seconds=nan": "above 0",
        "code:language=c,memory_mb=0": "above 0",
        "code:language=c,memory_mb=1.5": "memory_mb is '1.5', no number",
        "code:language=klingon": "no language 'klingon'",
        "code:colour=1": "colour",
        "text:language=english": "no language 'english'",
        "text:language=": "language is empty",
        "text:min_words=50,max_words=5": "no text has 50 to 5 words",
        "text:model=": "model is empty",
        "text:model": "names no model",
        "text+text:regex=": "regex is empty",
    }.items():
        with pytest.raises(UsageError, match=words):
            open_scorer(spec)


GOOD, LONG, LOUD = "A short and plain sentence.", "word " * 30, "Pay attention to this one sentence. " * 20


def test_a_weighted_mean_keeps_its_parts() -> None:
    both = scores("text:max_words=10*3+text:regex=sentence", GOOD, LONG, LOUD)
    one, two = scores("text:max_words=10", GOOD, LONG, LOUD), scores("text:regex=sentence", GOOD, LONG, LOUD)
    for s, a, b in zip(both, one, two, strict=True):
        assert a.value is not None and b.value is not None
        assert s.value == pytest.approx((3 * a.value + b.value) / 4)
        parts = s.details["parts"]
        assert [p["value"] for p in parts.values()] == [a.value, b.value]
        assert s.passed == bool(a.passed and b.passed)
    assert both[1].cause == "text:max_words=10: too long" and both[0].passed


def test_the_second_level_decides_where_the_first_ties() -> None:
    texts = ["one two three", "one two three four", "one"]
    lexicographic = scores("text:min_words=3>text:max_words=3", *texts)
    made = [Candidate(PROMPT.id, t) for t in texts]
    names = {c.id: c.text for c in made}
    assert [[names[i] for i in tier] for tier in rank(list(zip(made, lexicographic, strict=True))).tiers] == [
        [texts[0]],
        [texts[1]],
        [texts[2]],
    ]
    assert lexicographic[0].scorer == "text:min_words=3>text:max_words=3"


def test_a_part_without_a_value_leaves_the_whole_without() -> None:
    (got,) = scores("text+python", GOOD)
    assert got.value is None and got.reason == "python: the prompt has no check for this scorer"
    assert got.details["parts"]["text"]["value"] is not None


def test_arguments_and_versions_of_parts_tell_scores_apart() -> None:
    with closing(open_scorer("text+text:min_words=3")) as a, closing(open_scorer("text+text:min_words=4")) as b:
        assert a.arguments != b.arguments and a.arguments["parts"][0]["scorer"] == "text@3"


# ---- text


def test_repetition_and_length() -> None:
    plain = " ".join(f"word{i} and {i * 7919 % 1000} others" for i in range(40))
    assert repetition(plain) == 1.0 and repetition("the same few words again " * 40) < 0.3
    assert (length(10, 5, 20), length(4, 8, 0), length(40, 0, 20)) == (1.0, 0.5, 0.5)


def test_language_pattern_and_emptiness() -> None:
    english, german = (
        "This is a plain English sentence about the weather.",
        "Das ist ein deutscher Satz über das Wetter.",
    )
    good, wrong = scores("text:language=en", english, german)
    assert good.passed and (wrong.cause, wrong.details["language"]) == ("wrong language", "de")
    (empty,) = scores("text", "  ")
    assert (empty.passed, empty.cause) == (False, "empty")
    (plain,) = scores("text", english)
    assert plain.passed is None and plain.value == 1.0


def test_a_pattern_that_would_never_end_leaves_the_answer_unscored() -> None:
    spec = r"text:'regex=^(a+)+$'"
    hangs, fits, other = scores(spec, "a" * 19_999 + "b", "a" * 5000, "b")
    assert (hangs.value, hangs.passed, hangs.reason) == (None, None, "the regex took longer than 1 s on the answer")
    assert (fits.passed, other.passed, other.cause) == (True, False, "pattern not found")
    (both,) = scores(f"text+{spec}", "a" * 19_999 + "b")
    assert both.value is None and "the regex took longer" in both.reason


@pytest.mark.parametrize(
    ("pattern", "text", "there"),
    [
        (r"x_{i}", "x_{i}", True),
        (r"x_{i}", "x_", False),
        (r"(?:ab){e<=1}", "ac", False),
        (r"[{]a\{2}$", "say {a{2}", True),
        (r"(?m)^b{2,3}$", "a\nbb", True),
        (r"\N{LATIN SMALL LETTER A}{,2}b", "aab", True),
    ],
)
def test_a_pattern_means_what_it_means_to_re(pattern: str, text: str, there: bool) -> None:
    assert found(pattern, text) is bool(re.search(pattern, text)) is there


def test_a_json_schema_of_the_prompt() -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}
    prompt = Prompt("Give JSON.", checker="text", check={"schema": schema})
    answers = [
        '{"name": "x", "age": 3}',
        'Here:\n```json\n{"name": "x"}\n```',
        '{"age": 3}',
        '{"name": "x", "age": "y"}',
        "no",
        "[" * 100_000,
    ]
    found = scores("text", *answers, prompt=prompt)
    assert [s.cause for s in found] == ["", "", "not by the schema", "not by the schema", "not JSON", "not JSON"]
    assert "'name' is a required property" in found[2].details["problems"][0]
    with pytest.raises(DataError, match="there is no 'colour'"):
        scores("text", "x", prompt=Prompt("?", checker="text", check={"colour": 1}))
    (broken,) = scores("text", "{}", prompt=Prompt("?", checker="text", check={"schema": {"type": "nonsense"}}))
    assert broken.value is None and "schema is wrong" in broken.reason


def test_perplexity_under_a_named_model(tiny_model: Path) -> None:
    import torch

    from hafs.models.chat import encode_answer, encode_prompt
    from hafs.models.loading import load_model, load_tokenizer

    (got, other, too_long) = scores(f"text:model={tiny_model}", "hello there", "zq", "x " * 3000)
    net, tokenizer = load_model(tiny_model).eval(), load_tokenizer(tiny_model)
    head, tail = encode_prompt(tokenizer, PROMPT.text), encode_answer(tokenizer, "hello there")
    with torch.no_grad():
        logps = net(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
    nll = -sum(float(logps[len(head) - 1 + i, t]) for i, t in enumerate(tail)) / len(tail)
    assert got.details["perplexity"] == pytest.approx(2.718281828459045**nll, rel=1e-4)
    assert 0 < (got.value or 0) < 1 and other.value is not None and "model" in got.arguments
    assert too_long.value is None and "more than the model's" in too_long.reason


# ---- code

RIGHT = {
    "bash": 'for f in *; do echo "$f"; done',
    "c": "int main(void) { return 0; }",
    "cpp": "int main() { auto x = 1; return x; }",
    "csharp": "class A { void B() { } }",
    "css": "a { color: red; }",
    "dart": "void main() { print('x'); }",
    "go": "package main\nfunc main() { }",
    "haskell": 'main = putStrLn "x"',
    "html": "<p>x</p>",
    "java": "class A { void b() { } }",
    "javascript": "const f = (x) => x * 2;",
    "json": '{"a": [1, 2]}',
    "julia": "f(x) = x * 2",
    "kotlin": "fun main() { println(1) }",
    "lua": "local x = 1",
    "perl": "my $x = 1;",
    "php": "<?php echo 1; ?>",
    "python": "def f(x):\n    return x",
    "r": "f <- function(x) x * 2",
    "ruby": "def f(x)\n  x\nend",
    "rust": 'fn main() { println!("x"); }',
    "scala": "object A { def f(x: Int) = x }",
    "sql": "SELECT a FROM b WHERE c = 1;",
    "swift": "func f(x: Int) -> Int { return x }",
    "toml": "a = 1",
    "typescript": "const f = (x: number): number => x;",
    "xml": "<a><b/></a>",
    "yaml": "a:\n  - 1",
    "zig": "pub fn main() void {}",
    "ocaml": "let f x = x + 1",
    "elixir": "def f(x), do: x",
    "erlang": "-module(a).\nf(X) -> X.",
}
WRONG = {
    **{name: code + "\n)]} = (((" for name, code in RIGHT.items()},
    "html": "<p><div",
    "yaml": "a: [1\nb: }",
    "php": "<?php echo ( ; ?>",
}


def test_the_syntax_of_thirty_languages() -> None:
    assert len(RIGHT) >= 30 and set(RIGHT) <= set(LANGUAGES)
    answers = [f"```{name}\n{code}\n```" for codes in (RIGHT, WRONG) for name, code in codes.items()]
    found = scores("code", *answers)
    right, wrong = found[: len(RIGHT)], found[len(RIGHT) :]
    assert [(n, s) for n, s in zip(RIGHT, right, strict=True) if s.value != 1.0 or s.passed is False] == []
    assert [(n, s) for n, s in zip(WRONG, wrong, strict=True) if s.cause != "syntax error" or not s.value < 1] == []


def test_hostile_code_is_survived_by_the_parsers() -> None:
    found = scores(
        "code:javascript", "(" * 100_000, "a" * 100_000, "`${" * 20_000, "\0\x1b[0m\ud800", RIGHT["javascript"]
    )
    assert all(s.value is not None or s.reason for s in found) and found[-1].value == 1.0
    assert {s.cause for s in found[:3:2]} == {"syntax error"}


def test_the_language_of_an_answer() -> None:
    assert find("```rs\nfn a() {}\n```") == ("rust", "fn a() {}\n")
    assert find("```js\na\n```\n```python\nb\n```", "javascript") == ("javascript", "a\n")
    assert (
        find("```\nx\n```", "c") == ("c", "x\n")
        and find("plain", "c") == ("c", "plain")
        and find("plain") == ("", "plain")
    )
    (none,) = scores("code", "plain words")
    assert none.value is None and "names no language" in none.reason
    (empty,) = scores("code:rust", "```python\nx\n```")
    assert (empty.value, empty.cause) == (0.0, "no code")


def command(text: str, **more: Any) -> list[Score]:
    prompt = Prompt("Check it.", checker="code", check={"run": text, **more})
    return scores("code", "good line", "bad line", prompt=prompt)


def test_a_command_decides_by_exit_code() -> None:
    good, bad = command("/bin/sh -c 'read a b < {file}; [ \"$a\" = good ]'")
    assert (good.value, good.passed) == (1.0, True) and (bad.value, bad.passed, bad.cause) == (
        0.0,
        False,
        "exit code 1",
    )


def test_a_command_decides_by_json(tmp_path: Path) -> None:
    script = tmp_path / "check.sh"
    script.write_text(
        'echo noise\nread a b < "$1"\nif [ "$a" = good ]; then v=0.75; else v=0.25; fi\n'
        'echo "{\\"value\\": $v, \\"passed\\": true, \\"details\\": {\\"word\\": \\"$a\\"}}"\nexit 3\n'
    )
    good, bad = command(f"/bin/sh {script} {{file}}")
    assert (good.value, bad.value) == (0.75, 0.25) and good.passed and good.details["said"] == {"word": "good"}


def test_a_command_that_fails_to_say_anything_leaves_no_value() -> None:
    for text, words in {
        "/no/such/program {file}": "no program",
        "/bin/sh -c 'echo {broken'": "cannot be read",
        '/bin/sh -c \'echo "{\\"value\\": 7}"\'': "not from 0 to 1",
    }.items():
        got, _ = command(text)
        assert got.value is None and words in got.reason, got
    slow, _ = command("/bin/sh -c 'while :; do :; done'", seconds=1)
    assert (slow.value, slow.cause) == (0.0, "timeout")


def test_a_command_sees_its_files_and_nothing_else(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    got, _ = command("/bin/sh -c 'read a < hidden.txt && [ \"$a\" = yes ]'", files={"hidden.txt": "yes\n"})
    assert got.passed
    got, _ = command(f"/bin/sh -c 'read a < {secret}'")
    assert not got.passed
    got, _ = command(f"/bin/sh -c 'read a < {secret}; [ \"$a\" = x ]'", read=[str(secret)])
    assert got.passed
    with pytest.raises(DataError, match="'colour'"):
        command("x", colour=1)


def test_scores_are_plain_data() -> None:
    for got in scores("text*2+code:c>text:regex=int", "int x;", "int x"):
        assert Score.from_dict(json.loads(json.dumps(got.to_dict()))).value == got.value


def test_limits_of_a_command_are_numbers() -> None:
    with closing(open_scorer("code:language=c,seconds=2.5,memory_mb=512,run=/bin/true")) as scorer:
        asked = dict(scorer.arguments)
    assert (asked["seconds"], asked["memory_mb"], asked["run"]) == (2.5, 512, "/bin/true")


def test_a_prompt_and_the_scorer_may_not_contradict_each_other() -> None:
    prompt = Prompt("Say it shortly.", checker="text", check={"max_words": 5})
    with pytest.raises(DataError, match=f"the check of prompt {prompt.id}: no text has 50 to 5 words"):
        scores("text:min_words=50", "word " * 60, prompt=prompt)
    assert scores("text:min_words=2", "three words here", prompt=prompt)[0].passed


def test_the_summary_is_of_the_arguments_that_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    write_jsonl(tmp_path / "p.jsonl", [PROMPT])
    write_jsonl(tmp_path / "c.jsonl", [Candidate(PROMPT.id, text) for text in ("one", "one two three")])
    hafs("data", "import", "prompts", "p.jsonl").ok()
    hafs("data", "import", "candidates", "c.jsonl").ok()
    for spec, passed in (("text:min_words=1", 2), ("text:min_words=2", 1), ("text:min_words=1", 2)):
        (total,) = hafs("score", "--scorer", spec, "--json").ok().json["totals"]
        assert (total["scored"], total["passed"], total["unscored"]) == (2, passed, 0), spec


def test_what_looks_like_a_number_is_not_another_one() -> None:
    from hafs.scorers.exact import normalised

    for wrong, right in (("10²", "102"), (".5", "5"), (",5", "5"), ("5!", "5"), ("½", "1⁄2")):
        assert normalised(wrong) != normalised(right), (wrong, right)
    assert normalised(" (5). ") == "5" and normalised('"Paris!"') == "paris"


def test_a_pattern_holds_the_whole_answer_and_not_one_of_its_lines() -> None:
    from hafs.scorers.text.measures import found

    every = "\n".join(map(str, range(1000)))
    assert found("^42$", "42") and not found("^42$", every) and found("(?m)^42$", every)


def test_code_in_a_text_is_not_simpler_than_the_same_code() -> None:
    import ast

    from hafs.scorers.python.harness import measure

    plain = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    size, complexity = measure(ast.parse(plain))
    for hidden in (
        f"exec({plain!r})",
        f"__builtins__['ex' + 'ec']({plain!r})",
        f"import builtins as b\nb.exec({plain!r})",
    ):
        assert measure(ast.parse(hidden))[1] > complexity + 100
    table = f"T = {'x' * 4000!r}\ndef f(x): return T[x]"
    assert measure(ast.parse(table))[0] > 250
    noted = plain.replace("def f(x):\n", f"def f(x):\n    {'a word ' * 90!r}\n")
    assert measure(ast.parse(noted))[0] - size < 5
