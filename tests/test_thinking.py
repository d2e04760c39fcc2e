"""Thinking models and conversations: what stands after a thought is the answer, and prompts may be whole chats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_network
from families import tokenizer_of
from hafs.backends import Request
from hafs.config import Config, GenerateConfig, SFTConfig, parse_config
from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import encode_answer, encode_prompt, read_answer
from hafs.preferences import build_groups
from hafs.scorers import _answers_alone
from hafs.store import open_store
from hafs.training.packing import tokenize
from hafs.types import Candidate, GroupCandidate, PreferenceGroup, Prompt, Score

TURNS = ({"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"})
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)


class Lenient:
    """A scorer that every text passes which names the answer."""

    name, version = "lenient", "1"

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.seen: list[str] = []

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        for _, candidate in items:
            self.seen.append(candidate.text)
            right = "4" in candidate.text
            yield Score(candidate.id, self.name, self.version, {}, float(right), passed=right)

    def close(self) -> None:
        pass


def test_an_unfinished_thought_is_no_answer_even_where_its_draft_is_right() -> None:
    scorer = Lenient()
    prompt = Prompt("What is 2+2?")
    made = [
        Candidate(prompt.id, "4", thought="Two and two."),
        Candidate(prompt.id, "", thought="It is 4, I think", finish="length"),
        Candidate(prompt.id, "5"),
    ]
    scores = list(_answers_alone(scorer).score([(prompt, c) for c in made]))
    assert [s.passed for s in scores] == [True, False, False]
    assert scores[1].cause == "unfinished" and scores[1].value == 0.0 and scorer.seen == ["4", "5"]
    groups, _ = build_groups([prompt], made, scores)
    (group,) = groups
    assert group.candidates[0].thought == "Two and two." and group.candidates[-1].text == ""


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1", "gpt_oss"])
def test_a_sampled_thought_is_read_back_as_it_is_trained(name: str) -> None:
    tokenizer = tokenizer_of(name)
    ids = encode_answer(tokenizer, "It is 4.", thought="Two and two.")
    assert tuple(read_answer(tokenizer, ids)) == ("Two and two.", "It is 4.", True)
    cut = encode_answer(tokenizer, "", end=False, thought="Two and two. It is 4")
    assert tuple(read_answer(tokenizer, cut)) == ("Two and two. It is 4", "", False)
    plain = encode_answer(tokenizer, "It is 4.", thinking="off")
    assert tuple(read_answer(tokenizer, plain, "off")) == ("", "It is 4.", True)


def test_training_keeps_or_drops_the_thought_as_set() -> None:
    tokenizer = tokenizer_of("qwen3")
    group = PreferenceGroup(
        "2+2?", (GroupCandidate("4", thought="Two."), GroupCandidate("<think>\nNo.\n</think>\n\n5")), ()
    )
    said = {
        t: [tokenizer.decode(c) for c in tokenize(tokenizer, group, t).candidates] for t in ("keep", "strip", "off")
    }
    assert ["Two." in said["keep"][0], "No." in said["keep"][1]] == [True, True]
    assert said["strip"] == ["<think>\n\n</think>\n\n4<|im_end|>", "<think>\n\n</think>\n\n5<|im_end|>"]
    assert said["off"] == ["4<|im_end|>", "5<|im_end|>"]
    assert tokenizer.decode(tokenize(tokenizer, group, "off").prompt).endswith("<think>\n\n</think>\n\n")


def test_one_setting_of_the_workspace_holds_where_a_section_says_nothing() -> None:
    found = parse_config({"model": {"thinking": "off"}, "dpo": {"thinking": "keep"}})
    assert (found.generate.thinking, found.eval.thinking, found.sft.thinking, found.dpo.thinking) == (
        "off",
        "off",
        "off",
        "keep",
    )
    assert Config().generate.thinking == "keep"


def test_a_conversation_is_a_prompt_with_an_id_of_its_own_and_goes_through_the_store(tmp_path: Path) -> None:
    prompt = Prompt("And 3+3?", "Be brief.", context=TURNS, tools=TOOLS)
    plain = Prompt("And 3+3?", "Be brief.")
    assert prompt.id != plain.id and plain.id == Prompt.from_dict(plain.to_dict()).id
    assert "context" not in plain.to_dict() and Prompt.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt
    made = [Candidate(prompt.id, text, thought=thought) for text, thought in (("6", "Hm."), ("7", ""))]
    with open_store(tmp_path / "s.db") as store:
        store.add_prompts([prompt, plain])
        store.add_candidates(made)
        store.add_scores([Score(c.id, "x", "1", value=float(c.text == "6")) for c in made])
        assert store.get_prompt(prompt.id) == prompt
        assert {c.text: c.thought for c in store.candidates()} == {"6": "Hm.", "7": ""}
        ((again, answers),) = [x for x in store.ranked_answers("x", "1", {}) if x[1]]
        assert again.id == prompt.id and {a.text: a.thought for a in answers} == {"6": "Hm.", "7": ""}
    assert prompt.shown.startswith("[user]\nWhat is 2+2?\n\n[assistant]\n4\n\n[user]\nAnd 3+3?")


def test_a_group_of_a_conversation_is_that_of_imported_pairs() -> None:
    from hafs.preferences.pairs import from_pairs

    prompt = Prompt("And 3+3?", context=TURNS)
    made = [Candidate(prompt.id, "6"), Candidate(prompt.id, "7")]
    scores = [Score(c.id, "x", "1", value=float(c.text == "6")) for c in made]
    (built,) = build_groups([prompt], made, scores)[0]
    asked = [*TURNS, {"role": "user", "content": "And 3+3?"}]
    (imported,) = from_pairs([{"prompt": asked, "chosen": "6", "rejected": "7"}]).groups
    assert built.prompt_id == imported.prompt_id and built.context == imported.context


def test_a_model_answers_a_conversation_and_a_prompt_that_ends_in_a_tools_result() -> None:
    tokenizer = tokenizer_of("qwen2")
    backend = TransformersBackend.of(tiny_network(vocab_size=len(tokenizer)), tokenizer)
    result = (
        {"role": "user", "content": "2+2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
        },
        {"role": "tool", "name": "add", "content": "4"},
    )
    prompts = [Prompt("And 3+3?", context=TURNS), Prompt("", context=result, tools=TOOLS)]
    requests = [Request.of(p) for p in prompts]
    config = GenerateConfig(max_new_tokens=3, temperature=0)
    got = {a.key: a for batch in backend.plan(requests, config) for a in backend.generate(batch, config)}
    assert set(got) == {p.id for p in prompts}
    ids = encode_prompt(tokenizer, "", context=result, tools=TOOLS)
    assert tokenizer.decode(ids).endswith("<|im_start|>tool\n4<|im_end|>\n<|im_start|>assistant\n")


def test_a_row_that_the_template_refuses_costs_itself_alone() -> None:
    from hafs.backends import Unanswered, answers

    tokenizer = tokenizer_of("gemma2")
    backend = TransformersBackend.of(tiny_network(vocab_size=len(tokenizer)), tokenizer)
    good, bad = Prompt("Hi", "Be brief."), Prompt("Hi", context=({"role": "user", "content": "Hello?"},))
    config = GenerateConfig(max_new_tokens=2, temperature=0)
    (batch,) = backend.plan([Request.of(good), Request.of(bad)], config)
    with pytest.raises(Unanswered, match="must alternate") as caught:
        backend.generate(batch, config)
    assert [a.key for a in caught.value.answers] == [good.id] and sum(caught.value.failed.values()) == 1
    assert [a.key for made in answers(backend, [Request.of(good), Request.of(bad)], config) for a in made] == [good.id]


def test_a_bad_row_is_named_and_the_others_train(tmp_path: Path) -> None:
    from hafs.training import train_sft

    tokenizer = tokenizer_of("gemma2")
    path = tmp_path / "gemma"
    tiny_network(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id).save_pretrained(path)
    tokenizer.save_pretrained(path)
    rows = [PreferenceGroup(f"say {i}", (GroupCandidate(f"{i}"),), (), system="Be brief.") for i in range(4)]
    rows.insert(1, PreferenceGroup("say", (GroupCandidate("x"),), (), context=({"role": "user", "content": "again"},)))
    settings = {"precision": "fp32", "validation_share": 0.0, "lora": {"rank": 2, "alpha": 4}}
    result = train_sft(str(path), rows, SFTConfig(**settings), tmp_path / "run")
    notes = "\n".join(result.warnings)
    assert "1 of 5 prompts" in notes and "must alternate" in notes
    assert "takes no system text" in notes and "a turn ends with <end_of_turn>" in notes
    ends = json.loads((tmp_path / "run/model/generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in ends


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}],
}


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3", "ministral", "granite", "gpt_oss", "smollm3"])
def test_a_call_of_tools_is_an_answer_that_the_template_writes(name: str) -> None:
    from hafs.models.chat import render
    from hafs.types import call_in, call_text

    tokenizer, text = tokenizer_of(name), call_text(CALL)
    message = call_in(text)
    assert message is not None and call_in('{"content": "x"}') is None
    thinking = "off" if name in ("qwen3", "gpt_oss") else "keep"
    asked = [{"role": "user", "content": "2+2?"}]
    prompt = encode_prompt(tokenizer, "2+2?", tools=TOOLS, thinking=thinking)
    answer = encode_answer(tokenizer, text, thinking=thinking)
    whole = [*asked, {**CALL, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]}]
    said = render(tokenizer, whole, TOOLS, thinking, ask=False)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert (
        prompt + answer == ids[: len(prompt + answer)] and tokenizer.decode(ids[len(prompt + answer) :]).strip() == ""
    )
    end = {"gpt_oss": "<|call|>"}.get(name, tokenizer.eos_token)
    assert tokenizer.decode(answer[-1:]) == end


def test_a_template_without_calls_refuses_them_by_row() -> None:
    from hafs.models.chat import TemplateRefuses
    from hafs.types import call_text

    with pytest.raises(TemplateRefuses, match="leaves calls of tools out"):
        encode_answer(tokenizer_of("gemma2"), call_text(CALL))


def test_every_answer_of_a_conversation_is_learnt_or_the_last(tmp_path: Path) -> None:
    from hafs.data.examples import every_answer, read_examples

    row = {
        "messages": [
            {"role": "system", "content": "S"},
            *TURNS,
            {"role": "user", "content": "3+3?"},
            CALL,
            {"role": "tool", "content": "6"},
            {"role": "assistant", "content": "It is 6."},
        ]
    }
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps(row) + "\n")
    last = read_examples(file).rows
    assert [g.candidates[0].text for g in last] == ["It is 6."] and last[0].prompt == ""
    every = every_answer(last)
    assert [(g.prompt, len(g.context), g.system) for g in every] == [
        ("What is 2+2?", 0, "S"),
        ("3+3?", 2, "S"),
        ("", 5, "S"),
    ]
    tokenizer = tokenizer_of("qwen2")
    said = [tokenizer.decode(tokenize(tokenizer, g).candidates[0]) for g in every]
    assert said[0] == "4<|im_end|>" and "<tool_call>" in said[1] and said[2] == "It is 6.<|im_end|>"


def test_prompts_and_pairs_of_a_file_may_be_conversations_with_calls(tmp_path: Path) -> None:
    from hafs.data import read_prompts
    from hafs.preferences import read_preferences
    from hafs.types import call_in

    file = tmp_path / "pairs.jsonl"
    row = {"prompt": [{"role": "user", "content": "2+2?"}], "chosen": [CALL], "rejected": "4", "tools": list(TOOLS)}
    file.write_text(json.dumps(row) + "\n")
    (group,) = read_preferences(file).groups
    assert call_in(group.candidates[0].text) is not None and group.tools == TOOLS
    chats = tmp_path / "chats.jsonl"
    chats.write_text(
        json.dumps({"messages": [*TURNS, {"role": "user", "content": "3+3?"}], "tools": list(TOOLS)}) + "\n"
    )
    (prompt,) = read_prompts(chats).rows
    assert (prompt.text, prompt.context, prompt.tools) == ("3+3?", TURNS, TOOLS)
