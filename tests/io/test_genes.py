"""Genes are the same whatever file they are in."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from candi_cli.errors import AnnotationError
from candi_cli.io.genes import Genes, read_genes, unversioned

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
GENCODE_GTF = """##description: evidence-based annotation
chr1\tHAVANA\tgene\t101\t2000\t.\t+\t.\tgene_id "ENSG00000000011.5"; gene_type "protein_coding"; gene_name "ALPHA";
chr1\tHAVANA\ttranscript\t101\t2000\t.\t+\t.\tgene_id "ENSG00000000011.5"; transcript_id "ENST00000000001.1"; gene_type "protein_coding"; gene_name "ALPHA";
chr1\tHAVANA\texon\t101\t300\t.\t+\t.\tgene_id "ENSG00000000011.5"; transcript_id "ENST00000000001.1"; gene_type "protein_coding"; gene_name "ALPHA"; note "gene\tx";
chr1\tHAVANA\tgene\t3001\t3400\t.\t-\t.\tgene_id "ENSG00000000022.1"; gene_type "lncRNA"; gene_name "LINC1";
chr2\tENSEMBL\tgene\t1\t500\t.\t-\t.\tgene_id "ENSG00000000033.12_PAR_Y"; gene_type "protein_coding"; gene_name "BETA";
"""  # noqa: E501
ENSEMBL_GTF = """#!genome-build GRCh38
1\thavana\tgene\t101\t2000\t.\t+\t.\tgene_id "ENSG00000000011"; gene_version "5"; gene_name "ALPHA"; gene_source "havana"; gene_biotype "protein_coding";
1\thavana\tgene\t3001\t3400\t.\t-\t.\tgene_id "ENSG00000000022"; gene_version "1"; gene_source "havana"; gene_biotype "lncRNA";
"""  # noqa: E501
ENSEMBL_GFF3 = """##gff-version 3
##sequence-region 1 1 248956422
1\tensembl_havana\tgene\t101\t2000\t.\t+\t.\tID=gene:ENSG00000000011;Name=ALPHA;biotype=protein_coding;gene_id=ENSG00000000011;version=5
1\tensembl_havana\tmRNA\t101\t2000\t.\t+\t.\tID=transcript:ENST00000000001;Parent=gene:ENSG00000000011;biotype=protein_coding
1\thavana\tncRNA_gene\t3001\t3400\t.\t-\t.\tID=gene:ENSG00000000022;biotype=lncRNA;gene_id=ENSG00000000022
"""
REFSEQ_GFF3 = """##gff-version 3
NC_1\tBestRefSeq\tgene\t101\t2000\t.\t+\t.\tID=gene-ALPHA;Dbxref=GeneID:1;Name=ALPHA%2C1;gbkey=Gene;gene=ALPHA;gene_biotype=protein_coding
NC_1\tBestRefSeq\tpseudogene\t3001\t3400\t.\t-\t.\tID=gene-BETAP;Name=BETAP;gene=BETAP;gene_biotype=pseudogene
"""
BED6 = "track name=genes\nchr1\t100\t2000\tALPHA\t0\t+\nchr2\t0\t500\tBETA\t0\t-\n"
TABLE = "gene\tchrom\tstart\tend\tstrand\tregion\nALPHA\tchr1\t100\t2000\t+\tENr1\nBETA\tchr2\t0\t500\t-\tENr2\n"


def written(folder: Path, text: str, name: str = "genes.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows(genes: Genes) -> list[tuple]:
    return list(zip(*(column.tolist() for column in genes), strict=True))


def test_gencode_gtf_is_read(tmp_path):
    assert rows(read_genes(written(tmp_path, GENCODE_GTF))) == [
        ("ENSG00000000011.5", "ALPHA", "chr1", 100, 2000, "+"),
        ("ENSG00000000033.12_PAR_Y", "BETA", "chr2", 0, 500, "-"),
    ]


def test_all_biotypes_are_read_when_asked_for(tmp_path):
    path = written(tmp_path, GENCODE_GTF)
    assert read_genes(path, biotype=None).gene_name.tolist() == ["ALPHA", "LINC1", "BETA"]
    assert read_genes(path, biotype="lncRNA").gene_name.tolist() == ["LINC1"]


def test_ensembl_gtf_is_read_and_a_gene_without_a_name_has_its_identifier(tmp_path):
    assert rows(read_genes(written(tmp_path, ENSEMBL_GTF), biotype=None)) == [
        ("ENSG00000000011", "ALPHA", "1", 100, 2000, "+"),
        ("ENSG00000000022", "ENSG00000000022", "1", 3000, 3400, "-"),
    ]


def test_gff3_of_ensembl_and_gencode_gtf_are_the_same_genes(tmp_path):
    one = read_genes(written(tmp_path, ENSEMBL_GFF3, "a"), biotype=None)
    other = read_genes(written(tmp_path, ENSEMBL_GTF, "b"), biotype=None)
    assert rows(one) == rows(other)


def test_gff3_of_refseq_is_read_and_its_escapes_resolved(tmp_path):
    assert rows(read_genes(written(tmp_path, REFSEQ_GFF3))) == [("ALPHA", "ALPHA,1", "NC_1", 100, 2000, "+")]
    assert read_genes(written(tmp_path, REFSEQ_GFF3), biotype=None).gene_id.tolist() == ["ALPHA", "BETAP"]


def test_bed_and_table_are_the_same_genes(tmp_path):
    expected = [("ALPHA", "ALPHA", "chr1", 100, 2000, "+"), ("BETA", "BETA", "chr2", 0, 500, "-")]
    assert rows(read_genes(written(tmp_path, BED6, "a"))) == expected
    assert rows(read_genes(written(tmp_path, TABLE, "b"))) == expected


@pytest.mark.parametrize("text", [GENCODE_GTF, ENSEMBL_GFF3, BED6, TABLE])
def test_compressed_and_with_windows_line_ends_it_is_the_same(text, tmp_path):
    plain = rows(read_genes(written(tmp_path, text)))
    path = tmp_path / "genes"
    path.write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    assert rows(read_genes(path)) == plain


@pytest.mark.parametrize(
    ("text", "place", "fact"),
    [
        ("", "", "not a file of genes"),
        ("gene_id\tE003\nA\t1\n", "", "not a file of genes"),
        (GENCODE_GTF.replace("\tgene\t", "\tmRNA\t"), "", "no gene features"),
        (GENCODE_GTF.replace("gene_type", "kind"), "", "no gene_type"),
        (GENCODE_GTF.replace("protein_coding", "snRNA"), "", "no gene is protein_coding; its types are lncRNA, snRNA"),
        (GENCODE_GTF.replace("\t101\t2000\t.\t+", "\t2001\t2000\t.\t+"), ":2", "2000-2000 is no interval"),
        (GENCODE_GTF.replace("\t101\t2000", "\t101\tx"), "", "not a file of genes"),
        (GENCODE_GTF.replace("\t1\t500", "\t1\tx"), ":6", "'x' is not a whole number"),
        (GENCODE_GTF.replace("500\t.\t-", "500\t.\t."), ":6", "has no strand"),
        (GENCODE_GTF.replace("gene_id", "identifier"), ":2", "without gene_id or ID"),
        (GENCODE_GTF.replace("33.12_PAR_Y", "11.7"), ":6", "gene ENSG00000000011.7 is on line 2 too"),
        (BED6.replace("BETA", "ALPHA"), ":3", "gene ALPHA is on line 2 too"),
        (BED6.replace("\t-", "\t."), ":3", "'.' is no strand"),
        ("chr1\t100\t2000\n", ":1", "3 fields, at least 6 are needed"),
        (TABLE.replace("\t500", "\t-500"), ":3", "'-500' is not a whole number"),
        (TABLE.replace("\t500\t-\tENr2", ""), ":3", "3 fields, at least 5 are needed"),
        ("gene\tchrom\tstart\tend\tstrand\n", "", "no gene in it"),
    ],
)
def test_what_is_no_gene_is_refused_in_a_line_with_its_place(text, place, fact, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(AnnotationError) as refusal:
        read_genes(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}{place}: ")
    assert fact in message
    assert ";" in message or "types are" in message
    assert "\n" not in message


def test_files_that_cannot_be_read_are_refused(tmp_path):
    damaged = tmp_path / "damaged.gtf.gz"
    damaged.write_bytes(gzip.compress(GENCODE_GTF.encode() * 100)[:-40])
    for path, fact in ((tmp_path / "absent", "no such file"), (tmp_path, "directory"), (damaged, "damaged")):
        with pytest.raises(AnnotationError, match=fact):
            read_genes(path)


@pytest.mark.parametrize(
    ("versioned", "plain"),
    [
        ("ENSG00000141510.17", "ENSG00000141510"),
        ("ENSMUSG00000059552.14", "ENSMUSG00000059552"),
        ("ENSG00000182378.13_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENSG00000141510", "ENSG00000141510"),
        ("Y74C9A.3", "Y74C9A.3"),  # of WormBase: no version
        ("10904", "10904"),
    ],
)
def test_only_the_versions_of_ensembl_are_left_out(versioned, plain):
    assert unversioned(versioned) == plain


@pytest.mark.real_data
def test_gencode_v10_agrees_with_a_plain_reading_of_its_lines():
    path = REAL_DATA / "ref/annot/gencode_v10_genes.hg19.gtf.gz"
    genes = read_genes(path)
    with gzip.open(path, "rt") as handle:
        fields = [line.split("\t") for line in handle if 'gene_type "protein_coding"' in line]
    assert len(genes.start) == len(fields) > 20_000
    assert (genes.start == np.array([int(field[3]) - 1 for field in fields])).all()
    assert (genes.end == np.array([int(field[4]) for field in fields])).all()
    assert genes.strand.tolist() == [field[6] for field in fields]
    assert genes.gene_id.tolist() == [re.search(r'gene_id "([^"]+)', field[8])[1] for field in fields]


@pytest.mark.real_data
def test_the_pilot_genes_are_those_of_gencode_v10():
    every = read_genes(REAL_DATA / "ref/annot/gencode_v10_genes.hg19.gtf.gz")
    pilot = read_genes(REAL_DATA / "rna/genes_in_pilot_regions.hg19.tsv")
    place = {unversioned(gene): row for row, gene in enumerate(every.gene_id.tolist())}
    found = every.take(np.array([place[gene] for gene in pilot.gene_id.tolist()]))
    assert rows(found._replace(gene_id=pilot.gene_id, gene_name=pilot.gene_name)) == rows(pilot)
