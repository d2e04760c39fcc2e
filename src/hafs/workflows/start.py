"""From a user's prompts and check to a workspace that `hafs loop run` can work in.

The prompts are read as every verb reads them, given the check that was chosen, tried with it, split without leaks, and
written as task rows beside a `hafs.toml` whose settings follow docs/how-to/which-method.md.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hafs.config import parse_config
from hafs.data import Columns, ColumnsRow, Loaded, load, read_prompts
from hafs.data.examples import example_in
from hafs.errors import DataError, HafsError, UsageError
from hafs.evals.split import SPLITS, PromptSplit, split_prompts
from hafs.files.jsonl import atomic_write, write_jsonl
from hafs.models.naming import DEFAULT_NAMES, base_of, resolve
from hafs.scorers.run import NONSENSE, AutomaticScorer, checker_of
from hafs.store import Workspace, init_workspace
from hafs.types import Candidate, Progress, Prompt, Reference, Score, silent

KINDS = {
    "tests": "each row says how it is checked (its tests or cases, a command, a schema)",
    "exact": "the answer must be one of the row's reference answers",
    "function": "a Python function: my_check.py:score",
    "command": "a command that gets the answer as {file}: command:python3 check.py {file}",
    "regex": "a pattern that must be found: regex:^Subject:",
    "schema": "JSON that keeps to a schema: schema:order.schema.json",
    "judge": "a language model compares answers: judge:claude-opus-4-5",
    "people": "people rank answers",
}
"""How answers may be checked: what `--check` begins with, and what it means."""
WRITTEN = "# Written by `hafs start`"
"""How a `hafs.toml` begins that `hafs start` wrote."""
SHARES = {"validation": 0.25, "test": 0.25}
"""Of the prompts: one half of the validation part decides, the other picks checkpoints; the test part is reported."""
SMALL = 2 * 2**30
"""Bytes of weights up to which a model gets the rates that were measured on the embedded one."""
STEPS = 36
"""Steps of SFT, of four examples each, that a small model gets where six passes make so many."""
TRIED = 200
"""References that are tried at most."""


@dataclass(frozen=True)
class ChosenCheck:
    """How answers are checked: one of KINDS, or "scorer" for another expression, and what it is about."""

    kind: str
    argument: str = ""

    @property
    def decides(self) -> bool:
        """Whether a program says right or wrong of an answer alone; judges and people compare answers."""
        return self.kind not in ("judge", "people")

    def __str__(self) -> str:
        return (
            self.argument if self.kind == "scorer" else f"{self.kind}:{self.argument}" if self.argument else self.kind
        )


@dataclass(frozen=True)
class Trial:
    """What checkers said of reference answers, of an empty answer and of nonsense.

    `wrong` are references that their own check refuses, by prompt; `slow` of them it did not come to an end with, which
    says nothing of them; `shown` has a few of them all, in words.
    """

    tried: int
    right: int
    slow: int
    wrong: Mapping[str, str]
    shown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Started:
    """What was made: the workspace, its files, what became of the prompts, and what to type next."""

    root: Path
    sizes: Mapping[str, int]
    by: str
    files: Mapping[str, str]
    sft: bool
    next: tuple[str, ...]
    minutes: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**vars(self), "root": str(self.root), "next": list(self.next)}


# ---- the answers to the questions


def parse_check(text: str) -> ChosenCheck:
    """What `--check` says. Raises UsageError for what is none."""
    kind, _colon, argument = text.strip().partition(":")
    if kind == "rows":
        kind = "tests"
    if kind not in KINDS:
        if not text.strip():
            raise UsageError("it is not said how an answer is checked", _how())
        return ChosenCheck(
            "function" if ".py" in text and "*" not in text and ">" not in text else "scorer", text.strip()
        )
    needs = kind in ("function", "command", "regex", "schema", "judge")
    if needs and not argument.strip():
        raise UsageError(f"--check {kind}: it is not said which", f"write it as in: {KINDS[kind]}")
    if argument and not needs:
        raise UsageError(f"--check {kind} takes nothing behind it", f"--check {kind}")
    if kind == "command" and "{file}" not in argument:
        raise UsageError(f"the command {argument!r} never sees the answer", "put {file} where its path belongs")
    return ChosenCheck(kind, argument.strip())


def _how() -> str:
    return "--check " + ", --check ".join(KINDS)


def read(source: Path, columns: Columns | None = None) -> Loaded[Prompt]:
    """The prompts of a file, with an answer column as their reference where task rows have none."""
    found = read_prompts(source, columns)
    if any(p.references for p in found.rows):
        return found

    def answered(row: ColumnsRow) -> Prompt:
        group = example_in(row)
        references = tuple(Reference(f"reference {n}", c.text) for n, c in enumerate(group.candidates, 1))
        plain = Prompt(group.prompt, group.system, context=group.context, tools=group.tools)
        more = {k: row[k] for k in ("family", "category", "checker", "check") if row.get(k)}
        return replace(plain, references=references, **more)

    try:
        with_answers = load(source, answered, columns, whole=True)
    except (DataError, UsageError):
        return found
    return with_answers if len(with_answers.rows) == len(found.rows) else found


def guess(prompts: Sequence[Prompt]) -> str:
    """The check that the rows themselves suggest; "" for none."""
    if all(p.checker for p in prompts):
        return "tests"
    return "exact" if all(p.references for p in prompts) else ""


def check_model(name: str) -> tuple[str, bool]:
    """The model's name as it is right from any folder, and whether it is small enough for the embedded one's rates.

    Raises UsageError for one that cannot be trained, and what `resolve` raises.
    """
    if name.startswith(("openai:", "anthropic:", "ollama:", "vllm:")):
        raise UsageError(f"{name} is behind a server, and only a model's own weights can be trained", "a directory")
    path = resolve(name)
    path = base_of(path) if (path / "adapter_config.json").is_file() else path
    weights = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    own = Path(name).expanduser()
    whole = str(own.absolute()) if own.is_dir() and name not in DEFAULT_NAMES else name
    return whole, sum(f.stat().st_size for f in weights) <= SMALL


# ---- the prompts with their check


def with_check(prompts: Sequence[Prompt], check: ChosenCheck) -> list[Prompt]:
    """The prompts with the check in each row; repeats are left out.

    Raises UsageError where a row has nothing to be checked by, or a file is not there.
    """
    unique = list({p.id: p for p in reversed(prompts)}.values())[::-1]
    if check.kind == "tests":
        if without := [p for p in unique if not p.checker]:
            raise UsageError(
                f"{len(without)} of {len(unique)} rows do not say how they are checked: {without[0].text[:60]!r}",
                'put "checker" and "check" into the row, or say another --check',
            )
        return [replace(p, check=_absolute(p)) for p in unique]
    if check.kind == "exact" and (without := [p for p in unique if not p.references]):
        raise UsageError(
            f"{len(without)} of {len(unique)} rows have no reference answer: {without[0].text[:60]!r}",
            "give each row an answer (--columns says which column it is), or say another --check",
        )
    if not check.decides:
        return [replace(p, checker="", check={}) for p in unique]
    checker, data = _in_row(check)
    return [replace(p, checker=checker, check=data or (p.check if checker == p.checker else {})) for p in unique]


def _in_row(check: ChosenCheck) -> tuple[str, dict[str, Any]]:
    """(checker, check) as they stand in a row."""
    if check.kind == "command":
        return "code", {"run": _command(check.argument)}
    if check.kind == "regex":
        return "text", {"regex": check.argument}
    if check.kind == "schema":
        return "text", {"schema": _schema(check.argument)}
    if check.kind == "function":
        path, _, name = check.argument.removeprefix("function:").partition(":")
        where = f"{Path(path).expanduser().absolute()}:{name or 'score'}"
        return (f"function:'{where}'" if set(where) & set(" +>*='\"") else where), {}
    return (check.argument or check.kind), {}


def _absolute(prompt: Prompt) -> Mapping[str, Any]:
    """A row's check with its command as it can be run from any folder."""
    run = prompt.check.get("run") if prompt.checker == "code" else None
    return {**prompt.check, "run": _command(run)} if isinstance(run, str) and run else prompt.check


