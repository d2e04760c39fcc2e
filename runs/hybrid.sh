#!/usr/bin/env bash
# The guide's hybrid path with everything on this machine: candidates of an SFT model, a local model as the judge, a person
# for the prompts that tell most, and the judge for the rest as far as it can be trusted.
#
#   runs/hybrid.sh SFT_MODEL [DIRECTORY]      such as work/asm/models/sft/model of runs/asm.sh
#
# The judge is the embedded 135M model behind llama.cpp: far too small to judge anything. That is the point of the
# exercise: what it is worth is measured, and nothing of it is used that was not earned. So that this file runs by
# itself, the person is a script that ranks right routines above wrong ones, by what the emulator says of them; you would
# use `hafs annotate start`.
#
# The filter removes nothing but equal answers here (--scorer none). The emulator could be the filter, which is the
# default; but then the wrong routines would be gone, and this person, who goes by the emulator too, would have little
# left to tell apart.
set -euo pipefail
cd "$(dirname "$0")/.."
sft=$(realpath -m "${1:?the SFT model to take candidates from}")
work=$(realpath -m "${2:-work/hybrid}")
hafs() { echo "\$ hafs ${*//"$work"/WORK}"; .venv/bin/hafs "$@"; }

# 1. Candidates, and what the emulator says of them, for the person in step 4.
hafs init "$work"
export HAFS_WORKSPACE=$work
hafs tasks generate asm --split train --tags easy --num-samples 20 --seed 7
hafs generate --model "$sft" --candidates-per-prompt 4
hafs score

# 2. A judge on this machine, with OpenAI's interface: the model as a GGUF file, served by llama.cpp, which holds answers
#    to the form that is asked for. (`hafs serve`, Ollama, vLLM or LM Studio would do as well.)
hafs export default --format gguf --name smol --output "$work/judge"
coproc SERVER { .venv/bin/python -m hafs.export.llamacpp "$work"/judge/*.gguf 2048 4 0; }
read -r url <&"${SERVER[0]}"

# 3. Drop equal answers, ask the judge in both orders, leave a queue for the person.
hafs judge hybrid --judge "smol@$url/v1" --ask --scorer none --queue-size 12 --probes 2 --max-tokens 96
hafs judge ledger

# 4. The person.
.venv/bin/python - "$work" <<'END'
import sys
from hafs.annotate.service import AnnotationService
from hafs.annotate.queue import read_queue
from hafs.config import AnnotateSettings
from hafs.store import open_workspace

with open_workspace(sys.argv[1]).open_store() as store:
    asked = read_queue(store, next(store.runs(kind="annotation-queue")).id)
    right = {s.candidate_id: (bool(s.passed), s.value or 0.0) for s in store.scores(scorer="asm")}
    service = AnnotationService(store, AnnotateSettings(repeats=0.2), queued=asked)
    while (item := service.next_item("me")) is not None:
        order = sorted({right[c.candidate_id] for c in item.cards}, reverse=True)
        tiers = [[c.label for c in item.cards if right[c.candidate_id] == value] for value in order]
        service.submit("me", item.lease, answer="ranked", tiers=tiers, seconds=30.0)
END

# 5. The same command goes on: it calibrates the judge on the labels and builds the groups.
hafs judge hybrid --judge smol --scorer none --queue-size 12 --output "$work/preferences.jsonl"
hafs judge calibrate --judge smol
