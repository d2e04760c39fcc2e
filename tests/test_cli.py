"""The command line as its user meets it: every verb for real, on a tiny model, assembler and emulator included."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from hafs.cli import build_app
from hafs.evals import Comparison, EvalResult, to_markdown, to_text
from hafs.evals.tables import main_table, markdown_table
from hafs.store import open_workspace
from hafs.types import Annotation, Candidate, PreferenceGroup, Prompt, Score, Verdict
from judge_server import JudgeServer
from run_hafs import SETTINGS, Ran, hafs, hafs_process, lines, own_cache, workspace

HEAVY = ("torch", "transformers", "peft", "accelerate", "sqlalchemy", "pydantic", "numpy", "scipy")


def verbs() -> list[str]:
    """Every verb with its group, as typed."""
    found = []
    for name, command in get_command(build_app()).commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        inner = [*getattr(command, "commands", [""]), *[""] * getattr(command, "invoke_without_command", False)]
        found += [f"{name} {child}".strip() for child in dict.fromkeys(inner)]
    return found


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_cache(tmp_path_factory.mktemp("cache")) as path:
        yield path


# help


def loaded_by(*commands: list[str]) -> list[str]:
    """Which of HEAVY a fresh process has imported after running `commands`."""
    program = (
        "import sys, json\n"
        "from hafs.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['hafs', *words]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as e:\n"
        "        assert not e.code, (words, e.code)\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by(["--help"]) == []
    each = loaded_by(*([*verb.split(), "--help"] for verb in verbs()))
    assert set(each) <= {"pydantic"}, "newer versions of typer convert flags with it"


@pytest.mark.tools
def test_verbs_that_do_not_compute_do_not_load_torch(tmp_path: Path) -> None:
    w, rows = ["-w", str(tmp_path)], str(tmp_path / "p.jsonl")
    found = loaded_by(
        ["init", str(tmp_path)],
        ["config", *w],
        ["tasks", "list"],
        ["data", "counts", *w],
        ["tasks", "generate", "asm", "-n", "2", *w],
        ["data", "export", "prompts", rows, *w],
        ["data", "import", "prompts", rows, *w],
        ["tasks", "check", rows],
        ["score", *w],
        ["tools", "install"],
    )
    assert not {"torch", "transformers", "peft", "accelerate"} & set(found)


def test_every_verb_has_help_and_json() -> None:
    for verb in verbs():
        page = hafs(*verb.split(), "--help").ok().out
        assert "--json" in page, verb
        assert re.search(r"^Usage: .*\n\n  [A-Z]\w+", page), f"{verb} does not say what it does"


def test_flags_with_either_mark(tmp_path: Path) -> None:
    for flag in ("--num-samples", "--num_samples"):
        ran = hafs("tasks", "generate", "asm", flag, "3", "--output", tmp_path / f"{flag}.jsonl", "--json").ok()
        assert ran.json["prompts"] == 3
    written = [(tmp_path / f"{flag}.jsonl").read_text() for flag in ("--num-samples", "--num_samples")]
    assert written[0] == written[1]


def test_every_flag_of_every_verb_takes_both_marks() -> None:
    root = get_command(build_app())
    seen = 0
    with root.make_context("hafs", [], resilient_parsing=True) as top:
        for verb in verbs():
            command, context = root, top
            for word in verb.split():
                command = command.commands[word]  # type: ignore[attr-defined]
                context = command.make_context(word, [], parent=context, resilient_parsing=True)
            for parameter in command.params:
                for flag in (f for f in parameter.opts if f.startswith("--") and "-" in f[2:]):
                    seen += 1
                    typed = "--" + flag[2:].replace("-", "_")
                    values, _, _ = command.make_parser(context).parse_args([typed, "7"])
                    given = (True,) if getattr(parameter, "is_flag", False) else ("7", ["7"])
                    assert values[parameter.name] in given, f"{verb} {typed}"
    assert seen > 20


# the whole path


def judge_and_label(root: Path) -> list[str]:
    """Verdicts and a person's labels on every prompt with several answers; returns two models that were compared."""
    models: list[str] = []
    with open_workspace(root).open_store() as store:
        by_prompt: dict[str, dict[str, Candidate]] = {}
        for c in store.candidates():
            by_prompt.setdefault(c.prompt_id, {})[c.id] = c
        for prompt_id, mine in by_prompt.items():
            ids = sorted(mine)
            pairs = [*combinations(ids, 2), *combinations(ids[::-1], 2)]
            store.add_verdicts(
                Verdict(prompt_id, "oracle", "pairwise@1", p, "ranked", tuple((id,) for id in sorted(p))) for p in pairs
            )
            if len(ids) > 1:
                store.add_annotations([Annotation(prompt_id, "ann", tuple(ids), "ranked", tuple((id,) for id in ids))])
                models = sorted({c.model for c in mine.values()}) if len(models) < 2 else models
    return models[:2]


