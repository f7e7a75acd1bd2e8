"""The page of one locus: half of the reads, what is denoised from them with its interval, and the other half."""

import subprocess
from pathlib import Path

import numpy as np
import pyBigWig
from denoise import prepared
from experiments import Experiment
from figures import OURS, save
from fragments import RESOLUTION, write_reads
from matplotlib.figure import Figure
from numpy.typing import NDArray
from trained import REPOSITORY, Named, candi
from units import making

from candi_cli.counting import OVERLAP

WINDOW_BP, STEP_BP, TOP = 10_000, 1_000, 0.05
INTERVAL = 0.9
Array = NDArray[np.float64]


def choose_window(counts: Array, start: int) -> tuple[int, int]:
    """Return the window, in bp, whose count is the median among the top 5 % of windows of 10 kb, each 1 kb.

    Parameters
    ----------
    counts : shape (L,), of the bins from `start` on
    """
    width, step = WINDOW_BP // RESOLUTION, STEP_BP // RESOLUTION
    total = np.convolve(counts, np.ones(width), mode="valid")[::step]
    ranked = np.argsort(-total, kind="stable")[: max(1, round(TOP * len(total)))]
    first = start + int(ranked[len(ranked) // 2]) * STEP_BP
    return first, first + WINDOW_BP


def read_bins(path: Path, chrom: str, start: int, end: int) -> Array:
    """Return a track's value in each bin."""
    with pyBigWig.open(str(path)) as track:
        return np.nan_to_num(track.values(chrom, start, end, numpy=True)[::RESOLUTION].astype(np.float64))


def run(given: Experiment, model: Named, docs: Path, folder: Path) -> None:
    """Denoise the half by the command line, draw the locus and write the page."""
    place, inputs = given.place, prepared(given, model)
    test = place.inside(place.test)
    start, end = choose_window(inputs.x[test], place.test[0])
    folder.mkdir(parents=True, exist_ok=True)
    docs.mkdir(parents=True, exist_ok=True)
    reads, control, sheet = (folder / name for name in ("half.bedpe", "control.bedpe", "half.tsv"))
    write_reads(given.source, place.chrom, reads)
    names = "biosample\tassay\tfile"
    row = f"{given.biosample}\t{given.assay}\t{reads.name}"
    if given.control is not None:
        write_reads(given.control, place.chrom, control)
        names, row = f"{names}\tcontrol", f"{row}\t{control.name}"
    sheet.write_text(f"{names}\n{row}\n")
    region = f"{place.chrom}:{start + 1:,}-{end:,}"
    reads_overlap = model.load().card.counting.rule == OVERLAP
    asked = f"depth={len(given.truth.start) * (2 if reads_overlap and given.source.read_length else 1)}"
    options = ["--covariates", sheet.name, "--track", "counts", "--interval", INTERVAL, "--as", asked, "-r", region]
    genome = folder / "hg19.chrom.sizes"
    genome.write_text(f"{place.chrom}\t{_HG19[place.chrom]}\n")
    command = ["denoise", reads.name, *options, "-g", genome.name, "-m", model.path.resolve(), "-o", "denoised.bw"]
    candi(*command, cwd=folder)
    tracks = {
        name: read_bins(folder / f"denoised{name}.bw", place.chrom, start, end) for name in ("", ".lower", ".upper")
    }
    first = (start - place.span[0]) // RESOLUTION
    bins = slice(first, first + WINDOW_BP // RESOLUTION)
    figure = draw(inputs.x[bins], inputs.y[bins], tracks, start, f"{given.biosample} {given.assay}, {region} (hg19)")
    figure.supylabel(f"{'reads' if reads_overlap else 'fragments'} per {RESOLUTION} bp", fontsize=9)
    save(figure, folder / "locus.svg")
    with making(docs / "locus.png") as beside:
        figure.savefig(beside, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    words = [word if not isinstance(word, Path) else f"{model.path.stem}" for word in command]
    (docs / "locus.md").write_text(page(given, model, region, "candi " + " ".join(map(str, words))))


_HG19 = {"chr1": 249_250_621, "chr21": 48_129_895}


def draw(half: Array, truth: Array, tracks: dict[str, Array], start: int, title: str) -> Figure:
    """Return the three tracks, one above the other."""
    figure = Figure(figsize=(9, 4.6))
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    edges = (start + RESOLUTION * np.arange(len(half) + 1)) / 1_000
    for axes, values, label in ((panels[0], half, "half of the reads"), (panels[2], truth, "the other half")):
        axes.stairs(values, edges, fill=True, color="#595959")
        axes.set_ylabel(label, fontsize=8)
    panels[1].stairs(tracks[".upper"], edges, baseline=tracks[".lower"], fill=True, color=OURS, alpha=0.3)
    panels[1].stairs(tracks[""], edges, color=OURS, linewidth=1.2)
    panels[1].set_ylabel("denoised", fontsize=8)
    panels[0].set_title(title, fontsize=10)
    panels[2].set_xlabel("kb")
    return figure


def page(given: Experiment, model: Named, region: str, command: str) -> str:
    """Return the page, in Markdown."""
    card, place = model.load().card, given.place
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"""# One locus

![Half of the reads, the denoised track with its 90 % interval, and the other half of the reads](locus.png)

{given.biosample} {given.assay}, {region} of hg19, which the model was not trained on. Above, the half of the fragments
(without duplicates) that the model read; in the middle, what it expects of the other half, with the interval that
should hold 90 % of its bins; below, that other half, which it did not see.

The locus was chosen by a rule, not by its looks: of all windows of 10 kb that begin each kb of the test rows,
{place.chrom}:{place.test[0] + 1:,}-{place.test[1]:,}, the one with the median count of the first half among the top
5 %.

- model: `{model.path.name}`, weights SHA-256 `{card.weights_sha256}`
- counts: {card.counting}
- written by `python tests/benchmarks/real --shipped --only locus --docs docs`, at revision {revision or "unknown"},
  which runs

```sh
{command}
```
"""
