"""Text as columns: every field against a plain loop that splits the lines."""

import contextlib
import gzip
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candi_cli.errors import ReadsError
from candi_cli.io import columns
from candi_cli.io.columns import LineError, Lines, name_runs, read_lines

SKIPPED = (b"#", b"track", b"browser")
LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))
FIELD = st.text(LETTERS, max_size=12)
FIRST_FIELD = st.text(LETTERS, min_size=1, max_size=12)
COMMENT = st.text(LETTERS, max_size=20).map("#{}".format)
ROW = st.builds(lambda first, others: "\t".join([first, *others]), FIRST_FIELD, st.lists(FIELD, min_size=1, max_size=6))
TEXT = st.builds(
    lambda lines, end, last: (end.join(lines) + (end if last else "")).encode(),
    st.lists(ROW | ROW | ROW | COMMENT | st.just(""), max_size=25),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)


def split_loop(text: bytes) -> list[tuple[int, list[bytes]]]:
    """Return the number and the fields of each line that holds any, by Python's own split."""
    rows = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        stripped = line.removesuffix(b"\r")
        if stripped and not stripped.startswith(SKIPPED):
            rows.append((number, stripped.split(b"\t")))
    return rows


def read(path: Path) -> Iterator[Lines]:
    return read_lines(path, ReadsError, what="a test")


def written(tmp_path_factory: pytest.TempPathFactory, text: bytes, *, packed: bool = False) -> Path:
    path = tmp_path_factory.getbasetemp() / "columns.txt"
    path.write_bytes(gzip.compress(text, 1) if packed else text)
    return path


