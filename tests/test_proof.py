"""Evidence that can be believed: no benchmark prompt in the training data, a sealed set opened once, people's votes
counted by prompt, and the history of everything told from the records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs import tasks
from hafs.config import SFTConfig
from hafs.errors import UsageError
from hafs.evals.contamination import THRESHOLD, Hit, Index, shingles, side_by_side, similarity
from hafs.evals.human import human_preference
from hafs.evals.sealed import openings
from hafs.models.lineage import ancestry, training_runs
from hafs.models.naming import model_hash
from hafs.store import Store, open_store, open_workspace
from hafs.training import train_sft
from hafs.types import Annotation, Candidate, Edge, GroupCandidate, PreferenceGroup, Prompt, Ranking, Score, Verdict
from run_hafs import hafs, lines, own_cache, workspace

words = st.lists(
    st.sampled_from(
        ["write", "a", "routine", "that", "adds", "the", "byte", "at", "$10", "to", "$12", "with", "name", "Add"]
    ),
    min_size=3,
)


# contamination


@given(words, words)
def test_similarity_is_symmetric_and_one_only_for_the_same_words(a: list[str], b: list[str]) -> None:
    one, other = " ".join(a), " ".join(b)
    near = similarity(one, other)
    assert 0 <= near <= 1 and near == similarity(other, one)
    assert (near == 1) == (shingles(one) == shingles(other))
    assert similarity(one, f"  {one.upper()}!\n") == 1


@given(st.lists(words, min_size=1, max_size=8), st.lists(words, max_size=8))
def test_the_index_finds_what_comparing_all_pairs_finds(bench: list[list[str]], training: list[list[str]]) -> None:
    prompts = {str(i): " ".join(w) for i, w in enumerate(bench)}
    texts = [" ".join(w) for w in training]
    expected = {
        id: max(similarity(p, t) for t in texts)
        for id, p in prompts.items()
        if texts and max(similarity(p, t) for t in texts) >= THRESHOLD
    }
    hits = Index(prompts, templates=False).hits(("file", t) for t in texts)
    assert {h.prompt_id: h.similarity for h in hits} == pytest.approx(expected)


@pytest.fixture(scope="module")
def benchmark() -> list[str]:
    return [p.text for p in tasks.benchmark("asm")]


def test_held_out_phrasings_of_the_packs_are_no_copies(benchmark: list[str]) -> None:
    """Same families, other numbers, names and wordings: none is taken for a copy."""
    train = [p.text for p in tasks.generate("asm", "train", 400)]
    assert Index(dict(zip(benchmark, benchmark, strict=True))).hits(("train", t) for t in train) == []


@given(st.integers(0, 319), st.integers(0, 200), st.sampled_from(["word", "case", "space", "same"]))
def test_a_copy_is_caught_with_another_word_case_or_spacing(
    benchmark: list[str], which: int, where: int, how: str
) -> None:
    text = benchmark[which]
    parts = text.split(" ")
    changed = {
        "word": " ".join([*parts[: where % len(parts)], "changed", *parts[where % len(parts) + 1 :]]),
        "case": text.upper(),
        "space": text.replace(" ", "\n  "),
        "same": text,
    }[how]
    (hit,) = Index({"p": text}).hits([("train.jsonl", changed)])
    assert hit.similarity >= THRESHOLD and hit.where == "train.jsonl"


THINGS = ["a late parcel", "a refund", "a broken lamp", "an invoice", "two free tickets", "the summer sale"]
TEMPLATE = "Write one e-mail subject line about {}. Begin with 'Subject:'. At most 60 characters."


def test_prompts_of_one_template_are_a_family_and_copies_among_them_are_copies() -> None:
    texts = [TEMPLATE.format(x) for x in THINGS]
    held, train = {"a": texts[0], "b": texts[1]}, texts[2:]
    assert similarity(texts[0], texts[2]) >= THRESHOLD, "by their words alone they would be copies"
    assert Index(held).hits(("f", t) for t in train) == []
    (same,) = Index(held).hits(("f", t) for t in [*train, texts[1].upper()])
    assert same.prompt_id == "b" and same.similarity == 1
    reworded = texts[1].replace("e-mail", "email")
    assert [h.trained for h in Index(held).hits(("f", t) for t in [*train, reworded])] == [reworded]
    told = side_by_side(Hit("a", texts[0], texts[2], 0.7))
    assert "a late parcel" in told and "a broken lamp" in told
    two = Index({"a": texts[0]}).hits([("f", texts[2])])
    assert len(two) == 1, "two prompts alone show no template"


def test_a_split_keeps_copies_and_families_together(tmp_path: Path) -> None:
    rows = [{"text": TEMPLATE.format(x), "family": "subject"} for x in THINGS]
    rows += [{"text": TEMPLATE.format("a refund").replace("Write", "Compose"), "family": "subject"}]
    rows += [
        {"text": f"{verb} a file in Python with {n} lines and tell why", "family": f"f{n}"}
        for n in range(6)
        for verb in ("Read", "Write")
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    said = hafs("tasks", "split", file, "--by", "copies", "--json").ok().json
    assert said["repeats"] == 1 and sum(said["sizes"].values()) == len(rows) and min(said["sizes"].values()) > 0
    parts = {name: [row["text"] for row in lines(Path(path))] for name, path in said["files"].items()}
    refunds = {name for name, texts in parts.items() for t in texts if "a refund" in t}
    assert len(refunds) == 1, "the reworded prompt is on the side of the one it copies"
    for name, texts in parts.items():
        rest = [t for other, more in parts.items() if other != name for t in more]
        assert Index(dict(zip(texts, texts, strict=True)), others=rest).copies(rest) == {}
    shown = hafs("tasks", "split", file, "--output-dir", tmp_path / "by").ok().out
    assert "split by family" in shown and "1 repeats left out" in shown
    sides = {name: {row["family"] for row in lines(tmp_path / f"by/mine.{name}.jsonl")} for name in ("train", "test")}
    assert not sides["train"] & sides["test"]
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps(rows[0]) + "\n")
    hafs("tasks", "split", one).failed(2, "leave", "empty")


# a workspace with a trained model


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_cache(tmp_path_factory.mktemp("cache")) as path:
        yield path


TAUGHT = [f"Write a routine that adds {i} to the byte at ${i:02X} and name it Add{i}." for i in range(6)]


@pytest.fixture(scope="module")
def here(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A workspace with an SFT run on six prompts, and the model it began with and made evaluated on three others."""
    root = workspace(tmp_path_factory.mktemp("w"))
    groups = [PreferenceGroup(t, (GroupCandidate(f"answer {i}"),), ()) for i, t in enumerate(TAUGHT)]
    config = SFTConfig.model_validate(
        {
            "precision": "fp32",
            "learning_rate": 1e-3,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "lora": {"rank": 2, "alpha": 4},
        }
    )
    train_sft(str(tiny_model), groups, config, root / "models/sft")
    write(root / "clean.jsonl", [f"What comes after {i}?" for i in range(3)])
    write(root / "leaked.jsonl", ["What comes after one?", TAUGHT[2].upper(), TAUGHT[3].replace("routine", "function")])
    for name, model in (("baseline", tiny_model), ("sft", root / "models/sft/model")):
        for file in ("clean", "leaked"):
            evaluate(root, model, name, file)
    return root


