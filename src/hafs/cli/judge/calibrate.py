"""`hafs judge calibrate`, `plan`, `build`, `hybrid` and `winrate`: what a judge is worth, and its edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, workspace_at
from hafs.cli.generate import Split, choose_prompts
from hafs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hafs.judge.protocols import Protocol
    from hafs.store import Store, Workspace
    from hafs.types import Candidate, PreferenceGroup, Prompt
    from hafs.workflows.hybrid import AskJudge, Hybrid, JudgedReport, Shortlist

Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="Whose verdicts; given several times, a panel. Not needed where there is one judge.",
        show_default=False,
    ),
]
ProtocolName = Annotated[
    str, typer.Option("--protocol", help="Which protocol's verdicts, where there are several.", show_default=False)
]
Target = Annotated[float, typer.Option("--min-agreement", help="The agreement to certify, between 0 and 1.")]
Level = Annotated[float, typer.Option("--confidence", help="The confidence of the claim, between 0 and 1.")]
CountTies = Annotated[
    bool, typer.Option("--count-ties", help="A pair that the person calls a tie counts half, instead of not at all.")
]
AllEdges = Annotated[
    bool, typer.Option("--all-edges", help="Use the judge below the certified threshold too, with its probabilities.")
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Also write the groups here (JSON lines).", show_default=False)
]
Pairs = Annotated[bool, typer.Option("--pairs", help="Write prompt / chosen / rejected rows instead of groups.")]


def calibrate(
    judge: Judges = None,
    protocol: ProtocolName = "",
    min_agreement: Target = 0.75,
    confidence: Level = 0.95,
    count_ties: CountTies = False,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Measure a judge on people's labels: agreement, bias card, probabilities, and from which margin it is trusted."""
    from hafs.judge.calibrate import calibrate
    from hafs.judge.words import calibration_text

    _shares(min_agreement, confidence)
    with workspace_at(workspace).open_store() as store:
        made = calibrate(store, judge or (), protocol, target=min_agreement, level=confidence, count_ties=count_ties)
    emit({"claim": made.claim(), **made.to_dict()}, calibration_text(made), json)


