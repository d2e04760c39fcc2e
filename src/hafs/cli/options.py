"""Flags made from settings: what a section of `hafs.toml` holds can be given to the verb that reads it.

`@with_settings("dpo")` gives a verb a flag for every setting of `[dpo]`; the flag's help is the setting's description,
and the verb's function receives what was given as the mapping `settings`. `--set section.key=value` reaches every other
setting. Making the flags needs the settings' classes, so it is done for the one verb that is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from hafs import registry

__all__ = ["Given", "expanded", "with_settings"]

Given = Mapping[str, Any]
"""The settings that were given as flags, by their place in the section (`lora.rank`)."""

_WITHOUT_FLAG = ("rounds", "target")  # tables of tables: in the file, or by --set


def with_settings(section: str, **names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a verb as taking the settings of `section`; `names` are flags called otherwise than their
    setting ("" for none)."""

    def mark(verb: Callable[..., Any]) -> Callable[..., Any]:
        verb.__section__ = section, names  # type: ignore[attr-defined]
        return verb

    return mark


def expanded(verb: Callable[..., Any], flags: bool = True) -> Callable[..., Any]:
    """`verb` with its flags from settings and `--set`; without `flags` only ready to be listed."""
    own = inspect.signature(verb).parameters
    section, names = getattr(verb, "__section__", ("", {}))
    made = _flags(section, names) if section and flags else {}
    hints = get_type_hints(verb, include_extras=True)
    parameters = [p.replace(annotation=hints.get(name, Any)) for name, p in own.items() if name != "settings"]
    at = next((i for i, p in enumerate(parameters) if p.name == "workspace"), len(parameters))
    taken = {p.name for p in parameters}
    added = [
        inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag.annotation)
        for flag in made.values()
        if flag.name not in taken
    ]
    if "workspace" in own:
        added.append(inspect.Parameter("set_", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_SET))

    def call(**values: Any) -> Any:
        from hafs.config import set_values

        set_values(values.pop("set_", None) or ())
        if section:
            given = {place: values.pop(flag.name, None) for place, flag in made.items() if flag.name not in taken}
            values["settings"] = {place: value for place, value in given.items() if value not in (None, [])}
        return verb(**values)

    everything = [*parameters[:at], *added, *parameters[at:]]
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in everything]
    )
    call.__annotations__ = {p.name: p.annotation for p in everything}
    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    return call


_SET = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting, as section.key=value; may be repeated.", show_default=False),
]


class _Flag:
    """One setting as an option of the command line."""

    def __init__(self, place: str, field: Any, named: str | None) -> None:
        self.name = place.replace(".", "_")
        kind = field.annotation
        optional: Any = _kind(kind)
        flag = named or f"--{self.name.replace('_', '-')}"
        if kind is bool and "/" not in flag:
            flag = f"{flag}/--no-{flag[2:]}"
        self.annotation = Annotated[optional | None, typer.Option(flag, help=_help(field), show_default=False)]


def _kind(annotation: Any) -> Any:
    if get_origin(annotation) is list:
        return list[str]
    return annotation if annotation in (int, float, bool) else str


def _help(field: Any) -> str:
    """The description, the choices, the default."""
    inner = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    known = registry.names(extra["registry"]) if (extra := field.json_schema_extra or {}) else list(get_args(inner))
    choices = ", ".join(n.replace("_", "-") for n in known) if extra or get_origin(inner) is Literal else ""
    default = field.get_default(call_default_factory=True)
    shown = "" if default in ("", None) or default == [] else f"[{default}]"
    text = field.description or ""
    if not text.partition(" ")[0].endswith(":"):
        text = f"{text[:1].upper()}{text[1:]}"
    sentences = [f"{part}." for part in (text, "" if choices in text else choices) if part]
    return " ".join([*sentences, shown]).strip()


def _flags(section: str, names: Mapping[str, str]) -> dict[str, _Flag]:
    """The flags of a section by the setting's place; those of the section inside it (`lora`) come with its name."""
    from hafs.config import Config

    made = {}
    for name, field in Config.model_fields[section].annotation.model_fields.items():  # type: ignore[union-attr]
        if hasattr(field.annotation, "model_fields"):
            for key, inner in field.annotation.model_fields.items():
                made[f"{name}.{key}"] = _Flag(f"{name}.{key}", inner, names.get(f"{name}_{key}"))
        elif name not in _WITHOUT_FLAG and names.get(name) != "":
            made[name] = _Flag(name, field, names.get(name))
    return made
