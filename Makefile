# Everything is installed into .venv inside the checkout; nothing else on the machine is changed.
#
#   make demo                     a whole swarm on this machine, healed before your eyes
#   make test                     every test;  make test ARGS="-k spans"  runs some
#   make PYTHON=python3.12 ...    another interpreter than the first one found

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALLED := $(VENV)/.installed
PETALS_VENV := .venv-petals
PETALS_INSTALLED := $(PETALS_VENV)/.installed
PETALS_NEEDS := torch numpy hivemind transformers accelerate huggingface-hub tokenizers sentencepiece peft safetensors \
  Dijkstar humanfriendly async-timeout cpufeature speedtest-cli tensor_parallel

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-petals demo test test-thorough test-petals check lint format types layering docs docs-generate reliability coverage chaos chaos-figures soak audit test-bounds mutation screenshots bench bench-dht bench-footprint bench-scale bench-petals performance evaluate dist image image-base setup-image image-test clean

help: ## Show what can be made.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(INSTALLED) ## Install Swarmkeel and all that developing it takes into .venv.

$(VENV)/bin/python:
	@$(if $(PYTHON),$(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Swarmkeel needs Python 3.11 or newer: name one by make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

# Redone only when what is to be installed changes. The constraints name the exact torch, so that no other build of it,
# gigabytes larger, is drawn in. They also hold for what builds the package; newer versions of pip read the second name.
$(INSTALLED): export PIP_CONSTRAINT := constraints.txt
$(INSTALLED): export PIP_BUILD_CONSTRAINT := constraints.txt
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py src/swarmkeel/balance/kernel.c | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time this takes a minute or two ..."
	@$(RUN) pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup-tests: $(INSTALLED) ## Fetch Debian's Prometheus and Chromium for the tests that need them, where that is possible.
	@sh tests/support/fetch_prometheus.sh
	@sh tests/support/fetch_chromium.sh

setup-petals: $(PETALS_INSTALLED) ## Install Petals into .venv-petals, and Swarmkeel beside it as its operators do.

# Petals needs older versions than Swarmkeel's sidecar does, so it has an environment of its own. What pyproject.toml says
# has no part in it: Swarmkeel stands there as it is in the checkout, and without its dependencies.
$(PETALS_INSTALLED): export PIP_CONSTRAINT := constraints-petals.txt
$(PETALS_INSTALLED): constraints-petals.txt | $(INSTALLED)
	@echo "Installing Petals into $(PETALS_VENV); this takes 1.6 GB and a minute or two ..."
	@$(VENV)/bin/python -m venv --clear $(PETALS_VENV)
	@$(PETALS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PETALS_NEEDS)
	@$(PETALS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps petals bitsandbytes
	@$(PETALS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(INSTALLED) ## Start a whole swarm on this machine and watch it heal; ARGS=--keep leaves it running.
	@$(RUN) swarmkeel demo $(ARGS)

# More of them than processors: most of the time a test waits for processes that it started.
WORKERS := -n 4 --dist loadgroup

test: setup-tests ## Run every test.
	@$(RUN) pytest $(WORKERS) $(ARGS)

test-thorough: setup-tests ## Run every test, property tests with twenty times as many examples; takes long.
	@$(RUN) pytest $(WORKERS) --hypothesis-profile=thorough --timeout=3600 $(ARGS)

test-petals: $(INSTALLED) $(PETALS_INSTALLED) ## Run the tests with real Petals servers and clients.
	@$(RUN) pytest tests/petals $(ARGS)

check: lint types layering docs ## Run every check that is no test.

lint: $(INSTALLED) ## Look for mistakes and for code that is not formatted.
	@$(RUN) ruff check
	@$(RUN) ruff format --check

format: $(INSTALLED) ## Format the code and mend what can be mended safely.
	@$(RUN) ruff check --fix-only
	@$(RUN) ruff format

types: $(INSTALLED) ## Check the types.
	@$(RUN) mypy

layering: $(INSTALLED) ## Check that every module imports only what stands below it.
	@$(VENV)/bin/python $(VENV)/bin/lint-imports

docs: $(INSTALLED) ## Build the documentation into build/site; every dead link in it is an error.
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet --site-dir build/site

screenshots: setup-tests ## Take the pictures of the status page in the docs anew.
	@SWARMKEEL_SCREENSHOTS=docs/images $(RUN) pytest tests/page $(ARGS)

reliability: $(INSTALLED) ## Inject every fault, and write the table of docs/reliability.md; takes a few minutes.
	@rm -rf build/reliability
	@SWARMKEEL_RELIABILITY=build/reliability $(RUN) pytest $(WORKERS) tests/faults tests/daemon/test_move_machine.py $(ARGS)
	@$(RUN) tools.reliability build/reliability

# In every process that the tests start; what runs beside Petals runs in its environment, which has to measure too.
COVERAGE := COVERAGE_FILE=$(CURDIR)/build/coverage/data $(RUN) coverage

coverage: setup-tests $(PETALS_INSTALLED) ## Measure how much of the code the tests run, with Petals' too, and write it into docs/reliability.md; takes long.
	@rm -rf build/coverage && mkdir -p build/coverage
	@PIP_CONSTRAINT=constraints.txt $(PETALS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check coverage
	@$(COVERAGE) run -m pytest $(WORKERS) $(ARGS)
	@$(COVERAGE) run -m pytest tests/petals
	@$(COVERAGE) combine --quiet
	@$(COVERAGE) json --quiet -o build/coverage/report.json
	@$(RUN) tools.covered build/coverage/report.json

performance: $(INSTALLED) ## Take over what the benchmarks have measured, and write docs/performance.md.
	@$(RUN) tools.performance

chaos: $(INSTALLED) ## Strike a whole swarm with every fault at once; ARGS="--seed 7 --minutes 4" repeats a run.
	@$(RUN) tests.chaos.run $(ARGS)

chaos-figures: $(INSTALLED) ## Run chaos with three seeds, and write their figures into docs/reliability.md; takes half an hour.
	@rm -rf build/chaos
	@for seed in 1 2 3; do $(RUN) tests.chaos.run --seed $$seed $(ARGS) || exit 1; done
	@$(RUN) tools.long_runs chaos build/chaos/report-*.json

soak: $(INSTALLED) ## Have sidecars make 10,000 checks, and write what that took into docs/reliability.md; takes an hour.
	@$(RUN) tests.soak.run $(ARGS)
	@$(RUN) tools.long_runs soak build/soak/report.json

audit: $(INSTALLED) ## Ask for known vulnerabilities of everything installed here; fails where nobody could be asked.
	@$(RUN) tools.audit $(ARGS)

test-bounds: $(INSTALLED) ## Test with the lowest and the newest versions that pyproject.toml allows; takes some minutes.
	@$(RUN) tools.bounds $(ARGS)

mutation: $(INSTALLED) ## Break what decides in small ways and see whether a test notices; writes docs/mutation.md.
	@nice -n 10 $(RUN) tools.mutation $(ARGS)

docs-generate: $(INSTALLED) ## Write the pages and files that follow from the code.
	@$(RUN) tools.documents

# These run for minutes each, with processes of their own.
bench-dht: $(INSTALLED) $(PETALS_INSTALLED) ## Read swarms from a real DHT beside Petals' own reading, and large ones in memory.
	@$(RUN) benchmarks.dht_reading $(ARGS)
	@$(RUN) benchmarks.event_loop

bench-footprint: $(INSTALLED) ## Measure what one sidecar costs its machine, and fail if that is over the budget.
	@$(RUN) benchmarks.footprint $(ARGS)

bench-scale: $(INSTALLED) ## Let a swarm with real sidecars on a real DHT grow to 300 servers, and a simulated one to 10,000; takes long.
	@$(RUN) benchmarks.scale_dht $(ARGS)
	@$(RUN) benchmarks.scale_simulated

bench: $(INSTALLED) ## Measure what decisions take and how that grows; takes a few minutes.
	@mkdir -p build/bench/raw
	@$(RUN) pytest benchmarks/bench_balance.py -o addopts= --import-mode=importlib -q -rs --benchmark-quiet \
	  --benchmark-timer=time.process_time --benchmark-max-time=0.3 --benchmark-min-rounds=3 --benchmark-disable-gc \
	  --benchmark-json=build/bench/raw/balance.json $(ARGS)
	@$(RUN) benchmarks.balance_growth build/bench/raw/balance.json
	@$(RUN) benchmarks.coordinated_plan

bench-petals: $(INSTALLED) $(PETALS_INSTALLED) ## Measure the same beside the installed Petals, in turn; takes some minutes.
	@$(RUN) benchmarks.beside_petals $(ARGS)

evaluate: $(INSTALLED) ## Compare the policies in every scenario, and write the tables of docs/policy.md; takes long.
	@$(VENV)/bin/python benchmarks/evaluate.py $(ARGS)

# Built and tried in order: what cannot be published is not looked at any further.
dist: export PIP_CONSTRAINT := constraints.txt
dist: export PIP_BUILD_CONSTRAINT := constraints.txt
dist: $(INSTALLED) ## Build wheel and sdist into dist, check them, and run the demo from the wheel in an empty environment.
	@rm -rf dist
	@$(RUN) build --outdir dist
	@SWARMKEEL_PURE=1 $(RUN) build --wheel --outdir dist # for where the compiled one does not fit
	@$(RUN) twine check --strict dist/*
	@env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT PYTHON=$(VENV)/bin/python sh tools/try_wheel.sh dist/*.whl

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= swarmkeel:$(VERSION)
IMAGE_BASE ?=

image: ## Build the container image with buildah; IMAGE_BASE=NAME takes another base than the Dockerfile names.
	@PYTHON=$(PYTHON) sh deploy/image/build.sh $(IMAGE) $(IMAGE_BASE)

image-base: ## Make the image swarmkeel-base of Debian's packages, for IMAGE_BASE=localhost/swarmkeel-base.
	@sh deploy/image/base.sh localhost/swarmkeel-base

setup-image: ## Install Debian's buildah and mmdebstrap where they are missing, as root.
	@command -v buildah >/dev/null && command -v mmdebstrap >/dev/null || { \
	  apt-get -qq update && apt-get -qq --yes --no-install-recommends install buildah mmdebstrap; }

image-test: $(INSTALLED) ## Build the image for real, on a base of Debian's packages, and run the demo in it.
	@$(RUN) pytest tests/image $(ARGS)

clean: ## Remove everything that make made.
	rm -rf $(VENV) $(PETALS_VENV) .demo build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
