# make demo   install into .venv and denoise the test data with the default model
# make test   install into .venv and run every check
# make man    write the man pages anew
# make default-model   train the model that ships with the package, from the real data in the folder DATA
# make bench   score it beside simple smoothing, on the real data
# make bench-bin   time `candi bin` beside samtools, mosdepth and bamCoverage, where they are installed

PYTHON ?= python3.11
VENV ?= .venv
DATA ?= ../shared/data
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test man default-model bench bench-bin clean

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
build/default_model/%.h5: packaging/default_model/%.tsv $(STAMP)
	mkdir -p $(@D)
	cd $(DATA) && $(abspath $(BIN))/candi bin --covariates $(abspath $<) --keep-dup 1 -o $(abspath $@)

default-model: build/default_model/k562.h5 build/default_model/imr90.h5
	$(BIN)/candi train $^ -o candi_cli/models/default.safetensors \
	    -r chr1:22,500,001-24,100,000 -r chr21:43,000,001-48,100,000 \
	    --preset base --steps 4500 --batch-size 4 --learning-rate 2e-3 \
	    --loss-weights count=1,signal=0.2,peak=0.1,observed=1,imputed=0.25,beta=1.5 --seed 0 -@ 1 --device cpu \
	    --log build/default_model/train.log.tsv

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/denoise_real.py --data $(DATA)

bench-bin: $(STAMP)
	$(BIN)/python tests/benchmarks/bin.py

clean:
	rm -rf $(VENV) demo_out
