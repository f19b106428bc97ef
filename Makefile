# Every task of a developer, by name.  Bare `make` lists them.
PYTHON ?= python
JOBS ?= 2
DRAFT := build/golden

.DEFAULT_GOAL := help
.PHONY: help install test lint types check mutate bench-fast bench diff golden demo pictures

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## the project and all that its checks need, into the Python environment in use
	$(PYTHON) -m pip install -e '.[test]'

test: ## all tests
	$(PYTHON) -m pytest -n $(JOBS)

lint: ## style and layout of the Python code
	$(PYTHON) -m ruff check src tests examples benchmarks
	$(PYTHON) -m ruff format --check src tests examples benchmarks

types: ## strict types of the package
	$(PYTHON) -m mypy

check: lint types test ## lint, types and tests: what a change must pass

mutate: ## plants known bugs one by one; each must be caught by a test
	$(PYTHON) tests/mutate.py

bench-fast: ## the benchmarks that take seconds
	$(PYTHON) -m benchmarks fast

bench: ## all benchmarks; some need model and data files that are not in the repository
	$(PYTHON) -m benchmarks all

diff: ## what a change does to the generated C of a small fixed corpus (nothing, for a refactor)
	@rm -rf $(DRAFT) && $(PYTHON) tests/corpus.py $(DRAFT)
	@diff -ru tests/golden $(DRAFT) && echo 'the generated C is unchanged'

golden: ## accepts the generated C of the corpus as the new reference
	$(PYTHON) tests/corpus.py tests/golden

demo: ## the demo, into runs/
	mcugrad demo

pictures: ## the pictures of the README, from a run of the demo
	mcugrad demo -o runs/pictures
	mkdir -p docs/images
	cp runs/pictures/learning.png docs/images/learning.png
	cp runs/pictures/memory.png docs/images/memory.png
