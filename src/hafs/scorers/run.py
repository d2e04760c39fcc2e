"""The checkers that a set of prompts needs, and the scoring of what a workspace holds, here or by workers elsewhere.

What has a score already is not scored again, so every function here can be killed and repeated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hafs.cluster import Crew
from hafs.config import Config
from hafs.errors import HafsError, SandboxUnavailable, UsageError
from hafs.judge.clients import judge_of
from hafs.sandbox import open_sandbox
from hafs.scorers import Opened, Scorer, open_scorer, opened_as, prepare, takes_prompts
from hafs.scorers.compose import parse
from hafs.store import Answers, Store, open_store
from hafs.types import Candidate, Progress, Prompt, Score, content_id, silent

SCORE_CHUNK = 64

JUDGED = "its checker is a judge, which compares answers"
"""Why the answer to a prompt that names a judge has no score."""


@dataclass
class ReferenceReport:
    """How many reference answers were checked, how many are right, what is wrong with the others.

    `unscored` counts, by reason, the answers that could not be checked; they are in neither number.
    """

    total: int = 0
    right: int = 0
    problems: list[str] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)


def check_references(prompts: Sequence[Prompt], progress: Progress = silent) -> ReferenceReport:
    """Run the references of `prompts` through each prompt's own checker."""
    report = ReferenceReport()
    for checker in sorted({p.checker for p in prompts if p.checker}):
        mine = [p for p in prompts if p.checker == checker]
        items = [(p, Candidate(p.id, r.text, source=f"reference:{r.name}")) for p in mine for r in p.references]
        with closing(open_scorer(checker)) as scorer:
            for done, ((prompt, candidate), score) in enumerate(zip(items, scorer.score(items), strict=True), 1):
                if score.value is None:
                    report.unscored[score.reason] += 1
                else:
                    report.total += 1
                    report.right += bool(score.passed)
                    if not score.passed:
                        where = f"{prompt.family} {prompt.id} {candidate.source}".strip()
                        report.problems.append(f"{where}: {score.cause or 'wrong'}")
                progress("checking", done, len(items), {})
    report.problems += [f"{p.id}: no checker" for p in prompts if not p.checker]
    report.problems += [f"{p.id}: no reference answer to check" for p in prompts if p.checker and not p.references]
    return report


AUTOMATIC = ("", "auto", "automatic")
"""What `--scorer` says for each row's own checker."""

NO_CHECKER = (
    'the prompt has no checker: put "checker": "python" (or "text:min_words=5", "exact", …) into its row, or one for'
    " all such rows into hafs.toml: [score] scorer"
)


def scorer_name(config: Config, name: str = "") -> str:
    """The scorer or judge named; the workspace's for rows without a checker where the name is "automatic"."""
    return config.score.scorer if name in AUTOMATIC else name


def scorer_for(config: Config, name: str = "") -> Scorer:
    """The scorer named, or for "automatic" each row's own checker.

    Raises UsageError for a judge, which gives no candidate a value: it compares those of a prompt.
    """
    return AutomaticScorer(config) if name in AUTOMATIC else _open(config, name)


def _open(config: Config, name: str) -> Scorer:
    if judge_of(name):
        raise UsageError(
            f"{name} is a judge, which compares answers and gives none a value",
            "a scorer such as `asm` here; for a judge `hafs judge run`, then `hafs judge winrate dpo sft`",
        )
    return open_scorer(name, workers=config.score.workers, sandbox=config.score.sandbox)


def checker_of(prompt: Prompt) -> str:
    """What checks a prompt's answers: its own checker, `exact` where it has only references, else "" (none)."""
    return prompt.checker or ("exact" if prompt.references else "")


