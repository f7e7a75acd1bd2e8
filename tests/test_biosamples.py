"""Merged cell types: each rule on a small table made by hand, and what cannot depend on the order of the table."""

import importlib.util
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.biosamples import (
    Candidate,
    choose_control,
    clean_name,
    merge,
    most_consistent,
    separate,
    summarise,
    to_experiments,
    write_sheet,
)
from candi_cli.covariates import COLUMNS, CONTROL, PLATFORMS, Covariates, Experiment, read_sheet
from candi_cli.errors import SheetError

ROOT = Path(__file__).parents[1]
TABLE = ROOT.parent / "shared" / "data" / "encode_metadata" / "merged_metadata.csv"


def candidate(experiment, biosample, assay, *, term="spleen", donor="D1", lab="L1", **others) -> Candidate:
    return Candidate(term, assay, experiment, biosample, donor=donor, lab=lab, **others)


def replicated(n_assays, biosamples=("B1", "B2"), *, start=0, **cells) -> list[Candidate]:
    """Experiments E0, E1, ... of assays A0, A1, ..., each done on every one of the biosamples."""
    numbers = range(start, start + n_assays)
    return [candidate(f"E{number}", name, f"A{number}", **cells) for number in numbers for name in biosamples]


def contents(cell_types) -> dict[str, list[str]]:
    """Return `experiment@biosample` of every member, by the name of the cell type."""
    return {item.name: [f"{row.experiment}@{row.biosample}" for row in item.members] for item in cell_types}


def test_isogenic_replicates_that_share_three_assays_become_a_group():
    assert contents(merge(replicated(3))) == {
        "spleen_grp1_rep1": ["E0@B1", "E1@B1", "E2@B1"],
        "spleen_grp1_rep2": ["E0@B2", "E1@B2", "E2@B2"],
    }


def test_isogenic_replicates_that_share_two_assays_become_no_group():
    assert contents(merge(replicated(2))) == {"spleen_nonrep": ["E0@B1", "E1@B1"]}


def test_three_experiments_of_two_assays_are_two_shared_assays():
    pool = [*replicated(2), *(replace(item, experiment="E9", assay="A0") for item in replicated(1))]
    assert list(contents(merge(pool))) == ["spleen_nonrep"]


def test_replicates_of_another_donor_are_not_isogenic():
    pool = [replace(item, donor=f"donor of {item.biosample}") for item in replicated(3)]
    assert list(contents(merge(pool))) == ["spleen_nonrep"]


def test_of_an_experiment_on_two_donors_the_replicates_of_each_donor_are_isogenic():
    pool = replicated(3, ("B1", "B2")) + replicated(3, ("B3", "B4"), donor="D2")
    groups = {item.name: {row.biosample for row in item.members} for item in merge(pool)}
    assert groups == {
        "spleen_grp1_rep1": {"B1"},
        "spleen_grp1_rep2": {"B2"},
        "spleen_grp2_rep1": {"B3"},
        "spleen_grp2_rep2": {"B4"},
    }


def test_a_group_has_the_shared_assays_only_and_the_others_are_the_nonrep():
    alone = candidate("E7", "B1", "DNase-seq")
    merged = contents(merge([*replicated(3), alone]))
    assert merged["spleen_grp1_rep1"] == ["E0@B1", "E1@B1", "E2@B1"]
    assert merged["spleen_nonrep"] == ["E7@B1"]


def test_an_assay_with_one_candidate_is_kept():
    pool = [candidate("E1", "B1", "A1"), candidate("E2", "B1", "A2"), candidate("E3", "B9", "A3", donor="D9", lab="L9")]
    assert contents(merge(pool)) == {"spleen_nonrep": ["E1@B1", "E2@B1", "E3@B9"]}


def test_a_cell_type_of_one_assay_is_kept_unless_more_are_asked_for():
    pool = [candidate("E1", "B1", "A1")]
    assert contents(merge(pool)) == {"spleen_nonrep": ["E1@B1"]}
    assert merge(pool, min_assays=2) == []
    assert separate(pool, min_assays=2) == []
    assert len(merge(replicated(3), min_assays=3)) == 2


def test_of_overlapping_groups_the_one_with_more_assays_comes_first_and_its_experiments_leave_the_pool():
    pool = replicated(4, ("B1", "B2")) + replicated(3, ("B1", "B2", "B3"), start=4)
    merged = contents(merge(pool))
    assert merged["spleen_grp1_rep1"] == [f"E{n}@B1" for n in range(7)]
    assert merged["spleen_grp1_rep2"] == [f"E{n}@B2" for n in range(7)]
    assert merged["spleen_nonrep"] == ["E4@B3", "E5@B3", "E6@B3"]
    assert len(merged) == 3


