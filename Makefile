PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-sqlite test-postgres lint bench soak openapi clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	@PORT=$(PORT) ONCE=$(ONCE) $(BIN)/python -m example_project.demo.run

# Both passes at once, as much of each is waiting; JOBS=1 for one after the other.
test: $(STAMP)
	@$(MAKE) --no-print-directory -j$(or $(JOBS),2) --output-sync=target test-sqlite test-postgres

test-sqlite: $(STAMP)
	$(BIN)/python tests/with_servers.py sqlite $(PYTEST_ARGS)

test-postgres: $(STAMP)
	$(BIN)/python tests/with_servers.py postgres -m 'not network and not demo' $(PYTEST_ARGS)

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
