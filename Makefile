# Where another Python than the default is wanted: make study PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where bytecode must not be written, every command compiles all that it imports again, which takes seconds.
export PYTHONDONTWRITEBYTECODE :=
# The variable silences an advertisement that the theme prints.
DOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: study test test-numbers test-torch test-ray docs clean

study: $(VENV)/installed
	$(BIN)/sgdscope run digits --out sgdscope-digits

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal
	$(DOCS)

docs: $(VENV)/installed-test
	$(DOCS)

# What another version of Python and JAX could change: the numbers, and what a whole run does; not what being killed
# at every place does to its files, which takes a minute.
test-numbers: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist worksteal \
		tests/data/test_order.py tests/engine/test_run.py::test_a_study_runs_to_its_end \
		tests/training/test_packed.py tests/training/test_precision.py tests/training/test_jax_setup.py tests/test_study.py

# PyTorch is large, so that only its own tests install it; the others skip what needs it.
test-torch: $(VENV)/installed-torch
	$(BIN)/pytest tests/pytorch sgdscope/torch

# So is Ray, whose tests start clusters.
test-ray: $(VENV)/installed-ray
	$(BIN)/pytest tests/engine/test_ray.py

# What is imported is compiled when it is: compiling all of what is installed takes longer than that.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable '.[test,docs]'
	touch $(VENV)/installed $@

$(VENV)/installed-torch: $(VENV)/installed-test
	$(BIN)/pip install --quiet --no-compile --editable '.[torch]'
	touch $@

$(VENV)/installed-ray: $(VENV)/installed-test
	$(BIN)/pip install --quiet --no-compile --editable '.[ray]'
	touch $@

clean:
	rm -rf $(VENV) .venv-newest