def test_of_groups_with_as_many_assays_the_one_with_more_replicates_comes_first():
    pool = replicated(3, ("B1", "B2", "B3"))
    assert list(contents(merge(pool))) == ["spleen_grp1_rep1", "spleen_grp1_rep2", "spleen_grp1_rep3"]


def test_replicates_share_an_assay_through_an_experiment_on_a_third_replicate_too():
    pool = replicated(2, ("B1", "B2")) + replicated(1, ("B1", "B2", "B3"), start=2)
    assert list(contents(merge(pool))) == ["spleen_grp1_rep1", "spleen_grp1_rep2", "spleen_nonrep"]


def test_a_biosample_may_be_in_two_groups_but_with_other_experiments():
    pool = replicated(3, ("B1", "B2")) + replicated(3, ("B1", "B3"), start=3)
    members = [(row.experiment, row.biosample) for item in merge(pool) for row in item.members]
    assert len(merge(pool)) == 4
    assert len(members) == len(set(members)) == 12


def test_all_replicates_of_a_group_take_the_same_experiment_of_an_assay():
    again = [replace(item, experiment="E9", lab="L2") for item in replicated(1)]
    merged = contents(merge([*again, *replicated(4)]))
    assert merged["spleen_grp1_rep1"][0] == "E0@B1"  # of the lab of the other assays
    assert merged["spleen_grp1_rep2"][0] == "E0@B2"
    assert merged["spleen_nonrep"] == ["E9@B1"]


def test_terms_are_never_mixed():
    pool = replicated(2) + replicated(2, term="liver", start=2)
    assert contents(merge(pool)) == {"liver_nonrep": ["E2@B1", "E3@B1"], "spleen_nonrep": ["E0@B1", "E1@B1"]}


