"""Everything that only a card can show, part by part; `--rehearse` does the same with tiny shapes on a processor.

A part is a process of its own with a time limit. It writes what it finds line by line, so what it has written is kept
when it fails or is cut; then the next one begins. Both pages, gpu.json and gpu.md, are written anew after every part.
The minutes that a part leaves over go to those after it. What an earlier call with the same --output found on the same
machine of parts that are not asked for now stays on the pages.

    exact      trainings in bf16 and NF4 against fp32, Flex against SDPA, tokens as a tree, resume, architectures
    training   against TRL at its best batch: pairs a second and peak memory
    large      a model of 14B shape under 16 GB and one of 7B under 24 GB: what the planner said, and what happened
    decoding   tokens a second: `generate`, the growing cache, the recorded graph; against the memory's bandwidth
    recipe     `asm` whole: SFT, two rounds of DPO, online DPO, PPO on the embedded model
    step       model FLOPs utilisation and profile of a training step, with and without torch.compile

This process imports nothing but the standard library, so that it works wherever Python does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import carry
import page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARES = {"exact": 3.0, "training": 7.0, "large": 5.0, "decoding": 3.0, "recipe": 5.0, "step": 2.0}
"""Minutes of 25 for each part, in the order of what matters most."""

PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "liger-kernel", "datasets")


@dataclass
class Part:
    """A part and what became of it: `state` is waiting, running, done, cut, failed or left out."""

    name: str
    state: str = "waiting"
    seconds: float = 0.0
    limit: float = 0.0
    said: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)


def main() -> None:
    options = _options()
    if options.carry:
        carry.pack(options.carry, say=print)
        return
    out = options.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    env = _environment(out, options.rehearse)
    about = {
        "rehearsal": options.rehearse,
        "command": " ".join(["benchmarks/gpu/run.sh", *sys.argv[1:]]),
        "minutes": options.minutes,
        **_machine(env),
    }
    parts = [Part(name) for name in options.parts]
    kept = _kept(out, about, options.parts)
    if not options.rehearse and not about["card"]:
        said = "no card that torch can use is here: try --rehearse"
        parts = [Part(p.name, "left out", said=said) for p in parts]
    _write(out, about, [*kept, *parts])
    deadline = time.monotonic() + 60 * options.minutes
    for i, part in enumerate(parts):
        if part.state != "waiting":
            continue
        ahead = sum(SHARES[p.name] for p in parts[i:])
        part.limit = max(0.0, deadline - time.monotonic()) * SHARES[part.name] / ahead
        part.state = "running"
        _write(out, about, [*kept, *parts])
        print(f"{part.name}: at most {part.limit:.0f} s", flush=True)
        _run(part, out, env, options.rehearse)
        print(
            f"{part.name}: {part.state} after {part.seconds:.0f} s{f': {part.said}' if part.said else ''}", flush=True
        )
        _write(out, about, [*kept, *parts])
    print((out / "gpu.md").read_text())
    print("RESULT " + json.dumps({p.name: p.state for p in parts}))
    sys.exit(0 if all(p.state == "done" for p in parts) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="for all parts together")
    parser.add_argument("--parts", default=",".join(SHARES), help="only these, by comma")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on a processor")
    parser.add_argument("--output", type=Path, default=Path("work/gpu"), help="where gpu.json and gpu.md go")
    parser.add_argument("--carry", type=Path, metavar="DIR", help="only fetch what a bare machine lacks, into DIR")
    options = parser.parse_args()
    asked = options.parts.split(",")
    options.parts = [name for name in SHARES if name in asked]
    if unknown := set(asked) - set(SHARES):
        parser.error(f"there is no part {min(unknown)!r}: use some of {', '.join(SHARES)}")
    if not 0 < options.minutes < float("inf"):
        parser.error("--minutes must be above 0")
    return options


def _kept(out: Path, about: dict[str, Any], asked: list[str]) -> list[Part]:
    """Parts that an earlier call on the same machine has run and this one is not asked for."""
    file = out / "gpu.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    same = all(before.get(key) == about[key] for key in ("rehearsal", "card", "versions"))
    earlier = [Part(**part) for name, part in before["parts"].items() if name not in asked] if same and before else []
    return [part for part in earlier if part.state in ("done", "cut", "failed")]


def _environment(out: Path, rehearse: bool) -> dict[str, str]:
    """What the parts are started with: the project's code, what was carried here, no network."""
    paths = [ROOT / "src", ROOT / "benchmarks", *carry.unpack(out), *carry.entry_points(out)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **carry.cache(out),
    }
    if rehearse:
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


ASK = """
import json, torch
card = torch.cuda.is_available()
p = torch.cuda.get_device_properties(0) if card else None
gb = p.total_memory / 1e9 if p else 0
print(json.dumps({"card": p.name if p else "", "gb": gb, "threads": torch.get_num_threads()}))
"""


def _machine(env: dict[str, str]) -> dict[str, Any]:
    """The device, and what is installed; torch is asked in a process of its own."""
    found: dict[str, Any] = {"card": "", "gb": 0.0, "threads": 0, "python": sys.version.split()[0], "versions": {}}
    for name in PACKAGES:
        found["versions"][name] = _version(name, env)
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True)
    if done.returncode == 0:
        found |= json.loads(done.stdout.splitlines()[-1])
    else:
        found["trouble"] = done.stderr.strip().splitlines()[-1:]
    return found


def _version(name: str, env: dict[str, str]) -> str:
    for folder in env["PYTHONPATH"].split(os.pathsep):
        for info in Path(folder).glob(f"{name.replace('-', '_')}-*.dist-info"):
            return info.name.split("-")[1].removesuffix(".dist")
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _run(part: Part, out: Path, env: dict[str, str], rehearse: bool) -> None:
    """Run a part to its end or its limit; it and all that it has started end with it."""
    rows, log = out / f"{part.name}.jsonl", out / f"{part.name}.log"
    rows.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{part.name}.py"), str(rows), "rehearse" if rehearse else "card"]
    began = time.monotonic()
    with log.open("w") as said:
        child = subprocess.Popen(
            [*command, str(int(part.limit))],
            env=env,
            cwd=ROOT,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(part.limit)
            part.state = "done" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            part.state, part.said = "cut", f"cut at its limit of {part.limit:.0f} s; what it had written is kept"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    part.seconds = time.monotonic() - began
    part.rows = _rows(rows)
    if part.state == "failed":
        part.said = (log.read_text(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    elif part.state == "done" and (bad := [r for r in part.rows if r.get("holds") is False]):
        part.state, part.said = "failed", f"{len(bad)} of its bounds do not hold: {bad[0]['what']}"


def _rows(path: Path) -> list[dict[str, Any]]:
    """What a part has written; a line that was cut short is none."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _write(out: Path, about: dict[str, Any], parts: list[Part]) -> None:
    """Both pages anew, each whole or not at all."""
    known = {p.name: asdict(p) for p in parts}
    made = {**about, "written": time.strftime("%Y-%m-%d"), "parts": {n: known[n] for n in SHARES if n in known}}
    for name, text in (("gpu.json", json.dumps(made, indent=1)), ("gpu.md", page.markdown(made))):
        (out / f".{name}").write_text(text + "\n")
        (out / f".{name}").replace(out / name)


if __name__ == "__main__":
    main()