class AutomaticScorer:
    """Each prompt's own checker, as one scorer: every score bears the name of the checker that made it.

    A prompt without a checker is checked by the workspace's scorer (`[score] scorer`) where one is set; without that,
    and where the checker is a judge, its answers are unscored. Checkers are opened when a prompt first needs them.
    """

    name = "automatic"
    version = "1"
    arguments: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = ExitStack()
        self._opened: dict[str, Scorer] = {}

    def checker(self, prompt: Prompt) -> Scorer | None:
        """What checks the prompt's answers; None for a judge or nothing."""
        named = checker_of(prompt)
        if judge_of(named):
            return None
        chosen = named or self._config.score.scorer
        if chosen in AUTOMATIC:
            return None
        if chosen not in self._opened:
            self._opened[chosen] = self._stack.enter_context(closing(_open(self._config, chosen)))
        return self._opened[chosen]

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in the order of the items."""
        if len(items) > SCORE_CHUNK:
            for start in range(0, len(items), SCORE_CHUNK):
                yield from self.score(items[start : start + SCORE_CHUNK])
            return
        found: dict[int, Score] = {}
        mine: dict[int, tuple[Scorer, list[int]]] = {}
        for i, (prompt, candidate) in enumerate(items):
            checker = self.checker(prompt)
            if checker is None:
                why = JUDGED if judge_of(checker_of(prompt)) else NO_CHECKER
                found[i] = Score(candidate.id, self.name, self.version, reason=why)
            else:
                mine.setdefault(id(checker), (checker, []))[1].append(i)
        for checker, places in mine.values():
            scores = checker.score([items[i] for i in places])
            found.update(zip(places, scores, strict=True))
        yield from (found[i] for i in range(len(items)))

    def prepare(self, prompts: Iterable[Prompt]) -> None:
        """Have each checker take into its arguments what the checks of its prompts name; other prompts are not held."""
        named: dict[int, tuple[Scorer, list[Prompt]]] = {}
        for prompt in prompts:
            checker = self.checker(prompt)
            if checker is not None and takes_prompts(checker):
                named.setdefault(id(checker), (checker, []))[1].append(prompt)
        for checker, mine in named.values():
            prepare(checker, mine)

    def close(self) -> None:
        """Close every checker that was opened."""
        self._opened.clear()
        self._stack.close()


def checkers(scorer: Scorer, prompts: Iterable[Prompt]) -> list[tuple[Scorer, list[Prompt]]]:
    """The scorers that check `prompts`, each with those that it checks; a prompt that nothing checks is left out."""
    if not isinstance(scorer, AutomaticScorer):
        return [(scorer, list(prompts))]
    found: dict[int, tuple[Scorer, list[Prompt]]] = {}
    for prompt in prompts:
        if (checker := scorer.checker(prompt)) is not None:
            found.setdefault(id(checker), (checker, []))[1].append(prompt)
    return sorted(found.values(), key=lambda part: _by_name(part[0]))


def of_prompts(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The part of filters of candidates that `Store.prompts` takes."""
    found = {k: v for k, v in filters.items() if k in ("split", "family")}
    return found if filters.get("prompt_ids") is None else {**found, "ids": filters["prompt_ids"]}


def checkers_with_filters(
    scorer: AutomaticScorer, prompts: Callable[[], Iterable[Prompt]], filters: Mapping[str, Any]
) -> list[tuple[Scorer, dict[str, Any]]]:
    """The scorers that check `prompts()`, each with filters that keep to what it checks.

    The prompts are gone through and not held, however many they are; their ids are where not all have one checker.
    """
    found = {id(checker): checker for checker in map(scorer.checker, prompts())}
    if None not in found.values() and len(found) == 1:
        return [(checker, dict(filters)) for checker in found.values() if checker is not None]
    ids: dict[int, list[str]] = {}
    for prompt in prompts():
        ids.setdefault(id(scorer.checker(prompt)), []).append(prompt.id)
    named = sorted((c for c in found.values() if c is not None), key=_by_name)
    return [(checker, {**filters, "prompt_ids": ids[id(checker)]}) for checker in named]


def _by_name(scorer: Scorer) -> tuple[str, str]:
    return scorer.name, content_id(scorer.arguments)


