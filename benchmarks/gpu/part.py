"""What the parts share: their arguments, the lines that they write, tiny models and large shapes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """How a part was started: where its lines go, whether it is rehearsed, and the seconds it has."""

    lines: Path
    rehearse: bool
    seconds: float

    def tell(self, what: str, **figures: Any) -> None:
        """Write a line of what was found; it is on the disk when this returns."""
        with self.lines.open("a") as f:
            f.write(json.dumps({"what": what, **figures}) + "\n")
        print(what, figures, flush=True)

    @property
    def folder(self) -> Path:
        """A folder of the part's own."""
        made = self.lines.with_suffix("")
        made.mkdir(exist_ok=True)
        return made

    @property
    def device(self) -> str:
        """Where the part computes."""
        return "cpu" if self.rehearse else "cuda"


def asked() -> Asked:
    """The arguments of this process."""
    from hafs.models.loading import quiet

    quiet()
    return Asked(Path(sys.argv[1]), sys.argv[2] == "rehearse", float(sys.argv[3]))


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that `work` takes, with all that it has given the device to do."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def tiny_config(family: str = "llama", **changes: Any) -> Any:
    """Two layers, 64 wide."""
    from transformers import AutoConfig

    sizes = {
        "vocab_size": 260,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
    }
    return AutoConfig.for_model(family, **{**sizes, **changes})


def random_model(config: Any, folder: Path, precision: str = "float32") -> Path:
    """A model directory with random weights and a tokenizer of bytes, under which texts and token ids say the same."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, precision)).save_pretrained(str(folder))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(str(folder))
    return folder


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2-135M": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen2.5-7B": (
        "qwen2",
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
    "Qwen2.5-14B": (
        "qwen2",
        {
            "vocab_size": 152064,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
}
"""Family and sizes of models that are made with random weights."""


def shape(name: str, rehearse: bool) -> Any:
    """The configuration of one of `SHAPES`; in a rehearsal a tiny one of its family."""
    family, sizes = SHAPES[name]
    return tiny_config(family) if rehearse else tiny_config(family, **sizes)


def small_model(asked: Asked) -> str:
    """The embedded model where it is or can be made, else one of its shape with random weights; tiny in a rehearsal."""
    from hafs.errors import HafsError
    from hafs.models.naming import resolve

    if asked.rehearse:
        return str(random_model(tiny_config(), asked.folder / "model"))
    try:
        resolve("default")
        return "default"
    except HafsError:
        asked.tell("the embedded model is not here: a model of its shape with random weights was taken")
        return str(random_model(shape("SmolLM2-135M", False), asked.folder / "model"))


def groups_of(count: int, prompt: int, answer: int, answers: int = 4, words: int = 250, seed: int = 0) -> list[Any]:
    """Groups of random tokens below `words`, with all edges; answers end with the token 257 where there is one."""
    import itertools
    import random

    from hafs.training.packing import TokenGroup
    from hafs.types import Edge

    rng = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(words) for _ in range(n))

    edges = tuple(Edge(i, j) for i, j in itertools.combinations(range(answers), 2))
    return [TokenGroup(tokens(prompt), tuple(tokens(answer) for _ in range(answers)), edges) for _ in range(count)]
