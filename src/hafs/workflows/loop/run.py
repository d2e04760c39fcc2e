"""The rounds: SFT → evaluate → failures → preferences for what fails → DPO → evaluate → decide; again, until it stops.

No algorithm lives here. What each round asks is `ask`, the stages are `workflows.stages`, the decisions are `decide`,
and the page is `page`. Where the loop stands follows from the workspace alone: a loop that was killed goes through
the same stages again, finds what is done, and ends as one that was not.

Three sets of held-out prompts have no prompt in common. One picks each round's checkpoint, one decides whether the
round is promoted, and the benchmarks are reported, so that no decision flatters the figures that are shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hafs import tasks
from hafs.cluster import Crew
from hafs.config import Config, override, parse_config
from hafs.errors import HafsError, UsageError
from hafs.evals import WINNERS, Comparison, EvalResult, attribute, compare, failures
from hafs.evals.attribution import cheaper
from hafs.evals.contamination import refuse_contaminated, side_by_side
from hafs.evals.leaks import WorkspaceTexts
from hafs.evals.sealed import refuse_sealed
from hafs.evals.words import model_title
from hafs.files.fetch import file_sha256
from hafs.files.jsonl import atomic_write
from hafs.models.naming import model_hash, resolve
from hafs.preferences import BuildReport
from hafs.report import Rerun, differing_examples, failures_by_cause
from hafs.report.gather import agreement, facts, judge_cards, sources, training_of
from hafs.scorers.run import identity, scorer_for, stored_answers, try_commands
from hafs.statistics import Estimate, wilson
from hafs.store import Workspace
from hafs.types import PreferenceGroup, Progress, Prompt, content_id, silent
from hafs.workflows.loop.ask import RoundRequest, Source, by_candidates, named_prompts, plan
from hafs.workflows.loop.decide import (
    Past,
    Ruling,
    Signs,
    budget_spent,
    judge_round,
    rounds_done,
    signs_of,
    stop,
    target_reached,
)
from hafs.workflows.loop.page import AskedFamilies, LoopReport, RoundReport, RoundScore, Winners, write_loop_report
from hafs.workflows.stages import Say, Stages, check_scorer, no_groups

STANDING = "loop.json"
"""Where the loop stands, as data beside its page."""

DECIDES = "decision"
"""The name under which the evaluations that decide are kept."""

STOPPING = (
    "attribution",
    "max_rounds",
    "patience",
    "min_gain",
    "target",
    "max_length_growth",
    "max_kl",
    "max_minutes",
    "budget",
    "price_per_hour",
    "rounds",
)
"""Settings of [loop] on which no stage depends: with others the stages that are done stay done."""


@dataclass(frozen=True)
class Loop:
    """What to run: the settings, and the model; with `taught` it is a model of the user's own, and no SFT is done."""

    config: Config
    model: str
    taught: bool = False
    command: str = "hafs loop run"

    def to_dict(self) -> dict[str, Any]:
        """The loop as JSON, for the record of the run; the model and files of prompts by their hashes."""
        named = [self.config.loop.prompts, *self.config.eval.benchmarks]
        files = {name: file_sha256(path) for name in named if (path := Path(name).expanduser()).is_file()}
        settings = self.config.model_dump(mode="json", exclude={"store", "model", "cluster"})
        return {"model": model_hash(resolve(self.model)), "taught": self.taught, "files": files, "settings": settings}


@dataclass(frozen=True)
class LoopOutcome:
    """What came of a loop: the kept model, why it stopped, one decision a round, the pass rates of every model by
    benchmark, the comparison of the kept model with the start (None when that is the same one), and the report."""

    kept: str
    kept_path: Path
    kept_hash: str
    stop: Ruling
    rounds: tuple[dict[str, Any], ...]
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
    comparison: Mapping[str, Any] | None
    report: Path
    seconds: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    """The model that it began with, as it was named."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        paths = {"kept_path": str(self.kept_path), "report": str(self.report), "stop": vars(self.stop)}
        return {**vars(self), "rounds": list(self.rounds), **paths}

    def record(self, root: Path) -> dict[str, Any]:
        """The same for the workspace's record, in which paths are seen from `root`: a workspace may be moved."""
        paths = {name: getattr(self, name) for name in ("kept_path", "report")}
        inside = {k: str(p.relative_to(root) if p.is_relative_to(root) else p) for k, p in paths.items()}
        return {**self.to_dict(), **inside}

    @classmethod
    def of_record(cls, row: Mapping[str, Any], root: Path) -> LoopOutcome:
        """The inverse of `record`."""
        ruling = Ruling(**{**row["stop"], "rules": tuple(row["stop"]["rules"])})
        paths = {name: root / row[name] for name in ("kept_path", "report")}
        return cls(**{**row, **paths, "stop": ruling, "rounds": tuple(row["rounds"])})


