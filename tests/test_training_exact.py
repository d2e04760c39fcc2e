"""The engine is exact: shared layout = unshared = plain forward pass, whatever the batch, split, K or family."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tiny_network
from hafs.config import DPOConfig
from hafs.errors import UsageError
from hafs.training import tree
from hafs.training.attention import SHARED_LAYOUT, masks
from hafs.training.logprobs import CandidateLogps, _plain, self_test
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.objectives.sft import SFTObjective
from hafs.training.packing import PackedRow, TokenGroup, fit, pack, shared_row, tokens_of, unshared_row
from hafs.training.reference import ReferenceCache
from hafs.training.run import with_adapter
from hafs.types import CandidateLabel, Edge

few, many = (st.lists(st.integers(0, top), min_size=1, max_size=7).map(tuple) for top in (2, 255))
ids = st.one_of(few, many)
"""Of three different tokens sequences begin alike: prompts, candidates that are equal, one that is another's prefix."""


@pytest.fixture(scope="module", autouse=True)
def branch_by_branch() -> Iterator[None]:
    """Attention is cut at every fork, as it is where branches are long; these are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "CALL", 0)
        yield


@st.composite
def groups(draw: Any) -> TokenGroup:
    candidates = draw(st.lists(ids, min_size=2, max_size=4))
    pairs = [(i, j) for i in range(len(candidates)) for j in range(i + 1, len(candidates))]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=len(pairs), unique=True))
    edges = tuple(
        Edge(i, j, draw(st.sampled_from([0.5, 1.0, 3.0])), draw(st.sampled_from([0.7, 1.0]))) for i, j in chosen
    )
    return TokenGroup(draw(ids), tuple(candidates), edges)


def plain(net: Any, group: TokenGroup) -> list[torch.Tensor]:
    out = []
    for c in group.candidates:
        x = torch.tensor([[*group.prompt, *c]])
        logps = net(input_ids=x).logits[0, len(group.prompt) - 1 : -1].log_softmax(-1)
        out.append(logps.gather(-1, torch.tensor(c)[:, None]).sum())
    return out


EXPERTS = {"qwen3_moe", "gpt_oss"}
WINDOWS: dict[str, dict[str, Any]] = {
    "qwen2, windows": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "phi3, windows": {"sliding_window": 4},
}


@pytest.fixture(scope="module", params=sorted([*SHARED_LAYOUT, *WINDOWS]))
def family(request: pytest.FixtureRequest) -> Any:
    name = request.param.split(",")[0]
    net = tiny_network(name, **WINDOWS.get(request.param, {}))
    return net if name in EXPERTS else net.double()  # the grouped matrix product of experts takes no float64


@settings(max_examples=8, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=3))
def test_shared_layout_is_the_plain_forward_pass(family: Any, members: list[TokenGroup]) -> None:
    model = CandidateLogps(family, shared=True)
    got = sums(model, shared_row(members))
    want = torch.stack([x for g in members for x in plain(family, g)])
    exact = got.dtype == torch.float64 and family.config._attn_implementation != "eager"  # eager's softmax is float32
    tolerance = 1e-9 if exact else 1e-5
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def sums(model: CandidateLogps, row: PackedRow) -> torch.Tensor:
    return row.sums(model(row))


def gradients(net: Any, loss: torch.Tensor) -> torch.Tensor:
    net.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]).clone()


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal relative to the whole gradient; the norm layers compute in float32 even in a float64 model."""
    assert float((a - b).norm()) <= 1e-6 * float(b.norm()) + 1e-9


@pytest.fixture(scope="module")
def net() -> Any:
    return tiny_network().double()


@settings(max_examples=10, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=3))
def test_gradients_are_those_of_the_unshared_layout(net: Any, members: list[TokenGroup]) -> None:
    objective = PreferenceObjective(nll_weight=0.3)
    model = CandidateLogps(net, shared=True)
    by_layout = []
    for layout in (shared_row, unshared_row):
        row = layout(members)
        logps = model(row)
        by_layout.append(gradients(net, objective.loss(logps, row.sums(logps).detach() * 0.9, row)[0]))
    same(*by_layout)


