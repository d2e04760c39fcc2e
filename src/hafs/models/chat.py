"""From words to tokens and back, by the model's own chat template; generation and training both go through here.

A prompt becomes the template's token ids up to where the assistant speaks; an answer becomes its own token ids up to
the token that ends a turn. The prompt is tokenised by itself in sampling and in training, so an answer sampled by a
model and the same answer in training have the same prompt ids. What the template writes around an answer, and with
which token it ends a turn, is found by rendering (`turn_of`), not taken from `tokenizer.eos_token`.

Text of a user that spells a control token is encoded as text. A template that prints the date prints `DATE`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

from hafs.errors import UsageError
from hafs.models.greedy import TemplateTooGreedy, bounded
from hafs.models.thoughts import Thought, begins_thought, split_thought
from hafs.types import call_in, content_id

Thinking = Literal["keep", "strip", "off"]
"""What becomes of a model's thoughts: trained on as they are; left out of what is trained; not asked for at all."""

DATE = datetime(2026, 1, 1)
"""The date that a template prints which prints one: sampling, training and a resumed run see the same text."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any
    eos_token: Any
    eos_token_id: int | None
    pad_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, Any]: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def convert_tokens_to_ids(self, token: str) -> int: ...

    def apply_chat_template(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any: ...


class TemplateRefuses(UsageError):
    """The model's chat template does not take a conversation; it costs that row alone."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the model's chat template does not take it: {why}", "correct the row or leave it out")


@dataclass(frozen=True)
class Turn:
    """What a template writes around an answer that follows a generation prompt.

    `header` is the part of the generation prompt that the template writes only when the answer is there; `lead` stands
    between the prompt and a plain answer, `tail` after the answer up to the token `end`, which ends the turn. `thought`
    is what stands before and after a thought. A template that `opens` a thought does so in the generation prompt.
    """

    lead: str = ""
    tail: str = ""
    end: int | None = None
    header: str = ""
    thought: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    opens: bool = False
    thinks: bool = False
    prompt: str = ""


def messages_of(text: str, system: str = "", context: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The conversation of a prompt; an empty system text leaves the system turn to the template.

    An empty text adds no turn of the user: the conversation ends with the last of `context`, a tool's result.
    """
    turns = [{"role": "system", "content": system}] if system else []
    asked = [] if not text and context else [{"role": "user", "content": text}]
    return [*turns, *map(dict, context), *asked]


def whole(text: str) -> str:
    """`text` with each lone surrogate, which only a JSON escape can write and no tokenizer takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_prompt(
    tokenizer: Tokenizer,
    text: str,
    system: str = "",
    context: Sequence[Mapping[str, Any]] = (),
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: Thinking = "keep",
) -> list[int]:
    """Token ids of the prompt up to the assistant's first token; a model without a template gets the plain text.

    `context` are earlier chat messages, `tools` the tools that the template is told of. Raises TemplateRefuses.
    """
    return encode_messages(tokenizer, messages_of(text, system, context), tools, thinking)


def encode_messages(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: Thinking = "keep",
) -> list[int]:
    """Token ids of a conversation up to the assistant's next token. Raises TemplateRefuses.

    A template that refuses a system turn, or leaves it out, gets the system text before the first turn of the user.
    """
    turns = [_with_arguments(whole_message(m)) for m in messages]
    if not tokenizer.chat_template:
        said = [str(m.get("content") or "") for m in turns]
        return _plain_ids(tokenizer, "\n\n".join(t for t in said if t) + "\n")
    rendered = render(tokenizer, _marked(tokenizer, turns), _marked_tools(tokenizer, tools), thinking)
    turn = turn_of(tokenizer, thinking)
    return _ids(tokenizer, rendered + turn.header)


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    thinking: Thinking = "keep",
    ask: bool = True,
) -> str:
    """The text that the template makes of a conversation, `ask`ing for the assistant's next turn. Raises
    TemplateRefuses where it takes no such conversation, or leaves its tools out."""
    turns = [dict(m) for m in messages]
    draw = partial(_apply, tokenizer, tools=tools, thinking=thinking, ask=ask)
    try:
        made = _with_system(draw, turns)
        ignored = bool(tools) and made == _with_system(partial(draw, tools=()), turns)
    except UsageError:
        raise
    except Exception as e:  # whatever a template raises says that it does not take this conversation
        raise TemplateRefuses(str(e).strip() or type(e).__name__) from e
    if ignored:
        raise TemplateRefuses("it does not show the tools")
    called = [c["function"]["name"] for m in turns for c in m.get("tool_calls") or () if "function" in c]
    if any(name not in made for name in called):
        raise TemplateRefuses("it leaves calls of tools out")
    return _closed(made) if ask and thinking == "off" else made


