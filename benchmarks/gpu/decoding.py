"""Part `decoding`: tokens a second of 128 rows of the 135M model, greedy, none of which ends early.

`generate` of transformers, hafs with the growing cache (what it does unless told otherwise), and hafs with the fixed
one, whose step is a recorded graph on a card. The share of bandwidth is what has to be read for a token (weights once,
keys and values of every row) over what a copy on the device moves in that time.
"""

from __future__ import annotations

import torch
from part import Asked, asked, small_model, timed

BAR = ">= 10"


def bandwidth(device: str, size: int) -> float:
    """Bytes a second that a copy reads and writes."""
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size / min(timed(lambda: b.copy_(a), device) for _ in range(5))


def main(ask: Asked) -> None:
    from hafs.config import GenerateConfig
    from hafs.generation.transformers import TransformersBackend

    rows, prompt, tokens = (4, 24, 12) if ask.rehearse else (128, 64, 128)
    backend = TransformersBackend(small_model(ask))
    net = backend._net
    backend.stops = list  # type: ignore[method-assign]
    prompts = [[(7 * i + j) % 250 for j in range(prompt)] for i in range(rows)]
    ids = torch.tensor(prompts, device=net.device)

    def generate() -> list[list[int]]:
        with torch.no_grad():
            found = net.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                pad_token_id=0,
            )
        return found[:, prompt:].tolist()

    def ours(cache: str) -> list[list[int]]:
        config = GenerateConfig(temperature=0.0, max_new_tokens=tokens, batch_size=rows, cache=cache)
        return [x for x, _, _ in backend.decode(prompts, [1] * rows, config)]

    text = net.config.get_text_config()
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads * width * next(net.parameters()).element_size()
    read = weights + rows * kept * (prompt + tokens / 2)  # bytes a step, on average
    moved = bandwidth(ask.device, 10**7 if ask.rehearse else 2 * 10**9)
    ways = {"generate": generate, "growing cache": lambda: ours("growing"), "fixed cache": lambda: ours("fixed")}
    rates, texts = {}, {}
    for name, work in ways.items():
        texts[name] = work()  # warm
        took = min(timed(work, ask.device) for _ in range(1 if ask.rehearse else 3))
        rates[name] = rows * tokens / took
        ask.tell(
            name,
            **{
                "rows": rows,
                "tokens/s": rates[name],
                "ms a token": 1000 * took / tokens,
                "share of bandwidth": read * tokens / took / moved,
            },
        )
    same = sum(a == b for a, b in zip(texts["growing cache"], texts["fixed cache"], strict=True)) / rows
    ask.tell("rows where both caches say the same", share=same, bound=0.9, holds=same >= 0.9)
    for peer, bar in (("generate", ""), ("growing cache", BAR)):
        ask.tell(f"fixed cache against {peer}", ratio=rates["fixed cache"] / rates[peer], bar=bar)


if __name__ == "__main__":
    main(asked())