def test_a_candidate_does_not_see_another_nor_another_group(net: Any) -> None:
    model = CandidateLogps(net, shared=True)
    a = TokenGroup((1, 2, 3), ((4, 5), (6, 7, 8)))
    b = TokenGroup((1, 2, 3), ((9, 9, 9, 9), (6, 7, 8)))
    other = TokenGroup((50, 51), ((52,),))
    changed = TokenGroup((60, 61, 62), ((63, 64),))
    torch.testing.assert_close(sums(model, shared_row([a]))[1], sums(model, shared_row([b]))[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        sums(model, shared_row([other, a]))[1:], sums(model, shared_row([changed, a]))[1:], rtol=1e-9, atol=1e-9
    )


def _step_loss(model: Any, objective: Any, rows: list[list[TokenGroup]], total: float) -> torch.Tensor:
    losses = []
    for members in rows:
        row = shared_row(members)
        losses.append(objective.loss(model(row), torch.zeros(len(row.lengths)), row)[0] / total)
    return torch.stack(losses).sum()


@settings(max_examples=15, deadline=None)
@given(st.lists(groups(), min_size=2, max_size=6), st.integers(8, 80))
def test_a_step_does_not_depend_on_how_it_is_split(net: Any, members: list[TokenGroup], row_tokens: int) -> None:
    model = CandidateLogps(net, shared=True)
    for objective in (PreferenceObjective(nll_weight=0.1), SFTObjective()):
        split, whole = (
            gradients(net, _step_loss(model, objective, rows, objective.normaliser(members)))
            for rows in (pack(members, row_tokens), [members])
        )
        same(split, whole)


def test_equal_groups_with_more_edges_pull_no_harder(net: Any) -> None:
    model, objective = CandidateLogps(net, shared=True), PreferenceObjective()
    one = TokenGroup((1, 2), ((3,), (4, 5)), (Edge(0, 1),))
    twice = TokenGroup((1, 2), ((3,), (4, 5)), (Edge(0, 1), Edge(0, 1)))
    losses = [objective.loss(model(shared_row([g])), torch.zeros(2), shared_row([g]))[0] for g in (one, twice)]
    torch.testing.assert_close(losses[0], losses[1])


def test_loss_is_ln_2_when_policy_is_reference(net: Any) -> None:
    model, objective = CandidateLogps(net, shared=True), PreferenceObjective()
    row = shared_row([TokenGroup((1, 2), ((3,), (4, 5)), (Edge(0, 1),))])
    logps = model(row)
    loss, metrics = objective.loss(logps, row.sums(logps).detach(), row)
    assert float(loss) == pytest.approx(math.log(2))
    assert metrics["rewards/margins"][0] == 0


def test_swapping_an_edge_swaps_the_gradient_at_the_start(net: Any) -> None:
    model, objective = CandidateLogps(net, shared=True), PreferenceObjective()
    both = []
    for edge in (Edge(0, 1), Edge(1, 0)):
        row = shared_row([TokenGroup((1, 2), ((3,), (4, 5)), (edge,))])
        logps = model(row)
        both.append(gradients(net, objective.loss(logps, row.sums(logps).detach(), row)[0]))
    same(both[0], -both[1])


def test_a_hybrid_family_falls_back_by_itself() -> None:
    hybrid = tiny_network("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False).double()
    model = CandidateLogps(hybrid)
    assert model.shared is False
    members = [TokenGroup((1, 2, 3), ((4, 5), (6, 7, 8))), TokenGroup((9, 8), ((7,), (6, 5, 4, 3)))]
    row = model.row(members)
    assert len(row.input_ids) == 4  # each unique candidate once
    want = torch.stack([x for g in members for x in plain(hybrid, g)])
    torch.testing.assert_close(sums(model, row), want, rtol=1e-6, atol=1e-6)
    assert self_test(model, members, 1e-4) is False


def test_the_self_test_switches_a_wrong_layout_off(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    group = TokenGroup(tuple(range(12)), ((40, 41, 42), (50, 51)))
    assert self_test(CandidateLogps(net, shared=True), [group], 1e-4) is True

    def everyone_sees_what_came_before(row: PackedRow, config: Any) -> torch.Tensor:
        length = row.input_ids.shape[1]
        return torch.ones(length, length, dtype=torch.bool).tril()[None, None]

    monkeypatch.setattr("hafs.training.logprobs.masks", everyone_sees_what_came_before)
    broken = CandidateLogps(tiny_network(), shared=True)
    assert self_test(broken, [group], 1e-4) is False
    assert broken.shared is False


def test_attention_by_blocks_is_attention_under_the_whole_mask(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [TokenGroup((1, 2, 3), ((4, 5), (6, 7, 8))), TokenGroup((9, 8), ((7,), (6, 5, 4, 3)))]
    model, row = CandidateLogps(net, shared=True), shared_row(members)
    assert len(row.blocks) > 1
    by_blocks = gradients(net, model(row).sum())
    monkeypatch.setattr("hafs.training.logprobs.masks", lambda row, config: masks(row, config).clone())  # no blocks
    same(gradients(net, model(row).sum()), by_blocks)


@pytest.mark.parametrize("family", ["llama", "mistral"])
@settings(max_examples=20, deadline=None)
@given(members=st.lists(groups(), min_size=1, max_size=4))
def test_a_block_has_the_keys_that_its_queries_see(family: str, members: list[TokenGroup]) -> None:
    """None is left out; what is taken beside them is masked; only a chain of queries goes without a mask."""
    row, config = shared_row(members), tiny_network(family).config
    mask = masks(row, config)
    for block in mask.blocks:
        seen = mask[0, 0, block.first : block.last]
        keys = torch.arange(seen.shape[1])[block.keys]
        assert {*seen.any(0).nonzero()[:, 0].tolist()} <= {*keys.tolist()}
        given = torch.ones(len(seen), len(keys), dtype=torch.bool).tril() if block.mask is None else block.mask[0, 0]
        assert torch.equal(given, seen[:, keys])


def test_checkpointing_a_group_of_layers_changes_no_number(net: Any) -> None:
    config = DPOConfig(activation_checkpointing=True, precision="fp32", method="full")
    row = shared_row([TokenGroup((1, 2, 3), ((4, 5), (6, 7, 8)))])
    found = []
    for changes in ({"activation_checkpointing": False}, {}, {"checkpointed_layers": 1}):
        deep = tiny_network(num_hidden_layers=4).double()
        model = CandidateLogps(with_adapter(deep, config.model_copy(update=changes)).train())
        layers = [getattr(layer, "gradient_checkpointing", False) for layer in deep.model.layers]
        assert sum(layers) == (0 if "activation_checkpointing" in changes else changes.get("checkpointed_layers", 4))
        found.append(gradients(deep, model(row).sum()))
    same(found[0], found[1])
    same(found[0], found[2])


def test_flex_attention_is_given_the_same_rule() -> None:
    """FlexAttention has no backward pass on a CPU; its mask is compared with the boolean one, place by place."""
    from torch.nn.attention.flex_attention import create_mask

    row = shared_row([TokenGroup((1, 2, 3), ((4, 5), (6, 7, 8))), TokenGroup((9, 8), ((7,), (6, 5, 4, 3)))])
    config = tiny_network("mistral").config
    boolean = masks(row, config)
    config._attn_implementation = "flex_attention"
    block = masks(row, config)
    length = row.input_ids.shape[1]
    assert torch.equal(create_mask(block.mask_mod, 1, 1, length, length, device="cpu"), boolean)


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_the_layout_is_exact_on_a_gpu(attention: str) -> None:
    gpu = tiny_network().cuda()
    gpu.set_attn_implementation(attention)
    members = [TokenGroup(tuple(range(1, 40)), (tuple(range(40, 75)), (6, 7, 8))), TokenGroup((9, 8), ((7,), (6, 5)))]
    model = CandidateLogps(gpu)
    row = model.row(members)
    logps = model(row)
    want = [_plain(gpu, g.prompt, c) for g in members for c in g.candidates]
    torch.testing.assert_close(row.sums(logps), torch.stack(want), rtol=1e-3, atol=1e-3)
    logps.sum().backward()


def test_long_answers_are_computed_in_chunks(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = shared_row([TokenGroup((1, 2), (tuple(range(40)), (4, 5)), (Edge(0, 1),))])
    model = CandidateLogps(net, shared=True)
    whole = model(row)
    grads = gradients(net, whole.sum())
    monkeypatch.setattr("hafs.training.logprobs.CHUNK", 260 * 7)
    parts = model(row)
    torch.testing.assert_close(parts, whole)
    same(gradients(net, parts.sum()), grads)


def test_too_long_candidates_go_with_their_edges() -> None:
    group = TokenGroup((1, 2), ((3,), (4,) * 9, (5, 6)), (Edge(0, 1), Edge(2, 0), Edge(1, 2)))
    kept = fit(group, 6)
    assert kept is not None
    assert kept.candidates == ((3,), (5, 6))
    assert [(e.winner, e.loser) for e in kept.edges] == [(1, 0)]
    assert fit(group, 3) is None


@given(st.lists(groups(), max_size=12), st.integers(1, 60))
def test_packing_keeps_every_group_and_the_budget(members: list[TokenGroup], row_tokens: int) -> None:
    rows = pack(members, row_tokens)
    assert sorted(map(repr, (g for r in rows for g in r))) == sorted(map(repr, members))
    assert all(len(r) == 1 or tokens_of(r) <= row_tokens for r in rows)
    assert [[g.prompt for g in r] for r in pack(members[::-1], row_tokens)] == [[g.prompt for g in r] for r in rows]


@settings(max_examples=30, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=4))
def test_a_row_has_every_distinct_prefix_once_and_each_sees_its_own(members: list[TokenGroup]) -> None:
    row = shared_row(members)
    sequences = [(*g.prompt, *c[:-1]) for g in members for c in g.candidates]
    prefixes = {s[: i + 1] for s in sequences for i in range(len(s))}
    tokens, ends, depths = row.input_ids[0].tolist(), row.ends.tolist(), row.positions[0].tolist()
    read = [tuple(tokens[k] for k in range(q + 1) if q < ends[k]) for q in range(len(tokens))]
    assert len(read) == len(prefixes) == tokens_of(members)
    assert set(read) == prefixes
    assert depths == [len(prefix) - 1 for prefix in read]
    assert row.labels.tolist() == [t for g in members for c in g.candidates for t in c]
    assert len(row.chosen) == len(
        {(*g.prompt, *c[:i]) for g in members for c in g.candidates for i in range(1, len(c) + 1)}
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=4), st.sampled_from([0, 10, 1500]))
def test_blocks_are_the_row_cut_where_attention_costs_least(members: list[TokenGroup], call: int) -> None:
    row = shared_row(members)
    depths, ends = row.positions[0].tolist(), row.ends.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "CALL", call)
        found = tree.blocks(depths, ends)
    assert [place for a, b in found for place in range(a, b)] == list(range(len(ends)))
    for first, last in found:  # a branch, or whole subtrees
        inside = all(ends[k] <= last for k in range(first, last))
        assert inside or all(ends[k] == ends[first] for k in range(first, last))
        above = [k for k in range(first) if ends[k] >= last]
        assert len(above) == depths[first]
    if call == 0:
        branches = [a for a in range(len(ends)) if not a or ends[a - 1] != ends[a]]
        assert len(found) <= len(branches) + 1


@settings(max_examples=8, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=3), st.sampled_from([0, 10, 1500]))
def test_windows_and_any_cut_are_exact_with_gradients(members: list[TokenGroup], call: int) -> None:
    windowed = tiny_network("mistral", sliding_window=3).double()
    objective = PreferenceObjective(nll_weight=0.3)
    found = []
    for layout in (shared_row, unshared_row):
        model = CandidateLogps(windowed, shared=layout is shared_row)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree, "CALL", call)
            row = layout(members)
        logps = model(row)
        found.append((logps, gradients(windowed, objective.loss(logps, row.sums(logps).detach() * 0.9, row)[0])))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-9)
    same(found[0][1], found[1][1])


