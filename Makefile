# Each target makes the virtual environment it needs: a fresh machine needs Python and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
PLUGINS_VENV ?= .venv-plugins
DOCS_VENV ?= .venv-docs
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -q
# Processes that run tests side by side; the tests of one file stay together. One more than two cores: some tests wait.
WORKERS ?= 3
# Which tests `make test` runs: an expression of marks; all when it is empty.
TESTS ?= not slow

# Which tests of the plugins that share an environment: an expression of marks; all when it is empty.
PLUGIN_TESTS ?=

FUZZ_SECONDS ?= 300
# Which rows of the fault matrix: an expression of pytest's -k; all when it is empty. "signals-" is a group.
FAULTS ?=
FAULTS_ARGS ?= -q

.PHONY: demo test tests test-slow rules types plugins plugins-environment lint fuzz faults test-pages test-facility derived docs pictures clean

# Python compiles what it loads when it loads it: a tenth of what pip would compile beforehand. Images of containers often
# forbid it to keep that: then every process compiles torch and cryoplug anew, which takes 3 to 6 s each.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable ".[figures,test,lint]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py demo_output

# The rules first, which take a second; then mypy beside the tests, for it fills what they leave of the last core.
test: rules
	+$(MAKE) --no-print-directory --jobs=2 types tests

tests: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "$(TESTS)" $(PYTEST_ARGS)

# The HTML pages in a real browser, which is installed where it is missing. PAGES=folder keeps pictures of them.
PAGES ?= yes
test-pages: $(STAMP)
	(command -v chromium && command -v chromedriver) > /dev/null || (apt-get update && apt-get install --yes chromium chromium-driver)
	$(INSTALL) "selenium>=4.20"
	CRYOPLUG_PAGES=$(PAGES) $(BIN)/python -m pytest $(PYTEST_ARGS) tests/pages

# Facilities: the service, the unit, the line for cron, and the Snakefile with Snakemake in an environment of its own.
SNAKEMAKE_VENV ?= .venv-snakemake
test-facility: $(STAMP)
	[ -e $(SNAKEMAKE_VENV)/bin/snakemake ] || ($(PYTHON) -m venv $(SNAKEMAKE_VENV) && $(SNAKEMAKE_VENV)/bin/pip install --quiet "snakemake>=8")
	PATH="$$PATH:$(CURDIR)/$(SNAKEMAKE_VENV)/bin" $(BIN)/python -m pytest $(PYTEST_ARGS) tests/facility

# What the shipped weights are worth, RELION on whole movies, the tutorial of plugins in a fresh environment, and the like.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow $(PYTEST_ARGS)

# Every plugin's tests, with the real programs that they belong to where they can be installed. Most plugins share one
# environment. A framework that needs one of its own has plugins/NAME/install.sh, and a target: make plugin-NAME.
FRAMEWORKS := $(patsubst plugins/%/install.sh,%,$(wildcard plugins/*/install.sh))
FRAMEWORK_TARGETS := $(addprefix plugin-,$(FRAMEWORKS))
SHARING := $(filter-out $(FRAMEWORKS:%=plugins/%/tests),$(wildcard plugins/*/tests))
.PHONY: plugins-together $(FRAMEWORK_TARGETS)

plugins: plugins-together $(FRAMEWORK_TARGETS)

plugins-together: plugins-environment
	$(PLUGINS_VENV)/bin/python -m pytest -c plugins/pytest.ini -n $(WORKERS) --dist loadfile -m "$(PLUGIN_TESTS)" $(PYTEST_ARGS) $(SHARING)

$(FRAMEWORK_TARGETS): plugin-%: .venv-plugin-%/.installed
	.venv-plugin-$*/bin/python -m pytest -c plugins/pytest.ini $(PYTEST_ARGS) plugins/$*/tests

# An environment is made anew when anything that is installed there has changed.
plugins-environment: $(PLUGINS_VENV)/.installed

INSTALLED_THERE := $(shell find cryoplug plugins \( -name build -o -name tests \) -prune -o -type f \
	\( -name '*.py' -o -name '*.toml' -o -path '*/share/*' -o -path '*/general/*' -o -path '*/templates/*' \) -print)
# After $(STAMP): both builds leave files beside the sources.
$(PLUGINS_VENV)/.installed: plugins/install_all.sh pyproject.toml constraints.txt $(INSTALLED_THERE) | $(STAMP)
	PYTHON=$(PYTHON) plugins/install_all.sh $(PLUGINS_VENV)
	touch $@

.venv-plugin-%/.installed: plugins/%/install.sh pyproject.toml constraints.txt $(INSTALLED_THERE) | $(STAMP)
	PYTHON=$(PYTHON) plugins/$*/install.sh .venv-plugin-$*
	touch $@

lint: rules types

rules: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP)
	$(BIN)/python -m mypy

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults/matrix.py -n $(WORKERS) -k "$(FAULTS)" $(FAULTS_ARGS)

# What is written from the code, and kept equal by tests: the page of commands, the map, the forms of Scipion.
DESCRIBED := $(wildcard plugins/scipion-em-cryoplug/cryoplug_scipion/described/*.json)
derived: $(STAMP)
	$(BIN)/python -m cryoplug.cli.reference > docs/commands.md
	$(BIN)/python docs/draw_map.py
	$(foreach file,$(DESCRIBED),$(BIN)/python -m cryoplug describe $(basename $(notdir $(file))) > $(file) && ) true

# The documentation as a site in build/site, in an environment without PyTorch: the names are read from the sources.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --quiet --strict
	@echo "open in a browser: build/site/index.html; to search in it: $(PYTHON) -m http.server --directory build/site"

$(DOCS_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS_VENV)/wanted.txt
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(DOCS_VENV)/wanted.txt
	touch $@

# The pictures of the documentation, by the commands of the tutorial; ten minutes on two cores. Pages need Chromium.
pictures: $(STAMP)
	$(BIN)/python docs/draw_pictures.py

clean:
	rm -rf $(VENV) $(PLUGINS_VENV) $(DOCS_VENV) $(SNAKEMAKE_VENV) .venv-plugin-* demo_output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
