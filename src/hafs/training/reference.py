"""Log-probabilities under the reference model: computed once, kept on disk, shared by every run on that reference."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from hafs.config import TrainConfig
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.packing import TokenGroup, pack, pieces, share, tokens_of
from hafs.types import Progress, content_id, silent


class ReferenceCache:
    """Reference log-probabilities on disk, one JSON line per candidate, shared by every run on the same reference.

    The key is `identity` (the reference model's content hash, the precision, the attention, the quantisation) and the
    token ids. The value is the plain sum in nats and the number of tokens, nothing scaled; with `by_token` it is the
    list of the tokens' log-probabilities. A line cut short by a crash is ignored and computed again.
    """

    def __init__(self, folder: Path | None, identity: Sequence[Any], by_token: bool = False) -> None:
        self._identity = [*identity, "by token"] if by_token else list(identity)
        self._known: dict[str, list[float]] = {}
        self.by_token = by_token
        self._path = None if folder is None else folder / f"{content_id(self._identity)}.jsonl"
        if self._path is not None and self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    key, value, _ = json.loads(line)
                    self._known[key] = value if isinstance(value, list) else [value]
                except (ValueError, TypeError):
                    continue

    def _key(self, prompt: Sequence[int], candidate: Sequence[int]) -> str:
        return content_id(self._identity, list(prompt), list(candidate))

    def get(self, group: TokenGroup) -> list[float] | None:
        """The group's sums, one a candidate in order (or its log-probabilities by token); None when one is missing."""
        found: list[float] = []
        for candidate in group.candidates:
            value = self._known.get(self._key(group.prompt, candidate))
            if value is None:
                return None
            found += value
        return found

    def put(self, groups: Sequence[TokenGroup], values: Sequence[float], keep: bool = True) -> None:
        """Remember the values of all candidates of `groups`, in order; on disk too, in one append, if `keep`."""
        lines, rest = [], iter(values)
        for group in groups:
            for candidate in group.candidates:
                key = self._key(group.prompt, candidate)
                value = self._known[key] = list(islice(rest, len(candidate) if self.by_token else 1))
                lines.append(json.dumps([key, value if self.by_token else value[0], len(candidate)]))
        if self._path is not None and keep:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as f:
                f.write("\n".join(["", *lines, ""]))
                f.flush()
                os.fsync(f.fileno())


def _parts(members: list[TokenGroup], row_tokens: int, shared: bool) -> list[list[TokenGroup]]:
    """A row as it is, or in pieces where one group is longer than a row."""
    return pieces(members[0], row_tokens, shared) if len(members) == 1 else [members]


@torch.no_grad()
def fill_reference(
    cache: ReferenceCache,
    model: CandidateLogps,
    groups: Sequence[TokenGroup],
    config: TrainConfig,
    accelerator: Accelerator,
    progress: Progress = silent,
) -> None:
    """The log-probabilities under `model` of all groups into the cache, row by row in a fixed plan; what is there
    stays. Each process computes its share, the main one writes."""
    model.eval()
    bundles = [[row] for row in pack(groups, config.row_tokens, model.shared)]
    missing = [b for b in bundles if any(cache.get(g) is None for g in b[0])]
    sizes = [tokens_of(b[0], model.shared) for b in missing]
    mine = share(sizes, accelerator.num_processes)[accelerator.process_index]
    parts = {p: _parts(missing[p][0], config.row_tokens, model.shared) for p in mine}
    waiting: list[tuple[list[TokenGroup], list[float]]] = []
    for done, p in enumerate(mine, 1):
        found: list[float] = []
        for part in parts[p]:
            row = model.row(part)
            with autocast(model, config.precision):
                logps = model(row)
            found += (logps if cache.by_token else row.sums(logps)).tolist()
        waiting.append((missing[p][0], found))
        if accelerator.num_processes == 1:
            cache.put(*waiting.pop())
        if accelerator.is_main_process:
            progress("reference", done, len(mine), {})
    if accelerator.num_processes > 1:
        for members, values in gather_object(waiting):
            cache.put(members, values, keep=accelerator.is_main_process)
