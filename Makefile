# Set-up, run and test on a fresh machine with Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := smollm2-135m-instruct
SAE    := $(MODEL)-blocks.15.hook_resid_post
PORT   ?= 8501
JOBS   ?= 2

.PHONY: setup model run test check bench screenshots story demo-sae chromium clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

model: setup
	$(BIN)/python -m app models fetch $(MODEL)

run: model
	$(BIN)/python -m app example
	$(BIN)/streamlit run app/main.py --server.port $(PORT)

test: $(VENV)/.ready-dev model chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" -n $(JOBS) --dist loadfile
	$(BIN)/python -m pytest -m browser

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-dev model
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.ready-dev model chromium
	$(BIN)/python -m docs.screenshots
	$(BIN)/python -m docs.set_screenshots

story: $(VENV)/.ready-dev model chromium
	$(BIN)/python -m docs.story

demo-sae: $(VENV)/.ready-dev model
	$(BIN)/python -m probes.saes.train --out probes/saes/$(SAE)
	$(BIN)/python -m app sae index $(SAE) --tokens 300000 --export --store :memory:

# Browser tests need a Chromium, one of them pdftotext. CI installs Debian's; elsewhere what is absent is skipped and said so.
chromium:
	@{ command -v chromium && command -v pdftotext; } >/dev/null || { [ "$$CI" = true ] && apt-get update -qq && apt-get install -y -qq chromium poppler-utils >/dev/null; } \
		|| echo "chromium or pdftotext is not installed: browser tests will be skipped (apt-get install chromium poppler-utils)"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