def plan(
    judge: Judges = None,
    protocol: ProtocolName = "",
    min_agreement: Target = 0.75,
    confidence: Level = 0.95,
    expect: float = typer.Option(
        None, help="The agreement to assume where too few labels are there to see it.", show_default=False
    ),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Say how many more labels certifying the judge takes, in minutes at the person's pace."""
    from hafs.judge.calibrate import gather
    from hafs.judge.plan import plan
    from hafs.judge.words import plan_text

    _shares(min_agreement, confidence)
    if expect is not None and not 0 < expect <= 1:
        raise UsageError(f"--expect lies above 0 and at most at 1, not {expect}", "--expect 0.85")
    with workspace_at(workspace).open_store() as store:
        made = plan(gather(store, judge or (), protocol), min_agreement, confidence, expect)
    emit(made.to_dict(), plan_text(made), json)


def build(
    judge: Judges = None,
    protocol: ProtocolName = "",
    all_edges: AllEdges = False,
    split: Split = "train",
    output: Output = None,
    pairs: Pairs = False,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Preference groups from people's labels and, where nobody spoke, the judge's verdicts.

    The judge's newest calibration is used; without one its edges are marked, and training refuses them. Exit code 1
    when no group comes of it.
    """
    from hafs.workflows.hybrid import judged_groups

    space = workspace_at(workspace)
    with space.open_store() as store:
        groups, report = judged_groups(
            store,
            judge or (),
            protocol,
            all_edges=all_edges,
            max_candidates=space.config.preferences.max_candidates,
            prompt_ids={p.id for p in store.prompts(split=split)},
        )
    finish(groups, report, output, pairs, json)


def finish(
    groups: list[PreferenceGroup], report: JudgedReport, output: Path | None, pairs: bool, as_json: bool
) -> None:
    """Write the groups and say what they are; exit code 1 when there is none."""
    _write(groups, output, pairs)
    emit({**report.to_dict(), "output": str(output) if output and groups else None}, _report(report), as_json)
    _need(groups)


def hybrid(
    judge: Judges = None,
    protocol: ProtocolName = "",
    scorer: str = typer.Option(
        "automatic", help="What filters: `automatic` (each row's own checker), a scorer's name, or `none`."
    ),
    keep: int = typer.Option(4, help="Candidates of a prompt that pass the filter."),
    queue_size: int = typer.Option(100, help="Prompts for the person; the guide's 50 to 200."),
    audit_share: float = typer.Option(0.2, help="The share of them that is picked at random, to audit the judge."),
    seed: int = typer.Option(0, help="Draws the queue."),
    labels_so_far: bool = typer.Option(False, "--labels-so-far", help="Go on with the labels there are."),
    ask: bool = typer.Option(False, "--ask", help="First ask --judge what is left to ask; by listwise if not said."),
    base_url: str = typer.Option(None, help="Where Ollama, vLLM, llama.cpp or LM Studio serves the judge (…/v1)."),
    budget: float = typer.Option(None, min=0, help="Dollars that asking never exceeds."),
    max_tokens: int = typer.Option(1024, min=16, help="Tokens of one reply of the judge at most."),
    probes: int = typer.Option(8, min=0, help="Prompts on which answers that only beg for a vote are shown, too."),
    min_agreement: Target = 0.75,
    confidence: Level = 0.95,
    count_ties: CountTies = False,
    all_edges: AllEdges = False,
    split: Split = "train",
    output: Output = None,
    pairs: Pairs = False,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """The guide's hybrid path: filter, judge, the telling prompts to the person, the calibrated judge for the rest.

    Repeated, it goes on from where it is: first it leaves a queue for `hafs annotate start`, and once that is done it
    calibrates the judge and builds the groups. Exit code 1 when it built none, or asking was stopped.
    """
    from hafs.judge.clients import judge_name, judge_of
    from hafs.judge.protocols import open_protocol
    from hafs.workflows.hybrid import HybridSettings
    from hafs.workflows.hybrid import hybrid as run

    _shares(min_agreement, confidence)
    space = workspace_at(workspace)
    most = space.config.preferences.max_candidates
    trust = (min_agreement, confidence, count_ties, all_edges, labels_so_far)
    settings = HybridSettings(keep, queue_size, audit_share, seed, *trust, most)
    name = {"auto": "automatic", "none": ""}.get(scorer, scorer)
    if judge_of(name):
        raise UsageError(f"the filter cannot be the judge {name}", "--scorer none, or the name of a checker")
    names, hook = list(judge or ()), None
    if ask:
        if not names:
            raise UsageError("--ask needs to know whom", "--judge NAME, as in `hafs judge run`")
        asked = open_protocol(protocol or "listwise")
        hook = _asking(space, names, asked, base_url, budget, max_tokens, probes, json)
        protocol, names = asked.id, [judge_name(j) for j in names]
    with space.open_store() as store:
        done = run(store, choose_prompts(store, None, split, None), name, names, protocol, settings, ask=hook)
    if done.groups is not None:
        _write(done.groups, output, pairs)
    emit({**done.to_dict(), "output": str(output) if output and done.groups else None}, _hybrid(done), json)
    if done.groups is not None:
        _need(done.groups)


def _asking(
    space: Workspace,
    judges: list[str],
    protocol: Protocol,
    base_url: str | None,
    budget: float | None,
    max_tokens: int,
    probes: int,
    quiet: bool,
) -> AskJudge:
    """Asks the judges about a shortlist, and shows them the injection probes on the first `probes` prompts of it.

    All of it is one run, so the budget is of all of it, repeats included.
    """
    from hafs.cli.judge.run import ask as ask_all
    from hafs.cli.judge.run import name_problems, open_clients, results_text
    from hafs.judge.injection import probes_of
    from hafs.judge.run.calling import Manner
    from hafs.judge.run.runner import Judging
    from hafs.judge.work import Selection

    def ask(store: Store, kept: Shortlist) -> int:
        probed = set(sorted(kept)[:probes] if protocol.compares else ())

        def sets(prompt: Prompt, _: Sequence[Candidate]) -> list[Sequence[Candidate]]:
            mine = kept[prompt.id]
            shown = probes_of(prompt.id).values() if prompt.id in probed else ()
            return [mine, *([probe, mine[0]] for probe in shown)]

        judging = Judging(protocol, Selection(sorted(kept), choose=sets), Manner(max_tokens=max_tokens), budget)
        results = ask_all(space, store, open_clients(judges, base_url, False), judging, quiet)
        note(results_text(results))
        name_problems(results)
        if any(r.tally.stopped for r in results):
            raise typer.Exit(1)
        return sum(r.tally.asked + r.tally.from_ledger for r in results)

    return ask


def winrate(
    model_a: str = typer.Argument(help="A model's name or hash, as its candidates carry it."),
    model_b: str = typer.Argument(help="The other model."),
    judge: Judges = None,
    protocol: ProtocolName = "",
    confidence: Level = 0.95,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """How often A's answer is better than B's: by the judge, by people, and by the judge corrected by people."""
    from hafs.judge.calibrate import gather
    from hafs.judge.winrate import win_rate
    from hafs.judge.words import win_rate_text

    _shares(confidence=confidence)
    with workspace_at(workspace).open_store() as store:
        made = win_rate(store, gather(store, judge or (), protocol), model_a, model_b, confidence)
    emit(made.to_dict(), win_rate_text(made), json)


def _shares(min_agreement: float = 0.5, confidence: float = 0.5) -> None:
    for flag, value in (("--min-agreement", min_agreement), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise UsageError(f"{flag} lies between 0 and 1, not {value}", f"{flag} 0.75")


def _write(groups: list[PreferenceGroup], output: Path | None, pairs: bool) -> None:
    from hafs.files.jsonl import write_jsonl
    from hafs.preferences import to_pairs

    if groups and output is not None:
        write_jsonl(output, [row for g in groups for row in to_pairs(g)] if pairs else groups)


def _need(groups: list[PreferenceGroup]) -> None:
    if not groups:
        note(
            "error: no preference group came of it\n"
            "  fix: more labels (`hafs judge plan` says how many), or --all-edges"
        )
        raise typer.Exit(1)


def _report(report: JudgedReport) -> str:
    undecided = ", ".join(f"{n} {_UNDECIDED[says]}" for says, n in report.undecided.most_common())
    lines = [
        f"{report.groups} groups of {report.prompts} prompts: {report.human_edges} edges from people,"
        f" {report.judge_edges} from {report.source.removeprefix('judge:')}",
        report.claim,
    ]
    if report.untrusted:
        lines.append(f"{report.untrusted} edges of the judge are below the threshold and were left out")
    if undecided:
        lines.append(f"pairs without an edge: {undecided}")
    return "\n".join(lines)


_UNDECIDED = {"tie": "ties", "disagrees": "the judge contradicts itself on", "missing": "without usable verdicts"}


def _hybrid(done: Hybrid) -> str:
    lines = [
        f"filter: {done.candidates - done.dropped} of {done.candidates} candidates kept, {done.prompts} prompts",
        f"judge:  {done.judged} of {done.prompts} prompts judged by {done.source.removeprefix('judge:')}",
        f"person: {done.labelled} of {done.queued} prompts of the queue labelled",
    ]
    if done.report is None or done.calibration is None:
        return "\n".join(
            [
                *lines,
                "",
                f"next: hafs annotate start --queue {done.queue}   ({done.queued - done.labelled} prompts, about"
                f" {done.minutes_left:.0f} minutes)",
                "then the same command again",
            ]
        )
    return "\n".join([*lines, "groups: " + _report(done.report).replace("\n", "\n        ")])
