"""A real vLLM for tests: `.venv-vllm` (`make vllm`) serves the embedded model on this machine's CPU."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

PYTHON = Path(__file__).parents[1] / ".venv-vllm" / "bin" / "python"
NAME = "smol"
STARTS_IN = 1200.0
"""Seconds that a start may take: half a minute of work on an idle core, and many times that on a busy machine."""
FLAGS = (
    *("--served-model-name", NAME, "--dtype", "float32", "--host", "127.0.0.1"),
    *("--max-model-len", "512", "--max-num-seqs", "8"),
    *("--enable-lora", "--max-lora-rank", "8", "--enable-prefix-caching", "--enforce-eager"),
)
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # a compiler's minutes at the first request are not worth it for a test
    "VLLM_ENGINE_READY_TIMEOUT_S": "1200",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1200",  # on a busy machine the first request takes minutes
    "HF_HUB_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}


class VllmServer:
    """vLLM serving `model` in a process group of its own; `log` is what it says."""

    def __init__(self, model: Path, log: Path) -> None:
        self._model, self.log = model, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        """Start it at its address and wait until it answers. `flags` come after the usual ones.

        `python -m` and not `vllm serve`: vllm-cpu's script looks for the distribution "vllm", which it is not.
        """
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model, *FLAGS]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*map(str, command), "--port", str(self.port), *flags],
                env={**os.environ, **ENVIRONMENT},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ends = time.monotonic() + STARTS_IN
        while not healthy(self.url):
            assert self._process.poll() is None, f"vLLM did not start:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < ends, f"vLLM did not start in {STARTS_IN:g} s"
            time.sleep(0.5)

    def kill(self) -> None:
        """End it, and all processes that it has started, at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def healthy(url: str) -> bool:
    """Whether the server at `url` answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def metric(url: str, name: str) -> float:
    """The sum of one of vLLM's metrics over its labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        text = reply.read().decode()
    return sum(float(x) for x in re.findall(rf"^vllm:{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE))
