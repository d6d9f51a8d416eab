PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: install check unit test demo demo-real bench fuzz lock docs contracts clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install
	$(BIN)/pytest -m "not integration" tests/unit tests/scenarios tests/fuzz tests/contracts

# Whole swarms wait more than they compute: beside them, and not beside each other, runs everything else.
test: check
	@$(BIN)/pytest -m swarm --durations=5 >$(VENV)/swarms.log 2>&1 & swarms=$$!; \
	$(BIN)/pytest -m "not swarm" --durations=5; rest=$$?; \
	wait $$swarms; of_swarms=$$?; cat $(VENV)/swarms.log; exit $$((rest || of_swarms))

demo: install
	$(BIN)/swarm demo $(ARGS)

demo-real: install
	$(BIN)/python -m tools.demo_real $(if $(DATA),--data "$(DATA)") $(ARGS)

bench: install
	$(BIN)/python -m tests.bench

fuzz: install
	$(BIN)/python -m tests.fuzz $(ARGS)

docs: install
	$(BIN)/python -m tools.reference

contracts: install
	$(BIN)/python -m tools.compile_contracts

lock: install
	( head -n 1 requirements.lock; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