TRAIN = ["--learning_rate", "1e-3", "--num_epochs", "2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cache: Path) -> dict[str, Any]:
    """Every verb but the demo, each with --json, in the order of a real project; what each printed, by verb."""
    root = tmp_path_factory.mktemp("project")
    workspace(root)
    ran: dict[str, Ran] = {}

    def do(name: str, *args: str | Path) -> None:
        here = ["-w", root] if "--workspace" in hafs(*name.split()[:2], "--help").out else []
        ran[name] = hafs(*args, *here, "--json")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        do("init", "init", root)
        do("config", "config")
        do("doctor", "doctor")
        do("tools install", "tools", "install")
        do("models pull", "models", "pull", tiny_model)
        do("tasks list", "tasks", "list")
        do("tasks generate", "tasks", "generate", "asm", "--tags", "easy", "-n", "8")
        hafs("tasks", "generate", "asm", "--tags", "easy", "--split", "test", "-n", "6", "--output", "held.jsonl").ok()
        do("tasks check", "tasks", "check", "held.jsonl")
        do("sft", "sft", "--model", tiny_model, *TRAIN)
        do("generate", "generate", "--model", "models/sft/model", "-n", "4", "--output", "candidates.jsonl")
        do("score", "score", "--output", "scores.jsonl")
        do("status", "status")
        patch.setattr(sys, "stdin", io.StringIO("A B\nq\n"))
        do(
            "annotate start",
            "annotate",
            "start",
            "--terminal",
            "--name",
            "ann",
            "--model",
            "models/sft/model",
            "--candidates",
            "2",
            "--limit",
            "2",
            "--repeats",
            "0",
        )
        do("annotate stats", "annotate", "stats")
        do("annotate export", "annotate", "export", "said.jsonl")
        patch.setattr(sys, "stdin", io.StringIO("a long password\n"))
        do("annotate account", "annotate", "account", "ann")
        with JudgeServer().running() as server:
            judge = ("--judge", "local", "--base-url", server.v1)
            do("judge run", "judge", "run", *judge, "--protocol", "pairwise", "-n", "2")
            do("judge probe", "judge", "probe", *judge)
        do("judge ledger", "judge", "ledger")
        do("score explain", "score", "explain", lines(root / "scores.jsonl")[0]["candidate_id"])
        judge_and_label(root)
        oracle = ("--judge", "oracle")
        do("judge hybrid", "judge", "hybrid", *oracle, "--scorer", "none", "--queue-size", "2")
        for name in ("calibrate", "plan", "build"):
            do(f"judge {name}", "judge", name, *oracle)
        do("preferences build", "preferences", "build", "--output", "built.jsonl")
        do(
            "preferences generate",
            "preferences",
            "generate",
            "--model",
            "models/sft/model",
            "--num-samples",
            "6",
            "--candidates-per-prompt",
            "4",
            "--scorer",
            "automatic",
            "--output",
            "preferences.jsonl",
        )
        do("preferences stats", "preferences", "stats", "--output", "stats.svg")
        do("preferences formats", "preferences", "formats")
        do("preferences export", "preferences", "export", "openai.jsonl", "--format", "openai")
        do("preferences combine", "preferences", "combine", "built.jsonl", "openai.jsonl", "--output", "mixed.jsonl")
        do(
            "train dpo",
            "train",
            "dpo",
            "--sft_model",
            "models/sft/model",
            "--preference_data",
            "preferences.jsonl",
            "--output_dir",
            "models/dpo",
            "--beta",
            "0.1",
            "--learning_rate",
            "5e-6",
            "--num_epochs",
            "1",
            "--batch_size",
            "2",
            "--gradient_accumulation_steps",
            "8",
        )
        do(
            "train reward",
            "train",
            "reward",
            "--sft_model",
            "models/sft/model",
            "--preference_data",
            "preferences.jsonl",
            "--output_dir",
            "models/reward",
        )
        (root / "answers.jsonl").write_text('{"prompt": "add", "answer": "CLC"}\n')
        do("reward score", "reward", "score", "answers.jsonl", "--model", "models/reward")
        hafs("tasks", "generate", "asm", "--tags", "easy", "-n", "6", "--seed", "5", "--output", "ask.jsonl").ok()
        do(
            "train ppo",
            "train",
            "ppo",
            "--sft_model",
            "models/sft/model",
            "--prompts",
            "ask.jsonl",
            "--scorer",
            "asm",
            "--reward_model",
            "models/reward",
            "--output_dir",
            "models/ppo",
        )
        do(
            "compare-methods",
            "compare-methods",
            "--jobs",
            "2",
            "--sft_model",
            "models/sft/model",
            "--preference_data",
            "preferences.jsonl",
            "--prompts",
            "ask.jsonl",
            "--benchmark",
            "held.jsonl",
            "--methods",
            "rloo",
            "--seeds",
            "1",
            "--markdown",
            "methods.md",
        )
        for name, model in (("baseline", tiny_model), ("sft", "models/sft/model"), ("dpo", "models/dpo/model")):
            do(
                "eval run",
                "eval",
                "--model",
                model,
                "--name",
                name,
                "--benchmark",
                "held.jsonl",
                "--output",
                f"{name}.json",
            )
        do("judge winrate", "judge", "winrate", *judge_and_label(root), *oracle)
        do("compare", "compare", "baseline", "sft", "dpo", "--markdown", "table.md")
        do("failures", "failures", "dpo", "--before", "sft", "--html", "failures.html")
        do("explain", "explain", "models/dpo/model")
        do("report", "report", "baseline", "sft", "dpo")
        do("open", "open", "--show", "models")
        do("export", "export", "dpo", "--output", "exported")
        do("preferences import", "preferences", "import", "openai.jsonl")
        do("data export", "data", "export", "prompts", "prompts.jsonl")
        do("data import", "data", "import", "prompts", "held.jsonl")
        do("data counts", "data", "counts")
        hafs("tasks", "generate", "asm", "--tags", "easy", "--split", "test", "-n", "9", "--output", "nine.jsonl").ok()
        Path("final.jsonl").write_text("".join(Path("nine.jsonl").read_text().splitlines(keepends=True)[6:]))
        do("eval seal", "eval", "seal", "final", "final.jsonl")
        do(
            "eval open",
            "eval",
            "open",
            "final",
            "--model",
            "a=models/sft/model",
            "--model",
            "b=models/dpo/model",
            "--reference",
            "a",
        )
    return {"root": root, "ran": ran}


@pytest.mark.tools
def test_every_verb_prints_one_json_object(project: dict[str, Any]) -> None:
    ran: dict[str, Ran] = project["ran"]
    apart = {
        "demo",
        "lock",
        "reproduce",
        "loop run",
        "serve",
        "start",
        "models rebase",
        "tasks split",
    }  # each has a test of its own
    assert set(ran) == set(verbs()) - apart
    for name, r in ran.items():
        if name != "doctor":  # the model is not in this cache, and the doctor says so
            r.ok()
        assert r.json, name


@pytest.mark.tools
def test_what_the_verbs_say_is_so(project: dict[str, Any]) -> None:
    root, said = project["root"], {name: r.json for name, r in project["ran"].items()}
    assert said["tasks generate"]["prompts"] == said["tasks generate"]["new"] == 8
    assert said["tasks check"]["right"] == said["tasks check"]["total"] >= 6
    assert said["tasks list"]["packs"] == ["asm", "python", "rom_hack"]
    assert said["config"]["generate"]["candidates"] == 3
    assert said["generate"] == {**said["generate"], "prompts": 4, "candidates": 12, "new": 12}
    assert len([Candidate.from_dict(row) for row in lines(root / "candidates.jsonl")]) == 12
    assert said["score"]["scored"] == len([Score.from_dict(row) for row in lines(root / "scores.jsonl")]) == 12
    assert (said["score"]["coverage"], said["score"]["unscored"]) == (1.0, {})
    assert (said["annotate start"]["answered"], said["annotate start"]["left"]) == (1, 1)
    assert said["annotate stats"]["annotators"]["ann"]["ranked"] == said["annotate export"]["written"] == 1
    assert lines(root / "said.jsonl")[0]["annotator"] == "ann"
    assert said["annotate account"]["accounts"] == ["ann"]
    judged = said["judge run"]["judges"][0]
    assert (
        judged["coverage"] == 1.0
        and judged["attempts"] == judged["verdicts"]["tie"] + judged["verdicts"].get("ranked", 0) + 1
    )
    assert said["judge probe"]["endpoints"][0]["abilities"]["structured"]
    assert said["judge ledger"]["spending"][0]["answered"] == judged["attempts"] + 1
    built = [PreferenceGroup.from_dict(row) for row in lines(root / "built.jsonl")]
    assert said["preferences build"]["groups"] == len(built) == 4
    assert said["preferences build"]["edges"] == sum(len(g.edges) for g in built)
    groups = [PreferenceGroup.from_dict(row) for row in lines(root / "preferences.jsonl")]
    assert said["preferences generate"]["groups"] == len(groups) == 6
    assert said["train ppo"]["steps"] == 2 and len(said["reward score"]["rewards"]) == 1
    methods = {m["method"]: m for m in said["compare-methods"]["methods"]}
    assert set(methods) == {"sft-winners", "rloo"}
    assert all(m["peak_mb"] > 100 and m["minutes"] > 0 and len(m["rates"]) == 1 for m in methods.values())
    assert "| rloo |" in (root / "methods.md").read_text()
    assert said["data export"]["written"] == len(lines(root / "prompts.jsonl")) == 14  # eval has added the held-out six
    assert said["data import"] == {"read": 6, "new": 0, "skipped": 0}
    assert said["data counts"]["prompts"] == 14
    assert Path(said["report"]["html"]).read_text().startswith("<!doctype html>")
    assert Path(said["report"]["markdown"]).is_file()


@pytest.mark.tools
def test_the_guides_flags_reach_the_training(project: dict[str, Any]) -> None:
    run = json.loads((project["root"] / "models/dpo/run.json").read_text())
    wanted = {"beta": 0.1, "learning_rate": 5e-6, "num_epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 8}
    settings = run["identity"]["settings"]
    assert {k: settings[k] for k in wanted} == wanted
    said = project["ran"]["train dpo"].json
    assert said["model"] == "models/dpo/model" and said["steps"] == run["result"]["steps"] == 1
    assert (project["root"] / said["model"] / "config.json").is_file()


@pytest.fixture
def inside(project: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project["root"])
    monkeypatch.setenv("COLUMNS", "160")
    return Path(project["root"])


@pytest.mark.tools
def test_the_printed_comparison_is_that_of_the_json(inside: Path, project: dict[str, Any]) -> None:
    comparison = Comparison.from_dict(project["ran"]["compare"].json)
    printed = hafs("compare", "baseline", "sft", "dpo").ok().out
    assert "\n".join(line.rstrip() for line in printed.splitlines()) + "\n" == to_text(comparison, 160)
    assert (inside / "table.md").read_text() == to_markdown(comparison)
    assert markdown_table(main_table(comparison)) in (inside / "report.md").read_text()
    for name in ("baseline", "sft", "dpo"):
        (result,) = [EvalResult.from_dict(row) for row in json.loads((inside / f"{name}.json").read_text())]
        rate = comparison.benchmarks[0].rates[name]
        assert rate.n == result.scored == 6 and rate.value == result.passed / 6
    files = hafs("compare", *(f"{n}={n}.json" for n in ("baseline", "sft", "dpo")), "--json").ok()
    assert files.json == project["ran"]["compare"].json


@pytest.mark.tools
def test_the_printed_evaluation_is_that_of_the_json(inside: Path, project: dict[str, Any]) -> None:
    (said,) = project["ran"]["eval run"].json["results"]
    printed = hafs("eval", "--model", "models/dpo/model", "--name", "dpo", "--benchmark", "held.jsonl").ok()
    assert printed.out.startswith("dpo on held: ")
    assert f"{said['passed']} of {said['scored']} right, coverage 100%" in printed.out
    assert "generating" not in printed.err, "it was evaluated before"


@pytest.mark.tools
def test_repeating_does_nothing_and_says_so(inside: Path, project: dict[str, Any]) -> None:
    before = hafs("data", "counts", "--json").ok().json
    again = hafs("generate", "--model", "models/sft/model", "-n", "4", "--json").ok().json
    assert (again["candidates"], again["new"]) == (12, 0)
    assert hafs("score", "--json").ok().json["scored"] == 0
    weights = inside / "models/dpo/model/model.safetensors"
    written = weights.stat().st_mtime_ns
    trained = hafs(
        "train",
        "dpo",
        "--sft-model",
        "models/sft/model",
        "--preference-data",
        "preferences.jsonl",
        "--output-dir",
        "models/dpo",
    ).ok()
    assert "finished before: nothing was trained now" in trained.err
    assert weights.stat().st_mtime_ns == written
    hafs("init", inside).ok()
    assert (inside / "hafs.toml").read_text() == SETTINGS, "init on a workspace changes nothing"
    assert {**before, "runs": 0} == {**hafs("data", "counts", "--json").ok().json, "runs": 0}


@pytest.mark.tools
def test_a_run_that_kept_its_start_says_so(inside: Path, project: dict[str, Any]) -> None:
    """At 5e-6 for one step the validation loss of the tiny model cannot fall by much; either way it is said."""
    said = project["ran"]["train dpo"]
    note = "the model that was kept is the one it began with" in said.err
    assert note == (said.json["best_step"] == 0)


@pytest.mark.tools
def test_training_can_pick_by_pass_rate(inside: Path) -> None:
    ran = hafs(
        "train",
        "dpo",
        "--sft_model",
        "models/sft/model",
        "--preference_data",
        "preferences.jsonl",
        "--output_dir",
        "models/picked",
        "--validate",
        "held.jsonl",
    ).ok()
    assert "pass_rate 0" in ran.out
    log = lines(inside / "models/picked/log.jsonl")
    assert all("eval/pass_rate" in row for row in log if "eval/score" in row)


@pytest.mark.tools
def test_of_two_evaluations_under_one_name_the_newest_counts(inside: Path, tiny_model: Path) -> None:
    def evaluate(model: str | Path) -> None:
        hafs("eval", "--model", model, "--name", "twice", "--benchmark", "held.jsonl").ok()

    def answers() -> str:
        hafs("report", "twice", "sft", "--output", "twice.html").ok()
        return (inside / "twice.md").read_text().partition("model twice")[2][:60]  # the model's hash

    evaluate(tiny_model)
    first = answers()
    evaluate("models/sft/model")
    assert answers() != first
    evaluate(tiny_model)  # kept results, but now the newest
    assert answers() == first


@pytest.mark.tools
def test_an_evaluation_with_unscored_prompts_is_compared_with_its_coverage(inside: Path, tiny_model: Path) -> None:
    """What cannot be checked is left out and counted, not hidden and not failed."""
    rows = (inside / "held.jsonl").read_text() + json.dumps({"text": "no check here"}) + "\n"
    (inside / "partly.jsonl").write_text(rows)
    for name, model in (("less", tiny_model), ("more", "models/sft/model")):
        ran = hafs("eval", "--model", model, "--name", name, "--benchmark", "partly.jsonl").ok()
        assert "0 of 6 right, coverage 86%" in ran.out
        assert "unscored: 1 candidates, the prompt has no check" in ran.err
    ran = hafs("compare", "less", "more", "--reference", "less").ok()
    assert "6 of 7 (1 × the prompt has no check" in " ".join(ran.out.split())


@pytest.mark.tools
def test_the_name_of_an_evaluation_is_the_models_directory(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("models/sft/model", "models/sft/model/", "models/sft/./model"):
        said = hafs("eval", "--model", model, "--benchmark", "held.jsonl", "--json").ok().json
        assert said["results"][0]["name"] == "sft"
    monkeypatch.chdir(inside / "models/sft")
    said = hafs("eval", "--model", "model", "--benchmark", inside / "held.jsonl", "--json").ok().json
    assert said["results"][0]["name"] == "sft"


@pytest.mark.tools
def test_pairs_for_other_trainers(inside: Path) -> None:
    hafs("preferences", "build", "--pairs", "--scheme", "guide", "--output", "pairs.jsonl").ok()
    rows = lines(inside / "pairs.jsonl")
    assert rows and all(row["chosen"] != row["rejected"] for row in rows)
    said = (
        hafs(
            "train",
            "dpo",
            "--sft-model",
            "models/sft/model",
            "--preference-data",
            "pairs.jsonl",
            "--output-dir",
            "models/from-pairs",
            "--json",
        )
        .ok()
        .json
    )
    assert said["steps"] == 1


def test_sft_from_files_needs_no_workspace(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.jsonl").write_text('{"prompt": "say a", "completion": "a"}\n')
    flags = ["--num-epochs", "1", "--lora-rank", "2", "--precision", "fp32"]
    ran = hafs("sft", "--model", tiny_model, "--data", "sft.jsonl", "--output-dir", "out", *flags).ok()
    assert "sft: 1 steps" in ran.out and "model: out/model" in ran.out
    assert "no prompt was held out to choose by" in ran.out
    settings = json.loads((tmp_path / "out/run.json").read_text())["identity"]["settings"]
    assert settings["lora"]["rank"] == 2 and settings["lora"]["alpha"] == 4


# the demo


@pytest.mark.tools
@pytest.mark.slow
def test_the_demo_end_to_end_and_again(
    tiny_model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verb itself, with the tiny model in the place of the embedded one and a handful of prompts."""
    from hafs import tasks
    from hafs.cli import demo

    (cache / "models").mkdir(exist_ok=True)
    (cache / "models/smollm2-135m-instruct").symlink_to(tiny_model)
    monkeypatch.setitem(tasks.BENCHMARKS, "demo", ("asm", 6, ("easy",)))
    monkeypatch.setattr(demo, "SFT_PROMPTS", 8)
    monkeypatch.setattr(demo, "PREFERENCE_PROMPTS", 4)
    short = {
        **demo.SETTINGS,
        "generate": {**demo.SETTINGS["generate"], "max_new_tokens": 12},
        "preferences": {**demo.SETTINGS["preferences"], "references": "when-needed"},
        "eval": {"max_new_tokens": 12},
    }
    monkeypatch.setattr(demo, "SETTINGS", short)
    monkeypatch.setenv("COLUMNS", "200")
    first = hafs("demo", tmp_path / "demo").ok()
    assert "1/9 evaluate the baseline" in first.err and "9/9 evaluate DPO" in first.err
    again = hafs("demo", tmp_path / "demo").ok()
    assert again.out == first.out and again.err == ""
    said = hafs("demo", tmp_path / "demo", "--json").ok().json
    assert said["promoted"] in ("sft", "sft-winners", "dpo") and Path(said["report"]).is_file()
    assert {"gain", "low", "high", "over_sft_on_winners", "minutes"} <= said.keys()
    assert first.out.startswith(to_text(Comparison.from_dict(said["comparison"]), 200).partition("\n")[0])
    assert f"Kept: {said['promoted']}" in first.out
    best = json.loads((tmp_path / "demo/models/best.json").read_text())
    assert best["name"] == said["promoted"]


# being stopped, and nowhere to print


def test_ctrl_c_says_that_the_command_can_be_repeated(tiny_model: Path, tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"text": f"prompt {i}"}) + "\n" for i in range(30)))
    argv = [
        "generate",
        "--model",
        tiny_model,
        "--prompts",
        tmp_path / "p.jsonl",
        "-w",
        root,
        "--batch-size",
        "3",
        "--max-new-tokens",
        "100",
        "--output",
        tmp_path / "out.jsonl",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "hafs", *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None and process.stderr.readline().startswith("generating 1/30")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert err.splitlines()[-1] == "stopped; the same command goes on from here"
    assert out == "" and not (tmp_path / "out.jsonl").exists()
    kept = hafs("data", "counts", "-w", root, "--json").ok().json["candidates"]
    assert kept and kept % 3 == 0, "whole batches are kept"
    done = hafs(*argv, "--json").ok().json
    assert done["new"] == 90 - kept and len(lines(tmp_path / "out.jsonl")) == 90


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_printed_is_a_failure(tmp_path: Path) -> None:
    root = workspace(tmp_path)
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "hafs", "data", "counts", "-w", str(root), "--json"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_the_module_is_the_command() -> None:
    page = hafs_process("--help").ok().out
    assert page.startswith("Usage: python -m hafs [OPTIONS] COMMAND")
    assert page.partition("\n")[2] == hafs("--help").ok().out.partition("\n")[2]


def test_a_prompt_of_a_split_and_an_export_come_back(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    row = Prompt("odd: 🌍 \u2028 :smile: [bold]x[/bold]", split="test", family="f").to_dict()
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    hafs("data", "import", "prompts", tmp_path / "p.jsonl", "-w", root).ok()
    ran = hafs("data", "export", "prompts", tmp_path / ":smile:.jsonl", "-w", root).ok()
    assert ran.out == f"1 prompts in {tmp_path}/:smile:.jsonl\n", "names are printed as they are"
    assert lines(tmp_path / ":smile:.jsonl") == [json.loads(json.dumps(row))]


def test_every_setting_of_training_has_a_flag() -> None:
    from hafs.config import Config

    group = get_command(build_app()).commands["train"]  # type: ignore[attr-defined]
    for verb in ("dpo", "reward", "ppo"):
        taken = {p.name for p in group.commands[verb].params}
        missing = set(Config.model_fields[verb].annotation.model_fields) - taken - {"lora"}  # type: ignore[union-attr]
        assert not missing, (verb, missing)
        assert {"lora_rank", "lora_alpha", "set_"} <= taken


def test_set_reaches_any_setting_and_refuses_what_is_none(tmp_path: Path) -> None:
    hafs("init", tmp_path).ok()
    shown = hafs("config", "-w", tmp_path, "--set", "annotate.overlap=0.5", "--set", "loop.target.asm=0.9", "--json")
    assert (found := json.loads(shown.out))["annotate"]["overlap"] == 0.5 and found["loop"]["target"] == {"asm": 0.9}
    assert json.loads(hafs("config", "-w", tmp_path, "--json").out)["annotate"]["overlap"] == 0.1
    hafs("config", "-w", tmp_path, "--set", "dpo.betta=1").failed(2, "unknown setting 'dpo.betta'")
    hafs("score", "-w", tmp_path, "--set", "score.betta=1").failed(2, "unknown setting 'score.betta'")
    hafs("config", "-w", tmp_path, "--set", "dpo.beta").failed(2, "section.key=value")
