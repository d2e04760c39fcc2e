#!/usr/bin/env bash
# The guide's three phases of collecting preferences, and their mix: 10,000 prompts ranked by a program, 2,000 by a
# judge, 200 by a person.
#
# The story: what a program can decide costs nothing, so it decides most. A judge reads what no program can say (is it
# clear, does it answer the request), for dollars. A person calibrates both, for hours. The three disagree now and then;
# the mix says where, and lets the person weigh five times as much.
#
#   runs/three-phases.sh MODEL PROMPTS [DIRECTORY]
#
# MODEL is the SFT model to improve; PROMPTS are tasks as JSON lines (10,000 of them, or as many as there are), such as
# `hafs tasks generate asm -n 10000 --output prompts.jsonl` writes; the workspace goes to work/three-phases unless you
# say otherwise. Sizes and the judge are below; BUDGET is the dollars that the judge never exceeds. Stop it whenever you
# like: started again, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$(realpath -m "$1") prompts=$(realpath "$2") work=$(realpath -m "${3:-work/three-phases}")
AUTO=${AUTO:-10000} JUDGED=${JUDGED:-2000} HUMAN=${HUMAN:-200}
JUDGE=${JUDGE:-claude-opus-4-5} BUDGET=${BUDGET:-100} SCORER=${SCORER:-automatic}
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }

export HAFS_WORKSPACE=$work
hafs init "$work"
file() { echo "$work/preferences_$1.jsonl"; }

# Phase 1, automatic (no human hours): four answers a prompt, ranked by the workspace's scorer. Of two right answers the
# better one wins by what ranks them (fewer bytes, simpler code); ties make no pair.
hafs preferences generate --model "$model" --prompts "$prompts" --num-samples "$AUTO" --candidates-per-prompt 4 \
  --scorer "$SCORER" --output "$(file auto)"

# Phase 2, a judge (an hour or two): the same answers to some of the prompts, each comparison in both orders; where the
# orders disagree, it abstains. The estimate comes first and nothing is sent beyond the budget.
head -n "$JUDGED" "$prompts" > "$work/judged.jsonl"
hafs judge run --judge "$JUDGE" --prompts "$work/judged.jsonl" --estimate
hafs judge run --judge "$JUDGE" --prompts "$work/judged.jsonl" --budget "$BUDGET"

# Phase 3, a person (three or four hours): blind, the order shuffled. Every ranking of four gives six edges.
hafs annotate start --model "$model" --prompts "$work/judged.jsonl" --num-samples "$HUMAN" --candidates 4 \
  --output "$(file human)"

# The judge is calibrated on what the person said, and its verdicts become edges where it can be trusted.
hafs judge calibrate --judge "$JUDGE"
hafs judge build --judge "$JUDGE" --output "$(file llm)"

# The mix: one group a prompt, what is said twice counts once, every edge keeps who said it. A person's edge weighs
# five; where a person disagrees, the person is followed. The report says how far the sources agree: if judge and person
# do not, calibrate the judge before you trust its 2,000.
hafs preferences combine "$(file auto)" "$(file llm)" "$(file human)" --weight human=5 --conflicts people \
  --output "$work/preferences.jsonl"
hafs preferences stats "$work/preferences.jsonl" --output "$work/preferences.html"

# And what they are for.
hafs train dpo --sft_model "$model" --preference_data "$work/preferences.jsonl" --output_dir "$work/models/dpo" \
  --beta 0.1 --learning_rate 5e-6 --num_epochs 1 --batch_size 2 --gradient_accumulation_steps 8
