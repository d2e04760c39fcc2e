"""`hafs score`: what a scorer says of the candidates; `hafs score explain`: why one of them has its score."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import Cluster, Json, WorkspaceDir, crew_at, emit, none_scored, progress_bars, workspace_at
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.judge.protocols import Protocol
    from hafs.store import Workspace

ScorerName = Annotated[
    str,
    typer.Option(
        "--scorer",
        help="`automatic` is each row's own checker, or an expression: `asm`, `text:min_words=5`,"
        " `python*0.7+text*0.3`, `python>text`; or a judge: `claude-opus-4-5`, `hafs-coder:14b`, `judge:NAME`.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option("--budget", min=0, help="With a judge: dollars that asking never exceeds.", show_default=False),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback()(score)
    group.command("explain")(explain)
    app.add_typer(group, name="score")


def score(
    context: typer.Context,
    scorer: ScorerName = "automatic",
    split: str = typer.Option(None, help="Only candidates of prompts of this split."),
    rescore: bool = typer.Option(False, "--rescore", help="Score again what has a score; the new value replaces it."),
    output: Path = typer.Option(None, help="Also write the scores here (JSON lines); a judge's verdicts."),
    budget: Budget = None,
    cluster: Cluster = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Score the candidates that have no score yet; a judge compares those of each prompt, as `hafs judge run` does.

    What cannot be scored stays unscored, with the reason, and is tried again next time; exit code 1 when that is all.
    """
    if context.invoked_subcommand:
        return
    from hafs.judge.clients import judge_of
    from hafs.scorers.run import checkers, score_candidates, scorer_for, scorer_name, try_commands

    space = workspace_at(workspace)
    if named := judge_of(scorer_name(space.config, scorer)):
        _have_judged(space, named, split, output, budget, cluster, json)
        return
    no_judge(budget)
    with space.open_store() as store, closing(scorer_for(space.config, scorer)) as judge:
        with progress_bars(quiet=json) as progress:
            try_commands(space.config, list(store.prompts(split=split)), scorer)
            with crew_at(space, store, cluster) as crew:
                done = score_candidates(store, judge, progress, rescore, crew, split=split)
        used = [s for s, _ in checkers(judge, store.prompts(split=split))]
        if output is not None:
            store.export_jsonl("scores", output, scorer=[s.name for s in used])
        totals = [
            found
            for s in used
            for found in store.scorers(arguments=s.arguments)
            if found["scorer"] == s.name and found["version"] == s.version
        ]
    data = {"scored": done.scored, "unscored": dict(done.unscored), "coverage": done.coverage, "totals": totals}
    lines = [f"{done.scored} candidates scored now, {sum(done.unscored.values())} unscored"]
    lines += [
        f"{t['scorer']}@{t['version']}: {t['scored']} scored, {t['passed']} right, {t['unscored']} unscored,"
        f" coverage {t['scored'] / (t['scored'] + t['unscored']):.0%}"
        for t in totals
    ]
    emit(data, "\n".join(lines), json)
    none_scored(done.scored, done.unscored)


def _have_judged(
    space: Workspace,
    named: str,
    split: str | None,
    output: Path | None,
    budget: float | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """`hafs judge run` about the workspace's candidates."""
    from hafs.cli.judge.run import ask, name_problems, open_clients, results_text
    from hafs.judge.run.elsewhere import CrewOfJudges
    from hafs.judge.run.runner import Judging
    from hafs.judge.work import Selection

    with space.open_store() as store:
        judging = Judging(the_protocol(), Selection([p.id for p in store.prompts(split=split)]), budget=budget)
        with crew_at(space, store, cluster) as crew:
            clients = open_clients([named], None, False)
            results = ask(space, store, clients, judging, as_json, CrewOfJudges(crew, [named]) if crew else None)
        if output is not None:
            store.export_jsonl("verdicts", output, judge=clients[0].model, protocol=judging.protocol.id)
    emit({"judges": [r.to_dict() for r in results]}, results_text(results), as_json)
    if name_problems(results):
        raise typer.Exit(1)


def the_protocol() -> Protocol:
    """How a judge that is named as a scorer is asked: the protocol of `hafs judge run`."""
    from hafs.judge.protocols import open_protocol

    return open_protocol("listwise")


def no_judge(budget: float | None) -> None:
    """Refuse a budget where no judge spends anything."""
    if budget is not None:
        raise UsageError("--budget is for a judge, and this scorer costs nothing", "leave it out, or name a judge")


def explain(
    candidate: str = typer.Argument(help="The candidate's id, or its beginning."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Why a candidate has its scores: the prompt, the answer, and of every scorer value, key, cause and details."""
    with workspace_at(workspace).open_store() as store:
        found = store.get_candidate(candidate) or _by_beginning(store, candidate)
        prompt = store.get_prompt(found.prompt_id)
        scores = list(store.scores(candidate_ids=found.id))
    assert prompt is not None
    data = {"candidate": found.to_dict(), "prompt": prompt.to_dict(), "scores": [s.to_dict() for s in scores]}
    lines = [
        f"prompt {prompt.id} ({prompt.family or 'no family'}, {prompt.split})",
        _indented(prompt.text),
        "",
        f"candidate {found.id} of {found.model_name or found.source}",
        _indented(found.text),
    ]
    for s in scores:
        passed = {True: "right", False: "wrong", None: "neither right nor wrong"}[s.passed]
        said = (
            f"unscored: {s.reason}" if s.value is None else f"{s.value:g}, {passed}" + f" ({s.cause})" * bool(s.cause)
        )
        lines += ["", f"{s.scorer}@{s.version}: {said}"]
        if s.key:
            lines.append(f"  ranked by {', '.join(f'{part:g}' for part in s.key)} (the last within {s.tolerance:g})")
        lines += _shown(s.details, "  ")
    if not scores:
        lines += ["", "it has no score yet: `hafs score`"]
    emit(data, "\n".join(lines), json)


def _by_beginning(store: Any, text: str) -> Any:
    matches = [c for c in store.candidates() if text and c.id.startswith(text)]
    if len(matches) != 1:
        what = "several candidates begin" if matches else "no candidate begins"
        raise UsageError(f"{what} with {text!r}", "`hafs data export candidates FILE` writes their ids")
    return matches[0]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _shown(details: Any, indent: str) -> list[str]:
    """Details as lines; the parts of a score of several scorers come indented."""
    lines: list[str] = []
    for name, value in details.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_shown(value, indent + "  ")]
        elif isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            lines += [f"{indent}{name}:", *(f"{indent}  - {v}" for v in value)]
        elif value not in ("", None, [], {}):
            lines.append(f"{indent}{name}: {value}")
    return lines
