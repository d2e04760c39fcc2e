"""The planner says before a run what it will take: held against peft, autograd, the loop and a process's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch

from conftest import tiny_config, tiny_network
from hafs.config import DPOConfig, SFTConfig
from hafs.errors import UsageError
from hafs.training import cards, train_dpo
from hafs.training.estimate import RunEstimate, Work
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.packing import TokenGroup
from hafs.training.plan import Plan, parse_size, plan, to_rich
from hafs.training.rows import SHARE, choose_rows
from hafs.training.run import token_groups, with_adapter
from hafs.training.shapes import Shape
from hafs.types import Edge, GroupCandidate, PreferenceGroup


def config_only(path: Path, model_type: str = "llama", **changes: Any) -> Path:
    """A model's directory that holds config.json and no weights."""
    tiny_config(model_type, **changes).save_pretrained(str(path))
    return path


def settings(**changes: Any) -> DPOConfig:
    """fp32 with a small adapter, unless changed."""
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, **changes.pop("lora", {})}
    return DPOConfig(**{"precision": "fp32", "lora": lora, "row_tokens": 256, **changes})


def equal_groups(count: int, prompt: int, candidates: int, length: int) -> list[TokenGroup]:
    """Groups of equal sizes that begin each with a token of its own, and so do their candidates."""
    return [TokenGroup((k,) * prompt, tuple((i,) * length for i in range(candidates))) for k in range(count)]