def write(path: Path, texts: list[str]) -> Path:
    rows = [{"text": t, "references": [{"name": "r", "text": "yes"}]} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(root: Path, model: Path, name: str, file: str) -> None:
    hafs(
        "eval",
        "--model",
        model,
        "--name",
        name,
        "--benchmark",
        root / f"{file}.jsonl",
        "-w",
        root,
        "--output",
        root / f"{name}-{file}.json",
        *(["--allow-contaminated"] if file == "leaked" else []),
    ).ok()


def compared(root: Path, file: str, *more: str | Path) -> Any:
    specs = [f"{name}={root / f'{name}-{file}.json'}" for name in ("baseline", "sft")]
    return hafs("compare", *specs, "--reference", "baseline", "-w", root, *more)


def test_a_benchmark_that_was_trained_on_is_refused(here: Path) -> None:
    compared(here, "leaked").failed(
        2, "2 of 3 benchmark prompts are in the training data", "sft in sft", "similarity 1"
    )
    notes = compared(here, "leaked", "--allow-contaminated", "--json").ok().json["notes"]
    assert any(n.startswith("Contaminated: 2 of 3") for n in notes)
    notes = " ".join(compared(here, "clean", "--json").ok().json["notes"])
    assert "No benchmark prompt, nor a near copy" in notes and "sft in sft" in notes
    assert "What baseline was trained on is not known" in notes


def test_a_report_of_a_benchmark_that_was_trained_on_is_refused(here: Path) -> None:
    specs = [f"{name}={here / f'{name}-leaked.json'}" for name in ("baseline", "sft")]
    argv = ["report", *specs, "--reference", "baseline", "-w", here, "--output", here / "leaked.html"]
    hafs(*argv).failed(2, "2 of 3 benchmark prompts are in the training data", "--allow-contaminated")
    assert not (here / "leaked.html").exists()
    hafs(*argv, "--allow-contaminated").ok()
    assert "Contaminated: 2 of 3" in (here / "leaked.html").read_text()


def test_other_training_files_can_be_looked_through(here: Path) -> None:
    (here / "mine.jsonl").write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "What comes after 1?"}, {"role": "assistant", "content": "2"}]}
        )
        + "\n"
        + json.dumps({"prompt": "something else", "chosen": "a", "rejected": "b"})
        + "\n"
    )
    compared(here, "clean", "--training-data", here / "mine.jsonl").failed(2, "1 of 3", "mine.jsonl")


