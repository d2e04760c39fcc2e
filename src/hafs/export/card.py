"""The model card: how the model was made, from which data, what it reached, under which licence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.evals import EvalResult
from hafs.evals.words import interval, percent, title
from hafs.models.naming import DEFAULT_NAMES, model_hash
from hafs.statistics import wilson
from hafs.store import Store

SMOLLM = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: its runs (newest first), the name of the model they began with, data, results."""

    runs: Sequence[Mapping[str, Any]] = ()
    base: str = ""
    prompts: Mapping[str, int] = field(default_factory=dict)
    edges: Mapping[str, int] = field(default_factory=dict)
    results: Sequence[EvalResult] = ()


def origin(path: Path, root: Path | None = None, store: Store | None = None) -> Origin:
    """What the run files beside a model and the workspace at `root` say of it."""
    homes = {model_hash(m): m for m in _models(root)} if root else {}
    runs: list[dict[str, Any]] = []
    hashes, at = [model_hash(path)], path
    while (run := _run_of(at)) is not None and len(runs) < 20:
        runs.append(run)
        start = str(run.get("identity", {}).get("model", ""))
        hashes.append(start)
        if start not in homes:
            break
        at = homes[start]
    base = _base_name(at, hashes[-1])
    if store is None:
        return Origin(runs, base)
    prompts = Counter(p.source or p.family or "unnamed" for p in store.prompts(split="train"))
    edges = Counter(e.source or "unnamed" for g in store.groups() for e in g.edges)
    found = [EvalResult.from_dict(r.outputs) for r in store.runs(kind="eval") if r.status == "finished"]
    return Origin(runs, base, prompts, edges, [r for r in found if r.model in hashes])


def card(name: str, from_: Origin, licence: str, files: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The text of README.md; `files` say what is in the export, `notes` what was checked of it."""
    licence = licence or (SMOLLM[1] if from_.base == SMOLLM[0] else "other")
    head = [
        "---",
        f"license: {licence}",
        *([f"base_model: {from_.base}"] if from_.base else []),
        "pipeline_tag: text-generation",
        "tags: [hafs, preference-optimization]",
        "---",
    ]
    body = [*head, "", f"# {name}", "", f"Made with hafs from {from_.base or 'a model of its own'}.", ""]
    body += ["## Files", "", *(f"- {line}" for line in files), ""]
    body += _recipe(from_.runs) + _data(from_) + _measured(from_.results)
    if notes:
        body += ["## Checked", "", *(f"- {line}" for line in notes), ""]
    body += ["## Licence", "", _licence(licence, from_.base), ""]
    return "\n".join(body)


def _models(root: Path) -> list[Path]:
    configs = [*root.glob("models/*/model/config.json"), *root.glob("models/*/model/adapter_config.json")]
    return sorted({c.parent for c in configs})


def _run_of(path: Path) -> dict[str, Any] | None:
    file = path.parent / "run.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _base_name(path: Path, hash: str) -> str:
    """What the first model is called: the embedded model's name where it is that one, an adapter's or config's word."""
    from hafs.errors import HafsError

    try:
        if hash == model_hash(DEFAULT_NAMES[0]):
            return SMOLLM[0]
    except HafsError:
        pass
    for file, key in (("adapter_config.json", "base_model_name_or_path"), ("config.json", "_name_or_path")):
        if (path / file).is_file() and (named := json.loads((path / file).read_text()).get(key)):
            return str(named) if not Path(str(named)).is_dir() else Path(str(named)).name
    return ""


_SHOWN = (
    "num_epochs",
    "learning_rate",
    "batch_size",
    "gradient_accumulation_steps",
    "method",
    "quantize",
    "loss",
    "beta",
    "precision",
    "seed",
)


def _recipe(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not runs:
        return []
    lines = ["## Recipe", "", "In the order in which it was done.", ""]
    for number, run in enumerate(reversed(runs), 1):
        about = run.get("identity", {})
        settings = dict(about.get("settings", {}))
        lora = settings.get("lora", {})
        said = [f"{k} {settings[k]}" for k in _SHOWN if k in settings]
        if settings.get("method") != "full" and lora:
            said.append(f"LoRA rank {lora.get('rank')}, alpha {lora.get('alpha')}")
        steps = run.get("result", {}).get("steps")
        done = f", {steps} steps" if steps is not None else ""
        lines.append(
            f"{number}. {about.get('kind', 'training')}{done}: {'; '.join(said)}"
            f" (data {about.get('data', '')}, from model {about.get('model', '')})"
        )
    return [*lines, ""]


def _data(from_: Origin) -> list[str]:
    if not from_.prompts and not from_.edges:
        return []
    lines = ["## Data", "", "What the workspace holds.", "", "| what | source | how many |", "| --- | --- | --- |"]
    lines += [f"| training prompts | {source} | {n} |" for source, n in sorted(from_.prompts.items())]
    lines += [f"| preferences (edges) | {source} | {n} |" for source, n in sorted(from_.edges.items())]
    return [*lines, ""]


def _measured(results: Sequence[EvalResult]) -> list[str]:
    if not results:
        return []
    newest = {(r.benchmark, r.name): r for r in results}
    lines = [
        "## Measured",
        "",
        "Pass rates with 95 % intervals (Wilson); one answer a prompt.",
        "",
        "| benchmark | model | passed | rate | coverage |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (benchmark, name), r in newest.items():
        rate = wilson(r.passed, r.scored)
        lines.append(
            f"| {title(benchmark)} | {name} | {r.passed} of {r.scored} | {percent(rate.value)}"
            f" ({interval(rate)}) | {r.coverage:.0%} |"
        )
    return [*lines, ""]


def _licence(licence: str, base: str) -> str:
    of_base = f"The licence of the model it was made from ({base}) applies to it too." if base else ""
    if licence == "other":
        return f"No licence was named for this model. {of_base}".strip()
    return f"{licence}. {of_base}".strip()
