"""OpenAI's requests and replies: what is read, what is refused by name, and how answers are written."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hafs.generation.transformers import TransformersBackend
from hafs.models.chat import Thinking, Tokenizer, encode_messages, read_answer, whole
from hafs.serve.batching import Row, Shown

MOST_ANSWERS = 1024
"""Answers of one request."""
MOST_STOPS, LONGEST_STOP = 64, 1000
"""Texts that end an answer, and characters of one."""

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "top_k": (None, 0, -1),
    "min_p": (None, 0),
}
"""Settings that would change the answer and are not there, with the values that leave them off."""


class BadRequest(Exception):
    """The request cannot be answered as it is; `status` is the HTTP status."""

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Asked(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str = ""
    n: int = Field(1, ge=1, le=64)
    temperature: float = Field(1.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None


class ChatRequest(_Asked):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def thinking(self) -> Thinking:
        """Whether the model is asked to think."""
        said = self.chat_template_kwargs or {}
        return "off" if said.get("enable_thinking") is False or said.get("thinking") is False else "keep"

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Asked):
    """POST /v1/completions: text, or token ids."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0)

    @property
    def limit(self) -> int | None:
        return self.max_tokens


class AdapterRequest(BaseModel):
    """POST /v1/load_lora_adapter (with a path) and /v1/unload_lora_adapter."""

    lora_name: str = Field(min_length=1)
    lora_path: str = ""


def check(asked: ChatRequest | CompletionRequest) -> None:
    """Raise BadRequest naming a setting that is not supported, or that asks for too much."""
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stops) > MOST_STOPS or any(len(s) > LONGEST_STOP for s in stops):
        raise BadRequest(f"stop takes at most {MOST_STOPS} texts of at most {LONGEST_STOP} characters")
    more = asked.model_extra or {}
    for name, off in UNSUPPORTED.items():
        if name in more and more[name] not in off:
            raise BadRequest(f"{name} is not supported by hafs serve; leave it out")
    if isinstance(asked, ChatRequest):
        wanted = (asked.response_format or {}).get("type", "text")
        if wanted != "text":
            raise BadRequest(f"response_format {wanted} is not supported by hafs serve; ask for JSON in the prompt")
        if asked.top_logprobs:
            raise BadRequest("top_logprobs is not supported: logprobs are those of the sampled tokens")
    elif asked.logprobs:
        raise BadRequest("logprobs above 0 is not supported: logprobs are those of the sampled tokens")


def chat_prompt(tokenizer: Tokenizer, asked: ChatRequest) -> list[int]:
    """The token ids of a conversation; raises BadRequest for one that the model's template does not take."""
    if not tokenizer.chat_template:
        raise BadRequest("this model has no chat template; use /v1/completions")
    turns = [{**m, "role": str(m.get("role", "")), "content": _text(m)} for m in asked.messages]
    try:
        return encode_messages(tokenizer, turns, asked.tools or (), asked.thinking)
    except Exception as e:  # whatever a template raises says that it does not take this conversation
        raise BadRequest(f"the model's chat template does not take these messages: {e}") from e


def text_prompts(tokenizer: Any, prompt: Any) -> list[list[int]]:
    """The token ids of each prompt of a completion request; raises BadRequest for ids outside the vocabulary."""
    many = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
    found = [list(p) if isinstance(p, list) else list(tokenizer(whole(p))["input_ids"]) for p in many]
    for ids in found:
        if not ids:
            raise BadRequest("the prompt is empty")
        if min(ids) < 0 or max(ids) >= len(tokenizer):
            raise BadRequest("the prompt has token ids that the model does not have")
    return found


def room(backend: TransformersBackend, prompt: Sequence[int], limit: int | None) -> int:
    """How many tokens the answer may have; raises BadRequest when prompt and answer do not fit the model."""
    most = backend.limit or 1 << 20
    wanted = limit or max(1, min(1024, most - len(prompt)))
    if len(prompt) + wanted > most:
        raise BadRequest(
            f"the prompt has {len(prompt)} tokens and the answer up to {wanted}; the model takes {most}",
            code="context_length_exceeded",
        )
    return wanted


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("tool_calls"):
        return ""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(p.get("text", "")) for p in content)
    raise BadRequest("the content of a message must be text")


class Writer:
    """Writes the replies to one request, whole or in pieces."""

    def __init__(
        self, chat: bool, model: str, tokenizer: Any, logprobs: bool, prompt_tokens: int, thinking: Thinking = "keep"
    ) -> None:
        self.thinking = thinking
        self.chat, self.tokenizer, self.logprobs, self.prompt_tokens = chat, tokenizer, logprobs, prompt_tokens
        kind = "chat.completion" if chat else "text_completion"
        id = ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex
        self._head: dict[str, Any] = {"id": id, "object": kind, "created": int(time.time()), "model": model}

    def whole(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The reply with every answer."""
        choices = []
        for i, row in enumerate(rows):
            said = {"message": self._message(row)} if self.chat else {"text": row.text}
            choices.append(
                {"index": i, **said, "finish_reason": row.finish, "logprobs": self._logprobs(row, 0, len(row.ids))}
            )
        return {**self._head, "choices": choices, "usage": self.usage(rows)}

    def _message(self, row: Row) -> dict[str, Any]:
        """The answer, and the thought before it apart."""
        found = read_answer(self.tokenizer, row.ids, self.thinking)
        if not found.thought:
            return {"role": "assistant", "content": row.text}
        return {"role": "assistant", "content": found.text, "reasoning_content": found.thought}

    def piece(self, index: int, row: Row, before: Shown, now: Shown) -> dict[str, Any]:
        """One event of a stream: what row `index` has `now` that it had not `before`."""
        text, first = now.text[len(before.text) :], not before.tokens
        if self.chat:
            said: dict[str, Any] = {"delta": {**({"role": "assistant"} if first else {}), "content": text}}
        else:
            said = {"text": text}
        choice = {
            "index": index,
            **said,
            "finish_reason": now.finish or None,
            "logprobs": self._logprobs(row, before.tokens, now.tokens),
        }
        head = {**self._head, "object": "chat.completion.chunk"} if self.chat else self._head
        return {**head, "choices": [choice]}

    def last(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The event with the usage."""
        head = {**self._head, "object": "chat.completion.chunk"} if self.chat else self._head
        return {**head, "choices": [], "usage": self.usage(rows)}

    def usage(self, rows: Sequence[Row]) -> dict[str, int]:
        """Tokens of the prompts and of all answers."""
        made = sum(len(row.ids) for row in rows)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
        }

    def _logprobs(self, row: Row, start: int, end: int) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        made = zip(row.ids[start:end], row.logprobs[start:end], strict=True)
        tokens = [(i, self.tokenizer.decode([i]), p) for i, p in made]
        if self.chat:
            return {
                "content": [
                    {"id": i, "token": t, "bytes": list(t.encode()), "logprob": p, "top_logprobs": []}
                    for i, t, p in tokens
                ]
            }
        return {
            "tokens": [t for _, t, _ in tokens],
            "token_logprobs": [p for _, _, p in tokens],
            "token_ids": [i for i, _, _ in tokens],
        }
