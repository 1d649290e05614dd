# Everything a fresh machine needs: python3 (3.10 to 3.13), pip and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The CPU build of torch where this index is reachable, else what pip finds. For pip's own choice: make demo TORCH_INDEX=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Waiting threads sleep instead of spinning: several times faster when anything else runs on the machine.
export OMP_WAIT_POLICY ?= passive
export KEDRO_DISABLE_TELEMETRY ?= 1
export MPLBACKEND ?= Agg

.PHONY: demo test laws lint style types docs reproduce viz env clean

demo: $(STAMP)  ## photographs -> raws -> tiles -> prior -> restored frames, with figures
	$(BIN)/kedro run --env demo
	$(BIN)/kedro run --env demo --pipelines comparison  # the same frames by other guidances

test: style  ## linters, architecture, then types beside the laws
	$(MAKE) --no-print-directory --jobs 2 types laws

laws: $(STAMP)  ## the tests alone
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: style types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	@# with the locked stubs; NumPy's for Python 3.10 are older and know less of shapes
	$(BIN)/python -c "import sys; sys.exit(sys.version_info >= (3, 11))" || $(BIN)/mypy

docs: $(STAMP)  ## the documentation as a site in site/; a broken link is an error
	$(BIN)/pip install --quiet -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reproduce: $(STAMP)  ## tables of README and docs by the commands that made them; TABLE=quality or TABLE=quality/xtrans: only these; hours for all
	$(BIN)/python benchmarks/reproduce.py $(TABLE)

viz: $(STAMP)  ## the pipelines with previews of the demo's data, in the browser
	$(BIN)/kedro viz run --env demo

env: $(STAMP)

# The lock holds for Python 3.11 and newer; on 3.10 pip resolves the ranges of pyproject.toml.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	torch=$$(grep '^torch==' requirements.lock); $(BIN)/python -c "import torch" 2>/dev/null \
	  || { test -n "$(TORCH_INDEX)" && $(BIN)/pip install --retries 0 --timeout 15 --index-url $(TORCH_INDEX) $$torch; } \
	  || $(BIN)/pip install $$torch
	$(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 11))" && lock="-r requirements.lock"; \
	  $(BIN)/pip install $$lock -e ".[viz,dev]"
	touch $@

clean:  ## the demo's outputs
	rm -rf data/demo
