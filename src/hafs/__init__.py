"""hafs: preference data, preference training, and proof that the model got better. `hafs --help` is the way in."""

__version__ = "0.1.0"
