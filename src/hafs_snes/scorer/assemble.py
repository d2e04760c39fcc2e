"""Run asar on an answer, inside the sandbox, and read what it says.

The answer's text is the only input and `answer.sfc`/`answer.sym` the only output; the assembler sees no other
file, so an `incsrc` that slipped through the screen finds nothing, and nothing of a file can come back in an
error text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from hafs.errors import HafsError
from hafs.sandbox import Limits, Sandbox

__all__ = ["Assembled", "Assembler", "AssemblerFailed", "Harness", "load_harness"]

LIMITS = Limits(seconds=10.0, memory_mb=512, processes=4, output_bytes=1 << 16, file_bytes=8 << 20)
OPTIONS = (
    "--symbols=wla",
    "--fix-checksum=off",
    "--no-title-check",
    "-wnofeature_deprecated",
    "-wnooptimization_settings",
)
MESSAGE = re.compile(r"^answer\.asm:(\d+): (error|warning): \((\w+)\): (.*)$", re.M)
SYMBOL = re.compile(r"^([0-9a-f]{2}):([0-9a-f]{4}) (\S+)$", re.M | re.I)
KINDS = {
    "Eunknown_command": "unknown instruction",
    "Einvalid_opcode_length": "unknown instruction",
    "Elabel_not_found": "unknown label",
    "Elabel_missing_parent": "unknown label",
    "Edefine_not_found": "unknown label",
    "Elabel_redefined": "label defined twice",
    "Erelative_branch_out_of_bounds": "branch too far",
    "Einvalid_number": "bad operand",
    "Ebank_border_crossed": "too large",
}
PRIORITY = (
    "unknown instruction",
    "addressing mode",
    "bad operand",
    "unknown label",
    "label defined twice",
    "branch too far",
    "too large",
)


class AssemblerFailed(HafsError):
    """The assembler could not be run at all (not: it refused the code). The candidate has no score."""


@dataclass
class Assembled:
    """What asar made of a source: `image` and `symbols` (label -> SNES address), or `kind` and `errors`."""

    image: bytes = b""
    symbols: dict[str, int] = field(default_factory=dict)
    kind: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.kind


class Assembler:
    """asar in a sandbox. Use from one thread at a time."""

    def __init__(self, asar: Path, sandbox: Sandbox, limits: Limits = LIMITS) -> None:
        self.asar, self.sandbox, self.limits = asar, sandbox, limits

    def assemble(self, source: str, image: bytes | None = None, first_line: int = 0) -> Assembled:
        """Assemble `source`, onto `image` when given. Line numbers in errors count from `first_line`.

        Raises AssemblerFailed when the sandbox broke.
        """
        given = {"answer.asm": source.encode("ascii", "replace")}
        if image is not None:
            given["answer.sfc"] = image
        result = self.sandbox.run(
            [str(self.asar), *OPTIONS, "answer.asm", "answer.sfc"],
            files=given,
            read=[self.asar],
            collect=["answer.sfc", "answer.sym"],
            limits=self.limits,
        )
        if result.status == "sandbox broken":
            raise AssemblerFailed(f"the sandbox broke: {result.reason}", "see `hafs doctor`")
        if result.status in ("timed out", "killed"):
            return Assembled(kind="limits", errors=[f"the assembler was stopped: {result.reason or result.status}"])
        log = (result.stdout + b"\n" + result.stderr).decode("utf-8", "replace")
        problems = _problems(log, first_line)
        if result.status == "failed" or problems:
            kinds = [kind for kind, _ in problems]
            kind = next((k for k in PRIORITY if k in kinds), "other")
            return Assembled(kind=kind, errors=[text for _, text in problems][:5] or ["asar gave no reason"])
        symbols = result.files.get("answer.sym", b"").decode("utf-8", "replace").split("[source files]")[0]
        return Assembled(
            result.files.get("answer.sfc", b""), {m[3]: int(m[1] + m[2], 16) for m in SYMBOL.finditer(symbols)}
        )


def _problems(log: str, first_line: int) -> list[tuple[str, str]]:
    """(kind, text) of the errors in asar's output, and of the warnings where it guessed another addressing
    mode.
    """
    out = []
    for line, level, code, text in MESSAGE.findall(log):
        where = f"line {int(line) - first_line}: {text[:120]}"
        if level == "error":
            out.append((KINDS.get(code, "other"), where))
        elif code.startswith("W65816") and code.endswith("does_not_exist"):
            out.append(("addressing mode", where))
    return out


@dataclass(frozen=True)
class Harness:
    """The assembled harness cartridge: 1 MB and its labels."""

    rom: bytes
    symbols: dict[str, int]


def load_harness(assembler: Assembler, cache: Path) -> Harness:
    """Assemble harness.asm, or take it from `cache`, where it is kept under the hash of its source and of
    asar.

    Raises AssemblerFailed. A cache that cannot be written is no error.
    """
    source = files("hafs_snes.scorer").joinpath("harness.asm").read_text()
    digest = hashlib.sha256(source.encode() + assembler.asar.read_bytes()).hexdigest()[:16]
    place = cache / f"harness-{digest}.json.z"
    try:
        kept = json.loads(zlib.decompress(place.read_bytes()))
        return Harness(bytes.fromhex(kept["rom"]), kept["symbols"])
    except (OSError, ValueError, KeyError, zlib.error):
        pass
    built = assembler.assemble(source)
    if not built.ok or len(built.image) != 1 << 20:
        raise AssemblerFailed(f"the harness does not assemble: {'; '.join(built.errors)}", "run `hafs tools install`")
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(dir=cache)
        with os.fdopen(fd, "wb") as f:
            kept = {"rom": built.image.hex(), "symbols": built.symbols}
            f.write(zlib.compress(json.dumps(kept).encode(), 1))
        Path(part).replace(place)
    return Harness(built.image, built.symbols)
