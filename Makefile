# Every target makes what it needs: `make demo` and `make test` work on a fresh clone with only Python >= 3.11 and git.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow check parity bench clean

demo: $(VENV)/.demo
	rm -rf demo
	$(BIN)/flaxgen train experiments/ddpm_digits.py --workdir demo/digits
	$(BIN)/flaxgen sample demo/digits --num 64 --seed 0 --beside-data --out demo/digits.png
	@echo "made demo/digits.png: 64 drawn digits on the left, 64 real ones on the right"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not parity"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layers.py

parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity

bench: $(VENV)/.parity
	$(BIN)/python -m benchmarks.unet
	$(BIN)/python -m benchmarks.inception

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable ".[demo]"
	touch $@

$(VENV)/.dev: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/.parity: $(VENV)/.dev
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable ".[parity]"
	$(INSTALL) --no-deps torch-fidelity==0.4.0  # it asks for torchvision, which the tests do without
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
