# `make demo` and `make test` work on a bare machine: they make .venv, install, fetch the built-in model.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DIFFUSE := $(BIN)/diffuse

.PHONY: demo test lint prose docs model benchmarks clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'  # Python compiles what it imports
	touch $@

model: .venv/.installed
	@$(BIN)/python -W ignore -c "from diffusecli.models.builtin import *; [ensure_builtin(name, print) for name in BUILTIN_MODELS]"

demo: model
	@echo "1/5  check the experiment"
	@$(DIFFUSE) validate configs/quickstart.yaml
	@echo "2/5  before: 200 answers of the untuned model"
	@$(DIFFUSE) sample configs/quickstart.yaml --mode untuned -n 200 --max-new-tokens 16
	@echo "3/5  train"
	@$(DIFFUSE) train configs/quickstart.yaml --force
	@echo "4/5  after: 1000 answers of the tuned model"
	@$(DIFFUSE) sample configs/quickstart.yaml --mode lora -n 1000
	@echo "5/5  compare both with the target"
	@$(DIFFUSE) evaluate results/quickstart --html results/quickstart/report.html

test: model
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not model"  # tiny models take one thread each
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m model

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

prose: .venv/.installed
	$(BIN)/python -m pytest -q tests/book/test_plain_words.py

docs: .venv/.installed
	NO_COLOR=1 $(BIN)/zensical build --strict --clean

benchmarks: model
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist site .cache *.egg-info .pytest_cache .import_linter_cache .mypy_cache .ruff_cache .hypothesis
