# make demo   install into .venv and denoise the test data with the default model
# make test   install into .venv and run every check
# make man    write the man pages anew
# make default-model   train the model that ships with the package, from the real data in DATA

PYTHON ?= python3.11
VENV ?= .venv
DATA ?= ../shared/data
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test man default-model bench clean

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

default-model: $(STAMP)
	$(BIN)/python -m candi_cli.models.train_default --data $(DATA)

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/denoise_real.py --data $(DATA)

clean:
	rm -rf $(VENV) demo_out
