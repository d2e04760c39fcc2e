"""A judge named as a scorer, over real HTTP: `hafs score` and `hafs preferences` do what `hafs judge` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hafs.judge.clients import judge_of
from hafs.store import open_workspace
from hafs.types import Candidate, PreferenceGroup, Prompt
from judge_server import JudgeServer, by, honest
from judge_work import OPUS, filled
from run_hafs import hafs, lines, workspace


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with JudgeServer(honest).running() as found:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", found.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{found.port}")
        yield found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four prompts with three answers each."""
    path = workspace(tmp_path / "w")
    filled(path).close()
    return path


@pytest.mark.parametrize(
    ("scorer", "judge"),
    [
        ("claude-opus-4-5", "claude-opus-4-5"),
        ("gpt-5", "gpt-5"),
        ("gpt-4.1", "gpt-4.1"),
        ("o3", "o3"),
        ("hafs-coder:14b", "hafs-coder:14b"),
        ("qwen2.5-coder:14b", "qwen2.5-coder:14b"),
        ("judge:asm", "asm"),
        ("judge:hafs-coder:14b", "hafs-coder:14b"),
        ("m@http://127.0.0.1:1/v1", "m@http://127.0.0.1:1/v1"),
        ("asm", None),
        ("asn", None),
        ("text:min_words=5", None),
        ("reward:models/rm", None),
        ("python>text", None),
        ("python*0.7+text*0.3", None),
        ("code:rust", None),
        ("txet:min_words=5", None),
        ("", None),
    ],
)
def test_which_names_are_judges(scorer: str, judge: str | None) -> None:
    assert judge_of(scorer) == judge


def test_score_asks_the_judge_as_judge_run_does(root: Path, server: JudgeServer, tmp_path: Path) -> None:
    said = hafs("score", "--scorer", OPUS, "--budget", "5", "--output", tmp_path / "v.jsonl", "-w", root).ok()
    assert f"{OPUS}, listwise@1: 8 questions asked now" in said.out and "flip rate    0.0%" in said.out
    assert len(server.asked()) == 8 and len(lines(tmp_path / "v.jsonl")) == 8
    again = hafs("judge", "run", "--judge", OPUS, "-w", root, "--json").ok().json["judges"][0]
    assert again["asked"] == 0 and again["decided"] == 8, "one ledger, one way of judging"
    book = hafs("judge", "ledger", "-w", root, "--json").ok().json
    assert book["cost"] > 0 and {r["judge"] for r in book["spending"]} == {OPUS}
    built = hafs("preferences", "build", "--scorer", OPUS, "-w", root, "--json").ok().json
    same = hafs("judge", "build", "-w", root, "--json").ok().json
    assert built["judge_edges"] == same["judge_edges"] > 0 and not built["calibrated"]


def test_an_ollama_name_is_asked_there(root: Path, server: JudgeServer) -> None:
    said = hafs("score", "--scorer", "hafs-coder:14b", "-w", root, "--json").ok().json["judges"][0]
    assert (said["judge"], said["coverage"]) == ("hafs-coder:14b", 1.0)


def test_the_workspaces_scorer_may_be_a_judge(root: Path, server: JudgeServer) -> None:
    (root / "hafs.toml").write_text(f'[score]\nscorer = "judge:m@{server.v1}"\n')
    assert hafs("score", "-w", root, "--json").ok().json["judges"][0]["judge"] == "m"
    built = hafs("preferences", "build", "-w", root).ok()
    assert "not used here" not in built.err
    with (root / "hafs.toml").open("a") as f:
        f.write('[preferences]\nreferences = "always"\n')
    built = hafs("preferences", "build", "-w", root).ok()
    assert "`references` of [preferences] is about a scorer's ranking" in built.err


def test_a_budget_stops_it_as_it_stops_judge_run(root: Path, server: JudgeServer) -> None:
    ran = hafs("score", "--scorer", OPUS, "--budget", "0.0001", "-w", root)
    assert ran.code == 1 and "the budget of $0.00 is used" in ran.err and not server.asked()
    hafs("score", "--scorer", f"claude-unheard-of@{server.v1}", "--budget", "1", "-w", root).ok()  # local, so free
    hafs("score", "--scorer", "claude-unheard-of", "--budget", "1", "-w", root).ok()


