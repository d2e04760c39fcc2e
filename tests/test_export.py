"""Exports are the trained model: equal logits, equal tokens, and a card that says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CHATML, byte_tokenizer, tiny_network
from hafs.errors import UsageError
from hafs.export import export_model
from hafs.export.merge import merged, write_adapter
from hafs.export.modelfile import modelfile, wrapping
from hafs.models.loading import load_model, load_tokenizer
from hafs.models.naming import model_hash, resolve
from run_hafs import hafs, workspace

IDS = torch.tensor([[5, 70, 100, 32, 81, 9, 12, 200]])


def logits(net: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return net(ids).logits.float()


def with_adapter(model: Path, folder: Path, quantize: str = "none") -> tuple[Path, torch.Tensor]:
    """A random adapter trained on `model` (here: made) and the logits of the two together, as in training."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    net = load_model(model, "fp32", quantize=quantize)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(net, lora).eval()
    adapted.save_pretrained(str(folder))
    load_tokenizer(model).save_pretrained(str(folder))
    return folder, logits(adapted)


def tiny_with_real_tokenizer(folder: Path) -> Path:
    """A tiny random llama with the embedded model's tokenizer, which llama.cpp knows."""
    tokenizer = load_tokenizer(resolve("default"))
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    tiny_network(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, **ends).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


# safetensors and adapters


def test_a_merged_adapter_answers_as_in_training(tiny_model: Path, tmp_path: Path) -> None:
    adapter, trained = with_adapter(tiny_model, tmp_path / "adapter")
    made = export_model(adapter, tmp_path / "out", "safetensors", precision="fp32")
    assert torch.allclose(logits(load_model(made.path, "fp32")), trained, atol=1e-5)
    assert not torch.allclose(logits(load_model(tiny_model, "fp32")), trained, atol=1e-2)
    assert load_tokenizer(made.path).chat_template == CHATML
    assert "merged into its base" in (made.path / "README.md").read_text()


def test_an_adapter_on_a_4_bit_base_is_merged_into_those_weights(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    adapter, trained = with_adapter(tiny_model, tmp_path / "run/model", "nf4")
    (tmp_path / "run/run.json").write_text(json.dumps({"identity": {"settings": {"quantize": "nf4"}}}))
    made = export_model(adapter, tmp_path / "out", precision="fp32")  # the run says that the base was in 4 bits
    again = load_model(made.path, "fp32")
    assert torch.allclose(logits(again), trained, atol=1e-4)
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())
    other = merged(adapter, "fp32", base="none")
    assert (logits(other) - trained).abs().max() > 1e-2, "into the original weights it is another model"
    assert any("4 bits" in note for note in made.notes)


def test_a_whole_model_is_copied_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    made = export_model(tiny_model, tmp_path / "out")
    assert model_hash(made.path) == model_hash(tiny_model)


def test_an_adapter_is_copied_and_may_name_its_base(tiny_model: Path, tmp_path: Path) -> None:
    adapter, trained = with_adapter(tiny_model, tmp_path / "adapter")
    made = export_model(adapter, tmp_path / "out", "adapter")
    assert torch.allclose(logits(load_model(made.path, "fp32")), trained, atol=1e-5)
    named = export_model(adapter, tmp_path / "named", "adapter", base_name="owner/base")
    said = json.loads((named.path / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "owner/base"
    with pytest.raises(UsageError, match="the adapter was merged into it"):
        write_adapter(tiny_model, tmp_path / "no")


def test_nothing_that_is_no_export_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    with pytest.raises(UsageError, match="is no export of ours"):
        export_model(tiny_model, tmp_path / "mine")
    with pytest.raises(UsageError, match="is the model itself"):
        export_model(tiny_model, tiny_model)
    with pytest.raises(UsageError, match="there is no format 'onnx'"):
        export_model(tiny_model, tmp_path / "out", "onnx")
    assert (tmp_path / "mine/file").read_text() == "mine" and not (tmp_path / "out").exists()
    export_model(tiny_model, tmp_path / "out")
    export_model(tiny_model, tmp_path / "out")  # an export takes an export's place


# Ollama's template

turns = st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=3)
TOKENIZER = byte_tokenizer()


@settings(max_examples=50, deadline=None)
@given(st.none() | st.text(max_size=12), turns, st.text(max_size=12))
def test_the_go_template_renders_as_the_models_own(system: str | None, before: Any, last: str) -> None:
    chat = [] if system is None else [{"role": "system", "content": system}]
    for user, assistant in before:
        chat += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    chat.append({"role": "user", "content": last})
    around = wrapping(TOKENIZER)
    assert around is not None
    made = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert around.render(chat) == made


DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'system' %}<<SYS>>{{ m['content'] }}<</SYS>>{% else %} {{ m['content'] }} </s>{% endif %}"
    "{% endfor %}"
)
COUNTS = "{% for m in messages %}{{ loop.index }}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML


