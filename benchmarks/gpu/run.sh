#!/usr/bin/env bash
# Everything that only a card can show, in half an hour, the most important first: benchmarks/gpu/run.py says how.
#
#   benchmarks/gpu/run.sh [--minutes 25] [--parts exact,training] [--output DIR]     on a machine with a card
#   benchmarks/gpu/run.sh --rehearse                                                 the same with tiny shapes, on a processor
#   benchmarks/gpu/run.sh --carry DIR                                                what a bare machine without network needs
#
# It needs Python with torch, transformers, accelerate and peft; .venv's is taken where there is one, else $PYTHON or python3.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
exec "$PYTHON" benchmarks/gpu/run.py "$@"
