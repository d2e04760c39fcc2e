"""`python -m agents.training.dpo_trainer …` is `hafs train dpo …`."""

from agents.training import run

if __name__ == "__main__":
    run("train", "dpo")
