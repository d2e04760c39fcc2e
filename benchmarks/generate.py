"""Sampling 4 answers a prompt from the embedded model: hafs against `model.generate(num_return_sequences=4)`.

Same weights, precision, temperature and token limit; the peer's batch size is the best of those tried. Tokens a second
count what was sampled up to and including the end of each answer.
"""

from __future__ import annotations

import torch

from common import alternate, result, seconds
from hafs.backends import Request
from hafs.backends.transformers import TransformersBackend
from hafs.chat import encode_prompt
from hafs.config import GenerateConfig
from hafs.loading import quiet
from hafs.tasks import generate

PROMPTS, ANSWERS, TOKENS = 32, 4, 64


def main() -> None:
    quiet()
    backend = TransformersBackend("default")
    prompts = generate("asm", "train", PROMPTS, tags=("easy",))
    config = GenerateConfig(candidates=ANSWERS, temperature=1.0, max_new_tokens=TOKENS, batch_size=128)
    requests = [Request(p.id, p.text, n=ANSWERS) for p in prompts]
    ids = [encode_prompt(backend.tokenizer, p.text) for p in prompts]

    def ours() -> None:
        for batch in backend.plan(requests, config):
            backend.generate(batch, config)

    def theirs(batch: int) -> None:
        for i in range(0, len(ids), batch):
            part = ids[i : i + batch]
            width = max(map(len, part))
            x = torch.tensor([[backend.tokenizer.pad_token_id] * (width - len(p)) + p for p in part])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
            with torch.no_grad():
                backend._net.generate(
                    input_ids=x, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    max_new_tokens=TOKENS, num_return_sequences=ANSWERS, pad_token_id=backend.tokenizer.pad_token_id,
                )  # fmt: skip

    best = min((8, 16, 32), key=lambda b: seconds(lambda: theirs(b)))
    print(f"{PROMPTS} prompts x {ANSWERS} answers of at most {TOKENS} tokens; the peer's best batch: {best} prompts")
    a, b, ratio = alternate(ours, lambda: theirs(best))
    print(f"  hafs {a:.1f} s, model.generate {b:.1f} s")
    result(generate_speed_vs_hf=ratio, hafs_s=a, hf_s=b)


if __name__ == "__main__":
    main()
