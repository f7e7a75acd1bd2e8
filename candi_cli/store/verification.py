"""Is a store whole? Every dataset against its checksum, the grid and its neighbours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
from isal import isal_zlib

from candi_cli.genome import bin_count
from candi_cli.store.chunks import checked
from candi_cli.store.file import BLOCKS, LAYERS, SPANS, Store, attributes_of, header_of
from candi_cli.store.opening import DAMAGE

_OF_READS = ("counts", "folds", BLOCKS)


class Finding(NamedTuple):
    """Something that `verify` looked at: its path in the file, and what is wrong with it, if anything."""

    dataset: str
    fault: str | None


def verify(store: Store) -> Iterator[Finding]:
    """Read every dataset of a store; compare it with its checksum, its shape with the grid, and its layer with others.

    Yields
    ------
    Finding
        One for the header, and for each experiment and each of its datasets. Groups that the format does not know are
        passed over.

    Raises
    ------
    StoreError
        The store is too damaged to list what it holds.
    """
    yield Finding("the header", _attributes_fault(lambda: header_of(store.opened()), store.opened()))
    for biosample in store.biosamples:
        for assay in store.assays(biosample):
            yield from _verify_experiment(store, biosample, assay)


def _verify_experiment(store: Store, biosample: str, assay: str) -> Iterator[Finding]:
    name = f"{biosample}/{assay}"
    with store.naming_damage(name):
        group = store.group(biosample, assay)
        layers = {layer: sorted(group[layer]) for layer in (*LAYERS, BLOCKS, SPANS) if layer in group}
    fault = _attributes_fault(lambda: attributes_of(group), group)
    yield Finding(name, fault or _missing(store, layers))
    whole: set[tuple[str, str]] = set()
    for layer, chroms in layers.items():
        for chrom in chroms:
            fault = _dataset_fault(store, group, layer, chrom)
            if layer == "folds" and fault is None and ("counts", chrom) in whole:
                fault = _sum_fault(group, chrom)
            if fault is None:
                whole.add((layer, chrom))
            yield Finding(f"{name}/{layer}/{chrom}", fault)


def _attributes_fault(read: Callable[[], Mapping[str, Any]], holder: h5py.Group) -> str | None:
    try:
        checked(read(), holder)
    except DAMAGE as error:
        return f"cannot be read ({_first_line(error)})"
    return None


def _missing(store: Store, layers: Mapping[str, Sequence[str]]) -> str | None:
    """Return which chromosomes a layer should have and has not."""
    with_reads = {chrom for layer in _OF_READS for chrom in layers.get(layer, ())}
    needed = {layer: with_reads for layer in _OF_READS if layer in layers or (with_reads and layer != "folds")}
    if "peaks" in layers:
        needed["peaks"] = set(store.chromsizes)
    if SPANS in layers:  # which stores of the first versions lack
        needed |= {SPANS: set(layers.get("signal", ())), "signal": set(layers[SPANS])}
    for layer, chroms in needed.items():
        if missing := sorted(chroms - set(layers.get(layer, ()))):
            return f"lacks {layer} of {', '.join(missing)}"
    return None


def _dataset_fault(store: Store, group: h5py.Group, layer: str, chrom: str) -> str | None:
    try:
        dataset = group[layer][chrom]
        if chrom not in store.chromsizes:
            return "is of a chromosome that the genome does not have"
        length = store.chromsizes[chrom]
        if layer == SPANS:
            return _spans_fault(dataset, length)
        n_bins = store.n_bins(chrom) if layer in LAYERS else bin_count(length, int(dataset.attrs["block_bp"]))
        if dataset.shape[-1:] != (n_bins,):
            return f"has {dataset.shape[-1]:,} bins, the grid {n_bins:,}"
        rows = (len(group.attrs["fold_depths"]),) if layer == "folds" else ()
        if dataset.shape[:-1] != rows:
            return f"has {dataset.shape[0]:,} rows, expected {rows[0] if rows else 1:,}"
        if isal_zlib.crc32(np.ascontiguousarray(dataset[()])) != int(dataset.attrs["crc32"]):
            return "does not match its checksum"
    except DAMAGE as error:
        return f"cannot be read ({_first_line(error)})"
    return None


def _spans_fault(dataset: h5py.Dataset, length: int) -> str | None:
    spans = dataset[()]
    if isal_zlib.crc32(np.ascontiguousarray(spans)) != int(dataset.attrs["crc32"]):
        return "does not match its checksum"
    bounds = spans.reshape(-1)
    if (
        spans.shape[1:] != (2,)
        or (np.diff(bounds) <= 0).any()
        or (len(bounds) and not 0 <= bounds[0] < bounds[-1] <= length)
    ):
        return "holds no sorted intervals of the chromosome"
    return None


def _sum_fault(group: h5py.Group, chrom: str) -> str | None:
    folds = group["folds"][chrom][()].sum(axis=0, dtype=np.int64)
    return "does not sum to the counts" if (folds != group["counts"][chrom][()]).any() else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
