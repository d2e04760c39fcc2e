"""What people said as rows of preference pairs, with who said it, when, and in which order they saw the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hafs.annotate.ranking import implied_edges
from hafs.store import Store
from hafs.types import Annotation, same_text


def pair_rows(store: Store, annotations: Sequence[Annotation]) -> Iterator[dict[str, Any]]:
    """One row for each pair that an annotation implies: prompt, chosen, rejected, and where it comes from.

    An edited answer is chosen over the one it was made from (`edited` is true). Equal texts make no pair.
    """
    prompts = {p.id: p for p in store.prompts(ids={a.prompt_id for a in annotations})}
    texts = {c.id: c.text for c in store.candidates(prompt_ids=list(prompts))}
    for annotation in annotations:
        pairs = [(winner, loser, False) for winner, loser in implied_edges(annotation.tiers)]
        if edited := annotation.details.get("edited"):
            pairs.append((edited["candidate"], edited["of"], True))
        prompt = prompts[annotation.prompt_id]
        for winner, loser, by_hand in pairs:
            if same_text(texts[winner]) != same_text(texts[loser]):
                yield {
                    "prompt": prompt.text,
                    **({"system": prompt.system} if prompt.system else {}),
                    "chosen": texts[winner],
                    "rejected": texts[loser],
                    "source": f"human:{annotation.annotator}" + ":edited" * by_hand,
                    "prompt_id": prompt.id,
                    "chosen_id": winner,
                    "rejected_id": loser,
                    "edited": by_hand,
                    "annotator": annotation.annotator,
                    "mode": annotation.mode,
                    "confidence": annotation.confidence,
                    "shown": list(annotation.shown),
                    "seconds": annotation.seconds,
                    "submitted": annotation.submitted,
                    "serial": annotation.serial,
                    "annotation": annotation.id,
                }
