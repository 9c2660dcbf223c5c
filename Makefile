# Everything sets itself up: `make run` and `make test` need Python 3.11 or newer, git, make and a compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-cluster lint bench experiment published set-up clean

run: $(SET_UP)
	$(BIN)/tournament run configs/quickstart.yaml

test: $(SET_UP) .chromium .bubblewrap
	$(BIN)/python -m pytest

# Three Ray nodes with a token, an S3 server, MLflow with passwords on PostgreSQL: a tournament through all of it, and
# the loss of a node. About twenty minutes on two cores.
test-cluster: $(SET_UP) .postgresql
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,server]'
	$(BIN)/python -m pytest -n 0 -m cluster tests/integration/test_cluster.py

lint: $(SET_UP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(SET_UP)
	$(BIN)/python -m pytest tests/benchmarks -s -n 0

# Tournaments beside what else one might do with the same tokens; runs that are done are not repeated. The sizes are
# in tests/experiments/sizes.py; `make experiment SIZE=full` makes the table and the picture of the docs, in hours.
SIZE ?= small
experiment: $(SET_UP) $(if $(filter full,$(SIZE)),.chromium)
	$(BIN)/python -m tests.experiments.run $(SIZE)
	$(BIN)/python -m tests.experiments.table $(SIZE)
	$(if $(filter full,$(SIZE)),$(BIN)/python -m tests.experiments.picture $(SIZE))

# The published experiment on real models and data, which lie in ../shared: in equal rounds, and the same tokens as one
# budget. NAME=flan is the larger of the two, NAME=smollm2 starts from an instruct model. The references are the same in
# both forms, so they are scored once.
NAME ?= lamini
TOKENS_lamini := 250_000
TOKENS_flan := 300_000
TOKENS_smollm2 := 100_000
SMOLLM2 := runs/models/smollm2-135m-instruct
published: $(SET_UP) .chromium .bubblewrap $(SMOLLM2)/config.json
	$(BIN)/tournament run configs/experiments/$(NAME).yaml --run-dir runs/published/$(NAME)-equal
	$(BIN)/tournament run configs/experiments/$(NAME).yaml --run-dir runs/published/$(NAME)-whole \
	  --set 'budget={total_tokens: $(TOKENS_$(NAME))}' --set 'references=[]'
	$(BIN)/python -m tests.experiments.published $(NAME)

$(SMOLLM2)/config.json: | $(SET_UP)
	@test -d ../shared/models || { echo "make published: ../shared/models and ../shared/data are not beside this checkout"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gguf
	rm -rf $(SMOLLM2) $(SMOLLM2).tmp
	$(BIN)/python ../shared/models/get_smollm2.py $(SMOLLM2).tmp
	mv $(SMOLLM2).tmp $(SMOLLM2)

set-up: $(SET_UP)

# torch goes first, alone: what follows then finds it there and does not fetch another build.
$(SET_UP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# $(call install,COMMAND,PACKAGES,WITHOUT): what is absent is installed where that can be done; else it says what
# happens without it.
define install
	@command -v $(1) >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; } || \
	  echo "no $(1), and none could be installed: $(3)"
endef

.PHONY: .chromium .bubblewrap .postgresql
# The browser tests look at the report and at the MLflow UI.
.chromium:
	$(call install,$$(command -v google-chrome || echo chromium),chromium,the browser tests will be skipped)

.bubblewrap:
	$(call install,bwrap,bubblewrap,programs of your own have no sandbox and its tests will be skipped)

.postgresql: .bubblewrap
	$(call install,createdb,postgresql,the test will be skipped)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
