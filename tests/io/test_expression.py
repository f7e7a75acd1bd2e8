"""Expression is read from matrices and quantifications, and meets the genes of an annotation."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from candi_cli.errors import AnnotationError
from candi_cli.io.expression import match_genes, read_expression
from candi_cli.io.genes import Genes, read_genes

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
MATRIX = "gene_id\tgene_name\tE003\tE116\nENSG00000000011.5\tALPHA\t1.5\t0\nENSG00000000022.1\tBETA\t0\t2e3\n"
RSEM = (
    "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
    "ENSG00000000011.5\tENST1,ENST2\t1000.00\t900.00\t10.00\t1.50\t2.00\n"
    "10904\t10904\t93.00\t0.00\t0.00\t0.00\t0.00\n"
)


def written(folder: Path, text: str, name: str = "rna.tsv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def genes_of(gene_id: list[str], gene_name: list[str]) -> Genes:
    n = len(gene_id)
    start = np.arange(n) * 1_000
    return Genes(
        np.array(gene_id), np.array(gene_name), np.full(n, "chr1"), start, start + 500, np.full(n, "+"),
    )  # fmt: skip


def test_a_matrix_is_read_and_columns_that_name_genes_are_no_samples(tmp_path):
    expression = read_expression(written(tmp_path, MATRIX))
    assert expression.gene.tolist() == ["ENSG00000000011.5", "ENSG00000000022.1"]
    assert expression.sample.tolist() == ["E003", "E116"]
    assert expression.values.tolist() == [[1.5, 0.0], [0.0, 2000.0]]
    assert expression.values.dtype == np.float64


def test_of_a_quantification_tpm_is_read(tmp_path):
    expression = read_expression(written(tmp_path, RSEM, "ENCFF000AAA.tsv"))
    assert (expression.sample.tolist(), expression.values.tolist()) == (["ENCFF000AAA"], [[1.5], [0.0]])


def test_two_columns_need_no_header(tmp_path):
    path = tmp_path / "K562.ENCFF1.tsv.gz"
    path.write_bytes(gzip.compress(b"10904\t0.0\nENSG00000000011.5\t0.25\n"))
    expression = read_expression(path)
    assert expression.gene.tolist() == ["10904", "ENSG00000000011.5"]
    assert (expression.sample.tolist(), expression.values.tolist()) == (["K562.ENCFF1"], [[0.0], [0.25]])


def test_a_table_by_names_is_read(tmp_path):
    expression = read_expression(written(tmp_path, "Gene_Name\tliver\nALPHA\t1\n"))
    assert (expression.gene.tolist(), expression.sample.tolist()) == (["ALPHA"], ["liver"])


@pytest.mark.parametrize(
    ("text", "place", "fact"),
    [
        ("", "", "empty"),
        ("E003\tE116\nA\t1\n", "", "no column of genes"),
        ("gene_id\tgene_name\nA\tB\n", "", "no column of expression"),
        ("gene_id\tE003\n", "", "no gene below its header"),
        (MATRIX.replace("E116", "E003"), "", "two columns are named E003"),
        (MATRIX.replace("2e3", "-2"), ":3", "-2 is negative"),
        (MATRIX.replace("2e3", "nan"), ":3", "'nan' is not a number"),
        (MATRIX.replace("2e3", "NA"), ":3", "'NA' is not a number"),
        (MATRIX.replace("2e3", "inf"), ":3", "'inf' is not a number"),
        (MATRIX.replace("\t2e3", ""), ":3", "3 fields, at least 4 are needed"),
        (MATRIX.replace("22.1", "11.6"), ":3", "ENSG00000000011.6 is on line 2 too"),
        (RSEM.replace("\t1.50", "\tx"), ":2", "'x' is not a number"),
    ],
)
def test_what_is_no_expression_is_refused_in_a_line_with_its_place(text, place, fact, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(AnnotationError) as refusal:
        read_expression(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}{place}: ")
    assert fact in message
    assert ";" in message
    assert "\n" not in message


def test_genes_meet_by_identifier_whatever_its_version_else_by_name(tmp_path):
    text = "gene_id\tE003\nENSG00000000022\t1\nALPHA\t2\nENSG00000000099.1\t3\nGAMMA\t4\n"
    genes = genes_of(
        ["ENSG00000000011.5", "ENSG00000000022.1", "ENSG00000000033.1", "ENSG00000000044.1"],
        ["ALPHA", "BETA", "GAMMA", "GAMMA"],
    )
    matched = match_genes(genes, read_expression(written(tmp_path, text)), annotation="genes", table="rna")
    assert (matched.genes.tolist(), matched.expression.tolist()) == ([0, 1], [1, 0])  # GAMMA could be either


def test_no_gene_in_common_is_refused(tmp_path):
    expression = read_expression(written(tmp_path, MATRIX))
    with pytest.raises(
        AnnotationError, match=r"rna\.tsv: none of its genes \(such as ENSG00000000011\.5\) is in g\.gtf"
    ):
        match_genes(genes_of(["YAL001C"], ["TFC3"]), expression, annotation="g.gtf", table="rna.tsv")


@pytest.mark.real_data
def test_roadmap_holds_the_pilot_genes():
    pilot = read_genes(REAL_DATA / "rna/genes_in_pilot_regions.hg19.tsv")
    expression = read_expression(REAL_DATA / "rna/roadmap57.RPKM.clean.tsv.gz")
    assert expression.values.shape == (19_795, 57)
    matched = match_genes(pilot, expression, annotation="pilot", table="Roadmap")
    assert len(matched.genes) == 353
    assert (pilot.gene_id[matched.genes] == expression.gene[matched.expression]).all()