def _with_system(draw: Any, turns: list[dict[str, Any]]) -> str:
    """What `draw` makes of the turns, the system text before the user's where it takes no system turn."""
    if not turns or turns[0]["role"] != "system":
        return str(draw(turns))
    system = str(turns[0]["content"])
    try:
        made = str(draw(turns))
        if system.strip() in made:
            return made
    except TemplateTooGreedy:
        raise
    except Exception as e:
        if len(turns) < 2:
            raise
        refused: Exception | None = e
    else:
        refused = None
    rest = [dict(t) for t in turns[1:]]
    first = next((t for t in rest if t["role"] == "user"), None)
    if first is None:
        raise refused or TemplateRefuses("it leaves the system text out")
    first["content"] = f"{system}\n\n{first['content']}"
    return str(draw(rest))


def _apply(tokenizer: Any, turns: Any, tools: Any, thinking: Thinking, ask: bool) -> str:
    more: dict[str, Any] = {"tools": [dict(t) for t in tools]} if tools else {}
    template = str(tokenizer.chat_template)
    if thinking == "off":
        more |= {"enable_thinking": False, "thinking": False}
    elif "enable_thinking" in template:
        more["enable_thinking"] = True
    if "date_string" in template:
        more["date_string"] = DATE.strftime("%d %b %Y")
    if "strftime_now" in template:
        _fix_date(tokenizer.get_chat_template(tools=more.get("tools")))
    draw = partial(tokenizer.apply_chat_template, turns, add_generation_prompt=ask, tokenize=False, **more)
    return bounded(lambda: str(draw()), template)


