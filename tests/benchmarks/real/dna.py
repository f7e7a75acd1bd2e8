"""R6: is the DNA used? The same training with and without it, judged on chromosomes that neither saw.

Reads of a held-out chromosome are denoised from half of them and compared with the other half; an assay that was hidden
is imputed from the biosample's others, and from the DNA. The model that learned with DNA is also judged without.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import figures
import numpy as np
import tables
from numpy.typing import NDArray
from trained import Models, Named, kept_store
from units import Row, kept_rows, making

from candi_cli.commands._held_out import held_out, predict_held_out
from candi_cli.evaluation.distributions import negative_binomial_log_pmf
from candi_cli.evaluation.metrics import pearson
from candi_cli.evaluation.scores import jackknife_error
from candi_cli.genome import Region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import POOLS, JudgedTrack, read_track
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing
from candi_cli.store import Store
from candi_cli.store.predictions import Predictions

CONFIG = Path(__file__).parent / "dna.toml"
WITH, HIDDEN, WITHOUT = "with DNA", "learned with DNA, not shown it", "without DNA"
SHOWN = ("nll", "pearson")


class Organism(NamedTuple):
    """What is trained on and judged.

    Attributes
    ----------
    sheet : of `candi bin`, with paths below the folder of real data
    options : of `candi bin`
    genome : chrom.sizes below the folder of real data; empty where the reads' header tells
    fasta : below the folder of real data
    padded : lengths that its chromosomes are padded to with N, where it holds only their beginnings
    regions : to train on; all but the test chromosomes where there are none
    test : regions that are judged
    """

    name: str
    sheet: str
    options: tuple[str, ...]
    genome: str
    fasta: str
    padded: dict[str, int]
    regions: tuple[str, ...]
    test: tuple[Region, ...]


FLY = "fly_ChIP_dm6"
ORGANISMS = (
    Organism(
        "yeast",
        "biosample\tassay\tfile\nyeast\tATAC-seq\t{data}/yeast_ATAC_sacCer3/ATAC_SRR1822137.sacCer3.bam\n",
        ("--count", "five-prime", "--shift=4,-5", "--keep-dup", "1"),
        "ref/annot/sacCer3.chrom.sizes",
        "ref/fasta/sacCer3.R64-1-1.fa.gz",
        {},
        (),
        (Region("chrIV", 0, 1_531_933), Region("chrXVI", 0, 948_066)),
    ),
    Organism(
        "fly",
        "biosample\tassay\tfile\tcontrol\n"
        f"fly\tChIP\t{{data}}/{FLY}/ip_2.small.single.sorted.bam\t{{data}}/{FLY}/input_1.tiny.single.sorted.bam\n"
        f"fly\tCUTnRUN\t{{data}}/{FLY}/cutnrun_ip_1.tiny.paired.sorted.bam\tNA\n",
        ("--count", "five-prime", "--keep-dup", "1"),
        "",
        "ref/fasta/dm6.small.fa",
        {"chr2L": 23_513_712, "chr2R": 25_286_936},
        ("chr2L:1-1,000,000",),
        (Region("chr2R", 0, 1_000_000),),
    ),
)


def store_of(organism: Organism, data: Path, folder: Path) -> Path:
    """Return the store of an organism's reads."""
    sheet = organism.sheet.format(data=data.resolve())
    genome = ["-g", data / organism.genome] if organism.genome else []
    return kept_store(folder / f"{organism.name}.h5", sheet, *organism.options, *genome)


def fasta_of(organism: Organism, data: Path, folder: Path) -> Path:
    """Return the DNA of an organism, of chromosomes as long as those of its reads."""
    if not organism.padded:
        return data / organism.fasta
    path = folder / f"{organism.name}.fa"
    if not path.exists():
        with Path(data / organism.fasta).open() as handle:
            records = [record.split("\n", 1) for record in handle.read().split(">") if record]
        with making(path) as beside, beside.open("w") as handle:
            for name, lines in records:
                sequence = lines.replace("\n", "").ljust(organism.padded[name.split()[0]], "N")
                handle.write(f">{name.split()[0]}\n")
                handle.writelines(f"{sequence[at : at + 100]}\n" for at in range(0, len(sequence), 100))
    return path


def models_of(organism: Organism, models: Models, data: Path, folder: Path, *, dna: bool) -> list[Named]:
    """Return the models of each seed, trained with or without DNA."""
    options = [
        word for chrom in dict.fromkeys(region.chrom for region in organism.test) for word in ("--test-chrom", chrom)
    ]
    options += [word for region in organism.regions for word in ("-r", region)]
    if dna:
        options += ["-T", str(fasta_of(organism, data, folder).resolve())]
    subset = f"{organism.name}.{'dna' if dna else 'no_dna'}"
    return models.of("dna", subset, lambda: [store_of(organism, data, folder)], *options, config=CONFIG)


