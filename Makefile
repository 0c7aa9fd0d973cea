# `make demo` and `make test` need only Python >= 3.10, make and a package index; they make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help demo test lint wheel-check bench accuracy train-default release clean

help:
	@awk -F ':.*## ' '/^##@ / { print substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

# torch goes first and alone: with its version pinned, pip takes the CPU build where the index offers one.
$(VENV)/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "dhm needs Python 3.10 or newer; name one with: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt \
		--editable '.[heic,parquet,video]' mypy pandas pytest pytest-xdist ruff
	@touch $@

##@ To see it work
demo: $(VENV)/.installed ## Landmarks of photos and of a short video, and a page
	@rm -rf demo/landmarks.csv.partial demo/faces.html.partial demo/video.csv.partial* demo/video.mp4.partial
	$(BIN)/dhm align sample_data/photos --out demo/landmarks.csv --overlay demo/overlays --gallery demo/faces.html
	$(BIN)/dhm align sample_data/faces.mp4 --out demo/video.csv --overlay demo/video.mp4
	@echo "landmarks: demo/landmarks.csv, demo/video.csv"
	@echo "pictures:  demo/overlays, demo/video.mp4"
	@echo "to look at, in a browser: demo/faces.html"

##@ To check it
test: $(VENV)/.installed ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed ## Check style and types
	$(BIN)/ruff check dhm_cli tests
	$(BIN)/ruff format --check dhm_cli tests
	$(BIN)/mypy

