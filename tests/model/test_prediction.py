"""Prediction of windows in batches, against a plain loop; and a GPU, whose memory may be small, without one."""

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from candi_cli.errors import DeviceError
from candi_cli.genome import Region, Window, tile
from candi_cli.model.forward import AT_ONCE, OnGpu, forwarding
from candi_cli.model.parts import Computing, latents
from candi_cli.model.prediction import predict
from candi_cli.store.predictions import Described

STEP, CONTEXT, FLANK = 25, 16, 4
SIZES = {"chr1": 103 * STEP - 7, "chr2": 10 * STEP}
BINS = {chrom: -(-length // STEP) for chrom, length in SIZES.items()}


class Batch(NamedTuple):
    """What the network of these tests reads."""

    values: Tensor
    absent: Tensor | None


class Counting(nn.Module):
    """A network whose output tells a bin, its place in the window and its neighbours; it counts windows."""

    def __init__(self) -> None:
        super().__init__()
        self.n_windows = 0

    def forward(self, batch: Batch) -> Tensor:
        assert batch.absent is None
        self.n_windows += len(batch.values)
        place = torch.arange(batch.values.shape[1], dtype=torch.float32)
        smooth = batch.values + 0.5 * batch.values.roll(1, 1)
        return torch.stack([smooth, 1_000 * smooth + place], dim=-1)


class Genome:
    """Windows of a random genome, most of chr1 of which is empty."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.values = {chrom: rng.integers(1, 99, n).astype(np.float32) for chrom, n in BINS.items()}
        self.values["chr1"][20:80] = 0
        self.n_read = 0

    def window(self, window: Window) -> np.ndarray:
        padded = np.zeros(CONTEXT, dtype=np.float32)
        found = self.values[window.chrom][window.context_start : window.context_end]
        padded[: len(found)] = found
        return padded

    def batch(self, windows: Sequence[Window]) -> Batch:
        self.n_read += len(windows)
        return Batch(torch.from_numpy(np.stack([self.window(window) for window in windows])), None)

    def signatures(self, windows: Sequence[Window]) -> list[object | None]:
        return [None if self.window(window).any() else "empty" for window in windows]


def windows_of(*regions: Region) -> Iterator[Window]:
    for chrom, start, end in regions:
        yield from tile(chrom, start, end, n_bins=BINS[chrom], context=CONTEXT, flank=FLANK, align=4)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch have a number of threads that prediction must give back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


EVERYTHING = [Region(chrom, 0, n_bins) for chrom, n_bins in BINS.items()]


def pieces_of(
    model: nn.Module, dataset: Any, windows: Iterator[Window], *, threads: int = 2, **changed: Any
) -> Iterator[Any]:
    options = {"batch_size": 4, "chromsizes": SIZES, "resolution": STEP} | changed
    with forwarding(model, lambda output: output, device=torch.device("cpu"), threads=threads) as forward:
        yield from predict(forward, dataset, windows, **options)


def predicted(model: nn.Module, dataset: Any, windows: Iterator[Window], **changed: Any) -> list[Any]:
    return list(pieces_of(model, dataset, windows, **changed))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_and_threads_change_nothing_of_a_plain_loop(batch_size, threads):
    dataset, model = Genome(), Counting()
    found = predicted(model, dataset, windows_of(*EVERYTHING), batch_size=batch_size, threads=threads)
    distinct: set[object] = set()
    for (region, values), window in zip(found, windows_of(*EVERYTHING), strict=True):
        (expected,) = Counting()(Genome().batch([window])).numpy()
        core = expected[window.core_start - window.context_start : window.core_end - window.context_start]
        np.testing.assert_array_equal(values, core)
        end = min(window.core_end * STEP, SIZES[window.chrom])
        assert region == Region(window.chrom, window.core_start * STEP, end)
        distinct.add(dataset.signatures([window])[0] or window)
    assert model.n_windows == dataset.n_read == len(distinct) < len(found)  # empty windows are computed once
    assert found[-1][0].end == SIZES["chr2"]


def test_windows_of_regions_are_those_of_the_whole_chromosome():
    whole = {}
    for region, values in predicted(Counting(), Genome(), windows_of(*EVERYTHING)):
        for number, row in enumerate(values):
            whole[region.chrom, region.start // STEP + number] = row.tolist()
    parts = [Region("chr1", 3, 30), Region("chr1", 77, 103), Region("chr2", 9, 10)]
    for region, values in predicted(Counting(), Genome(), windows_of(*parts)):
        for number, row in enumerate(values):
            assert row.tolist() == whole[region.chrom, region.start // STEP + number]


def test_positions_of_several_bins_are_cut_by_positions():
    class Latent(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            return batch.values.reshape(len(batch.values), -1, 4).sum(dim=2, keepdim=True)

    dataset = Genome()
    found = predicted(Latent(), dataset, windows_of(Region("chr1", 0, BINS["chr1"])), position_bins=4)
    values = np.concatenate([piece for _, piece in found])
    padded = np.pad(dataset.values["chr1"], (0, -BINS["chr1"] % 4)).reshape(-1, 4)
    np.testing.assert_array_equal(values[:, 0], padded.sum(axis=1))
    assert [region.start for region, _ in found] == list(range(0, SIZES["chr1"], (CONTEXT - 2 * FLANK) * STEP))


class Encoding(nn.Module):
    """A network whose latent is the sum over positions of 4 bins."""

    def encode(self, batch: Batch) -> SimpleNamespace:
        return SimpleNamespace(latent=batch.values.reshape(len(batch.values), -1, 4).sum(dim=2, keepdim=True))


def test_latents_of_regions_are_whole_positions_each_of_them_once():
    config = SimpleNamespace(context_bins=CONTEXT, flank_bins=FLANK, latent_bins=4, resolution=STEP)
    model: Any = SimpleNamespace(network=Encoding(), config=config)
    described, dataset = Described(STEP, SIZES, {}, {}), Genome()
    computing = Computing(torch.device("cpu"), batch_size=3, threads=1)
    regions = [(0, 1), (3, 4), (5, 6), (40, 50), (102, 103)]  # the first two lie in one position
    wanted = [Region("chr1", one * STEP, min(other * STEP, SIZES["chr1"])) for one, other in regions]
    found = list(latents(model, described, [*wanted, Region("chr2", 0, 25)], dataset, computing))
    starts = [
        (region.chrom, region.start // STEP + 4 * number) for region, values in found for number in range(len(values))
    ]
    assert starts == [("chr1", start) for start in (0, 4, 40, 44, 48, 100)] + [("chr2", 0)]
    values = np.concatenate([piece[:, 0] for _, piece in found])
    expected = [dataset.values[chrom][start : start + 4].sum() for chrom, start in starts]
    np.testing.assert_array_equal(values, expected)
    assert [region.end for region, _ in found][-2:] == [SIZES["chr1"], 100]


def test_the_next_batch_is_read_while_one_is_computed():
    second = threading.Event()

    class Watched(Genome):
        def batch(self, windows: Sequence[Window]) -> Batch:
            if self.n_read:
                second.set()
            return super().batch(windows)

    class Waiting(Counting):
        def forward(self, batch: Batch) -> Tensor:
            assert second.wait(5), "nothing was read meanwhile"
            return super().forward(batch)

    dataset = Watched()
    dataset.values["chr1"][:] = 1  # no window is empty
    assert len(predicted(Waiting(), dataset, windows_of(*EVERYTHING), batch_size=2)) == 15


def test_only_two_batches_are_read_ahead():
    dataset = Genome()
    dataset.values["chr1"][:] = 1  # no window is empty
    for n_yielded, _ in enumerate(pieces_of(Counting(), dataset, windows_of(*EVERYTHING), batch_size=2, threads=1)):
        assert dataset.n_read <= (n_yielded // 2 + 3) * 2  # handed on, computed, read


def test_no_windows_are_no_predictions():
    assert predicted(Counting(), Genome(), iter(())) == []


def test_an_error_of_reading_comes_out_and_threads_are_given_back(two_threads):
    class Damaged(Genome):
        def batch(self, windows: Sequence[Window]) -> Batch:
            if self.n_read:
                raise KeyError("damaged")
            return super().batch(windows)

    before = threading.active_count()
    with pytest.raises(KeyError, match="damaged"):
        predicted(Counting(), Damaged(), windows_of(*EVERYTHING))
    assert (threading.active_count(), torch.get_num_threads()) == (before, 2)


def test_a_reader_that_stops_early_gets_its_threads_back(two_threads):
    before = threading.active_count()
    pieces = pieces_of(Counting(), Genome(), windows_of(*EVERYTHING), batch_size=2, threads=3)
    next(pieces)
    assert torch.get_num_threads() == 1
    pieces.close()  # type: ignore[attr-defined]
    assert (threading.active_count(), torch.get_num_threads()) == (before, 2)


def test_a_batch_is_handed_on_while_the_next_is_computed():
    later = threading.Event()

    class Watched(Counting):
        def forward(self, batch: Batch) -> Tensor:
            if self.n_windows >= 2:
                later.set()
            return super().forward(batch)

    dataset = Genome()
    dataset.values["chr1"][:] = 1  # no window is empty
    pieces = pieces_of(Watched(), dataset, windows_of(*EVERYTHING), batch_size=2, threads=1)
    next(pieces)  # the generator stands still here
    assert later.wait(5), "nothing was computed meanwhile"
    pieces.close()  # type: ignore[attr-defined]


class Small:
    """Records a forward pass on a device that holds so many windows; it remembers what was tried and computed."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.tried: list[int] = []
        self.computed: list[int] = []

    def __call__(self, like: Batch, n: int) -> Any:
        assert like.absent is None
        self.tried.append(n)
        if n > self.holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        place = torch.full((n, *like.values.shape[1:]), torch.nan)

        def compute(batch: Batch) -> Tensor:
            assert 0 < len(batch.values) <= n
            self.computed.append(len(batch.values))
            place[: len(batch.values)] = batch.values
            return place + 1

        return compute

    def on_gpu(self) -> tuple[OnGpu, list[str]]:
        """Return what computes with it, and the warnings that come."""
        warned: list[str] = []
        return OnGpu(self, torch.device("cpu"), warned.append), warned


def batch_of(size: int) -> Batch:
    return Batch(torch.arange(size * 3, dtype=torch.float32).reshape(size, 3), None)


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4), holds=st.integers(1, 100))
def test_a_device_that_holds_few_windows_gives_all_in_order(sizes, holds):
    device = Small(holds)
    on_gpu, warned = device.on_gpu()
    finish = [on_gpu.start(on_gpu.stage(batch_of(size)), size) for size in sizes]  # all begun before one is waited for
    for size, found in zip(sizes, finish, strict=True):
        np.testing.assert_array_equal(np.stack(found()), batch_of(size).values + 1)
    fits = max(2**k for k in range(7) if 2**k <= holds)
    assert device.tried == [2**k for k in range(6, -1, -1) if 2**k >= fits]  # once, before the first window
    assert on_gpu.at_once == fits
    assert set(device.computed) <= {fits, *(size % fits for size in sizes)}
    assert bool(warned) == (fits < AT_ONCE)