def judged(
    model: Named, organism: Organism, store: Path, reference: Path | None, threads: int
) -> dict[tuple[str, str], JudgedTrack]:
    """Return each track that can be judged on the test regions, by pool and assay; with DNA where there is some."""
    found, computing = {}, Computing.on(choose("cpu"), batch_size=None, threads=threads)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opened = stack.enter_context(Store.open(store))
        fasta = stack.enter_context(Fasta(reference)) if reference else None
        if fasta is not None:
            fasta.name_as(opened.chromsizes, source=opened.name)
        loaded, grid = model.load(), Grid(organism.test, opened.rule.resolution)
        for held in held_out(loaded, opened, None, pools=POOLS, assays=(), kinds=["counts"], dna=fasta is not None):
            path = folder / f"{held.pool}.{'_'.join(held.kinds)}.h5"
            predict_held_out(
                loaded, held, organism.test, path, computing,
                average=None, fasta=fasta, recalibrated=False, advance=lambda n, name: None,
            )  # fmt: skip
            with Predictions(path) as predictions:
                for assay in held.kinds:
                    track = read_track(predictions, held.observed, (held.biosample, assay), "counts", held.pool, grid)
                    found[held.pool, assay] = track
    return found


def jackknife(statistic: Callable[[NDArray[np.bool_]], float], blocks: NDArray[np.int32]) -> tuple[float, float]:
    """Return a statistic of bins, and its standard error by leaving out one block at a time.

    Parameters
    ----------
    statistic : of the bins that a mask chooses
    blocks : shape (L,), from 0 on
    """
    without = [statistic(blocks != block) for block in range(int(blocks.max()) + 1)]
    return statistic(np.ones(len(blocks), dtype=np.bool_)), jackknife_error(without)


def _statistics(track: JudgedTrack) -> dict[str, Callable[[NDArray[np.bool_]], float]]:
    y = track.observed.astype(np.float64)
    loss, mean = -negative_binomial_log_pmf(y, *track.parameters), track.expected
    return {"nll": lambda kept: float(loss[kept].mean()), "pearson": lambda kept: pearson(y[kept], mean[kept])}


def _scored(organism: Organism, pair: tuple[Named, Named], store: Path, reference: Path, threads: int) -> Iterator[Row]:
    """Yield the scores of the models with and without DNA of one seed, and their differences."""
    with_dna, without = pair
    found = {
        WITHOUT: judged(without, organism, store, None, threads),
        HIDDEN: judged(with_dna, organism, store, None, threads),
        WITH: judged(with_dna, organism, store, reference, threads),
    }
    for key, best in found[WITH].items():
        group = f"{organism.name} {key[1]} {key[0]}"
        every = {method: _statistics(tracks[key]) for method, tracks in found.items() if key in tracks}
        for method, statistics in every.items():
            for score, statistic in statistics.items():
                yield Row(group, group, method, with_dna.seed, score, *jackknife(statistic, best.grid.blocks))
        if WITHOUT not in every:
            continue
        for score in SHOWN:
            ours, theirs = every[WITH][score], every[WITHOUT][score]
            difference = jackknife(lambda kept, a=ours, b=theirs: a(kept) - b(kept), best.grid.blocks)
            yield Row(group, group, "difference, with - without", with_dna.seed, score, *difference)


def run(models: Models, data: Path, stores: Path, folder: Path) -> None:
    """Train, judge, print the table and draw it."""
    rows: list[Row] = []
    for organism in ORGANISMS:
        store = store_of(organism, data, stores)
        pairs = [models_of(organism, models, data, stores, dna=dna) for dna in (True, False)]
        for pair in zip(*pairs, strict=True):

            def score(organism: Organism = organism, pair=pair, store: Path = store) -> Iterator[Row]:
                return _scored(organism, pair, store, fasta_of(organism, data, stores), models.threads)

            rows += kept_rows(folder / "scores" / f"{organism.name}.{pair[0].tag()}.{pair[1].tag()}.tsv", score)
    title = "counts on held-out chromosomes: denoised from half of the reads, or imputed"
    tables.report("R6", title, rows, folder, shown=SHOWN)
    drawn = [row for row in rows if row.method in (WITH, HIDDEN, WITHOUT)]
    figures.bars(drawn, folder / "R6.svg", scores=SHOWN, model=WITH, title=title)
