# The book and its package. `make help` lists what can be made.
# Everything is installed into .venv inside this folder, from the hashed locks; nothing else on the machine changes
# (but for the caches of pip and uv).

PYTHON      ?= python3
VENV        ?= .venv
VENV_PARITY ?= .venv-parity
VENV_BENCH  ?= .venv-bench
VENV_SITE   ?= .venv-site
VENV_LITE   ?= .venv-lite
PYODIDE     ?=
BENCH       ?= full
PORT        ?= 8000

BIN   := $(VENV)/bin
SITE  := _build/html
NBVAL := $(BIN)/python -m pytest -c pyproject.toml --nbval --nbval-current-env \
         --nbval-sanitize-with book/sanitize.cfg -p no:cacheprovider
# One lock, resolved in one go; the book's part of it is written out a second time, so that a reader installs less.
# --no-strip-extras: older pips ask for coverage[toml], and do not find it under the name of coverage.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-strip-extras \
           --custom-compile-command "make lock"

# The same kernel for everyone, and no progress bars in stored outputs.
export JUPYTER_PREFER_ENV_PATH = 1
export PYDEVD_DISABLE_FILE_VALIDATION = 1
export TQDM_DISABLE = 1

# What a notebook's terminal or other work leaves in the environment would choose other drawing or other modules.
# Without bytecode (some containers forbid to write it) each of a hundred processes would compile all packages again.
unexport MPLBACKEND PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# FORCE is not a file either: whoever depends on it is always made.
.PHONY: FORCE help book pdf lite test check unit nbval replicate planted notebooks quick serve lint format lock parity \
        test-site test-launch test-launch-newest test-lite newest lowest bench clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# -----------------------------------------------------------------------------------------------
# Environments

# tools/environment.py decides: it makes an environment, brings it up to date, makes it anew where it no longer fits
# (another Python, moved, copied, half-made), or leaves it alone, which takes a tenth of a second and no network.
# `make PYTHON=...` counts as asked for; the default python3 does not, so that it changes no environment.
ASKED := $(if $(filter command environment,$(firstword $(origin PYTHON))),--asked)

