"""Reports of judgements, read back by html.parser, json and csv."""

import csv
import json
import math
import re
from base64 import b64decode
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from pages import Reader

from candi_cli.judging.table import COLUMNS, Row
from candi_cli.report.judgement import Estimate, JudgementReport, Table, to_json, to_tsv, write_report
from candi_cli.report.pictures import Bars, Density, Lines, png, svg

BAD = '<i>K562</i> & "x" $a$ 細胞'
NAN = math.nan


@pytest.fixture
def report(rng):
    x = np.linspace(0, 1, 5)
    rows = [
        Row(BAD, "H2A.Z", "imputed", "signal", "genome", "model", "R2", 0.5, 0.01, 100),
        Row(BAD, "H2A.Z", "imputed", "signal", "genome", "average", "R2", 0.25, NAN, 100),
        Row(BAD, "H2A.Z", "imputed", "signal", "promoter", "model", "R2", 0.75, NAN, 10),
        Row("K562.sorted", "CTCF", "denoised", "peaks", "genome", "model", "AUPRC", NAN, note="no peaks <there>"),
        Row("K562.sorted", "CTCF", "denoised", "counts", "genome", "model", "R2", 0.125, NAN, 100),
        Row("K562_counts", "CTCF", "denoised", "counts", "genome", "model", "R2", -math.inf, note="0/0"),
        Row("all", "all", "imputed", "signal", "genome", "model", "R2", 0.9, 0.1, 2),
    ]
    curves = {"a/b.bam": x**2, "a_b": np.where(x > 0.5, np.nan, x), "<c>": np.full(5, np.nan)}
    pictures = [
        Lines("scores", f"Coverage of {BAD}", "Inside <each>.", "level", "coverage", x, curves, True),
        Bars("../R 2", "R2", "By assay.", "R2", ["H2A.Z", BAD], {"model": np.array([0.5, np.nan]), BAD: x[:2]}),
        Density("SCORES", "Seen", "Bins.", "x", "y", x, x, rng.poisson(3.0, (4, 4))),
    ]
    table = Table(
        "Scores <of> signal",
        "Value ± standard error & more.",
        ["assay", "a.b", "bins", "<R2>", "none"],
        [
            {"assay": BAD, "a.b": 0.123456, "bins": np.int64(1868400), "<R2>": Estimate(0.51234, 0.0123)},
            {"assay": "CTCF", "a.b": NAN, "bins": 7, "<R2>": Estimate(12345.6, 210.0)},
            {"assay": "ATAC", "a.b": -1.5, "bins": 0, "<R2>": Estimate(NAN, 0.1), "none": Estimate(2e-9, 1e-9)},
            {"assay": "DNase", "a.b": 1e-9, "bins": 1, "<R2>": Estimate(0.25)},
        ],
    )
    return JudgementReport(
        command="calibrate",
        title=f"Calibration of {BAD}",
        subject="Two tracks <on> chr21.",
        rows=rows,
        tables=[table],
        pictures=pictures,
        facts={
            "command": "candi calibrate '<a>.h5'",
            "seed": np.int64(3),
            "model": {"name": "<m>", "loss": NAN},
            "regions": ("chr21",),
        },
        notes=["<x> was trained on & here"],
        how_to_read=["On the <diagonal>."],
    )


@pytest.fixture
def folder(tmp_path, report):
    write_report(tmp_path / "out", report)
    return tmp_path / "out"


@pytest.fixture
def page(folder):
    return Reader((folder / "index.html").read_text(encoding="utf-8"))


