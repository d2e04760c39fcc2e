"""`hafs judge run`, `probe` and `ledger`: judges are asked; what that costs, how far they contradict themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import Cluster, Json, WorkspaceDir, crew_at, emit, note, progress_bars, workspace_at
from hafs.cli.generate import NumSamples, Prompts, Split, choose_prompts
from hafs.cli.reading import ColumnsOption
from hafs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hafs.judge.estimate import CostEstimate
    from hafs.judge.run.runner import Elsewhere, JudgeResult, Judging
    from hafs.servers.client import Client
    from hafs.store import Store, Workspace

Judges = Annotated[
    list[str],
    typer.Option("--judge", help="`claude-opus-4-5`, `gpt-5`, `hafs-coder:14b`, or NAME@URL; repeated: a panel."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="Where Ollama, vLLM, llama.cpp or LM Studio serves it (…/v1).", show_default=False),
]
Replay = Annotated[bool, typer.Option("--replay", help="Send nothing: verdicts from the ledger's answers alone.")]


def run(
    judge: Judges,
    protocol: str = typer.Option("listwise", help="listwise, pairwise, pointwise, or reference (the known answer)."),
    prompts: Prompts = None,
    columns: ColumnsOption = None,
    num_samples: NumSamples = None,
    split: Split = "train",
    model: str = typer.Option(None, help="Only candidates of this model; without it, of all models together."),
    max_candidates: int = typer.Option(8, min=1, max=26, help="Candidates of a prompt that are judged, the first."),
    rubric: Path = typer.Option(None, help="A text file with what counts, in place of the built-in criteria."),
    shuffles: int = typer.Option(2, help="Orders that listwise shows, an even number."),
    seed: int = typer.Option(0, help="Draws the orders and the marks; another seed asks anew."),
    base_url: BaseUrl = None,
    estimate: bool = typer.Option(False, "--estimate", help="Print tokens, dollars and minutes; send nothing."),
    budget: float = typer.Option(None, min=0, help="Dollars that this run, repeats included, never exceeds."),
    batch: bool = typer.Option(False, "--batch", help="Through the vendor's batch API: half price, up to a day."),
    poll: float = typer.Option(30.0, min=0.01, help="Seconds between looks at a batch."),
    concurrency: int = typer.Option(16, min=1, max=512, help="Calls in flight for each judge at most."),
    timeout: float = typer.Option(120.0, min=0.1, help="Seconds for one call."),
    max_tokens: int = typer.Option(1024, min=16, help="Tokens of one reply at most, a model's thinking included."),
    replay: Replay = False,
    cluster: Cluster = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Have judges compare or grade the candidates, each comparison in both orders.

    What was answered is never asked again. Exit code 1 when a question stayed without an answer.
    """
    from hafs.judge.protocols import open_protocol
    from hafs.judge.run.calling import Manner
    from hafs.judge.run.elsewhere import CrewOfJudges
    from hafs.judge.run.runner import Judging
    from hafs.judge.work import Selection
    from hafs.models.naming import model_hash, resolve

    space = workspace_at(workspace)
    asked = open_protocol(protocol, _rubric(rubric), shuffles, seed)
    if batch and replay:
        raise UsageError("--replay sends nothing, --batch sends batches", "leave one of them out")
    with space.open_store() as store:
        chosen = choose_prompts(store, prompts, split, num_samples, columns)
        if prompts is not None:
            store.add_prompts(chosen)
        only = model_hash(resolve(model)) if model else None
        which = Selection([p.id for p in chosen], only, max_candidates)
        manner = Manner(concurrency, timeout, max_tokens)
        if estimate:
            _estimate(space, store, judge, base_url, asked, which, manner, batch, json)
            return
        if batch and cluster:
            raise UsageError("a batch is one file for the vendor: there is nothing to share out", "without --cluster")
        judging = Judging(asked, which, manner, budget, batch, poll)
        with crew_at(space, store, "" if replay or batch else cluster) as crew:
            clients = open_clients(judge, base_url, replay)
            results = ask(space, store, clients, judging, json, CrewOfJudges(crew, judge, base_url) if crew else None)
    emit({"judges": [r.to_dict() for r in results]}, results_text(results), json)
    if name_problems(results):
        raise typer.Exit(1)


