"""Annotating in the terminal, driven in a real pseudo-terminal: the guide's dialogue, every command, leaving and coming
back, and answers that try to take the terminal over."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from hafs.annotate.items import Card
from hafs.annotate.layout import cards
from hafs.store import Store, open_workspace
from hafs.types import Candidate, Prompt, content_id
from run_hafs import hafs, workspace

GUIDE = """\
Prompt: Write a routine to load player state from WRAM

[A] LoadPlayerState:          [B] LoadPlayerState:
    LDA.w $0E20                   LDA $0E20
    AND.b #$1F                    STA $00
    STA.b $00                     RTS
    RTS

[C] LoadPlayerState:          [D] LoadPlayerState:
    ; Load Link's state           LDA.b #$0E20  ; WRONG: immediate mode!
    LDA.w $0E20                   STA.b $00
    AND.b #$1F                    RTS
    STA.b $00
    RTS

Rank from best to worst (e.g., "C A B D"):
> """

PAIRS = """\
- Chosen: C, Rejected: A
- Chosen: C, Rejected: B
- Chosen: C, Rejected: D
- Chosen: A, Rejected: B
- Chosen: A, Rejected: D
- Chosen: B, Rejected: D
"""

ANSWERS = [
    "LoadPlayerState:\nLDA.w $0E20\nAND.b #$1F\nSTA.b $00\nRTS",
    "LoadPlayerState:\nLDA $0E20\nSTA $00\nRTS",
    "LoadPlayerState:\n; Load Link's state\nLDA.w $0E20\nAND.b #$1F\nSTA.b $00\nRTS",
    "LoadPlayerState:\nLDA.b #$0E20  ; WRONG: immediate mode!\nSTA.b $00\nRTS",
]


def seed_for(prompt: Prompt, ids: list[str], name: str = "ann") -> int:
    """A seed that shows the candidates to `name` in the order of `ids`."""
    return next(
        s for s in range(1000) if sorted(ids, key=lambda id: content_id("shown", s, name, prompt.id, 0, id)) == ids
    )


class Sitting:
    """`hafs annotate start --terminal` in a pseudo-terminal of 80 columns."""

    def __init__(self, root: Path, *flags: str, env: dict[str, str] | None = None, rows: int = 60) -> None:
        argv = ["-m", "hafs", "annotate", "start", "--terminal", "-w", str(root), "--name", "ann", "--repeats", "0"]
        self.child = pexpect.spawn(
            sys.executable,
            [*argv, *flags],
            dimensions=(rows, 80),
            encoding="utf-8",
            timeout=240,
            env={**os.environ, "TERM": "dumb", **(env or {})},
        )

    def screen(self, ends: str = "> $") -> str:
        """What is printed up to the next question, without the echo's carriage returns."""
        self.child.expect(ends)
        text = self.child.before + self.child.after
        return str(re.sub(r"\x1b\[\?2004[hl]\r?", "", text).replace("\r\n", "\n").replace("\r", ""))

    def type(self, line: str, ends: str = "> $") -> str:
        """Type a line; what comes after it."""
        self.child.sendline(line)
        return self.screen(ends).removeprefix(line + "\n")

    def end(self, line: str | None = None) -> str:
        """Type a line and read to the end; the exit code must be 0."""
        if line is not None:
            self.child.sendline(line)
        self.child.expect(pexpect.EOF)
        text = str(self.child.before)
        self.child.close()
        assert self.child.exitstatus == 0, text
        return text.replace("\r\n", "\n").replace("\r", "")


def made(tmp_path: Path, prompts: int = 1) -> tuple[Path, Store, list[Prompt]]:
    """A workspace whose prompts all have the guide's four answers."""
    root = workspace(tmp_path / "w")
    store = open_workspace(root).open_store()
    texts = ["Write a routine to load player state from WRAM", *(f"Prompt number {i}" for i in range(1, prompts))]
    found = [Prompt(text) for text in texts]
    store.add_prompts(found)
    store.add_candidates(
        Candidate(p.id, text, model_name=f"model-{i}", index=i) for p in found for i, text in enumerate(ANSWERS)
    )
    return root, store, found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    root, store, prompts = made(tmp_path)
    with store:
        yield root, store, prompts[0]