def test_generate_with_a_judge_makes_its_edges(tmp_path: Path, server: JudgeServer, tiny_model: Path) -> None:
    root = workspace(tmp_path / "w")
    server.judge = by(len)  # the longer answer wins
    with open_workspace(root).open_store() as store:
        prompts = [Prompt(f"question {i}") for i in range(3)]
        store.add_prompts(prompts)
        store.add_candidates(
            Candidate(p.id, text, "another", index=n) for p in prompts for n, text in enumerate(("x", "xy"))
        )
    verb = ["preferences", "generate", "--model", tiny_model, "--scorer", OPUS, "--budget", "5", "-w", root]
    done = hafs(*verb, "--output", tmp_path / "groups.jsonl", "--json").ok()
    assert done.json["judge_edges"] > 0 and not done.json["calibrated"] and "flip rate" in done.err
    groups = [PreferenceGroup.from_dict(row) for row in lines(tmp_path / "groups.jsonl")]
    for group in groups:
        assert all(e.calibrated is False and e.source == f"judge:{OPUS}@1" for e in group.edges)
        assert all(len(winner) > len(loser) for winner, loser, _ in group.pairs())
        assert not {c.text for c in group.candidates} & {"x", "xy"}, "only this model's candidates"
    asked = len(server.asked())
    assert hafs(*verb, "--json").ok().json["groups"] == len(groups) and len(server.asked()) == asked
    server.judge = lambda q: "no"
    ran = hafs(*verb[:-2], "-w", root, "--scorer", f"judge:m@{server.v1}", "--json")
    assert ran.code == 1 and "no preference group" in ran.err


def test_a_price_that_nobody_knows_is_never_nothing(
    root: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = hafs("score", "--scorer", f"own@{server.v1}", "-w", root).ok()
    assert "$0.0000 (a local server, taken as free)" in free.out
    monkeypatch.setattr("hafs.judge.run.runner.is_local", lambda endpoint: False)
    said = hafs("score", "--scorer", f"unheard@{server.v1}", "-w", root).ok()
    assert "price unknown (add it to prices.toml beside hafs.toml)" in said.out and "$" not in said.out
    spent = {r["judge"]: r for r in hafs("judge", "ledger", "-w", root, "--json").ok().json["spending"]}
    assert spent["unheard"]["unpriced"] == 8 + 1 and spent["own"]["unpriced"] == 0, "the probe is a call, too"
    assert "without 9 answers of unknown price" in hafs("judge", "ledger", "-w", root).ok().out
    hafs("score", "--scorer", f"unheard@{server.v1}", "--budget", "1", "-w", root).failed(2, "unheard has no price")


def test_mistakes_are_explained(root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for verb in (["score"], ["preferences", "generate", "--model", tiny_model]):
        hafs(*verb, "--scorer", OPUS, "-w", root).failed(2, "needs a key for Anthropic", "ANTHROPIC_API_KEY")
        hafs(*verb, "--scorer", "gpt-5", "-w", root).failed(2, "needs a key for OpenAI", "OPENAI_API_KEY")
        hafs(*verb, "--scorer", "hafs-coder:14b", "-w", root).failed(2, "no Ollama answers", "ollama pull")
        hafs(*verb, "--scorer", "asn", "-w", root).failed(2, "no scorer named 'asn'")
        hafs(*verb, "--scorer", "text", "--budget", "1", "-w", root).failed(2, "--budget is for a judge")
    hafs("preferences", "build", "--scorer", OPUS, "-w", root).failed(2, f"no verdicts of {OPUS}", "hafs judge run")
    hafs("preferences", "build", "--scorer", OPUS, "--scheme", "all", "-w", root).failed(2, "--scheme")
    ran = hafs("score", "--scorer", "m@http://127.0.0.1:9/v1", "-w", root)
    assert ran.code == 1 and "does not answer" in ran.err
    hafs("judge", "hybrid", "--scorer", OPUS, "-w", root).failed(2, "the filter cannot be the judge", "--scorer none")
