PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-sqlite test-postgres test-sites lint bench soak openapi clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	@PORT=$(PORT) ONCE=$(ONCE) $(BIN)/python -m example_project.demo.run

# All passes at once, as much of each is waiting; JOBS=1 for one after the other. Two of them would use
# the same database of a server that was named for them.
SHARED := $(JOBLIB_TEST_DATABASE_URL)$(JOBLIB_TEST_REDIS_URL)
test: $(STAMP)
	@$(MAKE) --no-print-directory -j$(or $(JOBS),$(if $(SHARED),1,3)) --output-sync=target \
		test-sqlite test-postgres test-sites

test-sqlite: $(STAMP)
	$(BIN)/python tests/with_servers.py sqlite $(PYTEST_ARGS)

test-postgres: $(STAMP)
	$(BIN)/python tests/with_servers.py postgres \
		-m 'not network and not demo and not soak and not deploy' $(PYTEST_ARGS)

# Whole sites, from the files of the deployment and while their parts are killed.
test-sites: $(STAMP)
	$(BIN)/python tests/with_servers.py postgres --may-be-empty -m 'soak or deploy' $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zndraw_joblib
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

$(VENV)/.installed-bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

bench: $(VENV)/.installed-bench
	QUICK=$(QUICK) $(BIN)/python -m benchmarks.run $(BENCH_ARGS)

soak: $(STAMP)
	$(BIN)/python -m tests.soak.run --report docs/soak.md

openapi: $(STAMP)
	$(BIN)/python manage.py spectacular --file docs/openapi.yml --validate --fail-on-warn

clean:
	rm -rf $(VENV) .demo dist