def test_attention_with_dropout_goes_both_ways_with_one_mask() -> None:
    """The gradient of a pass with dropout is that of the very numbers it gave: here by a difference quotient."""
    torch.manual_seed(0)
    noisy = tiny_network(attention_dropout=0.5).double().train()
    noisy.config.attention_dropout = 0.5
    model, row = CandidateLogps(noisy, shared=True), shared_row([TokenGroup((1, 2, 3), ((4, 5), (4, 6, 7)))])
    weight = noisy.model.layers[0].self_attn.q_proj.weight

    def value() -> torch.Tensor:
        torch.manual_seed(7)
        return model(row).sum()

    noisy.zero_grad()
    value().backward()
    step = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-3 * step
        up = value()
        weight -= 2e-3 * step
        down = value()
    assert float((up - down) / 2e-3) == pytest.approx(float((weight.grad * step).sum()), rel=1e-2)


def test_the_padded_layout_is_packed_by_what_it_takes() -> None:
    """A prompt in common is no reason to put many groups in a row of a model that shares nothing."""
    members = [TokenGroup((*range(50), i), ((1, 2), (3, 4))) for i in range(60, 70)]
    assert len(pack(members, 120)) == 1
    assert [len(row) for row in pack(members, 120, shared=False)] == [1] * 10


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="without a single token"):
        TokenGroup((), ((1, 2),))


