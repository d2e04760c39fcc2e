#!/usr/bin/env bash
# The whole path at a size where the effect can be told from chance, in about an hour on 2 cores. The settings are in
# asm.toml.
#
# The story: a 135M model that knows no 65816 assembly is taught from verified answers (SFT). It then answers new
# prompts several times over, a real assembler and emulator say which answers are right and which of the right ones
# are better, and the model is trained to prefer those (DPO). Both are measured on prompts whose wording and numbers
# neither has seen: 320 of the 13 families that were taught (`easy`) and 320 of all 124 families (`asm`), nine tenths
# of which were never taught: an hour on two cores teaches a small model 13 families, not 124. Stop it whenever you
# like: started again, it goes on where it was.
#
#   runs/asm.sh [DIRECTORY]        the workspace goes to work/asm unless you say otherwise
#
# The output of one run is kept in docs/results/asm.md.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory assets
work=$(realpath -m "${1:-work/asm}")
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }

# 1. A workspace with the settings of this recipe. Everything that is computed below is kept in its database.
mkdir -p "$work"
cp runs/asm.toml "$work/hafs.toml"
export HAFS_WORKSPACE=$work
hafs init "$work"

# 2. Prompts. What SFT is taught and what preferences are asked about are different prompts, and the benchmarks'
#    wordings are among neither. The same arguments give the same prompts anywhere. SFT gets few of them on purpose: a
#    developer has few verified answers and many prompts. (With 900 prompts and two epochs SFT alone solves the taught
#    families, docs/results/asm.md, and there is nothing left to prefer.)
hafs tasks generate asm --split train --tags easy --num-samples 900 --output "$work/train.jsonl"
head -n 500 "$work/train.jsonl" > "$work/sft.jsonl"
tail -n +501 "$work/train.jsonl" > "$work/ask.jsonl"
hafs tasks generate asm --split validation --tags easy --num-samples 64 --output "$work/validation.jsonl"

# 3. SFT, and what it reaches. Small batches and a high rate suit a small adapter on a small model.
hafs sft --data "$work/sft.jsonl" --output_dir "$work/models/sft"
hafs eval --model "$work/models/sft/model" --name sft --benchmark easy

# 4. Preferences: eight answers a prompt at temperature 1, scored by assembling and running them. Where no answer is
#    right, the prompt's verified reference is the winner; without it such prompts would teach nothing.
hafs preferences generate --model "$work/models/sft/model" --prompts "$work/ask.jsonl" --scorer automatic \
  --output "$work/preferences.jsonl"

# 5. DPO against the frozen SFT model. The validation set measures pass rate, not pair accuracy, and picks the
#    checkpoint: a collapse looks like success on the training curve.
hafs train dpo --sft_model "$work/models/sft/model" --preference_data "$work/preferences.jsonl" \
  --output_dir "$work/models/dpo" --validate "$work/validation.jsonl"
hafs eval --model "$work/models/dpo/model" --name dpo --benchmark easy

# 6. The baseline: what the model did before anything. It hardly knows 65816 code and never stops talking.
hafs eval --model default --name baseline --benchmark easy

# 7. All 124 families, most of which nobody taught: how far does it carry?
hafs eval --model "$work/models/sft/model" --name sft --benchmark asm
hafs eval --model "$work/models/dpo/model" --name dpo --benchmark asm
hafs eval --model default --name baseline --benchmark asm

# 8. Proof: the same prompts before and after, with intervals, and the page that shows it.
hafs compare baseline sft dpo --markdown "$work/table.md"
hafs report baseline sft dpo
