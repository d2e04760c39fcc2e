"""From words to tokens and back, by the model's own chat template; generation and training both go through here.

A prompt becomes the template's token ids up to where the assistant speaks; an answer becomes its own token ids plus
the token that ends a turn. The two are tokenised apart, so an answer sampled by a model and the same answer in
training have the same prompt ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hafs.types import content_id


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any
    eos_token_id: int | None
    pad_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, Any]: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any: ...


def messages_of(text: str, system: str = "") -> list[dict[str, str]]:
    """The conversation of a prompt; an empty system text leaves the system turn to the template."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": text}]


def whole(text: str) -> str:
    """`text` with each lone surrogate, which only a JSON escape can write and no tokenizer takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_prompt(
    tokenizer: Tokenizer,
    text: str,
    system: str = "",
    context: Sequence[Mapping[str, Any]] = (),
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Token ids of the prompt up to the assistant's first token; a model without a template gets the plain text.

    `context` are earlier chat messages, `tools` the tools that the template is told of.
    """
    text, system = whole(text), whole(system)
    if not tokenizer.chat_template:
        said = [system, *(str(m.get("content") or "") for m in context)]
        plain = "".join(f"{whole(turn)}\n\n" for turn in said if turn)
        return list(tokenizer(f"{plain}{text}\n")["input_ids"])
    *before, last = messages_of(text, system)
    return encode_messages(tokenizer, [*before, *(_whole(m) for m in context), last], tools)


def encode_messages(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """Token ids of a conversation up to the assistant's next token, by the model's chat template."""
    more: dict[str, Any] = {"tools": [dict(t) for t in tools]} if tools else {}
    turns = [dict(m) for m in messages]
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **more)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def _whole(message: Mapping[str, Any]) -> dict[str, Any]:
    return {k: whole(v) if isinstance(v, str) else v for k, v in message.items()}


def encode_answer(tokenizer: Tokenizer, text: str, end: bool = True) -> list[int]:
    """Token ids of an answer, with the end-of-turn token unless `end` is false (an answer that was cut off)."""
    ids = list(tokenizer(whole(text), add_special_tokens=False)["input_ids"])
    if end and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return ids


def decode_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of sampled ids without special tokens."""
    return tokenizer.decode(ids, skip_special_tokens=True)


def stop_ids(tokenizer: Tokenizer, generation_config: Any = None) -> list[int]:
    """The ids that end an answer: the tokenizer's and the generation config's."""
    found: list[int] = []
    for eos in (tokenizer.eos_token_id, getattr(generation_config, "eos_token_id", None)):
        for i in eos if isinstance(eos, list | tuple) else [eos]:
            if i is not None and i not in found:
                found.append(int(i))
    return found


def template_hash(tokenizer: Tokenizer) -> str:
    """Identity of how text becomes tokens here: the template and the ids of a probe text."""
    probe = encode_prompt(tokenizer, "LDA.w $0E20 ; é\n\tSTA.b $00", "probe")
    return content_id("template", str(tokenizer.chat_template), probe, tokenizer.eos_token_id)


def tokenizer_hash(tokenizer: Any) -> str:
    """Identity of the vocabulary and of how text is cut into it."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    return content_id("tokenizer", inner.to_str() if inner is not None else sorted(tokenizer.get_vocab().items()))
