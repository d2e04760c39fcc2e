"""Running a GGUF file with llama.cpp: a server in a process of its own, and the proof that it reads text as we do.

`python -m hafs.export.llamacpp FILE` is that process. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs.errors import HafsError
from hafs.export.gguf import need_packages
from hafs.models.chat import encode_prompt, messages_of, render

TEXTS = (
    "Hello.",
    "  two spaces, a tab\tand\n\n\nthree lines ",
    "LDA.w $0E20,X ; 16 bit\n\tSTA.b $00\n\tRTS",
    "1234567 89",
    "def f(x):\n    return x**2  # naïve",
    "Grüße, 你好, שלום, مرحبا, ひらがな",
    "👩\u200d👧 e\u0301 \u200b\ufeff",
    "<|im_start|>user",
    "</s> <s> [INST]",
    "\r\n\r\n",
    "a" * 300,
    "x=1;y=2",
    "𝔘𝔫𝔦",
    "100,000.50 €",
    "don't I'LL",
    "{{ .System }}",
)
"""Texts that tokenizers split differently: digits, spaces, scripts, marks of chat templates."""


@contextmanager
def llama_server(file: Path, context: int = 2048, parallel: int = 4, threads: int = 0) -> Iterator[str]:
    """Serve a GGUF file with `context` tokens for each of `parallel` requests; yields its address.

    Raises HafsError when llama.cpp does not take the file.
    """
    need_packages()
    argv = [sys.executable, "-m", "hafs.export.llamacpp", str(file), str(context), str(parallel), str(threads)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("http"):
            raise HafsError(f"llama.cpp does not take {file}: {line or 'it ended without a word'}", "export it again")
        yield line
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Tokens:
    """How many texts were compared, and those that llama.cpp reads as other tokens than the training tokenizer."""

    texts: int
    different: tuple[str, ...]


def same_tokens(url: str, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> Tokens:
    """Compare llama.cpp's tokens of rendered chats with ours; `texts` are (prompt, system).

    llama.cpp renders the chat with the template inside the file, and tokenises with the rules inside the file.
    """
    different = []
    for text, system in texts:
        if tokenizer.chat_template:
            prompt = _post(url, "/apply-template", {"messages": messages_of(text, system)})["prompt"]
            asked = {"content": prompt, "add_special": False, "parse_special": True}
        else:
            plain = f"{system}\n\n{text}\n" if system else f"{text}\n"
            asked = {"content": plain, "add_special": True, "parse_special": False}
        if _post(url, "/tokenize", asked)["tokens"] != _as_read(tokenizer, text, system):
            different.append(text)
    return Tokens(len(texts), tuple(different))


def _as_read(tokenizer: Any, text: str, system: str) -> list[int]:
    """Our tokens of a prompt where a control token that its text spells is read as one, as llama.cpp reads it."""
    if not tokenizer.chat_template:
        return encode_prompt(tokenizer, text, system)
    return list(tokenizer(render(tokenizer, messages_of(text, system)), add_special_tokens=False)["input_ids"])


def _post(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)
    except (OSError, ValueError) as e:
        said = e.read().decode(errors="replace")[:300] if isinstance(e, urllib.error.HTTPError) else str(e)
        raise HafsError(f"llama.cpp's server failed at {path}: {said}", "export the model again") from e


def _main(file: str, context: int, parallel: int, threads: int) -> None:
    import xllamacpp

    from hafs.files.fetch import file_sha256

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.model_alias = {f"{Path(file).stem}-{file_sha256(Path(file))[:12]}"}
    params.n_ctx, params.n_parallel, params.verbosity = context * parallel, parallel, -1
    if threads := threads or int(os.environ.get("OMP_NUM_THREADS") or 0):
        params.cpuparams.n_threads = threads
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as e:
        print(e, flush=True)
        return
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main(sys.argv[1], *map(int, sys.argv[2:5]))
