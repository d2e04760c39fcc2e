"""Files that are cut short, altered, replaced or gone: the verb that reads them ends well or with a message.

Where it ends well although what it leaves is otherwise than with the whole file, it must have said so: with the name of
the file, of its folder, or of the row. A bit in the weights of a model that nobody has hashed cannot be noticed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from boundaries import PATH, Ended, Play, Verb, playing
from catalogue import Fault, Outcome


def middle(data: bytes, what: bytes) -> bytes:
    """`data` with its middle overwritten."""
    at = len(data) // 2
    return data[:at] + what + data[at + len(what) :]


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda d: b"",
    "cut in half": lambda d: d[: len(d) // 2],
    "without its last byte": lambda d: d[:-1],
    "with a bit turned over": lambda d: middle(d, bytes([d[len(d) // 2] ^ 0x10])),
    "with NULs in the middle": lambda d: middle(d, bytes(16)),
    "with bytes that are no UTF-8": lambda d: middle(d, b"\xff\xfe\xfd"),
    "deep JSON": lambda d: b"[" * 100_000,
    "a number of 10,000 digits": lambda d: b"1" * 10_000,
    "JSON of another kind": lambda d: b"[1, null, {}]",
    "in UTF-16": lambda d: b"\xff\xfe" + d.decode("latin-1").encode("utf-16-le"),
}


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


OTHERS: dict[str, Callable[[Path], None]] = {
    "gone": lambda p: p.unlink(),
    "a folder": replace_by_folder,
    "a link to itself": replace_by_loop,
}
WEIGHTS = ("emptied", "cut in half", "without its last byte", "deep JSON", "gone", "a folder", "a link to itself")

TARGETS = (
    ("import of prompts", "prompts.jsonl"),
    ("import of prompts", "hafs.toml"),
    ("import of prompts", "hafs.db"),
    ("sft", "sft.jsonl"),
    ("sft", "model/config.json"),
    ("sft", "model/tokenizer.json"),
    ("sft", "model/tokenizer_config.json"),
    ("sft", "model/model.safetensors"),
    ("sft again", "models/sft/run.json"),
    ("sft again", "models/sft/log.jsonl"),
    ("sft again", "models/sft/.holder.json"),
    ("sft again", "models/sft/checkpoints/*/state.pt"),
    ("sft again", "models/sft/checkpoints/*/weights.safetensors"),
    ("sft again", "models/sft/checkpoints/*/hashes.json"),
    ("generate", "hafs.db"),
    ("generate", "models/sft/model/config.json"),
    ("generate", "models/sft/model/model.safetensors"),
    ("generate", "models/sft/data.jsonl"),
    ("score", "hafs.db"),
    ("dpo", "groups.jsonl"),
    ("dpo", "models/sft/run.json"),
    ("ppo", "models/reward/run.json"),
    ("ppo", "models/reward/checkpoints/*/weights.safetensors"),
    ("evaluation of sft", "held.jsonl"),
    ("report", "models/dpo/log.jsonl"),
    ("report", "models/dpo/run.json"),
    ("report", "models/dpo/data.jsonl"),
    ("export of a model", "models/dpo/run.json"),
    ("export of a model", "models/dpo/model/chat_template.jinja"),
    ("comparison", "models/sft/data.jsonl"),
)
QUICK = ("import of prompts", "sft", "sft again", "generate")
CUT_OFF = 0.6
"""Where "sft again" was killed before, as a share of its boundaries."""

SHORT = 40
FAULTS = [
    Fault(f"{verb}: {path} {how}", f"{verb}|{path}|{how}")
    for verb, path in TARGETS
    for how in (*BYTES, *OTHERS)
    if how in WEIGHTS or not (path.endswith("model.safetensors"))
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each verb with each of its files in each state."""
    verbs = {verb.name: verb for verb in PATH}
    with playing() as play:
        for fault in [f for f in faults if f.attack.split("|")[0] in QUICK] if quick else faults:
            name, path, how = fault.attack.split("|")
            verb = verbs[name.removesuffix(" again")]
            play.undisturbed(verb)
            root = play.fresh(verb)
            if name != verb.name:
                play.run(verb, root, round(CUT_OFF * len(play.quiet[verb.name].passed)))
            found = sorted(root.glob(path))
            if not found:
                yield Outcome(fault.name, lost=True, note=f"there is no {path}")
                continue
            damage(found[-1], how)
            yield judged(play, verb, fault.name, found[-1], play.run(verb, root))


def damage(path: Path, how: str) -> None:
    """Bring a file into a state."""
    if path.name == "hafs.db":
        for beside in path.parent.glob("hafs.db-*"):
            beside.unlink()
    if how in BYTES:
        path.write_bytes(BYTES[how](path.read_bytes()))
    else:
        OTHERS[how](path)


def judged(play: Play, verb: Verb, fault: str, path: Path, ended: Ended) -> Outcome:
    """Whether a verb that read a damaged file said so, or left what it leaves with the whole one."""
    root = play.folder / "here"
    if ended.code == 0:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.is_symlink():
            path.unlink()
        name = os.fspath(path.relative_to(root))
        differing = [k for k in play.differs(verb, root) if not k.startswith(name)]
        said = (
            path.name in ended.text or path.parent.name in ended.text or bool(re.search(r"\b(row|line)\b", ended.text))
        )
        return Outcome(
            fault, lost=bool(differing) and not said, note=f"differs in {differing[:6]}: {ended.text[-300:]}"
        )
    return Outcome(fault, lost=not ended.explained, note=f"{ended.code}: {ended.text[-900:]}")
