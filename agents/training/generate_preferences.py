"""`python -m agents.training.generate_preferences …` is `hafs preferences generate …`."""

from agents.training import run

if __name__ == "__main__":
    run("preferences", "generate")
