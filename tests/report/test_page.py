"""The page as html.parser reads it: nothing from elsewhere, no script, every link to a file, names as given."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from candi_cli.report.hub import write_hub
from candi_cli.report.igv import write_igv_session
from candi_cli.report.manifest import write_manifest
from candi_cli.report.page import write_page

PNG = b"\x89PNG\r\n\x1a\n not a whole picture"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and text, and checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.words += data
        if "td" in self._open or "th" in self._open:
            self.cells[-1] += data

    def values(self, *names):
        return [attributes[name] for _, attributes in self.elements for name in names if name in attributes]


@pytest.fixture
def written(delivery):
    """The text of the page beside all other companions."""
    write_manifest(delivery)
    write_hub(delivery)
    write_igv_session(delivery)
    summary = [{"assay": "<H3K4me3>", "bins": 1868400, "coverage": 0.90123}, {"assay": "CTCF", "note": "& more"}]
    return write_page(delivery, PNG, "The <locus> & more.", summary).read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(written):
    page = Reader(written)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    for address in page.values("href", "src", "action", "srcset", "background", "poster"):
        assert not re.match(r"(?!data:image/png)([a-z][a-z0-9+.-]*:|//|/)", address, re.IGNORECASE), address
    assert not re.search(
        r"url\(|@import|https?://|//", "".join(re.findall(r"<style>(.*?)</style>", written, re.DOTALL))
    )


def test_every_link_leads_to_a_file_and_every_file_has_a_link(delivery, written):
    links = {unquote(urlsplit(link).path) for link in Reader(written).values("href")}
    assert all((delivery.folder / link).is_file() for link in links)
    files = {path.relative_to(delivery.folder).as_posix() for path in delivery.folder.rglob("*") if path.is_file()}
    assert files - links == {"index.html", "hub/genomes.txt", "hub/hg38/trackDb.txt"}


def test_users_names_are_text_and_not_markup(written):
    page = Reader(written)
    assert not {"grp1", "h3k4me3", "locus", "m", "new", "x"} & {tag for tag, _ in page.elements}
    assert "<grp1>" not in written
    for name in ('<grp1>&"x"', "<H3K4me3>", "The <locus> & more.", "<m>.safetensors", "<new>", "'<a>.bam'", "<x> & y"):
        assert name in page.words, name


def test_the_figure_is_inside_and_has_words_in_its_place(written):
    ((_, image),) = [element for element in Reader(written).elements if element[0] == "img"]
    assert b64decode(image["src"].removeprefix("data:image/png;base64,")) == PNG
    assert image["alt"]


def test_experiments_say_what_was_given_and_what_was_asked_for(written):
    cells = Reader(written).cells
    start = cells.index("denoised")
    assert cells[start + 1 : start + 6] == [
        "1,234,567",
        "36",
        "single-ended",
        "not known",
        "50,000,000 reads, 100 bp, paired-ended",
    ]
    start = cells.index("imputed")
    assert cells[start + 1] == "none: inferred from other assays"


def test_the_summary_has_a_column_for_each_key_in_any_row(written):
    cells = Reader(written).cells
    start = cells.index("assay")
    assert cells[start : start + 4] == ["assay", "bins", "coverage", "note"]
    assert cells[start + 4 : start + 8] == ["<H3K4me3>", "1,868,400", "0.9012", "not known"]


def test_sizes_are_readable_and_checksums_short(delivery, written):
    cells = Reader(written).cells
    row = cells.index("table.tsv")
    n_bytes = (delivery.folder / "table.tsv").stat().st_size
    assert 10_000 <= n_bytes < 20_000
    assert cells[row + 2] == f"{n_bytes / 1000:.1f} kB".replace(".0 kB", " kB")
    assert re.fullmatch("[0-9a-f]{12}", cells[row + 3])
    assert cells[cells.index("called.narrowPeak.gz") + 1] == "called peaks"


def test_the_interval_is_told_in_words_or_not_at_all(delivery, written):
    words = " ".join(Reader(written).words.split())
    assert "at least 90 % of the bins" in words
    assert "at most 5 %" in words
    plain = write_page(replace(delivery, interval=None), None, "", []).read_text(encoding="utf-8")
    assert "interval:" not in Reader(plain).words


def test_what_was_not_written_is_not_spoken_of(without_genome):
    page = Reader(write_page(without_genome, None, "", []).read_text(encoding="utf-8"))
    assert not any(tag == "img" for tag, _ in page.elements)
    assert not {"manifest.json", "hub/hub.txt", "igv_session.xml"} & set(page.values("href"))
    assert "UCSC" not in page.words
    assert "Summary" not in page.words


def test_where_the_genome_is_unknown_the_reader_is_told_to_choose_it(without_genome):
    write_igv_session(without_genome)
    text = write_page(without_genome, None, "", []).read_text(encoding="utf-8")
    assert "Choose the genome in IGV first" in " ".join(Reader(text).words.split())


def test_headings_colours_and_tables_serve_every_reader(written):
    page = Reader(written)
    assert ("html", {"lang": "en"}) in page.elements
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    assert "prefers-color-scheme: dark" in written
    assert "@media print" in written
