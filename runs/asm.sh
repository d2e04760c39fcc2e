#!/usr/bin/env bash
# All 124 families of 65816 assembly: baseline, SFT, and rounds without any known answer, decided as runs/loop.sh decides. It
# can be stopped and started again at any moment.   runs/asm.sh [DIRECTORY]   the workspace goes to work/asm
cd "$(dirname "$0")/.." && SETTINGS=runs/asm.toml exec runs/loop.sh "${1:-work/asm}"
