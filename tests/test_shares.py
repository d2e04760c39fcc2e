"""Groups built by several processes: the same as those of one, and a process that fails is a failure."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.config import PreferencesConfig
from hafs.errors import HafsError
from hafs.preferences import Stats
from hafs.preferences.parallel import Build, _shares, build
from hafs.store import Store, open_store
from hafs.types import Candidate, Edge, GroupCandidate, PreferenceGroup, Prompt, Score


def filled(path: Path, prompts: int = 60) -> Store:
    """Prompts with four answers each; some unscored, some alike, some prompts where all are equally good."""
    r, store = random.Random(0), open_store(path)
    for i in range(prompts):
        p = Prompt(f"prompt {i}", family=f"f{i % 5}", split="test" if i % 7 == 0 else "train")
        answers = [Candidate(p.id, f"answer {r.randrange(6)}", model=f"m{k % 2}", index=k) for k in range(4)]
        store.add_prompts([p])
        store.add_candidates(answers)
        store.add_scores([Score(c.id, "asm", "1", value=r.randrange(3) / 2) for c in answers if r.random() < 0.9])
    return store


def work(store: Store, **filters: object) -> Build:
    return Build(store.url, "asm", "1", {}, PreferencesConfig().model_dump(), filters)


@pytest.mark.parametrize("filters", [{}, {"split": "train", "model": "m0"}], ids=["all", "some"])
def test_shares_are_the_whole(tmp_path: Path, filters: dict[str, str]) -> None:
    with filled(tmp_path / "one.db") as one, filled(tmp_path / "three.db") as three:
        told: list[tuple[int, int]] = []
        whole = build(one, work(one, **filters), processes=1)
        shared = build(three, work(three, **filters), lambda what, done, of, more: told.append((done, of)), processes=3)
        assert shared.ids == whole.ids and len(whole.ids) > 10
        assert shared.report == whole.report and shared.report.skipped
        assert shared.stats == whole.stats
        assert [(g, g.id) for g in three.groups()] == [(g, g.id) for g in one.groups()]
        assert told[-1] == (whole.report.prompts, whole.report.prompts)


def test_what_goes_wrong_in_a_share_is_said_here(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", 4) as store:
        broken = replace(work(store), url=f"sqlite:///{tmp_path}")
        with pytest.raises(HafsError, match="could not open"):
            build(store, broken, processes=2)
        assert list(store.groups()) == []


@given(st.integers(1, 9), st.text("0123456789abcdef", min_size=20, max_size=20))
def test_every_prompt_is_in_one_share(n: int, id: str) -> None:
    assert sum(low <= id and (not high or id < high) for low, high in _shares(n)) == 1


edges = st.lists(
    st.builds(
        Edge,
        st.just(0),
        st.just(1),
        p=st.sampled_from([0.75, 1.0]),
        weight=st.sampled_from([0.5, 1.0, 2.0]),
        margin=st.sampled_from([None, 0.25]),
        source=st.sampled_from(["asm@1", "judge:m", "human:ann"]),
    ),
    min_size=1,
    max_size=3,
)
groups = st.builds(
    PreferenceGroup,
    st.text("pq", min_size=1, max_size=3),
    st.just((GroupCandidate("long answer"), GroupCandidate("short"))),
    edges.map(tuple),
    family=st.sampled_from("ab"),
)


@given(st.lists(groups, max_size=6), st.integers(0, 6))
def test_statistics_add_up(made: list[PreferenceGroup], at: int) -> None:
    def of(some: list[PreferenceGroup]) -> Stats:
        stats = Stats()
        list(stats.counted(some))
        return stats

    assert of(made[:at]) + of(made[at:]) == of(made)
