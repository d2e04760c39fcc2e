"""Reward models and PPO: the arithmetic, invariants of the packed computation, toy tasks with a known optimum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import byte_tokenizer, tiny_network
from hafs.config import PPOConfig, RewardConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import encode_answer, encode_prompt
from hafs.models.loading import load_tokenizer
from hafs.scorers.reward import RewardScorer
from hafs.training import train_reward
from hafs.training.actors import Actors, reward_adapter
from hafs.training.advantages import adapted_kl_weight, flat, gae, grpo, padded, rloo, whiten
from hafs.training.checkpoints import RunDirectory
from hafs.training.heads import CandidateRewards
from hafs.training.objectives.reward import RewardObjective
from hafs.training.packing import TokenGroup, shared_row, tokenize
from hafs.training.ppo import PPOTrainer, policy_loss, train_ppo, value_loss
from hafs.training.reward import reward_report
from hafs.training.rollout import Batch, Rating, Sampled
from hafs.training.runner import TrainResult
from hafs.types import Candidate, Edge, GroupCandidate, PreferenceGroup, Prompt, Score
from hafs.workflows.rollouts import policy_sampler, rater
from run_hafs import hafs

# ---- advantages


def test_gae_of_a_hand_worked_answer() -> None:
    """Three tokens, γ = 0.5, λ = 0.5: δ = (1 + .5·2 - 1, 0 + .5·4 - 2, 3 - 4) = (1, 0, -1)."""
    rewards, values = torch.tensor([[1.0, 0.0, 3.0]]), torch.tensor([[1.0, 2.0, 4.0]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3), 0.5, 0.5)
    assert advantages.tolist() == [[1 + 0.25 * (0 + 0.25 * -1), 0 + 0.25 * -1, -1.0]]
    assert returns.tolist() == [[advantages[0, 0] + 1, advantages[0, 1] + 2, 3.0]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.floats(0, 1), st.floats(0.1, 1), st.integers(0, 99))
def test_gae_is_the_naive_sum(lengths: list[int], lam: float, gamma: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    rewards, values = torch.randn(2, n, generator=generator, dtype=torch.float64)
    mask = padded(torch.ones(n, dtype=torch.float64), lengths)
    got, returns = gae(padded(rewards, lengths), padded(values, lengths), mask, gamma, lam)
    expected, first = [], 0
    for length in lengths:
        r, v = rewards[first : first + length].tolist(), [*values[first : first + length].tolist(), 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        expected += [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, length)) for t in range(length)]
        first += length
    assert flat(got, mask).tolist() == pytest.approx(expected)
    assert (flat(returns, mask) - flat(got, mask)).tolist() == pytest.approx(values.tolist())
    assert float((got * (1 - mask)).abs().sum()) == 0


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50).map(lambda n: n / 10), min_size=2, max_size=6))
def test_group_advantages(returns: list[float]) -> None:
    r = torch.tensor(returns, dtype=torch.float64)
    others = [x - (sum(returns) - x) / (len(returns) - 1) for x in returns]
    assert rloo(r).tolist() == pytest.approx(others)
    assert float(rloo(r).sum()) == pytest.approx(0, abs=1e-9)
    assert float(grpo(r, r).mean()) == pytest.approx(0, abs=1e-6)
    assert np.argsort(grpo(r, r).numpy(), kind="stable").tolist() == np.argsort(r.numpy(), kind="stable").tolist()
    kl = r - r.mean()  # equal scores teach nothing, and the KL pulls as its weight says
    assert (grpo(torch.ones_like(r), 1 - 0.1 * kl) + 0.1 * kl).abs().max() < 1e-6


def test_whitening_and_the_adaptive_weight() -> None:
    mask = torch.tensor([[1.0, 1, 1, 0]])
    white = whiten(torch.tensor([[1.0, 2, 6, 99]]), mask)
    assert float(white.sum()) == pytest.approx(0, abs=1e-6) and white[0, 3] == 0
    assert float(white[0, :3].std()) == pytest.approx(1, rel=1e-4)
    assert adapted_kl_weight(0.1, 6.0, 6.0, 100, 1000) == 0.1
    assert adapted_kl_weight(0.1, 600.0, 6.0, 100, 1000) == pytest.approx(0.1 * 1.02)  # the error is clipped to 0.2
    assert adapted_kl_weight(0.1, 0.0, 6.0, 100, 1000) == pytest.approx(0.1 * 0.98)


def test_the_clip_bounds_what_a_token_gains_and_never_what_it_loses() -> None:
    old = torch.zeros(4)
    logps = torch.tensor([1.0, -1.0, 1.0, -1.0], requires_grad=True)
    loss, ratio, clipped = policy_loss(logps, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    e = float(np.exp(1))
    assert loss.tolist() == pytest.approx([-1.2, -1 / e, e, 0.8])
    assert clipped.tolist() == [1, 0, 0, 1] and ratio.tolist() == pytest.approx([e, 1 / e, e, 1 / e])
    loss.sum().backward()
    assert logps.grad is not None and (logps.grad == 0).tolist() == [True, False, False, True]
    held = value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), 0.2)
    assert held.tolist() == pytest.approx([0.5 * 0.8**2])


# ---- the reward model


def preferences(n: int = 12, split: str = "train") -> list[PreferenceGroup]:
    """Answers of which the one with more a's is the better."""
    out = []
    for i in range(n):
        texts = [letter * (3 + (i + j) % 4) for j, letter in enumerate("abc")]
        edges = (Edge(0, 1), Edge(0, 2, weight=2.0, margin=0.25), Edge(1, 2, p=0.75))
        out.append(PreferenceGroup(f"{split} {i}", tuple(GroupCandidate(t) for t in texts), edges, split=split))
    return out


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_packed_rewards_and_gradients_are_those_of_single_answers(family: str, loss: str) -> None:
    net = tiny_network(family).double()
    network = CandidateRewards(net)
    net.score = net.score.double()
    network._score = [net.score]
    tokenizer = byte_tokenizer()
    groups = [tokenize(tokenizer, g) for g in preferences(3)]
    margin = 0.5 if loss == "bradley_terry" else 0.0
    objective = RewardObjective(loss=loss, margin=margin)
    row = network.row(groups)
    got, _ = objective.loss(network(row), torch.zeros(0), row)
    packed = torch.autograd.grad(got, list(net.parameters()), allow_unused=True)

    singles = []
    for group in groups:
        for candidate in group.candidates:
            out = net.base_model(input_ids=torch.tensor([[*group.prompt, *candidate]])).last_hidden_state
            singles.append(net.score(out[0, -1])[0])
    rewards = torch.stack(singles)
    total = torch.zeros((), dtype=torch.float64)
    for i, group in enumerate(groups):
        r = rewards[3 * i : 3 * i + 3]
        for e in group.edges:
            d = r[e.winner] - r[e.loser] - margin * (2 * e.p - 1) * (1 if e.margin is None else e.margin)
            share = e.weight / len(group.edges)
            if loss == "bradley_terry":
                total = total - share * (e.p * d.sigmoid().log() + (1 - e.p) * (-d).sigmoid().log())
            total = total + 0.01 * share * (r[e.winner] + r[e.loser]) ** 2
        if loss == "plackett_luce":
            total = total - 4 / 3 * (r.log_softmax(0)[0] + r[1:].log_softmax(0)[0])
    exact = family == "gpt2"  # llama's norm and the rotary embeddings compute in float32 whatever the model's type
    assert float(got) == pytest.approx(float(total), rel=1e-9 if exact else 1e-6)
    plain = torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
    for a, b in zip(packed, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 if exact else 2e-6)