def test_equal_candidates_have_one_probability_and_send_two_gradients(net: Any) -> None:
    model = CandidateLogps(net, shared=True)
    row = shared_row([TokenGroup((1, 2), ((3, 4, 5), (3, 4, 5), (3, 4)), (Edge(0, 2),))])
    assert row.input_ids.tolist() == [[1, 2, 3, 4]]
    values = sums(model, row)
    assert values[0] == values[1]
    once = gradients(net, sums(model, shared_row([TokenGroup((1, 2), ((3, 4, 5),))]))[0] * 2)
    same(gradients(net, values[:2].sum()), once)


def test_the_reference_cache_outlives_the_process_and_a_cut_line(tmp_path: Any) -> None:
    a, b = TokenGroup((1,), ((2,), (3, 4))), TokenGroup((5,), ((6,),))
    ReferenceCache(tmp_path, ["model"]).put([a, b], [-1.5, -2.25, -0.1])
    (path,) = tmp_path.iterdir()
    with path.open("a") as f:
        f.write('["cut')
    again = ReferenceCache(tmp_path, ["model"])
    assert again.get(a) == [-1.5, -2.25]
    again.put([TokenGroup((7,), ((8,),))], [-3.0])
    assert ReferenceCache(tmp_path, ["model"]).get(TokenGroup((7,), ((8,),))) == [-3.0]
    assert ReferenceCache(tmp_path, ["another model"]).get(b) is None