@dataclass(frozen=True)
class _Model:
    """A model of the loop with its evaluations, the deciding one apart."""

    name: str
    path: Path
    decision: EvalResult
    reported: tuple[EvalResult, ...]

    @property
    def hash(self) -> str:
        return self.decision.model

    def rates(self, level: float) -> dict[str, Estimate]:
        """Pass rates by benchmark."""
        return {r.benchmark: wilson(r.passed, r.scored, level) for r in (self.decision, *self.reported)}


@dataclass
class _State:
    """What is known so far; all of it follows from the stages."""

    models: list[_Model]
    kept: _Model
    start: _Model
    used: list[Prompt]
    before: EvalResult | None = None
    rounds: list[RoundReport] = field(default_factory=list)


def run(
    loop: Loop, workspace: Workspace, say: Say = lambda _: None, progress: Progress = silent, crew: Crew | None = None
) -> LoopOutcome:
    """Run the loop in `workspace`, or finish it, or return its outcome at once when it is done.

    With a `crew` its workers sample and score; training is done in this process.

    Raises UsageError for settings that cannot be followed, for sealed prompts and for held-out ones that the model was
    trained on, HafsError when a tool, the sandbox or the model is missing, or when nothing could be scored.
    """
    if loop.config.loop.budget and not loop.config.loop.price_per_hour:
        raise UsageError("a budget needs to know what an hour costs", "set price_per_hour under [loop]")
    with workspace.open_store() as store:
        defaults = replace(loop, config=parse_config({})).to_dict()["settings"]
        known = store.once("loop", loop.to_dict(), defaults={"settings": defaults})
        if known.done is not None and (workspace.root / known.done.outputs["report"]).is_file():
            return LoopOutcome.of_record(known.done.outputs, workspace.root)
        source, reported = prompts_of(loop.config)
        benchmarks = [p for found in reported.values() for p in found]
        held = [*source.decision, *source.checkpoint]
        refuse_sealed(store, [*held, *benchmarks, *source.taught, *source.trainable()])
        notes = _not_trained_on(loop, workspace, held, benchmarks)
        for line in source.notes:
            say(line)
        if source.copies and source.nearest is not None:
            said = f"(similarity {source.nearest.similarity:.2f}: {side_by_side(source.nearest)})"
            say(f"{len(source.copies)} prompts are near copies of held-out ones and are left out {said}")
        if not loop.taught and not source.taught:
            say("no training prompt has a right answer to teach: the rounds begin with the model itself, without SFT")
            loop = replace(loop, taught=True)
        try_commands(loop.config, [*held, *source.trainable()])
        with closing(scorer_for(loop.config)) as scorer:
            stages = Stages({}, workspace.root, store, scorer, say, progress, crew)
            outcome = _Loop(loop, stages, source, reported, notes).run()
        made = outcome.record(workspace.root)
        known.finish({"kept": outcome.kept}, made, model=outcome.kept_hash)
        return outcome


def prompts_of(config: Config) -> tuple[Source, dict[str, list[Prompt]]]:
    """Where a loop's prompts come from, and the benchmarks by name.

    Raises UsageError when there are not enough prompts for what `config` asks.
    """
    reported = {name: named_prompts(b) for name, b in tasks.benchmark_names(config.eval.benchmarks).items()}
    if DECIDES in reported:
        raise UsageError(
            f"a benchmark of a loop cannot be called {DECIDES!r}: that is what its own prompts are called",
            "rename the file",
        )
    benchmarks = [p for found in reported.values() for p in found]
    return Source(config.loop, _checkpoints(config), benchmarks, config.eval.near_copy), reported


