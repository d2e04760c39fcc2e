"""What hafs shows of this domain: benchmarks, words, causes of failure, colours of code, tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hafs.tasks.domain import Domain
from hafs.types import Progress, silent

if TYPE_CHECKING:
    from pygments.lexer import Lexer

__all__ = ["SnesDomain", "snes"]

NOT_BUILT = ("no code", "screened", "does not assemble")  # how the cause of an answer begins that never ran


class SnesDomain(Domain):
    """65816 assembly in asar syntax and ROM patches, checked by asar and bsnes."""

    name = "snes"
    checkers = ("asm",)
    benchmarks = {  # noqa: RUF012
        "asm": ("asm", 320, ()),
        "rom_hack": ("rom_hack", 120, ()),
        "easy": ("asm", 320, ("easy",)),
        "demo": ("asm", 192, ("easy",)),
    }
    titles = {"asm": "ASM Benchmark", "rom_hack": "ROM Hack Benchmark"}  # noqa: RUF012
    build = "assemble"
    check_label = "Assemble"

    def builds(self, cause: str, details: Mapping[str, Any]) -> bool | None:
        return bool(details.get("assembles", not cause.startswith(NOT_BUILT)))

    def why(self, cause: str, result: Any) -> tuple[str, str] | None:
        from hafs_snes.causes import why

        return why(cause, result)

    def expected(self, details: Mapping[str, Any]) -> tuple[str, str] | None:
        from hafs_snes.causes import expected

        return expected(details)

    def language(self, text: str) -> str:
        from hafs_snes.lexer import looks_like_asm

        return "asm" if looks_like_asm(text) else ""

    def lexer(self, language: str) -> Lexer | None:
        from hafs_snes.lexer import LANGUAGES, AsarLexer

        return AsarLexer(stripnl=False) if language in LANGUAGES else None

    def install_tools(self, names: Sequence[str] | None, progress: Progress = silent) -> None:
        from hafs_snes import tools

        tools.install(None if names is None else [n for n in names if n in tools.TOOLS], progress)

    def tools(self) -> list[dict[str, Any]]:
        from hafs_snes import tools

        return tools.status()

    def checks(self) -> list[Any]:
        from hafs_snes.checks import assembler, emulator

        return [*assembler(), *emulator()]


snes = SnesDomain()
