"""Whole paths made of stages: the recipe, the hybrid path, methods compared, rollouts, the loop."""
