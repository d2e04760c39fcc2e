"""`export_model`: one model into one directory of files, which appears whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hafs.errors import UsageError
from hafs.export.card import Origin, card
from hafs.export.merge import base_bits, is_adapter, write_adapter, write_merged
from hafs.files.fetch import locked, new_folder
from hafs.models.loading import generation_config, load_tokenizer
from hafs.models.naming import base_of, resolve
from hafs.types import Progress, silent

FORMATS = ("safetensors", "adapter", "gguf", "ollama")


@dataclass(frozen=True)
class Exported:
    """Where an export is, its GGUF file when it has one, what it holds and what to know of it."""

    path: Path
    gguf: Path | None
    files: tuple[str, ...]
    notes: tuple[str, ...]


def export_model(
    model: str | Path,
    output: Path,
    format: str = "safetensors",
    *,
    name: str = "",
    quantize: str = "q8_0",
    precision: str = "auto",
    base: str = "auto",
    base_name: str = "",
    licence: str = "",
    temperature: float = 0.8,
    origin: Origin | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write `model` into the directory `output` in one of `FORMATS`; what is there is replaced when all is written.

    `quantize` is of `gguf.KINDS`, `precision` and `base` are those of `merge.merged`. Raises UsageError for an unknown
    format or a model that it cannot hold, MissingTool when a package is missing.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", f"use one of: {', '.join(FORMATS)}")
    path = resolve(model)
    output = output.expanduser().absolute()
    if output == path or (path in output.parents and output.name in {p.name for p in path.iterdir()}):
        raise UsageError(f"{output} is the model itself", "choose another --output")
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MARK).is_file()):
        raise UsageError(f"{output} is there and is no export of ours", "choose another --output")
    title = name or (path.parent.name if path.name == "model" else path.name)
    with locked(output.parent), new_folder(output) as folder:
        settings = (quantize, precision, base, base_name, temperature)
        files, notes = _FORMATS[format](path, folder, title, *settings, progress)
        (folder / MARK).write_text(f"{format}\n")
        (folder / "README.md").write_text(card(title, origin or Origin(), licence, files, notes), encoding="utf-8")
    gguf = next(iter(sorted(output.glob("*.gguf"))), None)
    return Exported(output, gguf, tuple(files), tuple(notes))


MARK = ".hafs-export"
"""The file that says that a directory is an export, and may be replaced by one."""

Written = tuple[list[str], list[str]]


def _safetensors(
    path: Path,
    folder: Path,
    title: str,
    quantize: str,
    precision: str,
    base: str,
    base_name: str,
    temperature: float,
    progress: Progress,
) -> Written:
    progress("merge", 0, 1, {})
    inside = folder / ".merged"
    write_merged(path, inside, precision, base)
    for file in inside.iterdir():
        file.rename(folder / file.name)
    inside.rmdir()
    progress("merge", 1, 1, {})
    return ["the whole model as safetensors, with its tokenizer and chat template"], _merge_notes(path, base)


def _adapter(
    path: Path,
    folder: Path,
    title: str,
    quantize: str,
    precision: str,
    base: str,
    base_name: str,
    temperature: float,
    progress: Progress,
) -> Written:
    write_adapter(path, folder, base_name)
    notes = []
    if base_bits(path, base) == "nf4":
        notes.append("the adapter was trained on a base in 4 bits (NF4, double quantisation): load the base so")
    return ["a PEFT adapter (LoRA), to be loaded on its base model"], notes


def _gguf(
    path: Path,
    folder: Path,
    title: str,
    quantize: str,
    precision: str,
    base: str,
    base_name: str,
    temperature: float,
    progress: Progress,
) -> Written:
    from hafs.export.gguf import write_gguf

    file = folder / f"{title}-{quantize}.gguf"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".merged-") as work:
        source = path
        if is_adapter(path):
            source = Path(work) / "model"
            write_merged(path, source, precision, base)
        write_gguf(source, file, quantize, progress)
    return [f"{file.name}: the whole model as GGUF ({quantize}) for llama.cpp, LM Studio and Ollama"], _merge_notes(
        path, base
    )


def _ollama(
    path: Path,
    folder: Path,
    title: str,
    quantize: str,
    precision: str,
    base: str,
    base_name: str,
    temperature: float,
    progress: Progress,
) -> Written:
    from transformers import AutoConfig

    from hafs.export.modelfile import modelfile

    files, notes = _gguf(path, folder, title, quantize, precision, base, base_name, temperature, progress)
    tokenizer = load_tokenizer(path)
    where = path if (path / "config.json").is_file() else base_of(path)
    limit = int(getattr(AutoConfig.from_pretrained(str(where)), "max_position_embeddings", 0) or 4096)
    text, has_template = modelfile(
        f"{title}-{quantize}.gguf",
        tokenizer,
        temperature=temperature,
        limit=min(limit, 8192),
        generation_config=generation_config(where),
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    if not has_template:
        notes.append("the chat template has no form in Ollama's language: Ollama goes by the one in the GGUF file")
    return [*files, f"Modelfile: `ollama create {title} -f Modelfile`"], notes


def _merge_notes(path: Path, base: str) -> list[str]:
    if not is_adapter(path):
        return []
    if base_bits(path, base) == "nf4":
        return ["the adapter was merged into its base as trained: in 4 bits (NF4), taken back to floats"]
    return ["the adapter was merged into its base"]


_FORMATS: dict[str, Callable[..., Written]] = {
    "safetensors": _safetensors,
    "adapter": _adapter,
    "gguf": _gguf,
    "ollama": _ollama,
}


def checked(exported: Exported, name: str, origin: Origin, licence: str, notes: Sequence[str]) -> None:
    """Write the model card anew with what was checked of the export."""
    text = card(name, origin, licence, exported.files, [*exported.notes, *notes])
    (exported.path / "README.md").write_text(text, encoding="utf-8")