def ask(
    space: Workspace,
    store: Store,
    clients: Sequence[Client],
    judging: Judging,
    quiet: bool = False,
    elsewhere: Elsewhere | None = None,
) -> list[JudgeResult]:
    """Ask judges what is left to ask, with the workspace's prices and progress shown; the clients are closed."""
    from hafs.judge.prices import load_prices
    from hafs.judge.run.runner import check_prices, judge

    prices = load_prices(space.root)
    if judging.budget is not None:
        check_prices(clients, prices)
    with progress_bars(quiet=quiet) as progress:
        return judge(store, clients, prices, judging, progress, elsewhere)


def probe(
    judge: Judges,
    base_url: BaseUrl = None,
    timeout: float = typer.Option(60.0, min=0.1, help="Seconds for one call."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Find out what judges' endpoints can do: structured output, a system text, seed, temperature 0, logprobs.

    A few tokens are sent. `run` does it by itself the first time; exit code 1 when one does not answer.
    """
    from hafs.judge.prices import load_prices
    from hafs.judge.run.calling import Manner
    from hafs.judge.run.runner import probes

    space = workspace_at(workspace)
    with space.open_store() as store:
        clients = open_clients(judge, base_url, False)
        found = list(probes(store, clients, load_prices(space.root), Manner(timeout=timeout)))
    lines = [f"{row['judge']} at {row['endpoint']}: " + _abilities(row["abilities"]) for row in found]
    emit({"endpoints": found}, "\n".join(lines), json)
    for row in found:
        if row["abilities"] is None:
            note(f"error: {row['problem']}")
    if any(row["abilities"] is None for row in found):
        raise typer.Exit(1)


def ledger(workspace: WorkspaceDir = None, json: Json = False) -> None:
    """What judges cost, by judge and day (UTC), and what went wrong, by kind."""
    from hafs.judge.run.ledger import Ledger

    with workspace_at(workspace).open_store() as store:
        book = Ledger(store)
        spending, failures = book.spending(), book.failures()
    total = sum(row["cost"] for row in spending)
    lines = [
        f"{row['day']}  {row['judge']:<24} {row['answered']:>7,} of {row['attempts']:>7,} answered"
        f"  {row['input_tokens']:>12,} + {row['output_tokens']:>10,} tokens  ${row['cost']:.4f}  {row['seconds']:.2f} s"
        + (f"  and {row['unpriced']:,} answers of unknown price" if row["unpriced"] else "")
        for row in spending
    ]
    lines.append(f"${total:.4f} in all" if spending else "no judge was asked yet")
    if unpriced := sum(row["unpriced"] for row in spending):
        lines[-1] += f", without {unpriced:,} answers of unknown price (add it to prices.toml beside hafs.toml)"
    lines += [f"{row['judge']}: {row['times']} × {row['status']}  {row['reason']}".rstrip() for row in failures]
    emit({"spending": spending, "failures": failures, "cost": total}, "\n".join(lines), json)


def _rubric(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError as e:
        raise UsageError(f"there is no rubric {file}", "give a text file that says what counts") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"the rubric {file} is no UTF-8 text", "save it as UTF-8") from e
    if not text:
        raise UsageError(f"the rubric {file} is empty", "say in it what counts, or leave --rubric out")
    return text


def open_clients(judges: Sequence[str], base_url: str | None, replay: bool) -> list[Client]:
    from hafs.judge.clients import judge_name, open_client

    names = [judge_name(j) for j in judges]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"{min(twice)} is on the panel twice", "verdicts are kept by name: give each judge once")
    return [open_client(j, base_url, replay) for j in judges]


def _estimate(
    space: Workspace,
    store: Store,
    judges: Sequence[str],
    base_url: str | None,
    protocol: Any,
    which: Any,
    manner: Any,
    batch: bool,
    as_json: bool,
) -> None:
    from hafs.judge.clients import judge_name, looks_local
    from hafs.judge.estimate import estimate
    from hafs.judge.prices import FREE, load_prices
    from hafs.judge.run.ledger import Ledger
    from hafs.judge.work import JudgeWork

    prices = load_prices(space.root)
    found = []
    for spec in judges:
        name = judge_name(spec)
        price = prices.of(name) or (FREE if looks_local(spec, base_url) else None)
        found.append(estimate(JudgeWork(store, Ledger(store), name, protocol, which), price, manner, batch))
    emit({"estimates": [e.to_dict() for e in found]}, "\n".join(map(_expects, found)), as_json)


def _expects(e: CostEstimate) -> str:
    dollars = "price unknown (add it to prices.toml beside hafs.toml)"
    if e.dollars is not None and e.most is not None:
        dated = f", prices of {e.price_date}" if e.price_date else ""
        dollars = f"${e.dollars:.2f} (at most ${e.most:.2f}{dated})"
    time = "within a day" if e.minutes is None else f"{e.minutes:.1f} minutes"
    rates = "its own calls so far" if e.measured else "assumed rates"
    line = (
        f"{e.judge}, {e.protocol}: {e.questions:,} questions about {e.prompts:,} prompts,"
        f" {e.input_tokens:,} + {e.output_tokens:,} tokens, {dollars}, {time}; by {rates}"
    )
    line += "\n  prices change: correct them in a prices.toml beside hafs.toml" if e.price_date else ""
    line += f"\n  {e.decided:,} more are answered" if e.decided else ""
    return line + (f"\n  {e.skipped:,} prompts have nothing to judge" if e.skipped else "")


def results_text(results: Sequence[JudgeResult]) -> str:
    """What each judge did and how far it contradicts itself, for people."""
    return "\n\n".join(map(_result_text, results))


def _result_text(r: JudgeResult) -> str:
    t, rel = r.tally, r.reliability
    outcomes = ", ".join(f"{n:,} {o}" for o, n in sorted(rel.verdicts.items(), key=lambda x: -x[1])) or "none"
    pairs = ", ".join(f"{n:,} {o}" for o, n in sorted(rel.pairs.items(), key=lambda x: -x[1])) or "none"
    cost = f"${t.cost:.4f}" if t.priced else "price unknown (add it to prices.toml beside hafs.toml)"
    if t.free and t.attempts:
        cost += " (a local server, taken as free)"
    lines = [
        f"{r.judge}, {r.protocol}: {t.asked:,} questions asked now in {t.seconds:.1f} s, {t.from_ledger:,} from the"
        f" ledger, {t.decided:,} decided before",
        f"  verdicts     {outcomes}",
        f"  coverage     {_percent(r.coverage)}",
        f"  pairs        {pairs}",
        f"  flip rate    {_percent(rel.flip_rate)}",
        f"  first slot   {_percent(rel.first_rate)}",
        f"  cost         {cost}, {t.input_tokens:,} + {t.output_tokens:,} tokens, {t.attempts:,} attempts",
    ]
    if t.trouble:
        lines.append("  trouble      " + ", ".join(f"{n} × {kind}" for kind, n in t.trouble.most_common()))
    return "\n".join(lines)


def name_problems(results: Sequence[JudgeResult]) -> bool:
    """Name what stayed without an answer; returns whether something did."""
    from hafs.judge.clients import NOT_RECORDED

    short = False
    for r in results:
        t = r.tally
        if t.skipped:
            note(f"{r.judge}: {t.skipped} prompts have nothing to judge by {r.protocol}")
        for kind, n in t.failed.most_common():
            how = "without --replay they are asked" if kind == NOT_RECORDED else "the same command asks them again"
            note(f"{r.judge}: {n} questions without an answer, {kind}; {how}")
        if t.stopped:
            left = f"; {t.unasked} questions of those read were not asked" if t.unasked else ""
            note(f"error: {r.judge} was stopped{left}: {t.stopped}")
        _name_unreadable(r)
        short = short or bool(t.stopped or t.failed or t.unasked or r.nothing_read)
    return short


def _name_unreadable(r: JudgeResult) -> None:
    """Say what could not be read, why, and what to do about it."""
    from hafs.judge.run.calling import CUT

    remedy = f"--max-tokens above {r.max_tokens} (a model's thinking counts)"
    if cut := r.unreadable[CUT]:
        note(f"{r.judge}: {cut} replies were cut off at {r.max_tokens} tokens: {remedy}")
    if others := sum(r.unreadable.values()) - cut:
        reason, n = next((reason, n) for reason, n in r.unreadable.most_common() if reason != CUT)
        note(f"{r.judge}: {others} replies could not be read; most often ({n}): {reason}")
    if r.nothing_read:
        fix = remedy if cut else "see what it says with `hafs data export verdicts`; another model or --protocol"
        note(f"error: {r.judge}: nothing that it said could be read\n  fix: {fix}")


def _abilities(found: dict[str, bool] | None) -> str:
    if found is None:
        return "does not answer"
    return ", ".join(f"{name} {'yes' if can else 'no'}" for name, can in found.items())


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"
