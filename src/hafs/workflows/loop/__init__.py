"""The loop: what a round asks, the round, the decision after it."""
