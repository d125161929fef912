# make demo    install what the page needs, start it
# make test    install everything, lint, run all tests (the browser's included)
# make lint    ruff and mypy
# make train   train the shipped model again (resumes where it stopped)
# make scales  train models of one, two and three stages, after `make train`, and compare them
# make bench   time edits on this machine
# make load    keep the page busy with 16 sessions for three minutes; prints its figures
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --root-user-action ignore

.PHONY: demo test lint train scales bench load clean

demo: $(VENV)/.runtime
	$(BIN)/python app.py

test: lint
	chromium=$$(PATH="$(abspath $(BIN)):$$PATH" scripts/chromium.sh) && \
	    IMAGEBART_CHROMIUM="$$chromium" $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.everything
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

train: $(VENV)/.everything
	set -e; for job in first-stage:first-stage first-stage:decoder \
	    first-stage:decoder256-first first-stage:decoder256 captions:captions captions:words stage:clean stage:stage2 stage:stage1 \
	    stage:stage2-on stage:stage1-on; do \
	    part=$${job#*:}; \
	    $(BIN)/python -m imagebart train $${job%:*} --config configs/avatars-$$part.json --run runs/avatars/$$part; \
	done
	$(BIN)/python -m imagebart train assemble --config configs/avatars.json --out checkpoints/avatars

scales: $(VENV)/.everything
	set -e; for part in 1-stage1 2-stage2 2-stage1 3-stage3 3-stage2 3-stage1; do \
	    $(BIN)/python -m imagebart train stage --config configs/scales/$$part.json --run runs/scales/$$part; \
	done; \
	for model in 1 2 3; do \
	    $(BIN)/python -m imagebart train assemble --config configs/scales/$$model.json --out runs/scales/$$model; \
	done
	$(BIN)/python -m imagebart evaluate scales --models runs/scales/1 runs/scales/2 runs/scales/3 --samples 60 \
	    --picture assets/scales.png --out runs/scales/figures.json

bench: $(VENV)/.everything
	$(BIN)/python -m imagebart bench

load: $(VENV)/.everything
	$(BIN)/python -m pytest -m load -s tests/load

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once; a changed requirement runs pip again.
$(VENV)/.runtime: $(VENV)/pyvenv.cfg requirements.txt
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.everything: $(VENV)/.runtime pyproject.toml
	$(PIP) -e ".[dev,train,eval,mcp]"
	@touch $@
