"""`hafs sft`, `hafs train` and `hafs reward`: what trains a model."""

from __future__ import annotations

import typer

from hafs.cli.train import dpo, ppo, reward, sft


def register(app: typer.Typer) -> None:
    app.command("sft")(sft.sft)
    group = typer.Typer(help="Training on preferences.", no_args_is_help=True)
    group.callback()(lambda: None)
    for verb in (dpo.dpo, reward.reward, ppo.ppo):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="train")
    rewards = typer.Typer(help="Reward models.", no_args_is_help=True)
    rewards.callback()(lambda: None)
    rewards.command("score")(reward.score)
    app.add_typer(rewards, name="reward")
