"""A real workbench for tests: a filled workspace, served by uvicorn, and a process at work in it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from annotate_site import TOKEN, served
from hafs.store import Store, Workspace, init_workspace
from hafs.types import Annotation, Candidate, Prompt, Score, Verdict
from hafs.workbench.app import create_workbench

FAMILIES = ("sum of two bytes", "copy a block", "count set bits", "largest of a table")

WORK = """
import json, sys, time
from pathlib import Path
from hafs.files.activity import record_folder, record_progress, recorded
root, steps, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
folder = root / "models" / "dpo-2"
folder.mkdir(parents=True, exist_ok=True)
about = {"kind": "dpo", "model": "1" * 20, "data": "e" * 20, "settings": {"beta": 0.1}}
(folder / "run.json").write_text(json.dumps({"identity": about}))
sys.argv = ["hafs", "loop", "run", "--sft_model", "models/sft/model", "--max-rounds", "3", "--budget", "2.50"]
with recorded(root):
    record_folder(folder)
    record_progress("generating", 48, 48, {})
    record_progress("scoring", 384, 384, {})
    try:
        for step in range(1, steps + 1):
            row = {"step": step, "loss": 0.69 / (1 + step / 40), "rewards/margins": step / 30}
            row["rewards/accuracies"] = min(0.95, 0.5 + step / 90)
            with (folder / "log.jsonl").open("a") as f:
                f.write(json.dumps(row) + chr(10))
            record_progress("training", step, steps, row)
            time.sleep(pause)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def filled_workspace(folder: Path, prompts: int = 40, answers: int = 4, hostile: Sequence[str] = ()) -> Workspace:
    """A workspace with prompts, scored answers of two models, a judge's verdicts and what people said."""
    space = init_workspace(folder)
    asked = [
        Prompt(
            f"Write a routine for the {FAMILIES[i % 4]}, number {i}.",
            family=FAMILIES[i % 4],
            split="train",
            checker="asm",
        )
        for i in range(prompts)
    ]
    asked += [Prompt(text, family=text[:60], split="train") for text in hostile]
    made = [
        Candidate(
            p.id,
            f"Routine{n}:\n    LDA.b #${i:02X}\n    CLC\n    ADC.w $1F00\n    RTS ; answer {i}"
            if n < prompts
            else p.text,
            model=f"{i % 2}" * 20,
            model_name=("sft", "dpo-1")[i % 2],
            index=i,
            n_tokens=30 + i,
        )
        for n, p in enumerate(asked)
        for i in range(answers)
    ]
    with space.open_store() as store:
        store.add_prompts(asked)
        store.add_candidates(made)
        store.add_scores(
            Score(
                c.id,
                "asm",
                "1",
                value=float(good),
                passed=good,
                cause="" if good else ("wrong value", "assembly")[c.index // 2],
            )
            for n, c in enumerate(made)
            if (good := (n * 7 + c.index) % 3 == 0) or n % 11
        )
        _opinions(store, asked, answers)
    return space


def _opinions(store: Store, asked: Sequence[Prompt], answers: int) -> None:
    for n, prompt in enumerate(asked[:12]):
        ids = [c.id for c in store.candidates(prompt_ids=prompt.id)][:answers]
        order = tuple((id,) for id in (ids if n % 3 else reversed(ids)))
        shown = (tuple(ids), tuple(reversed(ids)))
        store.add_verdicts(
            Verdict(prompt.id, "local-judge", "listwise", shown[i], "ranked", order, shuffle=i, strength=n / 4)
            for i in (0, 1)
        )
        if n < 6:
            said = Annotation(prompt.id, "ann", tuple(ids), "ranked", order[::-1], "rank", submitted=time.time() + n)
            store.add_annotations([said])


def old_training(space: Workspace, name: str = "dpo-1", steps: int = 60) -> Path:
    """A training directory as a finished run leaves it."""
    folder = space.root / "models" / name
    folder.mkdir(parents=True)
    about = {"kind": "dpo", "model": "0" * 20, "data": "d" * 20, "settings": {"learning_rate": 5e-6, "beta": 0.1}}
    (folder / "run.json").write_text(json.dumps({"identity": about, "result": {"best_step": steps, "best": {}}}))
    rows = [
        {
            "step": s,
            "loss": 0.69 / (1 + s / 60),
            "rewards/margins": s / 45,
            "rewards/accuracies": min(0.9, 0.5 + s / 120),
        }
        for s in range(1, steps + 1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@contextmanager
def working(root: Path, steps: int = 1000, pause: float = 0.1) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in the workspace: it writes its log and its progress as hafs does."""
    process = subprocess.Popen([sys.executable, "-c", WORK, str(root), str(steps), str(pause)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Desk:
    """A served workbench: its address, its workspace and its open store."""

    address: str
    space: Workspace
    store: Store
    token: str = TOKEN

    def link(self, path: str = "") -> str:
        """The link that lets in, or one of its pages."""
        return f"{self.address}/{path}" if path else f"{self.address}/?token={self.token}&name=ann"


@contextmanager
def workbench(space: Workspace) -> Iterator[Desk]:
    """The workbench of a workspace on a free port."""
    with space.open_store() as store, served(create_workbench(space, store, token=TOKEN)) as address:
        yield Desk(address, space, store)
