"""`hafs annotate`: people rank answers, on a page or in the terminal; what they said as figures and files."""

from __future__ import annotations

import getpass
import json as jsonlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, workspace_at
from hafs.cli.generate import choose_prompts
from hafs.cli.page import listen, page_token, page_tools, write_private
from hafs.cli.reading import ColumnsOption
from hafs.errors import HafsError, UsageError

if TYPE_CHECKING:
    from hafs.annotate.service import AnnotateSettings, AnnotationService
    from hafs.store import Store, Workspace
    from hafs.types import Prompt, Queued

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ACCOUNTS = "annotators.json"

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Whose answers, made now where there are none; two of them for --mode ab.", show_default=False
    ),
]
Candidates = Annotated[
    int | None,
    typer.Option(
        "--num-candidates",
        "--candidates",
        "--candidates-per-prompt",
        help="Answers shown together, 2 to 8.",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "--num-samples", "-n", min=1, help="How many prompts; all without it.", show_default=False),
]
PromptFile = Annotated[
    Path | None, typer.Option("--prompts", help="Prompts, in a file of any kind, in this order.", show_default=False)
]
Mode = Annotated[str | None, typer.Option("--mode", help="rank, ab, rate or review.", show_default=False)]
Name = Annotated[str | None, typer.Option("--name", help="Who you are; by default your login.", show_default=False)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="People rank answers, on a page or in the terminal.", no_args_is_help=True)
    group.command("start")(start)
    group.command("stats")(stats)
    group.command("export")(export)
    group.command("account")(account)
    app.add_typer(group, name="annotate")


