# Everything a fresh machine needs: python3 (3.10 to 3.13), pip and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# CPU build of torch where that index is reachable, else what pip finds. For CUDA: make demo TORCH_INDEX=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Waiting threads sleep instead of spinning: several times faster when anything else runs on the machine.
export OMP_WAIT_POLICY ?= passive
export KEDRO_DISABLE_TELEMETRY ?= 1
export MPLBACKEND ?= Agg

.PHONY: demo test lint viz env clean-demo

demo: $(STAMP)  ## photographs -> raws -> tiles -> prior -> restored frames, with figures
	$(BIN)/kedro run --env demo

test: $(STAMP)  ## linters, architecture, laws
	$(MAKE) lint
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check . || true
	$(BIN)/mypy
	$(BIN)/lint-imports

viz: $(STAMP)  ## the pipelines with previews, in the browser
	$(BIN)/kedro viz run --env demo

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	torch=$$(grep '^torch==' requirements.lock); $(BIN)/python -c "import torch" 2>/dev/null \
	  || { test -n "$(TORCH_INDEX)" && $(BIN)/pip install --retries 0 --timeout 15 --no-deps --index-url $(TORCH_INDEX) $$torch; } \
	  || $(BIN)/pip install $$torch
	$(BIN)/pip install -r requirements.lock
	$(BIN)/pip install --no-deps -e .
	touch $@

clean-demo:
	rm -rf data/demo
