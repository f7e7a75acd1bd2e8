"""The other biosamples whose mean signal a model reads: those of the stores given, and those of `--cohort`."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from candi_cli.binning.experiments import source as file_facts
from candi_cli.errors import GenomeError, StoreError
from candi_cli.genome import Chromsizes
from candi_cli.model import Loaded
from candi_cli.model.candi import Config, Lanes
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.store import Store


def open_cohort(
    paths: Sequence[Path], stack: ExitStack, *, chromsizes: Chromsizes, resolution: int, source: str
) -> list[Store]:
    """Open stores of other biosamples.

    Parameters
    ----------
    chromsizes, resolution : of what they are beside
    source : the name of that, for messages

    Raises
    ------
    StoreError
        One is no store, or has bins of another width.
    GenomeError
        One shares no chromosome, or a chromosome has another length in it.
    """
    stores = [stack.enter_context(Store.open(path)) for path in paths]
    for store in stores:
        if store.rule.resolution != resolution:
            raise StoreError(
                f"{store.name}: bins of {store.rule.resolution} bp, but of {resolution} bp in {source}; give --cohort "
                "stores of one resolution"
            )
        shared = [chrom for chrom in store.chromsizes if chrom in chromsizes]
        if not shared:
            raise GenomeError(
                f"{store.name}: shares no chromosome with {source}; give --cohort stores of the same genome build "
                "and names"
            )
        for chrom in shared:
            if store.chromsizes[chrom] != chromsizes[chrom]:
                raise GenomeError(
                    f"{store.name}: {chrom} is {store.chromsizes[chrom]:,} bp, but {chromsizes[chrom]:,} bp in "
                    f"{source}; give --cohort stores of one genome build"
                )
    return stores


def check_signals(model: Loaded, cohort: Sequence[Store]) -> None:
    """Raise StoreError where a store of other biosamples has no signal that a model reads the mean of."""
    for store in cohort:
        if not signals_of(store, model.config.assays):
            raise StoreError(
                f"{store.name}: holds no signal of an assay that {model.path} knows "
                f"({', '.join(model.config.assays)}), and it reads the mean of these; give another --cohort"
            )


def signals_of(store: Store, assays: Sequence[str]) -> dict[str, list[str]]:
    """Return which of some assays have a signal, for each biosample of a store that has any."""
    found = {}
    for name in store.biosamples:
        present = set(store.assays(name)).intersection(assays)
        shown = [assay for assay in assays if assay in present and "signal" in store.experiment(name, assay).layers]
        if shown:
            found[name] = shown
    return found


def alone(model: Loaded, average: ReferenceAverage | None, biosample: str) -> str:
    """Return a line that tells that a model which reads other biosamples is given none; nothing where it is."""
    if average is None or average.others(biosample):
        return ""
    return (
        f"{biosample}: {model.path.name} reads the mean signal of other biosamples, and none is given; it predicts "
        "from the biosample's own tracks alone; give a store of others with --cohort"
    )


def reference_average(config: Config, stores: Sequence[Store]) -> ReferenceAverage | None:
    """Return the mean signal of the biosamples of some stores that have any, None for a network that reads none.

    An experiment that several stores hold counts once, as it is in the first.
    """
    if not config.reads_reference:
        return None
    members, seen = [], set[tuple[str, str]]()
    for store in stores:
        for name, assays in signals_of(store, config.assays).items():
            fresh = [assay for assay in assays if (name, assay) not in seen]
            seen.update((name, assay) for assay in fresh)
            members.append(Lanes(store, name, config.assays, shown=fresh).match(config.typical_signal))
    return ReferenceAverage(config.assays, members)


def cohort_facts(cohort: Sequence[Store]) -> list[dict[str, Any]]:
    """Return name and size of stores: the same on whatever machine they are read."""
    facts = [file_facts(store.path) for store in cohort if store.path is not None]
    return [{"name": fact["name"], "size": fact["size"]} for fact in facts]
