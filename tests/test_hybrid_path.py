"""The guide's hybrid path by command, through every part: a judge over HTTP, the queue, a person, training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hafs.store import open_workspace
from hafs.types import Candidate, PreferenceGroup, Prompt
from judge_server import JudgeServer, always_first, honest
from run_hafs import hafs, lines, workspace

PROMPTS = 24


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with four answers to each prompt, which say themselves how good they are."""
    path = workspace(tmp_path / "w")
    with open_workspace(path).open_store() as store:
        prompts = [Prompt(f"question {i}") for i in range(PROMPTS)]
        store.add_prompts(prompts)
        store.add_candidates(
            Candidate(p.id, f"answer of quality {q} to {p.text}", "m", index=q) for p in prompts for q in range(4)
        )
    return path


def test_from_the_judge_through_a_person_to_training(root: Path, tiny_model: Path, tmp_path: Path) -> None:
    verb = ["judge", "hybrid", "--scorer", "none", "--queue-size", "12", "-w", root, "--json"]
    with JudgeServer(honest).running() as server:
        first = hafs(*verb, "--judge", f"m@{server.v1}", "--ask", "--probes", "2").ok().json
        asked = len(server.asked())
        again = hafs(*verb, "--judge", f"m@{server.v1}", "--ask", "--probes", "2").ok().json
        assert len(server.asked()) == asked, "what was answered is not asked again"
    assert (first["judged"], first["queued"], first["labelled"], first["groups"]) == (PROMPTS, 12, 0, None)
    assert again["queue"] == first["queue"] and again["asked"] == 0
    with open_workspace(root).open_store() as store:
        assert len(list(_labels(store, first["queue"]))) == 12
    done = hafs(*verb, "--judge", "m", "--output", tmp_path / "groups.jsonl").ok().json
    assert done["labelled"] == 12 and done["report"]["calibrated"]
    groups = [PreferenceGroup.from_dict(row) for row in lines(tmp_path / "groups.jsonl")]
    sources = {e.source.partition(":")[0] for g in groups for e in g.edges}
    assert "human" in sources
    for group in groups:  # person and judge are honest, so every edge is right
        for winner, loser, _ in group.pairs():
            assert re.findall(r"\d", winner)[0] > re.findall(r"\d", loser)[0]
    plan = hafs(
        "train",
        "dpo",
        "--sft_model",
        tiny_model,
        "--preference_data",
        tmp_path / "groups.jsonl",
        "--output_dir",
        tmp_path / "dpo",
        "--dry-run",
        "--json",
        "-w",
        root,
    ).ok()
    assert plan.json["prompts"] > 0


def _labels(store, queue: str):  # type: ignore[no-untyped-def]
    """What an honest person says of a queue, given out by the service that the page and the terminal stand on."""
    from hafs.annotate.queue import read_queue
    from hafs.annotate.service import AnnotationService
    from hafs.config import AnnotateSettings

    service = AnnotationService(store, AnnotateSettings(repeats=0), queued=read_queue(store, queue))
    while (item := service.next_item("ann")) is not None:
        tiers = [[c.label] for c in sorted(item.cards, key=lambda c: c.text, reverse=True)]
        yield service.submit("ann", item.lease, answer="ranked", tiers=tiers, seconds=20.0)


def test_a_judge_that_always_prefers_the_first_slot_gives_nothing(root: Path) -> None:
    with JudgeServer(always_first).running() as server:
        hafs("judge", "run", "--judge", f"m@{server.v1}", "--protocol", "pairwise", "-w", root).ok()
    hafs("judge", "build", "-w", root).failed(1, "no preference group")


def test_training_refuses_an_uncalibrated_judge(root: Path, tiny_model: Path, tmp_path: Path) -> None:
    with JudgeServer(honest).running() as server:
        hafs("judge", "run", "--judge", f"m@{server.v1}", "--protocol", "pairwise", "-w", root).ok()
    hafs("judge", "build", "-w", root, "--output", tmp_path / "groups.jsonl").ok()
    hafs("judge", "build", "-w", root, "--pairs", "--output", tmp_path / "pairs.jsonl").ok()
    for data in ("groups.jsonl", "pairs.jsonl"):
        train = [
            "train",
            "dpo",
            "--sft_model",
            tiny_model,
            "--preference_data",
            tmp_path / data,
            "--output_dir",
            tmp_path / f"dpo-{data}",
            "-w",
            root,
            "--num_epochs",
            "0.1",
        ]
        hafs(*train).failed(2, "not calibrated on people's labels", "--allow-uncalibrated")
        hafs(*train, "--allow-uncalibrated").ok()
