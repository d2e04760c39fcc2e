"""Data and models of public bug reports about trainers, through the command line: each with its right outcome.

`tests/cases/` holds the files. What only a model shows (turn ends, vocabularies, adapters) is in test_chat.py and
test_vocabulary.py; replies of judges are in test_judge.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import byte_tokenizer, tiny_network
from run_hafs import Ran, hafs, lines, workspace

CASES = Path(__file__).parent / "cases"
QUICK = ("--num-epochs", "1", "--batch-size", "2", "--gradient-accumulation-steps", "1")
ALTERNATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template takes neither a system text nor roles that do not alternate."""
    path = tmp_path_factory.mktemp("cases") / "strict"
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = ALTERNATE
    tiny_network().save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))
    return path


def copied(name: str) -> Path:
    """A case's file in the folder where the test stands, since bad rows are written beside it."""
    return Path(shutil.copy(CASES / name, Path(name).name))


def pairs(here: Path, name: str) -> list[tuple[Any, Any, Any]]:
    """Prompt, winner and loser of every row that `hafs preferences import` read and `export` wrote."""
    hafs("preferences", "import", copied(name), "--json").ok()
    hafs("preferences", "export", "out.jsonl", "--format", "trl-chat").ok()
    return [(row["prompt"][-1]["content"], row["chosen"][-1], row["rejected"][-1]) for row in lines(here / "out.jsonl")]


PAIRS = {
    "02-llamafactory-alpaca-pref/pref.jsonl": [
        ("Translate to German.\nGood morning", "Guten Morgen", "Guten Abend"),
        ("Name a prime above 10.", "11", "12"),
    ],
    "03-axolotl-single-message/dpo.jsonl": [("Name a red fruit.", "Cherry", "Lime")],
    "04-ms-swift-rejected-response/swift.jsonl": [("Tell me tomorrow's weather.", "I cannot know it.", "Sunny!")],
    "09-kto-one-label-a-prompt/kto-int.jsonl": [("What is 1+1?", "2", "3")],
    "15-utf16-powershell/utf16.jsonl": [(f"What is {n}+{n}?", str(2 * n), str(2 * n + 1)) for n in range(1, 7)],
    "16-csv/newlines.csv": [("Write code:\nline two", 'def f():\n    return "x"\n', "def f():\n  pass")],
    "16-csv/semicolon.csv": [("What is 1+1?", "2", "3"), ("What is 2+2?", "4", "5")],
    "41-null-and-plain-references/null-pair.jsonl": [("What is 1+1?", "2", "3")],
}
"""What each file of pairs says, and nothing less: no column of the question is dropped."""


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_say_what_the_file_says(here: Path, name: str) -> None:
    found = [(prompt, won["content"], lost["content"]) for prompt, won, lost in pairs(here, name)]
    assert sorted(found) == sorted(PAIRS[name])


def test_one_group_is_not_spoken_of_as_several(here: Path) -> None:
    ran = hafs("preferences", "import", copied("03-axolotl-single-message/dpo.jsonl"), "--show", "0").ok()
    assert "1 group with 1 edge from" in ran.out and "(1 row as trl)" in ran.out


def test_calls_of_tools_are_answers_and_a_tools_result_ends_a_prompt(here: Path) -> None:
    calls = [won["tool_calls"] for _, won, _ in pairs(here, "08-tool-calls/tools.jsonl") if "tool_calls" in won]
    assert [call["function"]["name"] for [call] in calls] == ["rand"]
    [(prompt, won, _)] = pairs(here, "08-tool-calls/tool-result-last.jsonl")
    row = lines(CASES / "08-tool-calls/tool-result-last.jsonl")[0]
    assert row["prompt"][-1]["role"] == "tool" and prompt == row["prompt"][-1]["content"]
    assert won["content"] == row["chosen"][-1]["content"]


@pytest.mark.parametrize(
    "format", ["trl", "trl-chat", "trl-implicit", "unpaired", "openai", "ms-swift", "ultrafeedback"]
)
def test_calls_of_tools_come_back_from_every_format_of_messages(here: Path, format: str) -> None:
    from hafs.preferences.formats import read_preferences, write_preferences

    groups = read_preferences(CASES / "08-tool-calls/tools.jsonl").groups
    write_preferences("out.jsonl", groups, format)
    said = [message for row in lines(here / "out.jsonl") for message in _messages_in(row)]
    assert any(message.get("tool_calls") for message in said)
    assert not any('"tool_calls"' in str(message.get("content")) for message in said)
    back = read_preferences("out.jsonl", format).groups
    assert [{c.text for c in g.candidates} for g in back] == [{c.text for c in g.candidates} for g in groups]


def _messages_in(value: Any) -> list[dict[str, Any]]:
    """Every message anywhere in a row."""
    if isinstance(value, list):
        return [found for item in value for found in _messages_in(item)]
    if not isinstance(value, dict):
        return []
    return [value] if "role" in value else _messages_in(list(value.values()))


@pytest.mark.parametrize("format", ["sharegpt", "hh-rlhf"])
def test_a_format_of_texts_leaves_calls_of_tools_out_and_says_so(here: Path, format: str) -> None:
    file = copied("08-tool-calls/tools.jsonl")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    ran = hafs("preferences", "export", "out.jsonl", "--input", file, "--format", format)
    assert "its answers hold calls of tools" in ran.err


def train(model: Path, data: Path, *more: str) -> Ran:
    return hafs("train", "dpo", "--sft-model", model, "--preference-data", data, "--output-dir", "out", *QUICK, *more)


