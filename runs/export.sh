#!/usr/bin/env bash
# Is the exported file the model that was trained? A model of a workspace (by default the SFT model of runs/asm.sh) as
# safetensors and as GGUF files of three sizes, each answering the same prompts as the trained model: minutes on 2 cores.
#
#   runs/export.sh [WORKSPACE] [MODEL]      such as: runs/export.sh work/loop dpo-1
#
# The output of one run is kept in docs/results/export.md.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory assets .venv/.develop
work=$(realpath -m "${1:-work/asm}")
model=${2:-sft}
test -d "$work/models/$model/model" || { echo "$work has no model $model: run runs/asm.sh first" >&2; exit 2; }
export HAFS_WORKSPACE=$work
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@" | sed "s|$work|WORK|g"; }
check=(--check easy --check-prompts 96 --licence apache-2.0)

hafs export "$model" --format safetensors --output "$work/exports/$model-safetensors" "${check[@]}"
for size in f16 q8_0 q4_k_m; do
  # A file that answers worse than the trained model makes `hafs export` fail, and that is what is to be seen here.
  hafs export "$model" --format gguf --quantize $size --output "$work/exports/$model-$size" "${check[@]}" || true
done
ls -l "$work"/exports/*/*.safetensors "$work"/exports/*/*.gguf | awk '{print $5, $9}' | sed "s|$work|WORK|"
