"""The failed answers of an evaluation, clustered by cause and error signature, and what changed since an earlier one.

Every failed answer is in exactly one cluster. Unscored prompts are no failures: they are counted beside them. Changes
are counted over the prompts scored in both evaluations, so that another choice of prompts looks like no change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from hafs.evals.causes import Why, got_and_expected, why
from hafs.evals.results import EvalResult, PromptResult, parse
from hafs.evals.tables import Cell, Table, fence, markdown_cell, markdown_table, rich_table
from hafs.evals.words import model_title, percent, title

__all__ = ["Cluster", "Failed", "FailureReport", "FamilyFailures", "cluster_table", "failures", "family_table", "lead"]

EXAMPLES = 3  # kept for a cluster
SHOWN = 30  # rows of a table


@dataclass(frozen=True)
class Failed:
    """One failed answer: its prompt, what the model wrote, and what came out instead of what."""

    prompt_id: str
    family: str
    category: str
    prompt: str
    answer: str
    got: str
    expected: str


@dataclass(frozen=True)
class Cluster:
    """Failed answers of one cause and error signature: how many, of which families, and the change since before.

    `change` counts prompts scored both times (None without an earlier evaluation); `n` may be 0 where an error is gone.
    """

    cause: str
    signature: str
    n: int
    families: Mapping[str, int]
    change: int | None = None
    prompts: tuple[str, ...] = ()
    examples: tuple[Failed, ...] = ()


@dataclass(frozen=True)
class FamilyFailures:
    """One family of prompts: scored, failed, by which causes; `change` of the failed ones as in `Cluster`."""

    family: str
    category: str
    n: int
    failed: int
    causes: Mapping[str, int]
    change: int | None = None

    @property
    def share(self) -> float:
        """The failed share of the scored prompts, in [0, 1]; 0 where none was scored."""
        return self.failed / self.n if self.n else 0.0


@dataclass(frozen=True)
class FailureReport:
    """Why a model fails on a benchmark. `clusters` come largest first, `families` by failed share.

    `before` names the earlier evaluation; of the `shared` prompts scored in both, `mended` passed only now and
    `broken` only then.
    """

    name: str
    benchmark: str
    model: str
    prompts: int
    scored: int
    failed: int
    unscored: Mapping[str, int]
    clusters: tuple[Cluster, ...]
    families: Mapping[str, FamilyFailures]
    before: str = ""
    before_model: str = ""
    shared: int = 0
    mended: int = 0
    broken: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, the failed share of every family included."""
        families = {name: {**asdict(f), "share": f.share} for name, f in self.families.items()}
        return {**asdict(self), "families": families}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> FailureReport:
        """The inverse of `to_dict`; raises DataError naming what is wrong."""
        return parse(cls, row, "failure report")

    def to_markdown(self) -> str:
        """The report as Markdown: what happened, clusters, families, and an example of each large cluster."""
        parts = [
            f"## {markdown_cell(title(self.benchmark))}: why {markdown_cell(model_title(self.name))} fails",
            markdown_cell(lead(self)),
        ]
        if self.clusters:
            parts += [markdown_table(cluster_table(self)), markdown_table(family_table(self))]
        for c in self.clusters[:6]:
            for e in c.examples[:1]:
                parts.append(f"### {markdown_cell(f'{c.cause}: {c.signature}')}")
                parts.append(f"{fence(e.prompt)}\n\nanswered\n\n{fence(e.answer)}")
                if e.got:
                    parts.append(markdown_cell(_instead(e)))
        return "\n\n".join(parts) + "\n"

    def to_rich(self) -> RenderableType:
        """The report for a terminal: clusters and families as tables."""
        parts: list[RenderableType] = [Text(lead(self))]
        if self.clusters:
            parts += [Text(), rich_table(cluster_table(self)), rich_table(family_table(self))]
        return Group(*parts)


def failures(result: EvalResult, before: EvalResult | None = None) -> FailureReport:
    """Cluster the failed answers of `result`; `before` is an earlier evaluation on the same benchmark."""
    now, then = _why(result), _why(before) if before else {}
    shared = _scored(result) & _scored(before) if before else set()
    by_id = {r.prompt_id: r for r in result.results}
    members: dict[Why, list[PromptResult]] = defaultdict(list)
    for prompt_id, w in now.items():
        members[w].append(by_id[prompt_id])
    change = _change(now, then, shared)
    for w in set(then.values()):
        if change[w] and w not in members:
            members[w] = []
    clusters = [_cluster(w, rows, change[w] if before else None) for w, rows in members.items()]
    clusters.sort(key=lambda c: (-c.n, c.change or 0, c.cause, c.signature))
    passed_now = {r.prompt_id for r in result.results if r.passed}
    return FailureReport(
        name=result.name,
        benchmark=result.benchmark,
        model=result.model,
        prompts=len(result.results),
        scored=result.scored,
        failed=len(now),
        unscored=result.unscored(),
        clusters=tuple(clusters),
        families=_families(result, before, now, then, shared),
        before=before.name if before else "",
        before_model=before.model if before else "",
        shared=len(shared),
        mended=len(shared & passed_now & then.keys()),
        broken=len((shared & now.keys()) - then.keys()),
        causes=dict(Counter(w.cause for w in now.values()).most_common()),
    )


