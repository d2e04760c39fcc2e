#!/usr/bin/env bash
# When is RLHF worth it? From one SFT model and the same preferences: DPO, reward model + PPO, PPO with the checker as
# its reward, RLOO; three seeds each, measured on prompts that none has seen. The settings are in rlhf.toml.
#
# It goes on from what runs/asm.sh made (the SFT model and its preferences), so run that one first. Every training that
# is finished stays finished: stop it whenever you like and start it again. Expect several hours on 2 cores; fewer seeds
# or methods are a flag away: runs/rlhf.sh work/asm --seeds 1 --methods dpo,ppo
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory assets
work=$(realpath -m "${1:-work/asm}")
shift || true
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }
test -d "$work/models/sft/model" || { echo "$work has no SFT model: run runs/asm.sh first" >&2; exit 2; }

# 1. A workspace of its own beside the other one.
rlhf=$work/rlhf
mkdir -p "$rlhf"
cp runs/rlhf.toml "$rlhf/hafs.toml"
export HAFS_WORKSPACE=$rlhf
hafs init "$rlhf"

# 2. The reward model by itself: how often does it order held-out answers as the emulator does? Below 75 % PPO would
#    climb the wrong hill.
hafs train reward --sft_model "$work/models/sft/model" --preference_data "$work/preferences.jsonl" \
  --output_dir "$rlhf/reward"

# 3. Everything else, side by side.
hafs compare-methods --sft_model "$work/models/sft/model" --preference_data "$work/preferences.jsonl" \
  --prompts "$work/ask.jsonl" --benchmark easy --validate "$work/validation.jsonl" --minutes 30 \
  --markdown "$rlhf/methods.md" "$@"
