PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check format slow mutants readme reference paper benchmark

run: $(VENV)/installed
	$(BIN)/leakboard run quick

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Leakboard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
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
benchmark: $(VENV)/installed
	mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py $(ONLY) --benchmark-quiet --benchmark-json=.benchmarks/last.json; \
		failed=$$?; $(BIN)/python tests/benchmarks/table.py .benchmarks/last.json && exit $$failed

# NAMES='noise_undivided' makes some of the mistakes of tests/mutants/mutants.toml only.
mutants: $(VENV)/installed
	$(BIN)/python tests/mutants/run.py $(NAMES)
