"""Files of predictions: what comes out is what went in, rounded; memory and the disk are not outgrown."""

import gc
import json
import math
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import namedtuple
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candi_cli.errors import OutputError, StoreError
from candi_cli.genome import Region
from candi_cli.store import predictions
from candi_cli.store.predictions import (
    CHUNK_BINS,
    FORMAT_VERSION,
    PARAMETERS,
    Described,
    Predictions,
    PredictionWriter,
    bytes_of,
    is_predictions,
    parameters_of,
    rounded,
)

TEST_DATA = Path(__file__).parents[1] / "test_data"
STEP = 25
SIZES = {"chr2": STEP * (2 * CHUNK_BINS + 100) - 7, "chr10": 500, "chr1": STEP * CHUNK_BINS}  # in no sorted order
COUNTS, SIGNAL, PEAKS = PARAMETERS.values()
DESCRIBED = Described(
    STEP,
    SIZES,
    {"family": "candi", "sha256": "ab" * 32},
    {
        ("b", "x"): {"observed": True, "parameters": [*COUNTS, *PEAKS]},
        ("b", "w"): {"observed": False, "parameters": [*SIGNAL]},
        ("a", "x"): {"observed": False, "parameters": [*COUNTS]},
    },
    {"b": [Region("chr2", 0, SIZES["chr2"])], "a": [Region("chr10", 0, 500)]},
)
Pieces = list[tuple[str, Region]]
Disk = namedtuple("Disk", "total used free")


