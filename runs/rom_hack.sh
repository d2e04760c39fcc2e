#!/usr/bin/env bash
# All 27 families of ROM patches: baseline, SFT, and rounds without any known answer, decided as runs/loop.sh decides. It
# can be stopped and started again at any moment.   runs/rom_hack.sh [DIRECTORY]   the workspace goes to work/rom_hack
cd "$(dirname "$0")/.." && SETTINGS=runs/rom_hack.toml exec runs/loop.sh "${1:-work/rom_hack}"
