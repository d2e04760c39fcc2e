"""What a gain is made of: the data's part and the preferences', and intervals that contain seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.cli.common import with_preset
from hafs.config import Config, override
from hafs.errors import UsageError
from hafs.evals import WINNERS, EvalResult, PromptResult, attribute, compare
from hafs.evals.attribution import cheaper
from hafs.evals.words import model_title
from hafs.statistics import Estimate, paired_bootstrap, two_level_bootstrap
from hafs.workflows.compare_methods import MethodResult, _change, to_markdown
from hafs.workflows.recipe import decide


def result(name: str, passes: str) -> EvalResult:
    """A model that passes the prompts marked "+"; those marked "?" are unscored."""
    rows = (
        PromptResult(f"p{i}", reason="no assembler")
        if mark == "?"
        else PromptResult(f"p{i}", passed=mark == "+", value=float(mark == "+"))
        for i, mark in enumerate(passes)
    )
    return EvalResult(name, "b", tuple(rows))


SFT = "----------" * 6
SOME = "+++++-----" * 6
MORE = "+++++++++-" * 6


def test_a_gain_is_split_into_the_datas_and_the_preferences() -> None:
    found = attribute([result("sft", SFT)], [result(WINNERS, SOME)], [result("dpo", MORE)])
    assert (found.total.value, found.data.value, found.preferences.value) == pytest.approx((0.9, 0.5, 0.4))
    assert found.sentence.startswith("Of DPO's +90.0 points over SFT, +50.0 (") and "add to it" in found.sentence
    assert "with SFT on winners, that is with the data" in found.sentence
    none = attribute([result("sft", SFT)], [result(WINNERS, SOME)], [result("dpo", SOME)])
    assert none.preferences.value == 0 and "cannot be told from chance" in none.sentence
    less = attribute([result("sft", SFT)], [result(WINNERS, MORE)], [result("dpo", SOME)])
    assert "take away" in less.sentence


def test_the_cheaper_model_is_kept_where_the_two_do_not_differ() -> None:
    def kept(sft: str, winners: str, dpo: str) -> tuple[str, bool]:
        results = {"sft": [result("sft", sft)], WINNERS: [result(WINNERS, winners)], "dpo": [result("dpo", dpo)]}
        name, said = decide(compare(results, "sft"), attribute(*results.values()))
        assert said.promote == (name == "dpo") and said.notes[0].startswith("Of DPO's")
        return name, said.promote

    assert kept(SFT, SOME, MORE)[0] == "dpo"
    assert kept(SFT, SOME, SOME)[0] == kept(SFT, MORE, SOME)[0] == WINNERS
    assert kept(SOME, SFT, MORE)[0] == "dpo", "SFT on winners is worse than the start"
    assert kept(MORE, SFT, SOME)[0] == "sft"
    same = attribute([result("sft", SOME)], [result(WINNERS, SOME)], [result("dpo", SOME)])
    assert cheaper(same, True, True) and not cheaper(same, True, False) and cheaper(same, False, True)


def test_titles_of_the_rounds_models() -> None:
    assert [model_title(n) for n in (WINNERS, f"{WINNERS}-2", "dpo-2", "my-7b")] == [
        "SFT on winners",
        "SFT on winners 2",
        "DPO 2",
        "my-7b",
    ]


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 5))
def test_the_two_level_interval_holds_its_value_and_mirrors(n: int, seeds: int, draw: int) -> None:
    rng = np.random.default_rng(draw)
    new, old = rng.integers(0, 2, (n, seeds)), rng.integers(0, 2, n)
    e = two_level_bootstrap(new, old, draws=400)
    assert e.value == pytest.approx(new.mean() - old.mean()) and e.low is not None and e.high is not None
    assert e.n == n and ("seed" in e.method)
    same = two_level_bootstrap(new, new.copy(), draws=400)
    assert same.value == 0 and same.low is not None and same.high is not None and same.low <= 0 <= same.high


def test_one_seed_is_the_bootstrap_over_prompts_and_says_so() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    two, one = two_level_bootstrap(new, old), paired_bootstrap(new, old)
    assert two.low == pytest.approx(one.low, abs=0.015) and two.high == pytest.approx(one.high, abs=0.015)
    assert two.method == "bootstrap over prompts, of one seed"
    with pytest.raises(ValueError, match="prompts"):
        two_level_bootstrap(new, old[:-1])


def test_an_interval_over_seeds_is_as_wide_as_the_seeds_differ() -> None:
    """All prompts agree on each seed, so only seeds vary: the standard error is that of a mean of three seeds."""
    rates = np.array([0.4, 0.5, 0.6])
    new = (np.arange(1000)[:, None] % 10 < 10 * rates).astype(float)
    e = two_level_bootstrap(new, np.full(1000, 0.5), draws=4000)
    assert e.low is not None and e.high is not None
    error = rates.std(ddof=1) / np.sqrt(3)
    assert e.high - e.low > 2 * 1.6 * error
    narrow = two_level_bootstrap(np.repeat(new[:, 1:2], 3, axis=1), np.full(1000, 0.5), draws=4000)
    assert narrow.low is not None and narrow.high is not None and narrow.high - narrow.low < e.high - e.low


def test_compare_methods_counts_prompts_that_every_seed_has_and_says_what_is_the_datas() -> None:
    sft, seeds = result("sft", "--+?"), [result("a", "++++"), result("b", "+-+-")]
    gain = _change(seeds, [sft])
    assert gain.n == 3 and gain.value == pytest.approx((1 + 2 / 3) / 2 - 1 / 3)
    assert _change(seeds, []).value == pytest.approx(0.75)
    e = Estimate(0.2, 0.1, 0.3, 60, 0.95, "")
    rows = [
        MethodResult(WINNERS, 1.0, 10.0, (0.5,), e, e, ()),
        MethodResult("dpo", 2.0, 10.0, (0.6,), e, e, (), over=Estimate(0.01, -0.05, 0.07, 60, 0.95, "")),
    ]
    table = to_markdown(result("sft", SFT), rows)
    assert "Over SFT on winners" in table and "+1.0 points (-5.0 to +7.0)" in table
    assert "- dpo: of +20.0 points (+10.0 to +30.0) over SFT, +20.0 come with SFT" in table
    assert "not to be told from chance" in table


def test_the_defaults_and_the_guides() -> None:
    config = Config()
    assert config.generate.temperature == 0.7 and not config.preferences.wrong_over_wrong
    guide = with_preset(config.preferences, "guide", "preferences")
    assert (guide.scheme, guide.wrong_over_wrong) == ("guide", True)
    assert with_preset(config.generate, "guide", "generate").temperature == 0.8
    assert with_preset(config.generate, None, "generate") == config.generate
    assert override(guide, wrong_over_wrong=False).scheme == "guide", "a flag goes over the preset"
    with pytest.raises(UsageError, match="no preset 'fast'"):
        with_preset(config.generate, "fast", "generate")
