"""What a package that brings a domain (such as `hafs_snes`) can say beside its scorers and task packs.

A domain is an object registered under the entry-point group `hafs.domains`. hafs asks all domains that are installed
and knows none by name; every answer may be "I do not know", and without any domain hafs works on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hafs import registry
from hafs.types import Progress, silent

if TYPE_CHECKING:
    from pygments.lexer import Lexer

__all__ = ["Domain", "build_verb", "domain_of", "domains", "domains_of"]


class Domain:
    """The words, benchmarks and tools of a field. A domain overrides what it has; what is here means "nothing"."""

    name: str = ""
    checkers: tuple[str, ...] = ()
    """The scorers that are this domain's; results of others are never shown to it."""
    benchmarks: Mapping[str, tuple[str, int, tuple[str, ...]]] = {}
    """Name of a benchmark -> task pack, number of prompts, tags its families must have."""
    titles: Mapping[str, str] = {}
    """Name of a benchmark -> its heading in tables."""
    build: str = ""
    """The verb for an answer that becomes a program at all ("assemble"); "" where that means nothing."""
    check_label: str = ""
    """What the button says that shows the checker's result on the annotation page ("Assemble")."""

    def builds(self, cause: str, details: Mapping[str, Any]) -> bool | None:
        """Whether an answer with this cause of failure and these details became a program; None: not known."""
        return None

    def why(self, cause: str, result: Any) -> tuple[str, str] | None:
        """(cause, signature) of a failed `hafs.evals.results.PromptResult`; None where the domain knows no better."""
        return None

    def expected(self, details: Mapping[str, Any]) -> tuple[str, str] | None:
        """What the first wrong result was and what it should have been, in words; None where it is not known."""
        return None

    def language(self, text: str) -> str:
        """The language of a text that is code without a fence; "" when it is none of this domain."""
        return ""

    def lexer(self, language: str) -> Lexer | None:
        """A pygments lexer for a language of this domain; None for any other."""
        return None

    def install_tools(self, names: Sequence[str] | None, progress: Progress = silent) -> None:
        """Install the tools among `names` (all without) that are this domain's, into the cache."""

    def tools(self) -> list[dict[str, Any]]:
        """A row per tool: name, purpose, version, licence, path or None, ok, pinned, detail, fix."""
        return []

    def checks(self) -> list[Any]:
        """What `hafs doctor` says of this domain's tools, as `hafs.doctor.Check`s."""
        return []


@cache
def domains() -> tuple[Domain, ...]:
    """The domains that are installed, in the order of their names."""
    return tuple(registry.load("domains", name) for name in registry.names("domains"))


def domains_of(scorer: str) -> tuple[Domain, ...]:
    """The domains that may know of a result: that of its scorer, or all for one that does not name it."""
    return (domain_of(scorer),) if scorer else domains()


def build_verb() -> str:
    """The verb for an answer that becomes a program at all, of the domain that has one ("assemble"), else "build"."""
    return next((d.build for d in domains() if d.build), "build")


def domain_of(checker: str) -> Domain:
    """The domain that a scorer belongs to; an empty one for a scorer of none."""
    return next((d for d in domains() if checker in d.checkers), Domain())