def start(
    model: Models = None,
    num_candidates: Candidates = None,
    limit: Limit = None,
    prompts: PromptFile = None,
    columns: ColumnsOption = None,
    queue: str = typer.Option(None, help="The id of a run that chose the prompts (kind `annotation-queue`)."),
    split: str = typer.Option(None, help="Of the workspace's prompts: train, validation or test."),
    mode: Mode = None,
    name: Name = None,
    terminal: bool = typer.Option(False, "--terminal", help="Ask here instead of on a page."),
    host: str = typer.Option("127.0.0.1", help="Beyond this machine, people need accounts (`hafs annotate account`)."),
    port: int = typer.Option(8765, min=0, max=65535, help="0 takes a free one."),
    allow_host: list[str] = typer.Option([], help="A name under which others reach the page (repeatable)."),
    no_browser: bool = typer.Option(False, "--no-browser", help="Print the link and open nothing."),
    gold: Path = typer.Option(None, help="Rankings known to be right (JSON lines), mixed in."),
    overlap: float = typer.Option(None, help="Share of the prompts that several people answer."),
    repeats: float = typer.Option(None, help="Share of the prompts shown again, unannounced."),
    reveal: bool = typer.Option(None, "--reveal/--no-reveal", help="Show who wrote what after each answer."),
    checks: bool = typer.Option(None, "--checks/--no-checks", help="Offer the checker's result; it unblinds."),
    output: Path = typer.Option(None, help="At the end, write what was said as preference groups here."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Show answers without saying who wrote them and ask which is better; what was answered before is not asked again.

    Answers are made on the spot when the model is named, the next prompts' while you rank. Leaving at any moment
    loses nothing: the same command goes on.
    """
    from hafs.config import override

    space = workspace_at(workspace)
    settings = override(
        space.config.annotate,
        candidates=num_candidates,
        target=limit,
        mode=mode,
        overlap=overlap,
        repeats=repeats,
        reveal=reveal,
        checks=checks,
        gold=None if gold is None else str(gold),
    )
    accounts = None if terminal else _accounts(space.root, host)
    with ExitStack() as stack:
        store = stack.enter_context(space.open_store())
        keys = [_model_key(store, m) for m in model or settings.models]
        settings = override(settings, models=keys)
        queued = _queued(store, settings, queue, (prompts, columns), split, making=bool(model))
        service = _service(stack, space, store, settings, queued, list(model or ()), tests=split == "test")
        if terminal:
            said = _in_terminal(service, name or getpass.getuser(), json)
        else:
            said = _on_page(service, space.root, accounts, host, port, allow_host, name, not no_browser, json)
        said["equal"] = service.queue.equal
        if output is not None:
            said |= _write_groups(space, store, output, [q.id for q in service.queue.prompts])
    emit(said, "\n".join(_summary(said)), json)


def stats(mode: Mode = None, workspace: WorkspaceDir = None, json: Json = False) -> None:
    """Answers by person, seconds each, and how far people agree: with each other, with themselves, with gold items."""
    from hafs.annotate.queue import read_gold
    from hafs.annotate.stats import statistics_of

    space = workspace_at(workspace)
    chosen = mode or space.config.annotate.mode
    gold = read_gold(space.config.annotate.gold) if space.config.annotate.gold else {}
    with space.open_store() as store:
        found = {"mode": chosen, **statistics_of(list(store.annotations(mode=chosen)), gold)}
    emit(found, _stats_table(found) if found["annotators"] else f"nobody has answered in the mode {chosen} yet", json)


def export(
    file: Path = typer.Argument(help="Where the JSON lines go."),
    pairs: bool = typer.Option(False, "--pairs", help="A row for each pair instead of each ranking."),
    annotator: list[str] = typer.Option([], help="Only what this person said (repeatable)."),
    mode: Mode = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write what people said: who, when, in which order the answers were shown, and the ranking (or its pairs).

    Rankings can be read back with `hafs data import annotations`; pairs are what other trainers read.
    """
    from hafs.annotate.files import pair_rows
    from hafs.files.jsonl import write_jsonl

    with workspace_at(workspace).open_store() as store:
        said = list(store.annotations(annotator=annotator or None, mode=mode))
        rows = pair_rows(store, said) if pairs else said
        written = write_jsonl(file, rows)
    emit({"written": written, "file": str(file)}, f"{written} {'pairs' if pairs else 'answers'} in {file}", json)


def account(
    name: str = typer.Argument(help="Who may log in."),
    remove: bool = typer.Option(False, "--remove", help="Take the account away."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Make an account for `hafs annotate start --host`, or change its password; only a scrypt hash is kept."""
    path = workspace_at(workspace).root / ACCOUNTS
    known = read_accounts(path)
    if remove:
        if known.pop(name, None) is None:
            raise UsageError(f"there is no account {name!r}", f"there are: {', '.join(known) or 'none'}")
    else:
        page_tools()
        from hafs.annotate.web.security import hash_password

        known[name] = hash_password(_new_password())
    write_private(path, jsonlib.dumps(known, indent=1) + "\n")
    did = "removed" if remove else "can log in"
    emit(
        {"name": name, "accounts": sorted(known)}, f"{name} {did}; accounts: {', '.join(sorted(known)) or 'none'}", json
    )


# what is asked


def _model_key(store: Store, model: str) -> str:
    """What a model's candidates carry: its hash, or, for one that is not here, the name they were made under."""
    from hafs.models.naming import model_hash, resolve

    try:
        return model_hash(resolve(model))
    except HafsError:
        if any(c.model_name == model for c in store.candidates()):
            return model
        raise


def _queued(
    store: Store,
    settings: AnnotateSettings,
    run: str | None,
    given: tuple[Path | None, str | None],
    split: str | None,
    making: bool,
) -> list[Queued] | None:
    """The prompts to ask about, of a run or `given` as a file and what its columns are for; None for all that have
    candidates."""
    from hafs.annotate.queue import check_prompts, queue_of, read_queue

    if run is not None:
        queued = read_queue(store, run)
        check_prompts(store, queued)
        return queued
    file, columns = given
    if file is None and split is None and not making:
        return None
    if settings.mode == "review":
        return None
    of = split or ("test" if settings.mode == "ab" else "train")
    chosen: list[Prompt] = choose_prompts(store, file, of, None, columns)
    store.add_prompts(chosen)
    return queue_of(chosen)


def _service(
    stack: ExitStack,
    space: Workspace,
    store: Store,
    settings: AnnotateSettings,
    queued: list[Queued] | None,
    models: Sequence[str],
    tests: bool,
) -> AnnotationService:
    """The service, with what makes candidates when models were named and what checks them when that is wanted."""
    from hafs.annotate.service import AnnotationService
    from hafs.tasks.domain import domain_of

    prepare = check = None
    if models and settings.mode != "review":
        from hafs.backends import open_backend
        from hafs.config import override
        from hafs.evals.evaluate import greedy
        from hafs.generation.ahead import Preparer

        sampling = (
            greedy(space.config.eval)
            if settings.mode == "ab"
            else override(space.config.generate, candidates=settings.candidates)
        )
        prepare = stack.enter_context(Preparer(store, [partial(open_backend, m) for m in models], sampling))
    if settings.checks:
        check = _checker(stack, space)
    label = domain_of(space.config.score.scorer).check_label
    service = AnnotationService(
        store, settings, check=check, check_label=label, generate=prepare, queued=queued, tests=tests
    )
    if left := service.queue.held_out:
        note(f"{left} prompts are of the test split and are not asked about (--split test asks about them)")
    if not service.queue.prompts:
        if settings.mode == "review":
            raise UsageError("no judge's verdict is contradicted by a score or a person", "rank or score answers first")
        raise UsageError(
            f"there is nothing to ask: no prompt of {store.where} has two different answers",
            "`hafs generate` makes them, or name a model: --model MODEL",
        )
    if missing := sum(service.queue.waits(q.id) for q in service.queue.prompts):
        note(f"{missing} prompts have no answers yet: the first ones are made now, the others while you go on")
    return service


def _checker(stack: ExitStack, space: Workspace) -> Callable[[Prompt, str], Mapping[str, Any]]:
    """What the workspace's scorer says of a text."""
    from hafs.scorers.run import scorer_for
    from hafs.types import Candidate

    scorer = stack.enter_context(closing(scorer_for(space.config)))

    def check(prompt: Prompt, text: str) -> Mapping[str, Any]:
        (score,) = scorer.score([(prompt, Candidate(prompt.id, text))])
        return {
            "passed": score.passed,
            "value": score.value,
            "cause": score.cause,
            "reason": score.reason,
            "scorer": f"{score.scorer}@{score.version}",
        }

    return check


# the two faces


def _in_terminal(service: AnnotationService, name: str, as_json: bool) -> dict[str, Any]:
    from hafs.annotate.terminal import Terminal

    sitting = Terminal(service, name, out=sys.stderr if as_json else None)
    try:
        progress = sitting.run()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise typer.Exit(130) from None
    return {
        "annotator": name,
        "answered": sitting.answered,
        "done": progress.done,
        "left": progress.left,
        "median_seconds": progress.median_seconds,
    }


def _on_page(
    service: AnnotationService,
    root: Path,
    accounts: dict[str, str] | None,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    name: str | None,
    browser: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Serve the page until Ctrl-C."""
    page_tools()
    from hafs.annotate.web.app import create_app
    from hafs.annotate.web.gate import server_of

    token = page_token(root)
    hosts = [*("[::1]" if h == "::1" else h for h in LOOPBACK), *allow_hosts, *([host] if accounts else [])]
    app = create_app(service, token=token, accounts=accounts, allowed_hosts=hosts, login=getpass.getuser())
    with closing(listen(host, port)) as sock:
        where = f"[{host}]" if ":" in host else host
        link = f"http://{where}:{sock.getsockname()[1]}/"
        if accounts is None:
            from urllib.parse import urlencode

            link += "?" + urlencode({"token": token, **({"name": name} if name else {})})
        print(f"Open {link}\nCtrl-C ends it; nothing is lost.", file=sys.stderr if as_json else sys.stdout, flush=True)
        if browser:
            import webbrowser

            webbrowser.open(link)
        server = server_of(app, lifespan="off")
        with suppress(KeyboardInterrupt):  # uvicorn shuts down in order, then passes it on
            server.run(sockets=[sock])
    return {"link": link, **_so_far(service)}


def _so_far(service: AnnotationService) -> dict[str, Any]:
    found = service.stats()
    return {
        "answers": found["answers"],
        "prompts": found["prompts"],
        "annotators": {name: row["answers"] for name, row in found["annotators"].items()},
    }


# accounts


def _accounts(root: Path, host: str) -> dict[str, str] | None:
    """Who may log in where others can reach the page; None on this machine alone, where the link has a token."""
    if host in LOOPBACK:
        return None
    known = read_accounts(root / ACCOUNTS)
    if not known:
        raise UsageError(
            f"on {host} others could reach the page, and nobody has an account",
            "`hafs annotate account NAME` makes one; or leave --host away",
        )
    note(
        f"others can reach this page: {len(known)} accounts may log in. Passwords cross the network as they"
        " are, so put it behind a server that speaks TLS."
    )
    return known


def read_accounts(path: Path) -> dict[str, str]:
    """The password hashes by name; empty without a file, UsageError for one that cannot be read."""
    if not path.is_file():
        return {}
    try:
        found = jsonlib.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(kept) for name, kept in found.items()}
    except (ValueError, AttributeError) as e:
        raise UsageError(f"{path} holds no accounts: {e}", "remove it and make them again") from e


def _new_password() -> str:
    """A password from the person, asked twice, or the first line of standard input when that is no terminal."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            raise UsageError("the two passwords differ", "try again")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < 8:
        raise UsageError("a password has at least 8 characters", "choose a longer one")
    return password


def _write_groups(space: Workspace, store: Store, output: Path, prompts: Sequence[str]) -> dict[str, int]:
    """Write what was said of the queue's prompts; how many groups there are, and how many no training will take."""
    from hafs.files.jsonl import write_jsonl
    from hafs.preferences.collect import groups_from_people

    groups, _ = groups_from_people(store, space.config.preferences, only=prompts)
    write_jsonl(output, groups)
    return {"groups": len(groups), "groups_of_tests": sum(g.split == "test" for g in groups)}


def _summary(said: Mapping[str, Any]) -> list[str]:
    if "annotator" in said:
        rest = f"{said['left']} left; the same command goes on from here" if said["left"] else "nothing is left"
        lines = [f"{said['answered']} answered now, {said['done']} in all, {rest}"]
    else:
        people = ", ".join(f"{name} {n}" for name, n in said["annotators"].items())
        lines = [f"{said['answers']} answers about {said['prompts']} prompts{': ' if people else ''}{people}"]
    if said["equal"]:
        lines.append(f"{said['equal']} prompts were left out: their answers are all the same")
    if "groups" in said:
        lines.append(f"{said['groups']} preference groups written, of the prompts of this queue")
    if n := said.get("groups_of_tests"):
        lines.append(f"{n} of them are of the test split: training leaves them out, with their number")
    return lines


def _stats_table(found: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table(
        "Annotator",
        "Answers",
        "Ranked",
        "Other",
        "Seconds",
        "Same as before",
        "Gold right",
        box=None,
        header_style="bold",
    )
    for name, row in found["annotators"].items():
        seconds = "-" if row["median_seconds"] is None else f"{row['median_seconds']:.0f}"
        counts = [str(row["answers"]), str(row["ranked"]), str(row["answers"] - row["ranked"])]
        table.add_row(name, *counts, seconds, _share(row["self_consistency"]), _share(row["gold"]))
    agreed = found["agreement"]
    if not agreed["pairs"]:
        text = "No pair of answers was judged by two people yet."
    else:
        alpha = "undefined (all judgements are equal)" if agreed["alpha"] is None else f"{agreed['alpha']:.2f}"
        text = (
            f"Agreement: Krippendorff's alpha {alpha}; {agreed['raw']:.0%} raw ({agreed['raw_low']:.0%} to"
            f" {agreed['raw_high']:.0%}), on {agreed['pairs']} pairs of {agreed['prompts']} prompts."
        )
    return Group(table, "", text)


def _share(rate: Mapping[str, Any]) -> str:
    if rate["rate"] is None:
        return "-"
    return f"{rate['rate']:.0%} ({rate['low']:.0%} to {rate['high']:.0%}, n={rate['n']})"
