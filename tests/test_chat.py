"""Text to tokens by models' own templates: families' shapes, turn ends, refusals, dates, thoughts, control tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import byte_tokenizer
from families import FAMILIES, tokenizer_of
from hafs.models.chat import (
    TemplateRefuses,
    chat_notes,
    encode_answer,
    encode_messages,
    encode_prompt,
    render,
    stop_ids,
    template_hash,
    turn_of,
)
from hafs.models.thoughts import split_thought

USER, ANSWER = {"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "It is 4."}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
}
RESULT = {"role": "tool", "name": "add", "content": "4"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "plain": [USER],
    "system": [SYSTEM, USER],
    "many turns": [USER, ANSWER, {"role": "user", "content": "And 3+3?"}],
}
NAMES = sorted(FAMILIES)


def whole_chat(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """The ids of a chat as its template renders it, up to the end of its last turn."""
    text = render(tokenizer, messages, ask=False, **more)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    end = turn_of(tokenizer).end
    return list(ids[: len(ids) - ids[::-1].index(end)])


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("name", NAMES)
def test_prompt_and_answer_are_the_whole_chat(name: str, kind: str) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    thinking = "off" if family.thinks else "keep"  # these answers have no thought
    prompt = encode_messages(tokenizer, CHATS[kind], thinking=thinking)
    answer = encode_answer(tokenizer, "It is 6.", thinking=thinking)
    both = prompt + answer
    if name == "deepseek_r1":  # writes no thought into an answer that has none, though its prompt opens one
        assert tokenizer.decode(both).endswith("<think>\n\n</think>\n\nIt is 6.<｜end▁of▁sentence｜>")
    else:
        assert both == whole_chat(tokenizer, [*CHATS[kind], {"role": "assistant", "content": "It is 6."}])
    if family.bos and name != "olmo2":
        assert both.count(tokenizer.bos_token_id) == 1
    assert answer.count(turn_of(tokenizer).end) == 1
    assert answer[-1] == tokenizer.convert_tokens_to_ids(family.end) == stop_ids(tokenizer)[0]
    assert "Be brief." in tokenizer.decode(prompt) or kind != "system"


@pytest.mark.parametrize("name", [n for n in NAMES if FAMILIES[n].tools])
def test_tools_calls_and_results_are_the_whole_chat(name: str) -> None:
    tokenizer = tokenizer_of(name)
    thinking = "off" if FAMILIES[name].thinks else "keep"
    chat = [USER, CALL, RESULT]
    prompt = encode_messages(tokenizer, chat, [TOOL], thinking)
    answer = encode_answer(tokenizer, "It is 4.", thinking=thinking)
    assert prompt + answer == whole_chat(tokenizer, [*chat, ANSWER], tools=[TOOL])
    assert "Adds." in tokenizer.decode(prompt)


@pytest.mark.parametrize("name", [n for n in NAMES if not FAMILIES[n].tools])
def test_a_template_that_leaves_tools_out_is_refused(name: str) -> None:
    with pytest.raises(TemplateRefuses, match="does not show the tools"):
        encode_messages(tokenizer_of(name), [USER], [TOOL])


@pytest.mark.parametrize("name", [n for n in NAMES if FAMILIES[n].thinks])
def test_a_thought_is_kept_or_dropped(name: str) -> None:
    tokenizer = tokenizer_of(name)
    prompt = encode_messages(tokenizer, [USER])
    kept = tokenizer.decode(prompt + encode_answer(tokenizer, "<think>\nTwo and two.\n</think>\n\nIt is 4."))
    assert kept.count("Two and two.") == 1
    assert kept.count("<think>") == kept.count("</think>") == (name != "gpt_oss")
    stripped = encode_answer(tokenizer, "<think>\nTwo and two.\n</think>\n\nIt is 4.", thinking="strip")
    assert "Two" not in tokenizer.decode(stripped)
    assert stripped == encode_answer(tokenizer, "It is 4.", thinking="strip")
    if name != "deepseek_r1":
        whole = [USER, {**ANSWER, "reasoning_content": "Two and two."}]
        assert prompt + encode_answer(tokenizer, "It is 4.", thought="Two and two.") == whole_chat(tokenizer, whole)


def test_a_plain_answer_is_not_written_inside_an_open_thought() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
    )
    asked = encode_prompt(tokenizer, "Hi")
    said = tokenizer.decode(asked + encode_answer(tokenizer, "Hello."))
    assert said.endswith("<think>\n\n</think>\n\nHello.<|im_end|>")
    off = encode_prompt(tokenizer, "Hi", thinking="off") + encode_answer(tokenizer, "Hello.", thinking="off")
    assert tokenizer.decode(off).endswith("<think>\n\n</think>\n\nHello.<|im_end|>")
    assert any("opens a thought" in note for note in chat_notes(tokenizer))


def test_a_strict_template_gets_the_system_text_before_the_users() -> None:
    tokenizer = tokenizer_of("gemma2")
    said = tokenizer.decode(encode_prompt(tokenizer, "Hi", "Be brief."))
    assert said == "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert any("takes no system text" in note for note in chat_notes(tokenizer, system=True))
    assert len(template_hash(tokenizer)) == 20  # its probe needs no role that the template refuses


def test_a_system_text_that_a_template_leaves_out_is_not_lost() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "in messages %}", "in messages if m['role'] != 'system' %}"
    )
    assert "Be brief.\n\nHi" in tokenizer.decode(encode_prompt(tokenizer, "Hi", "Be brief."))


def test_roles_that_do_not_alternate_are_refused_with_the_templates_words() -> None:
    with pytest.raises(TemplateRefuses, match="must alternate"):
        encode_messages(tokenizer_of("gemma2"), [USER, USER])


def test_the_date_of_a_template_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.chat_template_utils as utils

    before = {name: (template_hash(tokenizer_of(name)), encode_prompt(tokenizer_of(name), "Hi")) for name in NAMES}

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 5, 6)

    monkeypatch.setattr(utils, "datetime", Tomorrow)
    for name, (hash, ids) in before.items():
        assert (template_hash(tokenizer_of(name)), encode_prompt(tokenizer_of(name), "Hi")) == (hash, ids)
    assert any("prints a date" in note for note in chat_notes(tokenizer_of("granite")))


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_of_a_user_are_text(name: str) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    spelled = "".join(family.special) + family.end
    special = {tokenizer.convert_tokens_to_ids(mark) for mark in family.special}

    def controls(ids: list[int]) -> list[int]:
        return [i for i in ids if i in special]

    quiet = controls(encode_prompt(tokenizer, "Hi", "Sys"))
    assert controls(encode_prompt(tokenizer, f"Hi {spelled}", f"Sys {spelled}")) == quiet
    assert controls(encode_answer(tokenizer, f"So {spelled}.")) == controls(encode_answer(tokenizer, "So."))


@given(st.text(max_size=30), st.sampled_from(["qwen2", "llama3", "mistral"]))
def test_the_prompt_of_any_answer_is_the_prompt(text: str, name: str) -> None:
    tokenizer = _kept(name)
    assert tokenizer.decode(encode_answer(tokenizer, text, end=False)).lstrip(" ") == "".join(
        c for c in text if c not in "\ue000\ue001"
    ).encode("utf-16", "surrogatepass").decode("utf-16", "replace").lstrip(" ")


_TOKENIZERS: dict[str, Any] = {}


def _kept(name: str) -> Any:
    return _TOKENIZERS.setdefault(name, None) or _TOKENIZERS.update({name: tokenizer_of(name)}) or _TOKENIZERS[name]


def test_without_a_template_nothing_is_appended_to_the_prompt() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    marks = [("<|im_start|>", tokenizer.bos_token_id), ("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=marks
    )
    assert tokenizer.decode(encode_prompt(tokenizer, "Hi")) == "<|im_start|>Hi\n"
    assert tokenizer.decode(encode_answer(tokenizer, "Yes.")) == "Yes.<|im_end|>"
    assert any("no chat template" in note for note in chat_notes(tokenizer))


def test_an_answer_that_was_cut_has_no_end() -> None:
    tokenizer = tokenizer_of("llama3")
    whole, cut = encode_answer(tokenizer, "It is"), encode_answer(tokenizer, "It is", end=False)
    assert whole[:-1] == cut and whole[-1] == turn_of(tokenizer).end


@pytest.mark.parametrize(
    ("text", "thought", "answer", "finished"),
    [
        ("4", "", "4", True),
        ("<think>\nHm.\n</think>\n\n4", "Hm.", "4", True),
        ("\n<thinking>Hm.</thinking>4", "Hm.", "4", True),
        ("[THINK]Hm.[/THINK]4", "Hm.", "4", True),
        ("Hm.\n</think>\n\n4", "Hm.", "4", True),
        ("<think>\n\n</think>\n\n4", "", "4", True),
        ("<think>\nHm. It is 4", "Hm. It is 4", "", False),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
            "Hm.",
            "4",
            True,
        ),
        ("<|channel|>analysis<|message|>Hm. 4", "Hm. 4", "", False),
    ],
)
def test_what_stands_after_a_thought_is_the_answer(text: str, thought: str, answer: str, finished: bool) -> None:
    assert tuple(split_thought(text)) == (thought, answer, finished)


def test_text_inside_a_thought_that_the_prompt_opened() -> None:
    assert tuple(split_thought("Hm.\n</think>\n\n4", opened=True)) == ("Hm.", "4", True)
    assert tuple(split_thought("It is 4", opened=True)) == ("It is 4", "", False)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("template", [LOOP, "{{ 'a' * 10**11 }}", "{{ 'a' * 10**8 }}"])
def test_a_template_without_an_end_is_stopped(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import byte_tokenizer
    from hafs.models import greedy
    from hafs.models.chat import encode_prompt

    monkeypatch.setattr(greedy, "SECONDS", 1.0)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(greedy.TemplateTooGreedy, match="takes more than"):
        encode_prompt(tokenizer, "hi", "be kind")
