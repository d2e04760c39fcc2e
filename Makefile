# Every target makes .venv from uv.lock when it is missing. `make demo` is the place to start.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEVELOP := .venv/.develop
VLLM := .venv-vllm
USE := --extra asm --extra gguf
ALL := $(USE) --extra annotate --extra quant --extra trackers --extra trl --extra judge --extra export --extra serve --extra code --extra formats --extra text --extra postgres --extra cluster --extra dev
# Where the environment forbids bytecode, every process would compile what it imports anew (10 seconds for torch).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo setup assets test rehearse-gpu bench-gpu faults fuzz check format docs bench bench-train bench-generate bench-score bench-rlhf bench-judge bench-cluster test-cluster vllm test-vllm clean

demo: assets          ## the whole path on the embedded model: SFT, preferences, DPO, the table (a quarter of an hour on 2 cores)
	@$(BIN)/hafs demo

setup: $(READY)       ## just make .venv

install = $(BIN)/uv export -q --locked --no-emit-project --prune torch $(1) -o .venv/requirements.txt && \
	$(BIN)/uv pip install -q --python $(BIN)/python -r .venv/requirements.txt

# torch comes through pip, which takes the CPU build where the machine's pip is set up with one; the rest is the lock.
$(READY): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about a minute)"
	@$(BIN)/python -m pip install -q uv "torch==$$(sed -n '/^name = "torch"$$/{n;s/.*"\(.*\)"/\1/p;}' uv.lock)"
	@$(call install,$(USE))
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

# What tests and checks need beside: linters, the peers that results are compared with, the optional extras.
$(DEVELOP): $(READY)
	@$(call install,$(ALL))
	@touch $@

assets: $(READY)
	@$(BIN)/hafs tools install >/dev/null
	@$(BIN)/hafs models pull >/dev/null

test: assets $(DEVELOP)          ## the tests: 20 minutes and more on 2 cores
	@command -v chromium >/dev/null || (apt-get update && apt-get install -y chromium) >/dev/null 2>&1 || true
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster and not rehearsal and not vllm" --durations=25 $(PYTEST)

test-cluster: assets $(DEVELOP)  ## three Ray nodes on this machine, PostgreSQL, and what kills them
	@(ls /usr/lib/postgresql/*/bin/initdb || (apt-get update && apt-get install -y postgresql)) >/dev/null 2>&1 || true
	@$(BIN)/python -m pytest -n 0 -m cluster tests/test_cluster.py $(PYTEST)

vllm: $(VLLM)/.ready              ## vLLM's build for a CPU in an environment of its own: 130 MB, and torch again

$(VLLM)/.ready: tests/vllm/requirements.txt $(READY)
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -q "torch==$$(sed -n '/^name = "torch"$$/{n;s/.*"\(.*\)"/\1/p;}' uv.lock)"
	@$(BIN)/uv pip install -q --python $(VLLM)/bin/python --no-deps --compile-bytecode -r $<
	@touch $@

test-vllm: assets $(DEVELOP) $(VLLM)/.ready  ## a real vLLM on this machine's CPU, behind every verb that asks a server
	@$(BIN)/python -m pytest -n 0 -m vllm tests/test_vllm.py $(PYTEST)

rehearse-gpu: assets $(DEVELOP)  ## benchmarks/gpu whole with tiny shapes on a processor
	@$(BIN)/python -m pytest -n 0 -m rehearsal tests/test_gpu.py $(PYTEST)

bench-gpu: assets $(DEVELOP)     ## what only a card can show, in half an hour
	@benchmarks/gpu/run.sh

faults: assets $(DEVELOP)        ## every fault of tests/faults; ends with one RESULT line
	@PYTHONPATH=tests/faults $(BIN)/python -m catalogue

fuzz: assets $(DEVELOP)          ## every parser of foreign bytes, a minute each; atheris leads it where it is installed
	@for target in prompts examples preferences rows answers assembly replies runs settings; do \
	  PYTHONPATH=tests/faults $(BIN)/python tests/faults/fuzz.py $$target -max_total_time=60 || exit 1; done

check: $(DEVELOP)       ## lint, types, import rules, generated docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

format: $(DEVELOP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(DEVELOP)        ## write docs/cli.md from the code
	@$(BIN)/python docs/generate.py

bench: bench-train bench-generate bench-score bench-rlhf bench-judge   ## every benchmark; each ends with one RESULT line

bench-train: assets $(DEVELOP)
	@$(BIN)/python benchmarks/train.py

bench-generate: assets $(DEVELOP)
	@$(BIN)/python benchmarks/generate.py

bench-score: assets $(DEVELOP)
	@$(BIN)/python benchmarks/score.py

bench-rlhf: assets $(DEVELOP)
	@$(BIN)/python benchmarks/rlhf.py

bench-judge: $(DEVELOP)
	@$(BIN)/python benchmarks/judge.py

bench-cluster: $(DEVELOP)
	@PYTHONPATH=tests $(BIN)/python benchmarks/cluster.py

clean:
	rm -rf .venv $(VLLM) demo
