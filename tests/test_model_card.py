"""A model card says what that model saw and reached, and nothing of what its descendants did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hafs.evals import EvalResult, PromptResult
from hafs.export.card import card, origin
from hafs.models.lineage import ancestry, training_runs
from hafs.models.naming import model_hash
from hafs.store import Store, open_store

Rows = list[dict[str, object]]


def trained(root: Path, name: str, model: Path, parent: str, began: str, kind: str, rows: Rows) -> Path:
    """A training directory that made a copy of `model`."""
    shutil.copytree(model, root / "models" / name / "model")
    identity = {"kind": kind, "model": parent, "data": "d", "settings": {"beta": 0.1}}
    (root / "models" / name / "run.json").write_text(json.dumps({"identity": identity, "result": {"steps": 3}}))
    whole = {"prompt": "", "system": "", "split": "train", "candidates": [], "edges": 1}
    lines = [{"model": began}, *({**whole, **row} for row in rows)]
    (root / "models" / name / "data.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return root / "models" / name / "model"


def changed(model: Path, to: Path) -> Path:
    """The same model with other weights, as far as its hash is concerned."""
    shutil.copytree(model, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    return to


def evaluated(store: Store, name: str, model: str, passed: int) -> None:
    rows = tuple(PromptResult(f"p{i}", f"prompt {i}", passed=i < passed, value=1.0) for i in range(4))
    run = store.start_run("eval", {"name": name}, {"model": model})
    store.finish_run(run, "finished", {}, EvalResult(name, "own", rows, model=model).to_dict(), model=model)


SFT: Rows = [{"group": f"s{i}", "prompt_id": f"p{i}", "sources": ["reference"]} for i in range(5)]
DPO: Rows = [{"group": f"g{i}", "prompt_id": f"q{i}", "sources": ["human:ann", "asm@1"]} for i in range(3)]


def test_a_card_lists_what_this_model_saw_and_reached(tiny_model: Path, tmp_path: Path) -> None:
    base = changed(tiny_model, tmp_path / "base")
    sft = trained(tmp_path, "sft", tiny_model, model_hash(base), str(base), "sft", SFT)
    other = changed(sft, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text().replace("0.5", "0.6"))
    dpo = trained(tmp_path, "dpo", other, model_hash(sft), str(sft), "dpo", DPO)
    with open_store(tmp_path / "hafs.db") as store:
        evaluated(store, "baseline", model_hash(base), 1)
        evaluated(store, "sft", model_hash(sft), 2)
        evaluated(store, "dpo", model_hash(dpo), 3)
        text = card("mine", origin(sft, tmp_path, store), "", [])
        assert "| 1. sft | prompts | | 5 |" in text and "reference | 5 |" in text
        assert "human:ann" not in text and "dpo" not in text and "| Own Benchmark | baseline |" in text
        assert "this model | 2 of 4" in text and "3 of 4" not in text
        text = card("mine", origin(dpo, tmp_path, store), "", [])
        assert "| 2. dpo | groups with edges of | human:ann | 3 |" in text and "| 1. sft | prompts | | 5 |" in text
        assert "this model | 3 of 4" in text and "| sft | 2 of 4" in text


def test_a_dpo_run_that_kept_its_start_made_no_model(tiny_model: Path, tmp_path: Path) -> None:
    """Both directories hold one model: what made it is the SFT run, and it is called what it is."""
    sft = trained(tmp_path, "sft", tiny_model, "base", "", "sft", SFT)
    dpo = trained(tmp_path, "dpo", tiny_model, model_hash(sft), str(sft), "dpo", DPO)
    runs = training_runs([tmp_path])
    assert [r.kind for r in ancestry(model_hash(sft), runs)] == ["sft"] and model_hash(dpo) == model_hash(sft)
    with open_store(tmp_path / "hafs.db") as store:
        evaluated(store, "sft", model_hash(sft), 2)
        evaluated(store, "dpo", model_hash(dpo), 2)
        for path in (sft, dpo):
            text = card("mine", origin(path, tmp_path, store), "", [])
            assert "dpo" not in text and "human:ann" not in text and text.count("2 of 4") == 1
