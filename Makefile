PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Natives are compiled when the package is installed: a change to what they are made of installs it again.
SOURCES := pyproject.toml build_natives.py $(wildcard fake_gpu/native/*.[ch]) fake_gpu/native/generate.py \
	fake_gpu/nvml/abi.py fake_gpu/nvml/codes.py fake_gpu/nvml/functions.txt fake_gpu/nvml/structs.txt
JOBS ?= auto

.PHONY: demo test lint format bench clock-matrix fidelity scoreboard clients sanitize clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    the race, its cost and its cure, on this screen"
	@echo "make test    ruff, mypy --strict and the tests (JOBS=auto: on all cores)"
	@echo "make bench   what things cost, as ratios in one run"
	@echo "make clock-matrix   docs/clock-matrix.md anew: what follows the virtual clock, freezegun, time-machine"
	@echo "make fidelity    docs/fidelity.md anew: the fake nvidia-smi beside real output, where that lies in ../shared"
	@echo "make scoreboard     docs/scoreboard.md and its pictures anew: policies over generated reloads; some minutes"
	@echo "make clients        docs/clients.md anew: 40 real GPU clients, each in an environment of its own (some GB in build/)"
	@echo "make sanitize       the natives under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make lint    ruff and mypy alone;  make format  mends what ruff can mend;  make clean  removes what was made"

$(VENV)/made: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Set PYTHON=python3.12, say.") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[lab,demo]" --group dev
	touch $@

demo: $(VENV)/made
	$(BIN)/vramsettle demo

lint: $(VENV)/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/made
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

bench: $(VENV)/made
	$(BIN)/python -m bench

# Written when it is complete: a run that fails leaves the old one.
clock-matrix: $(VENV)/made
	$(BIN)/python -m bench.matrix > docs/clock-matrix.new
	mv docs/clock-matrix.new docs/clock-matrix.md

fidelity: $(VENV)/made
	$(BIN)/python -m bench.fidelity > docs/fidelity.new
	mv docs/fidelity.new docs/fidelity.md

# Into a place of its own first, for the same reason.
scoreboard: $(VENV)/made
	mkdir -p build/scoreboard
	$(BIN)/python -m bench.scoreboard build/scoreboard
	mv build/scoreboard/scoreboard.md build/scoreboard/scoreboard.svg build/scoreboard/scoreboard-reload.svg docs/

# CLIENTS="nvitop gpustat": those alone, and no page.
clients: $(VENV)/made
ifdef CLIENTS
	$(BIN)/python -m bench.clients $(CLIENTS)
else
	mkdir -p build/clients
	$(BIN)/python -m bench.clients --page build/clients/clients.md
	mv build/clients/clients.md docs/clients.md
endif

sanitize: $(VENV)/made
	$(BIN)/python -m bench.sanitize

clean:
	rm -rf $(VENV) build dist fake_gpu/native/bin .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
