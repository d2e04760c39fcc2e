"""Write docs/cli.md from the code: verbs with their flags, losses, settings. `--check` fails when it is stale."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from hafs import registry
from hafs.cli import build_app
from hafs.config import Config

PAGE = Path(__file__).parent / "cli.md"


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every verb with its full name, in the order of the help page."""
    children = getattr(command, "commands", None)
    if children is None or command.invoke_without_command:
        yield name, command
    if children is not None:
        for child, inner in children.items():
            yield from verbs(inner, f"{name} {child}")


def verb_lines(name: str, command: Any) -> list[str]:
    """A section: what the verb does and its parameters."""
    lines = [f"## {name}", "", inspect.cleandoc(command.help or ""), ""]
    rows = [p for p in command.params if p.name != "help"]
    if rows:
        lines += ["| parameter | meaning |", "| --- | --- |"]
    for p in rows:
        flags = " ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts) if o.startswith("-")) or f"`{p.name.upper()}`"
        lines.append(f"| {flags} | {(getattr(p, 'help', None) or '').replace('|', '/')} |")
    return [*lines, ""]


def page() -> str:
    """The whole page."""
    lines = [
        "# The command line",
        "",
        "Made from the code by `make docs`. Flags may be written with `-` or `_`; every verb takes `--help`.",
        "",
    ]
    for name, command in verbs(get_command(build_app()), "hafs"):
        lines += verb_lines(name, command)
    lines += ["## Losses of `hafs train dpo --loss`", "", "| loss | what it is |", "| --- | --- |"]
    lines += [f"| `{n.replace('_', '-')}` | {registry.load('losses', n).doc} |" for n in registry.names("losses")]
    lines += ["", "## Settings of `hafs.toml`", "", "| setting | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*lines, *setting_lines(Config, "")]) + "\n"


def setting_lines(section: Any, prefix: str) -> Iterator[str]:
    """A table row for every setting."""
    for name, f in section.model_fields.items():
        if hasattr(f.annotation, "model_fields"):
            yield from setting_lines(f.annotation, f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | `{f.get_default(call_default_factory=True)!r}` | {f.description or ''} |"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made:
            sys.exit(f"{PAGE} is not what the code says: run `make docs`")
    else:
        PAGE.write_text(made, encoding="utf-8")