def bins_of(region: Region) -> slice:
    return slice(region.start // STEP, -(-region.end // STEP))


def values_of(biosample: str, region: Region) -> np.ndarray:
    """Return numbers (n_bins, datasets) that only this biosample, dataset, chromosome and bin have."""
    n_bins, n_datasets = -(-(region.end - region.start) // STEP), len(DESCRIBED.parameters(biosample))
    at = np.arange(n_bins)[:, None] + region.start // STEP + 50_000 * np.arange(n_datasets)
    seed = 1 + "ba".index(biosample) + 2 * list(SIZES).index(region.chrom)
    return np.sin(at * 0.61803 * seed).astype(np.float32)


def write(path: Path, pieces: Pieces, described: Described = DESCRIBED) -> Path:
    with PredictionWriter(path, described, command="candi impute x") as writer:
        for biosample, region in pieces:
            writer.add(biosample, region, values_of(biosample, region))
    return path


def expected_of(pieces: Pieces, biosample: str, column: int, chrom: str) -> np.ndarray:
    """Return all bins of a dataset: NaN where nothing was written."""
    values = np.full(DESCRIBED.n_bins(chrom), np.nan, dtype=np.float32)
    for name, region in pieces:
        if (name, region.chrom) == (biosample, chrom):
            values[bins_of(region)] = rounded(values_of(name, region))[:, column]
    return values


BORDER = STEP * CHUNK_BINS
PIECES = [
    ("b", Region("chr2", 75, 100)),
    ("b", Region("chr2", 100, 5_000)),
    ("b", Region("chr2", BORDER - 500, BORDER + 500)),
    ("b", Region("chr2", 2 * BORDER, 2 * BORDER + 25)),
    ("b", Region("chr2", 2 * BORDER + 1_000, SIZES["chr2"])),
    ("a", Region("chr10", 0, 500)),
    ("b", Region("chr1", BORDER - 50, BORDER)),
    ("a", Region("chr2", BORDER, 2 * BORDER)),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("predictions") / "p.h5", PIECES)


def test_what_was_written_is_read_rounded_and_nan_where_nothing_was(written):
    with Predictions(written) as found:
        assert (found.described, found.command) == (DESCRIBED, "candi impute x")
        for biosample, chrom in {(name, region.chrom) for name, region in PIECES}:
            for column, (assay, parameter) in enumerate(DESCRIBED.parameters(biosample)):
                (values,) = found.read(biosample, assay, [parameter], chrom, 0, DESCRIBED.n_bins(chrom))
                assert values.dtype == np.float32
                np.testing.assert_array_equal(values, expected_of(PIECES, biosample, column, chrom))


def test_several_parameters_are_read_in_the_order_asked_for_and_only_the_bins_asked_for(written):
    bins = (CHUNK_BINS - 30, CHUNK_BINS + 30)
    with Predictions(written) as found:
        values = found.read("b", "x", ["peak_logit", "count_log_mean"], "chr2", *bins)
    expected = [expected_of(PIECES, "b", column, "chr2")[slice(*bins)] for column in (2, 0)]
    np.testing.assert_array_equal(values, expected)
    assert np.isnan(values).sum() == 2 * 20


def test_regions_come_in_genome_order_and_pieces_that_abut_as_one(written):
    with Predictions(written) as found:
        assert found.regions("b") == [
            Region("chr2", 75, 5_000),
            *(region for name, region in PIECES[2:5] if name == "b"),
            Region("chr1", BORDER - 50, BORDER),
        ]
        assert found.regions("a") == [Region("chr2", BORDER, 2 * BORDER), Region("chr10", 0, 500)]
        assert found.regions("none") == []


def test_hdf5_alone_reads_the_same_numbers(written):
    with h5py.File(written) as file:
        assert (file.attrs["format"], file.attrs["format_version"]) == ("candi-predictions", FORMAT_VERSION)
        names: list[str] = []
        file["biosamples"].visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        for name in names:
            biosample, assay, parameter, chrom = name.split("/")
            column = DESCRIBED.parameters(biosample).index((assay, parameter))
            values = file["biosamples"][name][:]  # through HDF5's own filters
            np.testing.assert_array_equal(values, expected_of(PIECES, biosample, column, chrom))
        assert len(names) == 5 + 5 + 2 + 2
        assert file["regions/b/chr2"][0].tolist() == [75, 5_000]


def test_the_same_predictions_are_the_same_bytes(written, tmp_path):
    assert write(tmp_path / "again.h5", PIECES).read_bytes() == written.read_bytes()


@st.composite
def pieces_of_chromosomes(draw: st.DrawFn) -> Pieces:
    """Draw pieces in order, some of which abut; a chromosome of one biosample comes once."""
    keys = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(list(SMALL))), min_size=1, unique=True)
    pieces = []
    for biosample, chrom in draw(keys):
        n_bins = -(-SMALL[chrom] // STEP)
        cuts = sorted(draw(st.sets(st.integers(0, n_bins), min_size=2, max_size=8)))
        spans = [(first, last) for first, last in pairwise(cuts) if draw(st.booleans())]
        for first, last in spans or [(cuts[0], cuts[1])]:
            pieces.append((biosample, Region(chrom, first * STEP, min(last * STEP, SMALL[chrom]))))
    return pieces


SMALL = {"chr2": 1_010, "chr10": 225, "chr1": 175}


@settings(max_examples=60)
@given(pieces=pieces_of_chromosomes(), chunk=st.sampled_from([1, 4, 7, 64]))
def test_every_bin_is_its_own_wherever_chunks_and_pieces_end(tmp_path_factory, pieces, chunk):
    described = Described(STEP, SMALL, DESCRIBED.model, DESCRIBED.tracks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "CHUNK_BINS", chunk)
        path = write(tmp_path_factory.getbasetemp() / "pieces.h5", pieces, described)
    with Predictions(path) as found:
        for biosample in "ab":
            covered = [(r.chrom, b) for r in found.regions(biosample) for b in range(r.start, r.end)]
            assert covered == sorted(
                ((r.chrom, b) for name, r in pieces if name == biosample for b in range(r.start, r.end)),
                key=lambda base: (list(SMALL).index(base[0]), base[1]),
            )
        for biosample, chrom in {(name, region.chrom) for name, region in pieces}:
            for column, (assay, parameter) in enumerate(described.parameters(biosample)):
                expected = np.full(described.n_bins(chrom), np.nan, dtype=np.float32)
                for name, region in pieces:
                    if (name, region.chrom) == (biosample, chrom):
                        expected[bins_of(region)] = rounded(values_of(name, region))[:, column]
                (values,) = found.read(biosample, assay, [parameter], chrom, 0, len(expected))
                np.testing.assert_array_equal(values, expected)


def in_exact_arithmetic(value: float) -> float:
    """Return the nearest of the numbers of 17 significant bits, of two the even one; Python's fractions know ties."""
    if not math.isfinite(value) or value == 0:
        return value
    exponent = max(math.frexp(value)[1], -125)  # below it floats are equally spaced
    step = Fraction(2) ** (exponent - 17)
    return math.copysign(float(round(Fraction(value) / step) * step), value)


@settings(max_examples=500)
@given(st.floats(width=32))
@example(-0.0)
@example(float(np.float32(1e-45)))
@example(float(np.finfo(np.float32).tiny))
@example(1 + 2**-17)
@example(1 + 3 * 2**-17)
@example(2 - 2**-17)
def test_values_are_rounded_to_the_nearest_of_17_bits_and_halves_to_the_even_one(value):
    found = float(rounded(np.array([value], dtype=np.float32))[0])
    with np.errstate(over="ignore"):
        expected = float(np.float32(in_exact_arithmetic(value)))
    if math.isnan(value):
        assert math.isnan(found)
    else:
        assert (found, math.copysign(1, found)) == (expected, math.copysign(1, expected))


def test_what_is_no_number_stays_so_whatever_its_bits():
    bits = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], dtype=np.uint32)
    assert np.isnan(rounded(bits.view(np.float32))).all()


