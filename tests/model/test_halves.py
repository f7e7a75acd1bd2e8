"""Half of the reads of each experiment: the halves make up the whole, and what is judged is never read."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from candi_cli.commands._held_out import held_out, predict_held_out
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.genome import Region
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import DENOISED
from candi_cli.model import Loaded, load
from candi_cli.model.candi import Lanes
from candi_cli.model.candi.halves import HalfLanes, halves, of_share, share_of
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Predictions

ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3", "H3K9me3")
N_BINS = 4_800  # of chr2


@pytest.fixture
def store(store_path: Path) -> Iterator[Store]:
    with Store.open(store_path) as opened:
        yield opened


@pytest.mark.parametrize("n_folds", [2, 3, 7, 8, 64])
def test_each_fold_is_in_one_half(n_folds: int):
    read, judged = halves(n_folds)
    assert sorted(read + judged) == list(range(n_folds))
    assert 0 <= len(judged) - len(read) <= 1
    assert read


def test_the_halves_add_up_to_the_counts(store: Store):
    lanes, half = Lanes(store, "sim1", ASSAYS), HalfLanes(store, "sim1", ASSAYS)
    for lane in lanes.lanes_with("counts")[:-1]:
        whole, read = (each.read(lane, "counts", "chr2", 0, N_BINS) for each in (lanes, half))
        folds = store.read("sim1", ASSAYS[lane], "folds", "chr2", 0, N_BINS)
        rest = folds[:, halves(folds.shape[1])[1]].sum(axis=1)
        np.testing.assert_array_equal(read + rest, whole)
        assert 0.3 < read.sum() / whole.sum() < 0.7
        np.testing.assert_array_equal(half.block([lane], "counts", "chr2", 5, 50).values[0], read[5:50])
        for layer in ("signal", "peaks"):
            one, other = (each.read(lane, layer, "chr2", 0, 50) for each in (lanes, half))
            np.testing.assert_array_equal(one, other)


def test_the_control_is_read_whole(store: Store):
    lanes, half = Lanes(store, "sim1", ASSAYS), HalfLanes(store, "sim1", ASSAYS)
    assert "folds" in store.experiment("sim1", CONTROL).layers
    one, other = (each.read(len(ASSAYS), "counts", "chr2", 0, N_BINS) for each in (lanes, half))
    np.testing.assert_array_equal(one, other)
    assert half.covariates()[-1] == lanes.covariates()[-1]


def test_depths_are_those_of_the_half(store: Store):
    whole, half = (each.covariates() for each in (Lanes(store, "sim1", ASSAYS), HalfLanes(store, "sim1", ASSAYS)))
    for assay, one, other in zip(ASSAYS, whole, half, strict=False):
        if one is None:
            assert other is None
            continue
        depths = store.experiment("sim1", assay).fold_depths
        share = depths[: len(depths) // 2].sum() / depths.sum()
        assert other.depth == pytest.approx(one.depth * share)
        assert other == Covariates(**{**vars(one), "depth": other.depth})


def test_shares_of_an_experiment_add_up(store: Store):
    experiment = store.experiment("sim1", "H3K4me3")
    read, judged = halves(len(experiment.fold_depths))
    assert share_of(experiment, read) + share_of(experiment, judged) == pytest.approx(1)
    assert share_of(experiment, []) == 0
    assert of_share(Covariates(depth=None), 0.5).depth is None
    assert of_share(Covariates(depth=10.0, read_length=50), 0.5) == Covariates(depth=5.0, read_length=50)


def test_an_experiment_without_folds_is_read_whole(store_path: Path, tmp_path: Path):
    with (
        Store.open(store_path) as source,
        Store.create(tmp_path / "some.h5", rule=source.rule, chromsizes=source.chromsizes) as store,
    ):
        store.adopt(source, "sim1", "H3K4me3")
        store.add_experiment("sim1", "H3K36me3")
        counts = source.read("sim1", "H3K36me3", "counts", "chr2", 0, N_BINS)
        store.write("sim1", "H3K36me3", "counts", "chr2", counts)
        store.describe("sim1", "H3K36me3", Covariates(depth=1000.0))
    with Store.open(tmp_path / "some.h5") as store:
        half = HalfLanes(store, "sim1", ASSAYS)
        np.testing.assert_array_equal(half.read(1, "counts", "chr2", 0, N_BINS), counts)
        assert half.covariates()[1].depth == 1000.0


def denoised(model: Loaded, path: Path, out: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the predicted parameters and the truth of each experiment's counts on a part of chr2."""
    with Store.open(path) as store:
        (held,) = (
            each
            for each in held_out(model, store, None, pools=[DENOISED], assays=(), kinds=("counts", "signal"), dna=False)
            if each.biosample == "sim1"
        )
        region = Region("chr2", 0, 40_000)
        predict_held_out(
            model, held, [region], out, Computing(choose("cpu"), 4, 1), average=None, fasta=None,
            recalibrated=True, advance=lambda n, what: None,
        )  # fmt: skip
        with Predictions(out) as file:
            predicted = {
                assay: file.read("sim1", assay, PARAMETERS["counts"], "chr2", 0, 1_600) for assay in held.kinds
            }
            assert {kind for kinds in held.kinds.values() for kind in kinds} == {"counts"}
        grid = Grid([region], 25)
        truth = {assay: held.observed.read("sim1", assay, "counts", grid) for assay in held.kinds}
    return predicted, truth


def test_a_denoised_track_never_depends_on_the_half_that_it_is_judged_by(
    model_path: Path, store_path: Path, rewritten: Callable, tmp_path: Path
):
    model, rng = load(model_path), np.random.default_rng(0)

    def changed(which: slice) -> Callable[..., np.ndarray]:
        folds_of: dict[tuple, np.ndarray] = {}

        def change(key: tuple, layer: str, chrom: str, values: np.ndarray) -> np.ndarray:
            if key[1] == CONTROL or layer not in ("counts", "folds"):
                return values
            if (key, chrom) not in folds_of:  # counts come first, and are the sum of the folds
                with Store.open(store_path) as store:
                    folds = store.read(*key, "folds", chrom, 0, store.n_bins(chrom)).copy()
                folds[:, which] = rng.poisson(3, folds[:, which].shape)
                folds_of[key, chrom] = folds.astype(np.uint32)
            return folds_of[key, chrom] if layer == "folds" else folds_of[key, chrom].sum(axis=1, dtype=np.uint32)

        return change

    judged = rewritten(store_path, tmp_path / "judged.h5", changed(slice(4, 8)))
    read = rewritten(store_path, tmp_path / "read.h5", changed(slice(0, 4)))
    before, truth = denoised(model, store_path, tmp_path / "p0.h5")
    other_truth, truth_changed = denoised(model, judged, tmp_path / "p1.h5")
    other_input, truth_kept = denoised(model, read, tmp_path / "p2.h5")
    assert set(before) == {"H3K27me3", "H3K36me3", "H3K4me3"}
    for assay in before:
        np.testing.assert_array_equal(other_truth[assay], before[assay])
        assert (truth_changed[assay] != truth[assay]).mean() > 0.5
        assert (other_input[assay] != before[assay]).mean() > 0.5
        np.testing.assert_array_equal(truth_kept[assay], truth[assay])