def test_a_warning_tells_how_many_windows_a_small_device_holds():
    on_gpu, warned = Small(20).on_gpu()
    on_gpu.start(batch_of(5), 5)
    on_gpu.start(batch_of(5), 5)
    (line,) = warned
    assert line.startswith("the GPU's memory holds 16 windows at once, not 64; the last digits")


def test_a_device_that_does_not_hold_one_window_is_an_error_with_the_remedy():
    on_gpu, _ = Small(0).on_gpu()
    with pytest.raises(DeviceError, match=r"^--device: its memory does not hold a single window; use --device cpu$"):
        on_gpu.start(batch_of(5), 5)


def test_an_error_that_is_not_one_of_memory_comes_out_as_it_is():
    def fail(_like: Batch, _n: int) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        OnGpu(fail, torch.device("cpu"), print).start(batch_of(5), 5)


@pytest.mark.parametrize("message", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"])
def test_a_library_that_is_short_of_memory_gets_fewer_windows_too(message):
    small = Small(64)

    def fail(like: Batch, n: int) -> Any:
        if n > 8:
            raise RuntimeError(message)
        return small(like, n)

    on_gpu = OnGpu(fail, torch.device("cpu"), lambda _: None)
    np.testing.assert_array_equal(np.stack(on_gpu.start(batch_of(20), 20)()), batch_of(20).values + 1)
    assert (on_gpu.at_once, small.computed) == (8, [8, 8, 4])


def test_windows_that_nobody_waits_for_are_not_computed():
    dataset, entered, go_on = Genome(), threading.Event(), threading.Event()
    dataset.values["chr1"][:] = 1  # no window is empty

    class Slow(Counting):
        def forward(self, batch: Batch) -> Tensor:
            entered.set()
            assert go_on.wait(5)
            return super().forward(batch)

    model = Slow()
    with forwarding(model, lambda output: output, device=torch.device("cpu"), threads=1) as forward:
        windows = list(windows_of(Region("chr1", 0, BINS["chr1"])))
        forward.start(dataset.batch(windows), len(windows))
        assert entered.wait(5)
        threading.Timer(0.2, go_on.set).start()  # when the block is being left
    assert model.n_windows == 1 < len(windows)


@pytest.mark.parametrize(("asked", "read"), [(None, 128), (1, 64), (64, 64), (65, 128), (500, 512)])
def test_a_gpu_is_given_a_multiple_of_what_it_computes_at_once(asked, read):
    assert Computing.on(torch.device("cuda"), batch_size=asked, threads=4).batch_size == read
