"""The page as html.parser reads it: nothing from elsewhere, no script, every link to a file, names as given."""

import re
from base64 import b64decode
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pytest
from pages import Reader

from candi_cli.genome import Region
from candi_cli.report.appearance import colour
from candi_cli.report.hub import write_hub
from candi_cli.report.igv import write_igv_session
from candi_cli.report.manifest import write_manifest
from candi_cli.report.page import write_page

PNG = b"\x89PNG\r\n\x1a\n not a whole picture"


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
    cells = Reader(written).texts
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
    cells = Reader(written).texts
    start = cells.index("assay")
    assert cells[start : start + 4] == ["assay", "bins", "coverage", "note"]
    assert cells[start + 4 : start + 8] == ["<H3K4me3>", "1,868,400", "0.9012", "not known"]


def opening(delivery):
    """The first sentence of a page."""
    page = Reader(write_page(delivery, None, "", []).read_text(encoding="utf-8"))
    return " ".join(page.words.split()).partition("Denoised assays")[0]


def test_the_page_says_where_was_predicted_of_each_biosample(delivery):
    assert opening(delivery).endswith(
        'over chr21 (46,709,983 bp of hg38) of <grp1>&"x"; chr1:1,001-2,500, chr21:1-75 (1,575 bp of hg38) of a-b. '
    )
    alike = replace(delivery, regions=dict.fromkeys("xy", delivery.regions["a-b"]))
    assert opening(alike).endswith("over chr1:1,001-2,500, chr21:1-75 (1,575 bp of hg38). ")


def test_a_whole_genome_is_named_so_and_many_regions_are_cut_short(delivery):
    whole = [Region(chrom, 0, length) for chrom, length in delivery.chromsizes.items()]
    assert opening(replace(delivery, regions={"x": whole}, genome=None)).endswith(
        f"over all 2 chromosomes ({sum(delivery.chromsizes.values()):,} bp). "
    )
    many = [Region("chr1", start, start + 25) for start in range(0, 5_000, 50)]
    told = opening(replace(delivery, regions={"x": many}))
    assert "chr1:1-25, chr1:51-75, " in told
    assert told.endswith(" and 76 more (2,500 bp of hg38). ")
    assert told.count("chr1:") == 24


def test_the_summary_has_its_caption_and_numbers_below_their_names(delivery):
    summary = [{"assay": "CTCF", "bins": 5}]
    page = Reader(write_page(delivery, None, "", summary, summary_caption="Over <all> bins.").read_text("utf-8"))
    assert "Over <all> bins." in page.words
    start = page.texts.index("assay")
    assert page.texts[start : start + 4] == ["assay", "bins", "CTCF", "5"]
    kinds = [attributes.get("class") for tag, attributes in page.elements if tag in ("td", "th")]
    assert kinds[:4] == [None, "number", None, "number"]


def test_one_read_is_one_read_and_one_byte_one_byte(delivery):
    (delivery.folder / "table.tsv").write_bytes(b"\n")
    experiments = [{**delivery.experiments[0], "asked": {"depth": 1.0}}]
    cells = Reader(write_page(replace(delivery, experiments=experiments), None, "", []).read_text("utf-8")).texts
    assert "1 read" in cells
    assert cells[cells.index("table.tsv") + 2] == "1 byte"


def test_a_model_whose_assays_are_not_known_is_not_said_to_know_any(delivery, written):
    assert "H3K4me3, CTCF, <new>" in Reader(written).texts
    text = write_page(replace(delivery, model={**delivery.model, "assays": []}), None, "", []).read_text("utf-8")
    assert "assays it knows" not in text


def test_denoised_and_imputed_have_the_colours_of_their_tracks(delivery, written):
    for observed, way in ((True, "denoised"), (False, "imputed")):
        assert f".{way} {{ background: rgb({colour('mean', observed)}); }}" in written
    dots = [attributes["class"] for tag, attributes in Reader(written).elements if tag == "span"]
    dots = [name for name in dots if name.startswith("dot ")]
    assert dots == ["dot denoised", "dot imputed"] * 2


def test_sizes_are_readable_and_checksums_short(delivery, written):
    cells = Reader(written).texts
    row = cells.index("table.tsv")
    n_bytes = (delivery.folder / "table.tsv").stat().st_size
    assert 10_000 <= n_bytes < 20_000
    assert cells[row + 2] == f"{n_bytes / 1000:.1f} kB".replace(".0 kB", " kB")
    assert re.fullmatch("[0-9a-f]{12}", cells[row + 3])
    assert cells[cells.index("called.narrowPeak.gz") + 1] == '<grp1>&"x", H3K4me3, denoised: peaks, as called'
    assert cells[cells.index("a-b.bedGraph.gz") + 1] == "a-b, CTCF, imputed: reads per bin, mean"
    assert cells[cells.index("signal.median.bw") + 1] == '<grp1>&"x", H3K4me3, denoised: -log10 p, median'
    assert cells[row + 1] == ""


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
