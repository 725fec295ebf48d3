# Every target makes what it needs: `make demo` and `make test` work on a fresh clone with only Python >= 3.11 and git.
# PYTHON=COMMAND chooses one; without it the first that fits is taken.
PYTHON ?=
VENV ?= .venv
BIN = $(VENV)/bin
# Tests mostly trace and compile, on one core. The tests of a file share fixtures and what is traced, all share what is
# compiled (tests/conftest.py, which also puts the longest files first).
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# Slow tests that start processes, and kill some, go two at a time, however many cores there are.
STARTED = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
STARTING = tests/train $(wildcard tests/*_processes.py tests/*/*_processes.py)
VERSIONS = import sys, importlib.metadata as m; print('Python', sys.version.split()[0], \
    *(f'{name} {m.version(name)}' for name in ('jax', 'flax', 'orbax-checkpoint', 'numpy', 'Pillow')))
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo demo-train demo-lean demo-app page docs test test-slow test-rest test-new test-oldest check parity bench clean

demo: $(VENV)/.demo
	$(BIN)/flaxgen draw "a red circle above a blue square" "a small green ring to the left of a large purple cross" \
	    "one big yellow triangle" "a cyan square below a yellow circle" --num 4 --seed 0 --out demo/scenes.png
	@echo "made demo/scenes.png: four pictures of each of four captions"

demo-train: $(VENV)/.demo
	rm -rf demo/digits
	$(BIN)/flaxgen train experiments/ddpm_digits.py --workdir demo/digits
	$(BIN)/flaxgen sample demo/digits --num 64 --seed 0 --beside-data --out demo/digits.png
	@echo "made demo/digits.png: 64 drawn digits on the left, 64 real ones on the right"

test: $(VENV)/.dev
	$(PYTEST)

test-slow: $(VENV)/.dev
	$(PYTEST) -m "slow and not parity" $(STARTING:%=--ignore=%)
	$(STARTED) -m "slow and not parity" $(STARTING)

# The slow tests and those of parity in one run: what both import and compile is shared, and no worker waits in between.
test-rest: $(VENV)/.parity
	$(PYTEST) -m "slow or parity" $(STARTING:%=--ignore=%)
	$(STARTED) -m "slow or parity" $(STARTING)

# A picture with no more installed than drawing needs, and how much that is.
demo-lean:
	rm -rf $(VENV)-lean && python=$$(sh scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV)-lean
	$(VENV)-lean/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-draw.txt
	$(VENV)-lean/bin/python -m pip install --quiet --disable-pip-version-check --no-deps .
	du -sh $(VENV)-lean
	$(VENV)-lean/bin/flaxgen draw "a red circle above a blue square" --num 1 --out demo/lean.png --force

# The studio from a wheel, in an environment of its own: how large it is, and how long until it answers and draws.
demo-app:
	rm -rf $(VENV)-app build/wheel && python=$$(sh scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV)-app
	$(VENV)-app/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	du -h build/wheel/*.whl
	start=$$(date +%s); $(VENV)-app/bin/python -m pip install --quiet --disable-pip-version-check \
	    "$$(echo build/wheel/*.whl)[app]" && echo "installed in $$(($$(date +%s) - start)) s; of the processor:" && times
	du -sh $(VENV)-app
	$(VENV)-app/bin/python scripts/try_studio.py $(VENV)-app/bin/flaxgen demo/app.png

# The site, from docs/, the docstrings and the notebooks; warnings are errors, and links within it are followed.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	$(BIN)/python scripts/check_links.py build/docs
	@echo "made build/docs/index.html"

# The smoke tests on the newest Python that is found, with the newest of all dependencies.
test-new:
	@python=$$(sh scripts/find_python.sh --newest) || { echo "test-new: skipped"; exit 0; }; \
	rm -rf $(VENV)-new && "$$python" -m venv $(VENV)-new && \
	$(VENV)-new/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip && \
	$(VENV)-new/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[dev]" && \
	$(VENV)-new/bin/python -c "$(VERSIONS)" && \
	$(VENV)-new/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m smoke

# All fast tests with the oldest versions that setup.cfg allows, some of which are deprecated by what they stand on.
test-oldest:
	rm -rf $(VENV)-oldest && python=$$(sh scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest --resolution lowest-direct --editable ".[dev]"
	$(VENV)-oldest/bin/python -c "$(VERSIONS)"
	$(VENV)-oldest/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile -W default::DeprecationWarning

# The studio's page, from TypeScript (app/page) to what the package carries (flaxgen/app/page). Needs Node >= 20.
page:
	cd app/page && npm ci --no-audit --no-fund && npm run build
	@du -sh flaxgen/app/page

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layers.py

parity: $(VENV)/.parity
	$(PYTEST) -m parity

bench: $(VENV)/.parity
	$(BIN)/python -m benchmarks.unet
	$(BIN)/python -m benchmarks.inception
	$(BIN)/python -m benchmarks.stylegan2

$(BIN)/python:
	python=$$(sh scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable ".[demo]"
	touch $@

$(VENV)/.dev: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/.docs: $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable ".[docs]"
	touch $@

$(VENV)/.parity: $(VENV)/.dev
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable ".[parity]"
	$(INSTALL) --no-deps torch-fidelity==0.4.0  # it asks for torchvision, which the tests do without
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-new $(VENV)-oldest $(VENV)-lean $(VENV)-app demo build dist *.egg-info
