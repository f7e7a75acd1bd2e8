"""Prediction at the scale of a genome: time, memory and bytes of `candi impute`, step by step.

    python tests/benchmarks/genome.py chr21      # all 35 assays of `base` on chr21, from reads that lie everywhere
    python tests/benchmarks/genome.py memory     # all of hg38 from a BAM with few reads: peak memory
    python tests/benchmarks/genome.py writing    # one track of all of hg38 from predictions that are there
    python tests/benchmarks/genome.py host --reads 30000000 -@ 4 --milliseconds 21    # all but the GPU's own work

The models are untrained: what is predicted does not matter to the cost. Beside writing stands pyBigWig alone, as one
would call it in a script, in the same run. `host` runs `candi denoise` on a BAM of all of hg38 with a device that only
waits, as long for 90 windows as a GPU was measured to take, and tells which share of the time it was busy: what the
host can do, not what a GPU does.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyBigWig
import pysam
import torch

import candi_cli
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.export.files import BEDGRAPH, BIGWIG, NARROWPEAK, TrackFile
from candi_cli.export.quantities import Quantity
from candi_cli.export.source import Source
from candi_cli.genome import Region, bin_count
from candi_cli.model import AssayCard, ModelCard, save
from candi_cli.model.candi import Model, preset
from candi_cli.store.predictions import Described, PredictionWriter, parameters_of

ASSAYS = tuple(f"assay{number:02}" for number in range(35))
RESOLUTION = 25


def hg38() -> dict[str, int]:
    """Return the chromosomes of hg38."""
    table = Path(candi_cli.__file__).with_name("contig_aliases.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in table if line.startswith("hg38\t")]
    return {row[2]: int(row[1]) for row in rows}


def make_model(path: Path, name: str = "base", n_assays: int = 35) -> None:
    """Write an untrained model."""
    torch.manual_seed(0)
    assays = ASSAYS[:n_assays]
    config = preset(name, assays, resolution=RESOLUTION, reads_sequence=False)
    network = Model(config)
    for biases in network.output_biases().values():
        torch.nn.init.normal_(biases, std=0.3)
    card = AssayCard(
        ("counts", "signal", "peaks"), Covariates(20e6, 50, "single-ended"), depth_range=(1e3, 1e9),
        read_length_range=(20, 150), run_types=("single-ended",), platforms=(),
    )  # fmt: skip
    values = {field: getattr(config, field) for field in config.__dataclass_fields__}
    save(path, network, ModelCard("candi", values, CountingRule(), dict.fromkeys(assays, card)))


def make_bam(path: Path, sizes: dict[str, int], n_reads: int, *, clustered_in: float = 1.0) -> None:
    """Write a sorted BAM of single reads of 50 bp, all of them in one part of each Mb."""
    rng = np.random.default_rng(0)
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": name, "LN": n} for name, n in sizes.items()]}
    total = sum(sizes.values())
    with pysam.AlignmentFile(str(path), "wb", header=header) as bam:
        for number, (_, length) in enumerate(sizes.items()):
            here = np.sort(rng.integers(0, length - 60, int(n_reads * length / total)))
            here = np.sort(here // 1_000_000 * 1_000_000 + (here % 1_000_000 * clustered_in).astype(np.int64))
            for start in np.minimum(here, length - 60).tolist():
                read = pysam.AlignedSegment()
                read.query_name, read.flag, read.reference_id, read.reference_start = "r", 0, number, start
                read.mapping_quality, read.cigartuples = 60, ((0, 50),)
                bam.write(read)


def run(arguments: Sequence[object]) -> tuple[float, float]:
    """Run candi; return its seconds and the most memory that any of its processes took, in GB."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "candi_cli", *map(str, arguments)], check=True)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def sheet_of(folder: Path, bam: Path) -> Path:
    """Write the sheet of one BAM."""
    path = folder / "meta.tsv"
    path.write_text(f"biosample\tassay\tfile\none\t{ASSAYS[0]}\t{bam}\n")
    return path


