"""What the verbs that serve a page share: the packages it needs, where it listens, and the secret of its link."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from hafs.errors import MissingTool, UsageError

TOKEN = ".annotate-token"


def page_tools() -> None:
    """Raise MissingTool where a package that the pages need is not installed."""
    from importlib.util import find_spec

    if missing := [
        m for m in ("fastapi", "uvicorn", "nh3", "markdown_it", "pygments", "argon2") if find_spec(m) is None
    ]:
        raise MissingTool(f"the page needs {', '.join(missing)}", "pip install 'hafs[annotate]', or use --terminal")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises UsageError when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)  # from here on the link works: a browser waits until the server answers
    except OSError as e:
        sock.close()
        raise UsageError(f"cannot listen on {host}:{port}: {e.strerror or e}", "--port 0 takes a free one") from e
    return sock


def page_token(root: Path) -> str:
    """The secret of the workspace's page, made once, so that sessions outlive the server."""
    path = root / TOKEN
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as f:
        f.write(text)
    new.replace(path)


# results
