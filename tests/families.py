"""Shapes of public families' chat templates, written from their documentation: what stands around each turn.

A template here says only where the family's marks stand. `tokenizer_of` gives the byte tokenizer those marks as its
special tokens (and the others as added ones), as the family's own has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conftest import byte_tokenizer


@dataclass(frozen=True)
class Family:
    """One family: its template, its marks, the token that ends an assistant's turn, and what it takes."""

    template: str
    special: tuple[str, ...]
    end: str
    eos: str = ""
    bos: str = ""
    plain: tuple[str, ...] = ()  # added tokens that are not special
    system: bool = True
    tools: bool = False
    thinks: bool = False


_RAISE = "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
_ALTERNATE = "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}" + _RAISE + "{% endif %}"
_TOOLS = "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
_CALLS = (
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endif %}'
)
_IM = (
    _TOOLS + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN3 = (
    _TOOLS + "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set thought = m.reasoning_content or '' %}{% set said = m.content %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "<|im_start|>assistant\n{% if loop.last or thought and loop.last %}<think>\n{{ thought.strip('\\n') }}\n</think>\n\n{% endif %}"
    "{{ said.lstrip('\\n') }}" + _CALLS + "<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = '26 Jul 2024' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ day }}\n\n"
    "{% if tools %}{% for t in tools %}{{ t | tojson(indent=4) }}\n\n{% endfor %}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{% if m.role == 'tool' %}ipython{% else %}{{ m.role }}{% endif %}<|end_header_id|>\n\n"
    '{% if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "{% else %}{{ m.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    + _ALTERNATE
    + "<start_of_turn>{% if m.role == 'assistant' %}model{% else %}{{ m.role }}{% endif %}{{ '\n' }}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
    + _ALTERNATE
    + "<start_of_turn>{% if m.role == 'assistant' %}model{% else %}{{ m.role }}{% endif %}{{ '\n' }}{% if loop.first %}{{ first }}{% endif %}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}" + _ALTERNATE + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
_MINISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT]"
    "{% set messages = messages[1:] %}{% endif %}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% elif m.tool_calls %}[TOOL_CALLS]{{ m.tool_calls[0].function.name }}[ARGS]{{ m.tool_calls[0].function.arguments | tojson }}{{ eos_token }}"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
_PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
_SMOLLM3 = (
    "<|im_start|>system\n## Metadata\nToday Date: {{ strftime_now('%d %B %Y') }}\n"
    "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}<|im_end|>\n"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS + "<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not (enable_thinking | default(true)) %}<think>\n\n</think>\n{% endif %}{% endif %}"
)
_OLMO2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n{{ m.content }}{{ eos_token }}"
    "{% if not loop.last %}\n{% endif %}{% else %}<|{{ m.role }}|>\n{{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_GRANITE = (
    "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today's Date: {{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n{% endif %}"
    "{% if tools %}<|start_of_role|>tools<|end_of_role|>{{ tools | tojson }}<|end_of_text|>\n{% endif %}"
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{% if m.tool_calls %}<|tool_call|>{{ m.tool_calls | tojson }}{% endif %}"
    "{{ m.content }}<|end_of_text|>\n{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
_HARMONY = (
    "<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') }}<|end|>"
    "{% if messages[0].role == 'system' %}<|start|>developer<|message|># Instructions\n\n{{ messages[0].content }}<|end|>"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.tool_calls %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}<|channel|>commentary json<|message|>"
    "{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}{% if m.thinking and loop.last %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endif %}"
    "{% elif m.role == 'tool' %}<|start|>functions.tool to=assistant<|channel|>commentary<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}{% set said = m.content %}{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "<｜Assistant｜>{{ said }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
_COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|><|{% if m.role == 'user' %}USER{% elif m.role == 'system' %}SYSTEM"
    "{% else %}CHATBOT{% endif %}_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)

_IM_MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
_TURNS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_CHANNELS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>")
_R1_MARKS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
_INST = ("<s>", "</s>")
_ROLES = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>")
_COMMAND = (
    "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
_THINK = ("<think>", "</think>", "<tool_call>", "</tool_call>")

FAMILIES: dict[str, Family] = {
    "llama3": Family(_LLAMA3, _HEADERS, "<|eot_id|>", "<|eot_id|>", "<|begin_of_text|>", tools=True),
    "qwen2": Family(_IM, _IM_MARKS, "<|im_end|>", "<|im_end|>", plain=_THINK[2:], tools=True),
    "qwen3": Family(_QWEN3, _IM_MARKS, "<|im_end|>", "<|im_end|>", plain=_THINK, tools=True, thinks=True),
    "gemma2": Family(_GEMMA, _TURNS, "<end_of_turn>", "<eos>", "<bos>", system=False),
    "gemma3": Family(_GEMMA3, _TURNS, "<end_of_turn>", "<eos>", "<bos>"),
    "mistral": Family(_MISTRAL, _INST, "</s>", "</s>", "<s>", system=False),
    "ministral": Family(
        _MINISTRAL,
        (
            *_INST,
            "[INST]",
            "[/INST]",
            "[SYSTEM_PROMPT]",
            "[/SYSTEM_PROMPT]",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[TOOL_RESULTS]",
        ),
        "</s>",
        "</s>",
        "<s>",
        tools=True,
    ),
    "phi3": Family(
        _PHI3, ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|end|>", "<|endoftext|>"
    ),
    "phi4": Family(_PHI4, (*_IM_MARKS, "<|im_sep|>"), "<|im_end|>", "<|endoftext|>"),
    "smollm2": Family(_IM.removeprefix(_TOOLS).replace(_CALLS, ""), _IM_MARKS, "<|im_end|>", "<|im_end|>"),
    "smollm3": Family(_SMOLLM3, _IM_MARKS, "<|im_end|>", "<|im_end|>", plain=_THINK, tools=True),
    "olmo2": Family(_OLMO2, ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "granite": Family(_GRANITE, _ROLES, "<|end_of_text|>", "<|end_of_text|>", tools=True),
    "gpt_oss": Family(_HARMONY, _CHANNELS, "<|return|>", "<|return|>", tools=True, thinks=True),
    "deepseek_r1": Family(
        _R1, _R1_MARKS, "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", _R1_MARKS[0], plain=_THINK[:2], thinks=True
    ),
    "command_r": Family(_COMMAND_R, _COMMAND, "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>"),
}


def tokenizer_of(name: str) -> Any:
    """The byte tokenizer with a family's template and marks."""
    from transformers import AddedToken

    family, tokenizer = FAMILIES[name], byte_tokenizer()
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in family.special])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in family.plain])
    tokenizer.eos_token = family.eos or family.end
    tokenizer.bos_token = family.bos or None
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = family.template
    return tokenizer