def test_the_nll_term_is_of_right_winners_alone(net: Any) -> None:
    """A winner that is known to be wrong, or that another candidate beats, is preferred but not taught."""
    model = CandidateLogps(net, shared=True)
    best, beaten, wrong = (4, 5), (6, 7, 8), (9, 10)
    edges, bad = (Edge(0, 1), Edge(0, 2), Edge(1, 2)), CandidateLabel(False)
    groups = [
        TokenGroup((1, 2), (best, beaten, wrong), edges, (None, None, bad)),
        TokenGroup((1, 3), (best, wrong), (Edge(0, 1),), (bad, bad)),
        TokenGroup((1, 4), (best, beaten, wrong), (Edge(0, 2, 3.0), Edge(1, 2, 3.0)), (None, None, bad)),
    ]
    row = shared_row(groups)
    logps = model(row).detach()
    sums, lengths = row.sums(logps), row.lengths
    with_nll, metrics = PreferenceObjective(nll_weight=0.5).loss(logps, sums * 0.9, row)
    without, _ = PreferenceObjective().loss(logps, sums * 0.9, row)
    mean = -sums / lengths
    expected = mean[0] + 3 * (mean[5] + mean[6]) / 2
    torch.testing.assert_close(with_nll - without, 0.5 * expected)
    assert metrics["nll"] == pytest.approx((float(expected), 4.0))
