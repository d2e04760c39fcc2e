#!/usr/bin/env bash
# When is RLHF worth it? From one SFT model and the same prompts: DPO, reward model + PPO, PPO with the checker as its
# reward, RLOO; three seeds each, measured on prompts that none has seen. The settings are in rlhf.toml.
#
# The story is small: five families of short routines, and an SFT model that was taught eighteen of each and gets about
# half of them right. On 2 cores, two trainings side by side, a seed of PPO or RLOO takes 31 to 41 minutes and one of DPO 8
# (docs/results/rlhf.md). Every training that is finished stays finished: stop it whenever you like and start it again.
#
#   OMP_NUM_THREADS=1 runs/rlhf.sh [DIRECTORY] [FLAGS]     such as: work/rlhf --jobs 2 --seeds 1 --methods dpo,ppo
#
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory assets
work=$(realpath -m "${1:-work/rlhf}")
shift || true
families=set_bits,clear_bits,array_load,load_mask_store,dec_timer
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }

# 1. A workspace, prompts to teach, to ask and to choose checkpoints by, and held-out ones in wordings of their own.
mkdir -p "$work"
cp runs/rlhf.toml "$work/hafs.toml"
export HAFS_WORKSPACE=$work
hafs init "$work"
hafs tasks generate asm --split train --families $families --num-samples 282 --output "$work/train.jsonl"
hafs tasks generate asm --split validation --families $families --num-samples 64 --output "$work/validation.jsonl"
hafs tasks generate asm --split test --families $families --num-samples 240 --output "$work/short.jsonl"
head -n 90 "$work/train.jsonl" > "$work/sft.jsonl"
tail -n +91 "$work/train.jsonl" > "$work/ask.jsonl"

# 2. The SFT model, and preferences from six of its answers to each prompt.
hafs sft --data "$work/sft.jsonl" --output_dir "$work/sft"
hafs preferences generate --model "$work/sft/model" --prompts "$work/ask.jsonl" --scorer automatic \
  --output "$work/preferences.jsonl"

# 3. DPO and the reward model learn from those groups; PPO and RLOO sample answers of their own to the same prompts.
hafs compare-methods --sft_model "$work/sft/model" --preference_data "$work/preferences.jsonl" \
  --prompts "$work/ask.jsonl" --benchmark "$work/short.jsonl" --validate "$work/validation.jsonl" \
  --markdown "$work/methods.md" "$@"