def chr21(folder: Path, threads: int) -> None:
    """Impute all assays on one chromosome."""
    sizes = {"chr21": hg38()["chr21"]}
    bam, model = folder / "chr21.bam", folder / "base.safetensors"
    make_bam(bam, sizes, 400_000)
    make_model(model)
    common = ["impute", bam, "--covariates", sheet_of(folder, bam), "-m", model, "--assay", "all", "-@", threads]
    for what, more in (("counts", []), ("counts with their 90 % interval", ["--interval", 0.9])):
        output = folder / f"tracks{len(more)}"
        seconds, memory = run([*common, *more, "-o", output, "--quiet"])
        files = list(output.glob("*.bw"))
        size = sum(path.stat().st_size for path in files)
        made = f"{len(files)} files, {size / 1e6:.0f} MB"
        print(f"chr21, 35 assays, {what}: {seconds:.0f} s, {memory:.2f} GB, {made}", flush=True)


def memory(folder: Path, threads: int, n_reads: int) -> None:
    """Denoise all of hg38 from few reads."""
    sizes = hg38()
    bam, model = folder / "hg38.bam", folder / "base.safetensors"
    make_bam(bam, sizes, n_reads, clustered_in=0.02)
    make_model(model)
    seconds, gigabytes = run(
        ["denoise", bam, "--covariates", sheet_of(folder, bam), "-m", model, "-@", threads, "-o", folder / "out.bw"]
    )
    size = (folder / "out.bw").stat().st_size
    print(f"hg38, {n_reads:,} reads, one track: {seconds:.0f} s, peak {gigabytes:.2f} GB, bigWig {size / 1e6:.0f} MB")


