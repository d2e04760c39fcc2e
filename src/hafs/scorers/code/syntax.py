"""Runs inside the sandbox: the syntax errors of many codes, by tree-sitter.

Standard input is JSON: {"path": folders to import from, "codes": [[language, code], ...]}. Standard output gets a line
of JSON for each: {"errors": number, "share": of the bytes that are in an error, "first": line of the first one}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MOST_ERRORS = 50


def errors(root: Any) -> list[Any]:
    """The outermost error and missing nodes below `root`, at most MOST_ERRORS."""
    found: list[Any] = []
    waiting = [root]
    while waiting and len(found) < MOST_ERRORS:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            found.append(node)
        elif node.has_error:
            waiting += reversed(node.children)
    return found


def main() -> None:
    """Answer the one request on standard input."""
    asked = json.loads(sys.stdin.buffer.read())
    sys.path += asked["path"]
    from tree_sitter_language_pack import get_parser

    for language, code in asked["codes"]:
        data = code.encode("utf-8", "replace")
        found = errors(get_parser(language).parse(data).root_node)
        wrong = sum(max(1, n.end_byte - n.start_byte) for n in found)
        first = found[0].start_point[0] + 1 if found else 0
        print(
            json.dumps({"errors": len(found), "share": min(1.0, wrong / max(1, len(data))), "first": first}), flush=True
        )


if __name__ == "__main__":
    main()
