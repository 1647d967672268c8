# Everything a newcomer needs: `make train`, `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN ?=
CAMPAIGN ?=
PYTEST ?= $(if $(CI),--refuse-skips)

BOARDS := gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm \
	gcc-riscv64-unknown-elf qemu-system-misc clang cmake

# Their packages pin others than ours, so they have an environment of their own.
LINTERS := platformio==6.2.0 idf-component-manager==3.1.2 kconfiglib==14.1.0

RUN_NOTEBOOKS := $(patsubst docs/%,build/%,$(wildcard docs/notebooks/*.ipynb))

.PHONY: help install train test lint docs dist boards linters firmware notebooks campaign clean

help:
	@echo "make train            train the default preset on MNIST (TRAIN='--preset digits' for flags)"
	@echo "make test             every check that takes a few minutes in all (CI=1 for the long ones)"
	@echo "make lint             types and style alone"
	@echo "make docs             the site, into build/site/index.html, with notebooks run small; a warning is an error"
	@echo "make dist             a wheel and a source distribution, in dist/"
	@echo "make boards           Debian's cross compilers and QEMU, for more emulated boards (as root)"
	@echo "make linters          PlatformIO's, ESP-IDF's and Zephyr's, into build/linters, for the tests of packages"
	@echo "make firmware         what a model costs on each emulated board that is there"
	@echo "make campaign         kills, damaged files, malformed inputs, full disks: an hour (CAMPAIGN='--seed 7')"
	@echo "make notebooks        run docs/notebooks into build/notebooks (DPSGD_NOTEBOOK=small: seconds each)"

install: $(VENV)/installed

$(VENV)/installed: setup.cfg constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

train: install
	$(BIN)/python -m dpsgd_torch.train $(TRAIN)

# With CI set, the long checks too, and none may be skipped but for what tests/skips.py lists.
test: install lint
	$(BIN)/python -m pytest -n auto --dist worksteal $(if $(CI),,-m "not long") $(PYTEST)

lint: install
	$(BIN)/ruff check accountant dpsgd_torch tests benchmarks docs
	$(BIN)/ruff format --check accountant dpsgd_torch tests benchmarks docs
	$(BIN)/mypy

# Notebooks are shown as they were last run: run small where they were not, in full by make notebooks.
docs: install $(RUN_NOTEBOOKS)
	$(BIN)/python -m sphinx -q -E -W --keep-going docs build/site
	@echo "look at build/site/index.html"

dist: install
	$(BIN)/python -m build --no-isolation

boards:
	apt-get update -q
	apt-get install -q -y --no-install-recommends $(BOARDS)

linters:
	$(PYTHON) -m venv build/linters
	build/linters/bin/python -m pip install --quiet $(LINTERS)

firmware: install
	$(BIN)/python benchmarks/firmware.py

notebooks: install
	$(BIN)/python docs/notebooks/execute.py --out build/notebooks

build/notebooks/%.ipynb: docs/notebooks/%.ipynb | install
	DPSGD_NOTEBOOK=small $(BIN)/python docs/notebooks/execute.py $< --out build/notebooks

# As root it fills small disks of its own, too. Exit status 1 with a list where a law was broken.
campaign: install
	$(BIN)/python benchmarks/campaign.py $(CAMPAIGN)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
