# `make all` installs affect, trains on the demo data and writes a report. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
AFFECT := $(BIN)/affect
# One test process more than cores: some tests wait for other processes.
JOBS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))

# Without DATA=, the demo data is used.
DATA ?= demo
WORK ?= work
RUN ?= default
# Quotes a value as one word of the shell.
q = '$(subst ','\'',$(1))'
FERPLUS ?= $(shell [ ! -d $(call q,$(DATA)/ferplus) ] || printf %s $(call q,$(DATA)/ferplus))
ifeq ($(DATA),demo)
DEMO := demo/.drawn
FERPLUS := demo/ferplus
endif

LEARN = --work $(call q,$(WORK)) $(if $(CONFIG),--config $(call q,$(CONFIG))) \
	$(foreach setting,$(SET),--set $(call q,$(setting)))
READ = --data $(call q,$(DATA)) $(LEARN)
SPREAD = $(if $(WORKERS),--workers $(WORKERS)) $(if $(SCHEDULER),--scheduler $(call q,$(SCHEDULER)))
# Exit code 3: some inputs could not be used and were listed. All others were processed.
PARTLY = || { code=$$?; [ $$code -eq 3 ] || exit $$code; }

.PHONY: all audit extract-frames pretrain adapt cache-features train evaluate predict report \
	install test quick check format pictures screenshots docs bench real ablation torture constraints clean help

all: $(AFFECT) $(DEMO)  ## Install and run every stage, up to the report. DATA= FERPLUS= WORK= CONFIG= WORKERS= SET=
	@$(AFFECT) all $(READ) $(SPREAD) --run $(call q,$(RUN)) $(if $(FERPLUS),--ferplus $(call q,$(FERPLUS))) $(PARTLY)

audit: $(AFFECT) $(DEMO)  ## List the data and its problems
	@$(AFFECT) audit $(READ) $(PARTLY)

extract-frames: $(AFFECT) $(DEMO)  ## Store the frames of the videos
	@$(AFFECT) extract-frames $(READ) $(SPREAD) $(PARTLY)

pretrain: $(AFFECT) $(DEMO)  ## Train the STN on boxes and the backbone on FER+
	@$(AFFECT) pretrain stn $(READ) $(PARTLY)
	@$(if $(FERPLUS),$(AFFECT) pretrain backbone --ferplus $(call q,$(FERPLUS)) $(LEARN) $(PARTLY),\
		echo "FERPLUS= is not given: the backbone is not pretrained")

adapt: $(AFFECT) $(DEMO)  ## Fine-tune the backbone on training frames
	@$(AFFECT) adapt $(READ) $(PARTLY)

cache-features: $(AFFECT) $(DEMO)  ## Compute the features of all frames
	@$(AFFECT) cache-features $(READ) $(SPREAD) $(PARTLY)

train: $(AFFECT) $(DEMO)  ## Train the head on features. RUN=name
	@$(AFFECT) train $(READ) --run $(call q,$(RUN)) $(PARTLY)

evaluate: $(AFFECT) $(DEMO)  ## Compute metrics on the validation split. RUN=name
	@$(AFFECT) evaluate $(READ) --run $(call q,$(RUN)) $(PARTLY)

predict: $(AFFECT)  ## Predict VIDEO= with the base model or MODEL=, write to OUT=
	@$(if $(VIDEO),,$(error make predict needs VIDEO=, for example VIDEO=talk.mp4))
	@$(AFFECT) predict $(call q,$(VIDEO)) $(if $(MODEL),--model $(call q,$(MODEL))) --out $(call q,$(or $(OUT),out))

report: $(AFFECT)  ## Write the HTML report of WORK
	@$(AFFECT) report $(LEARN)

demo/.drawn: | $(AFFECT)
	@$(AFFECT) demo-data demo
	@touch $@

install: $(AFFECT)  ## Install affect into .venv

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
		fi; \
	done; echo "error: affect needs Python 3.11 or later. Install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1

$(AFFECT): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing affect and its dependencies into $(VENV); this may take minutes, because torch is large"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing affect, its dependencies and those of its tests into $(VENV); this may take minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/affect  # where basedpyright finds the package
	@touch $(AFFECT) $@

# A worker runs whole files, so fixtures are created once. tests/conftest.py puts the longest files first.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.dev  ## Run the quick tests. TESTS=path for one file or folder
	@$(PYTEST) -m 'not slow' $(TESTS)

test: $(VENV)/.dev  ## Run all tests. TESTS=path for one file or folder, JOBS=2 for two processes
	@$(PYTEST) $(TESTS)

check: $(VENV)/.dev  ## Check style and types of the Python code, and the JavaScript
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/oxlint --quiet pipeline/visualization/web

format: $(VENV)/.dev  ## Fix style with ruff
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

ablation: all  ## Measure the effect of each choice, update docs/ablation.md. Takes most of an hour on 2 cores. SEEDS=3
	@$(BIN)/python benchmarks/ablation/ablation.py --data $(call q,$(DATA)) --work $(call q,$(WORK)) $(if $(SEEDS),--seeds $(SEEDS))

pictures: $(AFFECT)  ## Copy pictures for the docs from the report of WORK; with VIDEO= also those of predict
	@mkdir -p docs/images && cp $(call q,$(WORK)/report/stn.png) $(call q,$(WORK)/report/truth.png) docs/images/
	@$(if $(VIDEO),$(BIN)/python tools/pictures.py $(call q,$(VIDEO)) $(call q,$(or $(MODEL),base)) docs/images)

docs: $(VENV)/.dev  ## Generate the reference pages, and build the site into site/
	@$(BIN)/python tools/make_reference.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && echo "site/index.html"

screenshots: $(VENV)/.dev  ## Take the picture for the README from the report of WORK, with headless Chromium
	@$(BIN)/python tools/screenshots.py $(call q,$(WORK)/report/index.html) $(call q,$(WORK)/report/screenshots)
	@mkdir -p docs/images && cp $(call q,$(WORK)/report/screenshots/report.png) docs/images/

bench: $(VENV)/.dev  ## Measure the speed: ratios to the limit of the libraries and to a simple script. PARTS="extract cache head epoch memory predict start profile compile training peers"
	@$(BIN)/python -m affect.benchmarks.speed $(PARTS) --out $(call q,$(WORK)/speed.json)

real: $(AFFECT)  ## Measure the base model on real faces, from ../shared/data or REAL=
	@$(BIN)/python benchmarks/real.py $(if $(REAL),--data $(call q,$(REAL))) --out $(call q,$(WORK)/real)
	@$(BIN)/python benchmarks/stn_real.py $(if $(REAL),--data $(call q,$(REAL))) --sheets $(call q,$(WORK)/real)

torture: $(VENV)/.dev $(DEMO)  ## Test with damaged files and killed runs. SHARE=0.01 runs a hundredth
	@$(BIN)/python -m affect.benchmarks.torture --share $(or $(SHARE),1) --demo $(call q,$(DATA))

constraints: $(VENV)/.dev  ## Write the installed versions to constraints.txt
	@{ head -n 1 constraints.txt; $(BIN)/pip freeze --exclude affect-video \
		| grep -E '^[A-Za-z0-9_.-]+==' | grep -viE '^(nvidia|cuda|triton)'; } > constraints.new
	@mv constraints.new constraints.txt

clean:  ## Delete work/ and demo/
	rm -rf work demo

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18