wheel-check: $(VENV)/.installed ## Build the wheel and use it away from the source
	rm -rf $(VENV)/wheel && mkdir -p $(VENV)/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VENV)/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/wheel/site $(VENV)/wheel/*.whl
	cd $(VENV)/wheel && export PYTHONPATH=site && ../bin/python -m dhm_cli doctor && \
		../bin/python -c "import dhm_cli; assert 'wheel' in dhm_cli.__file__"

##@ To measure and train
bench: $(VENV)/.installed ## Measure speed: networks, photos, folders, two processes
	$(BIN)/dhm benchmark --device cpu --threads 1 --level network --level crop --level photo --level folder \
		--processes 2 --json bench/speed.json --plot bench/speed.png

# The shipped networks anew, from a folder with the data that their model cards name: two rounds of a network and better
# labels, then the networks, and what they know about their own errors. A training that was stopped goes on where it was.
DATA ?= data-source
WORK ?= train-default
ROUND_STEPS ?= 15000
FINAL_STEPS ?= 50000
TINY_STEPS ?= 15000
DOUBTS_STEPS ?= 3000
# Where on a face a landmark lies is the convention of 300W-LP, as the prior has it; people put eyes and noses elsewhere.
follow := $(foreach part,jaw brows nose eyes mouth,--follow-prior $(part))
# name, folder, its part, options
prepare = $(BIN)/dhm prepare $(DATA)/$(2)/$(3) --name $(1) --bfm $(DATA)/bfm/BFM68.mat --out $(WORK)/prepared $(4)
resumed = $$(test ! -e $(WORK)/$(1)/state.safetensors || echo --resume)
# run folder, architecture, steps, folder of labels, options
train = $(BIN)/dhm train --arch $(2) --steps $(3) --validate-every 1000 --out $(WORK)/$(1) $(5) \
	--data $(WORK)/$(4)/merl.h5 --data $(WORK)/$(4)/extra.h5=0.8 --data $(WORK)/$(4)/cfp.h5=0.6 \
	--data $(WORK)/$(4)/lfw.h5=0.3 --data $(WORK)/$(4)/ytf.h5=0.35 --data $(WORK)/$(4)/w300.h5=0.6 $(call resumed,$(1))
relabel = $(BIN)/dhm relabel --model $(WORK)/$(1)/best.safetensors --out $(WORK)/$(2) $(follow) --trust ytf=0.5 \
	$(WORK)/prepared/merl.h5=$(DATA)/aflw_merl68/teacher68.npz \
	$(WORK)/prepared/extra.h5=$(DATA)/aflw_extra/teacher68.npz $(WORK)/prepared/cfp.h5=$(DATA)/cfp/teacher68.npz \
	$(WORK)/prepared/lfw.h5=$(DATA)/lfw_extra/teacher68.npz $(WORK)/prepared/ytf.h5 $(WORK)/prepared/w300.h5
likelihood = printf '[network]\nuncertainty = true\n[training]\nloss = "likelihood"\n' > $(WORK)/likelihood.toml
doubts = printf '[network]\nuncertainty = true\n[training]\nlearned = "doubts"\nnot_face_share = 0.25\n\
optimiser = "adamw"\n\
[training.augmentation]\nsurround = 0.1\ncover = 0.1\n' > $(WORK)/doubts.toml
export = $(BIN)/dhm export --model $(WORK)/$(1)/best.safetensors --precision float16 --out $(WORK)/$(1).safetensors && \
	$(BIN)/dhm export --model $(WORK)/$(1).safetensors --precision float16 --out $(WORK)/$(1).onnx --data $(WORK)/$(2)/merl.h5

train-default: $(VENV)/.installed ## Train the shipped networks (hours); DATA=folder
	$(call prepare,merl,aflw_merl68,faces,--prior $(DATA)/aflw_merl68/teacher68.npz --table $(DATA)/aflw_merl68/faces.csv \
		--self-occlusion)
	$(call prepare,extra,aflw_extra,faces,--prior $(DATA)/aflw_extra/teacher68.npz --split train \
		--points $(DATA)/aflw_extra/labels21.npz)
	$(call prepare,cfp,cfp,faces,--prior $(DATA)/cfp/teacher68.npz --split train)
	$(call prepare,lfw,lfw_extra,faces,--prior $(DATA)/lfw_extra/teacher68.npz --split train)
	$(call prepare,ytf,ytf68,train,--split train)
	$(BIN)/python tests/photo_split.py $(DATA)/w300/faces.csv $(WORK)/w300.csv
	$(call prepare,w300,w300,faces,--table $(WORK)/w300.csv)
	$(call train,round1,fast-x2,$(ROUND_STEPS),prepared)
	$(call relabel,round1,labels1)
	$(call train,round2,fast-x2,$(ROUND_STEPS),labels1,--init $(WORK)/round1/best.safetensors)
	$(call relabel,round2,labels2)
	$(likelihood)
	$(call train,fast,fast,$(FINAL_STEPS),labels2,--config $(WORK)/likelihood.toml)
	$(call train,fast-x2,fast-x2,$(FINAL_STEPS),labels2,--config $(WORK)/likelihood.toml \
		--init $(WORK)/round2/best.safetensors)
	$(call train,tiny,tiny,$(TINY_STEPS),labels2)
	$(doubts)
	$(call train,fast-doubts,fast,$(DOUBTS_STEPS),labels2,--init $(WORK)/fast/best.safetensors \
		--config $(WORK)/doubts.toml --not-faces $(DATA)/not_faces)
	$(call train,fast-x2-doubts,fast-x2,$(DOUBTS_STEPS),labels2,--init $(WORK)/fast-x2/best.safetensors \
		--config $(WORK)/doubts.toml --not-faces $(DATA)/not_faces)
	$(call export,tiny,labels2)
	$(call export,fast-doubts,labels2)
	$(call export,fast-x2-doubts,labels2)

# The accuracy figures of the README and the model cards, from the folder of data that the cards name; minutes.
MEASURED := accuracy
score = $(BIN)/dhm evaluate --model $(1) --data $(MEASURED)/labels/$(4).h5 --report $(MEASURED)/$(2) $(3)
source = $(BIN)/dhm prepare $(DATA)/$(2)/faces --name $(1) --bfm $(DATA)/bfm/BFM68.mat --out $(MEASURED)/prepared $(3)

accuracy: $(VENV)/.installed ## Measure the accuracy that the docs tell; DATA=folder
	test -e $(MEASURED)/labels/w300.h5 || { $(call source,merl,aflw_merl68,--prior $(DATA)/aflw_merl68/teacher68.npz \
		--table $(DATA)/aflw_merl68/faces.csv --self-occlusion) && \
		$(BIN)/python tests/photo_split.py $(DATA)/w300/faces.csv $(MEASURED)/w300.csv && \
		$(call source,w300,w300,--table $(MEASURED)/w300.csv) && \
		$(BIN)/dhm relabel --model fast-x2 --out $(MEASURED)/labels $(follow) \
		$(MEASURED)/prepared/merl.h5=$(DATA)/aflw_merl68/teacher68.npz $(MEASURED)/prepared/w300.h5; }
	$(call score,fast,fast,--not-faces $(DATA)/not_faces,merl)
	$(call score,fast-x2,fast-x2,--against fast --not-faces $(DATA)/not_faces,merl)
	$(call score,fast,fast-detector,--protocol detector --not-faces $(DATA)/not_faces,merl)
	$(call score,fast-x2,fast-x2-detector,--protocol detector --not-faces $(DATA)/not_faces,merl)
	$(call score,fast,fast-jitter,--protocol jitter,merl)
	$(call score,fast-x2,fast-x2-jitter,--protocol jitter,merl)
	$(call score,fast,fast-roll,--protocol roll,w300)
	$(call score,fast-x2,fast-x2-roll,--protocol roll,w300)
	$(call score,fast,fast-w300,,w300)
	$(call score,fast-x2,fast-x2-w300,--against fast,w300)
	$(BIN)/python tests/human_points.py $(MEASURED)/prepared/merl.h5 $(MEASURED)/fast $(MEASURED)/fast-x2
	$(BIN)/python tests/human_points.py $(MEASURED)/prepared/w300.h5 $(MEASURED)/fast-w300 $(MEASURED)/fast-x2-w300

##@ To pass it on
release: ## Build wheel and sdist in dist/, and check both
	rm -rf dist $(VENV)/release
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check build check-wheel-contents twine
	$(VENV)/release/bin/python -m build
	$(VENV)/release/bin/twine check --strict dist/*
	$(VENV)/release/bin/check-wheel-contents dist/*.whl
	@ls -l dist

clean: ## Remove what make made
	rm -rf $(VENV) accuracy demo bench .pytest_cache .mypy_cache .ruff_cache dist
