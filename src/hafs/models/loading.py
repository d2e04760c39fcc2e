"""Loading and saving models: a full checkpoint or an adapter on a base, in the precision this machine is fast in.

Torch is imported inside the functions, so that naming a model costs nothing.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.models.naming import resolve


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

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as e:
        raise UsageError(f"no tokenizer could be loaded from {path}: {_first_line(e)}", _FIX) from e
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    path: str | Path, precision: str = "auto", attention: str = "auto", quantize: str = "none", device: Any = None
) -> Any:
    """A causal language model in evaluation mode; an adapter directory is loaded on its base and merged into it.

    `attention`: "sdpa" or "flex"; "auto" is SDPA, and what the model has where it has no SDPA. `quantize`: "nf4" keeps
    the weights of the linear layers in 4 bits. Raises UsageError when there is no model at `path`, or not all of it,
    MissingTool when 4 bits need a package.
    """
    import torch
    from safetensors import SafetensorError

    quiet()
    adapter = Path(path) / "adapter_config.json"
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        if adapter.is_file():
            if quantize != "none":
                raise UsageError(f"{path} is an adapter: it cannot be merged into a 4-bit base", "merge it first")
            return _load_adapter(Path(path), json.loads(adapter.read_text()), precision, device)
        net, info = _from_pretrained(path, precision, attention, quantize, device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as e:
        raise UsageError(f"no model could be loaded from {path}: {_first_line(e)}", _FIX) from e
    if missing := sorted(info["missing_keys"]):  # transformers has filled them with random numbers
        raise UsageError(f"{path} lacks {len(missing)} weights that its config.json asks for, as {missing[0]}", _FIX)
    return (net if quantize != "none" else net.to(device)).eval()


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


def _load_adapter(path: Path, config: dict[str, Any], precision: str, device: Any) -> Any:
    from peft import PeftModel

    if not config.get("base_model_name_or_path"):
        raise UsageError(f"{path}/adapter_config.json does not name the base model", _FIX)
    base = load_model(resolve(config["base_model_name_or_path"]), precision, device=device)
    return PeftModel.from_pretrained(base, str(path)).merge_and_unload().eval()


def save_model(net: Any, tokenizer: Any, path: str | Path) -> None:
    """Write a model (or adapter) and its tokenizer as a Hugging Face directory; it appears whole or not at all."""
    import shutil

    from safetensors import SafetensorError

    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        net.save_pretrained(str(part))
        tokenizer.save_pretrained(str(part))
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    except (OSError, SafetensorError) as e:
        raise HafsError(
            f"could not write {path}: {e}", "free space and run the same command again: the training is kept"
        ) from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
