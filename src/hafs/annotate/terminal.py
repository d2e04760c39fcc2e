"""Annotating in the terminal: the answers side by side, one line typed for each prompt.

A line is a ranking (`C A B D`, ties `C A=B D`, `!` or `~` after it for a clear or slight preference), a rating, or a
command of one letter; `?` lists them. What was edited is kept with the item, so leaving in the middle loses nothing.
"""

from __future__ import annotations

import pydoc
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from hafs.annotate.items import Item, Progress
from hafs.annotate.layout import screen
from hafs.annotate.ranking import example, implied_edges, parse_ranking
from hafs.annotate.service import AnnotationService
from hafs.annotate.visible import visible
from hafs.errors import UsageError
from hafs.types import Annotation

CONFIDENCE = {"!": "clear", "~": "slight"}

QUESTIONS = {"ab": "Which is better, A or B (= for a tie)?", "rate": "Rate 1-4 (1 wrong, 2 weak, 3 good, 4 excellent):"}

HELP = """\
{how}
  s  skip             x  all are bad     e  edit a better answer ($EDITOR)
  u  undo the last    n  cannot judge    v  view an answer whole (v A)
  f  flag, with note  q  stop            d  how far you are{check}"""

HOW = {
    "rank": "  C A B D   best to worst     C A=B D   A and B tie     C A   the rest unranked\n"
    "  C A B D ! clear preference  C A B D ~ slight preference",
    "ab": "  A   B   =   (with ! for a clear preference, ~ for a slight one)",
    "rate": "  1   2   3   4",
}


class Stop(Exception):
    """The person wants to stop."""


