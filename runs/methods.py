"""What do preferences add over more SFT? The study of docs/results/methods.md, cell after cell, from one SFT model.

    .venv/bin/python runs/methods.py [DIRECTORY]          runs what is missing, smallest cells first
    .venv/bin/python runs/methods.py [DIRECTORY] --table  prints what there is

It can be stopped at any moment, even with kill -9, and started again. What a cell gave is a line of cells.jsonl,
written when the cell has ended. The cells were written down in docs/log.md ("What preferences add") before any of them
had run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hafs import tasks
from hafs.cli.demo import SETTINGS, SFT_PROMPTS
from hafs.config import override, parse_config
from hafs.evals.likelihood import reference_nll
from hafs.scorers.run import scorer_for
from hafs.statistics import two_level_bootstrap
from hafs.store import init_workspace
from hafs.training import train_dpo, train_sft
from hafs.training.data import winner_examples
from hafs.types import PreferenceGroup, Prompt
from hafs.workflows.stages import Stages

PROMPTS = 128
SEEDS = 3
SAMPLING = {"temperature": 0.7, "candidates": 8}
PAIRING = {"scheme": "all", "references": "never", "max_candidates": 8, "efficiency": False}
LIKELIHOOD_PROMPTS = 64


@dataclass(frozen=True)
class Cell:
    """One method: SFT on the right winners, or DPO; settings where they differ from the demo's; what it starts from."""

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    """A cell whose model of the same seed it starts from; "" is the SFT model."""


CELLS = (
    Cell("sft-right", "sft", {"answers": 1, "learning_rate": 5e-4}),
    Cell("dpo-nll1-low", "dpo", {"beta": 0.1, "nll_weight": 1.0, "learning_rate": 1e-4}),
    Cell("dpo-nll4", "dpo", {"beta": 0.1, "nll_weight": 4.0, "learning_rate": 5e-4}),
    Cell("dpo-nll1-beta.5", "dpo", {"beta": 0.5, "nll_weight": 1.0, "learning_rate": 2e-4}),
    Cell("apo-zero", "dpo", {"loss": "apo_zero", "beta": 0.1, "nll_weight": 1.0, "learning_rate": 2e-4}),
    Cell("sft-then-dpo", "dpo", {"beta": 0.1, "nll_weight": 1.0, "learning_rate": 1e-4}, start="sft-right"),
    Cell("sft-right-3", "sft", {"answers": 1, "learning_rate": 5e-4, "num_epochs": 3}),
    Cell("sft-all-right", "sft", {"answers": 0, "learning_rate": 5e-4}),
    Cell("sigmoid-norm", "dpo", {"loss": "sigmoid_norm", "beta": 2.0, "nll_weight": 1.0, "learning_rate": 2e-4}),
    Cell("dpo-nll.2-low", "dpo", {"beta": 0.1, "nll_weight": 0.2, "learning_rate": 1e-4}),
)
ORDER = [(cell, 0) for cell in CELLS] + [(cell, seed) for seed in range(1, SEEDS) for cell in CELLS]


def say(*what: Any) -> None:
    print(time.strftime("%H:%M:%S"), *what, flush=True)


