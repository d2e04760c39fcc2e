"""The two commands of the guide under the names that it gives them, for `python -m` in the project's root."""

from __future__ import annotations

import sys


def run(*verb: str) -> None:
    """Run a verb of hafs with the arguments of this command."""
    from hafs.cli import main

    sys.argv = ["hafs", *verb, *sys.argv[1:]]
    main()