class Terminal:
    """A sitting of one annotator. `width` and `edit` are those of the real terminal unless given.

    `edit(text)` opens an editor and returns the new text, or None when it was not saved.
    """

    def __init__(
        self,
        service: AnnotationService,
        annotator: str,
        *,
        out: TextIO | None = None,
        edit: Callable[[str], str | None] | None = None,
        width: int | None = None,
    ) -> None:
        self._service, self._annotator = service, annotator
        self._out = out or sys.stdout
        self._edit, self._width = edit or _editor, width
        self._draft: dict[str, Any] = {}  # the edited answer of the item in hand
        self.answered = 0

    def run(self) -> Progress:
        """Ask until nothing is left or the person stops; returns how far they are. Ctrl-C is the caller's."""
        import readline  # noqa: F401  # line editing and history for input()

        try:
            while (item := self._service.next_item(self._annotator)) is not None:
                self._one(item)
        except (Stop, EOFError):
            self._say()
        return self._service.progress(self._annotator)

    # ---- one item

    def _one(self, item: Item) -> None:
        """Show an item and ask until it is answered or taken back."""
        self._say(self._header(item))
        self._say(screen(item, self._width or shutil.get_terminal_size().columns))
        if item.previous:
            self._say(f"\nYou said: {_said(item.previous)}")
        self._draft = {key: item.draft[key] for key in ("edited", "edited_of") if item.draft.get("edited")}
        if self._draft:
            self._say(f"\nYour edited {self._draft['edited_of']} is kept with the answer.")
        began = time.monotonic()
        while True:
            self._say("\n" + self._question(item))
            try:
                if self._answer(item, self._read("> "), time.monotonic() - began):
                    return
            except UsageError as e:
                self._say(f"{e.what}: {e.fix}" if e.fix else e.what)

    def _answer(self, item: Item, line: str, seconds: float) -> bool:
        """Do what was typed; True when the item is done with."""
        word, _, rest = line.strip().lower().partition(" ")
        commands: dict[str, Callable[[], bool]] = {
            "s": lambda: self._submit(item, seconds, answer="skipped"),
            "x": lambda: self._submit(item, seconds, answer="all_bad"),
            "n": lambda: self._submit(item, seconds, answer="cannot_judge"),
            "f": lambda: self._submit(item, seconds, answer="flagged", note=self._read("What is wrong? ").strip()),
            "u": self._undo,
            "e": lambda: self._edited(item),
            "v": lambda: self._view(item, rest),
            "k": lambda: self._check(item, rest),
            "d": self._progress,
            "?": lambda: self._help(item),
            "h": lambda: self._help(item),
            "q": self._stop,
        }
        if word in commands and (not rest or word in "vk"):
            return commands[word]()
        if not word:
            return False
        return self._submit(item, seconds, **self._read_answer(item, line))

    def _read_answer(self, item: Item, line: str) -> dict[str, Any]:
        """What an answer of the item's mode says; raises UsageError when it cannot be read."""
        text, confidence = line.strip(), ""
        if text[-1:] in CONFIDENCE:
            text, confidence = text[:-1].strip(), CONFIDENCE[text[-1]]
        if item.mode == "rate":
            if text not in ("1", "2", "3", "4"):
                raise UsageError(f"{text[:20]!r} is no rating", "type 1, 2, 3 or 4; ? lists the commands")
            return {"answer": "ranked", "value": float(text)}
        if item.mode == "ab" and text.upper() in ("A", "B", "="):
            text = {"A": "A B", "B": "B A", "=": "A=B"}[text.upper()]
        return {"answer": "ranked", "tiers": parse_ranking(text, item.labels), "confidence": confidence}

    def _submit(self, item: Item, seconds: float, **answer: Any) -> bool:
        made = self._service.submit(self._annotator, item.lease, seconds=round(seconds, 1), **answer, **self._draft)
        self.answered += 1
        if edges := implied_edges(answer.get("tiers", ())):
            self._say("\n".join(f"- Chosen: {a}, Rejected: {b}" for a, b in edges))
        self._reveal(made)
        self._say()
        return True

    # ---- commands

    def _undo(self) -> bool:
        if self._service.undo(self._annotator) is None:
            self._say("There is nothing to undo.")
            return False
        self.answered = max(0, self.answered - 1)
        self._say()
        return True

    def _edited(self, item: Item) -> bool:
        label = item.labels[0] if len(item.labels) == 1 else self._read("Edit which answer? ").strip().upper()
        if label not in item.labels:
            raise UsageError(f"there is no {label[:20]!r}", f"one of: {', '.join(item.labels)}")
        card = item.cards[item.labels.index(label)]
        mine = self._draft["edited"] if self._draft.get("edited_of") == label else card.text
        text = self._edit(mine)
        if text is None or text == mine:
            self._say("Nothing was changed.")
            return False
        self._draft = {"edited": text, "edited_of": label}
        self._service.draft(self._annotator, item.lease, {**item.draft, **self._draft})
        self._say(f"Your edited {label} is kept with the answer: it counts as better than {label}.")
        return False

    def _view(self, item: Item, label: str) -> bool:
        label = label.strip().upper() or item.labels[0]
        if label not in item.labels:
            raise UsageError(f"there is no {label[:20]!r}", f"v and one of: {', '.join(item.labels)}")
        pydoc.pager(visible(item.cards[item.labels.index(label)].text) + "\n")
        return False

    def _check(self, item: Item, label: str) -> bool:
        found = self._service.check(self._annotator, item.lease, label.strip() or item.labels[0])
        self._say(", ".join(f"{key} {visible(str(value))}" for key, value in found.items() if value not in (None, "")))
        return False

    def _progress(self) -> bool:
        self._say(progress_line(self._service.progress(self._annotator)))
        return False

    def _help(self, item: Item) -> bool:
        how = HOW.get(item.mode, HOW["rank"])
        check = "\n  k  check an answer (k A)" if self._service.settings.checks else ""
        self._say(HELP.format(how=how, check=check))
        return False

    def _stop(self) -> bool:
        raise Stop

    # ---- reading and writing

    def _header(self, item: Item) -> str:
        return f"[{item.position} of {item.total}]  s skip  u undo  f flag  ? help\n"

    def _question(self, item: Item) -> str:
        if item.mode in QUESTIONS:
            return QUESTIONS[item.mode]
        return f'Rank from best to worst (e.g., "{example(item.labels)}"):'

    def _reveal(self, annotation: Annotation) -> None:
        for row in self._service.reveal(annotation):
            name = row["model_name"] or row["model"][:8] or row["source"]
            said = [f"{s['scorer']} {s['value']:.2f}" for s in row["scores"] if s["value"] is not None]
            said += [f"{v['judge']}: {v['place']} of {v['of']}" for v in row["verdicts"] if v["place"]]
            self._say("  ".join([f"  {row['label']}", visible(name), *said]))

    def _read(self, prompt: str) -> str:
        if self._out is sys.stdout:
            return input(prompt)
        self._out.write(prompt)
        self._out.flush()
        return input()

    def _say(self, text: str = "") -> None:
        print(text.encode("utf-8", "replace").decode(), file=self._out, flush=True)


def progress_line(progress: Progress) -> str:
    """`12 of 100 done, 24 s each, about 35 minutes left`."""
    line = f"{progress.done} of {progress.total} done"
    if progress.median_seconds is None or progress.seconds_left is None:
        return line
    left = max(1, round(progress.seconds_left / 60))
    ending = f", about {left} minute{'s' * (left > 1)} left" if progress.left else ""
    return f"{line}, {progress.median_seconds:.0f} s each{ending}"


def _said(previous: Any) -> str:
    """An answer in the letters it was typed with."""
    if previous["answer"] != "ranked":
        return str(previous["answer"]).replace("_", " ")
    if previous["value"] is not None and not previous["tiers"]:
        return f"{previous['value']:g}"
    mark = {"clear": " !", "slight": " ~"}.get(previous["confidence"], "")
    return " ".join("=".join(tier) for tier in previous["tiers"]) + mark


def _editor(text: str) -> str | None:
    """The text after the person's editor ($VISUAL, $EDITOR); None when it was not saved."""
    import click

    return click.edit(text.encode("utf-8", "replace").decode(), extension=".txt")
