# make demo   install into .venv and denoise the test data with the model counts-core
# make test   install into .venv and run every check
# make man    write the man pages anew
# make models   train the models that ship with the package, from the real data in the folder DATA
# make bench   score the one that reads counts beside simple smoothing, on the real data
# make bench-real   score both on the rows that they never saw, into build/bench_real
# make bench-bin   time `candi bin` beside samtools, mosdepth and bamCoverage, where they are installed

PYTHON ?= python3.11
VENV ?= .venv
DATA ?= ../shared/data
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test man models counts-core signal-core bench bench-real bench-bin clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)
	mkdir -p demo_out
	$(BIN)/candi denoise test_data/sim1.H3K4me3.bam --covariates test_data/meta.tsv -o demo_out/denoised.bw
	@echo
	@echo "demo_out/denoised.bw holds the expected reads per 25 bp bin at the model's standard depth."
	@echo "Look at it in a genome browser beside the reads, for example in IGV:"
	@echo "  genome test_data/genome.fa.gz, tracks demo_out/denoised.bw and test_data/sim1.H3K4me3.bam"

test: $(STAMP)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadscope

man: $(STAMP)
	$(BIN)/python man/make.py

# the stores are made where the data lie, so that the sheets can name the files relative to DATA
build/models/%.h5: packaging/models/%.tsv $(STAMP)
	mkdir -p $(@D)
	cd $(DATA) && $(abspath $(BIN))/candi bin --covariates $(abspath $<) $(BINNED) -o $(abspath $@)

build/models/k562.h5 build/models/imr90.h5: BINNED = --count midpoint --shift 75,-75 --keep-dup 1
build/models/roadmap.h5: BINNED = -g ref/annot/hg19.chrom.sizes

models: counts-core signal-core

counts-core: build/models/k562.h5 build/models/imr90.h5
signal-core: build/models/roadmap.h5
counts-core signal-core:
	$(BIN)/candi train $^ --config packaging/models/$@.toml -o candi_cli/models/$@.safetensors \
	    --log build/models/$@.log.tsv

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/real --data $(DATA) --shipped --seeds 1 --only R2

bench-real: $(STAMP)
	$(BIN)/python tests/benchmarks/real --data $(DATA) -o build/bench_real

bench-bin: $(STAMP)
	$(BIN)/python tests/benchmarks/bin.py

clean:
	rm -rf $(VENV) demo_out
