"""Figures in words: the same formats in the terminal, in Markdown and in the report."""

from __future__ import annotations

from hafs.statistics import Estimate
from hafs.tasks.domain import domains

__all__ = ["interval", "model_title", "p_value", "percent", "points", "seconds", "title", "tokens"]

_MODELS = {
    "baseline": "Baseline",
    "sft": "SFT",
    "sft-winners": "SFT on winners",
    "dpo": "DPO",
    "ppo": "PPO",
    "rlhf": "RLHF",
}
_BENCHMARKS = {"decision": "Decision prompts"}


def model_title(name: str) -> str:
    """A model's name as a column heading: "sft" becomes "SFT", "dpo-2" "DPO 2"; unknown names stay as they are."""
    kind, _, number = name.rpartition("-")
    if kind in _MODELS and number.isdecimal():
        return f"{_MODELS[kind]} {number}"
    return _MODELS.get(name, name)


def title(benchmark: str) -> str:
    """A benchmark's name as a row heading: "rom_hack" becomes "ROM Hack Benchmark"."""
    words = benchmark.replace("_", " ").strip()
    named = _BENCHMARKS | {name: text for d in domains() for name, text in d.titles.items()}
    return named.get(benchmark) or f"{words[:1].upper()}{words[1:]} Benchmark"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal, "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}%"


def points(change: float | None) -> str:
    """A change of a share as signed percentage points, "-" for None."""
    return "-" if change is None else _signed(100 * change)


def _signed(x: float) -> str:
    text = f"{x:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def interval(e: Estimate, *, change: bool = False) -> str:
    """The interval in percent ("65.4–82.6%"), or in signed points ("−1.1 to +13.6") for a change."""
    if e.low is None or e.high is None:
        return "-"
    if change:
        return f"{_signed(100 * e.low)} to {_signed(100 * e.high)}"
    return f"{100 * e.low:.1f}–{100 * e.high:.1f}%"


def tokens(e: Estimate) -> str:
    """A change of length in tokens with its interval: "−4.0 tokens (−5.1 to −2.9)"."""
    if e.value is None or e.low is None or e.high is None:
        return "-"
    return f"{_signed(e.value)} tokens ({_signed(e.low)} to {_signed(e.high)})"


def p_value(p: float) -> str:
    """A p-value with its sign: "= 0.027", or "< 0.001" below that."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def seconds(s: float) -> str:
    """A time as "8.4 s", "3 min 20 s" or "1 h 05 min"."""
    if s < 59.95:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
