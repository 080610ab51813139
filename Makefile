# Everything a contributor runs. On a fresh Debian 12 or Ubuntu machine `make test`, as root, installs what it needs first.
# PYTHON: the interpreter of the virtual environment, 3.11 to 3.13.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras \
	--generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
GENERATED := docs/metrics.md docs/checks.md dashboards helm/mecexporter/files

.PHONY: venv debian lock lint lint-generated test test-long generate demo incident repair bench
.DEFAULT_GOAL := test
.DELETE_ON_ERROR:

venv: .venv/locked

debian:
	@PYTHON="$(PYTHON)" tests/tools/install-debian.sh

# `ovs` comes as source only: its build tools are locked and installed first, and nothing unlocked is fetched to build it.
.venv/locked: requirements-build.txt requirements-dev.txt | debian
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	|| { echo "$(PYTHON) is not of 3.11 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --require-hashes -r requirements-build.txt
	$(PIP) install --quiet --require-hashes --no-build-isolation -r requirements-dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index -e .
	touch $@

# Compiled on 3.11, the oldest we support, it also holds for 3.12 and 3.13. UPGRADE=--upgrade brings newer releases.
lock: venv
	$(PIP) install --quiet 'pip-tools>=7.5,<8'
	$(COMPILE) $(UPGRADE) --only-build-deps --build-deps-for wheel -o requirements-build.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --extra nova-db -o requirements.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --extra nova-db --extra dev -o requirements-dev.txt pyproject.toml requirements-dev.in
	$(COMPILE) $(UPGRADE) -o tests/tools/openstack-requirements.txt tests/tools/openstack-requirements.in

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy mecexporter tests dashboards
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	@$(MAKE) --no-print-directory lint-generated

# Generates in place: what was stale is right afterwards, and this run has failed.
lint-generated: venv
	@digest() { find $(GENERATED) -type f ! -name '*.py' ! -name '*.pyc' -exec sha256sum {} + 2>/dev/null | sort -k 2; }; \
	before=$$(digest) && $(MAKE) --no-print-directory generate && \
	test "$$before" = "$$(digest)" || { echo "generated files were stale, or could not be made; look, and commit them" >&2; exit 1; }

test: lint
	$(BIN)/python -m pytest -m "not long" -n 3 --no-loadscope-reorder --max-worker-restart 0 $(PYTEST_ARGS) </dev/null

test-long: venv
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS) </dev/null

# The chart carries copies: helm reads no file outside its own directory.
generate: venv
	$(BIN)/python -m mecexporter.metrics.docs
	$(BIN)/python -m dashboards.build
	rm -rf helm/mecexporter/files
	mkdir -p helm/mecexporter/files/alerts helm/mecexporter/files/dashboards
	cp alerts/*.rules.yaml helm/mecexporter/files/alerts/
	cp dashboards/*.json helm/mecexporter/files/dashboards/

# Only the tests draw dashboards, and run OpenStack.
demo incident repair bench: export TESTS := no

demo: venv
	$(BIN)/python -m tests.lab demo $(if $(SITE),--site $(SITE)) $(if $(LAB),--name $(LAB))

incident repair: venv
	@test -n "$(NAME)" || { echo "usage: make $@ NAME=C2" >&2; exit 2; }
	$(BIN)/python -m tests.lab $@ $(NAME)

bench: venv
	$(BIN)/python -m tests.bench
