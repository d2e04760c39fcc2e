"""Where a result came from: the history of a pair, a candidate or a model, and a lock that repeats a recipe."""
