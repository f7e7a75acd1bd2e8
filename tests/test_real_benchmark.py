"""What the benchmark of real rows could get wrong: halves, duplicates, counts, strata, tables."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from candi_cli.counting import CountingRule
from candi_cli.store import Store

FOLDER = Path(__file__).parent / "benchmarks" / "real"
SPAN = (0, 100_000)


@pytest.fixture(scope="module")
def real() -> SimpleNamespace:
    """The modules of the benchmark, which import each other as scripts do."""
    names = ("fragments", "signal_rivals", "count_rivals", "tables", "units", "locus", "experiments", "transfer", "dna")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def pairs(real):
    """3,000 fragments of paired reads, of which some are the same."""
    rng = np.random.default_rng(0)
    start = rng.integers(1_000, 95_000, 3_000)
    end, reverse = start + rng.integers(60, 600, 3_000), rng.random(3_000) < 0.5
    again = rng.integers(0, 3_000, 500)
    return real.fragments.Fragments(
        np.append(start, start[again]), np.append(end, end[again]), np.append(reverse, reverse[again]), 50
    )


@pytest.fixture
def singles(real):
    rng = np.random.default_rng(1)
    start = rng.integers(1_000, 95_000, 3_000)
    return real.fragments.Fragments(start, start + rng.choice([36, 72], 3_000), rng.random(3_000) < 0.5, 0)


def keys(fragments) -> list[tuple[int, ...]]:
    return list(map(tuple, fragments.keys().tolist()))


@pytest.mark.parametrize("kind", ["pairs", "singles"])
def test_parts_share_no_fragment_and_are_all_of_them(kind, request):
    whole = request.getfixturevalue(kind).unique()
    parts = whole.split((0.5, 0.25, 0.25), seed=3)
    assert [len(part.start) for part in parts] == pytest.approx(np.array([0.5, 0.25, 0.25]) * len(whole.start), abs=1)
    found = [key for part in parts for key in keys(part)]
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(keys(whole))
    assert keys(whole.split((0.5, 0.5), seed=3)[0]) != keys(whole.split((0.5, 0.5), seed=4)[0])


def test_a_fragment_counts_once_and_its_other_orientation_is_another(real):
    start, end = np.array([100, 100, 100, 100]), np.array([300, 300, 300, 301])
    whole = real.fragments.Fragments(start, end, np.array([False, False, True, False]), 50)
    assert keys(whole.unique()) == [(100, 300, 0), (100, 300, 1), (100, 301, 0)]
    assert keys(whole.without(whole.take([0]))) == [(100, 300, 1), (100, 301, 0)]


def test_single_reads_of_one_five_prime_end_are_one_whatever_their_lengths(real):
    start, end = np.array([100, 100, 90, 100]), np.array([136, 172, 136, 136])
    reads = real.fragments.Fragments(start, end, np.array([False, False, True, True]), 0).unique()
    assert keys(reads) == [(100, 0, 0), (135, 0, 1)]


def test_a_fragment_lies_in_the_bin_of_its_middle_and_a_read_75_bp_downstream(real):
    made = real.fragments
    pair = made.Fragments(np.array([100]), np.array([301]), np.array([True]), 50)
    assert made.midpoint_counts(pair, SPAN).nonzero()[0].tolist() == [200 // 25]
    reads = made.Fragments(np.array([100, 500]), np.array([136, 536]), np.array([False, True]), 0)
    assert made.midpoint_counts(reads, SPAN).nonzero()[0].tolist() == [175 // 25, 460 // 25]


@pytest.mark.parametrize("kind", ["pairs", "singles"])
def test_candi_counts_the_written_reads_as_the_benchmark_does(kind, request, real, candi, tmp_path):
    fragments = request.getfixturevalue(kind).unique()
    reads, sheet, store = tmp_path / "reads.bed", tmp_path / "sheet.tsv", tmp_path / "store.h5"
    real.fragments.write_reads(fragments, "chr1", reads)
    sheet.write_text(f"biosample\tassay\tfile\nA\tH3K4me3\t{reads}\n")
    (tmp_path / "sizes").write_text("chr1\t100000\n")
    assert candi("bin", "--covariates", sheet, "-g", tmp_path / "sizes", "-o", store, "--quiet").code == 0
    with Store.open(store) as opened:
        found = opened.read("A", "H3K4me3", "counts", "chr1", 0, 4_000)
        assert opened.experiment("A", "H3K4me3").covariates.depth == len(real.fragments.reads_of(fragments)[0])
    assert found.tolist() == real.fragments.counts(fragments, CountingRule(), SPAN).tolist()


def test_rivals_predict_the_total_of_the_truth_without_a_look_at_what_is_scored(real, pairs):
    source, truth = pairs.unique().split((0.5, 0.5), seed=0)
    x, y = (real.fragments.midpoint_counts(each, SPAN) for each in (source, truth))
    train = np.arange(len(x)) < 3_200
    other = y.copy()
    other[~train] = np.random.default_rng(5).permutation(y[~train])  # its total, which is the depth asked for, is known
    for name, rival in real.count_rivals.RIVALS.items():
        one, two = (rival(real.count_rivals.Denoising(source, x, each, train, SPAN, 0)) for each in (y, other))
        assert one.min() > 0, name
        assert one.tolist() == two.tolist(), name
        if name != "local lambda":
            assert one.sum() == pytest.approx(y.sum(), rel=0.1), name


def test_no_rival_of_an_imputed_track_sees_the_hidden_track(real):
    rng = np.random.default_rng(2)
    marks, others = ("a", "b", "c"), ("y", "z", "w")
    tracks = {cell: {mark: rng.gamma(1.0, 1.0, 4_000).astype(np.float32) for mark in marks} for cell in ("x", *others)}
    train = np.arange(4_000) < 3_000
    rows = np.flatnonzero(~train)
    hidden = {**tracks, "x": {**tracks["x"], "a": np.full(4_000, np.nan, dtype=np.float32)}}
    for name, rival in real.signal_rivals.RIVALS.items():
        settings = [
            real.signal_rivals.Setting(each, np.array([0, 4_000]), train, marks, 0) for each in (tracks, hidden)
        ]
        one, two = (real.signal_rivals.with_spread(rival, each, "x", "a", others, rows) for each in settings)
        assert np.isfinite(two).all(), name
        assert one.tolist() == two.tolist(), name


def test_the_spread_is_that_of_residuals_of_like_predictions(real):
    rng = np.random.default_rng(3)
    mean = rng.uniform(0, 4, 200_000)
    found = real.signal_rivals.spread_of(mean, rng.normal(0, 0.1 + mean), np.array([0.5, 1.5, 3.5]))
    assert found == pytest.approx([0.6, 1.6, 3.6], rel=0.1)


def test_a_fit_on_other_cells_mends_what_they_have_in_common(real):
    rng = np.random.default_rng(4)

    def track():
        mean, sd = rng.gamma(1.0, 1.0, 5_000), np.full(5_000, 0.2)
        return real.transfer.HeldOutTrack(np.maximum(0, rng.normal(mean + 0.3, 3 * sd)), np.stack([mean, sd]))

    others, own = [track() for _ in range(3)], track()
    before = real.transfer.judge(real.transfer.UNCHANGED, own)
    after = real.transfer.judge(real.transfer.fit(others), own)
    assert before["pit_error"] > 0.1 > 0.03 > after["pit_error"]
    assert before["coverage_90"] < 0.6
    assert after["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_the_locus_is_the_median_of_the_richest_windows(real):
    counts = np.zeros(40_000)
    rich = np.arange(49) * 800  # windows of 10 kb that share nothing, of 1, 2, ... 49 fragments
    counts[rich] = np.arange(1, 50)
    start, end = real.locus.choose_window(counts, 1_000_000)
    totals = np.array([counts[at : at + 400].sum() for at in range(0, 40_000 - 399, 40)])
    chosen = counts[(start - 1_000_000) // 25 : (end - 1_000_000) // 25].sum()
    assert end - start == 10_000
    assert chosen == np.sort(totals)[::-1][: round(0.05 * len(totals))][round(0.05 * len(totals)) // 2]


def test_tables_average_seeds_within_tracks_and_cluster_errors_by_track(real):
    row = real.units.Row
    values = {("t1", "0"): 1.0, ("t1", "1"): 3.0, ("t2", "0"): 5.0, ("t2", "1"): 5.0}
    rows = [row(track, "g", "m", seed, "mse", value) for (track, seed), value in values.items()]
    cell = real.tables.summarise(rows)["g", "m", "mse"]
    assert (cell.value, cell.n_tracks, cell.n_seeds) == (3.5, 2, 2)
    assert cell.error == pytest.approx(np.std([2, 5], ddof=1) / np.sqrt(2))
    assert cell.over_seeds == pytest.approx(np.std([3, 4], ddof=1))


def test_scores_that_are_kept_are_not_computed_again(real, tmp_path):
    rows = [real.units.Row("t", "g", "m", "0", "mse", 0.125, 0.5), real.units.Row("t", "g", "m", "0", "r2", np.inf)]
    first = real.units.kept_rows(tmp_path / "a" / "scores.tsv", lambda: rows)
    again = real.units.kept_rows(tmp_path / "a" / "scores.tsv", lambda: pytest.fail("computed twice"))
    assert first[0] == again[0] == rows[0]
    assert again[1].value == np.inf


def test_the_jackknife_of_a_mean_is_the_error_of_block_means(real):
    rng = np.random.default_rng(6)
    values, blocks = rng.normal(size=5_000), np.repeat(np.arange(50), 100)
    value, error = real.dna.jackknife(lambda kept: float(values[kept].mean()), blocks)
    assert value == pytest.approx(values.mean())
    assert error == pytest.approx(values.reshape(50, 100).mean(axis=1).std(ddof=1) / np.sqrt(50), rel=1e-9)
