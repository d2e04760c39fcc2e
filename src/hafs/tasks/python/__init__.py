"""The task pack `python`: small functions in Python, with cases that decide.

Families live in modules by subject: numbers, text, sequences, mappings and algorithms. dsl.py is what they are
written in.
"""

from hafs.tasks.pack import FamilyPack
from hafs.tasks.python import algorithms, mappings, numbers, sequences, text  # noqa: F401  (adds the families)
from hafs.tasks.python.dsl import FAMILIES

__all__ = ["python"]

python = FamilyPack("python", FAMILIES, {"numbers": 20, "text": 25, "sequences": 25, "mappings": 15, "algorithms": 15})
