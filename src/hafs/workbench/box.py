"""The box: a prompt of one's own, answered by two models beside each other, blind if wished; the vote is a preference.

The answers are made by `hafs generate`, as in a terminal, and lie in the workspace as candidates of the prompt; the
vote is an answer of the kind that `hafs annotate` keeps. So what is tried here can be trained on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from hafs.errors import HafsError, UsageError
from hafs.files.jsonl import atomic_write
from hafs.models.lineage import training_runs
from hafs.models.naming import model_hash, resolve
from hafs.types import Annotation, Candidate, Prompt, content_id
from hafs.workbench.view import OpenWorkspace, Query, Sheet, View

FOLDER = ".tried"
SOURCE = "tried in the box"


def box(bench: OpenWorkspace, query: Query) -> View:
    """The box, and of what was tried the answers."""
    models = known_models(bench.root)
    prompt_id, one, other = (query.get(k, "") for k in ("prompt", "one", "other"))
    values: dict[str, object] = {"models": models, "one": one, "other": other, "blind": query.get("blind", "1") == "1"}
    values |= {"text": "", "prompt": prompt_id, "cards": [], "waiting": False, "trouble": "", "vote": ""}
    sheets: tuple[Sheet, ...] = ()
    if prompt_id:
        prompt = bench.store.get_prompt(prompt_id)
        if prompt is None:
            raise UsageError("that prompt is not here", "try it again")
        cards = _answers(bench, prompt_id, one, other)
        vote = _vote_of(bench, prompt_id, [c.id for c in cards])
        note = _note(bench.root, prompt_id, one, other)
        values |= {
            "text": prompt.text,
            "cards": cards if len(cards) == 2 else [],
            "waiting": len(cards) < 2 and not note,
            "trouble": note if len(cards) < 2 else "",
            "vote": vote,
            "blind": values["blind"] and not vote,
        }
        shown = (("", "") if values["blind"] else (c.model_name, c.model) for c in cards)
        rows = tuple((letter, *name, c.text) for letter, c, name in zip("AB", cards, shown, strict=False))
        sheets = (Sheet("Answers", ("letter", "model", "hash", "answer"), rows),)
    return View(
        "try",
        "Two models in a box",
        "Type a prompt; both models answer it on this machine.",
        sheets=sheets,
        values=values,
        template="box.html",
        live=bool(values["waiting"]),
    )


def known_models(root: Path) -> dict[str, str]:
    """The models of the workspace by what they are called: where each lies."""
    found = {
        r.directory.name: str(r.directory / "model") for r in training_runs([root]) if (r.directory / "model").is_dir()
    }
    return {**found, "default": "default"}


def _answers(bench: OpenWorkspace, prompt_id: str, one: str, other: str) -> list[Candidate]:
    """One answer of each of the two, in an order that says nothing."""
    models = known_models(bench.root)
    wanted = []
    for name in (one, other):
        if name not in models:
            raise UsageError(f"no model here is called {name!r}", f"use one of: {', '.join(models)}")
        wanted.append(model_hash(resolve(models[name])))
    first: dict[str, Candidate] = {}
    for c in bench.store.candidates(prompt_ids=prompt_id, model=wanted):
        first.setdefault(c.model, c)
    return sorted(first.values(), key=lambda c: content_id("box", prompt_id, c.id))


def _vote_of(bench: OpenWorkspace, prompt_id: str, ids: list[str]) -> str:
    """What the person has said of these two, in words."""
    for a in bench.store.annotations(prompt_ids=prompt_id, annotator=bench.who, mode="ab"):
        if set(a.shown) == set(ids):
            if a.answer != "ranked":
                return "both are bad"
            letter = {id: "AB"[i] for i, id in enumerate(ids)}
            return f"{letter[a.tiers[0][0]]} is better" if len(a.tiers) > 1 else "both are as good"
    return ""


def _path(root: Path, prompt_id: str, one: str, other: str) -> Path:
    return root / FOLDER / content_id(prompt_id, one, other)


def _note(root: Path, prompt_id: str, one: str, other: str) -> str:
    """How asking the models failed, if it did."""
    try:
        return _path(root, prompt_id, one, other).with_suffix(".txt").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def ask(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    """Have both models answer; gives the link of the page that shows them. Raises UsageError for an empty prompt."""
    text, one, other = fields.get("text", "").strip(), fields.get("one", ""), fields.get("other", "")
    models = known_models(bench.root)
    if not text:
        raise UsageError("the prompt is empty", "type one")
    if one == other or one not in models or other not in models:
        raise UsageError("two models are needed that differ", f"there are: {', '.join(models)}")
    prompt = Prompt(text, split="train", source=SOURCE)
    bench.store.add_prompts([prompt])
    path = _path(bench.root, prompt.id, one, other)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path.with_suffix(".jsonl")) as f:
        f.write(json.dumps(prompt.to_dict()) + "\n")
    path.with_suffix(".txt").unlink(missing_ok=True)
    work = (bench.root, path, [models[one], models[other]])
    threading.Thread(target=_generate, args=work, daemon=True).start()
    blind = {"blind": "1" if fields.get("blind") else "0"}
    return "/try?" + urlencode({"prompt": prompt.id, "one": one, "other": other, **blind})


def _generate(root: Path, path: Path, models: list[str]) -> None:
    """Ask one model after the other, as in a terminal; what went wrong is noted beside the prompt."""
    for model in models:
        flags = ["--model", model, "--prompts", str(path.with_suffix(".jsonl")), "--candidates-per-prompt", "1"]
        command = [sys.executable, "-m", "hafs", "generate", *flags, "--workspace", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            with atomic_write(path.with_suffix(".txt")) as f:
                f.write(done.stderr[-2000:] or f"hafs generate ended with {done.returncode}")
            return


def vote(bench: OpenWorkspace, fields: Mapping[str, str]) -> str:
    """Keep what the person says of the two answers as an answer of `hafs annotate`, mode ab."""
    said = fields.get("vote", "")
    cards = _answers(bench, fields.get("prompt", ""), fields.get("one", ""), fields.get("other", ""))
    if len(cards) < 2:
        raise UsageError("the answers are not there yet", "wait for both")
    a, b = (c.id for c in cards)
    tiers = {"A": ((a,), (b,)), "B": ((b,), (a,)), "equal": ((a, b),), "bad": ()}.get(said)
    if tiers is None:
        raise UsageError("a vote is A, B, equal or bad", "choose one")
    mine = list(bench.store.annotations(annotator=bench.who))
    for old in mine:
        if old.mode == "ab" and set(old.shown) == {a, b}:
            bench.store.undo_annotation(old.id)
    answer = "all_bad" if said == "bad" else "ranked"
    kept = Annotation(
        fields["prompt"],
        bench.who,
        (a, b),
        answer,
        tiers,
        "ab",
        submitted=time.time(),
        serial=len(mine),
        details={"box": True},
    )
    try:
        bench.store.add_annotations([kept])
    except HafsError as e:
        raise UsageError(e.what, e.fix) from e
    return "Kept. `hafs preferences build --from human` makes a pair of it."