def test_what_is_evaluated_does_not_become_training_data(here: Path) -> None:
    with open_workspace(here).open_store() as store:
        asked = [p for p in store.prompts() if p.text.startswith("What comes")]
        assert {p.split for p in asked} == {"test"} and len(asked) == 4


def test_the_page_and_the_markdown_of_a_comparison(here: Path) -> None:
    compared(here, "clean", "--html", here / "c.html", "--markdown", here / "c.md", "--level", "0.9").ok()
    page, text = (here / "c.html").read_text(), (here / "c.md").read_text()
    for words_of in ("Win Rate vs Baseline", "Human Preference", "Wilson intervals"):
        assert words_of in page and words_of in text
    assert "90%" in page and "<script" not in page


def test_sampled_answers_are_compared_when_all_were_sampled(here: Path, tiny_model: Path) -> None:
    for name, model in (("baseline", tiny_model), ("sft", here / "models/sft/model")):
        hafs(
            "eval",
            "run",
            "--model",
            model,
            "--name",
            name,
            "--benchmark",
            here / "clean.jsonl",
            "-w",
            here,
            "--samples",
            "2",
        ).ok()
    data = compared(here, "clean", "--json").ok().json["sampled"]
    (found,) = data["sft"].values()
    assert set(found) == {"1", "2"} and found["2"]["n"] == 3
    assert "pass@2" in compared(here, "clean").ok().out
    compared(here, "clean", "--html", here / "k.html", "--markdown", here / "k.md").ok()
    assert "pass@2" in (here / "k.html").read_text() and "pass@2" in (here / "k.md").read_text()
    argv = ["report", "baseline", "sft", "--reference", "baseline", "--benchmark", "clean", "-w", here]
    hafs(*argv, "--output", here / "r.html").ok()
    assert "pass@2" in (here / "r.html").read_text() and "pass@2" in (here / "r.md").read_text()


def test_one_column_is_one_model(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "more.jsonl", ["What comes after 8?"])
    for name in ("mixed", "base"):
        for file in (here / "clean.jsonl", tmp_path / "more.jsonl"):
            model = here / "models/sft/model" if name == "mixed" and file.stem == "more" else tiny_model
            hafs("eval", "--model", model, "--name", name, "--benchmark", file, "-w", here).ok()
    for verb in ("compare", "report"):
        argv = [verb, "base", "mixed", "--reference", "base", "-w", here]
        hafs(*argv).failed(2, "mixed was evaluated as 2 models", "on clean", "on more", "evaluate it again")
        hafs(*argv, "--benchmark", "clean").ok()


