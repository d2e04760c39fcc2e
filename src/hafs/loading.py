"""Loading and saving models: a full checkpoint or an adapter on a base, in the precision this machine is fast in.

Torch is imported inside the functions, so that naming a model costs nothing.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, UsageError
from hafs.models import resolve


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


def load_model(path: str | Path, precision: str = "auto") -> Any:
    """A causal language model in evaluation mode; an adapter directory is loaded on its base and merged into it.

    Raises UsageError when there is no model at `path`, or not all of it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    quiet()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[pick_precision(precision)]
    adapter = Path(path) / "adapter_config.json"
    try:
        if adapter.is_file():
            return _load_adapter(Path(path), json.loads(adapter.read_text()), precision)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(path), dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as e:
        raise UsageError(f"no model could be loaded from {path}: {_first_line(e)}", _FIX) from e
    net, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers has filled them with random numbers
        raise UsageError(f"{path} lacks {len(missing)} weights that its config.json asks for, as {missing[0]}", _FIX)
    return net.to(device).eval()


def _load_adapter(path: Path, config: dict[str, Any], precision: str) -> Any:
    from peft import PeftModel

    if not config.get("base_model_name_or_path"):
        raise UsageError(f"{path}/adapter_config.json does not name the base model", _FIX)
    base = load_model(resolve(config["base_model_name_or_path"]), precision)
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
