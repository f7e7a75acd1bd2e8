"""From stores to training windows: every strategy, what it never touches, and cohorts of signal alone."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyBigWig
import pytest

from candi_cli.commands._cohort import open_cohort
from candi_cli.errors import CandiError, RequestError
from candi_cli.io.bed import read_intervals
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.model import ModelCard, save
from candi_cli.model.candi import Corruption, LossWeights, Model, TrainingDataset
from candi_cli.store import Store

TEST_DATA = Path(__file__).parents[2] / "test_data"
BLACKLIST, FASTA = TEST_DATA / "blacklist.bed", TEST_DATA / "genome.fa.gz"
CONTEXT_BP = 240 * 25
DEFAULTS = {
    "preset": "tiny", "regions": (), "valid_regions": (), "test_chroms": (), "blacklist": None, "reference": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def elements(tmp_path_factory):
    path = tmp_path_factory.mktemp("bed") / "ccre.bed"
    rows = [
        (chrom, start, start + 300) for chrom in ("chr1", "chr2", "chrUn") for start in range(2_000, 110_000, 9_000)
    ]
    path.write_text("".join(f"{chrom}\t{start}\t{end}\tEH38\n" for chrom, start, end in rows))
    return path


def cohort(path, stack, **options):
    stores = [stack.enter_context(Store.open(each)) for each in ([path] if isinstance(path, Path) else path)]
    return open_cohort(stores, stack, **(DEFAULTS | options))


def strategy(name, elements):
    return {
        "any": {},
        "ccre": {"loci": "ccre", "ccre": elements},
        "random": {"loci": "random", "n_windows": 20, "seed": 3},
        "full-chr": {"loci": "full-chr", "regions": ("chr1", "chr2")},
        "gw": {"loci": "gw"},
    }[name]


STRATEGIES = ("any", "ccre", "random", "full-chr", "gw")


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_test_chromosome_is_never_read_nor_the_blacklist_touched(store_path, elements, monkeypatch, name):
    touched = set()

    def spy(holder, method):
        plain = getattr(holder, method)
        monkeypatch.setattr(holder, method, lambda *given: (touched.add(given[-3]), plain(*given))[1])

    spy(Store, "read")
    spy(Fasta, "codes")
    with ExitStack() as stack:
        options = strategy(name, elements)
        if name == "full-chr":
            options = options | {"regions": ("chr1",)}
        found = cohort(store_path, stack, test_chroms=("chr2",), blacklist=BLACKLIST, reference=FASTA, **options)
        for unpacked in (False, True):
            windows = TrainingDataset(
                found.config, found.training, corruption=Corruption(), batch_size=8, seed=0, sequences=found.sequences
            )
            if unpacked:
                windows.decode()
            for step in range(3):
                windows.batch(step)
        spans = {chrom: loci.spans(240)[chrom] for _, loci in found.training for chrom in loci.starts}
    assert touched == {"chr1"}
    assert set(spans) == {"chr1"}
    bad = read_intervals(BLACKLIST)["chr1"]
    assert not any(a * 25 < end and start < b * 25 for a, b in spans["chr1"] for start, end in bad)


@pytest.mark.parametrize("name", STRATEGIES)
def test_windows_are_reproducible_and_told_of_in_the_card(store_path, elements, name):
    with ExitStack() as stack:
        one, same = (cohort(store_path, stack, **strategy(name, elements)) for _ in range(2))
        for (_, first), (_, second) in zip(one.training, same.training, strict=True):
            assert {chrom: runs.tolist() for chrom, runs in first.starts.items()} == {
                chrom: runs.tolist() for chrom, runs in second.starts.items()
            }
        told = one.data["windows"]
    assert told["loci"] == name
    assert told.get("elements") == (elements.name if name == "ccre" else None)
    assert (told.get("n_windows"), told.get("seed")) == ((20, 3) if name == "random" else (None, None))
    # sim1 and sim2 have three assays each, of which they share two
    assert told["shares"] == {"sim1": 0.5, "sim2": 0.5}


def test_random_windows_are_the_same_places_for_all_biosamples(store_path):
    with ExitStack() as stack:
        found = cohort(store_path, stack, loci="random", n_windows=25)
        one, other = (loci.starts for _, loci in found.training)
        assert {chrom: runs.tolist() for chrom, runs in one.items()} == {c: r.tolist() for c, r in other.items()}
        starts = np.sort(one["chr1"][:, 0])
        assert (np.diff(starts) >= 240).all()
        assert sum(map(len, one.values())) == 25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loci": "ccre"}, "--ccre"),
        ({"ccre": BLACKLIST}, "--ccre"),
        ({"loci": "full-chr"}, "give -r"),
        ({"loci": "gw", "regions": ("chr1",)}, "leave -r out"),
        ({"loci": "nearby"}, "not one of any, ccre"),
        ({"test_chroms": ("chr9",)}, "--test-chrom chr9"),
        ({"input": "signal", "valid_regions": ("chr1:1-200",)}, "--valid-region"),
    ],
)
def test_what_cannot_be_meant_is_refused(store_path, options, words):
    with ExitStack() as stack, pytest.raises(RequestError, match=words):
        cohort(store_path, stack, **options)


def test_regions_of_a_bed_are_where_training_looks(store_path, tmp_path):
    bed, foreign = tmp_path / "regions.bed", tmp_path / "foreign.bed"
    bed.write_text("chr1\t10010\t40000\nchr1\t39000\t60000\nchr2\t0\t900000\nchr9\t0\t100\n")
    foreign.write_text("9\t0\t100\n")
    with ExitStack() as stack:
        found = cohort(store_path, stack, region_intervals=bed)
        assert found.data["regions"] == ["regions.bed"]
        spans = found.training[0][1].spans(240)
        assert (spans["chr1"] * 25).tolist() == [[10_025, 60_000]]
        assert spans["chr2"][:, 1].max() <= 120_000 // 25
        both = cohort(store_path, stack, region_intervals=bed, regions=("chr1:100,001-120,000",))
        assert (both.training[0][1].spans(240)["chr1"] * 25).tolist() == [[10_025, 60_000], [100_000, 120_000]]
        with pytest.raises(CandiError, match="shares no chromosome"):
            cohort(store_path, stack, region_intervals=foreign)


@pytest.fixture(scope="module")
def signal_store(tmp_path_factory):
    """What `candi bin` makes of a sheet that names tracks alone, of two stretches 200 kb apart."""
    from candi_cli.commands import main

    folder = tmp_path_factory.mktemp("signal")
    rows, rng = ["biosample\tassay\tsignal"], np.random.default_rng(0)
    for biosample, assays in {"one": "ab", "two": "abc"}.items():
        for assay in assays:
            path = folder / f"{biosample}.{assay}.bw"
            with pyBigWig.open(str(path), "w") as track:
                track.addHeader([("chr1", 400_000), ("chr2", 50_000)])
                for start, n in ((20_000, 2_000), (300_000, 1_000)):
                    values = rng.gamma(0.5, 4, n)
                    track.addEntries("chr1", start, values=values, span=25, step=25)
            rows.append(f"{biosample}\t{assay}\t{path.name}")
    (folder / "sheet.tsv").write_text("\n".join(rows) + "\n")
    assert main(["bin", "--covariates", str(folder / "sheet.tsv"), "-o", str(folder / "s.h5"), "--quiet"]) == 0
    return folder / "s.h5"


def test_windows_of_tracks_alone_lie_where_the_tracks_do(signal_store, candi):
    with ExitStack() as stack:
        found = cohort(signal_store, stack, input="signal", reads_reference=True)
        for _, loci in found.training:
            assert {c: (runs * 25).tolist() for c, runs in loci.spans(240).items()} == {
                "chr1": [[20_000, 70_000], [300_000, 325_000]]
            }
        assert found.config.input == "signal"
        assert found.config.reads_reference
        assert set(found.assays) == {"a", "b", "c"}
        for card in found.assays.values():
            assert card.outputs == ("signal",)
            assert card.depth_range is None
            assert card.standard.depth is None
        # a and b in both, c in one: half even, half by assay
        expected = {"one": 0.5 / 2 + 0.5 * (1 / 2 + 1 / 2) / 3, "two": 0.5 / 2 + 0.5 * (1 / 2 + 1 / 2 + 1) / 3}
        assert found.data["windows"]["shares"] == pytest.approx(expected, abs=1e-6)
        with pytest.raises(RequestError, match="no assay with reads"):
            cohort(signal_store, stack)
    ran = candi("info", signal_store)
    assert ran.code == 0
    assert "\ta\tsignal\tNA\tNA" in ran.out
    assert "datasets verified" in ran.err


def test_a_model_of_signal_denoises_a_store_and_the_tracks_themselves(signal_store, candi, tmp_path):
    with ExitStack() as stack:
        found = cohort(signal_store, stack, input="signal", reads_reference=True)
        network = Model(found.config)
        card = found.card(
            corruption=Corruption(), weights=LossWeights(), history=[], n_parameters=1, settings={"preset": "tiny"}
        )
        save(tmp_path / "m.safetensors", network, card)
    assert ModelCard.from_json(card.to_json()).assays == card.assays
    ran = candi("info", tmp_path / "m.safetensors")
    assert ran.code == 0, ran.err
    assert "\na\tsignal\tNA\tNA" in ran.out
    (tmp_path / "out").mkdir()
    ran = candi("denoise", signal_store, "-m", tmp_path / "m.safetensors", "-o", tmp_path / "out", "--track", "signal")
    assert ran.code == 0, ran.err
    assert len(list((tmp_path / "out").glob("*.bw"))) == 5
    with pyBigWig.open(str(tmp_path / "out" / "two.c.bw")) as track:
        intervals = track.intervals("chr1")
        assert (intervals[0][0], intervals[-1][1]) == (20_000, 325_000)
        assert np.isfinite([value for _, _, value in intervals]).all()
        assert not any(70_000 <= start < 300_000 for start, _, _ in intervals)
    sheet = signal_store.with_name("sheet.tsv")
    (tmp_path / "again").mkdir()
    model = ("-m", tmp_path / "m.safetensors")
    ran = candi("denoise", "--covariates", sheet, *model, "-o", tmp_path / "again", "--track", "signal")
    assert ran.code == 0, ran.err
    for path in (tmp_path / "out").glob("*.bw"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    ran = candi(
        "denoise", signal_store, "-m", tmp_path / "m.safetensors", "-o", tmp_path / "again", "--track", "counts"
    )
    assert ran.code == 1
    assert "never learned counts of a, only signal" in ran.err


def test_the_card_of_a_model_of_reads_keeps_its_depths(store_path):
    with ExitStack() as stack:
        found = cohort(store_path, stack)
        for card in found.assays.values():
            low, high = card.depth_range
            assert 0 < low < high
        assert set(asdict(found.assays["H3K4me3"])["outputs"]) == {"counts", "signal", "peaks"}


@pytest.mark.real_data
def test_real_tracks_of_pilot_regions_are_measured_in_their_regions_alone(tmp_path):
    from candi_cli.io.signal import read_signal

    folder = Path(__file__).parents[3] / "shared" / "data" / "roadmap_pilot_hg19"
    sizes = {"chr21": 48_129_895, "chr22": 51_304_566}
    regions = read_intervals(folder / "encodePilotRegions.hg19.bed")
    for chrom, _, spans in read_signal(folder / "E003.H3K4me3.pilot.neglog10p.hg19.bw", sizes, 25):
        assert len(spans) == len(regions[chrom])
        # the tracks are of whole bins, and reach over a region by one of them at most
        assert np.abs(spans - regions[chrom]).max() <= 50
