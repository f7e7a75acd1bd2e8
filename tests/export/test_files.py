"""Files of tracks against the predictions they are made from, as other programs read them."""

import gzip
import re
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import h5py
import numpy as np
import pybigtools
import pyBigWig
import pytest

from candi_cli.errors import OutputError, TrackError
from candi_cli.export import source as source_module
from candi_cli.export.files import BEDGRAPH, BIGWIG, FORMATS, HDF5, NARROWPEAK, TrackFile, format_of
from candi_cli.export.peaks import narrowpeak_lines
from candi_cli.export.quantities import Quantity, quantities
from candi_cli.export.source import Source, merged
from candi_cli.genome import Region
from candi_cli.io.bedgraph import read_bedgraph_means
from candi_cli.store.predictions import PARAMETERS, Described, Predictions, PredictionWriter

STEP = 25
QUANTITIES = quantities(list(PARAMETERS), interval=0.9, sd=True, cv=True, nb=True)


@pytest.fixture(scope="module")
def path(known, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("predicted") / "p.h5"
    known.source(path)
    return path


@pytest.fixture
def source(known, path, monkeypatch) -> Source:
    """All that is wanted, in blocks that end within regions."""
    monkeypatch.setattr(source_module, "BLOCK_BINS", 300)
    wanted = known.described.wanted
    return Source(known.described, {name: [(region, path) for region in wanted[name]] for name in wanted})


def bases_of(known, biosample: str, quantity: Quantity, chrom: str, digits: int = 3) -> np.ndarray:
    """Return what a track has at each base of a chromosome: rounded as Python prints it, NaN where not predicted."""
    length = known.described.chromsizes[chrom]
    bases = np.full(length, np.nan)
    for region in known.described.wanted[biosample]:
        if region.chrom == chrom:
            values = quantity.of(known.of(biosample, "H3K4me3", quantity.parameters, region)).astype(np.float32)
            printed = [float(np.float32(f"{value:.{digits - 1}e}")) for value in values]
            bases[region.start : region.end] = np.repeat(printed, STEP)[: region.end - region.start]
    return bases


def read_pybigwig(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    with pyBigWig.open(str(path)) as track:
        sizes = dict(track.chroms())
        return sizes, {chrom: track.values(chrom, 0, length, numpy=True) for chrom, length in sizes.items()}


def read_pybigtools(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    track = pybigtools.open(str(path))
    sizes = dict(track.chroms())
    found = {chrom: track.values(chrom, 0, length, fillna=None) for chrom, length in sizes.items()}
    for chrom, length in sizes.items():
        assert all(0 <= start < end <= length for start, end, _ in track.records(chrom))
    return sizes, found


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda each: f"{each.kind}.{each.name}")
def test_two_programs_read_from_a_bigwig_what_was_predicted_to_three_digits(known, source, tmp_path, quantity):
    file = TrackFile(tmp_path / "t.bw", Path("t.bw"), BIGWIG, "b", "H3K4me3", quantity)
    file.write(source)
    for read in (read_pybigwig, read_pybigtools):
        sizes, found = read(file.path)
        assert sizes == {chrom: known.described.chromsizes[chrom] for chrom in ("chr2", "chr1")}
        for chrom, values in found.items():
            expected = bases_of(known, "b", quantity, chrom)
            np.testing.assert_allclose(values, expected, rtol=2e-7)
            assert np.isfinite(values).sum() == sum(
                region.end - region.start for region in known.described.wanted["b"] if region.chrom == chrom
            )


@pytest.mark.parametrize("digits", [1, 2, 5, 7])
def test_as_many_digits_are_kept_as_were_asked_for(known, source, tmp_path, digits):
    quantity = Quantity("signal", "upper", 0.9)
    bigwig = TrackFile(tmp_path / "t.bw", Path("t.bw"), BIGWIG, "a", "H3K4me3", quantity, digits)
    text = TrackFile(tmp_path / "t.bg", Path("t.bg"), BEDGRAPH, "a", "H3K4me3", quantity, digits)
    bigwig.write(source)
    text.write(source)
    _, in_bigwig = read_pybigwig(bigwig.path)
    for chrom, in_text in bedgraph_bases(known, text.path.read_bytes()).items():
        (region,) = (region for region in known.described.wanted["a"] if region.chrom == chrom)
        exact = quantity.of(known.of("a", "H3K4me3", quantity.parameters, region)).astype(np.float32)
        exact = np.repeat(exact.astype(np.float64), STEP)[: region.end - region.start]
        step = 10.0 ** (np.floor(np.log10(exact, where=exact > 0, out=np.zeros_like(exact))) - digits + 1)
        for values in (in_bigwig[chrom], in_text):
            error = np.abs(values - exact)
            assert (error <= 0.5 * step * (1 + 1e-6) + 2e-7 * exact).all()
            assert digits == 7 or error.max() > 0.1 * step.min()
        for value in np.unique(in_text):
            printed = Decimal(f"{value:.{max(digits, 6)}g}").normalize()
            assert len(printed.as_tuple().digits) <= digits


def bedgraph_bases(known, content: bytes) -> dict[str, np.ndarray]:
    """Return the value of each base by a loop over the lines; lines must be sorted, apart and inside."""
    found: dict[str, np.ndarray] = {}
    for line in content.decode().splitlines():
        chrom, start, end, value = line.split("\t")
        bases = found.setdefault(chrom, np.full(known.described.chromsizes[chrom], np.nan))
        assert 0 <= int(start) < int(end) <= len(bases)
        assert np.isnan(bases[int(start) :]).all()
        bases[int(start) : int(end)] = float(value)
    return found


@pytest.mark.parametrize("suffix", [".bedGraph", ".bedGraph.gz"])
def test_a_bedgraph_holds_what_was_predicted_and_reads_back(known, source, tmp_path, suffix):
    path, quantity = tmp_path / f"t{suffix}", Quantity("counts")
    TrackFile(path, path, BEDGRAPH, "b", "H3K4me3", quantity).write(source)
    content = gzip.decompress(path.read_bytes()) if suffix.endswith("gz") else path.read_bytes()
    found = bedgraph_bases(known, content)
    assert list(found) == ["chr2", "chr1"]
    means = dict(read_bedgraph_means(path, known.described.chromsizes, STEP, chrom_of=lambda name: name))
    for chrom, bases in found.items():
        expected = bases_of(known, "b", quantity, chrom)
        np.testing.assert_allclose(bases, expected, rtol=2e-7)
        np.testing.assert_array_equal(means[chrom].covered, np.isfinite(expected[::STEP]))
        np.testing.assert_allclose(means[chrom].values, np.nan_to_num(expected[::STEP]), rtol=2e-7)


def test_a_bedgraph_goes_to_stdout_unpacked(source, tmp_path, capsysbinary):
    path, quantity = tmp_path / "t.bedGraph", Quantity("peaks")
    TrackFile(path, path, BEDGRAPH, "a", "CTCF", quantity).write(source)
    TrackFile(Path("-"), Path("-"), BEDGRAPH, "a", "CTCF", quantity).write(source)
    sys.stdout.flush()
    assert capsysbinary.readouterr().out == path.read_bytes() != b""


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_narrowpeak_file_holds_the_lines_of_the_peaks(source, tmp_path, suffix):
    path = tmp_path / f"t.narrowPeak{suffix}"
    TrackFile(path, path, NARROWPEAK, "a", "CTCF", Quantity("peaks"), threshold=0.4).write(source)
    with source:
        expected = b"".join(narrowpeak_lines(source, "a", "CTCF", 0.4))
    assert (gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()) == expected != b""


def datasets(path: Path) -> dict[str, tuple[object, ...]]:
    """Return all that an HDF5 file holds, as h5py alone reads it."""
    found: dict[str, tuple[object, ...]] = {}
    with h5py.File(path) as file:
        found["/"] = tuple(sorted(file.attrs.items()))
        file.visititems(
            lambda name, item: found.update(
                {name: (item.dtype, item.shape, item.chunks, item[()].tobytes())}
                if isinstance(item, h5py.Dataset)
                else {name: ()}
            )
        )
    return found


def test_an_hdf5_file_holds_every_parameter_as_predicted(known, source, tmp_path):
    path = tmp_path / "all.h5"
    TrackFile(path, path, HDF5, command="candi impute").write(source)
    with Predictions(path) as found:
        assert found.described == known.described
        for biosample, assay in known.described.tracks:
            names = known.described.tracks[biosample, assay]["parameters"]
            assert found.regions(biosample) == known.described.wanted[biosample]
            for region in found.regions(biosample):
                bins = (region.start // STEP, -(-region.end // STEP))
                values = found.read(biosample, assay, names, region.chrom, *bins)
                np.testing.assert_array_equal(values, known.of(biosample, assay, names, region))


def split(regions: list[Region], order: list[str], chrom: str, at: int) -> tuple[list[Region], list[Region]]:
    """Return what of some regions lies before a place in the genome, and what lies after it."""
    place = (order.index(chrom), at)
    before = [region for region in regions if (order.index(region.chrom), region.start) < place]
    after = [region for region in regions if (order.index(region.chrom), region.end) > place]
    if before and after and before[-1] == after[0]:
        before[-1], after[0] = before[-1]._replace(end=at), after[0]._replace(start=at)
    return before, after


@pytest.mark.parametrize("place", [("chr2", 2_500), ("chr2", 7_525), ("chr2", 20_000), ("chr10", 0), ("chr1", 125)])
def test_the_files_of_merged_shards_are_those_of_one_run(known, source, tmp_path, place):
    order, wanted = list(known.described.chromsizes), known.described.wanted
    halves = {name: split(regions, order, *place) for name, regions in wanted.items()}
    shards = [{name: halves[name][number] for name in halves} for number in (0, 1)]
    paths = [known.write(tmp_path / f"shard{number}.h5", regions) for number, regions in enumerate(shards)]
    for suffix in FORMATS.values():
        files = [tmp_path / f"{name}{suffix}" for name in ("one", "merged")]
        for path, of in zip(files, (source, merged(paths[::-1], [])), strict=True):
            file = TrackFile(path, path, format_of(path) or "", "a", "H3K4me3", Quantity("counts"), command="candi")
            file.write(of)
        if suffix == ".h5":
            assert datasets(files[0]) == datasets(files[1])
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_predictions_are_the_same_bytes(source, tmp_path, format_):
    file = TrackFile(tmp_path / "one", Path(f"t{FORMATS[format_]}"), format_, "a", "H3K4me3", Quantity("peaks"))
    other = replace(file, path=tmp_path / "other")
    file.write(source)
    other.write(source)
    assert file.path.read_bytes() == other.path.read_bytes() != b""


@pytest.mark.parametrize("format_", [BIGWIG, BEDGRAPH])
def test_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path, format_):
    described = Described(STEP, {"chr1": 100}, {}, {("a", "x"): {"parameters": ["peak_logit"]}})
    with PredictionWriter(tmp_path / "p.h5", described) as writer:
        writer.add("a", Region("chr1", 25, 100), np.array([[1], [np.nan], [2]], dtype=np.float32))
    source = Source(described, {"a": [(Region("chr1", 25, 100), tmp_path / "p.h5")]})
    file = TrackFile(tmp_path / "t", Path("out/t.x"), format_, "a", "x", Quantity("peaks"))
    with pytest.raises(TrackError, match=r"^out/t\.x: a value in chr1:26-100 is not finite"):
        file.write(source)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize(("format_", "suffix"), [(BEDGRAPH, ""), (BEDGRAPH, ".gz"), (NARROWPEAK, "")])
def test_text_that_a_full_disk_does_not_take_is_one_line(source, format_, suffix):
    file = TrackFile(Path("/dev/full"), Path(f"out/t{suffix}"), format_, "a", "H3K4me3", Quantity("peaks"))
    with pytest.raises(OutputError, match=rf"^{re.escape(f'out/t{suffix}')}: cannot be written \(No space left"):
        file.write(source)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.bw", BIGWIG), ("a.BigWig", BIGWIG), ("a.b.bw", BIGWIG), ("-", BEDGRAPH), ("a.bdg.gz", BEDGRAPH),
        ("a.bedGraph", BEDGRAPH), ("a.bg", BEDGRAPH), ("a.narrowPeak.gz", NARROWPEAK), ("d/a.h5", HDF5),
        ("a.hdf5", HDF5), ("a", None), ("a.txt", None), ("bw", None), ("a.gz", None), ("a.bw.x", None),
    ],
)  # fmt: skip
def test_a_name_stands_for_its_format(name, expected):
    assert format_of(Path(name)) == expected


def test_every_format_has_a_suffix_that_stands_for_it():
    assert {format_of(Path(f"a{suffix}")): suffix for suffix in FORMATS.values()} == FORMATS