# Parameters: what peft and transformers really make.


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize(
    ("family", "targets"),
    [(f, "all-linear") for f in ("llama", "qwen2", "gpt2", "phi3", "qwen3", "gemma")]
    + [
        ("llama", "q_proj,v_proj"),
        ("qwen2", "q_proj,v_proj,down_proj"),
        ("gpt2", "c_attn"),
        ("gpt2", "c_proj,c_fc"),
        ("llama", "q_proj,lm_head"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_trainable_parameters_are_those_that_peft_makes(tmp_path: Path, family: str, targets: str, method: str) -> None:
    config = settings(method=method, lora={"rank": 3, "targets": targets})
    made = plan(config_only(tmp_path, family), config, None, uses_reference=False)
    net = with_adapter(tiny_network(family), config)
    assert made.trainable == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert made.parameters == sum(p.numel() for p in net.get_base_model().parameters()) - made.trainable


@pytest.mark.parametrize("tied", [True, False])
def test_all_parameters_are_trained_in_full(tmp_path: Path, tied: bool) -> None:
    path = config_only(tmp_path, tie_word_embeddings=tied)
    made = plan(path, settings(method="full"), None, uses_reference=False)
    assert made.trainable == made.parameters == tiny_network(tie_word_embeddings=tied).num_parameters()
    assert made.memory["base weights"] == 0
    assert made.memory["optimizer"] == 8 * made.parameters


def test_an_adapter_is_planned_on_its_base(tmp_path: Path) -> None:
    base = config_only(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    adapter = {"base_model_name_or_path": str(base), "peft_type": "LORA"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    on_base = plan(base, settings(), None, uses_reference=False)
    on_adapter = plan(tmp_path / "adapter", settings(), None, uses_reference=False)
    assert (on_adapter.parameters, on_adapter.memory) == (on_base.parameters, on_base.memory)


def test_experts_count_and_are_not_quantised(tmp_path: Path) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shape = Shape.read(config_only(tmp_path, "qwen3_moe", **experts))
    net = tiny_network("qwen3_moe", **experts)
    assert shape.parameters == net.num_parameters()
    assert shape.quantisable == sum(
        m.weight.numel() for n, m in net.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    )
    whole = sum(p.numel() for p in net.model.layers[0].parameters() if p.dim() == 3)
    assert shape.layers[0].active < whole + shape.quantisable / 2  # two of four experts


# Activations: what autograd keeps.

KEPT = [
    ("llama", "fp32", "lora", 0.0),
    ("llama", "fp32", "lora", 0.1),
    ("llama", "bf16", "lora", 0.0),
    ("llama", "bf16", "lora", 0.1),
    ("llama", "fp32", "full", 0.0),
    ("llama", "bf16", "full", 0.0),
    ("llama", "fp32", "dora", 0.1),
    ("qwen2", "fp32", "lora", 0.0),
    ("qwen2", "bf16", "lora", 0.1),
    ("gpt2", "fp32", "lora", 0.0),
    ("gpt2", "fp32", "lora", 0.1),
    ("phi3", "fp32", "lora", 0.0),
    ("gemma", "fp32", "lora", 0.0),
    ("qwen3", "bf16", "lora", 0.0),
    ("qwen3", "fp32", "full", 0.0),
]


@pytest.mark.parametrize(("family", "precision", "method", "dropout"), KEPT)
def test_a_layer_keeps_what_autograd_keeps(family: str, precision: str, method: str, dropout: float) -> None:
    config = settings(precision=precision, method=method, lora={"dropout": dropout})
    tokens = 97
    one, two = (kept_by_autograd(family, config, tokens, depth) for depth in (1, 2))
    estimate = RunEstimate(Shape.of(tiny_network(family)), config, None, "cpu")
    said = sum(estimate.kept(estimate.shape.layers[0], Work(tokens, 1, tokens**2)))
    assert said == pytest.approx(two - one, rel=0.07)


class Kept:
    """A tensor that autograd holds."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_by_autograd(family: str, config: DPOConfig, tokens: int, depth: int) -> int:
    """Bytes of the activations that the graph of a forward pass holds (storages once, weights left out)."""
    dtype = torch.bfloat16 if config.precision == "bf16" and config.method != "full" else torch.float32
    net = tiny_network(family, **{"n_layer" if family == "gpt2" else "num_hidden_layers": depth}).to(dtype)
    model = CandidateLogps(with_adapter(net, config)).train()
    rest = tokens - 29  # the prompt's last token is shared, each answer's last one a label alone
    row = model.row([TokenGroup((1,) * 31, ((2,) * (rest // 2), (3,) * (rest - rest // 2)))])
    held: WeakSet[Kept] = WeakSet()

    def pack(tensor: torch.Tensor) -> Kept:
        held.add(kept := Kept(tensor))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda k: k.tensor), autocast(model, config.precision):
        result = model(row).sum()
    sizes = {
        k.tensor.untyped_storage().data_ptr(): k.tensor.untyped_storage().nbytes()
        for k in held
        if tokens in k.tensor.shape
    }
    assert result.requires_grad
    return sum(sizes.values())


# Rows and steps: those of the loop.


def test_the_rows_are_the_loops(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    data = [
        PreferenceGroup(
            f"word {'x' * i}", (GroupCandidate("A" * (i + 3)), GroupCandidate("b" * (2 * i + 1))), (Edge(0, 1),)
        )
        for i in range(13)
    ]
    config = settings(batch_size=2, gradient_accumulation_steps=2, row_tokens=120, two_pass=True, validation_share=0.2)
    groups, uses_reference = token_groups(str(tiny_model), data, config)
    made = plan(tiny_model, config, groups, uses_reference=uses_reference)
    result = train_dpo(str(tiny_model), data, config, tmp_path / "run")
    assert (made.tokens_per_epoch, made.steps) == (result.tokens, result.steps)
    assert made.prompts == len(groups)
    assert made.tokens_per_step == pytest.approx(result.tokens / result.steps)
    assert made.seconds_per_step and made.reference_seconds and made.total_seconds
    assert made.total_seconds == pytest.approx(made.steps * made.seconds_per_step + made.reference_seconds)


def test_two_pass_splits_a_group_to_the_prompt_and_one_candidate(tmp_path: Path) -> None:
    path, groups = config_only(tmp_path), equal_groups(4, prompt=20, candidates=4, length=30)
    whole = plan(path, settings(row_tokens=40), groups, uses_reference=False)
    split = plan(path, settings(row_tokens=40, two_pass=True), groups, uses_reference=False)
    assert (whole.longest_row, split.longest_row) == (20 + 4 * 29, 20 + 29)
    assert split.tokens_per_epoch == 4 * 4 * 49
    assert split.memory["activations"] < whole.memory["activations"]
    assert split.reference_seconds == 0


def test_the_dry_run_says_what_pairs_would_take_and_what_the_tree_does(tmp_path: Path) -> None:
    """Two prompts that begin with ten tokens in common, three candidates each, two edges."""
    members = [TokenGroup((*range(10), k), ((1, 2, 3), (1, 2, 4), (5, 6)), (Edge(0, 1), Edge(0, 2))) for k in (20, 21)]
    made = plan(config_only(tmp_path), settings(batch_size=1), members, uses_reference=False)
    assert made.pair_tokens == 2 * ((13 + 13) + (13 + 12))
    assert made.tokens_per_epoch == made.tree_tokens == 10 + 2 * (1 + 2 + 1)
    assert "pairs 102 tokens, tree 18 (5.7 times fewer; one tree over all groups: 18)" in text(made)


def test_a_model_without_the_shared_layout_repeats_the_prompt(tmp_path: Path) -> None:
    groups = equal_groups(2, prompt=20, candidates=3, length=10)
    made = plan(config_only(tmp_path, "gpt_neox"), settings(row_tokens=50), groups, uses_reference=False)
    assert made.longest_row == 3 * 29


def test_epochs_multiply_steps(tmp_path: Path) -> None:
    path, groups = config_only(tmp_path), equal_groups(10, 5, 2, 5)
    config = settings(batch_size=2, gradient_accumulation_steps=2, num_epochs=1.5)
    assert plan(path, config, groups, uses_reference=False).steps == 5  # 3 an epoch


# The estimate moves the right way.


def test_more_tokens_in_a_row_never_take_less_memory(tmp_path: Path) -> None:
    path = config_only(tmp_path)
    groups = [TokenGroup((1,) * (5 + i % 7), tuple((k,) * (9 + 3 * i % 11) for k in range(3))) for i in range(40)]
    peaks = [plan(path, settings(row_tokens=n), groups, uses_reference=False).peak for n in (8, 64, 128, 256, 512)]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]


def test_base_precision_and_checkpointing(tmp_path: Path) -> None:
    path, groups = config_only(tmp_path), equal_groups(4, 100, 2, 100)

    def memory(**changes: Any) -> dict[str, int]:
        return plan(path, settings(**changes), groups, uses_reference=False).memory

    four, half, full = memory(precision="bf16", quantize="nf4"), memory(precision="bf16"), memory()
    assert four["base weights"] < half["base weights"] < full["base weights"]
    assert full["base weights"] == 2 * half["base weights"]
    again = memory(activation_checkpointing=True)
    assert again["activations"] < full["activations"]
    assert {k: v for k, v in again.items() if k != "activations"} == {
        k: v for k, v in full.items() if k != "activations"
    }
    assert memory(lora={"rank": 8})["gradients"] == 2 * full["gradients"]
    assert memory(lora={"dropout": 0.1})["activations"] > full["activations"]


def test_checkpointing_some_layers_lies_between(tmp_path: Path) -> None:
    path, groups = config_only(tmp_path, num_hidden_layers=6), equal_groups(4, 100, 2, 100)

    def both(**changes: Any) -> tuple[int, float]:
        run = RunEstimate(Shape.read(path), settings(**changes), groups, "cpu")
        return run.memory()["activations"], run.step_flops()

    none, some, every = (
        both(),
        both(activation_checkpointing=True, checkpointed_layers=2),
        both(activation_checkpointing=True),
    )
    assert none[0] > some[0] > every[0] and none[1] < some[1] < every[1]
    assert both(checkpointed_layers=2) == none
    assert both(activation_checkpointing=True, checkpointed_layers=99) == every


# Rows for the memory there is.


def test_rows_are_the_largest_that_fit(tmp_path: Path) -> None:
    shape, config = Shape.read(config_only(tmp_path)), settings(row_tokens=0)
    groups = equal_groups(64, 100, 2, 100)
    wide = choose_rows(shape, config, groups, "cuda", 10**12)
    assert (wide.tokens, wide.tight) == (16384, False)
    framework = RunEstimate(shape, config, groups[:1], "cuda").memory()["framework"]
    peaks = [RunEstimate(shape, settings(row_tokens=n), groups, "cuda").peak / SHARE for n in (16384, 2048)]
    between = choose_rows(shape, config, groups, "cuda", int(sum(peaks) / 2))
    assert 2048 <= between.tokens < 16384 and not between.tight
    assert choose_rows(shape, config, groups, "cpu", 10**12).tokens == 512
    none = choose_rows(shape, config, groups, "cuda", framework // 2)
    assert none.tight and none.tokens == 64 and "of 0." in none.why


def test_a_dry_run_says_what_rows_it_takes_and_what_each_stage_costs(tmp_path: Path) -> None:
    path, groups = config_only(tmp_path), equal_groups(8, 60, 3, 60)
    made = plan(path, settings(row_tokens=0), groups, uses_reference=True, device="cpu")
    assert made.rows_chosen and made.row_tokens == 512
    assert "rows of 512 tokens, chosen for the memory there is" in text(made)
    stages = [c["stage"] for c in made.costs]
    assert stages == ["reference, whole run", "layers, forward and backward", "output layer", "optimiser"]
    assert sum(c["flops"] for c in made.costs[1:3]) == pytest.approx(
        RunEstimate(Shape.read(path), settings(row_tokens=512), groups, "cpu").step_flops()
    )
    assert all(c["seconds"] > 0 and c["limit"] in ("arithmetic", "memory") for c in made.costs)
    assert made.costs[-1]["limit"] == "memory"  # AdamW reads and writes more than it computes
    assert "of the limit" in text(made) and json.loads(json.dumps(made.to_dict()))["costs"]
    fixed = plan(path, settings(row_tokens=64), groups, uses_reference=False, device="cpu")
    assert not fixed.rows_chosen and "rows of 64 tokens, as the settings say" in text(fixed)
    assert len(fixed.costs) == 3


def test_what_is_done_twice_takes_longer(tmp_path: Path) -> None:
    shape, groups = Shape.read(config_only(tmp_path)), equal_groups(4, 60, 3, 60)

    def flops(**changes: Any) -> float:
        return RunEstimate(shape, settings(row_tokens=64, **changes), groups, "cpu").step_flops()

    assert flops() < flops(activation_checkpointing=True)
    assert flops() < flops(two_pass=True)
    assert flops() < flops(method="dora")
    assert flops() < flops(method="full")


def test_operations_are_six_a_weight_and_token_in_full(tmp_path: Path) -> None:
    shape = Shape.read(config_only(tmp_path))
    run = RunEstimate(shape, settings(method="full"), equal_groups(1, 2, 1, 9), "cpu")
    weights = sum(layer.active for layer in shape.layers)
    assert weights == shape.quantisable
    attention = 3.5 * 4 * 100 * 64 * 2  # both products, forward and 2.5 times that backward; 10 tokens, 2 layers
    head = 4 * 2 * 9 * 64 * 260
    assert run.step_flops() == pytest.approx(6 * 10 * weights + attention + head)


# A large model, and advice.


@pytest.fixture(scope="module")
def qwen_14b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of Qwen2.5-14B."""
    return config_only(
        tmp_path_factory.mktemp("qwen"),
        "qwen2",
        hidden_size=5120,
        num_hidden_layers=48,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=13824,
        vocab_size=152064,
        tie_word_embeddings=False,
    )


def on_16_gb(path: Path, **changes: Any) -> Plan:
    """Groups of four candidates of 2,048 tokens with their prompt, on a card of 16 GB."""
    config = DPOConfig(
        **{
            "precision": "bf16",
            "two_pass": True,
            "row_tokens": 2048,
            "activation_checkpointing": True,
            "quantize": "nf4",
            **changes,
        }
    )
    groups = equal_groups(32, prompt=512, candidates=4, length=1536)
    return plan(path, config, groups, uses_reference=True, limit=parse_size("16GB"))


def test_a_14b_model_fits_a_16_gb_card_in_4_bits(qwen_14b: Path) -> None:
    made = on_16_gb(qwen_14b)
    assert made.parameters == pytest.approx(14.77e9, abs=0.1e9)
    assert made.fits and not made.advice
    assert made.peak < 16e9
    assert made.longest_row == 511 + 1536
    assert "It fits." in text(made)


def test_the_page_of_common_cards_is_what_the_planner_says(qwen_14b: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/cards.md").read_text()
    assert "\n".join(cards.table()).rstrip() in page, "run `python docs/cards.py`"
    (fit,) = (f for f in cards.fits() if (f.model, f.method, f.tokens) == ("14B", "QLoRA", 2048))
    assert fit.again == pytest.approx(on_16_gb(qwen_14b).peak, rel=0.01)
    assert fit.word(16 * 10**9).startswith("twice") and "--activation-checkpointing" in fit.command(16 * 10**9)
    assert fit.command(12 * 10**9) == "" and fit.word(12 * 10**9).startswith("no")
    assert all(f.again <= f.kept for f in cards.fits())


def test_without_4_bits_it_does_not_and_the_advice_says_so(qwen_14b: Path) -> None:
    made = on_16_gb(qwen_14b, quantize="none")
    assert not made.fits
    assert made.advice[0].startswith('quantize = "nf4" saves 19')
    assert made.advice[-1].endswith(': quantize = "nf4"')
    assert made.advice[-1].startswith("this fits, with 15")
    assert not any("activation_checkpointing" in line or "two_pass" in line for line in made.advice)  # they are on


def test_advice_combines_settings_until_it_fits(qwen_14b: Path) -> None:
    made = on_16_gb(qwen_14b, quantize="none", two_pass=False, activation_checkpointing=False, method="full")
    assert not made.fits
    last = made.advice[-1]
    for setting in (
        "activation_checkpointing = true",
        "two_pass = true with row_tokens = 2047",
        'method = "lora"',
        'quantize = "nf4"',
    ):
        assert setting in last
    done = on_16_gb(qwen_14b, row_tokens=2047)
    assert done.fits
    assert f"{done.peak / 1e9:.1f} GB" in last


def test_advice_when_nothing_fits(tmp_path: Path) -> None:
    groups = [*equal_groups(30, 10, 2, 10), *equal_groups(1, 10, 2, 90)]
    made = plan(config_only(tmp_path), settings(), groups, uses_reference=False, limit=1000)
    assert not made.fits
    assert "a smaller model or more memory is needed" in made.advice[-1]
    assert made.to_dict()["fits"] is False
    assert json.loads(json.dumps(made.to_dict()))["advice"] == list(made.advice)
    assert "It does not fit:" in text(made)


def test_advice_counts_the_candidates_that_a_shorter_length_leaves_out(tmp_path: Path) -> None:
    wide = config_only(tmp_path, hidden_size=512, intermediate_size=2048, num_attention_heads=8, head_dim=64)
    groups = [*equal_groups(39, 50, 2, 50), *equal_groups(1, 50, 2, 4000)]
    free = plan(wide, settings(), groups, uses_reference=False, limit=10**12, device="cpu").peak
    made = plan(wide, settings(), groups, uses_reference=False, limit=free // 3, device="cpu")
    assert any(line.startswith("max_length = 100 (leaves out 2 of 80 candidates) saves") for line in made.advice)


def test_without_data_the_longest_pair_is_planned(tmp_path: Path) -> None:
    made = plan(config_only(tmp_path), settings(max_length=200), None, uses_reference=True)
    assert (made.prompts, made.steps, made.longest_row) == (0, 0, 298)
    assert made.total_seconds is None
    assert "no data given" in text(made)


def test_this_machines_memory_is_what_is_free(tmp_path: Path) -> None:
    made = plan(config_only(tmp_path), settings(), None, uses_reference=False, device="cpu")
    assert 1 << 20 < made.available < 1 << 50
    assert made.device == "cpu" and made.fits


def text(made: Plan) -> str:
    """The plan as a terminal shows it."""
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(to_rich(made))
    return shown.get()


# Wrong input.


@pytest.mark.parametrize(
    ("size", "value"),
    [("16GB", 16 * 10**9), ("16 GiB", 16 << 30), ("1.5gb", 1_500_000_000), ("512MB", 512 * 10**6), ("64MiB", 64 << 20)],
)
def test_sizes(size: str, value: int) -> None:
    assert parse_size(size) == value


@pytest.mark.parametrize("size", ["", "16", "GB", "16 gigs", "-1GB", "0GB", "1e3GB", "16GB 2"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(UsageError, match="no size of memory"):
        parse_size(size)


def test_wrong_input_is_named(tmp_path: Path) -> None:
    path = config_only(tmp_path / "llama")
    with pytest.raises(UsageError, match="no layer of the model is called query"):
        plan(path, settings(lora={"targets": "query"}), None, uses_reference=False)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="does not name the base model"):
        plan(tmp_path, settings(), None, uses_reference=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UsageError, match="no causal language model"):
        plan(tmp_path / "broken", settings(), None, uses_reference=False)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            plan(path, SFTConfig(), None, uses_reference=False, device="cuda")


# Memory: what a process takes.

STEPS = """
import json, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from hafs.config import DPOConfig
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.packing import TokenGroup
from hafs.training.run import with_adapter

def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(1)
path, config, tokens = sys.argv[1], DPOConfig(**json.loads(sys.argv[2])), int(sys.argv[3])
before = status("VmRSS")
net = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), attn_implementation="sdpa")
model = CandidateLogps(with_adapter(net, config)).train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
rest = tokens - 99
row = model.row([TokenGroup((1,) * 100, ((2,) * (rest // 2), (3,) * (rest - rest // 2)))])
for step in range(3):
    with autocast(model, config.precision):
        logps = model(row)
    logps.sum().backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")
@pytest.mark.parametrize(
    ("tokens", "changes"), [(512, {}), (512, {"activation_checkpointing": True}), (256, {"method": "full"})]
)
def test_the_estimate_is_near_what_a_process_takes(tmp_path: Path, tokens: int, changes: dict[str, Any]) -> None:
    path = config_only(
        tmp_path,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        head_dim=64,
        num_key_value_heads=4,
        vocab_size=32000,
        max_position_embeddings=2048,
    )
    config = settings(row_tokens=tokens, **{"lora": {"rank": 16}, **changes})
    rest = tokens - 99
    groups = [TokenGroup((1,) * 100, ((2,) * (rest // 2), (3,) * (rest - rest // 2)))]
    memory = plan(path, config, groups, uses_reference=False, device="cpu").memory
    said = sum(memory.values()) - memory["framework"]
    arguments = [str(path), config.model_dump_json(), str(tokens)]
    done = subprocess.run([sys.executable, "-c", STEPS, *arguments], capture_output=True, text=True, check=True)
    assert 1 / 1.6 < said / int(done.stdout) < 1.6, (memory, int(done.stdout))