def _checkpoints(config: Config) -> int:
    """The most prompts that any round picks its checkpoint with."""
    return max(config.of_round(n).loop.checkpoint_prompts for n in (0, *config.loop.rounds))


class _Loop:
    """One running loop."""

    def __init__(
        self,
        loop: Loop,
        stages: Stages,
        source: Source,
        reported: Mapping[str, Sequence[Prompt]],
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = notes
        self.loop, self.config, self.s, self.source = loop, loop.config, stages, source
        self.limits, self.level = loop.config.loop, loop.config.eval.level
        self.sets: dict[str, Sequence[Prompt]] = {DECIDES: source.decision, **reported}
        source.refuse_shared(self.sets)
        unknown = sorted(set(self.limits.target) - set(self.sets))
        if unknown:
            raise UsageError(
                f"the target names {unknown[0]!r}, which is not evaluated", f"use one of: {', '.join(self.sets)}"
            )

    def run(self) -> LoopOutcome:
        check_scorer(self.s.scorer, [*self.source.taught, *self.source.decision])
        state = self._start()
        while (ruling := self._stops(state)) is None:
            ended = self._round(state, len(state.rounds) + 1)
            if isinstance(ended, Ruling):
                ruling = ended
                break
            self._report(state, None)
        page = self._report(state, ruling)
        kept = state.kept
        comparison = self._comparison(state)
        return LoopOutcome(
            kept.name,
            kept.path,
            kept.hash,
            ruling,
            tuple(x.to_dict() for x in state.rounds),
            {m.name: {b: vars(e) for b, e in m.rates(self.level).items()} for m in state.models},
            comparison.to_dict() if comparison else None,
            page,
            {s.name: round(s.seconds, 1) for s in self.s.times()},
            self.loop.model,
        )

    # ---- the stages

    def _start(self) -> _State:
        """The model that the rounds begin with: the user's own, or the base after SFT on verified answers."""
        loop, s = self.loop, self.s
        s.about = {"loop": _lasting(loop)}
        models = []
        if loop.taught:
            start = self._evaluated("start", resolve(loop.model).resolve())
        else:
            if self.limits.baseline:
                models.append(self._evaluated("baseline", resolve(loop.model)))
            path = s.stage(
                "SFT", lambda: s.teach(loop.model, self.source.taught, self.config, s.root / "models" / "sft")
            )
            start = self._evaluated("sft", path)
        s.promote(start.name, start.path, "the start of the loop")
        used = [] if loop.taught else list(self.source.taught)
        return _State([*models, start], start, start, used)

    def _evaluated(self, name: str, path: Path) -> _Model:
        results = self.s.stage(f"evaluate {name}", lambda: self.s.judged(name, path, self.sets, self.config))
        decision, *reported = results
        if not decision.scored:
            raise HafsError(f"no answer of {name} could be scored: {'; '.join(decision.unscored())}", "hafs doctor")
        return _Model(name, path, decision, tuple(reported))

    def _round(self, state: _State, number: int) -> Ruling | None:
        """One round on the kept model; None, or why it is the end when nothing was left to learn from."""
        config, kept, s = self.config.of_round(number), state.kept, self.s
        name, changed = f"dpo-{number}", {str(k): v for k, v in self.limits.rounds.get(number, {}).items()}
        asks = self._asks(state, config)
        asked = self.source.new(asks, state.used)
        prompts = [p for found in asked.values() for p in found]
        if not prompts:
            why = "Every training prompt has been taught or asked: a further round needs new ones in the task file."
            return Ruling("stop", ("no new prompts",), why)
        refuse_sealed(s.store, prompts)
        s.about = {
            "loop": _lasting(self.loop),
            "reference": kept.hash,
            "round": changed,
            "asked": content_id([[a.family, a.candidates] for a in asks], [p.id for p in prompts]),
        }
        sampled = by_candidates(asks, asked, config)
        s.stage(f"{name}: candidates", lambda: s.answered(kept.path, sampled), once=True)
        groups, report, never = s.stage(f"{name}: preferences", lambda: self._groups(kept, asked, config))
        state.used += prompts
        if not groups:
            if report.candidates == report.unscored:
                raise no_groups(report)
            return Ruling("stop", ("nothing to learn",), f"No preference came of round {number}: {report}.")
        held = self.source.checkpoint[: config.loop.checkpoint_prompts]
        improved = config.model_copy(update={"dpo": override(config.dpo, reference=str(kept.path))})
        output = s.root / "models" / name
        path = s.stage(f"{name}: DPO", lambda: s.improve(kept.path, groups, held, improved, output))
        new = self._evaluated(name, path)
        training = training_of(name, output)
        signs = signs_of(training.rows, training.kept, len(held)) if training else Signs()
        ruling, comparison = judge_round(kept.decision, new.decision, signs, self.limits, self.level)
        beside = self._beside(kept, new, ruling, groups, held, config, number) if self.limits.attribution else None
        if beside is not None:
            ruling = _with_attribution(ruling, beside[0])
            state.models.append(beside[1])
        state.models.append(new)
        state.rounds.append(
            RoundReport(
                name,
                new.hash,
                kept.name,
                kept.hash,
                ruling,
                comparison.overall[name].difference,
                signs,
                tuple(self._said(kept, asks, asked, never)),
                sources(groups),
                sum(c.off_policy for g in groups for c in g.candidates),
                dict(report.skipped),
                training,
                changed,
                beside[0] if beside else None,
            )
        )
        self.s.say(ruling.reason)
        if promoted := state.rounds[-1].kept:
            best = beside[1] if beside and promoted == beside[1].name else new
            state.before, state.kept = kept.decision, best
            s.promote(promoted, best.path, ruling.reason)
        return None

    def _beside(
        self,
        kept: _Model,
        new: _Model,
        ruling: Ruling,
        groups: Sequence[PreferenceGroup],
        held: Sequence[Prompt],
        config: Config,
        number: int,
    ) -> tuple[Winners, _Model] | None:
        """SFT on the right winners of the round's groups, from the same start, evaluated like DPO; None without any.

        It is kept where it may be promoted and DPO is not proven better: it is the cheaper one.
        """
        name, s = f"{WINNERS}-{number}", self.s
        output = s.root / "models" / name
        path = s.stage(
            f"dpo-{number}: SFT on winners", lambda: s.teach_winners(kept.path, groups, held, config, output)
        )
        if path is None:
            return None
        learnt = self._evaluated(name, path)
        training = training_of(name, output)
        signs = signs_of(training.rows, training.kept, len(held)) if training else Signs()
        own, comparison = judge_round(kept.decision, learnt.decision, signs, self.limits, self.level)
        found = attribute([kept.decision], [learnt.decision], [new.decision])
        instead = cheaper(found, ruling.action == "promote", own.action == "promote")
        return Winners(name, learnt.hash, comparison.overall[name].difference, found, instead), learnt

    def _asks(self, state: _State, config: Config) -> list[RoundRequest]:
        """What this round asks, by how the kept model fails on the decision prompts."""
        found = failures(state.kept.decision, state.before).families
        failed = {p.family: (f.share, f.n) for p in self.source.decision if (f := found.get(p.family or "(no family)"))}
        some = config.generate.candidates
        more = config.loop.more_candidates or 2 * some
        return plan(failed, self.source.families, config.loop.round_prompts, some, more)

    def _groups(
        self, model: _Model, asked: Mapping[str, Sequence[Prompt]], config: Config
    ) -> tuple[list[PreferenceGroup], BuildReport, set[str]]:
        """The groups, what became of the prompts, and the families of which no sampled answer was right.

        For those the known answer is the winner wherever the settings do not ask for it anyway.
        """
        right = self._right(model, asked)
        never = {family for family, share in right.items() if share == 0.0}
        pairing = config.preferences
        helped = override(pairing, references="when-needed") if pairing.references == "never" else pairing
        groups: list[PreferenceGroup] = []
        total = BuildReport()
        for part, settings in ((never, helped), (set(asked) - never, pairing)):
            prompts = [p for family in sorted(part) for p in asked[family]]
            if prompts:
                made, report = self.s.groups(model.path, prompts, settings)
                groups += made
                total += report
        return groups, total, never if pairing.references == "never" else set()

    def _right(self, model: _Model, asked: Mapping[str, Sequence[Prompt]]) -> dict[str, float]:
        """The share of right answers among the model's scored samples, by family; none for one without a score."""
        counts: dict[str, list[int]] = {}
        prompts = [p for found in asked.values() for p in found]
        for prompt, answers in stored_answers(self.s.store, self.s.scorer, prompts, model=model.hash):
            for _, score in answers:
                if score is not None and score.passed is not None:
                    count = counts.setdefault(prompt.family, [0, 0])
                    count[0] += score.passed
                    count[1] += 1
        return {family: passed / n for family, (passed, n) in counts.items()}

    def _said(
        self, model: _Model, asks: Sequence[RoundRequest], asked: Mapping[str, Sequence[Prompt]], never: set[str]
    ) -> list[AskedFamilies]:
        right = self._right(model, asked)
        return [
            AskedFamilies(
                a.family,
                a.failed,
                a.n,
                len(asked.get(a.family, ())),
                a.candidates,
                right.get(a.family),
                a.family in never,
            )
            for a in asks
        ]

    # ---- the decisions and the page

    def _stops(self, state: _State) -> Ruling | None:
        """Why there is no further round, or None."""
        times = self.s.times()
        elapsed = sum(t.seconds for t in times)
        name = state.rounds[-1].name if state.rounds else ""
        last = sum(t.seconds for t in times if name and name in t.name.replace(":", "").split())
        price = self.limits.price_per_hour / 3600
        past = [Past(x.name, bool(x.kept), x.kept_gain, x.signs.overfits) for x in state.rounds]
        return (
            target_reached(state.kept.rates(self.level), self.limits)
            or rounds_done(len(past), self.limits)
            or stop(past, self.limits)
            or budget_spent(elapsed, last, elapsed * price, last * price, self.limits)
        )

    def _comparison(self, state: _State) -> Comparison | None:
        """The kept model against the start on the benchmarks that decided nothing (on the decision prompts without)."""
        if state.kept is state.start:
            return None
        pair = {m.name: list(m.reported) or [m.decision] for m in (state.start, state.kept)}
        return compare(pair, state.start.name, level=self.level)

    def _report(self, state: _State, ruling: Ruling | None) -> Path:
        """Write the page as things stand."""
        start, kept, limits = state.start, state.kept, self.limits
        beside = {x.winners.name for x in state.rounds if x.winners}
        back = ({x.name for x in state.rounds} | beside) - {x.kept for x in state.rounds}
        before, after = [start.decision, *start.reported], [kept.decision, *kept.reported]
        cost = sum(t.seconds for t in self.s.times()) * limits.price_per_hour / 3600 if limits.price_per_hour else None
        report = LoopReport(
            title=f"hafs loop: {self.s.root.name}",
            kept=kept.name,
            decides=DECIDES,
            models=tuple(
                RoundScore(m.name, m.hash, m.rates(self.level), m.decision.mean_tokens, m.name not in back)
                for m in state.models
            ),
            rounds=tuple(state.rounds),
            stop=ruling,
            targets=limits.target,
            comparison=self._comparison(state),
            why=failures(kept.decision, None if kept is start else start.decision),
            failures=failures_by_cause(before, after),
            examples=differing_examples(start.reported or before, kept.reported or after),
            taught=None if self.loop.taught else training_of("sft", self.s.root / "models" / "sft"),
            judges=judge_cards(self.s.store),
            agreement=agreement(self.s.store, self.s.scorer),
            stages=self.s.times(),
            cost=cost,
            rerun=self._rerun(state),
            notes=self._notes(state),
        )
        self._standing(state, ruling, cost)
        return write_loop_report(report, self.s.root / "loop.html")

    def _standing(self, state: _State, ruling: Ruling | None, cost: float | None) -> None:
        """Write what the page says as data (`loop.json`), for whoever looks on while the loop runs."""
        limits = self.limits.model_dump(
            mode="json", include={"round_prompts", "max_rounds", "target", "price_per_hour"}
        )
        limits["candidates"] = self.config.generate.candidates
        limits["more_candidates"] = self.limits.more_candidates or 2 * self.config.generate.candidates
        said = {
            "kept": state.kept.name,
            "kept_hash": state.kept.hash,
            "decides": DECIDES,
            "families": list(self.source.families),
            "scores": {m.name: {b: vars(e) for b, e in m.rates(self.level).items()} for m in state.models},
            "rounds": [x.to_dict() for x in state.rounds],
            "stop": vars(ruling) if ruling else None,
            "seconds": {s.name: round(s.seconds, 1) for s in self.s.times()},
            "cost": cost,
            "limits": limits,
        }
        with atomic_write(self.s.root / STANDING) as f:
            json.dump(said, f, default=list)

    def _rerun(self, state: _State) -> Rerun:
        """The command, the settings, and the hashes and versions that figures depend on."""
        prompts = {f"prompts, {name}": f"{len(p)}, {content_id([x.id for x in p])}" for name, p in self.sets.items()}
        known = {
            **facts({m.name: [m.decision] for m in state.models}),
            **prompts,
            "scorer": ", ".join(f"{s['scorer']}@{s['version']}" for s in identity(self.s.scorer, self.source.decision)),
        }
        return Rerun((self.loop.command,), json.dumps(self.loop.to_dict()["settings"], indent=1), known)

    def _notes(self, state: _State) -> tuple[str, ...]:
        picks = self.limits.checkpoint_prompts
        lines = [
            f"{len(self.source.decision)} decision prompts (validation split) decided what was promoted or rolled back;"
            " their figures lean in favour of what was kept. The benchmarks"
            f" ({', '.join(self.config.eval.benchmarks) or 'none'}) decided nothing and are the figures to quote.",
            f"{picks} other validation prompts picked each round's checkpoint."
            if picks
            else "Each round's last checkpoint was taken.",
        ]
        if self.source.copies:
            lines.append(
                f"{len(self.source.copies)} prompts are near copies of held-out ones, and were neither taught"
                " nor asked."
            )
        lines += self.notes
        watched = sorted(set(self.limits.target) - {DECIDES})
        if watched:
            lines.append(
                f"The target looks at {', '.join(watched)}: a loop that stops there leans a little in favour"
                " of its last figure."
            )
        lines += [
            f"{m.name}: {why} ({n} prompts unscored)" for m in state.models for why, n in m.decision.unscored().items()
        ]
        lines.append(
            "Pass rates have Wilson intervals, changes Tango's score interval for paired answers. Unscored"
            " prompts are left out of every figure and never count as failed."
        )
        return tuple(lines)


# ---- small things


def _lasting(loop: Loop) -> dict[str, Any]:
    """The part of a loop that its stages depend on."""
    row = loop.to_dict()
    settings = dict(row["settings"])
    settings["loop"] = {k: v for k, v in settings["loop"].items() if k not in STOPPING}
    return {**row, "settings": settings}


def _not_trained_on(
    loop: Loop, workspace: Workspace, held: Sequence[Prompt], benchmarks: Sequence[Prompt]
) -> list[str]:
    """Refuse held-out prompts in what the model was trained on before, and near copies of benchmark prompts.

    A pack's validation prompts have near copies among its training prompts, so of those that decide only the very same
    prompts are refused. Returns what the page should say.
    """
    path = resolve(loop.model)
    model = {"the model that it began with": [model_hash(path)]}
    where: Any = {"roots": [workspace.root], "paths": [path], "fix": "begin with a model that was not trained on them"}
    refuse_contaminated({p.id: p.text for p in held}, model, threshold=1.0, **where)
    near = loop.config.eval.near_copy
    others = WorkspaceTexts(workspace)
    return refuse_contaminated({p.id: p.text for p in benchmarks}, model, threshold=near, others=others, **where)


def _with_attribution(ruling: Ruling, winners: Winners) -> Ruling:
    """The ruling on a round with where its gain comes from, and what is kept in its place."""
    said = winners.attribution.sentence
    if not winners.kept:
        return replace(ruling, reason=f"{ruling.reason} {said}")
    instead = f"Kept in its place: {model_title(winners.name)}, the cheaper one, than which it is not proven better."
    return Ruling("promote", ("SFT on winners is as good",), f"{ruling.reason} {said} {instead}")