@pytest.fixture(scope="module")
def reward_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    output = tmp_path_factory.mktemp("reward") / "run"
    config = RewardConfig(learning_rate=3e-3, num_epochs=4, batch_size=4, gradient_accumulation_steps=1)
    result = train_reward(str(tiny_model), [*preferences(24), *preferences(6, "validation")], config, output)
    return output, result


def test_a_reward_model_learns_and_says_what_it_is_worth(reward_run: tuple[Path, Any]) -> None:
    _, result = reward_run
    report = result.report
    assert report["prompts"] == 6 and report["edges"] == 18
    assert report["accuracy"] > 0.9 and report["accuracy_low"] <= report["accuracy"] <= report["accuracy_high"]
    assert 0 <= report["ece"] <= 1 and -1 <= report["length_correlation"] <= 1


def test_the_checkpoint_is_one_that_transformers_loads(reward_run: tuple[Path, Any]) -> None:
    from transformers import AutoModelForSequenceClassification

    output, _ = reward_run
    net = AutoModelForSequenceClassification.from_pretrained(output / "model").eval()
    assert net.config.num_labels == 1
    tokenizer = load_tokenizer(output / "model")
    assert net.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    texts = ["aaaa", "b", "cccccccc"]
    encoded = [[*encode_prompt(tokenizer, "train 1"), *encode_answer(tokenizer, t)] for t in texts]
    with torch.no_grad():
        alone = [float(net(input_ids=torch.tensor([ids])).logits) for ids in encoded]
    prompt = Prompt("train 1")
    scorer = RewardScorer(str(output))
    scores = list(scorer.score([(prompt, Candidate(prompt.id, t)) for t in texts]))
    assert [s.key[0] for s in scores] == pytest.approx(alone, abs=1e-5)  # padding changes nothing
    assert [s.value for s in scores] == pytest.approx([1 / (1 + np.exp(-r)) for r in alone], abs=1e-5)
    assert alone[0] > alone[1]


