"""Loading and saving models: a full checkpoint or an adapter on a base, in the precision this machine is fast in.

Torch is imported inside the functions, so that naming a model costs nothing.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.models.chat import stop_ids
from hafs.models.naming import base_of, model_hash, resolve


@cache
def pick_precision(precision: str = "auto") -> str:
    """ "fp32" or "bf16": auto takes bf16 where the processor or GPU computes in it (measured 2x faster), else fp32."""
    import torch

    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer at a directory or hub id, with a padding token."""
    from transformers import AutoTokenizer

    path = Path(path)
    if is_adapter(path) and not any(path.glob("tokenizer*")):
        path = base_of(path)  # an adapter saved without its tokenizer goes by its base's
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except Exception as e:  # of files from elsewhere: it may be anything
        raise UsageError(f"no tokenizer could be loaded from {path}: {_first_line(e)}", _FIX) from e
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def generation_config(path: str | Path) -> Any:
    """The generation config in a model's directory, which may name more ends of an answer; None without one."""
    from transformers import GenerationConfig

    file = Path(path) / "generation_config.json"
    if not file.is_file():
        return None
    try:
        found = GenerationConfig.from_pretrained(str(path))
    except Exception as e:  # of files from elsewhere: it may be anything
        raise UsageError(f"{file} cannot be read: {_first_line(e)}", _FIX) from e
    _check_ends(path, found)
    return found


def _check_ends(path: str | Path, config: Any) -> None:
    """Raise UsageError unless the ends of an answer that a generation config names are numbers of tokens."""
    ends = getattr(config, "eos_token_id", None)
    if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [] if ends is None else [ends])):
        raise UsageError(f"the generation config of {path} ends answers with {ends!r}, no token's number", _FIX)


def load_model(
    path: str | Path, precision: str = "auto", attention: str = "auto", quantize: str = "none", device: Any = None
) -> Any:
    """A causal language model in evaluation mode; an adapter directory is loaded on its base and merged into it.

    `attention`: "sdpa" or "flex"; "auto" is SDPA, and what the model has where it has no SDPA. `quantize`: "nf4" keeps
    the weights of the linear layers in 4 bits. Raises UsageError when there is no model at `path`, or not all of it,
    MissingTool when 4 bits need a package.
    """
    import torch

    quiet()
    adapter = Path(path) / "adapter_config.json"
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        if adapter.is_file():
            if quantize != "none":
                raise UsageError(f"{path} is an adapter: it cannot be merged into a 4-bit base", "merge it first")
            return _load_adapter(Path(path), precision, device)
        net, info = _from_pretrained(path, precision, attention, quantize, device)
        _check_ends(path, getattr(net, "generation_config", None))
    except pickle.UnpicklingError as e:
        raise UsageError(
            f"{path} holds its weights as a pickle (.bin), which can run code when it is read: hafs does not read it",
            "use a copy with safetensors, or convert it where you trust it: model.save_pretrained(DIRECTORY)",
        ) from e
    except HafsError:
        raise
    except Exception as e:  # of files from elsewhere: it may be anything
        raise UsageError(f"no model could be loaded from {path}: {_first_line(e)}", _FIX) from e
    if missing := sorted(info["missing_keys"]):  # transformers has filled them with random numbers
        raise UsageError(f"{path} lacks {len(missing)} weights that its config.json asks for, as {missing[0]}", _FIX)
    return (net if quantize != "none" else net.to(device)).eval()


