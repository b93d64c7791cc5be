# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs first.

PYTHON ?= python3
TORTURE ?= full
BIN := .venv/bin

.PHONY: help demo test torture mistakes lint schema lock bench bench-dispatch clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: .venv/ready  ## Make the quickstart's 14 videos in the sandbox: no key, no money
	$(BIN)/kling-batch run manifests/quickstart.yaml --config configs/sandbox.yaml

test: .venv/ready  ## Run the linters, the type checker and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not mistakes"

torture: .venv/ready  ## Attack the promise longer than `make test` does: kills, lies, broken disks; TORTURE=long for hours
	TORTURE=$(TORTURE) $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not mistakes" tests/torture

mistakes: .venv/ready  ## Test the attacks themselves: make 17 mistakes on purpose, each must be found
	$(BIN)/pytest -n 2 --dist load -m mistakes tests/torture

lint: .venv/ready  ## Repair what the linters can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/ready  ## Write the schemas that editors read, after a change of what a file may say
	$(BIN)/kling-batch schema manifest --output configs/manifest.schema.json
	$(BIN)/kling-batch schema config --output configs/config.schema.json

.venv/peers/ready: .venv/ready
	$(PYTHON) -m venv .venv/peers
	.venv/peers/bin/pip install --quiet --disable-pip-version-check segmind==1.3.0 scrapy==2.19.0
	@touch $@

bench: .venv/peers/ready  ## Measure the whole path against its floor and others, memory as jobs grow, the ledger, plans
	$(BIN)/python -m benchmarks.yardsticks
	$(BIN)/python -m benchmarks.whole_path --peers .venv/peers/bin/python
	$(BIN)/python -m benchmarks.whole_path --sizes 1000,10000,100000
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.resuming
	$(BIN)/python -m benchmarks.in_flight
	$(BIN)/python -m benchmarks.cluster

bench-dispatch: .venv/ready  ## Measure the dispatcher against the ideal, in virtual time; half an hour
	$(BIN)/python -m benchmarks.dispatch

lock: .venv/ready  ## Pin what is installed now
	$(BIN)/pip freeze --exclude-editable > requirements.lock

clean:  ## Remove the virtual environment and caches; never any output
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
