"""Tables of scores as TSV and JSON."""

import csv
import io
import json
import math

from candi_cli.judging.table import COLUMNS, Row, chosen, tsv

ROWS = [
    Row(
        "cell", "H3K4me3", "imputed", "signal", "genome", "model", "mse", 0.123456789, 0.01, 40, "a\tnote\nof two lines"
    ),
    Row("cell", "H3K4me3", "imputed", "signal", "genome", "model", "r2", math.nan, note="no bins"),
    Row("cell", "H3K9me3", "denoised", "counts", "genome", "input", "nll", math.inf, n=3),
]


def test_a_tsv_has_a_line_of_as_many_cells_for_each_row():
    read = list(csv.DictReader(io.StringIO(tsv(ROWS)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(read) == len(ROWS)
    assert tuple(read[0]) == COLUMNS
    assert [each["value"] for each in read] == ["0.123457", "NA", "NA"]
    assert [each["standard_error"] for each in read] == ["0.01", "NA", "NA"]
    assert [each["n"] for each in read] == ["40", "0", "3"]
    assert read[0]["note"] == "a note of two lines"


def test_json_has_the_same_columns_and_null_for_what_is_no_number():
    plain = [json.loads(json.dumps(row.to_json(), allow_nan=False)) for row in ROWS]
    assert all(tuple(each) == COLUMNS for each in plain)
    assert [each["value"] for each in plain] == [0.123456789, None, None]


def test_rows_are_chosen_by_their_columns():
    assert chosen(ROWS, assay="H3K4me3", score="r2") == [ROWS[1]]
    assert chosen(ROWS) == ROWS
    assert chosen(ROWS, pool="given") == []