def _command(run: str) -> str:
    """A command with the paths of its files whole."""
    try:
        words = shlex.split(run)
    except ValueError as e:
        raise UsageError(f"the command {run!r} cannot be read: {e}", "close its quotes") from e
    whole = [str(Path(w).absolute()) if "{file}" not in w and Path(w).is_file() else w for w in words]
    return run if whole == words else shlex.join(whole).replace("'{file}'", "{file}")


def _schema(source: str) -> dict[str, Any]:
    try:
        found = json.loads(source if source.startswith("{") else Path(source).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"the schema {source!r} cannot be read: {e}", "name a file with a JSON schema") from e
    if not isinstance(found, dict):
        raise UsageError(f"the schema {source!r} is no JSON object", "name a file with a JSON schema")
    return found


def try_checks(prompts: Sequence[Prompt], progress: Progress = silent) -> Trial:
    """Try the checks of `prompts` on their references, and one prompt of each on an empty answer and on nonsense.

    Raises UsageError when a check cannot be run, gives no verdict, takes nonsense, or refuses most references.
    """
    answered = [p for p in prompts if p.references]
    chosen = answered[:TRIED]
    alone = list({checker_of(p): p for p in [*reversed(prompts), *reversed(answered)]}.values())
    asked = [(p, r.text) for p in chosen for r in p.references[:1]]
    bad = [(p, text) for p in alone for text in ("", NONSENSE)]
    with closing(AutomaticScorer(parse_config({}))) as scorer:
        items = [(p, Candidate(p.id, text)) for p, text in [*bad, *asked]]
        scores = []
        for done, score in enumerate(scorer.score(items), 1):
            scores.append(score)
            progress("trying the check", done, len(items), {})
    for (prompt, text), score in zip([*bad, *asked], scores, strict=True):
        if score.value is None:
            about = "a reference answer" if text and text != NONSENSE else "an answer"
            raise UsageError(
                f"the check cannot be run on {about} of {prompt.text[:60]!r}: {score.reason}", "correct the check"
            )
    for (prompt, text), score in zip(bad, scores, strict=False):
        if score.passed is not False:
            what = repr(text) if text else "an empty answer"
            verdict = "says neither right nor wrong of" if score.passed is None else "takes"
            raise UsageError(f"the check of {prompt.text[:60]!r} {verdict} {what}", "make it ask for more")
    said = [x for x in zip(asked, scores[len(bad) :], strict=True) if x[1].cause != "timeout"]
    slow = len(asked) - len(said)
    if asked and not said:
        raise UsageError("the check came to an end with no reference answer in its time", "give it more: seconds=60")
    wrong = {p.id: s.cause or "wrong" for (p, _), s in said if not s.passed}
    if 2 * len(wrong) > len(said):
        (first, text), score = next(x for x in said if not x[1].passed)
        why = str(score.details.get("output", "")).strip() or score.cause or "it says no more"
        raise UsageError(
            f"the check refuses {len(wrong)} of {len(said)} reference answers, such as {text[:60]!r} to"
            f" {first.text[:60]!r}: {why}",
            "correct the check or the references",
        )
    shown = [(f"reference {text[:40]!r}", _verdict(s)) for (_, text), s in said[:3]]
    for (_, text), score in zip(bad[:2], scores, strict=False):
        shown.append((repr(text) if text else "empty answer", _verdict(score)))
    return Trial(len(said), len(said) - len(wrong), slow, wrong, tuple(shown))