def in_guides_order(root: Path, store: Store, prompt: Prompt) -> None:
    ids = {c.text: c.id for c in store.candidates(prompt_ids=prompt.id)}
    seed = seed_for(prompt, [ids[text] for text in ANSWERS])
    with (root / "hafs.toml").open("a") as f:
        f.write(f"[annotate]\nseed = {seed}\n")


def test_the_guides_dialogue_exactly(store: Any) -> None:
    root, db, prompt = store
    in_guides_order(root, db, prompt)
    sitting = Sitting(root)
    shown = sitting.screen()
    assert shown == "[1 of 1]  s skip  u undo  f flag  ? help\n\n" + GUIDE
    said = sitting.end("C A B D")
    assert said.removeprefix("C A B D\n").startswith(PAIRS)
    (kept,) = db.annotations()
    texts = {c.id: c.text for c in db.candidates()}
    assert [texts[id] for (id,) in kept.tiers] == [ANSWERS[i] for i in (2, 0, 1, 3)]
    assert [texts[id] for id in kept.shown] == ANSWERS
    assert kept.annotator == "ann" and kept.seconds is not None and kept.confidence == ""
    again = Sitting(root).end()
    assert "0 answered now, 1 in all, nothing is left" in again


def test_every_command_and_every_mistake(tmp_path: Path) -> None:
    root, db, _ = made(tmp_path, prompts=6)
    with db:
        sitting = Sitting(root)
        sitting.screen()
        assert "C A=B D   A and B tie" in sitting.type("?")
        assert 'C is named twice: write the letters from best to worst, such as "C A B D"' in sitting.type("C C")
        assert "there is no X" in sitting.type("A X")
        assert "There is nothing to undo." in sitting.type("u")
        assert "0 of 6 done" in sitting.type("d")
        shown = sitting.type("c a=b d !")
        assert shown.startswith(
            "- Chosen: C, Rejected: A\n- Chosen: C, Rejected: B\n- Chosen: C, Rejected: D\n"
            "- Chosen: A, Rejected: D\n- Chosen: B, Rejected: D\n\n[2 of 6]"
        )
        assert "You said: C A=B D !" in sitting.type("u")
        assert "[2 of 6]" in sitting.type("D A ~")
        assert "[3 of 6]" in sitting.type("s")
        assert "[4 of 6]" in sitting.type("x")
        assert "[5 of 6]" in sitting.type("n")
        sitting.type("f", r"wrong\? $")
        assert "[6 of 6]" in sitting.type("two answers are the same")
        assert "5 answered now, 5 in all, 1 left; the same command goes on" in sitting.end("q")
        kept = list(db.annotations())
        assert [a.answer for a in kept] == ["ranked", "skipped", "all_bad", "cannot_judge", "flagged"]
        assert (len(kept[0].tiers), kept[0].confidence) == (2, "slight")
        assert kept[4].note == "two answers are the same"
        assert next(a.confidence for a in db.annotations(undone=True)) == "clear"
        sitting = Sitting(root)
        assert "[6 of 6]" in sitting.screen()
        sitting.child.sendintr()
        sitting.child.expect(pexpect.EOF)
        sitting.child.close()
        assert sitting.child.exitstatus == 130 and "Traceback" not in sitting.child.before


def test_an_edited_answer_outlives_the_terminal(store: Any, tmp_path: Path) -> None:
    root, db, _ = store
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nprintf 'a better answer\\n' > \"$1\"\n")
    editor.chmod(0o755)
    sitting = Sitting(root, env={"VISUAL": "", "EDITOR": str(editor)})
    sitting.screen()
    sitting.type("e", r"answer\? $")
    assert "Your edited B is kept with the answer: it counts as better than B." in sitting.type("b")
    sitting.child.kill(9)
    sitting.child.close()
    sitting = Sitting(root)
    assert "Your edited B is kept with the answer." in sitting.screen()
    sitting.end("A=B C")
    (kept,) = db.annotations()
    (written,) = db.candidates(source="edited:ann")
    assert written.text == "a better answer\n"
    assert kept.details["edited"] == {"candidate": written.id, "of": kept.shown[1]}