def _fix_date(template: str) -> None:
    """Have transformers' compiled form of a template, which it keeps, print our date."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _compile_jinja_template(template).globals["strftime_now"] = DATE.strftime


def turn_of(tokenizer: Any, thinking: Thinking = "keep") -> Turn:
    """What the template writes around an answer, by rendering a question with and without its answer."""
    known = _TURNS.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), tokenizer.eos_token_id, thinking)
    if key not in known:
        known[key] = _find_turn(tokenizer, thinking)
    return known[key]


_TURNS: WeakKeyDictionary[Any, dict[tuple[Any, ...], Turn]] = WeakKeyDictionary()
_QUESTION, _ANSWER, _THOUGHT = "Which letter?", "Qzx7", "Vwk5"


def _find_turn(tokenizer: Any, thinking: Thinking) -> Turn:
    bare = Turn(tail=tokenizer.eos_token or "", end=tokenizer.eos_token_id)
    if not tokenizer.chat_template:
        return bare
    asked: list[dict[str, Any]] = [{"role": "user", "content": _QUESTION}]
    answered = {"role": "assistant", "content": _ANSWER}
    try:
        prompt = render(tokenizer, asked, (), thinking)
        silent = render(tokenizer, asked, (), thinking, ask=False)
        chat = render(tokenizer, [*asked, answered], (), thinking, ask=False)
    except UsageError:
        return bare
    before, found, rest = chat.rpartition(_ANSWER)
    if not found:
        return bare
    mark = _specials(tokenizer).search(rest)
    end = int(tokenizer.convert_tokens_to_ids(mark.group())) if mark else tokenizer.eos_token_id
    tail = rest[: mark.end()] if mark else bare.tail
    opened = _OPEN.search(prompt) if thinking != "off" else None
    lead, header = before[len(prompt) :] if before.startswith(prompt) else "", ""
    if prompt == silent and lead.strip():
        lead, header = "", lead
    thought, thinks = _around_thought(tokenizer, asked, prompt + header, thinking)
    if opened and not before.startswith(prompt):
        lead = thought[1]
    return Turn(lead, tail, end, header, thought, bool(opened), thinks or bool(opened), prompt + header)


def _around_thought(
    tokenizer: Any, asked: list[dict[str, Any]], prompt: str, thinking: Thinking
) -> tuple[tuple[str, str], bool]:
    """What the template writes before and after a thought, and whether it knows of thoughts at all."""
    opened = _OPEN.search(prompt)
    after = "\n</think>\n\n"
    if opened and not opened.group().startswith("<think"):
        after = "\n" + opened.group(1).replace("<", "</", 1).replace("[", "[/", 1) + "\n\n"
    default = ("", after) if opened else ("<think>\n", after)
    answered = {"role": "assistant", "content": _ANSWER, "reasoning_content": _THOUGHT}
    try:
        chat = render(tokenizer, [*asked, answered], (), thinking, ask=False)
    except UsageError:
        return default, False
    before, found, rest = chat.partition(_THOUGHT)
    between, answer, _ = rest.partition(_ANSWER)
    if not (found and answer):
        return default, bool(opened)
    if before.startswith(prompt):
        return (before[len(prompt) :], between), True
    return ("", between) if opened else default, True


_OPEN = re.compile(r"(<think>|<thinking>|<seed:think>|\[THINK\])\s*$")


def _closed(prompt: str) -> str:
    """A generation prompt with the thought that it opens closed at once."""
    opened = _OPEN.search(prompt)
    if opened is None:
        return prompt
    close = opened.group(1).replace("<", "</", 1).replace("[", "[/", 1)
    return prompt.rstrip() + f"\n\n{close}\n\n"


def encode_answer(
    tokenizer: Tokenizer, text: str, end: bool = True, thinking: Thinking = "keep", thought: str = ""
) -> list[int]:
    """Token ids of an answer as the template writes it, with the token that ends a turn unless `end` is false (an
    answer that was cut off). A thought in `text`, or given apart, is encoded, or left out, as `thinking` says."""
    turn = turn_of(tokenizer, thinking)
    text = whole(text)
    if (call := call_in(text)) is not None:
        return encode_after(tokenizer, _call(tokenizer, call, end, thinking), thinking)
    if (turn.thinks or thinking != "keep") and not thought:
        thought, text, _ = split_thought(text)
    if thought and thinking == "keep" and not (text or end):
        return encode_after(tokenizer, turn.thought[0] + _safe(tokenizer, whole(thought)), thinking)
    if thought and thinking == "keep":
        body = f"{turn.thought[0]}{_safe(tokenizer, whole(thought))}{turn.thought[1]}{_safe(tokenizer, text)}"
    else:
        body = turn.lead + _safe(tokenizer, text)
    return encode_after(tokenizer, body + (turn.tail if end and turn.end is not None else ""), thinking)


def _call(tokenizer: Any, message: Mapping[str, Any], end: bool, thinking: Thinking) -> str:
    """What the template writes for an answer that calls tools; raises TemplateRefuses where it has no form for it."""
    turn = turn_of(tokenizer, thinking)
    if not tokenizer.chat_template:
        raise TemplateRefuses("a model without a template calls no tools")
    asked = [{"role": "user", "content": _QUESTION}]
    said = _marked(tokenizer, [_with_arguments(message)])
    chat = render(tokenizer, [*asked, *said], (), thinking, ask=False)
    before = turn.prompt
    if not chat.startswith(before) and turn.opens:
        before = _OPEN.sub("", before)
    if not chat.startswith(before):
        raise TemplateRefuses("what it writes for a call of tools does not follow its prompt")
    body = chat[len(before) :]
    stop = str(tokenizer.decode([turn.end])) if turn.end is not None else ""
    ends = [m for m in _specials(tokenizer).finditer(body) if m.group() == stop] or list(
        _specials(tokenizer).finditer(body)
    )[-1:]
    text = (body[: ends[0].end()] if end else body[: ends[0].start()]) if ends else body
    return (turn.thought[1] if turn.opens else "") + text


def encode_after(tokenizer: Tokenizer, text: str, thinking: Thinking = "keep") -> list[int]:
    """Token ids of what follows a generation prompt, as a whole chat would have them where that begins alike.

    A tokenizer may treat the beginning of a text apart from its middle (a space in front, most often)."""
    before = turn_of(tokenizer, thinking).prompt
    if not before:
        return _ids(tokenizer, text)
    head, both = _ids(tokenizer, before), _ids(tokenizer, before + text)
    return both[len(head) :] if both[: len(head)] == head else _ids(tokenizer, text)


def read_answer(tokenizer: Tokenizer, ids: Sequence[int], thinking: Thinking = "keep") -> Thought:
    """The answer in sampled ids and the thought before it; an answer that is all thought is unfinished."""
    text, turn = decode_answer(tokenizer, ids), turn_of(tokenizer, thinking)
    if turn.lead.isspace():
        text = text.removeprefix(turn.lead)
    if not turn.thinks:
        return split_thought(text) if begins_thought(text) else Thought("", text)
    ends = stop_ids(tokenizer)
    raw = tokenizer.decode(ids[:-1] if ids and ids[-1] in ends else ids)
    found = split_thought(raw, opened=turn.opens)
    if not found.thought and found.finished and found.text == raw:
        return Thought("", text)
    thought, said = (_specials(tokenizer).sub("", part) for part in found[:2])
    return Thought(thought, said, found.finished)


def decode_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of sampled ids without special tokens."""
    return tokenizer.decode(ids, skip_special_tokens=True)


