"""The sample sheet and the covariates: what is read, what is refused and how, and what the arrays hold."""

import csv
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candi_cli.covariates import (
    COLUMNS,
    MASKED,
    MISSING,
    PLATFORMS,
    RUN_TYPES,
    UNKNOWN,
    Covariates,
    Experiment,
    encode,
    match_reads,
    parse_depth,
    parse_platform,
    parse_request,
    read_sheet,
)
from candi_cli.errors import SheetError

TEST_DATA = Path(__file__).parents[1] / "test_data"
KNOWN_PLATFORMS = PLATFORMS[3:]


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    """Write rows of cells as a sheet in an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(*rows: str, newline: str = "\n", start: str = "") -> Path:
        path = tmp_path / "sheet.tsv"
        text = start + "".join("\t".join(row.split(" ")) + newline for row in rows)
        path.write_bytes(text.encode())
        return path

    return write


def problems(path: Path) -> list[str]:
    """Return the lines of the error that a sheet raises, without the sheet's path."""
    with pytest.raises(SheetError) as caught:
        read_sheet(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_the_sheet_of_the_test_data_reads_as_its_cells_say():
    with (TEST_DATA / "meta.tsv").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    experiments = read_sheet(TEST_DATA / "meta.tsv")
    assert len(experiments) == len(rows)
    for experiment, row in zip(experiments, rows, strict=True):
        cells = {name: None if cell == "NA" else cell for name, cell in row.items()}
        assert (experiment.biosample, experiment.assay) == (cells["biosample"], cells["assay"])
        for name in ("file", "signal", "peaks"):
            assert getattr(experiment, name) == (TEST_DATA / cells[name] if cells[name] else None)
        stated = experiment.covariates
        assert stated.depth == (float(cells["depth"]) if cells["depth"] else None)
        assert stated.read_length == (float(cells["read_length"]) if cells["read_length"] else None)
        assert (stated.run_type, stated.platform, stated.span_bp) == (cells["run_type"], cells["platform"], None)


@pytest.mark.parametrize("cell", ["NA", "N/A", "na", "n/a", ".", "", "  "])
def test_every_way_to_say_not_known_means_none(tmp_path, cell):
    path = tmp_path / "sheet.tsv"
    path.write_text("\t".join(COLUMNS) + "\n" + "\t".join(["b", "H3K4me3"] + [cell] * (len(COLUMNS) - 2)) + "\n")
    assert read_sheet(path) == [Experiment("b", "H3K4me3")]


def test_windows_line_ends_a_byte_order_mark_blank_lines_and_short_rows_change_nothing(sheet):
    rows = ["biosample assay depth read_length", "b one 5M 50", "b two NA NA"]
    plain = read_sheet(sheet(*rows))
    assert [experiment.covariates for experiment in plain] == [Covariates(5e6, 50.0), Covariates()]
    assert read_sheet(sheet(*rows, newline="\r\n")) == plain
    assert read_sheet(sheet(*rows, start="\ufeff")) == plain
    assert read_sheet(sheet(rows[0], "", rows[1], "", "b two", "")) == plain


def test_columns_may_stand_in_any_order(sheet):
    assert read_sheet(sheet("depth assay biosample", "7 H3K4me3 b")) == read_sheet(
        sheet("biosample assay depth", "b H3K4me3 7")
    )


def test_all_problems_are_reported_at_once_each_with_its_line_and_column(sheet):
    path = sheet(
        "biosample assay depth read_length run_type",
        "b fine 5M 50 single-ended",
        "b bad 0 long both",
        "NA NA 1 50 NA",
        "b fine NA NA NA",
        "b many 1 50 paired-ended extra",
    )
    found = problems(path)
    expected = ["3: depth", "3: read_length", "3: run_type", "4: biosample", "4: assay", "5: assay", "6: 6 fields"]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected
    assert all("; " in line for line in found), "a problem without its remedy"


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("depth", "0"),
        ("depth", "-5"),
        ("depth", "0.4"),
        ("depth", "many"),
        ("depth", "1e999"),
        ("depth", "5T"),
        ("depth", "nan"),
        ("read_length", "50bp"),
        ("read_length", "0"),
        ("read_length", "-36"),
        ("read_length", "nan"),
        ("read_length", "inf"),
        ("read_length", "2x50"),
        ("run_type", "both"),
        ("run_type", "missing"),
        ("run_type", "unknown"),
        ("assay", "a/b"),
        ("biosample", ".hidden"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_line_column_and_text(sheet, column, cell):
    cells = {"biosample": "b", "assay": "a", column: cell}
    (line,) = problems(sheet(" ".join(cells), " ".join(cells.values())))
    assert line.startswith(f"2: {column}: {cell!r} ")


def test_unknown_missing_and_doubled_columns_are_all_told_on_the_line_of_the_header(sheet):
    found = problems(sheet("", "biosample biosample dept", "b b 5"))
    assert [line.split(":")[:2] for line in found] == [["2", " dept"], ["2", " biosample"], ["2", " assay"]]
    assert all(column in found[0] for column in COLUMNS)
    assert "twice" in found[1]
    assert "not there" in found[2]


def test_a_duplicate_row_names_the_line_it_repeats(sheet):
    (line,) = problems(sheet("biosample assay", "b x", "c x", "b y", "b x"))
    assert line.startswith("5: assay: b/x was on line 2 already")


@pytest.mark.parametrize("rows", [[], ["biosample assay"], ["", ""]], ids=["empty", "header alone", "blank"])
def test_a_sheet_without_experiments_is_refused(sheet, rows):
    path = sheet(*rows)
    with pytest.raises(SheetError, match=rf"^{re.escape(str(path))}: no experiment in it;"):
        read_sheet(path)


def test_what_is_not_a_text_file_is_refused_by_path(tmp_path):
    for path in (tmp_path / "none.tsv", tmp_path, TEST_DATA / "sim1.control.bam"):
        with pytest.raises(SheetError, match=rf"^{re.escape(str(path))}: "):
            read_sheet(path)


def test_the_control_column_and_the_control_row_give_the_same_experiments(sheet):
    by_column = read_sheet(sheet("biosample assay file control", "b x x.bam c.bam", "b y y.bam c.bam", "c x z.bam NA"))
    by_row = read_sheet(sheet("biosample assay file", "b control c.bam", "b x x.bam", "b y y.bam", "c x z.bam"))
    assert {experiment.name: experiment for experiment in by_column} == {item.name: item for item in by_row}
    assert [experiment.name for experiment in by_row if experiment.is_control] == ["b/control"]


@pytest.mark.parametrize("spelling", ["control", "Control", "ChIP-control", "chip-control"])
def test_every_spelling_of_control_is_the_control(sheet, spelling):
    assert [row.name for row in read_sheet(sheet("biosample assay", f"b {spelling}"))] == ["b/control"]


def test_a_control_of_a_control_and_two_controls_of_a_biosample_are_refused(sheet):
    (line,) = problems(sheet("biosample assay file control", "b control c.bam d.bam"))
    assert line.startswith("2: control: ")
    (line,) = problems(sheet("biosample assay control", "b x c.bam", "b y d.bam"))
    assert line.startswith("3: ")
    assert "b/control was on line 2" in line


def test_a_file_is_found_as_given_then_beside_the_sheet_and_else_kept_as_given(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "beside").mkdir()
    for name in ("here/a.bam", "beside/a.bam", "beside/b.bam"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "beside" / "sheet.tsv"
    absolute = tmp_path / "nowhere.bam"
    path.write_text(f"biosample\tassay\tfile\nb\ta\ta.bam\nb\tb\tb.bam\nb\tc\tc.bam\nb\td\t{absolute}\n")
    assert [row.file for row in read_sheet(path)] == [
        Path("a.bam"),
        tmp_path / "beside" / "b.bam",
        Path("c.bam"),
        absolute,
    ]


CELL = st.one_of(
    st.sampled_from(
        ["NA", "", "5M", "50", "paired-ended", "control", "b", "x.bam", "~", "~none/x", "..", "/", '"', "é"]
    ),
    st.text(max_size=8),
)
SHEETS = st.one_of(
    st.text(),
    st.lists(st.lists(CELL, max_size=5).map("\t".join), max_size=5).map(
        lambda rows: "\n".join(["biosample\tassay\tfile\tdepth\tcontrol", *rows])
    ),
).map(str.encode)


@settings(deadline=None)
@example(b"biosample\tassay\tfile\nb\ta\t~no-such-user/x.bam\n")
@example(b"biosample\tassay\tfile\nb\ta\t" + b"x" * 300 + b"\n")
@example(b"biosample\tassay\tfile\nb\ta\tx\x00y\n")
@example(b"biosample\tassay\nb\t" + b"x" * 200_000 + b"\n")
@example("biosample\tassay\nb\ta\n".encode("utf-16"))
@given(st.one_of(SHEETS, st.binary()))
def test_any_file_is_read_or_refused_as_a_sheet(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    try:
        experiments = read_sheet(path)
    except SheetError:
        return
    names = [experiment.name for experiment in experiments]
    assert len(set(names)) == len(names) > 0
    assert all(experiment.biosample and experiment.assay for experiment in experiments)


@given(st.integers(1, 10**6))
def test_a_depth_reads_the_same_in_every_notation(reads):
    for text in (str(reads), f"{reads:,}", f"{reads}.0", f"{reads:.10e}".replace("e+", "e"), f"{reads:.10E}"):
        assert parse_depth(text) == reads
    for unit, factor in (("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)):
        assert parse_depth(f"{reads}{unit}") == parse_depth(f"{reads}{unit.swapcase()}") == reads * factor
        if reads >= factor:
            assert parse_depth(f"{reads / factor:.9f}{unit}") == pytest.approx(reads, rel=1e-9)


def test_vocabularies_begin_with_their_tokens_and_name_each_thing_once():
    for vocabulary in (RUN_TYPES, PLATFORMS):
        assert len({name.lower() for name in vocabulary}) == len(vocabulary)
        assert [vocabulary[token] for token in (MISSING, UNKNOWN, MASKED)] == ["missing", "unknown", "masked"]


@pytest.mark.parametrize("name", KNOWN_PLATFORMS)
def test_a_platform_is_known_by_its_usual_spellings(name):
    short = name.removeprefix("Illumina ")
    for spelling in (
        name,
        name.upper(),
        name.lower(),
        name.replace(" ", "_"),
        name.replace(" ", ""),
        short,
        f" {short}",
    ):
        assert parse_platform(spelling) == name


@given(st.text())
def test_no_text_is_an_error_as_a_platform_and_tokens_are_not_platforms(text):
    assert parse_platform(text) in {None, *KNOWN_PLATFORMS}
    for token in ("missing", "unknown", "masked", "Illumina", "", "HiSeq"):
        assert parse_platform(token) is None


def test_a_platform_outside_of_the_vocabulary_is_not_known_and_no_problem(sheet):
    (experiment,) = read_sheet(sheet("biosample assay platform", "b x PacBio_RS_II"))
    assert experiment.covariates == Covariates()


def test_a_request_reads_as_the_same_cells_of_a_sheet_do(sheet):
    (experiment,) = read_sheet(sheet("biosample assay depth read_length run_type platform", "b x 50M 36 SE hiseq_4000"))
    assert parse_request("depth=50M, read_length=36,run_type=SE,platform=hiseq_4000") == experiment.covariates
    assert parse_request("run_type=pe") == Covariates(run_type="paired-ended")


@pytest.mark.parametrize(
    "text",
    ["", "depth", "depth=", "depth=0", "reads=5M", "depth=5M,depth=6M", "platform=abacus", "span_bp=5", "depth=NA"],
)
def test_a_request_that_says_nothing_or_something_else_is_refused(text):
    with pytest.raises(ValueError):
        parse_request(text)


@given(st.sets(st.sampled_from(["depth", "read_length", "run_type", "platform", "span_bp"])))
def test_filling_takes_from_the_other_only_what_is_not_known(names):
    mine = {"depth": 1.0, "read_length": 2.0, "run_type": "paired-ended", "platform": "a", "span_bp": 5.0}
    other = {"depth": 6.0, "read_length": 7.0, "run_type": "single-ended", "platform": "b", "span_bp": 9.0}
    filled = Covariates(**{name: mine[name] for name in names}).filled(Covariates(**other))
    assert filled == Covariates(**{name: mine[name] if name in names else other[name] for name in mine})


def experiments(*rows: tuple[str, str, str | None]) -> list[Experiment]:
    return [Experiment(biosample, assay, Path(file) if file else None) for biosample, assay, file in rows]


ROWS = experiments(
    ("b", "x", "one/x.bam"), ("b", "control", "one/c.bam"), ("c", "x", "two/x.bam"), ("c", "y", "two/y.bam")
)


def match(rows: list[Experiment], *reads: str) -> list[tuple[str, Path | None]]:
    return [(row.name, row.file) for row in match_reads(rows, [Path(path) for path in reads], sheet=Path("s.tsv"))]


def test_reads_are_matched_by_path_before_base_name_and_bring_the_control_of_their_biosample():
    assert match(ROWS, "two/x.bam") == [("c/x", Path("two/x.bam"))]
    assert match(ROWS, "one/x.bam") == [("b/x", Path("one/x.bam")), ("b/control", Path("one/c.bam"))]
    assert match(ROWS, "moved/y.bam") == [("c/y", Path("moved/y.bam"))]
    assert match(ROWS, "moved/c.bam", "one/x.bam") == [("b/control", Path("moved/c.bam")), ("b/x", Path("one/x.bam"))]


def test_reads_are_matched_to_the_file_they_are_under_another_path(tmp_path):
    (tmp_path / "reads.bam").touch()
    (tmp_path / "link.bam").symlink_to(tmp_path / "reads.bam")
    rows = experiments(("b", "x", str(tmp_path / "reads.bam")), ("b", "y", "elsewhere/link.bam"))
    assert match(rows, str(tmp_path / "link.bam")) == [("b/x", tmp_path / "link.bam")]


def test_without_reads_every_row_is_taken_and_a_row_without_a_file_is_refused():
    assert match(ROWS) == [(row.name, row.file) for row in ROWS]
    with pytest.raises(SheetError, match=r"^s.tsv: file: not given for b/y;"):
        match([*ROWS, *experiments(("b", "y", None))])


def test_one_row_needs_no_file_column():
    rows = experiments(("b", "x", None), ("b", "control", "c.bam"))
    assert match(rows, "any.bam") == [("b/x", Path("any.bam")), ("b/control", Path("c.bam"))]


@pytest.mark.parametrize(
    ("rows", "reads", "fact"),
    [
        (ROWS, ["moved/x.bam"], "moved/x.bam matches 2 rows"),
        (ROWS, ["z.bam"], "z.bam matches no row"),
        (ROWS, ["one/x.bam", "other/z.bam"], "other/z.bam matches no row"),
        (ROWS, ["two/y.bam", "moved/y.bam"], "one row matches two of the files given"),
        (experiments(("b", "x", None), ("b", "y", None)), ["any.bam"], "any.bam matches no row"),
        (experiments(("b", "x", None)), ["a.bam", "b.bam"], "a.bam matches no row"),
        (experiments(("b", "x", "x.bam")), ["y.bam"], "y.bam matches no row"),
    ],
)
def test_reads_that_do_not_name_one_row_are_refused_by_name(rows, reads, fact):
    with pytest.raises(SheetError, match=rf"^s.tsv: file: {fact};"):
        match(rows, *reads)


def test_the_arrays_hold_logarithms_and_ids_of_what_is_known():
    known = [
        Covariates(2.0**20, 64.0, run_type, platform, 1e9)
        for run_type, platform in product(RUN_TYPES[3:], KNOWN_PLATFORMS)
    ]
    values = encode(known)
    assert values.shape == (4, len(known))
    assert (values[0] == 20).all()
    assert (values[1] == 6).all()
    assert [RUN_TYPES[int(token)] for token in values[2]] == [item.run_type for item in known]
    assert [PLATFORMS[int(token)] for token in values[3]] == [item.platform for item in known]


@given(
    depth=st.none() | st.floats(1, 1e12),
    read_length=st.none() | st.floats(2, 1e5),
    run_type=st.none() | st.sampled_from(RUN_TYPES[3:]),
    platform=st.none() | st.sampled_from(KNOWN_PLATFORMS),
    span_bp=st.none() | st.floats(1, 1e11),
)
def test_what_is_not_known_is_nan_or_unknown_and_never_the_number_zero(depth, read_length, run_type, platform, span_bp):
    known, missing = encode([Covariates(depth, read_length, run_type, platform, span_bp), None]).T
    assert math.isnan(known[0]) == (depth is None or span_bp is None)
    assert math.isnan(known[1]) == (read_length is None)
    assert (known[2] == UNKNOWN) == (run_type is None)
    assert (known[3] == UNKNOWN) == (platform is None)
    np.testing.assert_array_equal(missing, [np.nan, np.nan, MISSING, MISSING])
    assert len({MISSING, UNKNOWN, MASKED}) == 3
    assert not {MISSING, MASKED} & set(known[2:].tolist())


@given(st.floats(1e3, 1e10), st.floats(1e5, 1e10), st.floats(1e-3, 1e3))
def test_a_depth_means_the_same_over_a_part_of_the_genome_as_over_the_whole(depth, span_bp, part):
    whole, cut = encode(
        [Covariates(depth=depth, span_bp=span_bp), Covariates(depth=depth * part, span_bp=span_bp * part)]
    )[0]
    assert whole == pytest.approx(cut, abs=1e-4)
    assert 2.0 ** float(whole) * span_bp / 1e9 == pytest.approx(depth, rel=1e-4)


def test_no_experiments_make_an_empty_array_of_four_rows():
    assert encode([]).shape == (4, 0)
