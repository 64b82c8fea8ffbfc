PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
EXTRAS := .[progress,redis,postgres,server,wsgi,metrics,health,otel]
# Tests that the pass on SQLite alone runs, and tests that only `make test-sites` runs.
ON_ONE_DATABASE := network or demo or no_database or any_database
WHOLE_SITES := soak or deploy

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-sqlite test-postgres test-sites coverage \
	test-browser screenshots matrix lint docs bench soak assets openapi messages clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with the package, its extras and every development tool

# pip before 25.1 knows no --group. Without byte code, because to compile every module takes longer
# than to install them, and Python compiles the few that are imported.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-compile --upgrade 'pip>=25.1'
	$(PIP) install --no-compile -e '$(EXTRAS)' --group dev
	touch $(STAMP)

demo: $(STAMP) ## Server, sweeper and worker on molecules (PORT=8001 moves it, ONCE=1 ends it by itself)
	@PORT=$(PORT) ONCE=$(ONCE) $(BIN)/python -m example_project.demo.run

# Both passes at once, and each in parts, because the tests of all parts but the first mostly wait.
# Two passes on one server that JOBLIB_TEST_DATABASE_URL names would use the same database: one by one.
SHARED := $(JOBLIB_TEST_DATABASE_URL)$(JOBLIB_TEST_REDIS_URL)
waiting := tests/waiting/
installed := tests/example/ tests/packaging/
client := tests/client/
# tests/browser/ belongs to `make test-browser`.
busy := $(filter-out $(waiting) $(installed) $(client) tests/browser/ tests/__pycache__/,$(wildcard tests/*/))
SQLITE := sqlite-busy sqlite-waiting sqlite-installed sqlite-client
POSTGRES := postgres-busy postgres-waiting postgres-client
PARTS := $(if $(SHARED),1,7)
# The busy tests give way, because the others take as long and use the processor at times only.
nice = $(if $(filter busy,$*),nice)
.PHONY: $(SQLITE) $(POSTGRES)
test: $(STAMP) ## All tests that need no system package, on SQLite and on PostgreSQL with Valkey
	@$(MAKE) --no-print-directory -j$(or $(JOBS),$(PARTS)) --output-sync=target $(SQLITE) $(POSTGRES)

test-fast: $(STAMP) ## The quick tests on SQLite, in a minute: no processes, no drawn cases
	$(BIN)/python tests/with_servers.py sqlite tests/unit tests/api tests/admin tests/database \
		-m 'not slow and not hypothesis' $(PYTEST_ARGS)

test-sqlite: $(STAMP) ## The pass on SQLite
	@$(MAKE) --no-print-directory -j$(or $(JOBS),4) --output-sync=target $(SQLITE)

test-postgres: $(STAMP) ## The pass on PostgreSQL with Valkey
	@$(MAKE) --no-print-directory -j$(or $(JOBS),$(if $(SHARED),1,3)) --output-sync=target $(POSTGRES)

$(SQLITE): sqlite-%: $(STAMP)
	COVERAGE_FILE=.coverage.$* $(nice) $(BIN)/python tests/with_servers.py sqlite $(if $(PYTEST_ARGS),--may-be-empty) \
		$($*) -m 'not ($(WHOLE_SITES))' $(PYTEST_ARGS)

$(POSTGRES): postgres-%: $(STAMP)
	$(nice) $(BIN)/python tests/with_servers.py postgres $(if $(PYTEST_ARGS),--may-be-empty) \
		$($*) $(if $(filter waiting,$*),$(installed)) \
		-m 'not ($(ON_ONE_DATABASE)) and not ($(WHOLE_SITES))' $(PYTEST_ARGS)

# A pass of its own, because measuring the coverage adds half to the time of the tests.
coverage: ## The pass on SQLite again, with the coverage floor
	@$(MAKE) --no-print-directory test-sqlite PYTEST_ARGS='--cov --cov-report= --cov-fail-under=0'
	$(BIN)/coverage combine --quiet $(SQLITE:sqlite-%=.coverage.%)
	$(BIN)/coverage report --skip-covered

test-sites: $(STAMP) ## nginx, pgbouncer and the short soak (installs the first two with apt, as root)
	$(BIN)/python tests/with_servers.py postgres --may-be-empty -m '$(WHOLE_SITES)' $(PYTEST_ARGS)

test-browser: $(STAMP) ## The pages in Chromium (installed with apt, as root); DATABASE=postgres uses PostgreSQL
	$(BIN)/python tests/with_servers.py $(or $(DATABASE),sqlite) tests/browser $(PYTEST_ARGS)

screenshots: $(STAMP) ## Write docs/screenshots anew
	$(BIN)/python tests/with_servers.py sqlite tests/browser/screenshots.py -p no:randomly

matrix: $(STAMP) ## Both passes by nox, for each Python found here and each Django
	$(BIN)/nox

# `request.headers` builds a mapping of all headers, which each request on a hot path would pay for.
DJANGO_UPGRADE := --target-version 5.2 --skip request_headers
lint: $(STAMP) ## Spelling, style, types, imports, migrations
	$(BIN)/typos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/django-upgrade --check $(DJANGO_UPGRADE) $$(git ls-files '*.py')
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

docs: $(STAMP) ## The documentation as a site, in .site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

messages: $(STAMP) ## Compile the translations
	$(BIN)/pybabel compile --directory zndraw_joblib/locale --domain django
	$(BIN)/pybabel compile --directory example_project/locale --domain django

# Exact versions, because the copies are part of the package.
APP_VENDOR := zndraw_joblib/static/zndraw_joblib/vendor
DEMO_VENDOR := example_project/static/example/vendor
TEST_VENDOR := tests/browser/vendor
assets: ## Copy the browser libraries of package.json, with their licences, to the static folders
	npm ci --ignore-scripts --no-audit --no-fund --silent
	rm -rf $(APP_VENDOR) $(DEMO_VENDOR) $(TEST_VENDOR)
	mkdir -p $(APP_VENDOR)/uplot $(DEMO_VENDOR)/3dmol $(TEST_VENDOR)/axe-core
	cp node_modules/uplot/LICENSE node_modules/uplot/dist/uPlot.iife.min.js \
		node_modules/uplot/dist/uPlot.min.css $(APP_VENDOR)/uplot/
	cp node_modules/3dmol/LICENSE node_modules/3dmol/build/3Dmol-min.js $(DEMO_VENDOR)/3dmol/
	cp node_modules/3dmol/build/3Dmol-min.js.LICENSE.txt $(DEMO_VENDOR)/3dmol/
	cp node_modules/axe-core/LICENSE* node_modules/axe-core/axe.min.js $(TEST_VENDOR)/axe-core/
# Django's ManifestStaticFilesStorage fails at the name of a source map that is not there.
	sed -i '/^\/\/# sourceMappingURL=/d' $(APP_VENDOR)/*/*.js $(DEMO_VENDOR)/*/*.js

openapi: $(STAMP) ## Write docs/openapi.yml and docs/asyncapi.yml anew
	$(BIN)/python manage.py spectacular --file docs/openapi.yml --validate --fail-on-warn
	$(BIN)/python manage.py asyncapi --file docs/asyncapi.yml

$(VENV)/.installed-bench: $(STAMP)
	$(PIP) install --group bench
	touch $@

bench: $(VENV)/.installed-bench ## Measure; half an hour (QUICK=1: two minutes)
	QUICK=$(QUICK) $(BIN)/python -m benchmarks.run $(BENCH_ARGS)

soak: $(STAMP) ## 105,000 tasks while processes, servers and connections are killed
	$(BIN)/python -m tests.soak.run --report docs/soak.md

clean: ## Remove .venv and whatever was made
	rm -rf $(VENV) .demo .nox .site dist
