"""Splits and leaks: the challenge's tables against each other, closed forms, and what holds for every split."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.covariates import CONTROL, SPLITS, Experiment
from candi_cli.errors import GenomeError, RequestError, SheetError
from candi_cli.splits import (
    Challenge,
    ChallengeCell,
    check_split,
    chromosome_split,
    make_split,
    merged_term,
    read_challenge_split,
)

ROOT = Path(__file__).parents[1]
METADATA = ROOT.parent / "shared" / "data" / "encode_metadata"
HEADER = "data_type,cell_type_id,mark_id,cell_type,mark/assay,filename,experiment"
PREFIX_SPLITS = {"T": "train", "V": "validation", "B": "test"}
NAMES = [f"s{number}" for number in range(12)]


def experiments_of(*rows: str) -> list[Experiment]:
    """Experiments from `biosample assay donor tissue`, `-` where not known."""
    cells = [[None if cell == "-" else cell for cell in row.split()] for row in rows]
    return [Experiment(biosample, assay, donor=donor, tissue=tissue) for biosample, assay, donor, tissue in cells]


def placed(experiments: list[Experiment], *sides: str) -> dict[tuple[str, str], str]:
    return {(e.biosample, e.assay): side for e, side in zip(experiments, sides, strict=True)}


def leaks(experiments: list[Experiment], splits: dict[tuple[str, str], str], **options) -> list[str]:
    try:
        check_split(experiments, splits, **options)
    except SheetError as error:
        return str(error).splitlines()
    return []


def metadata(name: str) -> list[dict[str, str]]:
    with (METADATA / name).open(newline="") as handle:
        return list(csv.DictReader(handle))


# The challenge


@pytest.mark.real_data
def test_the_challenge_has_267_training_45_validation_and_51_blind_experiments():
    challenge = read_challenge_split(METADATA)
    assert Counter(challenge.splits.values()) == {"train": 267, "validation": 45, "test": 51}
    assert challenge == read_challenge_split(METADATA / "EIC_experiments.csv")


@pytest.mark.real_data
def test_the_challenge_table_agrees_with_the_metadata_and_the_split_file():
    splits = read_challenge_split(METADATA).splits
    rows = metadata("eic_metadata.csv")
    assert splits == {(r["biosample_name"], r["assay_name"]): PREFIX_SPLITS[r["biosample_name"][0]] for r in rows}
    listed = json.loads((METADATA / "train_va_test_split_eic.json").read_text())
    assert {b: split for (b, _), split in splits.items()} == {
        b: split.replace("valid", "validation") for b, split in listed.items()
    }


@pytest.mark.real_data
def test_each_challenge_target_has_the_training_data_of_its_cell_type_for_input():
    splits, cells = read_challenge_split(METADATA)
    assert len(cells) == 51
    assert Counter(sum(name is not None for name in trio) for trio in cells.values()) == {1: 15, 2: 34, 3: 2}
    assert sum(trio.validation is not None for trio in cells.values()) == 26
    assert sum(trio.test is not None for trio in cells.values()) == 12
    assert {name for trio in cells.values() for name in trio if name} == {biosample for biosample, _ in splits}
    name = "brain_microvascular_endothelial_cell"
    assert cells.pop(name) == ChallengeCell(f"T_{name}", None, "B_BMEC")
    for cell, trio in cells.items():
        assert trio.training == f"T_{cell}"
        assert trio.validation in (None, f"V_{cell}")
        assert trio.test in (None, f"B_{cell}")


@pytest.mark.real_data
def test_the_challenge_is_no_leak_as_a_declared_design_only():
    challenge = read_challenge_split(METADATA)
    cell_of = {name: cell for cell, trio in challenge.cells.items() for name in trio if name}
    experiments = [Experiment(biosample, assay, tissue=cell_of[biosample]) for biosample, assay in challenge.splits]
    assert leaks(experiments, challenge.splits, challenge=challenge) == []
    undeclared = leaks(experiments, challenge.splits)
    assert len(undeclared) == sum(
        trio.validation is not None or trio.test is not None for trio in challenge.cells.values()
    )
    assert all(line.startswith("tissue ") for line in undeclared)


@pytest.mark.real_data
def test_an_accession_of_the_challenge_stays_within_its_cell_type():
    challenge = read_challenge_split(METADATA)
    rows = metadata("eic_metadata.csv")
    experiments = [Experiment(r["biosample_name"], r["assay_name"], donor=r["bios_accession"]) for r in rows]
    assert leaks(experiments, challenge.splits, challenge=challenge) == []
    assert leaks(experiments, challenge.splits)


def test_a_challenge_table_is_read_into_sides_and_trios(tmp_path):
    path = tmp_path / "EIC_experiments.csv"
    rows = ["training_data,C1,M1,long_name,DNase-seq,C1M1,x", "blind_data,C1,M2,LN,H3K4me3,C1M2,y"]
    path.write_text("\n".join([HEADER, *rows, "training_data,C2,M1,K562,DNase-seq,C2M1,z"]))
    assert read_challenge_split(tmp_path) == Challenge(
        {("T_long_name", "DNase-seq"): "train", ("B_LN", "H3K4me3"): "test", ("T_K562", "DNase-seq"): "train"},
        {"long_name": ChallengeCell("T_long_name", None, "B_LN"), "K562": ChallengeCell("T_K562", None, None)},
    )


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ("secret_data,C1,M2,A,H3K4me3,f,e", ":3: not a data type, a cell type and an assay"),
        ("blind_data,C1,M2,,H3K4me3,f,e", ":3: not a data type, a cell type and an assay"),
        ("blind_data,C1", ":3: not a data type, a cell type and an assay"),
        ("blind_data,C1,M1,A,DNase-seq,f,e", ":3: DNase-seq of C1 was on line 2"),
        ("training_data,C1,M2,B,H3K4me3,f,e", ":3: C1 is T_A and T_B"),
        ("blind_data,C2,M2,B,H3K4me3,f,e", ": C2 has no training data"),
    ],
)
def test_a_challenge_row_that_does_not_fit_is_refused_by_its_line(tmp_path, row, fact):
    path = tmp_path / "table.csv"
    path.write_text(f"{HEADER}\ntraining_data,C1,M1,A,DNase-seq,f,e\n{row}\n")
    with pytest.raises(SheetError, match=rf"^{re.escape(str(path))}{fact}"):
        read_challenge_split(path)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "No such file"),
        (b"biosample,assay\n", "no column data_type, cell_type_id, cell_type, mark/assay;"),
        (b"", "no column"),
        (b"\xff\xfe\x00", "not a text file"),
        (HEADER.encode(), "lists no experiment"),
    ],
    ids=["missing", "other columns", "empty", "binary", "only a header"],
)
def test_a_file_that_is_not_the_challenge_table_is_refused_by_its_path(tmp_path, content, fact):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SheetError, match=rf"^{re.escape(str(path))}: {fact}"):
        read_challenge_split(path)


# Making a split


def test_donors_and_tissues_chain_into_one_side():
    experiments = experiments_of(
        "a H3K4me3 d1 liver", "b H3K4me3 d1 spleen", "c H3K4me3 d2 Spleen", "d H3K4me3 - -", "e H3K4me3 d3 lung"
    )
    for seed in range(20):
        sides = make_split(experiments, fractions=(0.2, 0.2), seed=seed)
        assert sides["a", "H3K4me3"] == sides["b", "H3K4me3"] == sides["c", "H3K4me3"] == "train"
        assert {sides["d", "H3K4me3"], sides["e", "H3K4me3"]} == {"validation", "test"}


def test_only_the_links_asked_for_are_heeded():
    experiments = experiments_of("K562_nonrep H3K4me3 d1 blood", "K562_grp1_rep1 H3K4me3 d2 blood", "c H3K4me3 d2 skin")
    for by in (["term", "donor"], ["donor", "tissue"]):
        with pytest.raises(
            SheetError, match=rf"^3 experiments hang together in 1 group.* by biosample, {', '.join(by)}, too few"
        ):
            make_split(experiments, fractions=(0, 0.3), by=by)
    assert set(make_split(experiments, fractions=(0, 0.4), by=["term"]).values()) == {"train", "test"}
    assert sorted(make_split(experiments, fractions=(0.3, 0.3), by=()).values()) == sorted(SPLITS)


def test_a_control_goes_with_its_biosample_and_does_not_count():
    experiments = experiments_of("a H3K4me3 - -", "b H3K4me3 - -", "c control - -", "a control - -", "b control - -")
    sides = make_split(experiments, fractions=(0, 0.4))
    assert sides["a", CONTROL] == sides["a", "H3K4me3"] != sides["b", "H3K4me3"] == sides["b", CONTROL]
    with pytest.raises(SheetError, match="2 experiments hang together in 2 group"):
        make_split(experiments, fractions=(0.2, 0.4))


def test_another_seed_gives_another_split():
    experiments = experiments_of(*(f"s{number} H3K4me3 - -" for number in range(30)))
    drawn = {tuple(make_split(experiments, fractions=(0.2, 0.2), seed=seed).values()) for seed in range(10)}
    assert len(drawn) == 10


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.2), (0.9, 0.2), (float("nan"), 0.1)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    with pytest.raises(RequestError, match="give two from 0 on with a sum below 1"):
        make_split(experiments_of("a H3K4me3 - -"), fractions=fractions)


def test_an_unknown_link_is_refused_with_those_that_exist():
    with pytest.raises(RequestError, match="split by lab: no such link; choose from term, donor, tissue"):
        make_split(experiments_of("a H3K4me3 - -"), fractions=(0, 0.5), by=["lab"])
    with pytest.raises(RequestError, match="split by lab"):
        check_split([], {}, by=["lab"])


COHORTS = st.lists(
    st.builds(
        Experiment,
        biosample=st.sampled_from([f"{name}{end}" for name in NAMES for end in ("", "_nonrep", "_grp1_rep2")]),
        assay=st.sampled_from(["H3K4me3", "H3K27ac", "DNase-seq", CONTROL]),
        donor=st.none() | st.sampled_from([f"d{number}" for number in range(20)]),
        tissue=st.none() | st.sampled_from(["liver", "Liver", "lung", "skin", "blood", "brain", "heart", "spleen"]),
    ),
    max_size=25,
    unique_by=lambda e: (e.biosample, e.assay),
)
FRACTIONS = st.sampled_from([(0.0, 0.2), (0.1, 0.2), (0.2, 0.0), (0.3, 0.3), (0.0, 0.0)])


def linked_groups(experiments: list[Experiment]) -> list[set[int]]:
    """Groups by merging whatever shares a key, until nothing does: slow, and not the way of the module."""
    groups = []
    for number, e in enumerate(experiments):
        keys = {("term", merged_term(e.biosample)), ("donor", e.donor), ("tissue", e.tissue and e.tissue.lower())}
        groups.append(({number}, {key for key in keys if key[1]}))
    merged = True
    while merged:
        merged = False
        for one in groups:
            for other in groups:
                if one is not other and one[1] & other[1] and not merged:
                    groups = [g for g in groups if g is not one and g is not other] + [
                        (one[0] | other[0], one[1] | other[1])
                    ]
                    merged = True
    return [numbers for numbers, _ in groups]


@given(experiments=COHORTS, fractions=FRACTIONS, seed=st.integers(0, 5), shuffle=st.randoms(use_true_random=False))
def test_every_split_assigns_all_leaks_nothing_repeats_and_ignores_the_order(experiments, fractions, seed, shuffle):
    sizes = [sum(not experiments[number].is_control for number in numbers) for numbers in linked_groups(experiments)]
    wished = dict(zip(SPLITS, (1 - sum(fractions), *fractions), strict=True))
    n_sides = sum(fraction > 0 for fraction in wished.values())
    if sum(size > 0 for size in sizes) < n_sides:
        with pytest.raises(SheetError, match="too few"):
            make_split(experiments, fractions=fractions, seed=seed)
        return
    splits = make_split(experiments, fractions=fractions, seed=seed)
    assert list(splits) == [(e.biosample, e.assay) for e in experiments]
    assert leaks(experiments, splits) == []
    placed_controls = {e.biosample: splits[e.biosample, e.assay] for e in experiments if not e.is_control}
    assert all(
        splits[e.biosample, e.assay] == placed_controls.get(e.biosample, splits[e.biosample, e.assay])
        for e in experiments
    )
    counts = Counter(splits[e.biosample, e.assay] for e in experiments if not e.is_control)
    assert set(counts) == {split for split, fraction in wished.items() if fraction > 0}
    for split, n_experiments in counts.items():
        assert n_experiments < wished[split] * sum(sizes) + max(sizes) + 1e-9
    again = shuffle.sample(experiments, len(experiments))
    assert make_split(again, fractions=fractions, seed=seed) == splits


# Refusing leaks


@pytest.mark.parametrize(
    ("rows", "what", "sides"),
    [
        (["a A d1 -", "b B D1 -"], "donor d1", "train (a/A) and test (b/B)"),
        (["a A - liver", "b A - Liver"], "tissue liver", "train (a/A) and test (b/A)"),
        (
            ["K562_grp1_rep1 A - -", "K562_nonrep A - -"],
            "term k562",
            "train (K562_grp1_rep1/A) and test (K562_nonrep/A)",
        ),
        (["HeLa-S3 A - -", "HeLa_S3_nonrep A - -"], "term hela_s3", "train (HeLa-S3/A) and test (HeLa_S3_nonrep/A)"),
        (["a A - -", "a B - -"], "term a", "train (a/A) and test (a/B)"),
    ],
    ids=["donor", "tissue", "replicate", "spelling", "biosample"],
)
def test_each_leak_is_told_in_one_line_with_an_experiment_of_each_side(rows, what, sides):
    experiments = experiments_of(*rows)
    line = f"{what}: lies on 2 sides, {sides}; move it to one"
    assert leaks(experiments, placed(experiments, "train", "test")) == [line]
    assert leaks(experiments, placed(experiments, "test", "test")) == []


def test_a_leak_names_the_first_experiment_of_each_side():
    experiments = experiments_of("a A d1 -", "b A d1 -", "c A d1 -", "d A d1 -")
    lines = leaks(experiments, placed(experiments, "test", "train", "test", "train"))
    assert lines == ["donor d1: lies on 2 sides, train (b/A) and test (a/A); move it to one"]


def test_a_biosample_may_not_be_divided_even_where_no_link_is_heeded():
    experiments = experiments_of("a A d1 liver", "a B d1 liver", "b A d1 liver")
    lines = leaks(experiments, placed(experiments, "train", "validation", "train"), by=())
    assert lines == ["biosample a: lies on 2 sides, train (a/A) and validation (a/B); move it to one"]


def test_all_leaks_are_told_and_validation_is_a_side_of_its_own():
    experiments = experiments_of("a A d1 liver", "b A d1 lung", "c A d2 lung")
    lines = leaks(experiments, placed(experiments, "train", "validation", "test"))
    assert [line.split(":")[0] for line in lines] == ["donor d1", "tissue lung"]


def test_an_experiment_without_a_split_is_told_and_a_control_needs_none():
    experiments = experiments_of("a A - -", "a control - -", "b A - -")
    assert leaks(experiments, {("a", "A"): "train", ("b", "A"): "training"}) == [
        "b/A: has no split; give it one of train, validation, test"
    ]


def test_the_challenge_design_allows_a_cell_type_on_two_sides_but_not_an_assay_of_it():
    challenge = Challenge(
        {}, {"K562": ChallengeCell("T_K562", "V_K562", None), "H9": ChallengeCell("T_H9", None, "B_H9")}
    )
    experiments = experiments_of("T_K562 A d1 blood", "V_K562 B d1 blood", "T_H9 A d2 embryo", "B_H9 A d2 embryo")
    lines = leaks(experiments, placed(experiments, "train", "validation", "train", "test"), challenge=challenge)
    assert lines == ["assay A of cell type H9: lies on 2 sides, train (T_H9/A) and test (B_H9/A); move it to one"]


def test_the_challenge_design_does_not_excuse_a_donor_of_two_cell_types():
    challenge = Challenge(
        {}, {"liver": ChallengeCell("T_liver", None, None), "lung": ChallengeCell("T_lung", "V_lung", None)}
    )
    experiments = experiments_of("T_liver A d1 -", "V_lung B d1 -", "T_lung A d2 -", "mine A d2 -")
    lines = leaks(experiments, placed(experiments, "train", "validation", "train", "test"), challenge=challenge)
    assert [line.split(":")[0] for line in lines] == ["donor d1", "donor d2"]


@pytest.mark.real_data
def test_the_merged_split_has_no_cell_type_on_two_sides():
    listed = json.loads((METADATA / "train_va_test_split_merged.json").read_text())
    rows = metadata("merged_metadata.csv")
    experiments = [Experiment(r["biosample_name"], r["assay_name"], donor=r["bios_accession"]) for r in rows]
    splits = {(e.biosample, e.assay): listed[e.biosample] for e in experiments}
    assert leaks(experiments, splits) == []
    assert Counter(splits[e.biosample, e.assay] for e in experiments) == {"train": 1868, "test": 816}
    terms = {merged_term(biosample): side for biosample, side in listed.items()}
    assert Counter(terms.values()) == {"train": 127, "test": 37}
    moved = "HeLa_S3_grp1_rep1"
    wrong = splits | {key: "train" for key in splits if key[0] == moved}
    assert [line.split(":")[0] for line in leaks(experiments, wrong)] == ["term hela_s3"]


@pytest.mark.real_data
def test_a_split_of_the_merged_compendium_meets_its_fractions():
    rows = metadata("merged_metadata.csv")
    experiments = [Experiment(r["biosample_name"], r["assay_name"], donor=r["bios_accession"]) for r in rows]
    for seed in range(5):
        splits = make_split(experiments, fractions=(0.1, 0.3), seed=seed)
        assert leaks(experiments, splits) == []
        counts = Counter(splits.values())
        assert counts["validation"] / len(experiments) == pytest.approx(0.1, abs=0.002)
        assert counts["test"] / len(experiments) == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize(
    ("biosample", "term"),
    [
        ("K562_nonrep", "K562"),
        ("smooth_muscle_cell_grp12_rep3", "smooth_muscle_cell"),
        ("SK-N-SH", "SK_N_SH"),
        ("T_cell_nonrep", "T_cell"),
        ("T_K562", "T_K562"),
        ("nonrep", "nonrep"),
    ],
)
def test_a_merged_name_gives_its_term_and_another_name_itself(biosample, term):
    assert merged_term(biosample) == term


# Chromosomes


def test_chromosomes_named_for_neither_are_trained_on_in_genome_order():
    sizes = {"chr2": 9, "chr1": 9, "chr21": 9, "chr3": 9}
    assert chromosome_split(sizes, test=["chr21"], validation=["chr3", "chr2"]) == {
        "train": ["chr1"],
        "validation": ["chr2", "chr3"],
        "test": ["chr21"],
    }
    assert chromosome_split(sizes, test=[]) == {"train": list(sizes), "validation": [], "test": []}


@pytest.mark.parametrize(
    ("test", "validation", "fact"),
    [
        (["21"], [], "chromosome 21: not in this genome"),
        (["chr1"], ["chr9"], "chromosome chr9: not in this genome"),
        (["chr1"], ["chr1"], "chromosome chr1: named for validation and for test"),
        (["chr1"], ["chr2"], "no chromosome is left"),
    ],
)
def test_chromosomes_that_are_unknown_shared_or_all_held_out_are_refused(test, validation, fact):
    with pytest.raises(GenomeError, match=f"^{fact}"):
        chromosome_split({"chr1": 9, "chr2": 9}, test=test, validation=validation)


def test_a_chromosome_on_two_sides_is_a_leak():
    chroms = {"train": ["chr1", "chr21"], "validation": ["chr2"], "test": ["chr21"]}
    assert leaks([], {}, chroms=chroms) == [
        "chromosome: lies on 2 sides, train (chr21) and test (chr21); move it to one"
    ]
    assert leaks([], {}, chroms=chromosome_split({"chr1": 9, "chr21": 9}, test=["chr21"])) == []
