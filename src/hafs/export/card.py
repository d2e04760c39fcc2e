"""The model card: how the model was made, from which data, what it reached, under which licence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hafs.evals import EvalResult
from hafs.evals.words import interval, percent, title
from hafs.models.lineage import TrainingRun, ancestry, training_runs
from hafs.models.naming import DEFAULT_NAMES, model_hash
from hafs.statistics import wilson
from hafs.store import Store

SMOLLM = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: its runs (newest first), the name of the model they began with, and results.

    `model` is the hash of the model itself; `results` are its own and those of the models that it was made from.
    """

    runs: Sequence[TrainingRun] = ()
    base: str = ""
    model: str = ""
    results: Sequence[EvalResult] = ()


def origin(path: Path, root: Path | None = None, store: Store | None = None) -> Origin:
    """What the run files beside a model, and the evaluations in the workspace at `root`, say of this model."""
    model = model_hash(path)
    runs = ancestry(model, training_runs([root] if root else [], [path]))
    hashes = [model, *(run.parent for run in runs)]
    start = Path(runs[-1].began_at) if runs and runs[-1].began_at else path
    base = _base_name(start if start.is_dir() else path, hashes[-1])
    if store is None:
        return Origin(runs, base, model)
    rows = [EvalResult.from_dict(r.outputs) for r in store.ended("eval")]
    return Origin(runs, base, model, [r for r in rows if r.model in hashes])


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
    body += _recipe(from_.runs) + _data(from_.runs) + _measured(from_)
    if notes:
        body += ["## Checked", "", *(f"- {line}" for line in notes), ""]
    body += ["## Licence", "", _licence(licence, from_.base), ""]
    return "\n".join(body)


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


def _recipe(runs: Sequence[TrainingRun]) -> list[str]:
    if not runs:
        return []
    lines = ["## Recipe", "", "In the order in which it was done.", ""]
    for number, run in enumerate(reversed(runs), 1):
        settings = dict(run.settings)
        lora = settings.get("lora", {})
        said = [f"{k} {settings[k]}" for k in _SHOWN if k in settings]
        if settings.get("method") != "full" and lora:
            said.append(f"LoRA rank {lora.get('rank')}, alpha {lora.get('alpha')}")
        steps = (run.result or {}).get("steps")
        done = f", {steps} steps" if steps is not None else ""
        lines.append(f"{number}. {run.kind}{done}: {'; '.join(said)} (data {run.data}, from model {run.parent})")
    return [*lines, ""]


def _data(runs: Sequence[TrainingRun]) -> list[str]:
    """What each run of this model was trained on, as its directory says."""
    if not runs:
        return []
    lines = ["## Data", "", "What this model was trained on.", "", "| training | what | source | how many |"]
    lines.append("| --- | --- | --- | --- |")
    for number, run in enumerate(reversed(runs), 1):
        seen = list(run.trained_on())
        if not seen:
            lines.append(f"| {number}. {run.kind} | - | not recorded | - |")
            continue
        lines.append(f"| {number}. {run.kind} | prompts | | {len({t.prompt_id or t.prompt for t in seen})} |")
        sources = Counter(source or "unnamed" for t in seen for source in t.sources)
        lines += [
            f"| {number}. {run.kind} | groups with edges of | {source} | {n} |" for source, n in sorted(sources.items())
        ]
    return [*lines, ""]


def _measured(from_: Origin) -> list[str]:
    """The newest result of each model on each benchmark; a model is called what it was first evaluated as."""
    if not from_.results:
        return []
    called = {from_.model: "this model"}
    newest: dict[tuple[str, str], EvalResult] = {}
    for r in from_.results:
        called.setdefault(r.model, r.name)
        newest[r.benchmark, r.model] = r
    lines = [
        "## Measured",
        "",
        "Pass rates with 95 % intervals (Wilson); one answer a prompt.",
        "",
        "| benchmark | model | passed | rate | coverage |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (benchmark, model), r in newest.items():
        rate = wilson(r.passed, r.scored)
        lines.append(
            f"| {title(benchmark)} | {called[model]} | {r.passed} of {r.scored} | {percent(rate.value)}"
            f" ({interval(rate)}) | {r.coverage:.0%} |"
        )
    return [*lines, ""]


def _licence(licence: str, base: str) -> str:
    of_base = f"The licence of the model it was made from ({base}) applies to it too." if base else ""
    if licence == "other":
        return f"No licence was named for this model. {of_base}".strip()
    return f"{licence}. {of_base}".strip()