def identity(scorer: Scorer, prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """What the scores of `prompts` depend on: name, version and arguments of every scorer that checks one of them."""
    return [
        {"scorer": s.name, "version": s.version, "arguments": dict(s.arguments)} for s, _ in checkers(scorer, prompts)
    ]


@dataclass(frozen=True)
class Scored:
    """How many candidates got a value now, and how many are unscored, by reason."""

    scored: int
    unscored: Mapping[str, int]

    def __add__(self, other: Scored) -> Scored:
        """Both together."""
        return Scored(self.scored + other.scored, Counter(self.unscored) + Counter(other.unscored))

    @property
    def coverage(self) -> float | None:
        """The share of the candidates tried now that got a value; None when there were none."""
        tried = self.scored + sum(self.unscored.values())
        return self.scored / tried if tried else None


def stored_answers(store: Store, scorer: Scorer, prompts: Sequence[Prompt], **filters: Any) -> Iterator[Answers]:
    """Each prompt with its candidates and the scores that what checks it gave them; nothing is scored now."""
    prepare(scorer, store.prompts())
    for checker, mine in checkers(scorer, prompts):
        ids = [p.id for p in mine]
        yield from store.answers(checker.name, checker.version, checker.arguments, prompt_ids=ids, **filters)


def score_candidates(
    store: Store,
    scorer: Scorer,
    progress: Progress = silent,
    again: bool = False,
    crew: Crew | None = None,
    **filters: Any,
) -> Scored:
    """Score what has no value yet, new or unscored before; with `again` what has one, too. `filters` are those of
    `Store.to_score`. With a `crew` its workers score, each with scorers of these names.
    """
    prepare(scorer, store.prompts())
    if not isinstance(scorer, AutomaticScorer):
        return _score_left(store, scorer, progress, again, crew, filters)
    prompts = list(store.prompts(**of_prompts(filters)))
    done = Scored(0, {})
    without = [p for p in prompts if scorer.checker(p) is None]
    for checker, which in checkers_with_filters(scorer, lambda: prompts, filters):
        done += _score_left(store, checker, progress, again, crew, which)
    if without:
        which = {**filters, "prompt_ids": [p.id for p in without]}
        reasons = Counter(
            s.reason for s in scorer.score(list(store.to_score(scorer.name, scorer.version, {}, **which)))
        )
        done += Scored(0, reasons)
    return done


def _score_left(
    store: Store, scorer: Scorer, progress: Progress, again: bool, crew: Crew | None, filters: Mapping[str, Any]
) -> Scored:
    """Score what this scorer has given no value; of what a crew scores only ids are held here."""
    left = store.to_score(scorer.name, scorer.version, scorer.arguments, everything=again, **filters)
    if crew is None:
        return score_all(store, scorer, list(left), progress, again)
    return _score_elsewhere(crew, store, scorer, [c.id for _, c in left], progress, again, ())


def score_all(
    store: Store,
    scorer: Scorer,
    todo: Sequence[tuple[Prompt, Candidate]],
    progress: Progress = silent,
    again: bool = False,
    crew: Crew | None = None,
    given: Sequence[Prompt] = (),
) -> Scored:
    """Score `todo` and keep the scores, a chunk at a time; with `again` a value replaces the one that is there.

    With a `crew` its workers do it. They read the prompts from the store, where they are not `given`.
    """
    if crew is not None:
        return _score_elsewhere(crew, store, scorer, [c.id for _, c in todo], progress, again, given)
    scored, unscored = 0, dict[str, int]()
    chunk: list[Score] = []
    for done, score in enumerate(scorer.score(todo), 1):
        chunk.append(score)
        if score.value is None:
            unscored[score.reason] = unscored.get(score.reason, 0) + 1
        else:
            scored += 1
        if len(chunk) == SCORE_CHUNK or done == len(todo):
            store.add_scores(chunk, replace=again)
            chunk = []
        progress("scoring", done, len(todo), {})
    return Scored(scored, unscored)


def _score_elsewhere(
    crew: Crew,
    store: Store,
    scorer: Scorer,
    ids: Sequence[str],
    progress: Progress,
    again: bool,
    given: Sequence[Prompt],
) -> Scored:
    """`score_all` by the workers of a cluster, who are told the candidates' ids."""
    total, finished = Scored(0, {}), 0
    if not ids:
        return total
    accelerated = bool(getattr(scorer, "accelerated", False))
    job = Scoring(store.url, opened_as(scorer), _arguments(scorer), crew.cores, again, tuple(given), accelerated)
    size = crew.share_of(len(ids), SCORE_CHUNK, accelerated)
    chunks = [ids[i : i + size] for i in range(0, len(ids), size)]
    for chunk, scored in crew.map(job, chunks, len(chunks)):
        total += scored
        finished += len(chunk)
        progress("scoring", finished, len(ids), {})
    return total


@dataclass(frozen=True)
class Scoring:
    """A worker's part in scoring: the database, the scorer and what its `arguments` must be (as JSON).

    The prompts are read from the database where they are not `given`.
    """

    database: str
    scorer: Opened
    arguments: str
    cores: int
    again: bool
    given: tuple[Prompt, ...] = ()
    accelerated: bool = False

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[str]], Scored]]:
        """Open the scorer; yields what scores the candidates of these ids.

        Raises HafsError where this machine's scorer would say something else than the one that was asked for.
        """
        with open_store(self.database) as store, closing(self.scorer.open(workers=self.cores)) as scorer:
            for prompts in (self.given or store.prompts(), _checked_by(store, self.scorer.expression)):
                if _arguments(scorer) != self.arguments:
                    prepare(scorer, prompts)
            if (here := _arguments(scorer)) != self.arguments:
                raise HafsError(
                    f"the scorer {scorer.name} is another one here: {here}, and {self.arguments} was asked for",
                    "install the same tools, models and scripts on every node",
                )
            by_id = {p.id: p for p in self.given}

            def score(ids: Sequence[str]) -> Scored:
                found = list(store.candidates(ids=list(ids)))
                known = by_id or {p.id: p for p in store.prompts(ids=list({c.prompt_id for c in found}))}
                return score_all(store, scorer, [(known[c.prompt_id], c) for c in found], again=self.again)

            yield score


