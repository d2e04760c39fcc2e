#!/usr/bin/env bash
# Rounds that decide for themselves, on the embedded model, in about an hour and a half on 2 cores. The settings are in
# loop.toml.
#
# The story: a 135M model that knows no 65816 assembly is taught 13 easy families of routines from verified answers
# (SFT). Then, round after round, it is asked held-out prompts, its failures are sorted, and the families that fail are
# asked more: new prompts, several answers to each, and a real assembler and emulator that say which are right. The
# model is trained to prefer those (DPO), with the best model so far as the reference, and a decision is made on prompts
# that nothing was trained on: promote it, or go back. The loop ends at its target, when two rounds bring no gain, when
# the time is up, or after three rounds. It can be stopped and started again at any moment, even with kill -9.
#
#   runs/loop.sh [DIRECTORY]          the workspace goes to work/loop unless you say otherwise
#   SETTINGS=runs/asm.toml …          other settings; runs/asm.sh, runs/rom_hack.sh and runs/python.sh are this script
#   PLANT=2 runs/loop.sh DIRECTORY    plants a bad round 2: a learning rate 30 times as high, and no checkpoint picked
#                                     by pass rate. The loop has to notice and go back by itself. Use another directory.
#
# The output of one run is kept in docs/results/loop.md.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory assets
settings=${SETTINGS:-runs/loop.toml}
work=$(realpath -m "${1:-work/loop}")
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }

# 1. A workspace with the settings of this story, and of the bad round when one is to be planted.
mkdir -p "$work"
cp "$settings" "$work/hafs.toml"
if [[ -n "${PLANT:-}" ]]; then
  printf '\n[loop.rounds.%s]\ndpo.learning_rate = 1.5e-2\nloop.checkpoint_prompts = 0\n' "$PLANT" >> "$work/hafs.toml"
fi
export HAFS_WORKSPACE=$work
hafs init "$work"

# 2. The loop. Baseline, SFT, and up to three rounds; every stage is kept in the workspace.
hafs loop run

# 3. The page: scores by round with intervals, every decision with its reason, what each round asked and learnt. `hafs
#    report --open` shows it in a browser; the same figures are in loop.md.
hafs report
