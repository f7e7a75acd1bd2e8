"""What was delivered: the facts that the manifest, the hub, the session and the page are written from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candi_cli.genome import Region


@dataclass(frozen=True)
class Track:
    """One track of a delivery: a bigWig, or the same as text.

    Attributes
    ----------
    kind : counts, signal or peaks
    quantity : `mean` of counts, `median` of signal, `probability` of peaks; `lower`, `upper`, `sd`, `cv` or another
        number of the same predicted distributions; `calls`, which are peaks
    path : relative to the delivery's folder
    observed : the assay was among the input and is denoised; otherwise it is imputed
    """

    biosample: str
    assay: str
    kind: str
    quantity: str
    path: Path
    observed: bool


@dataclass(frozen=True)
class Delivery:
    """A folder of tracks and how they were made.

    Attributes
    ----------
    tracks, texts, other_files : what lies in the folder, bigWigs, bedGraphs and narrowPeaks, and what holds no track;
        paths are relative to it
    command : as it was typed
    versions : of the programs that took part, by name
    model : `name` (None where only predictions were at hand), `sha256` and `assays` (the names of all that it knows)
    genome : the name of the assembly at UCSC, such as hg38; None where it is not known
    resolution : bp per bin
    regions : where each biosample was predicted, in genome order
    interval : the level of the tracks `lower` and `upper`, such as 0.9; None without them
    experiments : one dict for each: `biosample`, `assay`, `observed`, `covariates` (those of the input; None for what
        is imputed) and `asked` (those of the output); values are text, numbers or None (not known), never NaN
    inputs : name, size and time of each file that was read
    notes : what a reader should be told, one sentence or more each
    locus : what a genome browser opens at; None for everything
    """

    folder: Path
    tracks: list[Track]
    texts: list[Track]
    other_files: list[Path]
    command: str
    versions: dict[str, str]
    model: dict[str, Any]
    genome: str | None
    chromsizes: dict[str, int]
    resolution: int
    regions: dict[str, list[Region]]
    interval: float | None
    experiments: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    notes: list[str]
    locus: Region | None = None