def _arguments(scorer: Scorer) -> str:
    return json.dumps(dict(scorer.arguments), sort_keys=True)


def _checked_by(store: Store, expression: str) -> Iterator[Prompt]:
    """The prompts of a workspace that are checked by this scorer as their own checker."""
    return (p for p in store.prompts() if checker_of(p) in ("", expression))


NONSENSE = "zqxj 7 )( plugh"
"""An answer that no check of anything may take."""


def try_commands(config: Config, prompts: Sequence[Prompt], name: str = "") -> None:
    """Try each command that checks answers to `prompts` (theirs, or that of the scorer `name`), in the sandbox: it must
    take a prompt's reference, where one has any, and neither an empty answer nor nonsense. To be called before answers
    are generated. Raises UsageError with what the command said. Without a sandbox nothing is tried or scored.
    """
    if name in AUTOMATIC:
        by_checker: dict[str, list[Prompt]] = {}
        for prompt in prompts:
            by_checker.setdefault(checker_of(prompt) or config.score.scorer, []).append(prompt)
        for named in sorted(by_checker.keys() - set(AUTOMATIC)):
            try_commands(config, by_checker[named], named)
        return
    commands: dict[tuple[str, str], Prompt] = {}
    chosen = scorer_name(config, name)
    for part in () if judge_of(chosen) else (p for level in parse(chosen) for p in level):
        if part.name in ("code", "function"):
            for prompt in prompts:
                own = prompt.check.get("run", "") if prompt.checker == part.name == "code" else ""
                key = (str(part), str(own))
                decides = part.name == "function" or own or "run=" in part.argument
                if decides and (key not in commands or not commands[key].references):
                    commands[key] = prompt
    try:
        if commands:
            open_sandbox(config.score.sandbox).close()
    except SandboxUnavailable:
        return
    for (spec, own), prompt in commands.items():
        with closing(open_scorer(spec, sandbox=config.score.sandbox)) as scorer:
            _try(scorer, own or spec, prompt)


def _try(scorer: Scorer, command: str, prompt: Prompt) -> None:
    """One command's trial on one prompt."""
    fix = "correct the check, then try again: nothing has been generated or scored with it"
    answers = [*(r.text for r in prompt.references[:1]), "", NONSENSE]
    scores = list(scorer.score([(prompt, Candidate(prompt.id, text)) for text in answers]))
    for score in scores:
        if score.value is None:
            raise UsageError(f"the check `{command}` cannot be run: {score.reason}", fix)
    *reference, empty, nonsense = scores
    most = 1.0
    if reference:
        if reference[0].passed is False or not reference[0].value:
            said = str(reference[0].details.get("output", "")).strip() or reference[0].cause or "nothing"
            about = f"the reference answer of prompt {prompt.id} ({prompt.text[:40]!r})"
            raise UsageError(f"the check `{command}` refuses {about}; it said: {said}", fix)
        most = reference[0].value or 0.0
    for what, score in (("an empty answer", empty), ("nonsense", nonsense)):
        if score.passed or (score.passed is None and (score.value or 0.0) >= most):
            raise UsageError(f"the check `{command}` takes {what}: it gives {score.value:g}", fix)