def load_shape(path: str | Path) -> Any:
    """The model at `path` as a network that holds no weights, for what asks for its sizes alone; an adapter's base."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    quiet()
    while (Path(path) / "adapter_config.json").is_file():
        path = base_of(Path(path))
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(path)))
    except (OSError, ValueError) as e:
        raise UsageError(f"no model could be loaded from {path}: {_first_line(e)}", _FIX) from e


def _from_pretrained(path: str | Path, precision: str, attention: str, quantize: str, device: Any) -> Any:
    """(model, loading info)."""
    import torch
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {}
    if quantize == "nf4":
        more = {"quantization_config": _four_bits(precision), "device_map": {"": device}}
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[pick_precision(precision)]
    wanted = {"auto": "sdpa", "flex": "flex_attention"}.get(attention, attention)
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(path), dtype=dtype, attn_implementation=wanted, output_loading_info=True, **more
        )
    except ValueError as e:
        if attention != "auto" or "attention implementation" not in str(e):
            raise
        return AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype, output_loading_info=True, **more)


def _four_bits(precision: str) -> Any:
    """NF4 with double quantisation (Dettmers et al. 2023, "QLoRA")."""
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingTool("a 4-bit base needs the package bitsandbytes", "pip install 'hafs[quant]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if pick_precision(precision) == "bf16" else torch.float32,
    )


def is_adapter(path: Path) -> bool:
    """Whether a model directory holds an adapter and not a whole model."""
    return (path / "adapter_config.json").is_file()


def put_on_base(base: Any, path: Path) -> Any:
    """The model of an adapter: `base`, with a vocabulary of the adapter's size and a head of its own where the adapter
    changes it, with the adapter merged into it."""
    from peft import PeftModel

    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    rows = _adapter_rows(path)
    have = base.get_input_embeddings().weight.shape[0]
    if rows is not None and rows > have:
        base.resize_token_embeddings(rows, mean_resizing=False)
    if touches_head(base, [*_names(config.get("target_modules")), *_names(config.get("modules_to_save"))]):
        untie(base)
    try:
        return PeftModel.from_pretrained(base, str(path)).merge_and_unload().eval()
    except RuntimeError as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        raise UsageError(
            f"the adapter {path} does not fit its base: {' '.join(lines[1:2] or lines[:1])}",
            "give it the base that it was trained on: `hafs models rebase ADAPTER --base DIRECTORY`",
        ) from e


def rebase_adapter(path: Path, base: str) -> str:
    """Write into the adapter at `path` that its base is `base`, if it fits; returns the model's hash.

    Raises UsageError when there is no adapter, no such model, or the two do not belong together.
    """
    from hafs.files.jsonl import atomic_write

    file = path / "adapter_config.json"
    if not file.is_file():
        raise UsageError(f"{path} is no adapter: it has no adapter_config.json", "give the adapter's directory")
    where = resolve(base)
    put_on_base(load_model(where, device="cpu"), path)
    config = json.loads(file.read_text(encoding="utf-8"))
    named = str(where.resolve()) if Path(base).expanduser().is_dir() else base
    with atomic_write(file) as f:
        json.dump({**config, "base_model_name_or_path": named}, f, indent=2)
    return model_hash(path)


def _names(said: Any) -> list[str]:
    return [said] if isinstance(said, str) else list(said or ())


def _adapter_rows(path: Path) -> int | None:
    """The rows of the embeddings or of the head that an adapter brings with it; None where it brings none."""
    from safetensors import safe_open

    file = path / "adapter_model.safetensors"
    if not file.is_file():
        return None
    with safe_open(str(file), "pt") as f:
        whole = [n for n in f.keys() if n.endswith(".weight") and "lora_" not in n]  # noqa: SIM118
        of_words = [n for n in whole if any(part in n for part in _OF_WORDS)]
        return max((f.get_slice(n).get_shape()[0] for n in of_words), default=None)


_OF_WORDS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")


def touches_head(net: Any, targets: Sequence[str]) -> bool:
    """Whether modules of these names are the embeddings or the head of a model that ties the two."""
    mine = {n for n, m in net.named_modules() if m in (net.get_output_embeddings(), net.get_input_embeddings())}
    ends = {n.rpartition(".")[2] for n in mine}
    return is_tied(net) and any(t.rpartition(".")[2] in ends for t in targets)


def is_tied(net: Any) -> bool:
    """Whether the head of a model is its input embeddings."""
    head = net.get_output_embeddings()
    return head is not None and head.weight is net.get_input_embeddings().weight


def untie(net: Any) -> None:
    """Give the head of a model weights of its own, equal to the input embeddings."""
    import torch

    if is_tied(net):
        head = net.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        net.config.tie_word_embeddings = False


def add_rows(net: Any, tokenizer: Any) -> None:
    """Give each token of the tokenizer that has none an embedding, drawn alike every time.

    The attribute `new_rows` of `net` says which: an adapter trains these whole.
    """
    import torch

    have, want = net.get_input_embeddings().weight.shape[0], len(tokenizer)
    net.new_rows = list(range(have, want))
    if want <= have:
        return
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.resize_token_embeddings(want)


def _load_adapter(path: Path, precision: str, device: Any) -> Any:
    return put_on_base(load_model(base_of(path), precision, device=device), path)


def save_model(
    net: Any, tokenizer: Any, path: str | Path, check: Callable[[Path], None] = lambda written: None
) -> None:
    """Write a model (or adapter) and its tokenizer as a Hugging Face directory; it appears whole or not at all.

    `check` is called with what was written before it takes the place of what is there; what it raises keeps that.
    """
    import shutil

    from safetensors import SafetensorError

    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _name_ends(net, tokenizer)
        net.save_pretrained(str(part))
        tokenizer.save_pretrained(str(part))
        check(part)
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    except (OSError, SafetensorError) as e:
        raise HafsError(
            f"could not write {path}: {e}", "free space and run the same command again: the training is kept"
        ) from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _name_ends(net: Any, tokenizer: Any) -> None:
    """Have the generation config name the token that ends a turn, so that whoever runs the model stops there."""
    config = getattr(net, "generation_config", None)
    if config is None:
        return
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if set(ends := stop_ids(tokenizer, config)) - set(known):
        config.eos_token_id = ends


def quiet() -> None:
    """Keep transformers' own bars and warnings off the screen; hafs shows its own progress."""
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()
    logging.set_verbosity_error()


_FIX = "give a Hugging Face directory, a hub id, or `default` (the embedded model, `hafs models pull`)"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