def writing(folder: Path, sizes: dict[str, int]) -> None:
    """Write tracks from predictions that look like those of a real experiment."""
    kinds = ["counts", "signal", "peaks"]
    track = {"observed": True, "covariates": None, "asked": {}, "parameters": parameters_of(kinds)}
    regions = [Region(chrom, 0, length) for chrom, length in sizes.items()]
    described = Described(RESOLUTION, sizes, {}, {("one", "assay"): track}, {"one": regions})
    path, n_bins = folder / "predictions.h5", sum(bin_count(length, RESOLUTION) for length in sizes.values())
    start = time.perf_counter()
    rng, spent = np.random.default_rng(0), 0.0
    with PredictionWriter(path, described) as writer:
        for region in regions:
            n = bin_count(region.end, RESOLUTION)
            smooth = np.repeat(rng.normal(size=-(-n // 40)), 40)[:n] + 0.05 * rng.normal(size=n)
            high = np.abs(smooth)
            values = np.stack([smooth - 1, 0.2 * smooth, high, 0.2 + 0.1 * high, 2 * smooth - 4], axis=1)
            for first in range(0, n, 896):
                last = min(first + 896, n)
                piece = Region(region.chrom, first * RESOLUTION, min(last * RESOLUTION, region.end))
                begin = time.perf_counter()
                writer.add("one", piece, values[first:last].astype(np.float32))
                spent += time.perf_counter() - begin
    print(f"{n_bins / 1e6:.0f} M bins")
    show("predictions, 5 numbers a bin", spent, path, n_bins)
    source = Source(described, {"one": [(region, path) for region in regions]})
    files = [
        ("bigWig of counts", BIGWIG, Quantity("counts")),
        ("  its upper bound (95 %)", BIGWIG, Quantity("counts", "upper", 0.95)),
        ("  its standard deviation", BIGWIG, Quantity("counts", "sd")),
        ("bigWig of signal", BIGWIG, Quantity("signal")),
        ("bedGraph.gz of counts", BEDGRAPH, Quantity("counts")),
        ("narrowPeak", NARROWPEAK, Quantity("peaks")),
    ]
    for name, kind, quantity in files:
        output = folder / f"out.{kind}{'.gz' if kind == BEDGRAPH else ''}"
        start = time.perf_counter()
        TrackFile(output, output, kind, "one", "assay", quantity).write(source)
        show(name, time.perf_counter() - start, output, n_bins)
    naive(folder / "naive.bw", source, n_bins)


def naive(path: Path, source: Source, n_bins: int) -> None:
    """Write the counts by pyBigWig as it is: neither rounded nor checked."""
    start = time.perf_counter()
    with source:
        track = pyBigWig.open(str(path), "w")
        track.addHeader(list(source.described.chromsizes.items()))
        for region, parameters in source.blocks("one", "assay", ["count_log_mean"]):
            values = np.exp(parameters[0].astype(np.float64))
            whole = (region.end - region.start) // RESOLUTION
            track.addEntries(region.chrom, region.start, values=values[:whole], span=RESOLUTION, step=RESOLUTION)
        track.close()
    show("pyBigWig alone", time.perf_counter() - start, path, n_bins)


class Waiting:
    """A forward pass that takes its time and no processor, in the place of a network on a GPU.

    Parameters
    ----------
    milliseconds : of 90 windows
    """

    def __init__(self, milliseconds: float) -> None:
        self.seconds, self.begun, self.busy, self.ended = milliseconds / 90e3, 0.0, 0.0, 0.0
        rng = np.random.default_rng(0)
        smooth = np.cumsum(rng.normal(0, 0.05, (64, 1200, 2)), axis=1) - 1
        self.windows = list(smooth.astype(np.float32))

    @contextmanager
    def __call__(self, *_: object) -> Iterator[Callable[..., list[np.ndarray]]]:
        """Provide the function that waits, as `prediction._forwarding` provides one that computes."""

        def wait(_batch: object, n: int, _select: object) -> list[np.ndarray]:
            self.begun = self.begun or time.perf_counter()
            time.sleep(n * self.seconds)
            self.busy += n * self.seconds
            self.ended = time.perf_counter()
            return [self.windows[number % 64] for number in range(n)]

        yield wait


def host(folder: Path, threads: int, n_reads: int, milliseconds: float) -> None:
    """Denoise all of hg38 with a device that waits."""
    from candi_cli.commands import _prediction, main
    from candi_cli.model import prediction

    bam, model, waiting = folder / "hg38.bam", folder / "base.safetensors", Waiting(milliseconds)
    start = time.perf_counter()
    make_bam(bam, hg38(), n_reads)
    make_model(model, n_assays=5)
    print(f"made {n_reads:,} reads in {time.perf_counter() - start:.0f} s", flush=True)
    prediction._forwarding = waiting  # type: ignore[assignment]
    _prediction.choose = lambda _name: torch.device("cuda")
    start = time.perf_counter()
    arguments = ["denoise", bam, "--covariates", sheet_of(folder, bam), "-m", model, "-@", threads, "-o"]
    if main([*map(str, arguments), str(folder / "out.bw")]):
        raise SystemExit(1)
    whole, span = time.perf_counter() - start, waiting.ended - waiting.begun
    print(f"hg38, {n_reads:,} reads, one track, {threads} threads, {milliseconds} ms for 90 windows: {whole:.0f} s")
    print(f"  until the first window {waiting.begun - start:.0f} s, windows {span:.0f} s", end="")
    print(f" (device busy {100 * waiting.busy / span:.0f} %), then {whole - waiting.ended + start:.0f} s")


def show(name: str, seconds: float, path: Path, n_bins: int) -> None:
    """Print a row of the table."""
    per_bin = f"{1e6 * seconds / n_bins:8.3f} us a bin{path.stat().st_size / n_bins:8.2f} bytes a bin"
    print(f"{name:30}{seconds:7.1f} s{per_bin}", flush=True)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["chr21", "memory", "writing", "host"])
    parser.add_argument("-@", "--threads", type=int, default=2)
    parser.add_argument("--reads", type=int, default=1_000_000, help="of the BAM over all of hg38")
    parser.add_argument("--chroms", nargs="*", help="of `writing`; default: all of hg38")
    parser.add_argument("--milliseconds", type=float, default=21, help="of `host`: of 90 windows on the device")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.what == "chr21":
            chr21(folder, options.threads)
        elif options.what == "memory":
            memory(folder, options.threads, options.reads)
        elif options.what == "host":
            host(folder, options.threads, options.reads, options.milliseconds)
        else:
            sizes = hg38()
            writing(folder, {chrom: sizes[chrom] for chrom in options.chroms or sizes})


if __name__ == "__main__":
    main()
