"""The plugin door: what docs/how-to/extend.md says works, and hafs works where the Super Nintendo domain is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "extend.md"

WITHOUT_SNES = """
import importlib.metadata as m, sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hafs_snes":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
real = m.entry_points
m.entry_points = lambda **about: [e for e in real(**about) if not e.value.startswith("hafs_snes")]
"""


def run(code: str, *words: str, path: Path | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(path), env.get("PYTHONPATH", "")])
    main = f"{code}\nimport sys\nsys.argv = ['hafs', *{list(words)!r}]\nfrom hafs.cli import main\nmain()\n"
    return subprocess.run([sys.executable, "-c", main], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's code as an installed package: a module for each, and their entry points."""
    folder = tmp_path_factory.mktemp("package")
    text = PAGE.read_text()
    for name, code in re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", text, re.S):
        (folder / name).write_text(code)
    info = folder / "my_hafs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-hafs\nVersion: 1\n")
    points = re.findall(r'\[project\.entry-points\."(.*?)"\]\n(\w+) = "(.*?)"', text)
    assert {group for group, _, _ in points} == {
        f"hafs.{kind}" for kind in ("scorers", "tasks", "losses", "backends", "domains")
    }
    (info / "entry_points.txt").write_text("\n".join(f"[{g}]\n{n} = {v}\n" for g, n, v in points))
    return folder


def test_the_page_on_plugins_works(package: Path, tmp_path: Path) -> None:
    def hafs(*words: str) -> str:
        done = run("", *words, path=package, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    hafs("init", ".")
    hafs("tasks", "generate", "sums", "--split", "train", "-n", "5", "--output", "sums.jsonl")
    hafs("generate", "--model", "echo:any", "--prompts", "sums.jsonl", "--candidates-per-prompt", "1")
    scored = json.loads(hafs("score", "--scorer", "short:40", "--json"))
    assert scored["scored"] == 5 and not scored["unscored"]
    result = json.loads(hafs("eval", "--model", "echo:any", "--benchmark", "hard_sums", "--name", "echo", "--json"))
    assert "Hard sums" in json.dumps(result) or "hard_sums" in json.dumps(result)
    assert "wrong sum" in hafs("failures", "echo")
    check = (
        "from hafs import registry; from hafs.training.losses import Edges, Strength; import torch\n"
        "t = torch.zeros(2); e = Edges(t, t, t, t, t + 1, t + 1, t + 1)\n"
        "assert registry.load('losses', 'squared')(e, Strength()).tolist() == [1.0, 1.0]; raise SystemExit"
    )
    done = run(check, path=package, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_hafs_works_without_the_super_nintendo(tmp_path: Path) -> None:
    def hafs(*words: str, code: int = 0) -> str:
        done = run(WITHOUT_SNES, *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "prompts" in hafs("tasks", "list") and "asm" not in hafs("tasks", "list")
    hafs("init", ".")
    hafs("tasks", "generate", "python", "--split", "train", "-n", "3", "--output", "p.jsonl")
    assert "there is no task named 'asm'" in hafs("tasks", "generate", "asm", "--split", "train", "-n", "3", code=2)
    assert "no scorer named 'asm'" in hafs("score", "--scorer", "asm", code=2)
    names = {check["name"] for check in json.loads(hafs("doctor", "--json"))["checks"]}
    assert "python" in names and not {"assembler", "emulator"} & names
    assert json.loads(hafs("tools", "install", "--json")) == {"tools": []}


def test_the_page_of_people_renders_without_a_domain(tmp_path: Path) -> None:
    code = (
        "from hafs.annotate.web.render import rendered\n"
        "from hafs.evals.words import title\n"
        "assert 'lda' in rendered('lda #$12\\nrts') and title('asm') == 'Asm Benchmark'; raise SystemExit"
    )
    done = run(WITHOUT_SNES + code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