def test_ties_have_no_order_and_share_a_tier() -> None:
    network = CandidateRewards(tiny_network())
    tokenizer = byte_tokenizer()
    group = replace(preferences(1)[0], edges=(Edge(0, 1, p=0.5), Edge(0, 2, p=0.5)))
    tied = tokenize(tokenizer, group)
    row = network.row([tied])
    rewards = torch.tensor([3.0, 2.0, 1.0], requires_grad=True)
    loss, sums = RewardObjective(loss="plackett_luce", centering=0.0).loss(rewards, torch.zeros(0), row)
    loss.backward()
    assert float(loss) == 0 and rewards.grad is not None and not rewards.grad.any()
    assert sums["rewards/accuracies"] == (0, 0)
    report = reward_report(network, [tied, tokenize(tokenizer, preferences(2)[1])], 512)
    assert report["edges"] == 5 and report["accuracy"] in (0, 1 / 3, 2 / 3, 1), "of the second prompt alone"
    with pytest.raises(UsageError, match="no margin"):
        RewardObjective(loss="plackett_luce", margin=0.5)


def test_a_model_without_a_scalar_head_is_no_reward_model(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="no reward model"):
        RewardScorer(str(tiny_model))


# ---- PPO


def ppo_config(**changes: Any) -> PPOConfig:
    base = {
        "batch_size": 4,
        "rollouts": 4,
        "max_new_tokens": 8,
        "num_epochs": 2,
        "learning_rate": 3e-3,
        "epochs": 2,
        "minibatches": 2,
        "kl_weight": 0.0,
        "missing_eos_penalty": 0.0,
        "warmup_ratio": 0.0,
        "schedule": "constant",
        "lora": {"rank": 8, "alpha": 16},
    }
    return PPOConfig(**{**base, **changes})


PROMPTS = [Prompt(f"say {i}") for i in range(8)]


