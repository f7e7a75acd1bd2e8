"""The pilot regions: where they lie, the stores of cells, observed tracks, and what models predict of them."""

import csv
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from trained import Named, kept_store

from candi_cli.commands._held_out import held_out, predict_held_out
from candi_cli.commands._reference import reference_average
from candi_cli.genome import Region, read_chromsizes
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import IMPUTED, Observed
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Predictions

CELLS = ("E003", "E017", "E065", "E116")
MARKS = ("H3K4me3", "H3K36me3", "H3K27me3", "H3K9me3", "H3K4me1")
TEST_CHROMS = ("chr20", "chr21", "chr22")
RESOLUTION = 25
Float = NDArray[np.float32]


class Pilot:
    """The layout of the pilot regions, and the stores of cells in a folder.

    Parameters
    ----------
    data : the folder of the real data
    folder : in which stores are kept
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self._observed: dict[str, dict[str, Float]] = {}
        self.tracks = dict.fromkeys(CELLS, data / "roadmap_pilot_hg19")
        with (data / "roadmap_pilot_hg19" / "pilot_layout.tsv").open(newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        starts = [int(row["first_bin_start"]) for row in rows]
        self.regions = [
            Region(row["chrom"], start, start + int(row["n_bins"]) * RESOLUTION)
            for row, start in zip(rows, starts, strict=True)
        ]

    @cached_property
    def grid(self) -> Grid:
        """The bins of all regions."""
        return Grid(self.regions, RESOLUTION)

    @cached_property
    def test(self) -> NDArray[np.bool_]:
        """Which bins lie on chr20-22: shape (L,)."""
        return np.any([self.grid.chrom_of(chrom) for chrom in TEST_CHROMS], axis=0)

    def add(self, cell: str, folder: Path) -> None:
        """Add a cell whose tracks lie in a folder."""
        self.tracks[cell] = folder

    def files(self, cell: str) -> dict[str, Path]:
        """Return the bigWig of each mark of a cell: a file `CELL.MARK.*` or `CELL-MARK.*`."""
        tracks = [path for path in sorted(self.tracks[cell].iterdir()) if path.suffix.lower() in (".bw", ".bigwig")]
        found = {}
        for mark in MARKS:
            named = (f"{cell}.{mark}.", f"{cell}-{mark}.")
            paths = [path for path in tracks if path.name.startswith(named)]
            if paths:
                found[mark] = paths[0]
        return found

    def store(self, *cells: str) -> Path:
        """Return a store of some cells, made where it is not there."""
        rows = ["biosample\tassay\tsignal"]
        rows += [f"{cell}\t{mark}\t{path.resolve()}" for cell in cells for mark, path in self.files(cell).items()]
        genome = self.data / "ref" / "annot" / "hg19.chrom.sizes"
        return kept_store(self.folder / f"{'_'.join(cells)}.h5", "\n".join(rows) + "\n", "-g", genome)

    def observed(self, cell: str) -> dict[str, Float]:
        """Return arcsinh(-log10 p) of each mark of a cell in all bins; what a bigWig lacks is 0."""
        if cell not in self._observed:
            with Store.open(self.store(cell)) as store:
                truth = Observed(store)
                self._observed[cell] = {
                    mark: np.nan_to_num(truth.read(cell, mark, "signal", self.grid)) for mark in store.assays(cell)
                }
        return self._observed[cell]

    def imputed(self, model: Named, cell: str, others: Sequence[str], chroms: Iterable[str], threads: int) -> Float:
        """Return mean and sd of each mark of a cell, each from the others and from other cells: shape (M, 2, L).

        Marks that the cell lacks, and bins of other chromosomes, are NaN.
        """
        chromsizes = read_chromsizes(self.data / "ref" / "annot" / "hg19.chrom.sizes")
        order, wanted = list(chromsizes), set(chroms)
        regions = sorted(
            (region for region in self.regions if region.chrom in wanted),
            key=lambda region: (order.index(region.chrom), region.start),
        )
        values = np.full((len(MARKS), 2, self.grid.n_bins), np.nan, dtype=np.float32)
        computing = Computing.on(choose("cpu"), batch_size=None, threads=threads)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            store = stack.enter_context(Store.open(self.store(cell)))
            references = [stack.enter_context(Store.open(self.store(other))) for other in others]
            loaded = model.load()
            average = reference_average(loaded.config, references)
            hidden = held_out(loaded, store, None, pools=[IMPUTED], assays=MARKS, kinds=["signal"], dna=False)
            for held in hidden:
                (mark,) = held.kinds
                path = folder / f"{mark}.h5"
                predict_held_out(
                    loaded, held, regions, path, computing,
                    average=average, fasta=None, recalibrated=False, advance=lambda n, name: None,
                )  # fmt: skip
                with Predictions(path) as predictions:
                    for region, first, last, at in self.grid.stretches:
                        if region.chrom in wanted:
                            found = predictions.read(cell, mark, PARAMETERS["signal"], region.chrom, first, last)
                            values[MARKS.index(mark), :, at : at + last - first] = found
        return values


class Cohort(NamedTuple):
    """A cell that is imputed, and the others, which a model or a rival learns from.

    Attributes
    ----------
    known : models and rivals also learn from the cell itself, at other places
    """

    cell: str
    others: tuple[str, ...]
    known: bool = False


def leave_one_out(cells: Sequence[str] = CELLS, *, known: bool = False) -> list[Cohort]:
    """Return each cell with the others."""
    return [Cohort(cell, tuple(other for other in cells if other != cell), known) for cell in cells]