def _why(result: EvalResult) -> dict[str, Why]:
    """{prompt id: why its answer failed}"""
    limit = result.decoding.get("max_new_tokens")
    return {r.prompt_id: why(r, limit) for r in result.results if r.passed is False}


def _scored(result: EvalResult) -> set[str]:
    return {r.prompt_id for r in result.results if r.passed is not None}


def _change(now: Mapping[str, Any], then: Mapping[str, Any], shared: set[str]) -> Counter[Any]:
    """How many more of the shared prompts fail in each way now than then."""
    counts: Counter[Any] = Counter()
    for prompt_id in shared:
        if prompt_id in now:
            counts[now[prompt_id]] += 1
        if prompt_id in then:
            counts[then[prompt_id]] -= 1
    return counts


def _cluster(w: Why, rows: Sequence[PromptResult], change: int | None) -> Cluster:
    families = Counter(r.family or "(no family)" for r in rows)
    first: dict[str, PromptResult] = {}
    for r in rows:
        first.setdefault(r.family, r)  # examples of several families where there are several
    chosen = [*first.values(), *(r for r in rows if r not in first.values())][:EXAMPLES]
    return Cluster(
        w.cause,
        w.signature,
        len(rows),
        dict(families.most_common()),
        change,
        tuple(r.prompt_id for r in rows),
        tuple(Failed(r.prompt_id, r.family, r.category, r.prompt, r.text, *got_and_expected(r)) for r in chosen),
    )


def _families(
    result: EvalResult, before: EvalResult | None, now: Mapping[str, Why], then: Mapping[str, Why], shared: set[str]
) -> dict[str, FamilyFailures]:
    rows: dict[str, list[PromptResult]] = defaultdict(list)
    for r in result.results:
        if r.passed is not None:
            rows[r.family or "(no family)"].append(r)
    out = []
    for family, members in rows.items():
        ids = {r.prompt_id for r in members}
        failed = [now[i] for i in ids if i in now]
        change = len(shared & ids & now.keys()) - len(shared & ids & then.keys()) if before else None
        causes = dict(Counter(sorted(w.cause for w in failed)).most_common())
        out.append(FamilyFailures(family, members[0].category, len(members), len(failed), causes, change))
    return {f.family: f for f in sorted(out, key=lambda f: (-f.share, -f.failed, f.family))}


# ---- in words


def lead(r: FailureReport) -> str:
    """How many failed of how many, by cause, and what changed, in a sentence or two."""
    who = f"{model_title(r.name)} on {title(r.benchmark)}"
    missing = f" ({r.prompts - r.scored} unscored, not counted)" if r.scored < r.prompts else ""
    said = f"{who}: {r.failed} of {r.scored} scored prompts failed{missing}."
    if r.causes:
        said += f" Causes: {', '.join(f'{cause} {n}' for cause, n in r.causes.items())}."
    if r.before:
        said += (
            f" Against {model_title(r.before)}, over {r.shared} prompts scored for both: {r.mended} mended,"
            f" {r.broken} broken."
        )
    return said


def cluster_table(r: FailureReport) -> Table:
    """A row for each cluster: cause, signature, how many, the change, and the families most often in it."""
    rows = []
    for c in r.clusters[:SHOWN]:
        top = ", ".join(f"{name} {n}" for name, n in list(c.families.items())[:3])
        more = f" and {len(c.families) - 3} more" if len(c.families) > 3 else ""
        rows.append((Cell(c.cause), Cell(c.signature), Cell(str(c.n)), *_change_cell(r, c.change), Cell(top + more)))
    header = ("Cause", "Signature", "Failed", *(("Change",) if r.before else ()), "Families")
    rest = len(r.clusters) - SHOWN
    return Table(
        "Failed answers" + (f" ({rest} smaller clusters left out)" if rest > 0 else ""), header, tuple(rows), plain=True
    )


def family_table(r: FailureReport) -> Table:
    """A row for each family with failures: its failed share and its causes, the worst first."""
    rows = []
    failing = [f for f in r.families.values() if f.failed or f.change]
    for f in failing[:SHOWN]:
        causes = ", ".join(f"{cause} {n}" for cause, n in f.causes.items())
        share = Cell(f"{percent(f.share)} ({f.failed} of {f.n})")
        rows.append((Cell(f.family), Cell(f.category), share, *_change_cell(r, f.change), Cell(causes)))
    header = ("Family", "Category", "Failed", *(("Change",) if r.before else ()), "Causes")
    rest = len(failing) - SHOWN
    return Table("By family" + (f" ({rest} more left out)" if rest > 0 else ""), header, tuple(rows), plain=True)


def _change_cell(r: FailureReport, change: int | None) -> tuple[Cell, ...]:
    if not r.before:
        return ()
    return (Cell("0" if not change else f"{change:+d}".replace("-", "−")),)


def _instead(e: Failed) -> str:
    return f"Got {e.got}" + (f", expected {e.expected}" if e.expected else "")
