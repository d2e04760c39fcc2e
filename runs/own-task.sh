#!/bin/sh
# Three tasks of one's own, each from files to the table on the embedded model:
#
#   runs/own-task.sh [DIRECTORY]
#
# Python with tests, a text checked by a script, JSON by a schema. The inputs are in runs/own-task: 96 rows each. No flag
# switches a guard off. Stopped, the same command goes on. docs/results/own-task.md has what it printed.
set -eu
cd "$(dirname "$0")/own-task"
work=$(realpath -m "${1:-../../work/own-task}")
hafs() { echo "\$ hafs $*"; python="${PYTHON:-../../.venv/bin/python}"; "$python" -m hafs "$@"; }

task() {
  name=$1 prompts=$2 check=$3
  began=$(date +%s)
  hafs start --model default --prompts "$prompts" --check "$check" --minutes 10 --workspace "$work/$name"
  hafs loop run --workspace "$work/$name"
  trained=""  # no round where SFT took all the time
  [ ! -d "$work/$name/models/dpo-1" ] || trained=dpo-1
  hafs compare baseline sft $trained --workspace "$work/$name"
  echo "$name: $((($(date +%s) - began) / 60)) minutes and $((($(date +%s) - began) % 60)) seconds"
}

task functions functions.jsonl tests
task subjects subjects.jsonl "command:python3 subject.py {file}"
task orders orders.jsonl schema:order.schema.json
