# Two commands do all the set-up: `make demo` and `make test`. Needs Python >= 3.11 and an index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo
DEMO ?= steps=200 sequence=128 learning_rate=6e-3 warmup=20 eval_every=50
export JAX_PLATFORMS ?= cpu

# jax's own choice of the TPU's compiler, beside the environment: nothing but tests and benchmarks of
# kernels uses it, and jax would look for a TPU wherever it is installed.
TPU := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(VENV)/tpu/.installed)
LIBTPU := import importlib.metadata as m; \
  print(next(r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")))

# The browser in which tests look at the page of `miras inspect`; elsewhere than on Debian they take
# one that is on the PATH, or are skipped.
BROWSER := $(if $(shell grep -sx ID=debian /etc/os-release),$(if $(filter x86_64,$(shell uname -m)),\
  $(VENV)/browser/.installed))

.PHONY: help demo quick test wheel-smoke exhaustive tpu browser lint types docs format table clean

help:  ## Show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

demo: $(VENV)/.installed  ## Train the default model on the built-in corpus, then sample from it
	$(BIN)/miras train yaad --out $(DEMO_OUT) $(DEMO)
	$(BIN)/miras generate $(DEMO_OUT) --prompt "def " --length 300 --temperature 0.7

quick: $(VENV)/.installed  ## Run a fast selection of the tests of every subsystem (3 minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m quick $(PYTEST)

test: $(VENV)/.installed $(TPU) $(BROWSER)  ## Run the tests (about 29 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu and not interop and not exhaustive" --durations=40 $(PYTEST)

exhaustive: $(VENV)/.installed $(TPU) $(BROWSER)  ## Run what `make test` runs a sample of (hours)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "exhaustive and not gpu and not interop" $(PYTEST)

wheel-smoke:  ## Train, evaluate and generate with the wheel alone, in clean environments
	tests/wheel_smoke.sh $(PYTHON)

tpu: $(TPU)  ## Install the TPU's compiler (210 MB), which needs no TPU

browser: $(BROWSER)  ## Fetch a headless Chromium (90 MB), which is not installed

lint: $(VENV)/.installed  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

table: $(VENV)/.installed  ## Train presets side by side, or what is missing (experiments/README.md; hours)
	$(BIN)/python -m experiments.presets

clean:  ## Remove the environment and all runs
	rm -rf $(VENV) runs

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "miras needs Python 3.11 or newer, this is " + sys.version.split()[0] + \
	  ": run make with PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/tpu/.installed: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/tpu "$$($(BIN)/python -c '$(LIBTPU)')"
	@touch $@

$(VENV)/browser/.installed: tests/analysis/inspect/fetch_browser.sh $(VENV)/.installed
	tests/analysis/inspect/fetch_browser.sh $(VENV)/browser
	@touch $@
