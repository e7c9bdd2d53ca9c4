PYTHON ?= python3
PY = .venv/bin/python

.PHONY: train test lint soak clean

train: .venv/installed
	$(PY) finetuning_app.py --config recipes/quickstart.yaml

test: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy .
	$(PY) -m pytest

soak: .venv/installed-dev
	$(PY) -m pytest -m soak

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv models datasets .pytest_cache .mypy_cache .ruff_cache
