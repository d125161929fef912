# make demo    install what the page needs, start it
# make test    install everything, lint, run all tests (the browser's included)
# make release what else is tested before a version: the wheel, hosting, devices, full size, recipes, random input
# make lint    ruff, mypy, and which package imports which
# make train   train the model of avatars again (resumes where it stopped)
# make photos  train a model of photographs of flowers, fruit and vegetables (resumes where it stopped)
# make things  train a model of everyday things (resumes where it stopped; the artwork is fetched with npm)
# make paper   the paper's claim in small: chains of stages beside one left-to-right transformer (resumes; four hours, two cores)
# make bench   time edits on this machine
# make load    keep the page busy with 16 sessions for three minutes; prints its figures; then paint and cancel quickly, and at random
# make soak    the same for ten minutes: memory and files do not pile up (SOAK=60 for a minute, files only)
# make fuzz    random and hostile input for minutes, from a seed that it prints (SEED=7 starts from 7)
PYTHON ?= python3
SOAK ?= 600
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --root-user-action ignore

.PHONY: demo test release lint train things photos paper bench load soak fuzz clean

demo: $(VENV)/.runtime
	$(BIN)/python app.py

PYTEST = chromium=$$(PATH="$(abspath $(BIN)):$$PATH" scripts/chromium.sh) && IMAGEBART_CHROMIUM="$$chromium" $(BIN)/python -m pytest

test: lint
	$(PYTEST) -n 2 --dist loadgroup --no-loadscope-reorder

release: fuzz
	$(PYTEST) -n 2 --dist loadgroup --no-loadscope-reorder -m release

lint: $(VENV)/.everything
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

# Large pages of memory, where the C library knows of them (docs/own-images.md).
train things photos: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296

train: $(VENV)/.everything
	set -e; for job in first-stage:first-stage first-stage:decoder first-stage:decoder256-first first-stage:decoder256 \
	    first-stage:decoder256-further first-stage:decoder256-last captions:captions \
	    classifier:scorer denoiser:denoiser denoiser:denoiser-edits; do \
	    part=$${job#*:}; \
	    $(BIN)/python -m recipes.avatars train $${job%:*} --config recipes/avatars/configs/$$part.json --run runs/avatars/$$part; \
	done
	$(BIN)/python -m recipes.avatars assemble --config recipes/avatars/configs/model.json --out checkpoints/avatars
	cp runs/avatars/captions/heads.safetensors checkpoints/avatars
	cp runs/avatars/scorer/attribute_classifier.safetensors checkpoints/avatars

things: $(VENV)/.everything
	set -e; for job in first-stage:first-stage first-stage:decoder denoiser:denoiser detector:detector; do \
	    part=$${job#*:}; \
	    $(BIN)/python -m recipes.things train $${job%:*} --config recipes/things/configs/$$part.json --run runs/things/$$part; \
	done
	$(BIN)/python -m recipes.things assemble --config recipes/things/configs/model.json --out checkpoints/things
	cp runs/things/detector/detector.safetensors checkpoints/things
	$(BIN)/python -m recipes.things examples --out checkpoints/things/examples

runs/still-life/pictures/metadata.jsonl: | $(VENV)/.everything
	$(BIN)/python -m recipes.still_life.photographs runs/still-life/pictures

PHOTOS := recipes/still_life/configs
photos: runs/still-life/pictures/metadata.jsonl
	$(BIN)/python -m imagebart train model --config $(PHOTOS)/from-scratch.json --out runs/still-life/from-scratch
	$(BIN)/python -m imagebart train model --config $(PHOTOS)/further.json --out runs/still-life/model
	$(BIN)/python -m imagebart evaluate folder --model runs/still-life/model --work runs/still-life/evaluation \
	    --seed 733331 --out runs/still-life/figures.json

paper: runs/still-life/pictures/metadata.jsonl
	$(MAKE) -j 2 runs/paper/photographs/figures.md runs/paper/avatars/figures.md

runs/paper/%/figures.md: recipes/paper/configs/%.json | $(VENV)/.everything
	OMP_NUM_THREADS=1 $(BIN)/python -m recipes.paper train $< $(@D)
	OMP_NUM_THREADS=1 $(BIN)/python -m recipes.paper evaluate $< $(@D)

bench: $(VENV)/.everything
	$(BIN)/python scripts/bench.py --scales 1 2 4

load: $(VENV)/.everything
	$(PYTEST) -m load -s -k "not soak"

soak: $(VENV)/.everything
	SOAK=$(SOAK) $(BIN)/python -m pytest -m load -s tests/load -k soak

fuzz: $(VENV)/.everything
	seed=$${SEED:-$$(date +%s)}; echo "seed $$seed: make fuzz SEED=$$seed does the same again"; \
	    $(BIN)/python -m pytest -m fuzz -n 2 --hypothesis-seed=$$seed tests/fuzz

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once; a changed requirement runs pip again.
$(VENV)/.runtime: $(VENV)/pyvenv.cfg requirements.txt
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	@touch $@

$(VENV)/.everything: $(VENV)/.runtime pyproject.toml
	$(PIP) -e ".[dev,train,eval,mcp,onnx]"
	@touch $@
