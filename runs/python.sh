#!/usr/bin/env bash
# Python functions, checked by tests: baseline, SFT, and rounds without any known answer, decided as runs/loop.sh decides. It
# can be stopped and started again at any moment.   runs/python.sh [DIRECTORY]   the workspace goes to work/python
cd "$(dirname "$0")/.." && SETTINGS=runs/python.toml exec runs/loop.sh "${1:-work/python}"
