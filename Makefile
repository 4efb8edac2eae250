PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-language dist docs test test-all lint clean

demo: .venv/installed  ## train, program, fine-tune 32 chips: runs/demo/
	$(BIN)/python -m training.finetune --out runs/demo --force

demo-language: .venv/installed  ## train a small GPT, stream it through wide crossbars: runs/demo-language/
	$(BIN)/python -m training.reproduce --model gpt-small --hardware array-128 --crossbars 16 --chips 2 --policy unsorted \
	  --policy matched --policy matched:tolerance=3 --out runs/demo-language --force

test: .venv/installed  ## everything but the slow tests, compiled in a hurry
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"

test-all: .venv/installed  ## everything, compiled as users compile it
	$(BIN)/pytest -n auto --dist worksteal

docs: .venv/installed  ## the documentation: site/, opened from a folder or served
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: .venv/installed  ## a release: dist/ with the wheel and the source; no network is needed
	$(BIN)/python -m build --no-isolation

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "memsim needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,plot,notebooks,docs,test]'
	touch $@

clean:
	rm -rf .venv runs dist site