def strict(text):
    """Read JSON as its standard has it, without NaN."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def multiqc(folder, name):
    return strict((folder / f"candi_calibrate_{name}_mqc.json").read_text(encoding="utf-8"))


def test_all_files_are_inside_the_folder_and_returned(tmp_path, report):
    paths = write_report(tmp_path / "a" / "b", report)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(paths)
    assert {path.relative_to(tmp_path / "a" / "b").as_posix() for path in paths} == {
        "index.html", "scores.tsv", "scores.json",
        "figures/scores-2.svg", "figures/scores-2.png", "figures/R-2.svg", "figures/R-2.png",
        "figures/SCORES-3.svg", "figures/SCORES-3.png",
        "candi_calibrate_scores_mqc.json", "candi_calibrate_scores-2_mqc.json", "candi_calibrate_R-2_mqc.json",
    }  # fmt: skip


def test_the_same_report_gives_the_same_bytes(tmp_path, report):
    first, second = write_report(tmp_path / "1", report), write_report(tmp_path / "2", report)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figures_are_those_of_the_pictures(folder, report):
    assert (folder / "figures/scores-2.svg").read_bytes() == svg(report.pictures[0])
    assert (folder / "figures/SCORES-3.png").read_bytes() == png(report.pictures[2])


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(folder, page):
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    addresses = page.values("href", "src", "action", "srcset", "background", "poster")
    assert addresses
    for address in addresses:
        assert not re.match(r"(?!data:image/)([a-z][a-z0-9+.-]*:|//|/)", address, re.IGNORECASE), address
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"url\(|@import", text)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:")


def test_every_link_leads_to_a_file_or_a_place_on_the_page(folder, page):
    places = page.values("id")
    assert len(set(places)) == len(places)
    for link in page.values("href"):
        if link.startswith("#"):
            assert link[1:] in places
        else:
            assert (folder / unquote(urlsplit(link).path)).is_file()
    assert set(page.values("aria-describedby")) <= set(places)


def test_each_figure_is_inside_the_page_and_has_words_in_its_place(page, report):
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    for image, picture in zip(images, report.pictures, strict=True):
        assert image["alt"] == f"{picture.title}. {picture.caption}"
        assert b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == svg(picture)


def test_a_figure_that_is_large_as_svg_is_in_the_page_as_png(tmp_path, report):
    x = np.linspace(0, 1, 1001)
    curves = {str(n): np.abs(np.sin((40 + n) * x)) for n in range(40)}
    big = Lines("big", "Big", "", "x", "y", x, curves)
    assert len(svg(big)) > 400_000
    write_report(tmp_path, replace(report, pictures=[big]))
    (source,) = Reader((tmp_path / "index.html").read_text(encoding="utf-8")).values("src")
    assert b64decode(source.removeprefix("data:image/png;base64,")) == png(big)


def test_users_names_are_text_and_not_markup(page):
    assert not {"i", "each", "x", "there", "diagonal", "of", "on", "m", "r2"} & {tag for tag, _ in page.elements}
    for words in (
        f"Calibration of {BAD}", "Two tracks <on> chr21.", "<x> was trained on & here", "Scores <of> signal",
        "Value ± standard error & more.", "Inside <each>.", "no peaks <there>", "On the <diagonal>.", "'<a>.h5'",
        "name: <m>; loss: NA",
    ):  # fmt: skip
        assert words in page.words, words


def test_numbers_stand_at_the_right_with_as_many_digits_as_their_error_allows(page):
    start = page.cells.index(("assay", None))
    rows = [page.cells[start + 5 * n : start + 5 * n + 5] for n in range(5)]
    right = "number"
    assert rows[0] == [("assay", None), ("a.b", right), ("bins", right), ("<R2>", right), ("none", right)]
    empty = ("", None)
    assert rows[1] == [(BAD, None), ("0.1235", right), ("1,868,400", right), ("0.512 ± 0.012", right), empty]
    assert rows[2] == [("CTCF", None), ("NA", right), ("7", right), ("12,346 ± 210", right), empty]
    assert rows[3] == [("ATAC", None), ("-1.5", right), ("0", right), ("NA", right), ("2e-09 ± 1e-09", right)]
    assert rows[4] == [("DNase", None), ("1e-09", right), ("1", right), ("0.25", right), empty]


def test_scores_that_do_not_exist_are_counted_by_reason(page):
    start = page.cells.index(("reason", None))
    counted = {page.cells[start + 2][0]: page.cells[start + 3][0], page.cells[start + 4][0]: page.cells[start + 5][0]}
    assert counted == {"no peaks <there>": "1", "0/0": "1"}


def test_headings_follow_each_other_and_headers_have_a_scope(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")


def test_what_a_report_lacks_is_not_spoken_of(tmp_path, report):
    rows = report.rows[:1]
    bare = JudgementReport("cindex", "C-index", "One track.", rows)
    paths = write_report(tmp_path, bare)
    assert {path.name for path in paths} == {"index.html", "scores.tsv", "scores.json", "candi_cindex_scores_mqc.json"}
    words = Reader((tmp_path / "index.html").read_text(encoding="utf-8")).words
    for heading in ("Notes", "Figures", "How to read", "How it was made", "do not exist"):
        assert heading not in words


def test_json_holds_all_that_was_found_with_null_for_what_is_not_finite(folder, report):
    text = (folder / "scores.json").read_text(encoding="utf-8")
    assert text == to_json(report)
    found = strict(text)
    assert list(found) == ["schema", "command", "subject", "facts", "notes", "rows", "curves"]
    assert found["schema"] == "candi-judgement/1"
    assert found["facts"]["model"] == {"name": "<m>", "loss": None}
    assert found["facts"]["seed"] == 3
    assert found["facts"]["regions"] == ["chr21"]
    for row, entry in zip(report.rows, found["rows"], strict=True):
        finite = {name: entry[name] if entry[name] is not None else NAN for name in ("value", "standard_error")}
        read = Row(**(entry | finite))
        assert read.to_json() == row.to_json()
    lines = found["curves"]["scores"]
    assert lines["kind"] == "lines"
    assert lines["x"] == report.pictures[0].x.tolist()
    assert lines["curves"]["a_b"] == [0.0, 0.25, 0.5, None, None]
    assert found["curves"]["SCORES"]["counts"] == report.pictures[2].counts.tolist()


def test_tsv_has_one_row_for_each_score(folder, report):
    text = (folder / "scores.tsv").read_text(encoding="utf-8")
    assert text == to_tsv(report)
    read = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(read[0]) == COLUMNS
    assert [row[0] for row in read[1:]] == [row.biosample for row in report.rows]
    assert [row[7] for row in read[1:]] == ["0.5", "0.25", "0.75", "NA", "0.125", "NA", "0.9"]


def test_multiqc_gets_a_table_of_the_scores_of_the_model_over_the_genome(folder):
    section = multiqc(folder, "scores")
    assert section["plot_type"] == "table"
    assert section["parent_id"] == "candi"
    assert section["data"] == {
        "\u2039i\u203aK562\u2039 i\u203a & \u201dx\u201d $a$ 細胞 H2A.Z imputed": {"signal_R2": 0.5},
        "K562 sorted CTCF denoised": {"counts_R2": 0.125},
    }
    assert {name: header["title"] for name, header in section["headers"].items()} == {
        "signal_R2": "R2 (signal)", "peaks_AUPRC": "AUPRC (peaks)", "counts_R2": "R2 (counts)",
    }  # fmt: skip
    assert all(header["format"].format(0.51234) == "0.5123" for header in section["headers"].values())


def test_multiqc_gets_curves_as_points_and_bars_by_group(folder):
    section = multiqc(folder, "scores-2")
    assert section["plot_type"] == "linegraph"
    assert section["data"] == {
        "a b bam": {"0.0": 0.0, "0.25": 0.0625, "0.5": 0.25, "0.75": 0.5625, "1.0": 1.0},
        "a b": {"0.0": 0.0, "0.25": 0.25, "0.5": 0.5},
    }
    assert section["pconfig"]["extra_series"][0]["pairs"] == [[0, 0], [1, 1]]
    section = multiqc(folder, "R-2")
    assert section["plot_type"] == "bargraph"
    bad = "\u2039i\u203aK562\u2039/i\u203a & \u201dx\u201d $a$ 細胞"
    assert section["data"] == {"H2A.Z": {"model": 0.5, bad: 0.0}, bad.replace("/", " "): {bad: 0.25}}
    assert section["pconfig"]["stacking"] == "group"


def test_multiqc_sections_have_their_own_names_and_no_letters_of_markup(folder):
    sections = [strict(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*_mqc.json"))]
    assert len({section["id"] for section in sections}) == len({s["pconfig"]["id"] for s in sections}) == 3
    for section in sections:
        assert not re.search(r"[<>]|&\S", json.dumps(section, ensure_ascii=False))
        assert {"id", "section_name", "description", "plot_type", "pconfig", "data"} <= set(section)


def test_multiqc_does_not_cut_names_to_one_another(tmp_path, report):
    """It cuts a name at each of these endings, which are some of its own list."""
    endings = [
        ".bam",
        ".sorted",
        "_counts",
        ".GC.xls",
        "_peaks.xls",
        ".BEST.results",
        "_star_aligned",
        ".trim",
        "| stdin",
    ]
    names = [f"K562{ending} CTCF" for ending in endings] + ["a/K562 CTCF", "b/K562 CTCF", "K562 bam CTCF"]
    groups = Bars("b", "t", "c", "y", names, {"model": np.arange(len(names)) + 0.5})
    write_report(tmp_path, replace(report, pictures=[groups]))
    read = multiqc(tmp_path, "b")["data"]
    assert [bars["model"] for bars in read.values()] == [n + 0.5 for n in range(len(names))]
    for name in read:
        assert not any(ending in name for ending in endings)
        assert "/" not in name