# $(call environment,KIND,FOLDER). Where python3 is too old, the Python that an environment was made with does as well.
define environment
@new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
python='$(PYTHON)'; \
new_enough "$$python" || { python='$(2)/bin/python'; test -z '$(ASKED)' && new_enough "$$python"; } || { \
  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that. Say which one to use: make PYTHON=python3.12 ..."; \
  exit 1; }; \
"$$python" tools/environment.py $(1) '$(2)' $(ASKED)
endef

FORCE:

$(VENV)/.book: FORCE
	$(call environment,book,$(VENV))

$(VENV)/.test: FORCE
	$(call environment,test,$(VENV))

$(VENV_PARITY)/.parity: FORCE
	$(call environment,parity,$(VENV_PARITY))

$(VENV_BENCH)/.bench: FORCE
	$(call environment,bench,$(VENV_BENCH))

$(VENV_LITE)/.lite: FORCE
	$(call environment,lite,$(VENV_LITE))

$(VENV_SITE)/.site: FORCE
	$(call environment,site,$(VENV_SITE))

# -----------------------------------------------------------------------------------------------
# The book

book: $(VENV)/.book ## build the site and say where to open it
	@$(BIN)/python book/build.py

pdf: $(VENV)/.book ## print the whole book with Chromium; the next `make book` offers it for download
	@$(BIN)/python -m book.pdf

LITE := $(BIN)/python -m book.lite build --jupyter $(VENV_LITE)/bin/jupyter-lite --wheels $(VENV_LITE)/wheels

# Not a part of `make book`, which needs no network once .venv is there: this one has an environment of its own, and
# takes half a minute. `make book` takes what was made here along.
lite: $(VENV)/.book $(VENV_LITE)/.lite ## let the chapters run in the browser (PYODIDE=FOLDER bundles Python), and the site
	@$(LITE) $(if $(PYODIDE),--pyodide $(PYODIDE))
	@$(BIN)/python book/build.py

serve: book ## build the site and show it at http://localhost:8000
	@echo "http://localhost:$(PORT) (Ctrl-C ends it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

notebooks: $(VENV)/.test ## run all notebooks and store their outputs, normalised
	$(BIN)/python -m book.notebooks run chapters/*.ipynb

quick: $(VENV)/.test ## run all notebooks at quick size, to see that they run; nothing is stored
	DLCORE_SIZE=quick $(BIN)/python -m book.notebooks try chapters/*.ipynb

# -----------------------------------------------------------------------------------------------
# Tests

test: unit nbval ## dlcore's tests with coverage, then each notebook against its stored outputs

# A process for each core, at most eight; WORKERS=0 for one only (and for pytest's --pdb).
WORKERS  ?= auto
PARALLEL := --numprocesses=$(WORKERS) --maxprocesses=8 --dist=worksteal
# Python 3.12 and newer can tell coverage about each line only once.
MEASURE  := COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')

# What it leaves out: tests marked slow (five seconds) or thorough (processes, drawn examples, memory, benchmark), doctests
# of book/, coverage, the chapters' runs, the site, PyTorch.
check: lint ## one minute: formatting, types, the stored notebooks, the fast tests (NAME=training: only those named so)
	$(BIN)/python -m book.notebooks check chapters/*.ipynb
	$(BIN)/python -m pytest -q $(PARALLEL) -m 'not slow and not thorough' tests dlcore $(if $(NAME),-k '$(NAME)')

unit: $(VENV)/.test ## dlcore's tests and doctests, with coverage
	$(MEASURE) $(BIN)/python -m pytest $(PARALLEL) --cov=dlcore --cov-report=term --cov-fail-under=97

# One notebook at a time: each uses all cores, and two at once would distort each other's timings. The kernels run in
# canonical arithmetic where the machine can do that; DLCORE_ARITHMETIC=nehalem shows what another processor would do.
nbval: $(VENV)/.test ## run each notebook and compare with its stored outputs
	@set -e; for notebook in $(wildcard chapters/*.ipynb); do \
	  echo "$(NBVAL) $$notebook"; $(NBVAL) --durations=3 $$notebook; done

# Hours: three more runs of all chapters. ONLY=03-activations takes one; what nbval has run is not run again.
replicate: $(VENV)/.test ## run the book in other arithmetics and with other seeds, and store which words stood
	$(BIN)/python -m book.replicate $(if $(ONLY),--only $(ONLY))

planted: $(VENV)/.test ## plant faults in copies of the book and see that nbval finds each, in three arithmetics
	$(BIN)/python -m book.planted

# Only if there is something to compare: PyTorch is large.
parity: $(if $(wildcard parity/*.py),$(VENV_PARITY)/.parity) ## compare dlcore with PyTorch, in an environment of its own
	$(if $(wildcard parity/*.py),$(VENV_PARITY)/bin/python -m pytest parity,@echo "There is no parity/ yet.")

test-site: pdf book $(VENV_SITE)/.site ## look at every page of the site in Chromium, and at the printed book
	$(VENV_SITE)/bin/python -m pytest -c pyproject.toml --rootdir . browser

# Needs a copy of Pyodide, which the project does not hold: the folder or archive of its full distribution.
test-lite: $(VENV)/.test $(VENV_SITE)/.site ## run all chapters in Chromium (PYODIDE=FOLDER; else it skips)
	$(if $(PYODIDE),@$(MAKE) --no-print-directory lite PYODIDE=$(PYODIDE))
	$(if $(PYODIDE),DLCORE_SIZE=quick $(BIN)/python -m book.lite native)
	PYODIDE=$(PYODIDE) $(VENV_SITE)/bin/python -m pytest -c pyproject.toml --rootdir . -rs -s browser/test_lite.py

# In the package sets of Colab, Kaggle and Binder (tests/places): all chapters on Colab's newest, one on the others.
# Then from the repository at this commit, as the launch buttons do.
test-launch: $(VENV)/.test ## run chapters as Colab, Kaggle and Binder would, in their package sets
	$(BIN)/python -m book.places run
	MAKER=$(abspath $(BIN))/python PYTHON=$(PYTHON) tests/launch_from_scratch.sh

test-launch-newest: $(VENV)/.test ## run one chapter in the package set of Colab's newest runtime
	$(BIN)/python -m book.places run colab

# In environments of their own, at quick size: with the newest releases, and with the lowest that pyproject.toml allows.
# Old releases deprecate what newer ones of others do (matplotlib 3.8 with today's pyparsing): no error here.
newest: RESOLUTION = highest
lowest: RESOLUTION = lowest-direct
newest lowest: $(VENV)/.test ## tests and chapters with the newest releases (lowest: the lowest allowed)
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-$@
	$(BIN)/uv pip install --quiet --python .venv-$@/bin/python --resolution $(RESOLUTION) --editable '.[test]'
	.venv-$@/bin/python -m pytest -q -m 'not slow' -W default::DeprecationWarning tests
	DLCORE_SIZE=quick .venv-$@/bin/python -m book.notebooks try chapters/*.ipynb

bench: $(VENV_BENCH)/.bench ## time dlcore against other libraries (BENCH=smoke: a minute, only to see that it runs)
	$(VENV_BENCH)/bin/python -m benchmarks $(BENCH)

# -----------------------------------------------------------------------------------------------
# Keeping the house

lint: $(VENV)/.test ## formatting, common mistakes, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.test ## resolve the locks anew (LOCK=--upgrade takes newer releases)
	$(COMPILE) $(LOCK) --constraint constraints.txt pyproject.toml --group build --extra book --extra test --extra dev --output-file requirements.txt
	$(COMPILE) --constraint requirements.txt pyproject.toml --group build --extra book --output-file requirements-book.txt
	echo uv | $(COMPILE) --constraint requirements.txt --output-file requirements-uv.txt -

clean: ## remove the built site and caches
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## also remove the virtual environments
	@$(PYTHON) tools/environment.py remove $(VENV) $(VENV_PARITY) $(VENV_BENCH) $(VENV_SITE) $(VENV_LITE)
	rm -rf .venv-newest .venv-lowest
