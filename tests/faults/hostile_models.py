"""Models, tokenizers and chat templates from people who mean no good: a verb that is given one ends well or says why it
will not, in bounded time and memory, and nothing of it runs as code."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from boundaries import Verb, playing
from catalogue import Fault, Outcome

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
ENDS = "{% endfor %}{% endfor %}{% endfor %}"
SAY = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
TEMPLATES = {
    "loops": f"{LOOP}{ENDS}{SAY}",
    "loops that write": f"{LOOP}x{ENDS}",
    "loops that keep": f"{{% set n = namespace(t='') %}}{LOOP}{{% set n.t = n.t ~ 'xxxxxxxx' %}}{ENDS}",
    "a range of 10^12": "{% for a in range(10**12) %}{% endfor %}" + SAY,
    "a text of 10^11": "{{ 'a' * 10**11 }}",
    "a text of 10^8": "{{ 'a' * 10**8 }}" + SAY,
    "a power without end": "{{ 9**9**9 }}",
    "a padded text": "{{ 'a'|center(10**11) }}",
    "a format": "{{ '%99999999999d' % 1 }}",
    "a joined list": "{{ ([0] * 10**11)|join }}",
    "a macro in itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a deep expression": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ messages.__init__.__globals__ }}",
    "a way to os": "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "a way by cycler": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "a way by lipsum": "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "a way by attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "a way by map": "{{ ['os']|map('__import__')|list }}",
    "a way by format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "a file": "{% include '/etc/passwd' %}{% import '/etc/passwd' as p %}",
    "an extension": "{% do 1 %}{% debug %}",
    "messages changed": "{% set _ = messages.append({'role': 'user', 'content': 'x'}) %}" + SAY,
    "messages emptied": "{% set _ = messages.clear() %}" + SAY,
    "an exception": "{{ raise_exception('no') }}",
    "an undefined filter": "{{ 1|nonsense }}",
    "no syntax": "{% for %}",
    "nothing": " ",
    "not the messages": "hello",
    "another each time": "{{ messages|random }}",
    "NULs": "\0" * 1000 + SAY,
    "surrogates": "\\ud800" + SAY,
    "a megabyte": "{# " + "x" * 1_000_000 + " #}" + SAY,
}


class Runs:
    """A pickle that makes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("CANARY", "w"))


def config(**changes: Any) -> Callable[[Path], None]:
    """Change config.json."""

    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def write(name: str, data: bytes, without: str = "") -> Callable[[Path], None]:
    """Put a file into the model, and take one out."""

    def change(model: Path) -> None:
        if without:
            (model / without).unlink()
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return change


PICKLE = pickle.dumps(Runs())
CODE = b"open('CANARY', 'w')\nclass C:\n    pass\n"
AUTO = {"auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.C", "AutoTokenizer": "code.C"}}
HEADER = b'{"a":{"dtype":"F32","shape":[999999999999],"data_offsets":[0,3999999999996]}}'


def with_code(model: Path) -> None:
    config(**AUTO, model_type="new")(model)
    write("code.py", CODE)(model)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **AUTO, "tokenizer_class": "C"}))


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights in a pickle": write("pytorch_model.bin", PICKLE, "model.safetensors"),
    "weights in a pickle beside good ones": write("pytorch_model.bin", PICKLE),
    "a pickle called safetensors": write("model.safetensors", PICKLE),
    "code of its own": with_code,
    "a header of exabytes": write("model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"),
    "a tensor of terabytes": write("model.safetensors", struct.pack("<Q", len(HEADER)) + HEADER),
    "an index that leaves the folder": write(
        "model.safetensors.index.json",
        b'{"metadata": {}, "weight_map": {"lm_head.weight": "../../../etc/passwd"}}',
        "model.safetensors",
    ),
    "an adapter on another's base": write(
        "adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "/etc\\u0000/x", "r": 4}'
    ),
    "an adapter on itself": write(
        "adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "models/sft/model", "r": 4}'
    ),
    "a width of 10^12": config(hidden_size=10**12),
    "layers without end": config(num_hidden_layers=10**12),
    "no layer": config(num_hidden_layers=0),
    "heads that do not divide": config(num_attention_heads=7),
    "no head": config(num_attention_heads=0, num_key_value_heads=0),
    "a vocabulary of one": config(vocab_size=1),
    "a vocabulary below none": config(vocab_size=-5),
    "a type that is none": config(model_type="nonsense"),
    "a type that answers nothing": config(model_type="vit"),
    "types of values": config(hidden_size="64", num_hidden_layers=[2], vocab_size=None),
    "an end that is none": config(eos_token_id=10**9, bos_token_id=-1),
    "no place": config(max_position_embeddings=0),
    "a tokenizer that is none": write("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
    "a tokenizer of another class": write("tokenizer_config.json", b'{"tokenizer_class": "Nonsense"}'),
    "a template of another kind": write("chat_template.jinja", b"\xff\xfe\x00"),
    "a generation config of nonsense": write("generation_config.json", b'{"eos_token_id": "x", "max_length": []}'),
}
NAMES = (
    "a\\0b",
    "..",
    "models/sft/model/../../../nowhere",
    "-",
    "~nobody/x",
    "a" * 5000,
    "https://127.0.0.1:9/x",
    "owner/name/more",
    " ",
    "con\\n",
)

SHORT = 12
FAULTS = [
    *(Fault(f"template: {name}", f"template|{name}") for name in TEMPLATES),
    *(Fault(f"model: {name}", f"change|{name}") for name in CHANGES),
    *(Fault(f"a model called {name[:40]!r}", f"name|{name}") for name in NAMES),
]
COMMAND = "generate --model MODEL --prompts prompts.jsonl --candidates-per-prompt 1"
SLOW = ("loops", "loops that write", "loops that keep", "a range of 10^12", "a power without end")
"""Those that take their whole time."""


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Answers are asked of each model."""
    with playing() as play:
        play.prepare("generate")
        for fault in faults:
            kind, _, name = fault.attack.partition("|")
            if quick and name in SLOW:
                continue
            verb = Verb("generate", COMMAND.replace("MODEL", "models/sft/model"))
            root = play.fresh(verb)
            model = root / "models/sft/model"
            if kind == "template":
                text = TEMPLATES[name].encode("utf-8", "surrogatepass")
                (model / "chat_template.jinja").write_bytes(text)
            elif kind == "change":
                CHANGES[name](model)
            else:
                verb = Verb("generate", COMMAND.replace("MODEL", name.replace(" ", "\u00a0").replace("\\0", "\0")))
            ended = play.run(verb, root)
            ran = any(root.rglob("CANARY"))
            leaked = "root:" in ended.text or "root:" in (root / "hafs.db").read_bytes().decode("latin-1")
            lost = not ended.explained or ended.seconds > 100
            note = f"{ended.code} in {ended.seconds:.1f} s: {ended.text[-700:]}"
            yield Outcome(fault.name, ran, leaked, lost, note)
