# Every target sets itself up: .venv holds the versions of constraints.txt.
PYTHON ?= python3
VENV = .venv
RUN = $(VENV)/bin/python -m
STAMP = $(VENV)/.installed
BENCH =
N = 20000
FUZZ =
JOBS = auto
TEST =
MULTIBENCH =
OUTPUT = results/upstream
# A fixed list, so that it takes as long when methods are added: what there is but for the slowest.
QUICK = deq,deq_paper,concat,concat_linear,sum,weighted_sum,tensor,low_rank,mutan,gmu,attention,cross,evidential,late
ARGS = --dataset digits --fusions $(QUICK) --runs 3 --jobs 2 --drop-modality --output results/digits

.PHONY: help compare bench test test-all fuzz lint types docs wheel results upstream

help:  ## list the targets (the default)
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile

compare: $(STAMP)  ## train and compare fusions on digits; other options: make compare ARGS="--fusions all ..."
	$(VENV)/bin/deq-fusion compare $(ARGS)

bench: $(STAMP)  ## measure what DEQ fusion costs; other options: make bench BENCH="--parts cases"
	$(RUN) deq_fusion.examples.studies.cost $(BENCH)

test: $(STAMP)  ## run the unit tests but for the slow ones: three minutes on two cores
	$(RUN) pytest -n $(JOBS) --dist worksteal -m "not slow" $(TEST)

test-all: $(STAMP)  ## run every unit test
	$(RUN) pytest -n $(JOBS) --dist worksteal $(TEST)

fuzz: $(STAMP)  ## damage N files of all formats and read them; other options: make fuzz N=2000 FUZZ="--seed 1 --keep DIR"
	$(RUN) unit_tests.fuzz --number $(N) $(FUZZ)

lint: $(STAMP)  ## check style and format with ruff
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(STAMP)  ## check types with mypy
	$(RUN) mypy

docs: $(STAMP)  ## build the documentation into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

wheel: $(STAMP)  ## build the wheel into dist/, and run the first example from it alone
	rm -rf build dist
	$(RUN) pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(RUN) pip install --quiet --no-deps --no-index --target build/wheel dist/*.whl
	cd build/wheel && ../../$(RUN) deq_fusion.examples.quickstart

results: $(STAMP)  ## write RESULTS.md, docs/results and README's table from the published data
	$(RUN) deq_fusion.examples.studies.publish render

upstream: $(STAMP)  ## write DEQ fusion as patches for MultiBench, and a branch into it: make upstream MULTIBENCH=DIR
	@test -n "$(MULTIBENCH)" || { echo "name a checkout of MultiBench: make upstream MULTIBENCH=DIR"; exit 2; }
	$(RUN) deq_fusion.examples.upstream --multibench "$(MULTIBENCH)" --output "$(OUTPUT)"

# A finished environment is updated; without its stamp, what an interrupted run left is replaced.
$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 10) and sys.exit("Python >= 3.10 is needed, $(PYTHON) is %d.%d; name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" % sys.version_info[:2])'
	test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	rm -f $@
	$(RUN) pip install --quiet --constraint constraints.txt setuptools
	$(RUN) pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@