@pytest.mark.parametrize(
    ("rule", "kept", "left"),
    [
        ("the same biosample beats the same donor and lab", {"biosample": "B1", "donor": "D9", "lab": "L9"}, {}),
        ("the same donor beats the same lab", {"donor": "D1", "lab": "L9"}, {"donor": "D9", "lab": "L1"}),
        ("the same lab beats nothing", {"donor": "D9", "lab": "L1"}, {"donor": "D9", "lab": "L9"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_nonrep_agrees_best_in_biosample_then_donor_then_lab(rule, kept, left):
    others = [candidate("E1", "B1", "A1"), candidate("E2", "B1", "A2")]
    best = replace(candidate("E9", "B9", "A3"), **kept)
    worse = replace(candidate("E3", "B3", "A3"), **left)
    assert most_consistent([*others, worse, best])[-1] == best


def test_the_score_is_20_10_and_5_for_each_assay():
    # B1 has 2 assays (20 * 2 + 10 * 2 + 5 * 2 = 70); D2 has 5 and L2 has 5, B2 has 1 (20 + 50 + 25 = 95)
    first = [candidate("E1", "B1", "A1"), candidate("E2", "B1", "A9")]
    second = [candidate(f"E{n}", f"B{n}", f"A{n}", donor="D2", lab="L2") for n in range(3, 7)]
    rival = candidate("E7", "B7", "A9", donor="D2", lab="L2")
    assert rival in most_consistent([*first, *second, rival])
    # without one of the four others: 20 + 40 + 20 = 80, without two 20 + 30 + 15 = 65
    assert rival in most_consistent([*first, *second[1:], rival])
    assert rival not in most_consistent([*first, *second[2:], rival])


def test_many_experiments_of_one_assay_count_once():
    many = [candidate(f"E{n}", "B1", "A1") for n in range(9)]
    few = [candidate(f"F{n}", "B2", f"A{n}", donor="D2", lab="L2") for n in (1, 2, 3)]
    assert {item.biosample for item in most_consistent(many + few)} == {"B2"}


def test_ties_go_to_more_files_and_then_to_the_lower_accession():
    low, high = candidate("E1", "B1", "A"), candidate("E2", "B1", "A")
    assert most_consistent([high, low]) == [low]
    high = replace(high, files={"file": Path("x.bam")})
    assert most_consistent([high, low]) == [high]


def test_what_is_not_known_agrees_with_nothing():
    nobody = [replace(candidate(f"E{n}", f"B{n}", f"A{n}"), donor=None, lab=None) for n in range(5)]
    pool = [*nobody, replace(nobody[0], experiment="E8", biosample="B8"), candidate("E9", "B9", "A0")]
    assert most_consistent(pool)[0].experiment == "E9"


@pytest.mark.parametrize(
    ("term", "name"),
    [
        ("cardiac muscle cell", "cardiac_muscle_cell"),
        ("SK-N-SH", "SK_N_SH"),
        ("CD4-positive, alpha-beta T cell", "CD4_positive,_alpha_beta_T_cell"),
        ("Peyer's patch", "Peyer's_patch"),
        ("a/b", "a_b"),
        (".hidden", "hidden"),
    ],
)
def test_names_are_terms_with_underscores_and_never_a_slash(term, name):
    assert clean_name(term) == name


def test_separate_biosamples_keep_their_accession_and_one_candidate_of_each_assay():
    pool = [*replicated(2), candidate("E9", "B1", "A0")]
    assert contents(separate(pool)) == {"spleen_B1": ["E0@B1", "E1@B1"], "spleen_B2": ["E0@B2", "E1@B2"]}


def controls_and_member(**cells):
    member = candidate("E1", "B1", "H3K4me3", **cells)
    return [member], [
        candidate("C1", "B9", CONTROL, donor="D9", lab="L9"),
        candidate("C2", "B9", CONTROL, donor="D9"),
        candidate("C3", "B9", CONTROL, lab="L9"),
        candidate("C4", "B1", CONTROL, donor="D9", lab="L9"),
        candidate("C5", "B1", CONTROL, term="liver"),
    ]


def test_a_control_is_named_then_of_the_biosample_then_of_the_donor_then_of_the_lab_then_of_the_term():
    members, controls = controls_and_member(controls=frozenset({"C5"}))
    assert choose_control(members, controls).experiment == "C5"
    members, controls = controls_and_member()
    for expected in ("C4", "C3", "C2", "C1"):
        chosen = choose_control(members, controls)
        assert chosen.experiment == expected
        controls.remove(chosen)
    assert choose_control(members, controls) is None  # the one that is left is of another term


def test_the_control_that_most_experiments_name_is_taken():
    members = [candidate(f"E{n}", "B1", f"A{n}", controls=frozenset({f"C{min(n, 2)}"})) for n in range(1, 4)]
    controls = [candidate("C1", "B1", CONTROL), candidate("C2", "B9", CONTROL, donor="D9", lab="L9")]
    assert choose_control(members, controls).experiment == "C2"


def test_open_chromatin_needs_no_control_and_chip_seq_beside_it_does():
    _, controls = controls_and_member()
    open_chromatin = [candidate("E1", "B1", "DNase-seq"), candidate("E2", "B1", "ATAC-seq")]
    assert choose_control(open_chromatin, controls) is None
    assert choose_control([*open_chromatin, candidate("E3", "B1", "CTCF")], controls) is not None


def test_each_replicate_has_the_control_of_its_own_biosample():
    pool = replicated(3) + [candidate("C1", name, CONTROL) for name in ("B1", "B2")]
    assert [item.control.biosample for item in merge(pool)] == ["B1", "B2"]


def test_controls_alone_are_no_cell_type():
    assert merge([candidate("C1", "B1", CONTROL)]) == separate([candidate("C1", "B1", CONTROL)]) == []


POOLS = st.lists(
    st.builds(
        candidate,
        st.sampled_from(["E1", "E2", "E3", "E4", "E5"]),
        st.sampled_from(["B1", "B2", "B3"]),
        st.just(""),
        donor=st.sampled_from(["D1", "D2", None]),
        lab=st.sampled_from(["L1", "L2", None]),
        controls=st.sets(st.sampled_from(["E4", "E5"])).map(frozenset),
    ),
    max_size=15,
    unique_by=lambda item: (item.experiment, item.biosample),
)
ASSAYS = st.lists(st.sampled_from(["A1", "A2", "A3", "DNase-seq", CONTROL]), min_size=5, max_size=5)
TERMS = st.lists(st.sampled_from(["spleen", "K-562", "K 562"]), min_size=5, max_size=5)


@given(POOLS, ASSAYS, TERMS, st.randoms(use_true_random=False))
def test_the_order_of_candidates_never_matters_and_nothing_is_used_twice(pool, assays, terms, random):
    number = {f"E{n + 1}": n for n in range(5)}
    pool = [replace(item, assay=assays[number[item.experiment]], term=terms[number[item.experiment]]) for item in pool]
    shuffled = random.sample(pool, len(pool))
    for build in (merge, separate):
        found = build(pool)
        assert build(shuffled) == found
        members = [(row.experiment, row.biosample) for item in found for row in item.members]
        assert len(set(members)) == len(members)
        assert set(members) <= {(row.experiment, row.biosample) for row in pool}
        rows = [(row.biosample, row.assay) for row in to_experiments(found)]
        assert len(set(rows)) == len(rows)
    merged, kinds = merge(pool), {(clean_name(item.term), item.assay) for item in pool if item.assay != CONTROL}
    assert {(clean_name(row.term), row.assay) for item in merged for row in item.members} == kinds


def test_a_summary_counts_cell_types_and_assays():
    pool = [*replicated(3), candidate("E7", "B1", "A7"), candidate("C1", "B1", CONTROL)]
    summary = summarise(merge(pool))
    assert summary == (3, 2, 7, 3, 1, 3, 3)
    assert str(summary) == (
        "3 biosamples (2 replicates in groups, 3 with a control) of 7 experiments; assays in each: median 3, 1 to 3"
    )
    assert summarise([]).n_cell_types == 0


FULL = Experiment(
    "b", "H3K4me3", Path("in/x.bam"), Path("/abs/x.bigWig"), Path("x.bed.gz"),
    Covariates(50_000_000.0, 36.5, "single-ended", PLATFORMS[5]), donor="D1", tissue="cardiac muscle cell",
    split="test", md5sums={"file": "0" * 32, "signal": "1" * 32, "peaks": "2" * 32},
)  # fmt: skip


def written(experiments, **options) -> str:
    handle = io.StringIO()
    write_sheet(experiments, handle, **options)
    return handle.getvalue()


def test_a_written_sheet_has_every_column_whole_numbers_and_na():
    lines = [line.split("\t") for line in written([FULL, Experiment("b", CONTROL)]).splitlines()]
    row = dict(zip(lines[0], lines[1], strict=True))
    assert tuple(lines[0]) == COLUMNS
    assert (row["file"], row["control"], row["depth"], row["read_length"]) == ("in/x.bam", "NA", "50000000", "36.5")
    assert (row["md5"], row["signal_md5"], row["peaks_md5"]) == ("0" * 32, "1" * 32, "2" * 32)
    assert set(lines[2][2:]) == {"NA"}


def test_a_written_sheet_reads_back_as_the_same_experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sheet.tsv").write_text(written([FULL, Experiment("b", CONTROL, Path("c.bam"))]))
    assert read_sheet(Path("sheet.tsv")) == [FULL, Experiment("b", CONTROL, Path("c.bam"))]


def test_paths_are_written_as_seen_from_the_sheets_folder():
    assert "\t../in/x.bam\t" in written([FULL], folder=Path("sheets"))
    assert "\t/abs/x.bigWig\t" in written([FULL], folder=Path("sheets"))
    assert "\tx.bam\t" in written([FULL], folder=Path("in"))


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb"])
def test_a_value_that_a_sheet_cannot_hold_is_refused(name):
    with pytest.raises(SheetError, match=r"b/A: tissue: .* holds a tab or a line break; rename it"):
        written([Experiment("b", "A", tissue=name)])


@pytest.fixture(scope="module")
def benchmark():
    """The script that makes the report on the published table."""
    path = ROOT / "tests" / "benchmarks" / "merged_cell_types.py"
    spec = importlib.util.spec_from_file_location("merged_cell_types", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.real_data
def test_the_published_table_has_the_papers_361_cell_types_and_6_assays(benchmark):
    summary = benchmark.published_summary(benchmark.read_table(TABLE))
    assert (summary.n_cell_types, summary.median_assays) == benchmark.PAPER


@pytest.mark.real_data
def test_our_rules_on_the_published_table_come_close_and_use_every_file_once(benchmark):
    cell_types = merge(benchmark.read_table(TABLE).candidates, min_assays=3)
    summary = summarise(cell_types)
    assert 0.9 * benchmark.PAPER[0] < summary.n_cell_types <= benchmark.PAPER[0]
    assert summary.median_assays == benchmark.PAPER[1]
    used = Counter(row.files["file"] for item in cell_types for row in item.members)
    assert set(used.values()) == {1}
    for item in cell_types:
        assert not item.is_replicate or len({row.biosample for row in item.members}) == 1


@pytest.mark.real_data
def test_a_published_group_of_distinct_biosamples_has_a_replicate_among_ours(benchmark):
    table = benchmark.read_table(TABLE)
    groups = {}
    for name, rows in table.cell_types.items():
        if "_grp" in name:
            groups.setdefault(name.rpartition("_rep")[0], []).append(rows)
    ours = {frozenset(row.biosample for row in item.members) for item in merge(table.candidates) if item.is_replicate}
    for name, replicates in groups.items():
        biosamples = [{row.biosample for row in rows} for rows in replicates]
        if sum(map(len, biosamples)) == len(set.union(*biosamples)) == len(biosamples):
            assert any(biosample in ours for biosample in map(frozenset, biosamples)), name
    assert benchmark.twin_groups(table) == (34, len(groups))


@pytest.mark.real_data
def test_the_report_names_the_papers_numbers_beside_ours(benchmark):
    lines = benchmark.report(TABLE).splitlines()
    assert lines[2].split() == ["the", "paper", "361", "6"]
    assert lines[3].split()[-7:] == ["361", "249", "112", "2684", "6", "4", "27"]