def stop_ids(tokenizer: Tokenizer, generation_config: Any = None) -> list[int]:
    """The ids that end an answer: the template's end of a turn first, then the tokenizer's and the generation
    config's."""
    found: list[int] = []
    ends = (turn_of(tokenizer).end, tokenizer.eos_token_id, getattr(generation_config, "eos_token_id", None))
    for end in ends:
        for i in end if isinstance(end, list | tuple) else [end]:
            if i is not None and i not in found:
                found.append(int(i))
    return found


def template_hash(tokenizer: Tokenizer) -> str:
    """Identity of how text becomes tokens here: the template and the ids of a probe text; no matter when."""
    template, turn = str(tokenizer.chat_template), turn_of(tokenizer)
    try:
        probe = encode_prompt(tokenizer, "LDA.w $0E20 ; é\n\tSTA.b $00", "probe")
    except TemplateRefuses:
        probe = []
    same = turn.end == tokenizer.eos_token_id and not (turn.lead or turn.header or turn.opens)
    more = [] if same else [[turn.end, turn.lead, turn.tail, turn.header, turn.opens]]
    return content_id("template", template, probe, tokenizer.eos_token_id, *more)


def chat_notes(tokenizer: Tokenizer, system: bool = False) -> list[str]:
    """What a user should know of how this model is talked to; `system`: the data has system texts."""
    template = str(tokenizer.chat_template or "")
    if not template:
        return ["the model has no chat template: a prompt is its plain text and a line break"]
    notes, turn = [], turn_of(tokenizer)
    if turn.end != tokenizer.eos_token_id and turn.end is not None:
        mine, other = tokenizer.decode([turn.end]), tokenizer.eos_token
        notes.append(f"a turn ends with {mine}, as the chat template writes it (the tokenizer's eos_token is {other})")
    if "strftime_now" in template or "date_string" in template:
        notes.append(f"the chat template prints a date: it is {DATE:%Y-%m-%d} in sampling and training")
    if system and not _takes_system(tokenizer):
        notes.append("the chat template takes no system text: it stands before the first text of the user")
    if turn.opens:
        notes.append("the chat template opens a thought: an answer without one closes it first")
    return notes


def _takes_system(tokenizer: Any) -> bool:
    turns = messages_of(_QUESTION, _THOUGHT)
    try:
        return _THOUGHT in _apply(tokenizer, turns, (), "keep", True)
    except Exception:  # it refuses
        return False


def check_rows(tokenizer: Any, ids: Sequence[int], rows: int) -> None:
    """Raise UsageError for a token that a model of `rows` embeddings has none for."""
    if ids and max(ids) >= rows:
        word = tokenizer.decode([max(ids)])
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings: there is none for {word!r}"
            f" (id {max(ids)})",
            "`--resize-vocab` (hafs sft, hafs train) gives new tokens embeddings and trains them",
        )


