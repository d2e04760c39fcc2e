"""The Modelfile that Ollama makes a model from: template, stops, parameters.

Ollama's templates are Go's, models' are Jinja's. Most chat templates only put fixed text around each turn; that text
is found by rendering marked turns, and the Go template made of it is checked against the model's own on conversations
with and without a system text. One that does more (tools, thinking) has no faithful Go form: then no TEMPLATE is
written, and Ollama goes by the template inside the GGUF file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hafs.models.chat import stop_ids

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Wrapping:
    """The fixed text around the turns: `start` opens the conversation, then before and after each role's content.

    `begin` is what comes before the answer; `default_system` what the template says when no system text is given.
    """

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    begin: str
    default_system: str = ""

    def render(self, turns: Turns) -> str:
        """What Ollama makes of a conversation with the template below; the default system text is Ollama's SYSTEM."""
        if self.default_system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.default_system}, *turns]
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        return "".join(around[t["role"]][0] + t["content"] + around[t["role"]][1] for t in turns) + self.begin

    def go(self) -> str:
        """The Go template."""
        role = '{{{{ {0} eq .Role "{1}" }}}}{2}{{{{ .Content }}}}{3}'
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        words = ("if", "else if", "else if")
        turns = "".join(
            role.format(word, name, *text) for word, (name, text) in zip(words, around.items(), strict=True)
        )
        return "{{ range .Messages }}" + turns + "{{ end }}{{ end }}" + self.begin


def wrapping(tokenizer: Any) -> Wrapping | None:
    """The fixed text of a chat template, or None when the template is more than that."""
    if not tokenizer.chat_template:
        return None

    # a tokenizer that puts its first token in front by itself does so in Ollama too
    adds = list(tokenizer("x")["input_ids"])[:1] == [getattr(tokenizer, "bos_token_id", None)]
    first = tokenizer.bos_token if adds else ""

    def render(turns: Turns) -> str:
        made = tokenizer.apply_chat_template([dict(t) for t in turns], add_generation_prompt=True, tokenize=False)
        return str(made).removeprefix(first)

    try:
        found = _find(render)
    except Exception:  # whatever a template raises: it does not take such a conversation
        return None
    return found if found is not None and all(found.render(t) == render(t) for t in _PROBES) else None


def modelfile(
    gguf: str, tokenizer: Any, *, temperature: float, limit: int, system: str = "", generation_config: Any = None
) -> tuple[str, bool]:
    """The text of a Modelfile for the file `gguf`, and whether it has a TEMPLATE.

    Sampling is from the whole distribution, so that what Ollama answers is what hafs would: no top_k, no min_p.
    It stops at the template's end of a turn and at those of `generation_config`.
    """
    lines = ["# ollama create NAME -f Modelfile", f"FROM ./{gguf}"]
    around = wrapping(tokenizer)
    plain = around is not None and not any(mark in around.go().replace("{{ ", "").replace(" }}", "") for mark in "{}")
    if around is not None and plain and '"""' not in around.go():
        lines.append(f'TEMPLATE """{around.go()}"""')
        if said := system or around.default_system:
            lines.append(f'SYSTEM """{said}"""')
    stops = [tokenizer.decode([i]) for i in stop_ids(tokenizer, generation_config)]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops if stop]
    lines += [
        f"PARAMETER temperature {temperature:g}",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {limit}",
    ]
    return "\n".join(lines) + "\n", any(line.startswith("TEMPLATE") for line in lines)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


_S, _U, _A, _V = (f"⟦{mark}⟧" for mark in "SUAV")
_MARKED = [_turn("system", _S), _turn("user", _U), _turn("assistant", _A), _turn("user", _V)]
_PROBES: list[list[dict[str, str]]] = [
    _MARKED,
    _MARKED[1:],
    [_turn("user", "a b"), _turn("assistant", "c\nd"), _turn("user", "e"), _turn("assistant", "f"), _turn("user", "g")],
    [_turn("system", "be brief"), _turn("user", "hello")],
    [_turn("user", "hello")],
]


def _find(render: Any) -> Wrapping | None:
    pieces = []
    rest = render(_MARKED)
    for mark in (_S, _U, _A, _V):
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        pieces.append(before)
    before_system, system_user, user_assistant, assistant_user = pieces
    shared = _common_end(system_user, assistant_user)
    alone = render([_turn("user", _U)]).partition(_U)[0]
    default, opens = "", alone if shared.endswith(alone) else shared
    system = (before_system, system_user[: len(system_user) - len(opens)])
    assistant = (user_assistant, assistant_user[: len(assistant_user) - len(opens)])
    if opens != alone:  # the template says something of its own where no system text is given
        end = system[1] + opens
        if not (alone.startswith(before_system) and alone.endswith(end) and len(alone) > len(before_system + end)):
            return None
        default = alone[len(before_system) : len(alone) - len(end)]
    return Wrapping(system, (opens, ""), assistant, rest, default)


def _common_end(a: str, b: str) -> str:
    n = next((i for i, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=False)) if x != y), min(len(a), len(b)))
    return a[len(a) - n :]
