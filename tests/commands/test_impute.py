"""`candi impute`: which assays it writes, at which covariates, from which windows, and how shards become one run."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pytest
import torch
from outcomes import one_line

from candi_cli.commands import main
from candi_cli.commands._tracks import lane_covariates, prediction_dataset
from candi_cli.genome import Window
from candi_cli.model import load, save
from candi_cli.store import Store

TEST_DATA = Path(__file__).parents[2] / "test_data"
SHEET = TEST_DATA / "meta.tsv"
READS = [TEST_DATA / f"sim1.{assay}.bam" for assay in ("H3K4me3", "H3K27me3")]
MODEL_ASSAYS = ["H3K27me3", "H3K36me3", "H3K4me3", "H3K9me3"]
SIZES = {"chr1": 300_010, "chr2": 120_000}
SOME = ("-r", "chr2:1-2,000", "--quiet")
COMPANIONS = {"index.html", "manifest.json", "igv_session.xml"}


def values(path: Path, chrom="chr2") -> np.ndarray:
    with pyBigWig.open(str(path)) as track:
        return np.array([value for *_, value in track.intervals(chrom)])


def described(path: Path) -> dict:
    with h5py.File(path) as file:
        return json.loads(file.attrs["described"])


def datasets(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    return found


# ---- which assays


def test_all_assays_are_written_and_those_among_the_reads_are_denoised_as_by_denoise(candi, model_path, tmp_path):
    common = (*READS, "--covariates", SHEET, "-m", model_path, "--interval", 0.9, *SOME)
    assert candi("impute", *common, "--assay", "all", "-o", tmp_path / "all").code == 0
    assert candi("denoise", *common, "-o", tmp_path / "denoised").code == 0
    imputed, denoised = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.bw")} for name in ("all", "denoised")
    )
    ends = ("", ".lower", ".upper")
    assert set(imputed) == {f"sim1.{assay}{end}.bw" for assay in MODEL_ASSAYS for end in ends}
    assert set(denoised) == {f"sim1.{assay}{end}.bw" for assay in ("H3K4me3", "H3K27me3") for end in ends}
    assert {name: imputed[name] for name in denoised} == denoised
    manifest = json.loads((tmp_path / "all" / "manifest.json").read_text())
    assert {track["assay"]: track["observed"] for track in manifest["experiments"]} == {
        "H3K27me3": True, "H3K36me3": False, "H3K4me3": True, "H3K9me3": False,
    }  # fmt: skip


def test_every_biosample_of_a_store_gets_the_assays(candi, model_path, store_path, tmp_path):
    options = ("--assay", "H3K9me3, H3K4me3", "--assay", "H3K9me3", "-o", tmp_path / "tracks")
    assert candi("impute", store_path, "-m", model_path, *options, *SOME).code == 0
    assert {path.name for path in (tmp_path / "tracks").iterdir()} - COMPANIONS == {
        f"{biosample}.{assay}.bw" for biosample in ("sim1", "sim2") for assay in ("H3K9me3", "H3K4me3")
    }


@pytest.mark.parametrize("kinds", [("--track", "peaks"), ("-O", "narrowpeak")], ids=str)
def test_of_all_assays_those_that_never_learned_the_track_are_left_out_with_a_warning(
    candi, model_path, pair_store_path, tmp_path, kinds
):
    options = ("--assay", "all", "-o", tmp_path / "tracks", "-r", "chr2:1-2,000", *kinds)
    ran = candi("impute", pair_store_path, "-m", model_path, *options)
    assert ran.code == 0
    (warning,) = [line for line in ran.errors if "warning" in line]
    assert "never learned peaks of H3K9me3" in warning
    assert {path.name.split(".")[1] for path in (tmp_path / "tracks").glob("sim1*")} == set(MODEL_ASSAYS) - {"H3K9me3"}


def test_an_assay_that_the_model_does_not_know_is_answered_with_those_that_it_does(
    candi, model_path, pair_store_path, tmp_path
):
    ran = candi("impute", pair_store_path, "-m", model_path, "--assay", "CTCF", "-o", tmp_path / "out.bw")
    one_line(ran, model_path, "CTCF", ", ".join(MODEL_ASSAYS), "--assay", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "part"), [((), "--assay"), (("--assay", "all,H3K4me3"), "all"), (("--assay", ","), "--assay")], ids=str
)
def test_assays_are_named_or_all_is_alone(candi, model_path, pair_store_path, tmp_path, options, part):
    ran = candi("impute", pair_store_path, "-m", model_path, *options, "-o", tmp_path / "tracks")
    one_line(ran, part, code=2)
    assert list(tmp_path.iterdir()) == []


# ---- at which covariates


@pytest.fixture
def asked(candi, model_path, pair_store_path, tmp_path) -> Callable[..., dict[str, dict]]:
    """Return what is asked of each assay, as the HDF5 output says."""

    def run(*requests: str) -> dict[str, dict]:
        output = tmp_path / "asked.h5"
        options = [text for each in requests for text in ("--as", each)]
        ran = candi("impute", pair_store_path, "-m", model_path, "--assay", "all", "-o", output, *options, *SOME)
        assert ran.code == 0, ran.err
        return {assay: track["asked"] for _, assay, track in described(output)["tracks"]}

    return run


def test_what_is_asked_of_one_assay_goes_before_what_is_asked_of_all_in_any_order(asked, model_path, pair_store_path):
    all_of_them, one, same = "depth=9000,run_type=single-ended", "H3K36me3:depth=12k", "H3K4me3:same"
    found = asked(all_of_them, one, same)
    assert found == asked(same, one, all_of_them)
    with Store.open(pair_store_path) as store:
        own = store.experiment("sim1", "H3K4me3").covariates
    standard = {assay: card.standard for assay, card in load(model_path).card.assays.items()}
    expected = {  # depth, read length, run type
        "H3K27me3": (9000, standard["H3K27me3"].read_length, "single-ended"),
        "H3K36me3": (12_000, standard["H3K36me3"].read_length, "single-ended"),
        "H3K4me3": (own.depth, own.read_length, "paired-ended"),
        "H3K9me3": (9000, standard["H3K9me3"].read_length, "single-ended"),
    }
    assert {
        assay: (covariates["depth"], covariates["read_length"], covariates["run_type"])
        for assay, covariates in found.items()
    } == expected


def test_the_same_covariates_are_those_of_the_input_and_of_what_is_imputed_the_standard(asked, pair_store_path):
    standard, same = asked(), asked("same")
    with Store.open(pair_store_path) as store:
        for assay in ("H3K4me3", "H3K27me3"):
            own = store.experiment("sim1", assay).covariates
            assert (same[assay]["depth"], same[assay]["span_bp"]) == (own.depth, own.span_bp)
            assert same[assay] != standard[assay]
    for assay in ("H3K36me3", "H3K9me3"):
        assert same[assay] == standard[assay]


def test_asking_by_name_for_the_covariates_of_the_input_gives_the_bytes_of_asking_for_the_same(
    candi, model_path, pair_store_path, tmp_path
):
    with Store.open(pair_store_path) as store:
        own = store.experiment("sim1", "H3K4me3").covariates
    by_name = f"depth={own.depth:.0f},read_length={own.read_length:g},run_type={own.run_type},platform={own.platform}"
    tracks = {}
    for number, request_ in enumerate(["same", by_name, f"H3K4me3:{by_name}", "H3K36me3:same"]):
        output = tmp_path / f"{number}.bw"
        options = ("-m", model_path, "--assay", "H3K4me3", "-o", output, "--as", request_, *SOME)
        assert candi("impute", pair_store_path, *options).code == 0
        tracks[number] = output.read_bytes()
    assert tracks[0] == tracks[1] == tracks[2] != tracks[3]


# ---- from which windows


@pytest.fixture(scope="module")
def by_hand(model_path, store_path):
    """Compute a window of a biosample in which a bin of chr1 lies, as the text of `genome.tile` says it is cut."""
    model = load(model_path)
    context, flank = model.config.context_bins, model.config.flank_bins

    def compute(biosample: str, number: int) -> tuple[Window, object, torch.Tensor]:
        start = number * (context - 2 * flank)
        window = Window("chr1", start - flank, start - flank + context, start, start + context - 2 * flank)
        with Store.open(store_path) as store, torch.inference_mode():
            covariates = lane_covariates(model, store, biosample, [])
            batch = prediction_dataset(model, store, biosample, covariates).batch([window])
            return window, model.network(batch), model.network.encode(batch).latent

    return compute


def test_latents_are_those_of_the_encoder_at_positions_of_200_bp(candi, model_path, store_path, by_hand, tmp_path):
    latent, n_positions = tmp_path / "Z.h5", -(-300_010 // 200) - 250_000 // 200
    options = ("--assay", "H3K36me3", "-o", tmp_path / "tracks", "--latent", latent, "-r", "chr1:250,076-300,010")
    assert candi("impute", store_path, "-m", model_path, *options, "--quiet").code == 0
    width = load(model_path).config.d_model
    for biosample in ("sim1", "sim2"):
        with h5py.File(latent) as file:
            assert (file.attrs["format"], file.attrs["position_bp"]) == ("candi-latents", 200)
            assert list(file["biosamples"]) == ["sim1", "sim2"]
            group = file[f"biosamples/{biosample}/chr1"]
            z, start, end = (group[name][:] for name in ("latent", "start", "end"))
        assert z.shape == (n_positions, width)
        np.testing.assert_array_equal(start, 250_000 + 200 * np.arange(n_positions))  # widened to whole positions
        np.testing.assert_array_equal(end, np.minimum(start + 200, 300_010))
        window, _, expected = by_hand(biosample, 65)
        rows = (start >= 25 * window.core_start) & (end <= 25 * window.core_end)
        first, last = ((bin_ - window.context_start) // 8 for bin_ in (window.core_start, window.core_end))
        assert rows.sum() == last - first == 20
        np.testing.assert_allclose(z[rows], expected[0, first:last].numpy(), rtol=1e-5, atol=1e-30)
        assert z[rows].std(axis=0).min() > 0


def test_a_track_is_what_the_network_says_of_the_window_whose_core_holds_the_bin(
    candi, model_path, store_path, by_hand, tmp_path
):
    window, output, _ = by_hand("sim2", 7)
    region = f"chr1:{25 * window.core_start + 1}-{25 * window.core_end}"
    options = ("--assay", "H3K27me3", "-o", tmp_path / "tracks", "--digits", 5, "-r", region, "--quiet")
    assert candi("impute", store_path, "-m", model_path, *options).code == 0
    inside = slice(window.core_start - window.context_start, window.core_end - window.context_start)
    lane = load(model_path).config.assays.index("H3K27me3")
    expected = output.count_log_mean[0, inside, lane].exp().numpy()
    with pyBigWig.open(str(tmp_path / "tracks" / "sim2.H3K27me3.bw")) as track:
        found = track.values("chr1", 25 * window.core_start, 25 * window.core_end, numpy=True)[::25]
    np.testing.assert_allclose(found, expected, rtol=6e-5)  # half a unit of the fifth digit, and what HDF5 keeps


def test_a_depth_is_asked_for_over_the_span_of_the_reads(candi, model_path, pair_store_path, tmp_path):
    output = tmp_path / "out.h5"
    options = ("-m", model_path, "--assay", "H3K36me3", "-o", output, "--as", "depth=12k", *SOME)
    assert candi("impute", pair_store_path, *options).code == 0
    ((_, _, track),) = described(output)["tracks"]
    with Store.open(pair_store_path) as store:
        spans = [store.experiment("sim1", assay).covariates.span_bp for assay in ("H3K4me3", "H3K27me3", "control")]
    assert (track["asked"]["depth"], track["asked"]["span_bp"]) == (12_000, max(spans))
    assert max(spans) == pytest.approx(sum(SIZES.values()), rel=0.01)
    assert track["covariates"] is None


# ---- shards


MARKS = ("--assay", "H3K4me3,H3K36me3", "--quiet")
SHOWN = (
    "-O", "bigwig", "-O", "bedgraph", "-O", "narrowpeak", "-O", "hdf5",
    "--track", "counts", "--track", "signal", "--track", "peaks", "--interval", "0.9", "--cv",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(vivid_model_path, pair_store_path):
    """Predict H3K4me3 and H3K36me3 of the store, and return where to."""

    def predict(output: Path, *options: str, store=pair_store_path, model=vivid_model_path) -> Path:
        assert main(["impute", str(store), "-m", str(model), "-o", str(output), *MARKS, *options]) == 0
        return output

    return predict


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Path:
    """A folder of both marks of the whole genome, from one run."""
    return run(tmp_path_factory.mktemp("whole") / "tracks", *SHOWN)


@pytest.fixture(scope="module")
def shards(run, whole, tmp_path_factory) -> list[Path]:
    """Three shards of the same; one border lies inside of a peak of chr1."""
    peaks = [line.split("\t") for line in (whole / "sim1.H3K4me3.narrowPeak").read_text().splitlines()]
    wide = [(int(start), int(end)) for chrom, start, end, *_ in peaks if chrom == "chr1" and int(end) - int(start) > 75]
    start, end = wide[len(wide) // 2]
    border = (start + end) // 50 * 25
    assert start < border < end
    border += 25 * (border % 200 == 0)  # inside of a position of the latent
    folder = tmp_path_factory.mktemp("shards")
    regions = {
        "a": [f"chr1:1-{border}"],
        "b": [f"chr1:{border + 1}-300010", "chr2:1-60000"],
        "c": ["chr2:60001-120000"],
    }
    return [
        run(folder / f"{name}.h5", *(text for region in found for text in ("-r", region)))
        for name, found in regions.items()
    ]


def test_shards_merge_into_the_files_of_one_run(candi, whole, shards, tmp_path):
    merged = tmp_path / "tracks"
    ran = candi("impute", "--merge", shards[2], shards[0], shards[1], "-o", merged, *SHOWN)
    assert ran.code == 0, ran.err
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in merged.iterdir()} == names
    tracks = {name for name in names - COMPANIONS if not name.endswith(".h5")}
    assert len(tracks) == 2 * (2 * (4 + 4 + 1) + 1)
    for name in tracks:
        assert (merged / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (datasets(folder / "predictions.h5") for folder in (whole, merged))
    assert list(one) == list(other)
    for name, stored in one.items():
        np.testing.assert_array_equal(stored, other[name], err_msg=name)
    assert described(whole / "predictions.h5") == described(merged / "predictions.h5")


def test_the_manifest_and_the_page_of_merged_shards_name_the_model_by_its_checksum(
    candi, shards, vivid_model_path, tmp_path
):
    assert candi("impute", "--merge", *shards, "-o", tmp_path / "tracks", "--quiet").code == 0
    manifest = json.loads((tmp_path / "tracks" / "manifest.json").read_text())
    sha256 = load(vivid_model_path).card.weights_sha256
    assert (manifest["model"]["sha256"], manifest["model"]["name"]) == (sha256, None)
    assert manifest["model"]["assays"] == list(load(vivid_model_path).card.assays)
    assert manifest["regions"] == {"sim1": [["chr1", 0, 300_010], ["chr2", 0, 120_000]]}
    assert [entry["name"] for entry in manifest["inputs"]] == ["a.h5", "b.h5", "c.h5"]
    page = (tmp_path / "tracks" / "index.html").read_text()
    assert f"the model <b>{sha256[:12]}</b> predicted" in page
    assert "None" not in page


def test_a_region_and_an_assay_of_the_shards_hold_what_the_whole_does_there(candi, whole, shards, tmp_path):
    options = ("--assay", "H3K36me3", "-r", "chr2:50,001-70,000", "-o", tmp_path / "out.bw", "--quiet")
    assert candi("impute", "--merge", *shards[1:], *options).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out.bw"}
    with pyBigWig.open(str(tmp_path / "out.bw")) as part, pyBigWig.open(str(whole / "sim1.H3K36me3.counts.bw")) as all_:
        assert part.chroms() == {"chr2": 120_000}
        found = part.intervals("chr2")
        assert (found[0][0], found[-1][1]) == (50_000, 70_000)
        np.testing.assert_array_equal(
            part.values("chr2", 50_000, 70_000, numpy=True), all_.values("chr2", 50_000, 70_000, numpy=True)
        )


def test_a_dry_run_of_a_merge_lists_the_outputs_and_writes_nothing(candi, shards, tmp_path):
    ran = candi("impute", "--merge", *shards, "-o", tmp_path / "tracks", "--sd", "--dry-run")
    assert ran.code == 0
    names = [f"sim1.{assay}{end}.bw" for assay in ("H3K4me3", "H3K36me3") for end in ("", ".sd")]
    assert sorted(ran.out.splitlines()) == sorted(f"output\t{tmp_path / 'tracks' / name}" for name in names)
    assert list(tmp_path.iterdir()) == []


def test_the_model_of_the_environment_does_not_matter_to_a_merge(candi, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("CANDI_MODEL", str(tmp_path / "absent.safetensors"))
    options = ("--assay", "H3K4me3", "-o", "-", "-r", "chr2:1-50", "--quiet")
    ran = candi("impute", "--merge", *shards, *options)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("chr2\t0\t25\t")


@pytest.mark.parametrize(
    "option",
    [
        ("--covariates", SHEET), ("-m", "model"), ("--latent", "Z.h5"), ("--as", "depth=1M"), ("-g", "sizes"),
        ("--aliases", "tsv"), ("-T", "fasta"), ("--resume",), ("--batch-size", 4),
    ],
    ids=lambda option: option[0],
)  # fmt: skip
def test_an_option_that_means_nothing_to_a_merge_is_refused_by_its_name(candi, shards, tmp_path, option):
    ran = candi("impute", "--merge", *shards, "-o", tmp_path / "tracks", *option)
    one_line(ran, f"{option[0]} has no meaning", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def merge(candi, tmp_path):
    folder = tmp_path / "merged"
    folder.mkdir()

    def run(*given, output="out.bw"):
        """Merge into a folder, and return how it ended; nothing may be left of it."""
        ran = candi("impute", "--merge", *given, "-o", folder / output)
        assert list(folder.iterdir()) == []
        return ran

    return run


def test_what_is_missing_is_named(merge, shards):
    with h5py.File(shards[0]) as file:
        ((_, border),) = file["regions/sim1/chr1"][:].tolist()
    one_line(merge(shards[0], shards[2]), "sim1", f"chr1:{border + 1:,}-300,010, chr2:1-60,000", "-r", code=1)
    one_line(merge(shards[0], "-r", "chr2:1-100"), "chr2:1-100", code=1)


def test_what_is_there_twice_is_named(merge, run, shards, tmp_path):
    more = run(tmp_path / "more.h5", "-r", "chr2:59,976-60,100")
    one_line(merge(*shards, more), more, shards[1], "overlaps", "chr2:59,976-60,000", code=1)
    one_line(merge(*shards, shards[0]), shards[0], "overlaps", code=1)


@pytest.mark.parametrize("other", ["model", "request", "reads", "assays", "genome", "DNA"])
def test_shards_of_different_predictions_are_refused(
    candi, merge, run, model_path, vivid_model_path, pair_store_path, store_path, tmp_path, other
):
    here, there = ("-r", "chr2:1-1000"), ("-r", "chr2:1001-2000")
    one, two, fact = tmp_path / "one.h5", tmp_path / "two.h5", "reads, covariates or requests"
    run(one, *here)
    if other == "model":
        changed = load(vivid_model_path)
        with torch.no_grad():
            next(iter(changed.network.output_biases().values()))[0] += 1
        save(tmp_path / "changed.safetensors", changed.network, changed.card)
        run(two, *there, model=tmp_path / "changed.safetensors")
        fact = load(tmp_path / "changed.safetensors").card.weights_sha256[:12]
    elif other == "request":
        run(two, *there, "--as", "H3K36me3:depth=9000")
    elif other == "reads":  # of another mark, which is not among the tracks
        store = tmp_path / "other.h5"
        assert candi("bin", *READS, TEST_DATA / "sim1.H3K36me3.bam", "--covariates", SHEET, "-o", store).code == 0
        run(two, *there, store=store)
    elif other == "assays":
        options = ("-m", vivid_model_path, "--assay", "H3K4me3", "-o", two, *there)
        assert candi("impute", pair_store_path, *options).code == 0
        fact = "other biosamples or assays"
    elif other == "genome":
        sizes, store = tmp_path / "chrom.sizes", tmp_path / "other.h5"
        sizes.write_text("chr1\t300010\nchr2\t120000\nchr3\t9000\n")
        assert candi("bin", *READS, "--covariates", SHEET, "-g", sizes, "-o", store).code == 0
        run(two, *there, store=store)
        fact = "another genome"
    else:
        run(two, *there, "-T", TEST_DATA / "genome.fa.gz")
    ran = merge(one, two, "--assay", "H3K4me3", "-r", "chr2:1-2000")
    one_line(ran, one, two, fact, "merge shards of one prediction only", code=1)


def test_what_the_shards_do_not_hold_is_named(candi, merge, shards, model_path, pair_store_path, tmp_path):
    one_line(merge(*shards, "--assay", "CTCF"), "CTCF", "H3K36me3, H3K4me3", code=2)
    counts = tmp_path / "counts.h5"
    options = ("-m", model_path, "--assay", "H3K4me3", "--track", "counts", "-o", counts, *SOME)
    assert candi("impute", pair_store_path, *options).code == 0
    for more in (("--track", "signal"), ("-O", "narrowpeak")):
        one_line(merge(counts, "-r", "chr2:1-2,000", *more), counts, "H3K4me3", "--track", code=2)


@pytest.mark.parametrize("kind", ["store", "bigWig", "absent", "cut"])
def test_a_shard_that_is_none_is_named(merge, shards, whole, store_path, tmp_path, kind):
    bad = tmp_path / "bad.h5"
    if kind == "store":
        bad = store_path
    elif kind == "bigWig":
        bad = whole / "sim1.H3K4me3.counts.bw"
    elif kind == "cut":
        bad.write_bytes(shards[1].read_bytes()[:5000])
    for given in ([*shards, bad], [bad, *shards]):
        one_line(merge(*given), bad, code=1)


def test_a_merge_does_not_replace_a_shard_and_needs_some(candi, shards, tmp_path):
    before = shards[0].read_bytes()
    one_line(candi("impute", "--merge", *shards, "-o", shards[0]), shards[0], "is an input too", code=1)
    assert shards[0].read_bytes() == before
    one_line(candi("impute", "--merge", "-o", tmp_path / "out.bw"), "--merge", code=2)