def tokenizer_hash(tokenizer: Any) -> str:
    """Identity of the vocabulary and of how text is cut into it."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    return content_id("tokenizer", inner.to_str() if inner is not None else sorted(tokenizer.get_vocab().items()))


def _with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose calls have their arguments as an object, as templates take them, not as JSON in a text."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = dict(call.get("function") or call)
        with suppress(ValueError, TypeError):
            function["arguments"] = json.loads(function["arguments"])
        calls.append({**{k: v for k, v in call.items() if k == "id"}, "type": "function", "function": function})
    return {**message, **({"tool_calls": calls} if calls else {})}


def whole_message(value: Any) -> Any:
    """A message, or what is in one, without lone surrogates."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {k: whole_message(v) for k, v in value.items()}
    return [whole_message(v) for v in value] if isinstance(value, list | tuple) else value


_PATTERNS: WeakKeyDictionary[Any, dict[str, tuple[re.Pattern[str], ...]]] = WeakKeyDictionary()


def _patterns(tokenizer: Any) -> tuple[re.Pattern[str], ...]:
    """What finds a special token; one that makes a turn, a text or its padding; any that is special or that the
    template writes.

    An answer may hold special tokens of the second kind as text alone. Others were added for answers: they stay tokens.
    """
    known = _PATTERNS.setdefault(tokenizer, {})
    template = str(tokenizer.chat_template)
    if template not in known:
        added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
        ends = {getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "unk")}
        seen = template + _rendered(tokenizer)
        special = {t.content for t in added if t.special and t.content.strip()}
        control = {word for word in special if word in seen or word in ends or _ENDS.search(word)}
        written = {t.content for t in added if t.content.strip() and t.content in template}
        known[template] = (_any_of(special), _any_of(control), _any_of(special | written))
    return known[template]


def _rendered(tokenizer: Any) -> str:
    """What the template makes of turns of every role, where it takes them."""
    question, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
    system = {"role": "system", "content": _THOUGHT}
    made = []
    for turns, ask in (([question], True), ([question, answer], False), ([system, question], True)):
        try:
            made.append(_apply(tokenizer, turns, (), "keep", ask))
        except Exception:  # it does not take such a conversation
            continue
    return "".join(made)


_ENDS = re.compile(r"(?i)(begin|end).?of.?(text|sentence|turn)|endoftext|^</?s>$|^<(bos|eos|pad|unk)>$")


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)) or r"(?!)")


def _specials(tokenizer: Any) -> re.Pattern[str]:
    return _patterns(tokenizer)[0]


def _safe(tokenizer: Any, text: str) -> str:
    """An answer whose special tokens are marked as text; the template's other tokens (of thoughts, of calls) stay."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    control = _patterns(tokenizer)[1]
    return str(mark_control_tokens(text, control)) if control.search(text) else text


def _marked(tokenizer: Any, turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with control tokens in their texts marked as text."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    _, control, written = _patterns(tokenizer)
    made = []
    for turn in turns:
        pattern = control if turn.get("role") == "assistant" else written
        made.append({k: v if k == "role" else mark_control_tokens(v, pattern) for k, v in turn.items()})
    return made


def _marked_tools(tokenizer: Any, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    from transformers.utils.chat_template_utils import mark_control_tokens

    return [mark_control_tokens(whole_message(t), _patterns(tokenizer)[2]) for t in tools]


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text that the template wrote around marked texts."""
    from transformers.utils import chat_template_utils as marks

    if marks._CONTROL_TOKEN_START in text or marks._CONTROL_TOKEN_END in text:
        return list(marks.encode_marked_chat(tokenizer, text))
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text for a model without a template: with what the tokenizer puts in front, not what it appends."""
    body = _ids(tokenizer, _safe(tokenizer, text))
    with_all, bare = (list(tokenizer("a", add_special_tokens=s)["input_ids"]) for s in (True, False))
    at = next((i for i in range(len(with_all)) if with_all[i : i + len(bare)] == bare), 0)
    return [*with_all[:at], *body]
