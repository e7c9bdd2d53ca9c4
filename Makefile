PYTHON ?= python3
PY = .venv/bin/python
OLDEST = .venv-oldest/bin/python

.PHONY: train board lint fast test soak test-oldest clean

train: .venv/installed
	$(PY) finetuning_app.py --config recipes/quickstart.yaml

# the page; Gradio is installed the first time
board: .venv/installed
	$(PY) -m pip install -q "gradio>=6.0.0" -c requirements-lock.txt
	$(PY) finetuning_app.py board

lint: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy .
	.venv/bin/lint-imports --no-logo
	.venv/bin/pydoclint -q finetuning *.py

# under a minute on two cores: for every change
fast: lint
	$(PY) -m pytest -m "not slow and not soak"

# everything that CI runs
test: lint
	$(PY) -m pytest

soak: .venv/installed-dev
	$(PY) -m pytest -m soak

# the suite on the oldest versions that requirements.txt admits, in a folder of its own; not run by CI
test-oldest: .venv-oldest/installed
	$(OLDEST) -m pytest

.venv/installed: requirements.txt requirements-lock.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -r requirements.txt -c requirements-lock.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt -c requirements-lock.txt
	touch $@

.venv-oldest/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-oldest
	sed -E 's/>=/==/; s/ *#.*//' requirements.txt > .venv-oldest/constraints.txt
	sed -E '/^trl/d; s|^-r |-r ../|' requirements-dev.txt > .venv-oldest/requirements.txt  # TRL wants newer versions
	$(OLDEST) -m pip install -q -r .venv-oldest/requirements.txt -c .venv-oldest/constraints.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest models datasets .pytest_cache .mypy_cache .ruff_cache