def test_a_task_file_is_called_by_its_name_without_the_folder(
    here: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write(tmp_path / "own.jsonl", ["What comes after 1?", "What comes after 5?"])
    write(other / "own.jsonl", ["What comes after 6?"])
    write(other / "asm.jsonl", ["What comes after 7?"])
    for name, file in (("one", "own.jsonl"), ("two", "./own.jsonl"), ("three", other / "own.jsonl")):
        hafs("eval", "--model", tiny_model, "--name", name, "--benchmark", file, "-w", here).ok()
    data = hafs("compare", "one", "two", "--reference", "one", "-w", here, "--json").ok().json
    assert [b["name"] for b in data["benchmarks"]] == ["own"]
    for pair in (["one", "three"], ["three", "one"]):
        hafs("compare", *pair, "--reference", "one", "-w", here).failed(2, "different prompts under the name own")
    both = ["--benchmark", "own.jsonl", "--benchmark", other / "own.jsonl"]
    hafs("eval", "--model", tiny_model, *both, "-w", here).failed(2, "one name in results: own", "rename")
    hafs("eval", "--model", tiny_model, "--benchmark", other / "asm.jsonl", "-w", here).failed(2, "benchmark asm")


# the sealed set


def test_a_sealed_set_is_opened_once(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    final = write(tmp_path / "final.jsonl", ["last question one", "last question two"])
    hafs("eval", "seal", "final", final, "-w", here).ok()
    hafs("eval", "seal", "final", final, "-w", here).ok()
    other = write(tmp_path / "other.jsonl", ["another last question"])
    hafs("eval", "seal", "final", other, "-w", here).failed(2, "another set is sealed")
    hafs("eval", "seal", "asm", other, "-w", here).failed(2, "cannot be called 'asm'")
    hafs("eval", "seal", "used", here / "clean.jsonl", "-w", here).failed(2, "3 of the prompts are in the workspace")
    hafs("eval", "--model", tiny_model, "--benchmark", final, "-w", here).failed(2, "2 of these prompts are sealed")
    both = ["--model", f"baseline={tiny_model}", "--model", f"sft={here / 'models/sft/model'}", "-w", here]
    first = hafs("eval", "open", "final", *both, "--reference", "baseline", "--json").ok().json
    assert any("final is a sealed set, opened once" in n for n in first["notes"])
    assert first["benchmarks"][0]["prompts"] == 2
    again = hafs("eval", "open", "final", *both, "--reference", "baseline", "--json").ok().json
    assert again == first, "the same models once more show the same opening"
    alone = ["--model", f"other={tiny_model}", "-w", here]
    hafs("eval", "open", "final", *alone).failed(2, "final was opened before", "no longer a final test")
    forced = hafs("eval", "open", "final", *alone, "--again", "--json").ok().json
    assert any("opened 2 times" in n for n in forced["notes"])
    later = hafs("compare", "baseline", "sft", "--reference", "baseline", "-w", here, "--allow-contaminated").ok().out
    assert "opened 2 times" in " ".join(later.split()), "every later table says so"
    hafs("eval", "open", "nope", *alone).failed(2, "no set is sealed under the name 'nope'")


def test_a_sealed_copy_that_was_changed_is_not_opened(tiny_model: Path, tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    hafs("eval", "seal", "s", write(tmp_path / "s.jsonl", ["one", "two"]), "-w", root).ok()
    kept = root / "sealed/s.jsonl"
    kept.chmod(0o600)
    kept.write_text(kept.read_text().replace("two", "three"))
    hafs("eval", "open", "s", "--model", f"m={tiny_model}", "-w", root).failed(2, "is not what was sealed")


def test_a_sealed_prompt_is_neither_generated_for_nor_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    final = write(tmp_path / "final.jsonl", ["last question one", "last question two"])
    some = write(tmp_path / "some.jsonl", ["last question two", "a first question"])
    hafs("eval", "seal", "final", final, "-w", root).ok()
    refused = (2, "1 of these prompts are sealed in 'final'", "take them out")
    hafs("generate", "--model", tiny_model, "--prompts", some, "-w", root).failed(*refused)
    hafs("sft", "--model", tiny_model, "--data", some, "-w", root).failed(*refused)
    hafs("train", "ppo", "--sft-model", tiny_model, "--scorer", "exact", "--prompts", some, "-w", root).failed(*refused)
    with open_workspace(root).open_store() as store:
        assert not list(store.prompts()) and not (root / "models/sft").exists()


def test_a_sealed_set_that_a_model_was_trained_on_stays_sealed(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    final = write(tmp_path / "f.jsonl", ["last question of all", TAUGHT[4], TAUGHT[5].upper()])
    hafs("eval", "seal", "mixed", final, "-w", here).ok()
    argv = ["eval", "open", "mixed", "--model", f"sft={here / 'models/sft/model'}", "-w", here]
    hafs(*argv).failed(2, "2 of 3 benchmark prompts are in the training data", "stays sealed")
    with open_workspace(here).open_store() as store:
        assert not openings(store, "mixed")
    clean = hafs("eval", "open", "mixed", "--model", f"baseline={tiny_model}", "-w", here, "--json").ok().json
    assert any("What baseline was trained on is not known" in n for n in clean["notes"]), "it was still to be opened"
    forced = hafs(*argv, "--again", "--allow-contaminated", "--json").ok().json
    assert any(n.startswith("Contaminated: 2 of 3") for n in forced["notes"])


# people


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "s.db") as opened:
        yield opened


def answers_of(store: Store, prompt: str) -> dict[str, Candidate]:
    p = Prompt(prompt)
    store.add_prompts([p])
    made = {m: Candidate(p.id, f"{m} says", model=f"hash-{m}") for m in ("sft", "dpo", "other")}
    store.add_candidates(made.values())
    return made


def vote(store: Store, made: dict[str, Candidate], who: str, *tiers: str, mode: str = "ab", **more: Any) -> None:
    ids = tuple(tuple(made[m].id for m in tier.split("=")) for tier in tiers)
    shown = tuple(i for tier in ids for i in tier)
    prompt = next(iter(made.values())).prompt_id
    more.setdefault("submitted", float(sum(map(len, who))))
    store.add_annotations([Annotation(prompt, who, shown, "ranked", ids, mode, **more)])


MODELS = {"sft": "hash-sft", "dpo": "hash-dpo"}


def test_people_are_counted_by_prompt(store: Store) -> None:
    one, two, three, four = (answers_of(store, p) for p in ("a", "b", "c", "d"))
    vote(store, one, "ann", "dpo", "sft")
    vote(store, one, "bob", "dpo", "sft", submitted=9.0)
    vote(store, one, "eve", "sft", "dpo", submitted=8.0)  # two against one: the prompt is dpo's
    vote(store, two, "ann", "dpo", "sft")
    vote(store, two, "bob", "sft", "dpo", submitted=9.0)  # one each: decides nothing
    vote(store, three, "ann", "sft=dpo")  # a tie
    vote(store, three, "bob", "other", "dpo", submitted=9.0)  # another model
    vote(store, four, "ann", "sft", "other", "dpo", mode="rank")
    vote(store, four, "bob", "dpo", "sft", undone=1.0, submitted=9.0)  # taken back
    found, said = human_preference(store, MODELS)
    assert found == {"sft": (1, 2), "dpo": (1, 2)}
    assert "3 people" in said
    store.add_rankings([Ranking(three["sft"].prompt_id, ((three["dpo"].id,), (three["sft"].id,)), "human:mail")])
    found, _ = human_preference(store, MODELS)
    assert found == {"sft": (1, 3), "dpo": (2, 3)}
    assert human_preference(store, {"sft": "hash-sft"}) == ({}, "")


# history


def test_runs_are_found_and_chained(here: Path, tiny_model: Path) -> None:
    (run,) = training_runs([here, here / "models"])
    assert (run.kind, run.parent, run.model) == ("sft", model_hash(tiny_model), model_hash(here / "models/sft/model"))
    assert run.began_at == str(tiny_model) and [t.prompt for t in run.trained_on()] == TAUGHT
    assert ancestry(run.model, [run]) == [run] and ancestry(run.parent, [run]) == []
    assert training_runs([], [here / "models/sft/model"]) == [run], "found from the model alone"


def test_the_history_of_a_pair_goes_back_and_forward(
    here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    model = model_hash(here / "models/sft/model")
    prompt = Prompt("a question", family="easy", source="a file")
    good, bad = (
        Candidate(prompt.id, t, model, "sft", seed=7, index=i, sampling={"temperature": 0.8}, logprob=-1.5)
        for i, t in enumerate(("good", "bad"))
    )
    edges = (Edge(0, 1, 2.0, 0.9, "judge:m@1", False), Edge(0, 1, 1.0, 1.0, "exact@1"))
    group = PreferenceGroup(
        prompt.text,
        (GroupCandidate("good", good.id), GroupCandidate("bad", bad.id)),
        edges,
        prompt_id=prompt.id,
        family="easy",
    )
    with open_workspace(here).open_store() as store:
        store.add_prompts([prompt])
        store.add_candidates([good, bad])
        store.add_scores(
            [Score(good.id, "exact", "1", value=1.0, passed=True), Score(bad.id, "exact", "1", reason="it died")]
        )
        ranked = ((good.id,), (bad.id,))
        store.add_verdicts(
            [
                Verdict(prompt.id, "m", "pairwise@1", (good.id, bad.id), "ranked", ranked),
                Verdict(prompt.id, "m", "pairwise@1", (bad.id, good.id), "malformed", reason="prose"),
            ]
        )
        store.add_annotations([Annotation(prompt.id, "ann", (good.id, bad.id), "ranked", ((good.id,), (bad.id,)))])
        built = store.start_run("preferences", {"scheme": "all"})
        store.add_groups([group], run=built)
    config = {"precision": "fp32", "batch_size": 1, "gradient_accumulation_steps": 1, "lora": {"rank": 2, "alpha": 4}}
    from hafs.config import DPOConfig
    from hafs.training import train_dpo

    train_dpo(
        str(here / "models/sft/model"),
        [group],
        DPOConfig.model_validate({**config, "validation_share": 0.0}),
        here / "models/dpo",
        allow_uncalibrated=True,
    )
    told = hafs("explain", group.id[:8], "-w", here).ok().out
    for fact in (
        f"preference group: {group.id}",
        "prompt: ",
        "a question",
        "easy",
        "seed 7",
        "temperature 0.8",
        model,
        "log-probability -1.500",
        "exact@1 1 passed",
        "unscored, because it died",
        "weight 2, probability 0.9",
        "NOT calibrated",
        "m by pairwise@1: malformed",
        "ann (rank): ranked",
        built,
        "dpo in",
        "sft in",
    ):
        assert fact in told, fact
    tree = hafs("explain", f"{group.id}:1", "-w", here, "--json").ok().json
    kinds = [f["kind"] for f in tree["behind"]]
    assert kinds.count("edge 1") == 1 and "edge 0" not in kinds and "trained on by" in kinds
    forward = next(f for f in tree["behind"] if f["kind"] == "trained on by")
    assert forward["data"]["model"] == model_hash(here / "models/dpo/model")
    candidate = hafs("explain", good.id, "-w", here, "--json").ok().json
    (holding,) = [f for f in candidate["behind"] if f["kind"] == "preference group"]
    assert "wins 2 and loses 0" in holding["text"]
    assert any(f["kind"] == "trained on by" and "dpo" in f["text"] for f in holding["behind"])
    for name in (str(here / "models/dpo/model"), model_hash(here / "models/dpo/model")[:10]):
        chain = hafs("explain", name, "-w", here, "--json").ok().json
        made = [f["data"]["kind"] for f in chain["behind"] if f["kind"] == "made by"]
        assert made == ["dpo", "sft"]
        base = next(f for f in chain["behind"] if f["kind"] == "began with")
        assert base["data"]["model"] == model_hash(tiny_model)
    assert hafs("explain", prompt.id, "-w", here, "--json").ok().json["kind"] == "prompt"
    hafs("explain", "nothing-such", "-w", here).failed(2, "nothing here is called 'nothing-such'")
    hafs("explain", f"{group.id}:9", "-w", here).failed(2, "has no edge '9'", "0 to 1")


def test_the_beginning_of_an_id_must_name_one_thing(store: Store) -> None:
    store.add_prompts(Prompt(f"p{i}") for i in range(300))
    first = min(p.id for p in store.prompts())
    assert store.ids("prompts", first[:10]) == [first]
    assert len(store.ids("prompts", "")) == 100
    with pytest.raises(UsageError, match="no 'words'"):
        store.ids("words", "")
