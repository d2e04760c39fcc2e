"""Where Ollama listens and what it has; it is asked through its OpenAI-compatible address."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from hafs.servers.address import is_local, port_of

PORT = 11434
_MOST = 8 << 20


def address() -> str:
    """The server's address: $OLLAMA_HOST, else its usual port on this machine. Raises UsageError for what is none."""
    host = os.environ.get("OLLAMA_HOST", "").rstrip("/") or f"127.0.0.1:{PORT}"
    host = host if "://" in host else f"http://{host}"
    host = host.replace("//0.0.0.0", "//127.0.0.1")
    return host if port_of(host, "OLLAMA_HOST=HOST:PORT") is not None else f"{host}:{PORT}"


def answers(timeout: float = 3.0) -> bool:
    """Whether an Ollama server is there."""
    return _get("/api/version", timeout) is not None


def installed(timeout: float = 2.0) -> dict[str, str]:
    """The server's models and their digests; empty when no server answers."""
    try:
        return {str(m["name"]): str(m["digest"]) for m in (_get("/api/tags", timeout) or {})["models"]}
    except (KeyError, TypeError):
        return {}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def _get(path: str, timeout: float) -> Any:
    """The JSON at a path of the server, None when it does not answer; no proxy in between where it is near."""
    proxies = urllib.request.ProxyHandler({} if is_local(address()) else None)
    opener = urllib.request.build_opener(proxies, _NoRedirect())
    try:
        with opener.open(address() + path, timeout=timeout) as reply:
            return json.loads(reply.read(_MOST))
    except (OSError, ValueError, RecursionError, urllib.error.URLError):
        return None
