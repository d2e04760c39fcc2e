"""Every causal architecture of the installed transformers as a tiny random model: are our log-probabilities its own?

    python benchmarks/architectures.py [--only NAME,NAME] [--rows FILE] [--output docs/results/architectures.md]

Each is built with two layers, 64 wide, and held against its own plain forward pass in float32: by the shared layout
where that is on the list, by the padded layout, and by the model's own head. One that differs by more than 1e-5 nats a
token on average, whatever is tried, is refused in training. What cannot be built so small is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "d_model": 64,
    "n_embd": 64,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 256,
    "n_positions": 256,
    "max_seq_len": 256,
    "sliding_window": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}
ATTENTION = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16}
ATTENTION |= {"num_key_value_heads": 4, "head_dim": 8}
LATENT = "deepseek_v2 deepseek_v3 deepseek_v32 minicpm3 youtu axk1 axk2 glm4_moe_lite glm_moe_dsa kimi_linear"
SECOND = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
PECULIAR: dict[str, dict[str, Any]] = {
    **dict.fromkeys(LATENT.split(), ATTENTION),
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": SECOND,
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 16},
}
"""What a family's sizes need beside the usual ones, so that they fit each other."""
TOLERANCE = 1e-5


def tiny(model_type: str) -> Any:
    """A random model of an architecture, as small as its configuration takes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    known = AutoConfig.for_model(model_type).to_dict()
    sizes = {k: v for k, v in SIZES.items() if k in known or k in ("vocab_size", "is_decoder")}
    if isinstance(known.get("layer_types"), list):
        kinds = list(dict.fromkeys(known["layer_types"]))  # one layer of each kind, two of a single one
        sizes["layer_types"] = kinds[-2:] if len(kinds) > 1 else known["layer_types"][:2]
    config = AutoConfig.for_model(model_type, **sizes | PECULIAR.get(model_type, {}))
    if hasattr(config, "get_text_config") and config.get_text_config() is not config:
        raise ValueError("its text model is a part of it")
    net = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if sum(p.numel() for p in net.parameters()) > 30_000_000:
        raise ValueError("it does not get small enough")
    return net


def look(model_type: str) -> tuple[str, str]:
    """(verdict, how) for one architecture."""
    import torch

    from hafs.errors import HafsError
    from hafs.training.logprobs import CandidateLogps, self_test
    from hafs.training.packing import TokenGroup

    try:
        net = tiny(model_type)
        with torch.no_grad():
            net(input_ids=torch.tensor([[3, 4, 5]]))
    except Exception as e:  # whatever an architecture raises when it is made tiny
        return "not built", f"{type(e).__name__}: {str(e).splitlines()[0][:90] if str(e) else ''}"
    draw = torch.Generator().manual_seed(1)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 290, (n,), generator=draw).tolist())

    groups = [TokenGroup(ids(7), (ids(5), ids(3), ids(9))), TokenGroup(ids(12), (ids(11), ids(4)))]
    try:
        network = CandidateLogps(net)
        self_test(network, groups, TOLERANCE)
    except HafsError as e:
        return "refused", str(e)[:110]
    except Exception as e:
        return "crashed", f"{type(e).__name__}: {str(e)[:90]}"
    layout = "prompts shared" if network.shared else "a padded line for each answer"
    return "equal", layout + (", the model's own head" if network.own_head else "")


def _work(names: list[str], found: Any) -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    for name in names:
        found.put((name, *look(name)))


def sweep(names: list[str], kept: Path | None = None, seconds: float = 90.0) -> list[tuple[str, str, str]]:
    """What became of each architecture; one that hangs or kills its process is named and the rest go on.

    `kept` is a file of rows that are not computed again, and gets the new ones.
    """
    context = multiprocessing.get_context("fork")
    before = kept.read_text(encoding="utf-8").splitlines() if kept and kept.is_file() else []
    rows = [row for line in before if (row := tuple(json.loads(line)))[0] in names]
    left = [name for name in names if name not in {row[0] for row in rows}]
    while left:
        found: Any = context.Queue()
        process = context.Process(target=_work, args=(left, found), daemon=True)
        process.start()
        while left:
            try:
                rows.append(found.get(timeout=seconds))
            except Exception:  # queue.Empty: it hangs, or its process is gone
                rows.append((left[0], "crashed", f"no result within {seconds:.0f} s"))
                _keep(kept, rows[-1])
                left = left[1:]
                break
            _keep(kept, rows[-1])
            print(f"{rows[-1][0]:<28} {rows[-1][1]:<10} {rows[-1][2]}", file=sys.stderr, flush=True)
            left = left[1:]
        process.kill()
        process.join()
    return sorted(rows)


def _keep(kept: Path | None, row: tuple[str, str, str]) -> None:
    if kept:
        with kept.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")


def page(rows: list[tuple[str, str, str]], command: str) -> str:
    """The rows as Markdown."""
    import torch
    import transformers

    counts = {v: sum(r[1] == v for r in rows) for v in ("equal", "refused", "crashed", "not built")}
    said = ", ".join(f"{n} {v}" for v, n in counts.items())
    lines = [
        "# Architectures",
        "",
        f"`{command}` with transformers {transformers.__version__}, torch {torch.__version__}: {said}, of {len(rows)}.",
        "Equal: within 1e-5 nats a token of the model's own forward pass, in float32, two layers, 64 wide.",
        "",
        "| architecture | verdict | how, or why not |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {verdict} | {how.replace('|', '/')} |" for name, verdict, how in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch

    import hafs.training.logprobs  # noqa: F401  (before the processes fork)

    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    text = page(sweep(names, options.rows), "python benchmarks/architectures.py")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
