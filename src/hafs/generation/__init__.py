"""Candidates: sampled by a model in this process or behind an address, kept as they are made."""
