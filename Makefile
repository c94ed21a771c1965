# make book    build the book                     make notebooks  run all chapters again
# make serve   ... and show it at 127.0.0.1:8000  make address    give the book your own address
# make test    run everything that can fail       make clean      remove what these commands made
# make pdf     print it: one PDF, and the cheat sheet, which the book then offers; takes Chromium or
#              Chrome and two minutes
#
# Each sets up .venv from requirements.txt first, when it is not there yet.
#
# make sweeps               run the studies of part II again: about two hours, kill and repeat at will
# make sweeps ONLY=decay    ... or one of them
# make frameworks           measure the BatchNorm of thirty frameworks, each in an environment of
#                           its own in .venv-frameworks, which it sets up: hours, and 15 GB
# make frameworks ONLY=mlx  ... or of one, or of several in quotes: minutes
# make frameworks RECORD=1  ... and write down what they do, in bnlib/frameworks.json
# make clients              run other people's models and tools, in .venv-clients, which it sets up
# make clients RECORD=1     ... and write down what is seen, in bnlib/clients.json
# make bench                how accurate and how fast bnlib and others are here: about ten minutes
# make bench ONLY=accuracy  ... or one of accuracy, speed and gpu
# make bench JAX=1          ... with JAX too, in .venv-bench, which it sets up
# make bench RECORD=1       ... and write down the results, in bnlib/records

# The first of these that is new enough; else python3, which then says what is missing.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && exit; done; echo python3)
PORT ?= 8000
RUN := .venv/bin/python
BENCH = $(if $(JAX),.venv-bench/bin/python,$(RUN))
SOURCES = $(shell find _config.yml _toc.yml requirements.txt tools/build.py book bnlib \
	-type f -not -path '*/.*' -not -name '*.pyc')

.DELETE_ON_ERROR: # a book with warnings is not a book: the next run builds it again
.PHONY: book pdf serve test lint format types tests frameworks clients bench notebooks sweeps address clean env live

book: _build/html/index.html
	@echo "The book: $(CURDIR)/_build/html/index.html"

_build/html/index.html: $(SOURCES) $(wildcard .live/complete) | live
	@$(RUN) tools/build.py .

pdf: book
	@$(RUN) tools/pdf.py .

serve: book
	@echo "Serving it at http://127.0.0.1:$(PORT) (Ctrl-C ends)"
	@$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

# All four run, also when one of them fails.
test: env
	@$(MAKE) --no-print-directory --keep-going lint format types tests

lint:
	$(RUN) -m ruff check .

format:
	$(RUN) -m ruff format --check .

types:
	$(RUN) -m mypy bnlib

tests: live
	$(RUN) -m pytest book tests -n 2 --dist loadfile --no-loadscope-reorder -rs # the longest first

frameworks: env
	@$(RUN) tools/frameworks.py $(ONLY)
	FRAMEWORKS="$(or $(ONLY),all)" BNLIB_RECORD=$(RECORD) $(RUN) -m pytest tests/frameworks

clients:
	@$(PYTHON) tools/setup_env.py clients
	BNLIB_RECORD=$(RECORD) .venv-clients/bin/python -m pytest tests/clients

bench: env
	@$(if $(JAX),$(PYTHON) tools/setup_env.py bench)
	@for name in $(or $(ONLY),accuracy speed); do \
		$(BENCH) benchmarks/$$name.py $(if $(RECORD),--record) || exit 1; done

notebooks: env
	@$(RUN) tools/notebooks.py $(ONLY)

sweeps: env
	@$(RUN) tools/sweeps.py $(ONLY)

address: env
	@$(RUN) tools/address.py "$(URL)" "$(BASE)"

clean:
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find bnlib book tests tools -name __pycache__ -prune -exec rm -rf {} +

env:
	@$(PYTHON) tools/setup_env.py

live: env
	@$(RUN) tools/live.py
