"""Public families by what their conversations are: does every verb take them, or say why not?

    python benchmarks/families.py [--only NAME,NAME] [--output docs/results/families.md]

Each family is a tiny random model of its architecture with a chat template of its shape (tests/families.py). One row of
each kind (plain, system, many turns, tools, thinking) goes through `sft`, `dpo`, `generate` and `export`. A cell is
"yes" when the row was used: trained on in a run whose saved model was read again and computes the same, answered, or
rendered to the same tokens by the exported tokenizer. Else it is the reason that the verb gives, by the row.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ARCHITECTURES = {
    "llama3": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "mistral": "mistral",
    "ministral": "mistral",
    "phi3": "phi3",
    "phi4": "phi3",
    "smollm2": "llama",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
    "gpt_oss": "gpt_oss",
    "deepseek_r1": "qwen2",
    "command_r": "cohere2",
}
KINDS = ("plain", "system", "many turns", "tools", "thinking")
VERBS = ("sft", "dpo", "generate", "export")
SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "validation_share": 0.0,
    "num_epochs": 1,
    "learning_rate": 1e-3,
    "lora": {"rank": 2, "alpha": 4},
}
TURNS = ({"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"})
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
USED = (TURNS[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "4"})
TOOLS = ({"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}},)


def group(kind: str) -> Any:
    """The row of a kind: a prompt with a better and a worse answer."""
    from hafs.types import Edge, GroupCandidate, PreferenceGroup

    more: dict[str, Any] = {
        "system": {"system": "Be brief."},
        "many turns": {"context": TURNS},
        "tools": {"context": USED, "tools": TOOLS},
    }.get(kind, {})
    thought = "<think>\nTwo and two.\n</think>\n\n" if kind == "thinking" else ""
    answers = (GroupCandidate(f"{thought}It is 4."), GroupCandidate(f"{thought}It is 5."))
    return PreferenceGroup("" if kind == "tools" else f"A {kind} question?", answers, (Edge(0, 1),), **more)


def trained(verb: str, model: Path, output: Path) -> dict[str, str]:
    """What became of each kind in a training run."""
    from hafs.config import DPOConfig, SFTConfig
    from hafs.errors import HafsError
    from hafs.models.loading import load_tokenizer
    from hafs.training import train_dpo, train_sft
    from hafs.training.left_out import LeftOut
    from hafs.training.run import split

    config = (SFTConfig if verb == "sft" else DPOConfig)(**SETTINGS)
    tokenizer, found, usable = load_tokenizer(model), {}, []
    for kind in KINDS:
        left = LeftOut(config.max_length)
        split([group(kind), replace(group("plain"), prompt="Another?")], tokenizer, config, left)
        found[kind] = _reason(left.rows[0]["reason"]) if left.rows else "yes"
        if not left.rows:
            usable.append(group(kind))
    try:
        (train_sft if verb == "sft" else train_dpo)(str(model), usable, config, output)
    except HafsError as e:
        found |= {kind: _reason(str(e)) for kind, said in found.items() if said == "yes"}
    return found


def generated(model: Path) -> dict[str, str]:
    """What became of each kind as a prompt."""
    from hafs.backends import Request, Unanswered
    from hafs.config import GenerateConfig
    from hafs.generation.transformers import TransformersBackend
    from hafs.types import Prompt

    backend, config = TransformersBackend(str(model), precision="fp32"), GenerateConfig(max_new_tokens=4, batch_size=8)
    found = {}
    for kind in KINDS:
        g = group(kind)
        request = Request.of(Prompt(g.prompt, g.system, context=g.context, tools=g.tools))
        try:
            made = [a for batch in backend.plan([request], config) for a in backend.generate(batch, config)]
            found[kind] = "yes" if made else "no answer"
        except Unanswered as e:
            found[kind] = _reason(next(iter(e.failed)))
    return found


def exported(model: Path, output: Path) -> dict[str, str]:
    """Whether the exported tokenizer gives each kind the tokens that the trained one does."""
    from hafs.export.write import export_model
    from hafs.models.chat import TemplateRefuses
    from hafs.models.loading import load_model, load_tokenizer
    from hafs.training.packing import tokenize

    export_model(model, output, "safetensors")
    load_model(output, "fp32")
    mine, theirs = load_tokenizer(model), load_tokenizer(output)
    found = {}
    for kind in KINDS:
        try:
            same = tokenize(mine, group(kind)) == tokenize(theirs, group(kind))
            found[kind] = "yes" if same else "other tokens"
        except TemplateRefuses as e:
            found[kind] = _reason(str(e))
    return found


def _reason(said: str) -> str:
    return "refused: " + said.splitlines()[0].rpartition("does not take it: ")[2]


def look(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """verb -> kind -> verdict, for one family."""
    from conftest import tiny_network
    from families import tokenizer_of

    tokenizer, model = tokenizer_of(name), folder / name
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    tiny_network(ARCHITECTURES[name], pad_token_id=tokenizer.eos_token_id, **sizes).save_pretrained(model)
    tokenizer.save_pretrained(model)
    found = {"sft": trained("sft", model, folder / f"{name}-sft")}
    sft = folder / f"{name}-sft" / "model"
    found["dpo"] = trained("dpo", sft, folder / f"{name}-dpo")
    found["generate"] = generated(sft)
    found["export"] = exported(sft, folder / f"{name}-export")
    return found


def page(found: dict[str, dict[str, dict[str, str]]]) -> str:
    """The verdicts as Markdown: one table, and the reasons below it by number."""
    import transformers

    reasons: dict[str, int] = {}

    def cell(said: dict[str, str]) -> str:
        if len(set(said.values())) == 1:
            return mark(next(iter(said.values())))
        return ", ".join(f"{verb} {mark(verdict)}" for verb, verdict in said.items())

    def mark(verdict: str) -> str:
        return "yes" if verdict == "yes" else f"refused ({reasons.setdefault(verdict, len(reasons) + 1)})"

    rows = [
        f"| {name} | {ARCHITECTURES[name]} | "
        + " | ".join(cell({v: found[name][v][kind] for v in VERBS}) for kind in KINDS)
        + " |"
        for name in found
    ]
    lines = [
        "# Families",
        "",
        f"`python benchmarks/families.py --output docs/results/families.md`, transformers {transformers.__version__}.",
        "Tiny random models of each architecture, with chat templates of the family's shape, written from its",
        "documentation (tests/families.py). A cell stands for `sft`, `dpo`, `generate` and `export` alike; where they",
        "differ, each is named.",
        "",
        f"| family | architecture | {' | '.join(KINDS)} |",
        f"| --- | --- | {' | '.join('---' for _ in KINDS)} |",
        *rows,
        "",
        *(f"{n}. {why.removeprefix('refused: ')}" for why, n in reasons.items()),
        "",
        "A system text that a template has no place for stands before the first text of the user, and is said (gemma2,",
        "mistral). A thought in a family whose template knows none is trained as text.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else list(ARCHITECTURES)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in names:
            found[name] = look(name, Path(folder))
            print(name, found[name], file=sys.stderr, flush=True)
    text = page(found)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