def count_of_a(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
    return [[a.text.count("a") / 8 for a in row] for row in answers]


def trainer(run: Path, config: PPOConfig, rate: Any = count_of_a, **hooks: Any) -> PPOTrainer:
    tokenizer = byte_tokenizer()
    directory = RunDirectory(run)
    directory.claim({"test": True})
    encoded = [tuple(encode_prompt(tokenizer, p.text)) for p in PROMPTS]
    sample = policy_sampler(tokenizer, config.max_new_tokens, config.rollout_batch)
    return PPOTrainer(
        Actors(tiny_network(initializer_range=0.2), config, None),
        PROMPTS,
        encoded,
        sample,
        rate,
        config,
        directory,
        **hooks,
    )


KINDS = {
    "gae": {"advantage": "gae"},
    "gae-head": {"advantage": "gae", "value_function": "head"},
    "rloo": {"advantage": "rloo"},
    "grpo": {"advantage": "grpo"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_update_nothing_has_moved(tmp_path: Path, kind: str) -> None:
    metrics = trainer(tmp_path / "run", ppo_config(**KINDS[kind], epochs=1, minibatches=1)).step(1)
    assert metrics["val/ratio"] == 1.0 and metrics["policy/clipfrac_avg"] == 0.0
    assert metrics["policy/approxkl_avg"] == 0.0 and metrics["objective/kl"] == 0.0
    assert metrics["answers"] == 16 and metrics["objective/entropy"] > 0


def test_dropout_is_off_also_where_activations_are_computed_twice(tmp_path: Path) -> None:
    config = ppo_config(epochs=1, minibatches=1, activation_checkpointing=True, lora={"rank": 8, "dropout": 0.3})
    t = trainer(tmp_path / "run", config)
    t.step(1)  # after it, the adapter says something that dropout could take away
    metrics = t.step(2)
    assert metrics["val/ratio"] == 1.0 and metrics["policy/clipfrac_avg"] == 0.0


@pytest.mark.parametrize("advantage", ["gae", "rloo"])
def test_a_token_pays_for_its_kl_and_the_last_one_brings_the_score(tmp_path: Path, advantage: str) -> None:
    """Two answers of two tokens, β = 0.5, an entropy weight of 0.25: what each token's reward and the metrics are."""
    t = trainer(tmp_path / "run", ppo_config(advantage=advantage, kl_weight=0.5, entropy_weight=0.25, whiten=False))
    group = TokenGroup((1, 2), ((3, 4), (5, 6)))
    old, reference = torch.tensor([-1.0, -2.0, -3.0, -1.0]), torch.tensor([-2.0, -2.0, -1.0, -1.5])
    batch = Batch(shared_row([group]), torch.tensor([10.0, 20.0]), old * torch.nan, old, reference, torch.zeros(4))
    metrics = t._rewards([batch], [True, False])
    rewards = [-0.5 + 0.25, 10 + 0.5, 1.0 + 0.75, 20 - 0.25 + 0.25]
    whole = [sum(rewards[:2]), sum(rewards[2:])]
    if advantage == "gae":  # λ = 0.95 and values of 0
        assert batch.advantages.tolist() == pytest.approx([-0.25 + 0.95 * 10.5, 10.5, 1.75 + 0.95 * 20.0, 20.0])
    else:
        assert batch.advantages.tolist() == pytest.approx([whole[0] - whole[1]] * 2 + [whole[1] - whole[0]] * 2)
    assert metrics["objective/kl"] == pytest.approx((1.0 + -1.5) / 2) and metrics["objective/entropy"] == 3.5
    assert metrics["objective/scores"] == 15 and metrics["objective/rlhf_reward"] == pytest.approx(sum(whole) / 2)
    assert metrics["ended"] == 0.5


def test_a_token_counts_for_what_the_policy_makes_of_it_and_not_more_than_the_cap() -> None:
    row = shared_row([TokenGroup((1,), ((2, 3, 4),))])
    old, zero = torch.tensor([-1.0, -1.0, -1.0]), torch.zeros(3)
    sampled = torch.tensor([-1.0 + np.log(2), -9.0, torch.nan])  # twice as likely there, far less likely, its own
    batch = Batch(row, torch.zeros(1), sampled, old, zero, zero)
    assert batch.weights(2.0).tolist() == pytest.approx([0.5, 2.0, 1.0])


def test_a_value_head_learns_and_leaves_the_policy_alone(tmp_path: Path) -> None:
    """Its values are those of the policy's own states; its error moves the head and nothing else."""
    t = trainer(tmp_path / "run", ppo_config(value_function="head", value_weight=1.0))
    assert not [name for name in t.parameters if ".value." in name]
    batch = t._minibatches(t._rollouts(1))[0][0]
    with t.actors.acting("policy", learning=True):
        logps, values = t.actors.outputs(batch.row)
        assert values is not None and torch.equal(logps.detach(), batch.old)
        t._value_error(values, replace(batch, returns=torch.ones_like(batch.old))).backward()
    moved = {name for name, p in t.parameters.items() if p.grad is not None and bool(p.grad.any())}
    assert moved == {name for name in t.parameters if "value_head" in name} != set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rate", "epochs"),
    [("gae", 1e-2, 4), ("gae-head", 1e-2, 4), ("rloo", 1e-2, 2), ("grpo", 1e-2, 1)],
    ids=lambda v: str(v),
)
def test_it_learns_to_say_what_is_counted(tmp_path: Path, kind: str, rate: float, epochs: int) -> None:
    """Reward: the share of a's among eight tokens. A random policy has hardly any, the best nothing else; one that says
    one in turn with something else is a place where "gae" may rest for long, as rounding will have it."""
    config = ppo_config(**KINDS[kind], num_epochs=12, learning_rate=rate, epochs=epochs, rollouts=8)
    t = trainer(tmp_path / "run", config)
    rewards = [t.step(step)["objective/scores"] for step in range(1, 25)]
    assert np.mean(rewards[:2]) < 0.05 and np.mean(rewards[-2:]) > 0.4, rewards


@pytest.mark.slow
def test_it_learns_a_length(tmp_path: Path) -> None:
    """Reward: nearness of the text's length to two characters, 1 at best."""

    def rate(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
        return [[1 - abs(len(a.text) - 2) / 6 for a in row] for row in answers]

    t = trainer(
        tmp_path / "run",
        ppo_config(advantage="rloo", num_epochs=16, learning_rate=1e-2, rollouts=8, min_entropy=0.0),
        rate,
    )
    rewards = [t.step(step)["objective/scores"] for step in range(1, 33)]
    assert rewards[0] < 0.2 and np.mean(rewards[-2:]) > 0.85, rewards


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return RunDirectory(run).weights(step)


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path: Path) -> None:
    config = ppo_config(kl="adaptive", kl_weight=0.05, save_steps=1)
    whole = trainer(tmp_path / "whole", config).fit()

    class Cut(Exception):
        pass

    def rate(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
        calls.append(1)
        if len(calls) == 3:
            raise Cut
        return count_of_a(prompts, answers)

    calls: list[int] = []
    with pytest.raises(Cut):
        trainer(tmp_path / "cut", config, rate).fit()
    again = trainer(tmp_path / "cut", config).fit()
    assert (
        (again.steps, again.tokens, again.best_step)
        == (whole.steps, whole.tokens, whole.best_step)
        == (4, again.tokens, 4)
    )
    first, second = weights_of(tmp_path / "whole", 4), weights_of(tmp_path / "cut", 4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]


def test_what_could_not_be_rated_is_left_out_and_counted(tmp_path: Path) -> None:
    def rating(*row: Rating) -> Any:
        return lambda prompts, answers: [list(row) for _ in answers]

    t = trainer(tmp_path / "run", ppo_config(num_epochs=1), rating(0.5, "too slow", 0.5, 0.5))
    metrics = t.step(1)
    assert metrics["answers"] == 12 and metrics["unscored"] == 4 and metrics["objective/scores"] == 0.5
    (note,) = t.fit().warnings
    assert note == "12 sampled answers could not be rated (too slow) and were left out"
    with pytest.raises(HafsError, match="too few of the answers of step 1 could be rated: too slow"):
        trainer(tmp_path / "none", ppo_config(), rating(*["too slow"] * 4)).step(1)


def test_an_answer_without_another_to_compare_it_with_is_counted(tmp_path: Path) -> None:
    def rate(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[list[Rating]]:
        return [[1.0, "too slow"] if i % 2 else [1.0, 0.0] for i in range(len(prompts))]

    t = trainer(tmp_path / "run", ppo_config(advantage="rloo", rollouts=2, num_epochs=1), rate)
    result = t.fit()
    assert result.steps == 2 and t._state["unscored"] == t._state["alone"] == 4
    assert (
        "4 rated answers were the only one of their prompt, with which rloo can compare nothing" in result.warnings[1]
    )


def test_an_answer_that_never_ended_is_worth_less(tmp_path: Path) -> None:
    def sample(net: Any, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sampled]]:
        return [[Sampled((5, 257), "x", "stop"), Sampled((5, 6), "x", "length")] for _ in prompts]

    t = trainer(tmp_path / "run", ppo_config(missing_eos_penalty=0.75), lambda p, t: [[1.0, 1.0] for _ in p])
    t._sample = sample
    metrics = t.step(1)
    assert metrics["objective/scores"] == pytest.approx((1 + 0.25) / 2) and metrics["ended"] == 0.5


def test_it_stops_by_itself_and_says_why(tmp_path: Path) -> None:
    away = trainer(tmp_path / "kl", ppo_config(learning_rate=5e-2, max_kl=1.0, num_epochs=20, eval_steps=1)).fit()
    assert "KL to the SFT model" in away.stopped and away.steps < 40
    assert away.best_step == away.steps - 1, "the step that ran away is not what is kept"
    with pytest.raises(HafsError, match="training stopped at step"):
        trainer(tmp_path / "lost", ppo_config(learning_rate=1e30, num_epochs=20, eval_steps=1)).fit()
    for step in RunDirectory(tmp_path / "lost").steps():
        assert all(bool(w.isfinite().all()) for w in weights_of(tmp_path / "lost", step).values())

    config = ppo_config(advantage="rloo", learning_rate=2e-2, num_epochs=20, min_entropy=0.8)
    collapsed = trainer(tmp_path / "entropy", config).fit()
    assert "entropy fell" in collapsed.stopped and collapsed.steps < 40


def test_what_was_rated_is_not_rated_again() -> None:
    asked: list[str] = []

    class Lengths:
        name, version, arguments = "lengths", "1", dict[str, Any]()

        def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
            for _, c in items:
                asked.append(c.text)
                value = None if c.text == "lost" and asked.count("lost") == 1 else float(len(c.text))
                value = 3.0 if c.finish == "length" else value
                yield Score(c.id, "lengths", "1", value=value, reason="" if value else "gone")

        def close(self) -> None:
            pass

    def said(*texts: str, finish: str = "stop") -> list[Sampled]:
        return [Sampled((), text, finish) for text in texts]

    rate, (one, two) = rater(Lengths()), (Prompt("one"), Prompt("two"))
    assert rate([one, two], [said("a", "a", "lost"), said("a", "bb")]) == [[1.0, 1.0, "gone"], [1.0, 2.0]]
    assert asked == ["a", "lost", "a", "bb"]  # once a prompt
    assert rate([two, one], [said("bb"), said("lost", "a")]) == [[2.0], [4.0, 1.0]]
    assert asked[4:] == ["lost"]  # only what had no value
    assert rate([two], [said("bb", finish="length")]) == [[3.0]]  # cut, it is another answer


def test_more_reward_and_fewer_right_answers_stop_it_when_it_is_not_chance(tmp_path: Path) -> None:
    def run(name: str, rates: Sequence[float], prompts: int, rewards: Sequence[int] = range(100)) -> TrainResult:
        asked, steadily = iter(rates), iter(rewards)

        def validate(step: int, net: Any) -> dict[str, float]:
            rate = next(asked)
            return {"score": rate, "pass_rate": rate, "prompts": prompts}

        return trainer(
            tmp_path / name,
            ppo_config(num_epochs=5, eval_steps=1, max_kl=1e9, min_entropy=0),
            lambda p, t: [[float(n)] * len(r) for n in [next(steadily)] for r in t],
            validate=validate,
        ).fit()

    gamed = run("gamed", [0.5, 0.6, 0.4, 0.3, 0.2, 0.1], 100)
    assert "being gamed" in gamed.stopped
    assert gamed.best_step == 1 and gamed.steps == 3  # the best held-out score, two validations before the stop
    assert "being gamed" in run("at once", [0.5, 0.4, 0.3, 0.2], 100).stopped  # more than the SFT model's answers had
    lost = run("lost", [0.5, *[0.3] * 30], 100, rewards=range(100, 0, -1))
    assert not lost.stopped and lost.best_step == 0, "with less reward it has lost its way, and games nothing"
    chance = run("chance", [0.5, 0.6, *[0.58] * 30], 100)  # a standard error is 4.9 points
    assert not chance.stopped and chance.best_step == 1


def test_rewards_of_an_adapter_are_those_of_its_checkpoint(
    reward_run: tuple[Path, Any], tiny_model: Path, tmp_path: Path
) -> None:
    from hafs.models.naming import model_hash, resolve

    output, _ = reward_run
    base = model_hash(resolve(str(tiny_model)))
    assert reward_adapter(output, "another base") is None
    adapter = reward_adapter(output / "model", base)
    assert adapter is not None
    config = ppo_config(lora={"rank": adapter.rank, "alpha": adapter.alpha})
    assert adapter.like(config) and not adapter.like(ppo_config(lora={"rank": adapter.rank, "alpha": 1}))
    from hafs.models.loading import load_model

    t = PPOTrainer(
        Actors(load_model(tiny_model), config, replace(adapter, weight=2.0)),
        PROMPTS,
        [tuple(encode_prompt(byte_tokenizer(), p.text)) for p in PROMPTS],
        policy_sampler(byte_tokenizer(), 8, 16),
        None,
        config,
        RunDirectory(tmp_path / "run"),
    )
    answers = ["aaa", "b", "cc cc"]
    sampled = [[Sampled(tuple(encode_answer(byte_tokenizer(), a)), a, "stop") for a in answers]]
    groups = [tokenize(byte_tokenizer(), PreferenceGroup("say 0", tuple(map(GroupCandidate, answers)), ()))]
    (got,) = t._scores(PROMPTS[:1], sampled, groups)
    scorer = RewardScorer(str(output))
    keys = [s.key[0] for s in scorer.score([(PROMPTS[0], Candidate(PROMPTS[0].id, a)) for a in answers])]
    assert got == pytest.approx([2 * k for k in keys], abs=1e-4)
    with t.actors.acting("value"):  # the value function starts as the reward model
        assert t.actors.value is not None
        row = t.actors.reward.row(groups)  # type: ignore[union-attr]
        assert t.actors.value(row)[row.lengths.cumsum(0) - 1].tolist() == pytest.approx([2 * k for k in keys], abs=1e-4)


def test_a_trained_policy_is_a_model_like_any_other(tiny_model: Path, tmp_path: Path) -> None:
    config = ppo_config(num_epochs=1)
    sample = policy_sampler(load_tokenizer(tiny_model), 8, 16)
    result = train_ppo(str(tiny_model), PROMPTS, config, tmp_path / "ppo", sample=sample, rate=count_of_a)
    assert result.steps == 2
    again = train_ppo(str(tiny_model), PROMPTS, config, tmp_path / "ppo", sample=sample, rate=count_of_a)
    assert again == result
    from hafs.models.loading import load_model

    load_model(tmp_path / "ppo" / "model")
    with pytest.raises(UsageError, match="differs in"):
        train_ppo(str(tiny_model), PROMPTS[:4], config, tmp_path / "ppo", sample=sample, rate=count_of_a)
    with pytest.raises(UsageError, match="no finished reward model"):
        train_ppo(str(tiny_model), PROMPTS, config, tmp_path / "x", sample=sample, reward=str(tmp_path / "ppo"))


# ---- the commands


def test_the_whole_path_by_command(tiny_model: Path, tmp_path: Path) -> None:
    data, rows = tmp_path / "pairs.jsonl", tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(g.to_dict()) + "\n" for g in preferences(8)))
    rows.write_text('{"prompt": "train 1", "answer": "aaa"}\n{"prompt": "x"}\n{"prompt": "train 2", "response": "b"}\n')
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(p.to_dict()) + "\n" for p in PROMPTS[:4]))
    trained = (
        hafs(
            "train",
            "reward",
            "--sft_model",
            tiny_model,
            "--preference_data",
            data,
            "--output_dir",
            tmp_path / "rm",
            "--num_epochs",
            "1",
            "--json",
        )
        .ok()
        .json
    )
    assert trained["report"] == {} or trained["report"]["prompts"] >= 1
    scored = hafs(
        "reward", "score", rows, "--model", tmp_path / "rm", "--output", tmp_path / "out.jsonl", "--json"
    ).ok()
    assert (scored.json["scored"], scored.json["bad"]) == (2, 1) and ":2: skipped" in scored.err
    assert all("reward" in json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    ppo = hafs(
        "train",
        "ppo",
        "--sft_model",
        tiny_model,
        "--reward_model",
        tmp_path / "rm",
        "--prompts",
        prompts,
        "--output_dir",
        tmp_path / "ppo",
        "--rollouts",
        "2",
        "--max_new_tokens",
        "4",
        "--batch_size",
        "4",
        "--lora_rank",
        "32",
        "--json",
    ).ok()
    assert ppo.json["steps"] == 1 and Path(ppo.json["model"]).is_dir()
    assert hafs("train", "ppo", "--sft_model", tiny_model, "--prompts", prompts).code == 2
