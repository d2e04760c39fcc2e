"""What stands against the rules of the house: `python docs/house.py [--json]` prints counts and names.

Loose modules, public names defined twice, circles of imports, long functions and files, lines that opt out of the
formatter, and the longest chain of imports.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src"
LONG_FUNCTION, LONG_FILE = 60, 600


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(tree: ast.AST, known: set[str]) -> set[str]:
    """The project's modules that a module imports when it is loaded, not inside functions or for types alone."""
    found: set[str] = set()
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{a.name}" for a in node.names}
            found |= (inside & known) or ({node.module} & known)
        todo += ast.iter_child_nodes(node)
    return found


def figures() -> dict[str, object]:
    """Everything counted, with the names where there are few."""
    paths = modules()
    trees = {name: ast.parse(path.read_text()) for name, path in paths.items()}
    lines = {name: path.read_text().count("\n") for name, path in paths.items()}
    graph = {name: imports(tree, set(paths)) - {name} for name, tree in trees.items()}
    owners: dict[str, list[str]] = defaultdict(list)
    long_functions = []
    for name, tree in trees.items():
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].append(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > LONG_FUNCTION:
                    long_functions.append(f"{name}.{node.name} ({size})")
    twice = {n: where for n, where in sorted(owners.items()) if len(where) > 1}
    loose = sorted(n for n in paths if n.startswith("hafs.") and n.count(".") == 1 and paths[n].name != "__init__.py")
    circles = [sorted(c) for c in components(graph) if len(c) > 1]
    return {
        "modules": len(paths),
        "lines": sum(lines.values()),
        "loose_modules": loose,
        "classes_defined_twice": twice,
        "circles": circles,
        "functions_over_60": sorted(long_functions),
        "files_over_600": [f"{n} ({lines[n]})" for n in paths if lines[n] > LONG_FILE],
        "fmt_skip": sum(
            p.read_text().count("# fmt: skip")
            for p in ROOT.parent.rglob("*.py")
            if ".venv" not in p.parts and p != Path(__file__).resolve()
        ),
        "longest_chain": longest(graph) if not circles else None,
    }


def components(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            found.append(set())
            while node not in found[-1]:
                found[-1].add(stack.pop())

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return found


def longest(graph: dict[str, set[str]]) -> int:
    """The number of modules in the longest chain of imports; the graph has no circle."""

    @cache
    def depth(node: str) -> int:
        return 1 + max((depth(other) for other in graph[node]), default=0)

    return max(map(depth, graph))


def main() -> None:
    found = figures()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if isinstance(value, list | dict):
            print(f"{name}: {len(value)}")
            for key in value:
                print(f"  {key}" + (f": {', '.join(value[key])}" if isinstance(value, dict) else ""))
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
