"""Answers from Ollama, through its OpenAI-compatible address.

`ollama:hafs-coder:14b`, or the bare tag when the server answers. Ollama takes top_k, min_p and the context length from
the model's Modelfile, not from a request; `hafs export --format ollama` writes one that samples from the whole
distribution. The identity of a model is the digest that Ollama gives it.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request

from hafs.backends.openai import OpenAIBackend
from hafs.errors import HafsError, UsageError
from hafs.types import content_id

PORT = 11434


class OllamaBackend(OpenAIBackend):
    """A model of the Ollama server at $OLLAMA_HOST, by default on this machine."""

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        served = installed()
        if not served:
            raise HafsError(f"Ollama does not answer at {address()}", "start it: ollama serve")
        tag = name if ":" in name else f"{name}:latest"
        if tag not in served:
            have = ", ".join(sorted(served)[:8])
            raise UsageError(f"Ollama has no model {name!r} (it has: {have})", f"ollama pull {name}, or ollama create")
        super().__init__(f"{address()}/v1#{tag}", timeout)
        self.name, self.model = f"ollama:{name}", content_id("ollama", served[tag])


def address() -> str:
    """Where Ollama listens: $OLLAMA_HOST, else its usual port on this machine."""
    host = os.environ.get("OLLAMA_HOST", "").rstrip("/") or f"127.0.0.1:{PORT}"
    host = host if "://" in host else f"http://{host}"
    host = host.replace("//0.0.0.0", "//127.0.0.1")
    return host if host.rpartition("/")[2].count(":") else f"{host}:{PORT}"


def installed(timeout: float = 2.0) -> dict[str, str]:
    """The server's models and their digests; empty when no server answers."""
    try:
        with urllib.request.urlopen(f"{address()}/api/tags", timeout=timeout) as reply:
            models = json.load(reply)["models"]
        return {m["name"]: m["digest"] for m in models}
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return {}