class Study:
    """The open workspace, and the data that every cell shares."""

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, parse_config(SETTINGS, "the demo")
        sampling = override(self.config.generate, **SAMPLING)
        pairing = override(self.config.preferences, **PAIRING)
        self.config = self.config.model_copy(update={"generate": sampling, "preferences": pairing})
        self.rows = root / "cells.jsonl"

    def done(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What has ended, by cell and seed."""
        lines = self.rows.read_text(encoding="utf-8").splitlines() if self.rows.is_file() else []
        return {(row["cell"], row["seed"]): row for row in map(json.loads, filter(None, lines))}

    def run(self) -> None:
        """Everything that is missing, in its order."""
        both = tasks.generate("asm", "train", SFT_PROMPTS + PROMPTS, tags=("easy",))
        taught, asked, held = both[:SFT_PROMPTS], both[SFT_PROMPTS:], tasks.benchmark("easy")
        with init_workspace(self.root).open_store() as store, closing(scorer_for(self.config)) as scorer:
            s = Stages({"study": "methods"}, self.root, store, scorer, say, lambda *_: None)
            sft = self.root / "models" / "sft" / "model"
            if not (sft.parent / "run.json").is_file() or not sft.is_dir():
                s.teach("default", taught, self.config, sft.parent)
            s.answered(sft, [(asked, self.config.generate)])
            groups, report = s.groups(sft, asked, self.config.preferences)
            say(report)
            self.finish("sft", 0, {}, s, sft, held, groups)
            for cell, seed in ORDER:
                if (cell.name, seed) not in self.done():
                    say(cell.name, "seed", seed)
                    start = self.run_directory(cell.start, seed) / "model" if cell.start else sft
                    self.train(cell, seed, start, groups)
                    model = self.run_directory(cell.name, seed) / "model"
                    self.finish(cell.name, seed, cell.settings, s, model, held, groups)

    def run_directory(self, cell: str, seed: int) -> Path:
        return self.root / "cells" / f"{cell}-{seed}"

    def train(self, cell: Cell, seed: int, start: Path, groups: Sequence[PreferenceGroup]) -> None:
        """Train a cell; a run that was cut off goes on."""
        output = self.run_directory(cell.name, seed)
        section = self.config.dpo if cell.kind == "dpo" else self.config.sft
        batch = {"batch_size": 4, "save_steps": 1000, "seed": seed, **cell.settings}
        if cell.kind == "dpo":
            train_dpo(str(start), groups, override(section, eval_steps=1000, **batch), output)
        else:
            settings = override(section, **batch)
            train_sft(str(start), winner_examples(groups, settings.answers), settings, output)

    def finish(
        self,
        cell: str,
        seed: int,
        settings: dict[str, Any],
        s: Stages,
        model: Path,
        held: Sequence[Prompt],
        groups: Sequence[PreferenceGroup],
    ) -> None:
        """Ask the held-out prompts and write the cell's line."""
        if (cell, seed) in self.done():
            return
        (result,) = s.judged(f"{cell}-{seed}", model, {"easy": held}, self.config)
        run = model.parent
        trained = json.loads((run / "run.json").read_text(encoding="utf-8"))["result"]
        steps = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        last = next((r for r in reversed(steps) if "loss" in r), {})
        row = {
            "cell": cell,
            "seed": seed,
            "settings": settings,
            "passed": result.passed,
            "scored": result.scored,
            "passes": {r.prompt_id: r.passed for r in result.results},
            "minutes": trained["seconds"] / 60,
            "steps": trained["steps"],
            "groups": len(groups),
            "edges": sum(len(g.edges) for g in groups),
            "kl": last.get("kl"),
            "chosen": last.get("rewards/chosen"),
            "rejected": last.get("rewards/rejected"),
            "held_nll": float(np.mean(list(reference_nll(str(model), _first_answers(held)).values()))),
            "ended": time.strftime("%Y-%m-%d %H:%M"),
        }
        with self.rows.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")
        say(cell, seed, f"{result.passed} of {result.scored}, {trained['seconds'] / 60:.1f} minutes of training")


def _first_answers(held: Sequence[Prompt]) -> list[Prompt]:
    return [replace(p, references=p.references[:1]) for p in held[:LIKELIHOOD_PROMPTS]]


def table(study: Study) -> str:
    """Every method over the seeds that there are, against the SFT model and against SFT on the right winners."""
    rows = study.done()
    if ("sft", 0) not in rows:
        return "nothing has ended yet"
    start = rows["sft", 0]
    ids = [i for i, passed in start["passes"].items() if passed is not None]

    def matrix(cell: str) -> np.ndarray[Any, Any]:
        found = [row["passes"] for (name, _), row in sorted(rows.items()) if name == cell]
        return np.array([[float(bool(passes.get(i))) for passes in found] for i in ids])

    winners = matrix("sft-right")
    lines = [
        f"SFT passes {start['passed']} of {start['scored']}; held-out NLL a token {start['held_nll']:.3f}.",
        "",
        "| method | seeds | passes | change from SFT | change from sft-right | minutes | KL | held-out NLL |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        mine = [row for (name, _), row in sorted(rows.items()) if name == cell.name]
        if not mine:
            continue
        passes = ", ".join(f"{100 * r['passed'] / r['scored']:.1f}" for r in mine)
        from_sft = two_level_bootstrap(matrix(cell.name), matrix("sft"))
        over = two_level_bootstrap(matrix(cell.name), winners) if winners.size and cell.name != "sft-right" else None
        kl = [r["kl"] for r in mine if r["kl"] is not None]
        minutes, nll = np.mean([r["minutes"] for r in mine]), np.mean([r["held_nll"] for r in mine])
        lines.append(
            f"| {cell.name} | {len(mine)} | {passes} % | {_points(from_sft)} | {_points(over) if over else ''} |"
            f" {minutes:.1f} | {f'{np.mean(kl):.2f}' if kl else ''} | {nll:.3f} |"
        )
    return "\n".join(lines)


def _points(e: Any) -> str:
    return f"{100 * e.value:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})"


def main() -> None:
    flags = [a for a in sys.argv[1:] if not a.startswith("-")]
    study = Study(Path(flags[0] if flags else "work/methods").resolve())
    if "--table" in sys.argv:
        print(table(study))
    else:
        study.run()


if __name__ == "__main__":
    main()