def _verdict(score: Score) -> str:
    return "right" if score.passed else f"wrong ({score.cause})" if score.cause else "wrong"


def without_wrong(prompts: Sequence[Prompt], trial: Trial) -> list[Prompt]:
    """The prompts without the references that their own check refuses."""
    return [replace(p, references=p.references[1:]) if p.id in trial.wrong else p for p in prompts]


def split(prompts: Sequence[Prompt]) -> PromptSplit:
    """The prompts split as `hafs tasks split` does; where the rows themselves have all three splits, by these.

    Raises UsageError where there are too few.
    """
    marked = {s: tuple(p for p in prompts if p.split == s) for s in SPLITS}
    if all(marked.values()):
        return PromptSplit(marked, "the rows' own splits", ())
    if len(prompts) < 12:
        raise UsageError(f"{len(prompts)} prompts are too few to learn from, decide by and report on", "at least 12")
    return split_prompts(prompts, SHARES)


# ---- the settings


def settings(
    model: str, parts: Mapping[str, Sequence[Prompt]], check: ChosenCheck, minutes: float, tokens: int, small: bool
) -> str:
    """The text of `hafs.toml`."""
    train, held = parts["train"], len(parts["validation"])
    taught = sum(bool(p.references) for p in train)
    short = minutes <= 20
    rounds = 1 if short else 2 if minutes <= 60 else 3
    candidates = 4 if short else 8
    references = "when-needed" if taught else "never"
    sft = taught // 2 if check.decides else taught
    epochs = min(6, max(1, -(-STEPS * 4 // max(1, sft)))) if small else 1
    lines = [
        f"{WRITTEN}. Every key is optional; `hafs config` prints all of them with their values.",
        "# Why these: docs/how-to/which-method.md. Rates are "
        + ("those that were measured on a 135M model." if small else "the guide's, for a large model."),
        "",
        "[model]",
        f"name = {_toml(model)}",
        "",
        "[generate]",
        f"candidates = {candidates}          # answers a prompt",
        "temperature = 0.7       # at 1 fewer answers are right; 0.6 to 0.8",
        f"max_new_tokens = {tokens}",
        "",
        "[preferences]",
        f'references = "{references}"  # where no sample is right the known answer wins',
        "",
        "[sft]",
        *_rates("1e-3" if small else "2e-4", epochs, small),
        "",
        "[dpo]",
        "beta = 0.1",
        *_rates("5e-4" if small else "5e-6", 1, small),
        *(["nll_weight = 4.0        # a small model has to learn the winners, not only to prefer them"] * small),
        "",
        "[eval]",
        'benchmarks = ["tasks/test.jsonl"]   # decides nothing: the figures to quote',
        f"max_new_tokens = {tokens}",
    ]
    if check.decides:
        lines += [
            "",
            "[loop]",
            'prompts = "tasks/tasks.jsonl"       # its train split is taught and asked, its validation split decides',
            *([f"sft_prompts = {sft}       # half of those with references; the other half is asked"] if sft else []),
            f"round_prompts = {max(1, -(-(len(train) - sft) // rounds))}",
            f"decision_prompts = {held - held // 2}",
            f"checkpoint_prompts = {held // 2}",
            f"max_rounds = {rounds}",
            f"max_minutes = {minutes:g}          # no round begins that would go past this",
        ]
    return "\n".join(lines) + "\n"


def _rates(rate: str, epochs: int, small: bool) -> list[str]:
    batch = ["batch_size = 4", "gradient_accumulation_steps = 1", "lora = {rank = 16, alpha = 32}"] if small else []
    return [f"learning_rate = {rate}", f"num_epochs = {epochs}", *batch, "validation_share = 0.0"]


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def answer_tokens(prompts: Sequence[Prompt], model: str) -> int:
    """Tokens after which answers are cut: what the longest reference takes and half as many more; 256 without any."""
    from hafs.models.loading import load_tokenizer

    texts = [r.text for p in prompts for r in p.references]
    if not texts:
        return 256
    tokenizer = load_tokenizer(resolve(model))
    longest = max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    return max(32, -(-int(1.5 * longest + 4) // 16) * 16)


# ---- writing it down


def begin(
    root: Path, model: str, made: PromptSplit, check: ChosenCheck, minutes: float, toml: str, overwrite: bool = False
) -> Started:
    """Write the workspace. Raises UsageError where one is and it may not be overwritten, or where its database knows
    these prompts with another check.
    """
    if (root / "hafs.toml").exists() and not overwrite:
        raise UsageError(f"{root} is a workspace already", "--overwrite writes its settings and tasks anew")
    parse_config(tomllib.loads(toml), "the settings")
    if (root / "hafs.toml").exists():
        shutil.copy2(root / "hafs.toml", root / "hafs.toml.before")
    shuffled = {name: random.Random(0).sample(list(part), len(part)) for name, part in made.parts.items()}
    known = [*shuffled["train"], *shuffled["validation"]]
    if (root / "hafs.db").exists():
        _refuse_other_check(root, [*known, *shuffled["test"]])
    (root / "tasks").mkdir(parents=True, exist_ok=True)
    write_jsonl(root / "tasks" / "tasks.jsonl", known)
    write_jsonl(root / "tasks" / "test.jsonl", shuffled["test"])
    with atomic_write(root / "hafs.toml") as f:
        f.write(toml)
    space = init_workspace(root)
    with space.open_store() as store:
        store.add_prompts(known)
    taught = any(p.references for p in shuffled["train"])
    files = {"settings": "hafs.toml", "prompts": "tasks/tasks.jsonl", "test": "tasks/test.jsonl"}
    sizes = {name: len(part) for name, part in made.parts.items()}
    return Started(space.root, sizes, made.by, files, taught, next_commands(model, check, taught), minutes=minutes)


def _refuse_other_check(root: Path, prompts: Sequence[Prompt]) -> None:
    from hafs.store import open_workspace

    try:
        space: Workspace = open_workspace(root)
    except HafsError:
        space = Workspace(root, parse_config({}))
    with space.open_store() as store:
        for p in prompts:
            known = store.get_prompt(p.id)
            if known and (known.checker, dict(known.check)) != (p.checker, dict(p.check)):
                raise UsageError(
                    f"{store.where} knows {p.text[:60]!r} with another check, and a prompt keeps its check",
                    "another --workspace",
                )


def next_commands(model: str, check: ChosenCheck, sft: bool) -> tuple[str, ...]:
    """What to type in the workspace, in order."""
    if check.decides:
        return ("hafs loop run", "hafs report --open")
    name = shlex.quote(model)
    teach: tuple[str, ...] = (f"hafs sft --model {name} --output_dir models/sft",) if sft else ()
    start = "models/sft/model" if sft else name
    made = "preferences.jsonl"
    if check.kind == "judge":
        judge = shlex.quote(f"judge:{check.argument}")
        ask: tuple[str, ...] = (
            f"hafs preferences generate --model {start} --scorer {judge} --budget 5 --output {made}",
        )
    else:
        ask = (
            f"hafs generate --model {start}",
            "hafs annotate start",
            f"hafs preferences build --from human --output {made}",
        )
    return (*teach, *ask, f"hafs train dpo --sft_model {start} --preference_data {made} --output_dir models/dpo")
