"""A judge behind `hafs serve`: the server is killed half-way, and what it had not answered is asked when it is back."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import byte_tokenizer, tiny_network
from hafs.servers import limits
from hafs.store import Store
from judge_work import filled
from run_hafs import hafs, workspace
from test_remote import process

pytest.importorskip("uvicorn")
pytest.importorskip("openai")

VERDICT = '{"verdict": "A>B"}'


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers everything with VERDICT: its next token depends on the last one alone."""
    path = tmp_path_factory.mktemp("models") / "partial"
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([VERDICT])
    network = tiny_network(max_position_embeddings=8192, tie_word_embeddings=False)
    (newline,) = tokenizer.encode("\n", add_special_tokens=False)
    said = tokenizer.convert_tokens_to_ids(VERDICT)
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        vectors = torch.nn.functional.normalize(network.get_input_embeddings().weight, dim=-1)
        network.lm_head.weight.zero_()
        network.lm_head.weight[said] = 10 * vectors[newline]
        network.lm_head.weight[tokenizer.eos_token_id] = 10 * vectors[said]
    network.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))
    return path


@pytest.mark.slow
def test_a_served_judge_is_killed_half_way(tmp_path: Path, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BASE", 0.002)
    monkeypatch.chdir(workspace(tmp_path))

    def serve(port: int) -> Any:
        return process("hafs", "serve", partial, "--port", str(port), "--precision", "fp32", "--json")

    def kill(store: Store, server: Any) -> None:
        while len(list(store.verdicts())) < 4 and server.poll() is None:
            time.sleep(0.01)
        server.kill()

    with filled(tmp_path, prompts=20, candidates=2) as store:
        with serve(0) as (server, line):
            url = json.loads(line)["url"]
            run = [
                "judge",
                "run",
                "--judge",
                f"partial@{url}",
                "--protocol",
                "pairwise",
                "--concurrency",
                "1",
                "--json",
            ]
            killer = threading.Thread(target=kill, args=(store, server))
            killer.start()
            cut = hafs(*run)
            killer.join()
        kept = {v.id for v in store.verdicts()}
        assert cut.code == 1 and 4 <= len(kept) < 40, cut
        with serve(int(url.rpartition(":")[2].split("/")[0])):
            (again,) = hafs(*run).ok().json["judges"]
            whole = {v.id: v for v in store.verdicts()}
            assert again["attempts"] == 40 - len(kept) and again["stopped"] == "" and again["coverage"] == 1.0
            assert kept < set(whole) and len(whole) == 40
            assert all(v.outcome == "ranked" and v.tiers[0] == v.shown[:1] for v in whole.values())
            assert hafs(*run).ok().json["judges"][0]["attempts"] == 0
