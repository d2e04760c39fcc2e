"""A `hafs.toml` that is there is obeyed or stops the verb; it is never passed over as if there were none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hafs.config import load_config
from hafs.errors import UsageError
from hafs.store import workspace_or_none
from run_hafs import hafs

TWICE = '[model]\nname = "default"\n\n[model]\nname = "other"\n'
MISSPELT = "[dpo]\nbeta = 0.2\n\n[dpo.lora]\nrnak = 8\n"
BAD_VALUE = "[eval]\nmax_new_tokens = 0\n"


@pytest.mark.parametrize(("text", "said"), [(TWICE, "line 4"), (MISSPELT, ":5: unknown setting 'dpo.lora.rnak'")])
def test_verbs_that_need_no_workspace_do_not_work_without_one_that_is_broken(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hafs.toml").write_text(text)
    inside = tmp_path / "deeper"
    inside.mkdir()
    monkeypatch.chdir(inside)
    pairs = inside / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    for verb in (
        ["train", "dpo", "--sft_model", "m", "--preference_data", str(pairs), "--output_dir", "o"],
        ["sft", "--model", "m", "--data", str(pairs), "--output_dir", "o"],
        ["compare", "a=a.json", "b=b.json"],
        ["export", "m", "--output", "o"],
        ["serve", "m"],
        [
            "serve",
            "default",
            "--host",
            "no.such.host.invalid",
            "--api-key",
            "k",
        ],  # where it is not read, it ends by itself
    ):
        hafs(*verb).failed(2, said)


def test_the_line_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    file = tmp_path / "hafs.toml"
    for text, line in ((BAD_VALUE, 2), ('dpo.beta = "much"\n', 1), ("[loop]\n\nmax_rounds = -1\n", 3)):
        file.write_text(text)
        with pytest.raises(UsageError, match=rf"hafs\.toml:{line}: "):
            load_config(file)


def test_what_cannot_be_read_is_no_missing_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    assert workspace_or_none() is None
    (tmp_path / "hafs.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        workspace_or_none()
    monkeypatch.setenv("HAFS_WORKSPACE", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no hafs workspace"):
        workspace_or_none()
