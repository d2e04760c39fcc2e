# Every target makes .venv from uv.lock when it is missing. `make demo` is the place to start.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
EXTRAS := --extra asm --extra gguf --extra trl --extra dev

.PHONY: demo setup assets test check format docs bench bench-train bench-generate bench-score clean

demo: assets          ## the whole path on the embedded model: SFT, preferences, DPO, the table (about ten minutes)
	@$(BIN)/hafs demo

setup: $(READY)       ## just make .venv

# torch comes through pip, which takes the CPU build where the machine's pip is set up with one; the rest is the lock.
$(READY): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about a minute)"
	@$(BIN)/python -m pip install -q uv "torch==$$(sed -n '/^name = "torch"$$/{n;s/.*"\(.*\)"/\1/p;}' uv.lock)"
	@$(BIN)/uv export -q --locked --no-emit-project --prune torch $(EXTRAS) -o .venv/requirements.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python -r .venv/requirements.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

assets: $(READY)
	@$(BIN)/hafs tools install >/dev/null
	@$(BIN)/hafs models pull >/dev/null

test: assets          ## the tests, in under 15 minutes on 2 cores
	@$(BIN)/python -m pytest -n 2 $(PYTEST)

check: $(READY)       ## lint, types, import rules, generated docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(READY)        ## write docs/cli.md from the code
	@$(BIN)/python docs/generate.py

bench: bench-train bench-generate bench-score   ## every benchmark; each ends with one RESULT line

bench-train: assets
	@$(BIN)/python benchmarks/train.py

bench-generate: assets
	@$(BIN)/python benchmarks/generate.py

bench-score: assets
	@$(BIN)/python benchmarks/score.py

clean:
	rm -rf .venv demo
