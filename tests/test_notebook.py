"""The Python interface: the script of the how-to page on a tiny model, lazy names, what is raised and warned of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import hafs as package
from hafs.errors import UsageError
from run_hafs import hafs, workspace

PAGE = Path(__file__).parents[1] / "docs/how-to/python.md"
THINGS = ["a refund", "a late parcel", "the new office", "a price rise", "the summer party", "a broken lift"]


def write(path: Path, texts: list[str], **more: Any) -> Path:
    checked = {"checker": "text:regex=subject", "references": ["a subject"]}
    rows = [{"text": t, **checked, **more} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of the page's script, and a workspace whose settings suit a tiny model."""
    monkeypatch.chdir(tmp_path)
    workspace(tmp_path / "work")
    asked = [f"Write one e-mail subject line about {x}." for x in THINGS]
    write(tmp_path / "prompts.jsonl", asked[:2])
    write(tmp_path / "examples.jsonl", asked[:4])
    write(tmp_path / "validation.jsonl", asked[4:5])
    write(tmp_path / "test.jsonl", asked[5:])
    return tmp_path


def test_the_script_of_the_page(here: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict[str, Any] = {}
    exec(script.replace('MODEL = "default"', f"MODEL = {str(tiny_model)!r}"), names)
    said = capsys.readouterr().out
    assert "{'scored': 8}" in said and "dpo" in said and "report.html" in said
    assert (here / "work/models/dpo/model/model.safetensors").is_file() and names["dpo"].steps >= 1
    shown = hafs("compare", "baseline", "sft", "dpo", "-w", here / "work", "--json").ok().json
    assert shown == json.loads(json.dumps(names["table"].to_dict())), "the verb finds what the script has done"
    again = package.train_dpo(names["space"], names["sft_model"], names["groups"], beta=0.1, learning_rate=5e-4)
    assert again.steps == names["dpo"].steps, "a finished run is returned at once"


def test_what_is_raised_and_what_is_warned_of(here: Path, tiny_model: Path) -> None:
    space = package.open_workspace(here / "work")
    with pytest.raises(UsageError, match="are in the training data, 2 word by word"):
        package.train_sft(space, tiny_model, here / "prompts.jsonl", validate=here / "prompts.jsonl")
    with pytest.raises(UsageError, match="beter"):
        package.train_dpo(space, tiny_model, [], beter=1)
    with pytest.raises(UsageError, match="nothing to train on"):
        package.train_dpo(space, tiny_model, [])
    bad = here / "bad.jsonl"
    bad.write_text(json.dumps({"frage": "x"}) + "\n" + json.dumps({"text": "y"}) + "\n")
    with pytest.warns(package.HafsWarning, match="1 rows could not be used"):
        assert [p.text for p in package.load_prompts(space, bad)] == ["y"]
    pairs = here / "pairs.csv"
    pairs.write_text("ask;best;worst\nq;a;b\n")
    with pytest.warns(package.HafsWarning, match="columns between semicolons"):
        (group,) = package.load_preferences(pairs, columns="prompt=ask,chosen=best,rejected=worst")
    assert group.prompt == "q"


def test_names_are_typed_documented_and_loaded_when_they_are_used() -> None:
    for name in package.__all__:
        found = getattr(package, name)
        assert found.__doc__, name
        if not isinstance(found, type):
            assert "return" in get_type_hints(found), name
    with pytest.raises(AttributeError, match="no attribute 'train_all'"):
        package.train_all  # noqa: B018
    code = "import sys, hafs; from hafs import UsageError; print('torch' in sys.modules, 'sqlalchemy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False False"
