PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check format slow mutants readme reference paper benchmark

run: $(VENV)/installed
	$(BIN)/leakboard run quick

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=3600

INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# The sizes are of Linux, measured with du; README.md says how to do without the CUDA libraries.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Leakboard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing what a run needs into $(VENV): 85 packages, 6.1 GiB (1.6 GiB with CPU-only wheels of PyTorch)"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@echo "$(VENV) holds $$(du -sh $(VENV) | cut -f1)"
	touch $@

# pip keeps what the first step installed and adds to it.
$(VENV)/installed-dev: $(VENV)/installed
	@echo "Adding what tests and checks need to $(VENV): 19 packages, 0.5 GiB"
	$(INSTALL) -e '.[dev]'
	@echo "$(VENV) holds $$(du -sh $(VENV) | cut -f1)"
	touch $@

readme: run
	$(BIN)/python -m tools.readme quick runs/quick

# docs/reference.md, after a change of a command, a key, or a method's parameters; the tables of
# docs/what-a-check-can-detect.md, after a change of a check's rules or of the lies that tests try.
reference: $(VENV)/installed
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.detection
	PYTHONPATH=. $(BIN)/python tests/leaderboards/doctored.py

# The small presets of the paper's claims, an hour at the most on 2 cores, and docs/paper.md. Trained networks need
# cifar10-jpeg.zip in LEAKBOARD_DATA, paper-batch-small needs Debian's dataset-fashion-mnist.
PAPER := table1 resnet20-4 fedavg batch architecture imagenet
paper: $(VENV)/installed
	for claim in $(PAPER); do $(BIN)/leakboard run paper-$$claim-small || exit 1; done
	$(BIN)/python -m tools.paper.archive $(PAPER:%=runs/paper-%-small) leaderboards/published/paper-small
	$(BIN)/python -m tools.paper.page $(PAPER:%=runs/paper-%-small)

# ONLY='-k "lenet and eager"' selects cases; the last run stays in .benchmarks/last.json.
benchmark: $(VENV)/installed-dev
	mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py $(ONLY) --benchmark-quiet --benchmark-json=.benchmarks/last.json; \
		failed=$$?; $(BIN)/python tests/benchmarks/table.py .benchmarks/last.json && exit $$failed

# NAMES='noise_undivided' makes some of the mistakes of tests/mutants/mutants.toml only.
mutants: $(VENV)/installed-dev
	$(BIN)/python tests/mutants/run.py $(NAMES)
