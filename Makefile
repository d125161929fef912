# make demo    install what the page needs, start it
# make test    install everything, lint, run all tests (the browser's included)
# make lint    ruff, mypy, and which room knows which
# make train   train the shipped model again (resumes where it stopped)
# make bench   time edits on this machine
# make load    keep the page busy with 16 sessions for three minutes; prints its figures; then paint in haste
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --root-user-action ignore

.PHONY: demo test lint train bench load clean

demo: $(VENV)/.runtime
	$(BIN)/python app.py

test: lint
	chromium=$$(PATH="$(abspath $(BIN)):$$PATH" scripts/chromium.sh) && \
	    IMAGEBART_CHROMIUM="$$chromium" $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.everything
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

train: $(VENV)/.everything
	set -e; for job in first-stage:first-stage first-stage:decoder first-stage:decoder256-first first-stage:decoder256 captions:captions \
	    captions:words denoiser:denoiser-anew reader:judge; do \
	    part=$${job#*:}; \
	    $(BIN)/python -m imagebart train $${job%:*} --config configs/avatars-$$part.json --run runs/avatars/$$part; \
	done
	$(BIN)/python -m imagebart train assemble --config configs/avatars.json --out checkpoints/avatars

bench: $(VENV)/.everything
	$(BIN)/python -m imagebart bench

load: $(VENV)/.everything
	chromium=$$(PATH="$(abspath $(BIN)):$$PATH" scripts/chromium.sh) && \
	    IMAGEBART_CHROMIUM="$$chromium" $(BIN)/python -m pytest -m load -s tests/load tests/browser/test_masks_kept.py

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