def test_rounding_loses_at_most_a_2_to_the_17th_and_leaves_7_bits_free(rng):
    values = (rng.normal(size=100_000) * 10.0 ** rng.uniform(-30, 30, 100_000)).astype(np.float32)
    found = rounded(values)
    error = np.abs(found.astype(np.float64) - values) / np.abs(values)
    assert 0.9 * 2**-17 < error.max() <= 2**-17
    assert not (found.view(np.uint32) & 0x7F).any()
    np.testing.assert_array_equal(rounded(found), found)
    assert rounded(values.reshape(100, 1_000)).shape == (100, 1_000)


def test_values_that_are_not_finite_are_kept_in_a_file(tmp_path):
    described = Described(STEP, {"chr1": 100}, {}, {("a", "x"): {"parameters": ["peak_logit"]}})
    values = np.array([[np.nan], [np.inf], [-np.inf], [1.5]], dtype=np.float32)
    with PredictionWriter(tmp_path / "p.h5", described) as writer:
        writer.add("a", Region("chr1", 0, 100), values)
    with Predictions(tmp_path / "p.h5") as found:
        np.testing.assert_array_equal(found.read("a", "x", ["peak_logit"], "chr1", 0, 4), values.T)


def test_memory_holds_a_chunk_of_each_dataset_and_not_the_genome(tmp_path):
    n_bins, step = 5_000_000, 50_000
    described = Described(STEP, {"chr1": n_bins * STEP}, {}, {("a", "x"): {"parameters": list(COUNTS)}})
    values = np.random.default_rng(0).normal(size=(step, 2)).astype(np.float32)
    tracemalloc.start()
    try:
        with PredictionWriter(tmp_path / "p.h5", described) as writer:
            for first in range(0, n_bins, step):
                writer.add("a", Region("chr1", first * STEP, (first + step) * STEP), values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6 < n_bins * 2 * 4 / 9
    with Predictions(tmp_path / "p.h5") as found:
        (last,) = found.read("a", "x", ["count_log_dispersion"], "chr1", n_bins - 3, n_bins)
    np.testing.assert_array_equal(last, rounded(values)[-3:, 1])


def open_files() -> int:
    gc.collect()  # what other tests have left
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


@pytest.mark.parametrize("chunks", [1, 2], ids=["at the end", "on the way"])
def test_a_disk_that_is_full_is_one_line_and_leaves_no_file_open(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Disk(10**9, 10**9 - 10**6, 10**6))
    before, shown = open_files(), Path("out/p.h5")
    region = Region("chr2", 0, chunks * BORDER)

    def fill() -> None:
        with PredictionWriter(tmp_path / "p.h5", DESCRIBED, shown_as=shown) as writer:
            writer.add("a", region, values_of("a", region))

    with pytest.raises(OutputError) as caught:
        fill()
    assert str(caught.value) == "out/p.h5: the disk is full; make room on that disk, and run the command again"
    assert open_files() == before


def test_a_disk_that_refuses_to_be_written_is_one_line_and_not_the_end_of_the_process(tmp_path):
    """What `disk_usage` says may be out of date by then."""
    script = tmp_path / "fill.py"
    script.write_text(
        "import resource, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from candi_cli.errors import OutputError\nfrom candi_cli.genome import Region\n"
        "from candi_cli.store.predictions import Described, PredictionWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "described = Described(1, {'chr1': 10**6}, {}, {('a', 'x'): {'parameters': ['peak_logit']}})\n"
        "values = np.random.default_rng(0).normal(size=(10**6, 1)).astype(np.float32)\n"
        "try:\n"
        "    with PredictionWriter(Path(sys.argv[1]), described) as writer:\n"
        "        writer.add('a', Region('chr1', 0, 10**6), values)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "p.h5"
    ran = subprocess.run([sys.executable, script, path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    assert re.match(rf"^{re.escape(str(path))}: cannot be written \(File too large\); ", line)


def test_a_folder_that_does_not_exist_is_named_by_what_the_user_asked_for(tmp_path):
    with pytest.raises(OutputError, match=r"^out\.h5: cannot be written \(No such file"):
        PredictionWriter(tmp_path / "none" / "p.h5", DESCRIBED, shown_as=Path("out.h5"))


def test_an_error_on_the_way_is_not_hidden_and_leaves_no_file_open(tmp_path):
    before = open_files()

    def fail() -> None:
        with PredictionWriter(tmp_path / "p.h5", DESCRIBED) as writer:
            writer.add("a", PIECES[5][1], values_of("a", PIECES[5][1]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert open_files() == before


def test_a_chromosome_that_is_taken_up_again_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a chr10 comes twice"):
        write(
            tmp_path / "p.h5",
            [("a", Region("chr10", 0, 25)), ("a", Region("chr1", 0, 25)), ("a", Region("chr10", 50, 75))],
        )


def refusal(path: Path) -> str:
    with pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: .*; ") as caught:
        Predictions(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_file_of_predictions_is_refused_by_what_it_is(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.h5")
    assert "an HDF5 file but not of predictions" in refusal(TEST_DATA / "truth.h5")
    for path in (TEST_DATA / "sim1.control.bam", TEST_DATA / "meta.tsv", tmp_path):
        assert "not a file of predictions" in refusal(path)
        assert not is_predictions(path)
    assert not is_predictions(TEST_DATA / "truth.h5")
    assert not is_predictions(tmp_path / "none.h5")


def test_another_version_is_refused_with_both_versions(written, tmp_path):
    path = Path(shutil.copy(written, tmp_path))
    assert is_predictions(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    assert f"format version {FORMAT_VERSION + 1}, expected {FORMAT_VERSION}" in refusal(path)


@pytest.mark.parametrize(
    "text", [None, "", "not JSON", "[]", "{}", '"x"', json.dumps(json.loads(DESCRIBED.to_json()) | {"wanted": []})]
)
def test_a_header_that_cannot_be_read_is_damage(written, tmp_path, text):
    path = Path(shutil.copy(written, tmp_path))
    with h5py.File(path, "r+") as file:
        if text is None:
            del file.attrs["described"]
        else:
            file.attrs["described"] = text
    assert "its header cannot be read; it is damaged" in refusal(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(written, tmp_path, part):
    path = tmp_path / "cut.h5"
    content = written.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "damaged" in refusal(path)


def test_damaged_values_are_noticed_and_the_others_still_read(written, tmp_path):
    path = Path(shutil.copy(written, tmp_path))
    with h5py.File(path) as file:
        chunk = file["biosamples/b/x/peak_logit/chr2"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size // 2] = bytes(chunk.size // 2)
    path.write_bytes(content)
    with Predictions(path) as found:
        with pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: x of b on chr2 cannot be read; it is damaged"):
            found.read("b", "x", ["peak_logit"], "chr2", 0, 100)
        (values,) = found.read("b", "x", ["count_log_mean"], "chr2", 0, 100)
    np.testing.assert_array_equal(values, expected_of(PIECES, "b", 0, "chr2")[:100])


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
JSON = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
)
REGIONS = st.builds(Region, NAMES, st.integers(0, 10**10), st.integers(0, 10**10))


@given(
    st.builds(
        Described,
        st.integers(1, 10_000),
        st.dictionaries(NAMES, st.integers(1, 10**10)),
        st.dictionaries(NAMES, JSON),
        st.dictionaries(st.tuples(NAMES, NAMES), st.dictionaries(NAMES, JSON | st.lists(NAMES))),
        st.dictionaries(NAMES, st.lists(REGIONS)),
    )
)
def test_a_description_travels_as_json_with_the_order_of_chromosomes_and_tracks(described):
    text = described.to_json()
    found = Described.from_json(text)
    assert found == described
    assert list(found.chromsizes) == list(described.chromsizes)
    assert list(found.tracks) == list(described.tracks)
    assert found.to_json() == text


def test_a_part_of_a_description_keeps_the_order_and_leaves_out_what_has_no_track():
    kept = DESCRIBED.only([("b", "w"), ("b", "x")])
    assert list(kept.tracks) == [("b", "x"), ("b", "w")]
    assert list(kept.wanted) == kept.biosamples == ["b"]
    assert kept.tracks["b", "x"] == DESCRIBED.tracks["b", "x"]
    assert (kept.resolution, kept.chromsizes, kept.model) == (STEP, SIZES, DESCRIBED.model)
    assert DESCRIBED.only([]).tracks == DESCRIBED.only([]).wanted == {}
    assert DESCRIBED.only(list(DESCRIBED.tracks)) == DESCRIBED


def test_parameters_are_those_of_the_kinds_in_one_order_whatever_order_is_asked():
    assert parameters_of(["peaks", "counts"]) == parameters_of(["counts", "peaks"]) == [*COUNTS, *PEAKS]
    assert parameters_of([]) == []
    assert DESCRIBED.assays("b") == ["x", "w"]
    assert DESCRIBED.parameters("b") == [("x", name) for name in (*COUNTS, *PEAKS)] + [("w", name) for name in SIGNAL]


def test_the_bytes_that_are_foretold_are_those_of_a_file(tmp_path, rng):
    n_bins = 20 * CHUNK_BINS
    described = Described(STEP, {"chr1": n_bins * STEP}, {}, {("a", "x"): {"parameters": list(COUNTS)}})
    region = Region("chr1", 0, n_bins * STEP)
    with PredictionWriter(tmp_path / "p.h5", described) as writer:
        writer.add("a", region, rng.normal(size=(n_bins, 2)).astype(np.float32))
    foretold = bytes_of(described, {"a": [region]})
    assert foretold == pytest.approx((tmp_path / "p.h5").stat().st_size, rel=0.1)
    assert bytes_of(described, {"a": [Region("chr1", 0, n_bins * STEP // 2)] * 2}) == foretold