def test_what_a_model_wrote_cannot_reach_the_terminal(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    with open_workspace(root).open_store() as db:
        prompt = Prompt("show \x1b[31mthis")
        db.add_prompts([prompt])
        hostile = ["\x1b[2J\x1b]0;title\x07gone", "abc\u202egpj.exe", "x\0\x08\x08y\r\nz", "\x9b31m" + "w" * 5000]
        db.add_candidates(Candidate(prompt.id, text, index=i) for i, text in enumerate(hostile))
        sitting = Sitting(root)
        shown = sitting.screen()
        assert "show ⟦ESC⟧[31mthis" in shown and "⟦ESC⟧[2J⟦ESC⟧]0;title⟦BEL⟧gone" in shown
        assert "abc⟦U+202E⟧gpj.exe" in shown and "x⟦NUL⟧⟦BS⟧⟦BS⟧y\n" in shown and "⟦U+009B⟧31m" in shown
        assert not re.search("[\x00\x07\x08\x1b\x9b\u202e]", shown)
        sitting.end("q")


def test_rating_and_choosing_between_two(tmp_path: Path) -> None:
    root, db, (prompt,) = made(tmp_path)
    with db:
        sitting = Sitting(root, "--mode", "rate", "--candidates", "2")
        assert sitting.screen().endswith("Rate 1-4 (1 wrong, 2 weak, 3 good, 4 excellent):\n> ")
        assert "'5' is no rating" in sitting.type("5")
        assert "[2 of 2]" in sitting.type("3")
        sitting.end("1")
        assert [a.value for a in db.annotations(mode="rate")] == [3.0, 1.0]
        db.add_candidates([Candidate(prompt.id, f"by {m}", model=m, model_name=m) for m in ("m1", "m2")])
        with (root / "hafs.toml").open("a") as f:
            f.write('[annotate]\nmode = "ab"\nmodels = ["m1", "m2"]\n')
        sitting = Sitting(root)
        assert sitting.screen().endswith("Which is better, A or B (= for a tie)?\n> ")
        assert "- Chosen: B, Rejected: A" in sitting.end("b !")
        (kept,) = db.annotations(mode="ab")
        assert kept.confidence == "clear" and len(kept.tiers) == 2


def test_candidates_are_made_on_the_spot_while_the_person_ranks(tmp_path: Path, tiny_model: Path) -> None:
    """The guide's command, with a tiny model: prompts of a file, no answers yet; then the preferences are written."""
    root = workspace(tmp_path / "w")
    (tmp_path / "p.jsonl").write_text("".join(f'{{"text": "prompt {i}"}}\n' for i in range(3)))
    flags = [
        "--model",
        str(tiny_model),
        "--num-candidates",
        "4",
        "--num-samples",
        "2",
        "--prompts",
        str(tmp_path / "p.jsonl"),
        "--reveal",
        "--output",
        str(tmp_path / "human.jsonl"),
    ]
    sitting = Sitting(root, *flags, env={"OMP_NUM_THREADS": "1"})
    assert "[1 of 2]" in sitting.screen()
    assert "[2 of 2]" in sitting.type("C A B D")
    said = sitting.end("D C B A")
    assert "2 preference groups written" in said and "  A  " in said
    with open_workspace(root).open_store() as db:
        assert len(list(db.annotations())) == 2
        assert {len(list(db.candidates(prompt_ids=a.prompt_id))) for a in db.annotations()} == {4}
    assert (tmp_path / "human.jsonl").read_text().count('"human:ann"') == 12
    hafs("annotate", "stats", "-w", root).ok()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.text("bc 漢ｶ\t", max_size=60), min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(24, 200),
)
def test_no_line_is_wider_than_the_terminal_and_no_character_is_lost(texts: list[list[str]], width: int) -> None:
    shown = cards([Card(str(i), "ABCDEFGH"[i], "\n".join(lines)) for i, lines in enumerate(texts)], width)
    assert all(cell_len(line) <= width for line in shown.split("\n"))
    for letter in "bc漢ｶ":  # no "a": an empty answer is shown as one
        assert shown.count(letter) == sum(line.count(letter) for lines in texts for line in lines)
    empty = sum(not "".join(lines).strip() for lines in texts)
    assert shown.count("(an") == empty or width < 30
    assert re.findall(r"\[([A-H])\]", shown) == list("ABCDEFGH"[: len(texts)])