@settings(max_examples=300)
@example(b"chr1\t5\n# comment\nchr1\t6", 1, False)
@example(b"chr1\t5\r\n\r\nchr1\t6\r\n", 4, True)
@given(TEXT, st.sampled_from([1, 2, 7, 40, 1 << 20]), st.booleans())
def test_fields_and_numbers_of_lines_are_those_of_a_split_loop(tmp_path_factory, text, piece, packed):
    path = written(tmp_path_factory, text, packed=packed)
    expected = split_loop(text)
    width = min((len(fields) for _, fields in expected), default=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_PIECE", piece)
        found = [
            (int(lines.numbers[row]), int(lines.n_fields[row]), [lines.texts(column)[row] for column in range(width)])
            for lines in read(path)
            for row in range(len(lines))
        ]
    assert found == [(number, len(fields), fields[:width]) for number, fields in expected]


@settings(max_examples=200)
@given(TEXT, st.integers(0, 6))
def test_the_first_line_that_lacks_a_column_is_told(text, column):
    text = text.rstrip(b"\r\n") + b"\n"
    lines, expected = Lines(text, 1), split_loop(text)
    short = [number for number, fields in expected if len(fields) <= column]
    if not short:
        assert len(lines.texts(column)) == len(expected)
        return
    with pytest.raises(LineError, match=f"at least {column + 1} are needed") as caught:
        lines.texts(column)
    assert lines.numbers[caught.value.line] == short[0]


WHOLE = st.integers(-(10**18) + 1, 10**18 - 1)
NOT_WHOLE = st.sampled_from(
    [
        "",
        "-",
        "--5",
        "5-",
        "+5",
        "1.0",
        "1e3",
        " 5",
        "5 ",
        "x",
        "0x1",
        "1_000",
        "5\r5",
        "\u0661",
        "9" * 19,
        "-" + "9" * 19,
    ]
)


@settings(max_examples=200)
@given(st.lists(WHOLE, min_size=1, max_size=30), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whole_numbers_are_read_as_python_reads_them(values, end, last_column):
    rest = "" if last_column else "\tx"
    lines = Lines("".join(f"chr1\t{value}{rest}{end}" for value in values).encode(), 1)
    found = lines.integers(1)
    assert found.dtype == np.int64
    assert found.tolist() == values


@given(st.lists(WHOLE, max_size=8), NOT_WHOLE, st.lists(WHOLE | NOT_WHOLE, max_size=8), st.booleans())
def test_the_first_field_that_is_no_whole_number_is_refused_with_its_line(before, wrong, after, negative_zeros):
    padded = ["-000", "00017"] if negative_zeros else []
    fields = [*padded, *before, wrong, *after]
    lines = Lines("".join(f"#c\nchr1\t{field}\tx\n" for field in fields).encode(), 100)
    with pytest.raises(LineError, match="is not a whole number") as caught:
        lines.integers(1)
    assert lines.numbers[caught.value.line] == 100 + 2 * (len(padded) + len(before)) + 1


def test_numbers_of_nineteen_digits_are_refused_as_they_would_not_all_fit():
    assert Lines(b"c\t999999999999999999\n", 1).integers(1).tolist() == [10**18 - 1]
    with pytest.raises(LineError, match="'1000000000000000000' is not a whole number"):
        Lines(b"c\t1000000000000000000\n", 1).integers(1)


NUMBERS = (
    st.floats().map(repr)
    | st.floats(width=32).map("{:g}".format)
    | st.integers(-(10**25), 10**25).map(str)
    | st.sampled_from(["nan", "NaN", "-inf", "Infinity", "1e400", ".5", "5.", "1E-300", "+2", "-0"])
)
NOT_NUMBERS = st.sampled_from(["", ".", "NA", "1,5", "--1", "1e", "0x1p3", "x", "1 2", "é", "\u0661"])


@settings(max_examples=300)
@given(st.lists(NUMBERS, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_numbers_are_read_as_python_reads_them(fields, end):
    found = Lines("".join(f"c\t{field}{end}" for field in fields).encode(), 1).reals(1)
    np.testing.assert_array_equal(found, [float(field) for field in fields])


@settings(max_examples=200)
@given(st.lists(NUMBERS | NOT_NUMBERS | st.text(LETTERS, max_size=6), min_size=1, max_size=12))
def test_the_first_field_that_is_no_number_is_refused_with_its_line(fields):
    wrong = [number for number, field in enumerate(fields) if not is_number(field.encode())]
    lines = Lines("".join(f"c\t{field}\n" for field in fields).encode(), 5)
    if not wrong:
        np.testing.assert_array_equal(lines.reals(1), [float(field) for field in fields])
        return
    with pytest.raises(LineError, match="is not a number") as caught:
        lines.reals(1)
    assert lines.numbers[caught.value.line] == 5 + wrong[0]


def is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("header", ["", "#c c\n", "browser position chr1\ntrack name=x\n"])
@pytest.mark.parametrize("piece", [5, 1 << 20])
def test_fields_that_spaces_separate_are_those_of_split(tmp_path, monkeypatch, header, piece):
    path = tmp_path / "a"
    rows = [["chr1", "5", "60"], ["chr1", "-7", "8", "a", "0", "-"], ["chrX", "1", "2"]]
    path.write_text(header + "\r\n".join("  ".join(row) for row in rows) + "\n")
    monkeypatch.setattr(columns, "_PIECE", piece)
    found = [
        [lines.texts(column)[row].decode() for column in range(3)] for lines in read(path) for row in range(len(lines))
    ]
    assert found == [row[:3] for row in rows]
    assert [int(n) for lines in read(path) for n in lines.n_fields] == [3, 6, 3]
    assert [number for lines in read(path) for number in lines.numbers] == [header.count("\n") + n for n in (1, 2, 3)]


@pytest.mark.parametrize("packed", [False, True])
def test_lines_longer_than_a_piece_are_read_whole(tmp_path_factory, monkeypatch, packed):
    texts = [f"chr1\t{number}\t{'x' * number}" for number in (0, 5_000, 3, 100_000)]
    path = written(tmp_path_factory, "\n".join(texts).encode(), packed=packed)
    monkeypatch.setattr(columns, "_PIECE", 1_000)
    found = [text for lines in read(path) for text in lines.texts(2)]
    assert [len(text) for text in found] == [0, 5_000, 3, 100_000]


@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzip", "two members"])
def test_lines_are_the_same_however_they_are_packed(tmp_path, packed):
    text = b"".join(b"chr%d\t%d\t%d\n" % (row % 3, row, row * 2) for row in range(30_000))
    path = tmp_path / "a"
    if packed == "bgzip":
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(text)
    else:
        members = {"plain": text, "gzip": gzip.compress(text)}
        half = len(text) // 2 + 3
        path.write_bytes(members.get(packed) or gzip.compress(text[:half]) + gzip.compress(text[half:]))
    pieces = list(read(path))
    np.testing.assert_array_equal(np.concatenate([lines.integers(2) for lines in pieces]), 2 * np.arange(30_000))
    np.testing.assert_array_equal(np.concatenate([lines.numbers for lines in pieces]), 1 + np.arange(30_000))


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_truncated_gzip_is_refused_as_such(tmp_path, rng, part):
    packed = gzip.compress(b"".join(b"chr1\t%d\n" % value for value in rng.integers(0, 10**9, 20_000)))
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: int(len(packed) * part)])
    with pytest.raises(ReadsError, match=rf"^{re.escape(str(path))}: damaged or truncated .*; fetch it again$"):
        list(read(path))


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_gzip_with_a_flipped_byte_is_refused(tmp_path, rng, part):
    packed = bytearray(gzip.compress(b"".join(b"chr1\t%d\n" % value for value in rng.integers(0, 10**9, 20_000))))
    packed[int(len(packed) * part)] ^= 0xFF
    path = tmp_path / "flipped.gz"
    path.write_bytes(packed)
    with pytest.raises(ReadsError, match="damaged"):
        list(read(path))


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(ReadsError, match=r"none: no such file; check the path"):
        list(read(tmp_path / "none"))
    with pytest.raises(ReadsError, match=r"Is a directory; give a test"):
        list(read(tmp_path))


@pytest.mark.parametrize("text", ["", "\n", "\r\n\r\n", "#c\n", "#c"])
def test_files_without_data_have_no_lines(tmp_path, text):
    (tmp_path / "a").write_text(text)
    assert sum(len(lines) for lines in read(tmp_path / "a")) == 0


@given(st.lists(st.sampled_from("abc") | st.text("xyz", min_size=1, max_size=2), max_size=40), st.booleans())
def test_lines_are_grouped_by_name_in_the_order_of_the_names_first_lines(names, many):
    names = names * 1_100 if many and len(set(names)) > 1 else names  # more than 1,000 changes take another way
    expected: dict[str, list[int]] = {}
    for line, name in enumerate(names):
        expected.setdefault(name, []).append(line)
    found = [(name, lines.tolist()) for name, lines in name_runs(np.array(names, dtype="S2"))] if names else []
    assert found == list(expected.items())


def test_no_lines_have_no_names():
    assert list(name_runs(np.zeros(0, dtype="S4"))) == []


@pytest.mark.parametrize("row", ["chr1\t5\t60\tmy read\t0\t-", "chr1\t5\t60\t\t0\t-"], ids=["a space", "empty"])
def test_a_track_line_leaves_the_fields_of_tab_separated_lines_alone(tmp_path, row):
    path = tmp_path / "a"
    path.write_text(f"track name=x\n{row}\n")
    (lines,) = read(path)
    assert lines.texts(5).tolist() == [b"-"]


def test_lines_of_blanks_hold_no_data(tmp_path):
    (tmp_path / "a").write_text("chr1\t5\n \t \nchr1\t6\n  \n")
    (lines,) = read(tmp_path / "a")
    assert lines.integers(1).tolist() == [5, 6]


def test_one_long_field_does_not_take_memory_for_every_line(tmp_path):
    text = b"".join(b"chr1\t%d\n" % row for row in range(20_000)) + b"x" * 1_000 + b"\t5\n"
    lines = Lines(text, 1)
    tracemalloc.start()
    with contextlib.suppress(LineError):  # it may as well be refused
        lines.texts(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(text)