def test_a_template_that_hides_the_tools_trains_on_none_of_their_rows(here: Path, tiny_model: Path) -> None:
    file = copied("08-tool-calls/tools.jsonl")
    train(tiny_model, file).failed(2, "all 2 prompts are left out", "does not show the tools")
    assert not Path("out", "model").exists()
    shutil.rmtree("out", ignore_errors=True)
    rows = [{"prompt": f"{n}+{n}?", "chosen": str(2 * n), "rejected": "0"} for n in range(1, 5)]
    file.write_text(file.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    ran = train(tiny_model, file).ok()
    assert "2 of 6 prompts are left out, refused by the chat template" in ran.err and "show the tools" in ran.err
    assert len(lines(here / "out" / "left_out.jsonl")) == 2


def test_labels_of_single_answers_are_for_kto(here: Path, tiny_model: Path) -> None:
    file = copied("09-kto-one-label-a-prompt/kto.jsonl")
    train(tiny_model, file).failed(2, "labels of single answers", "hafs train dpo --loss kto")
    train(tiny_model, file, "--loss", "kto").ok()


def test_texts_that_hold_the_templates_marks_are_said(here: Path, tiny_model: Path) -> None:
    ran = train(tiny_model, copied("11-already-templated/templated.jsonl")).ok()
    assert "8 of 8 rows hold marks of a chat template inside their texts (<|im_start|>)" in ran.err


def sft(model: Path, name: str) -> list[dict[str, Any]]:
    """The examples that were learnt from a case's file."""
    hafs("sft", "--model", model, "--data", copied(name), "--output-dir", "out", *QUICK).ok()
    return lines(Path("out") / "data.jsonl")


@pytest.mark.parametrize("name", ["alpaca.jsonl", "alpaca.json"])
def test_the_input_of_an_instruction_is_learnt(here: Path, tiny_model: Path, name: str) -> None:
    said = json.dumps(sft(tiny_model, f"17-sft-alpaca-input/{name}"))
    assert "Give the past tense of the verb.\\ngo" in said and "Give the past tense of the verb.\\neat" in said


@pytest.mark.parametrize(("name", "answers"), [("multi", 4), ("sharegpt", 2), ("openai-parts", 1)])
def test_conversations_are_learnt(here: Path, tiny_model: Path, name: str, answers: int) -> None:
    file = copied(f"18-sft-multi-turn/{name}.jsonl")
    ran = hafs("sft", "--model", tiny_model, "--data", file, "--output-dir", "out", "--show", "4", *QUICK).ok()
    assert f"row 1 of {answers} as the model sees it" in ran.err
    assert "Who wrote Faust?" in ran.err and "Goethe." in ran.err and ("In 1749." in ran.err) == (answers == 4)


@pytest.mark.parametrize("name", ["sft.jsonl.gz", "sft.json", "sft.csv"])
def test_every_container_is_learnt_as_json_lines_are(here: Path, tiny_model: Path, name: str) -> None:
    found = sft(tiny_model, f"19-sft-containers/{name}")
    shutil.rmtree("out")
    assert found == sft(tiny_model, "19-sft-containers/sft.jsonl")


@pytest.mark.parametrize(
    ("name", "n"), [("prompt-column.jsonl", 2), ("messages-column.jsonl", 1), ("chat.jsonl", 1), ("plain.txt", 2)]
)
def test_prompts_of_every_file_are_answered(here: Path, tiny_model: Path, name: str, n: int) -> None:
    ran = hafs(
        "generate", "--model", tiny_model, "--prompts", copied(f"20-prompt-files/{name}"), "--max-new-tokens", "4"
    ).ok()
    assert f"{3 * n} candidates for {n} prompt" in ran.out


def test_what_is_too_long_is_counted_and_listed(here: Path, tiny_model: Path) -> None:
    file = here / "long.jsonl"
    rows = [{"prompt": f"{n}?" + "x" * (900 if n < 2 else 1), "chosen": "a", "rejected": "b"} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = train(tiny_model, file, "--max-length", "500").ok()
    assert "2 of 8 prompts are left out, longer than max_length 500" in ran.err
    assert len(lines(here / "out" / "left_out.jsonl")) == 2
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    shutil.rmtree("out")
    train(tiny_model, file, "--max-length", "500").failed(2, "all 2 prompts are left out", "raise max_length")


def test_a_system_text_stands_before_the_users_where_the_template_takes_none(here: Path, strict: Path) -> None:
    ran = train(strict, copied("24-system-not-supported/sys.jsonl"), "--show", "1").ok()
    assert "takes no system text: it stands before the first text of the user" in ran.err and "Be brief." in ran.err


def test_rows_whose_roles_do_not_alternate_cost_themselves_alone(here: Path, strict: Path) -> None:
    ran = train(strict, copied("25-roles-must-alternate/alt.jsonl")).ok()
    assert "3 of 9 prompts are left out, refused by the chat template; the first is row 1" in ran.err
    assert len(lines(here / "out" / "left_out.jsonl")) == 3


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("null-system", {"text": "What is 1+1?", "system": None}),
        ("plain-references", {"text": "What is 2+2?", "references": ["4"]}),
        ("extra", {"text": "What is 3+3?"}),
    ],
)
def test_prompts_with_nulls_plain_references_and_columns_of_their_own(
    here: Path, name: str, read: dict[str, Any]
) -> None:
    ran = hafs("data", "import", "prompts", copied(f"41-null-and-plain-references/{name}.jsonl"), "--show", "0").ok()
    assert ("columns that are not used: answer, meta" in ran.err) == (name == "extra")
    hafs("data", "export", "prompts", "out.jsonl").ok()
    [row] = lines(here / "out.jsonl")
    assert row["text"] == read["text"] and not row.get("system")
    assert [r["text"] for r in row.get("references", [])] == read.get("references", [])
