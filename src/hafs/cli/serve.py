"""`hafs serve`: an OpenAI-compatible endpoint for a model."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note
from hafs.errors import HafsError, MissingTool, UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

ApiKey = Annotated[
    str, typer.Option("--api-key", envvar="HAFS_API_KEY", help="Requests must carry this key.", show_default=False)
]


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    model: str = typer.Argument(
        None,
        help="A name under `models/` of the workspace (sft), an HF directory, a hub id,"
        " or `default`; else the workspace's model.",
    ),
    name: str = typer.Option(None, help="What requests call it; by default the model's name here."),
    port: int = typer.Option(8010, min=0, max=65535, help="0 takes a free one."),
    host: str = typer.Option("127.0.0.1", help="Another address than this machine's own needs --api-key."),
    api_key: ApiKey = "",
    batch_size: int = typer.Option(16, min=1, help="Answers decoded together."),
    adapters: Path = typer.Option(
        None,
        help="Clients may load LoRA adapters that are in this directory, as PPO does"
        " with --rollouts-from (vLLM's /v1/load_lora_adapter).",
    ),
    precision: str = typer.Option("auto", help="auto, fp32 or bf16."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Serve a model on this machine as OpenAI's interface, for trying it and for judging, until Ctrl-C."""
    if host not in ("127.0.0.1", "localhost", "::1") and not api_key:
        raise UsageError(f"{host} can be reached from other machines", "give --api-key, or leave --host out")
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"there is no precision {precision!r}", "use one of: auto, fp32, bf16")
    try:
        from hafs.annotate.web.gate import LOOPBACK
        from hafs.serve.app import make_app
    except ImportError as e:
        raise MissingTool(
            f"serving needs a package that is not installed ({e.name})", "pip install 'hafs[serve]'"
        ) from e
    from hafs.generation.transformers import TransformersBackend
    from hafs.models.naming import role
    from hafs.servers.address import key_variable

    chosen = workspace_model(model, workspace)
    listener = _listen(host, port)
    backend = TransformersBackend(chosen, precision)
    title = name or role(chosen)
    url = f"http://{host}:{listener.getsockname()[1]}/v1"
    key = f"  export {key_variable(url)}=… (the key of --api-key)\n" if api_key else ""
    emit(
        {"url": url, "model": title, "hash": backend.model},
        f"{title} at {url}\n{key}  hafs generate --model openai:{url}#{title}\nCtrl-C stops it.",
        json,
    )
    hosts = None if host in ("0.0.0.0", "::") else [*LOOPBACK, f"[{host}]" if ":" in host else host]
    _run(make_app(backend, title, api_key, batch_size, adapters, hosts), listener)
    note("stopped")


def workspace_model(model: str | None, workspace: Path | None) -> str:
    """The model called `model`: a directory of the workspace's `models` by its name, else what the name says.

    Without a name it is the workspace's model. A workspace is needed only where it is asked.
    """
    from hafs.models.naming import DEFAULT_NAMES
    from hafs.store import find_workspace, workspace_or_none

    space = find_workspace() if model is None and not workspace else workspace_or_none(workspace)
    if space is None or model in DEFAULT_NAMES:
        return str(model)
    if model is None:
        return space.config.model.name
    for folder in (space.root / "models" / model / "model", space.root / "models" / model):
        if not Path(model).is_dir() and folder.is_dir():
            return str(folder)
    return model


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        raise HafsError(f"could not listen at {host}:{port}: {e.strerror}", "choose another --port") from e
    return listener


def _run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; answers under way get a few seconds to end."""
    from hafs.annotate.web.gate import server_of

    server = server_of(app, timeout_graceful_shutdown=5)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
