"""What `candi denoise` and `candi impute` write: which files, what is in them, and what goes with them.

The numbers of the predicted distributions are read from the HDF5 output with h5py, and what tracks show of them is
computed anew with scipy.
"""

import base64
import gzip
import hashlib
import itertools
import json
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest
from outcomes import one_line
from scipy.special import expit
from scipy.stats import nbinom, norm

from candi_cli.commands import main
from candi_cli.model import load

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM = TEST_DATA / "sim1.H3K4me3.bam"
SHEET = TEST_DATA / "meta.tsv"
SIZES = {"chr1": 300_010, "chr2": 120_000}
SHARE = 0.8
PLACES = {"chr1": (200_000, 300_010), "chr2": (0, 20_000)}  # one to the end of its chromosome, which ends within a bin
ASSAYS = ("H3K4me3", "H3K36me3")  # the one is denoised, the other imputed
KINDS = {"counts": ("lower", "upper", "sd", "cv", "n", "p"), "signal": ("lower", "upper", "sd", "cv"), "peaks": ()}
COMPANIONS = {"index.html", "manifest.json", "igv_session.xml"}


def files_in(folder: Path) -> set[str]:
    """What lies in a folder and below, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def lines_of(path: Path) -> list[list[str]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [line.split("\t") for line in text.decode().splitlines()]


def bins_of(path: Path, chrom: str, start: int, end: int) -> np.ndarray:
    """The value of each bin of a stretch of a bigWig."""
    with pyBigWig.open(str(path)) as track:
        return np.asarray(track.values(chrom, start, end, numpy=True)[::25], dtype=np.float32)


def bins_of_lines(lines: list[list[str]], chrom: str, start: int, end: int) -> np.ndarray:
    """The value of each bin of a stretch of a bedGraph, NaN where there is none."""
    found = np.full(-(-(end - start) // 25), np.nan, dtype=np.float32)
    for name, first, last, value in lines:
        if name == chrom and start <= int(first) < end:
            assert (int(first) % 25, int(last) <= SIZES[chrom]) == (0, True)
            found[(int(first) - start) // 25 : -(-(int(last) - start) // 25)] = np.float32(value)
    return found


def to_3_digits(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.2e}") for value in values.tolist()], dtype=np.float32)


@pytest.fixture
def few(candi, model_path, pair_store_path, tmp_path):
    """Write tracks of a few bins into the folder `made`."""
    folder = tmp_path / "made"
    folder.mkdir()

    def run(output: str, *options, assay="H3K4me3", region="chr2:1-1,000"):
        place = output if output == "-" else folder / output
        arguments = ("-m", model_path, "--assay", assay, "-o", place, "-r", region, "--quiet")
        return candi("impute", pair_store_path, *arguments, *options)

    return run


# ---- names


EVERY_FORMAT = ("-O", "bigwig", "-O", "bedgraph", "-O", "narrowpeak", "-O", "hdf5")


@pytest.mark.parametrize(
    ("output", "options", "names"),
    [
        ("out.bw", ("--interval", 0.9, "--sd", "--cv"), "out.bw out.lower.bw out.upper.bw out.sd.bw out.cv.bw"),
        ("a.b.bigWig", ("--nb",), "a.b.bigWig a.b.n.bigWig a.b.p.bigWig"),
        ("out.bedGraph.gz", ("--sd",), "out.bedGraph.gz out.sd.bedGraph.gz"),
        ("out.bdg", (), "out.bdg"),
        ("out.h5", ("--track", "counts", "--track", "peaks"), "out.h5"),
        ("out.narrowPeak", (), "out.narrowPeak"),
        ("out.bw", EVERY_FORMAT, "out.bw out.bedGraph.gz out.narrowPeak out.h5"),
        ("out", ("-O", "bigwig", "-O", "hdf5"), "out.bw out.h5"),
        ("out", ("-O", "bedgraph"), "out"),
        ("out.bw", ("-O", "bedgraph", "--sd"), "out.bw out.sd.bw"),
    ],
    ids=str,
)
def test_files_are_named_after_the_output(few, tmp_path, output, options, names):
    ran = few(output, *options)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert files_in(tmp_path / "made") == set(names.split())


def test_a_format_that_is_asked_for_is_written_whatever_the_name(few, tmp_path):
    assert few("out.bw", "-O", "bedgraph").code == 0
    assert few("track.bedGraph").code == 0
    assert (tmp_path / "made" / "out.bw").read_bytes() == (tmp_path / "made" / "track.bedGraph").read_bytes()


@pytest.mark.parametrize(
    ("assay", "options", "names"),
    [
        ("H3K4me3,H3K36me3", ("--sd",), "H3K4me3.bw H3K4me3.sd.bw H3K36me3.bw H3K36me3.sd.bw"),
        ("H3K4me3", ("--track", "signal", "--track", "peaks"), "H3K4me3.signal.bw H3K4me3.peaks.bw"),
        ("H3K4me3", (*EVERY_FORMAT, "--track", "signal", "--track", "peaks", "--cv"),
         "H3K4me3.signal.bw H3K4me3.signal.cv.bw H3K4me3.peaks.bw H3K4me3.signal.bedGraph.gz "
         "H3K4me3.signal.cv.bedGraph.gz H3K4me3.peaks.bedGraph.gz H3K4me3.narrowPeak predictions.h5"),
    ],
    ids=["several assays", "several kinds", "several formats"],
)  # fmt: skip
def test_several_tracks_make_a_folder_with_biosample_assay_kind_and_quantity_in_the_names(
    few, tmp_path, assay, options, names
):
    assert few("tracks", *options, assay=assay).code == 0
    tracks = {name if name.endswith(".h5") else f"sim1.{name}" for name in names.split()}
    assert files_in(tmp_path / "made" / "tracks") == tracks | COMPANIONS
    assert files_in(tmp_path / "made") == {f"tracks/{name}" for name in tracks | COMPANIONS}, "beside the folder"


def test_bedgraph_on_stdout_and_packed_parses_to_the_values_of_the_bigwig(few, tmp_path):
    assert few("out.bw").code == few("out.bedGraph.gz").code == 0
    expected = bins_of(tmp_path / "made" / "out.bw", "chr2", 0, 1_000)
    assert len(np.unique(expected)) > 10
    ran = few("-")
    assert (ran.code, ran.err) == (0, "")
    printed = [line.split("\t") for line in ran.out.splitlines()]
    for lines in (printed, lines_of(tmp_path / "made" / "out.bedGraph.gz")):
        np.testing.assert_array_equal(bins_of_lines(lines, "chr2", 0, 1_000), expected)
        assert all(one[2] <= other[1] or one[3] != other[3] for one, other in itertools.pairwise(lines))


def test_more_digits_are_kept_when_they_are_asked_for(few, tmp_path):
    assert few("few.bedGraph", "--digits", 2).code == few("many.bedGraph", "--digits", 6).code == 0
    few_digits, many = (
        [value for *_, value in lines_of(tmp_path / "made" / f"{name}.bedGraph")] for name in ("few", "many")
    )
    assert max(len(value.lstrip("0.").replace(".", "")) for value in few_digits) == 2
    assert max(len(value.lstrip("0.").replace(".", "")) for value in many) == 6


# ---- what is refused


@pytest.mark.parametrize(
    ("output", "options", "assay", "code", "parts"),
    [
        ("out.bw", (), "H3K4me3,H3K36me3", 2, ["out.bw", "2 tracks", "folder"]),
        ("out.bw", ("--track", "counts", "--track", "peaks"), "H3K4me3", 2, ["out.bw", "2 kinds", "folder"]),
        ("absent/out.bw", (), "H3K4me3", 1, ["absent", "does not exist"]),
        ("absent/tracks", (), "H3K4me3,H3K36me3", 1, ["absent", "does not exist"]),
        ("out.bw", ("--latent", "absent/Z.h5"), "H3K4me3", 1, ["absent", "does not exist"]),
        ("-", ("--provenance", "absent/p.json"), "H3K4me3", 1, ["absent", "does not exist"]),
        ("-", ("-O", "hdf5"), "H3K4me3", 2, ["pipe"]),
        ("-", (), "H3K4me3,H3K36me3", 2, ["2 tracks", "one stream"]),
        ("-", ("--interval", 0.5), "H3K4me3", 2, ["3 tracks", "one stream"]),
        ("-", ("--resume",), "H3K4me3", 2, ["--resume", "stdout"]),
        ("out.bw", ("--nb", "--track", "signal"), "H3K4me3", 2, ["--nb", "--track counts"]),
        ("out.bw", ("--sd", "--track", "peaks"), "H3K4me3", 2, ["--sd", "--track signal"]),
        ("out.bw", ("-O", "bigwig", "-O", "bigwig"), "H3K4me3", 2, ["twice"]),
        ("out.narrowPeak", ("--interval", 0.9), "H3K4me3", 2, ["--interval", "add -O bigwig"]),
        ("out.h5", ("--sd",), "H3K4me3", 2, ["--sd", "add -O bigwig"]),
        ("out.bw", ("--interval", 1), "H3K4me3", 2, ["--interval"]),
        ("out.bw", ("--digits", 8), "H3K4me3", 2, ["--digits"]),
        ("out.narrowPeak", (), "H3K9me3", 1, ["never learned peaks of H3K9me3"]),
        ("out.bw", ("-O", "bigwig", "-O", "narrowpeak", "--track", "counts"), "H3K9me3", 1, ["never learned peaks"]),
        ("out.bw", ("--as", "H3K4me33:depth=1M"), "H3K4me3", 2, ["--as H3K4me33", "H3K27me3, H3K36me3, H3K4me3"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    few, tmp_path, monkeypatch, output, options, assay, code, parts
):
    monkeypatch.chdir(tmp_path / "made")
    one_line(few(output, *options, assay=assay), *parts, code=code)
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("output", ["-o", "--latent", "--provenance"])
@pytest.mark.parametrize("read", ["reads", "control", "sheet", "model"])
def test_no_output_replaces_what_is_read(candi, model_path, tmp_path, output, read):
    files = {"reads": BAM, "control": TEST_DATA / "sim1.control.bam", "sheet": SHEET, "model": model_path}
    here = {name: tmp_path / path.name for name, path in files.items()}
    for name, path in files.items():
        here[name].write_bytes(path.read_bytes())
    before = files_in(tmp_path)
    outputs = {"-o": "-", output: here[read]}
    options = [text for pair in outputs.items() for text in pair]
    given = (here["reads"], "--covariates", here["sheet"], "-m", here["model"], "-O", "bedgraph")
    ran = candi("denoise", *given, *options)
    one_line(ran, here[read], "is an input too", code=1)
    assert files_in(tmp_path) == before
    assert here[read].read_bytes() == files[read].read_bytes()


def test_two_outputs_of_one_name_are_refused(few, tmp_path):
    same = tmp_path / "made" / "out.h5"
    one_line(few("out.h5", "--latent", same), same, "two outputs", code=1)
    assert files_in(tmp_path / "made") == set()


def test_a_file_in_the_place_of_the_folder_is_kept(few, tmp_path):
    (tmp_path / "made" / "tracks").write_text("older")
    one_line(few("tracks", assay="H3K4me3,H3K36me3"), "tracks", "folder", code=2)
    assert (tmp_path / "made" / "tracks").read_text() == "older"


# ---- content


class Rich(NamedTuple):
    """A folder with every kind, quantity and format of two assays."""

    folder: Path

    def bins(self, assay: str, kind: str, quantity: str = "mean", digits: str = "counts") -> np.ndarray:
        """A bigWig's values in all places."""
        name = f"sim1.{assay}.{kind}{'' if quantity == 'mean' else f'.{quantity}'}.bw"
        return np.concatenate([bins_of(self.folder / name, chrom, *span) for chrom, span in PLACES.items()])

    def parameter(self, assay: str, name: str) -> np.ndarray:
        """What the HDF5 file holds, in all places."""
        with h5py.File(self.folder / "predictions.h5") as file:
            group = file[f"biosamples/sim1/{assay}/{name}"]
            pieces = [group[chrom][start // 25 : -(-end // 25)] for chrom, (start, end) in PLACES.items()]
        return np.concatenate(pieces).astype(np.float64)

    def counts(self, assay: str):
        """The negative binomial that the HDF5 file holds."""
        mean, n = (np.exp(self.parameter(assay, f"count_log_{name}")) for name in ("mean", "dispersion"))
        return nbinom(n, n / (n + mean))


@pytest.fixture(scope="module")
def rich(vivid_model_path, pair_store_path, tmp_path_factory) -> Rich:
    folder = tmp_path_factory.mktemp("rich") / "tracks"
    regions = [f"{chrom}:{start + 1}-{end}" for chrom, (start, end) in PLACES.items()]
    options = [text for region in regions for text in ("-r", region)]
    options += [text for kind in KINDS for text in ("--track", kind)]
    options += [*EVERY_FORMAT, "--interval", str(SHARE), "--sd", "--cv", "--nb", "--quiet"]
    arguments = ["-m", str(vivid_model_path), "--assay", ",".join(ASSAYS), "-o", str(folder)]
    assert main(["impute", str(pair_store_path), *arguments, *options]) == 0
    return Rich(folder)


@pytest.mark.parametrize("assay", ASSAYS)
def test_tracks_of_counts_show_the_negative_binomial_that_is_kept(rich, assay):
    kept = rich.counts(assay)
    n, p = kept.args
    expected = {
        "mean": kept.mean(), "sd": kept.std(), "cv": kept.std() / kept.mean(), "n": n, "p": p,
        "lower": kept.ppf((1 - SHARE) / 2), "upper": kept.ppf((1 + SHARE) / 2),
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(rich.bins(assay, "counts", name), to_3_digits(values), err_msg=name)


@pytest.mark.parametrize("assay", ASSAYS)
def test_the_bounds_of_counts_hold_the_stated_share_of_draws_and_are_as_narrow_as_can_be(rich, assay, rng):
    kept, n_draws = rich.counts(assay), 200
    lower, upper = rich.bins(assay, "counts", "lower"), rich.bins(assay, "counts", "upper")
    draws = rng.negative_binomial(*kept.args, size=(n_draws, len(lower)))
    inside = ((draws >= lower) & (draws <= upper)).mean()
    assert inside == pytest.approx((kept.cdf(upper) - kept.cdf(lower - 1)).mean(), abs=0.003)
    assert SHARE - 0.003 < inside < 1
    assert (kept.cdf(upper - 1) < (1 + SHARE) / 2).all()
    assert (kept.cdf(lower) >= (1 - SHARE) / 2).all()


@pytest.mark.parametrize("assay", ASSAYS)
def test_the_bounds_of_counts_lie_around_the_median_and_the_lower_one_below_the_mean(rich, assay):
    # the mean of a skewed distribution of few reads may lie above most of it, so above the upper bound too
    lower, upper, median = rich.bins(assay, "counts", "lower"), rich.bins(assay, "counts", "upper"), rich.counts(assay)
    assert (lower <= median.median()).all()
    assert (median.median() <= upper).all()
    assert (lower <= median.mean()).all()
    assert (lower < upper).any()


@pytest.mark.parametrize("assay", ASSAYS)
def test_tracks_of_signal_show_the_gaussian_of_arcsinh_that_is_kept(rich, assay, rng):
    mean, sd = rich.parameter(assay, "signal_mean"), rich.parameter(assay, "signal_sd")
    lower, upper = (np.sinh(norm.ppf(level, mean, sd)).clip(0) for level in ((1 - SHARE) / 2, (1 + SHARE) / 2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)  # moments by quadrature
    drawn = np.sinh(mean[:, None] + sd[:, None] * nodes)
    first, second = (np.average(drawn**power, axis=1, weights=weights) for power in (1, 2))
    expected = {
        "mean": np.sinh(mean), "lower": lower, "upper": upper, "sd": np.sqrt(second - first**2), "cv": sd / mean,
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(rich.bins(assay, "signal", name), to_3_digits(values), err_msg=name)
    assert (lower > 0).any()
    tracks = [rich.bins(assay, "signal", name) for name in ("lower", "mean", "upper")]
    assert (np.diff(tracks, axis=0) >= 0).all()
    draws = np.sinh(rng.normal(mean, sd, size=(200, len(mean)))).clip(0)
    assert ((draws >= lower) & (draws <= upper))[:, lower > 0].mean() == pytest.approx(SHARE, abs=0.003)


@pytest.mark.parametrize("assay", ASSAYS)
def test_tracks_of_peaks_are_the_probability_that_is_kept(rich, assay):
    values = rich.bins(assay, "peaks")
    np.testing.assert_array_equal(values, to_3_digits(expit(rich.parameter(assay, "peak_logit"))))
    assert 0 <= values.min() < 0.5 < values.max() <= 1


def joined_runs(inside: np.ndarray) -> list[tuple[int, int]]:
    """Runs of bins, those at most 100 bp apart as one, of at least 150 bp."""
    found: list[list[int]] = []
    for at in np.flatnonzero(inside).tolist():
        if found and at - found[-1][1] <= 4:
            found[-1][1] = at + 1
        else:
            found.append([at, at + 1])
    return [(first, last) for first, last in found if last - first >= 6]


@pytest.mark.parametrize("assay", ASSAYS)
def test_peak_calls_are_the_joined_runs_of_the_bigwig_over_the_threshold(rich, tmp_path, assay):
    # half a unit above a number of three digits: rounding moves no bin across it
    threshold = float(f"{np.quantile(rich.bins(assay, 'peaks'), 0.8):.2e}") + 0.0005
    calls = tmp_path / "calls.narrowPeak"
    regions = [text for chrom, (start, end) in PLACES.items() for text in ("-r", f"{chrom}:{start + 1}-{end}")]
    options = ["--assay", assay, "--threshold", str(threshold), "--quiet"]
    assert main(["impute", "--merge", str(rich.folder / "predictions.h5"), *regions, "-o", str(calls), *options]) == 0
    found = lines_of(calls)
    expected = []
    for chrom, (start, end) in PLACES.items():
        values = bins_of(rich.folder / f"sim1.{assay}.peaks.bw", chrom, start, end)
        signal = bins_of(rich.folder / f"sim1.{assay}.signal.bw", chrom, start, end)
        for first, last in joined_runs(values > threshold):
            expected.append((chrom, start + 25 * first, min(start + 25 * last, end), values, signal, start))
    assert len(expected) > 5
    assert len(found) == len(expected)
    for number, (line, (chrom, first, last, values, signal, start)) in enumerate(zip(found, expected, strict=True)):
        bins = slice((first - start) // 25, -(-(last - start) // 25))
        assert line[:4] == [chrom, str(first), str(last), f"sim1.{assay}.peak{number + 1}"]
        assert np.float32(line[6]) == values[bins].max()
        assert int(line[4]) == pytest.approx(1000 * values[bins].max(), abs=1)
        summit = int(line[9])
        assert 0 <= summit < last - first
        at = (first + summit - start) // 25
        assert values[at] == values[bins].max()
        assert np.float32(line[7]) == signal[at]
        assert (line[5], line[8]) == (".", "-1")


def test_the_default_threshold_of_a_call_is_a_half(rich):
    for assay in ASSAYS:
        called = sum(int(end) - int(start) for _, start, end, *_ in lines_of(rich.folder / f"sim1.{assay}.narrowPeak"))
        over, n_first = rich.parameter(assay, "peak_logit") >= 0, -(-(300_010 - 200_000) // 25)
        runs = joined_runs(over[:n_first])
        cut = 15 if runs[-1][1] == n_first else 0  # the last bin of chr1 has 10 bp
        n_bins = sum(last - first for first, last in [*runs, *joined_runs(over[n_first:])])
        assert called == 25 * n_bins - cut


def test_a_bedgraph_in_a_folder_holds_what_the_bigwig_beside_it_does(rich):
    packed = sorted(rich.folder.glob("*.bedGraph.gz"))
    assert len(packed) == len(list(rich.folder.glob("*.bw"))) == 2 * (7 + 5 + 1)
    for path in packed:
        lines, bigwig = lines_of(path), path.with_name(path.name.replace(".bedGraph.gz", ".bw"))
        for chrom, span in PLACES.items():
            np.testing.assert_array_equal(bins_of_lines(lines, chrom, *span), bins_of(bigwig, chrom, *span))


def test_the_hdf5_file_says_what_was_predicted_and_where(rich, vivid_model_path):
    with h5py.File(rich.folder / "predictions.h5") as file:
        assert file.attrs["format"] == "candi-predictions"
        described = json.loads(file.attrs["described"])
        regions = {chrom: file[f"regions/sim1/{chrom}"][:].tolist() for chrom in PLACES}
        outside = file["biosamples/sim1/H3K4me3/peak_logit/chr2"][800:]
    assert regions == {chrom: [list(span)] for chrom, span in PLACES.items()}
    assert np.isnan(outside).all()
    assert described["model"]["sha256"] == load(vivid_model_path).card.weights_sha256
    assert [(name, assay, track["observed"]) for name, assay, track in described["tracks"]] == [
        ("sim1", "H3K4me3", True), ("sim1", "H3K36me3", False),
    ]  # fmt: skip


# ---- the delivery


class Links(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "href" and tag == "a":
                self.links.append(value)
            elif name in ("href", "src", "srcset", "action", "data", "poster", "background") or tag == "script":
                self.loaded.append(value)

    def handle_data(self, text):
        self.text += text


@pytest.fixture(scope="module")
def hg19(tmp_path_factory) -> Path:
    """A folder with the test reads on chr21 of hg19, of which no more than a corner is asked for."""
    folder = tmp_path_factory.mktemp("hg19")
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "chr21", "LN": 48_129_895}]}
    with (
        pysam.AlignmentFile(str(BAM)) as source,
        pysam.AlignmentFile(str(folder / "reads.bam"), "wb", header=header) as target,
    ):
        for read in source.fetch("chr1", 0, 60_000):
            if read.next_reference_id == 0:
                target.write(read)
    (folder / "sheet.tsv").write_text("biosample\tassay\nliver\tH3K4me3\n")
    return folder


@pytest.fixture
def deliver(candi, hg19, vivid_model_path, tmp_path, monkeypatch):
    def run(*options, output="tracks", assay="H3K4me3,H3K36me3") -> Path:
        arguments = [
            "impute", hg19 / "reads.bam", "--covariates", hg19 / "sheet.tsv", "-m", vivid_model_path, "--assay", assay,
            "-r", "chr21:1-40,000", "-o", tmp_path / output, "--quiet", *options,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["candi", *map(str, arguments)])
        ran = candi(*arguments)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        return tmp_path / output

    return run


DELIVERED = ("-O", "bigwig", "-O", "narrowpeak", "-O", "hdf5", "--interval", 0.9, "--sd")


def check_files(entries: list[dict], folder: Path) -> None:
    """Check sizes and checksums in a manifest against the files."""
    for entry in entries:
        content = (folder / entry["path"]).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_manifest_lists_every_file_with_its_checksum_and_how_it_was_made(deliver, hg19, vivid_model_path, tmp_path):
    (tmp_path / "tracks").mkdir()
    folder = deliver(*DELIVERED, "--latent", tmp_path / "tracks" / "Z.h5")
    manifest = json.loads((folder / "manifest.json").read_text())
    described = {name for name in files_in(folder) if name in COMPANIONS or name.startswith("hub/")}
    listed = [entry["path"] for entry in manifest["files"]]
    assert sorted(listed) == sorted(files_in(folder) - described)
    assert {"Z.h5", "predictions.h5", "liver.H3K36me3.narrowPeak", "liver.H3K4me3.upper.bw"} <= set(listed)
    check_files(manifest["files"], folder)
    assert manifest["command"] == shlex.join(sys.argv)
    assert manifest["model"]["sha256"] == load(vivid_model_path).card.weights_sha256
    assert manifest["model"]["name"] == vivid_model_path.name
    assert manifest["model"]["assays"] == list(load(vivid_model_path).card.assays)
    assert manifest["genome"] == "hg19"
    assert manifest["regions"] == {"liver": [["chr21", 0, 40_000]]}
    listed = {entry["path"]: entry for entry in manifest["files"]}
    assert [listed["liver.H3K4me3.narrowPeak"][name] for name in ("assay", "quantity")] == ["H3K4me3", "calls"]
    assert any("at most 100 bp apart" in note and "150 bp" in note for note in manifest["notes"])
    reads = hg19 / "reads.bam"
    assert manifest["inputs"] == [
        {"name": "reads.bam", "size": reads.stat().st_size, "mtime": int(reads.stat().st_mtime)}
    ]
    assert [(track["biosample"], track["assay"], track["observed"]) for track in manifest["experiments"]] == [
        ("liver", "H3K4me3", True), ("liver", "H3K36me3", False),
    ]  # fmt: skip
    n_reads = manifest["experiments"][0]["covariates"]["depth"]
    with pysam.AlignmentFile(str(reads)) as file:
        assert n_reads == sum(read.mapping_quality >= 30 and not read.flag & 0xF04 for read in file)


def test_every_link_of_the_page_the_hub_and_the_session_resolves_and_the_page_loads_nothing(deliver):
    folder = deliver(*DELIVERED)
    text = (folder / "index.html").read_text()
    page = Links(text)
    tracks = {path.name for path in folder.iterdir() if path.suffix in (".bw", ".h5", ".narrowPeak")}
    assert {unquote(link) for link in page.links} == tracks | {"manifest.json", "igv_session.xml", "hub/hub.txt"}
    assert all((folder / unquote(link)).is_file() for link in page.links)
    (picture,) = page.loaded
    assert picture.startswith("data:image/png;base64,")
    assert base64.b64decode(picture.partition(",")[2], validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    lowered = text.lower()
    assert not any(word in lowered for word in ("http:", "https:", "url(", "@import", "<script", "<iframe", "<link"))
    assert "liver" in page.text
    session = ElementTree.parse(folder / "igv_session.xml").getroot()
    resources = {element.get("path") for element in session.iter("Resource")}
    assert resources == {name for name in tracks if not name.endswith(".h5")}
    assert session.get("genome") == "hg19"
    hub = dict(line.split(" ", 1) for line in (folder / "hub" / "hub.txt").read_text().splitlines())
    genomes = dict(
        line.split(" ", 1) for line in (folder / "hub" / hub["genomesFile"]).read_text().splitlines() if line
    )
    assert genomes["genome"] == "hg19"
    track_db = folder / "hub" / genomes["trackDb"]
    urls = [line.split()[1] for line in track_db.read_text().splitlines() if line.strip().startswith("bigDataUrl ")]
    assert {(track_db.parent / unquote(url)).resolve() for url in urls} == {
        path.resolve() for path in folder.glob("*.bw")
    }


def test_the_page_says_where_was_predicted_and_what_the_model_knows(deliver, vivid_model_path):
    words = " ".join(Links((deliver() / "index.html").read_text()).text.split())
    assert "over chr21:1-40,000 (40,000 bp of hg19)." in words
    assert ", ".join(load(vivid_model_path).card.assays) in words


def test_the_track_of_signal_is_called_a_median_everywhere(deliver):
    folder = deliver("--track", "signal", "--track", "peaks", assay="H3K4me3")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {entry["path"]: entry["quantity"] for entry in manifest["files"]} == {
        "liver.H3K4me3.signal.bw": "median", "liver.H3K4me3.peaks.bw": "probability",
    }  # fmt: skip
    texts = [folder / "igv_session.xml", folder / "hub" / "hg19" / "trackDb.txt", folder / "index.html"]
    for text in (path.read_text() for path in texts):
        assert "median" in text
        assert "signal: mean" not in text


def test_the_session_opens_at_the_locus_of_the_figure(deliver):
    folder = deliver()
    locus = ElementTree.parse(folder / "igv_session.xml").getroot().get("locus")
    chrom, span = locus.split(":")
    start, end = (f"{int(edge):,}" for edge in span.split("-"))
    assert f"liver, {chrom}:{start}-{end}: expected reads per bin" in (folder / "index.html").read_text()


def test_a_folder_without_bigwigs_has_a_page_with_its_title_and_no_hub(deliver):
    folder = deliver("-O", "narrowpeak", "-O", "hdf5", output="tracks")
    assert files_in(folder) == {*COMPANIONS, "predictions.h5", "liver.H3K4me3.narrowPeak", "liver.H3K36me3.narrowPeak"}
    text = (folder / "index.html").read_text()
    assert "<title>Denoised and imputed tracks of liver</title>" in text
    assert {unquote(link) for link in Links(text).links} == files_in(folder) - {"index.html"}


def test_a_second_run_into_the_same_folder_gives_the_same_files(deliver, tmp_path):
    folder = deliver("--interval", 0.9)
    first = {name: (folder / name).read_bytes() for name in files_in(folder)}
    again = deliver("--interval", 0.9)
    assert {name: (again / name).read_bytes() for name in files_in(again)} == first
    assert [path.name for path in tmp_path.iterdir()] == ["tracks"]


def test_the_page_of_a_single_bin_has_its_figure(few, tmp_path):
    (tmp_path / "made" / "tracks").mkdir()
    ran = few("tracks", "--interval", 0.9, region="chr1:1-25")
    assert (ran.code, ran.err) == (0, "")
    assert "sim1, chr1:1-25: expected reads per bin." in (tmp_path / "made" / "tracks" / "index.html").read_text()


def test_the_provenance_of_a_lone_file_lists_it_from_where_the_provenance_lies(deliver, vivid_model_path, tmp_path):
    (tmp_path / "notes").mkdir()
    where = tmp_path / "notes" / "out.json"
    output = deliver("--sd", "--provenance", where, output="out.bw", assay="H3K4me3")
    provenance = json.loads(where.read_text())
    assert [entry["path"] for entry in provenance["files"]] == ["../out.bw", "../out.sd.bw"]
    check_files(provenance["files"], where.parent)
    assert provenance["model"]["sha256"] == load(vivid_model_path).card.weights_sha256
    assert provenance["command"] == shlex.join(sys.argv)
    assert [entry["name"] for entry in provenance["inputs"]] == ["reads.bam"]
    assert files_in(tmp_path) == {output.name, "out.sd.bw", "notes/out.json"}


# ---- what would be done


def test_a_dry_run_writes_nothing_and_lists_what_the_run_then_writes(candi, model_path, tmp_path):
    options = [BAM, "--covariates", SHEET, "-m", model_path, "--assay", "H3K4me3,H3K36me3", "--interval", 0.9]
    options += ["-O", "bigwig", "-O", "hdf5", "-r", "chr2:1-1,000", "-o", tmp_path / "tracks", "--quiet"]
    ran = candi("impute", *options, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    rows = [line.split("\t") for line in ran.out.splitlines()]
    outputs = [value for name, value in rows if name == "output"]
    told = {name: value for name, value in rows if name != "output"}
    assert set(told) == {"model", "device", "contigs", "bins", "windows", "memory", "disk", "time"}
    assert told["contigs"] == "1: chr2"
    assert told["bins"].startswith("40 of 25 bp for each of 1 biosample,")
    assert candi("impute", *options).code == 0
    tracks = {str(tmp_path / "tracks" / name) for name in files_in(tmp_path / "tracks") - COMPANIONS}
    assert set(outputs) == tracks
    assert len(outputs) == len(tracks) == 7


def test_a_dry_run_of_denoise_counts_the_bins_of_the_genome_and_reads_no_read(candi, model_path, tmp_path):
    reads = tmp_path / BAM.name  # a header alone is enough
    with pysam.AlignmentFile(str(BAM)) as source:
        pysam.AlignmentFile(str(reads), "wb", template=source).close()
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text("biosample\tassay\nsim1\tH3K4me3\n")
    ran = candi("denoise", reads, "--covariates", sheet, "-m", model_path, "-o", tmp_path / "out.bw", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    n_bins = sum(-(-length // 25) for length in SIZES.values())
    assert f"bins\t{n_bins:,} of 25 bp" in ran.out
    assert f"output\t{tmp_path / 'out.bw'}\n" in ran.out
    assert files_in(tmp_path) == {reads.name, sheet.name}