@pytest.mark.parametrize(
    ("template", "fits", "default"),
    [(CHATML, True, ""), (DEFAULT, True, "Be good."), (LLAMA2, True, ""), (COUNTS, False, ""), (STRICT, False, "")],
)
def test_which_templates_have_a_form_in_ollamas_language(template: str, fits: bool, default: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    found = wrapping(tokenizer)
    assert (found is not None) == fits and (found is None or found.default_system == default)
    text, has_template = modelfile("m.gguf", tokenizer, temperature=0.7, limit=512)
    assert has_template == fits and text.count('TEMPLATE """') == fits
    assert ('SYSTEM """Be good."""' in text) == (default == "Be good.")
    for line in ("FROM ./m.gguf", 'PARAMETER stop "<|im_end|>"', "PARAMETER temperature 0.7", "PARAMETER num_ctx 512"):
        assert line in text.splitlines()


# GGUF


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the embedded model's tokenizer."""
    for package in ("xllamacpp", "libgguf", "gguf"):
        pytest.importorskip(package)
    return tiny_with_real_tokenizer(tmp_path_factory.mktemp("known") / "known")


@pytest.fixture(scope="module")
def whole(known: Path) -> Path:
    """It as a GGUF file in float32."""
    from hafs.export.gguf import write_gguf

    write_gguf(known, known.parent / "whole.gguf", "f32")
    return known.parent / "whole.gguf"


FEW = 512


def with_few_tokens(source: Path, file: Path) -> None:
    """A copy of a GGUF file with the first few of its 49,152 tokens, which are seconds of reading each time."""
    import gguf

    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(file, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        said, array = field.contents(), field.types[0] == gguf.GGUFValueType.ARRAY
        value = said[:FEW] if array else FEW if field.name == "llama.vocab_size" else said
        writer.add_key_value(field.name, value, field.types[0], sub_type=field.types[-1] if array else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data[:FEW] if tensor.name == "token_embd.weight" else tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.model
@pytest.mark.slow
def test_a_gguf_file_is_the_model_for_transformers_in_every_kind(known: Path, whole: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from hafs.export.gguf import quantise

    files = {kind: tmp_path / f"{kind}.gguf" for kind in ("f32", "q8_0", "q4_k_m")}
    with_few_tokens(whole, files["f32"])
    for kind in ("q8_0", "q4_k_m"):
        quantise(files["f32"], files[kind], kind)
    sizes = [files[kind].stat().st_size for kind in ("f32", "q8_0", "q4_k_m")]
    assert sizes == sorted(sizes, reverse=True)
    here = logits(load_model(known, "fp32"))[..., :FEW]
    for kind, most in (("f32", 1e-4), ("q8_0", 0.05), ("q4_k_m", 0.5)):
        back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=f"{kind}.gguf", dtype=torch.float32)
        gap = (logits(back) - here).abs().max()
        assert gap < most, (kind, gap)


@pytest.mark.model
@pytest.mark.slow
def test_a_gguf_file_is_the_model_for_llama_cpp(known: Path, whole: Path) -> None:
    from hafs.backends import Request, open_backend
    from hafs.config import GenerateConfig
    from hafs.export.llamacpp import TEXTS, llama_server, same_tokens
    from hafs.generation.transformers import TransformersBackend

    net, tokenizer = load_model(known, "fp32"), load_tokenizer(known)
    local = TransformersBackend.of(net, tokenizer)
    config = GenerateConfig(temperature=0.0, max_new_tokens=5, batch_size=4)
    asked = [Request(t, t) for t in ("Say hello.", "1 2 3")]
    here = local.generate(asked, config)
    with llama_server(whole, context=512, threads=1) as url:
        texts = [(t, s) for t in TEXTS for s in ("", "Be brief.")]
        assert same_tokens(url, tokenizer, texts).different == ()
        there = open_backend(f"openai:{url}").generate(asked, config)
        for a, b in zip(here, there, strict=True):
            n = len(b.token_ids)
            assert n and b.token_ids == a.token_ids[:n]
            if n == len(a.token_ids):
                assert b.logprob == pytest.approx(a.logprob, abs=1e-2)
        tokenizer.chat_template = CHATML  # another template than the file's: the proof can fail
        assert same_tokens(url, tokenizer, texts).different


@pytest.mark.model
@pytest.mark.slow
def test_llama_cpp_is_killed_half_way(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from hafs.store import open_store
    from test_remote import dies_and_finishes, process

    def start(port: int) -> Any:
        return process("hafs.export.llamacpp", whole, "512", "4", "1")

    with open_store(tmp_path / "a.db") as store:
        dies_and_finishes(store, start, lambda line: line)


def test_what_llama_cpp_does_not_know_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for package in ("xllamacpp", "libgguf", "gguf"):
        pytest.importorskip(package)
    from hafs.export.gguf import write_gguf

    with pytest.raises(UsageError, match=r"does not know its tokenizer"):
        write_gguf(tiny_model, tmp_path / "a.gguf", "f32")
    with pytest.raises(UsageError, match="there is no quantisation 'q3'"):
        write_gguf(tiny_model, tmp_path / "a.gguf", "q3")
    assert not list(tmp_path.glob("*.gguf"))


# the verb


def test_the_verb_writes_a_card_of_the_run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(tmp_path / "w")
    monkeypatch.chdir(root)
    (root / "sft.jsonl").write_text('{"prompt": "say a", "completion": "a"}\n')
    hafs("sft", "--model", tiny_model, "--data", "sft.jsonl", "--output-dir", "models/mine", "--num-epochs", "1").ok()
    said = hafs("export", "mine", "--licence", "mit", "--json").ok().json
    assert said["path"] == str(root / "exports/mine-safetensors") and said["same"] is True
    text = (root / "exports/mine-safetensors/README.md").read_text()
    assert text.startswith("---\nlicense: mit\n") and "# mine\n" in text
    assert "1. sft, 1 steps: num_epochs 1.0; learning_rate 0.001" in text
    assert f"from model {model_hash(tiny_model)}" in text
    hafs("export", "mine", "--format", "adapter").failed(2, "the adapter was merged into it")
    hafs("export", "nothing").failed(2, "there is no model 'nothing'")
    hafs("export", "mine", "--base", "int8").failed(2, "there is no base 'int8'")
