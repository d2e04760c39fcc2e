"""One directory of full weights from a full checkpoint or an adapter, as the model was trained.

An adapter that was trained on a 4-bit base learnt to correct *those* weights. Merged into the original ones it is
another model, so the base is quantised as in training, its values are taken back to floats, and the adapter is merged
into them (the way of QLoRA's own merge; Dettmers et al. 2023).
"""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hafs.errors import UsageError
from hafs.models.loading import is_adapter, load_model, load_tokenizer, put_on_base, save_model
from hafs.models.naming import HASHED, base_of


def base_bits(path: Path, asked: str = "auto") -> str:
    """ "nf4" when the adapter at `path` was trained on a 4-bit base, else "none"; `auto` asks the run beside it."""
    if asked != "auto":
        return asked
    for run in (path / "run.json", path.parent / "run.json"):
        if run.is_file():
            settings = json.loads(run.read_text(encoding="utf-8")).get("identity", {}).get("settings", {})
            return str(settings.get("quantize", "none"))
    return "none"


def merged(path: Path, precision: str = "auto", base: str = "auto") -> Any:
    """The whole model at `path` in memory; an adapter is merged into its base as that was in training.

    `precision` is that of the merged weights ("auto", "fp32", "bf16"), `base` "none", "nf4" or "auto" (`base_bits`).
    """
    if not is_adapter(path) or base_bits(path, base) == "none":
        return load_model(path, precision, device="cpu")
    return put_on_base(load_model(base_of(path), precision, quantize="nf4", device="cpu").dequantize(), path)


def write_merged(path: Path, folder: Path, precision: str = "auto", base: str = "auto") -> None:
    """Write the whole model at `path` as a Hugging Face directory; a full checkpoint is copied as it is."""
    if not is_adapter(path):
        copy_model(path, folder)
        return
    save_model(merged(path, precision, base), load_tokenizer(path), folder)


def write_adapter(path: Path, folder: Path, base_name: str = "") -> None:
    """Copy the adapter at `path`; `base_name` is what it is to call its base (a hub id), by default what it says."""
    if not is_adapter(path):
        raise UsageError(
            f"{path} is a whole model: the adapter was merged into it",
            'train with save = "adapter" in hafs.toml, or export --format safetensors',
        )
    copy_model(path, folder)
    if base_name:
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "base_model_name_or_path": base_name}, indent=2) + "\n")


def copy_model(path: Path, folder: Path) -> None:
    """Copy the files that make the model at `path` what it is, and its licence."""
    wanted = (*HASHED, "LICENSE*", "NOTICE*", "adapter_model.safetensors", "*.model")
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(path.iterdir()):
        if file.is_file() and any(fnmatch(file.name, p) for p in wanted):
            shutil.copy(file, folder / file.name)
