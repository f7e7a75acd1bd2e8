"""From the stores and options of `candi train` to a network's configuration, its training windows and its card."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import multimode, quantiles
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._console import console
from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, GB, Covariates, depth_density
from candi_cli.errors import GenomeError, RequestError, StoreError
from candi_cli.genome import Chromsizes, Region, parse_region
from candi_cli.io.bed import read_intervals
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import Loci, find_loci
from candi_cli.model import AssayCard, ModelCard
from candi_cli.model.candi import Config, Corruption, Lanes, LossWeights, preset
from candi_cli.model.training import Progress
from candi_cli.store import Store, StoredExperiment

_TRAINED_ON = (None, "train")  # splits of the sample sheet
_BINOMIAL_THINNING = 8  # the deepest where a store has no folds


@dataclass(frozen=True)
class Cohort:
    """What training needs to know of its stores."""

    config: Config
    rule: CountingRule
    training: list[tuple[Lanes, Loci]]
    held_out: list[tuple[Lanes, Loci]]
    sequences: dict[str, Fasta]
    assays: dict[str, AssayCard]
    data: dict[str, Any]

    def card(
        self,
        *,
        corruption: Corruption,
        weights: LossWeights,
        history: Sequence[Progress],
        n_parameters: int,
        settings: Mapping[str, Any],
    ) -> ModelCard:
        """Return the card of a network that was trained on this cohort."""
        training = {
            **self.data,
            **settings,
            "parameters": n_parameters,
            "corruption": asdict(corruption),
            "loss_weights": asdict(weights),
            "held_out_scores": [{"step": progress.step, **(progress.held_out or {})} for progress in history],
        }
        return ModelCard("candi", asdict(self.config), self.rule, self.assays, training)


def open_cohort(
    stores: Sequence[Store],
    stack: ExitStack,
    *,
    preset: str,
    regions: Sequence[str],
    valid_regions: Sequence[str],
    test_chroms: Sequence[str],
    blacklist: Path | None,
    reference: Path | None,
) -> Cohort:
    """Check that the stores fit together and find the windows to train and to score on.

    Raises
    ------
    StoreError, GenomeError, RequestError
        Stores were counted under different rules, a chromosome is unknown, or nothing is left to train on.
    """
    rule = stores[0].rule
    for store in stores[1:]:
        if store.rule != rule:
            raise StoreError(
                f"{store.name}: counted by {store.rule}, but {stores[0].name} by {rule}; rebuild one of them"
            )
    known = _known_chroms(stores)
    _check_chroms(test_chroms, known)
    excluded = read_intervals(blacklist) if blacklist else {}
    train_regions = [parse_region(text, known) for text in regions]
    held_out_regions = [parse_region(text, known) for text in valid_regions]
    sequences = _open_sequences(stores, stack, reference)
    members = [(store, biosample) for store in stores for biosample in store.biosamples]
    everything = [store.experiment(name, assay) for store, name in members for assay in store.assays(name)]
    experiments = [item for item in everything if item.split in _TRAINED_ON]
    kept_out = sorted(f"{item.biosample}/{item.assay}" for item in everything if item not in experiments)
    if kept_out:
        console.log(f"{len(kept_out)} experiments of the splits validation and test are left out")
    assays = tuple(sorted({item.assay for item in experiments if item.assay != CONTROL and "counts" in item.layers}))
    if not assays:
        raise RequestError(f"{stores[0].name}: has no assay with reads; add experiments with reads by 'candi bin'")
    cards = {assay: _assay_card([item for item in experiments if item.assay == assay]) for assay in assays}
    depths = [depth for card in cards.values() for depth in card.depth_range]
    config = _preset(preset, assays, rule, bool(sequences), (min(depths), max(depths)))
    find = partial(_find, members, assays, test_chroms=test_chroms, context=config.context_bins)
    held_out = find(held_out_regions, excluded) if held_out_regions else []
    if held_out_regions and not held_out:
        raise RequestError(
            f"--valid-region: holds no window of {config.context_bins * rule.resolution:,} bp with reads; widen it"
        )
    if excluded and not any(chrom in known for chrom in excluded):
        raise GenomeError(f"{blacklist}: shares no chromosome with the stores; use the same genome build and names")
    for region in held_out_regions:
        intervals = np.array([[region.start, region.end]], dtype=np.int64)
        excluded[region.chrom] = np.concatenate([excluded.get(region.chrom, intervals[:0]), intervals])
    training = find(train_regions, excluded)
    if not training:
        raise RequestError(
            f"no window of {config.context_bins} bins is left to train on; widen -r or give stores with reads there"
        )
    data = {
        "stores": [_describe(store) for store in stores],
        "regions": list(regions), "valid_regions": list(valid_regions), "test_chroms": list(test_chroms),
        "blacklist": blacklist.name if blacklist else None, "reference": reference.name if reference else None,
        "windows": "uniform over allowed starts, biosamples equally often",
        **({"kept_out": kept_out} if kept_out else {}),
    }  # fmt: skip
    return Cohort(config, rule, training, held_out, sequences, cards, data)


def _known_chroms(stores: Sequence[Store]) -> Chromsizes:
    """Return the chromosomes of all stores; those with reads in two stores must be of one genome build."""
    known = {chrom: length for store in stores for chrom, length in store.chromsizes.items()}
    owner: dict[str, Store] = {}
    for store in stores:
        for chrom in {chrom for biosample in store.biosamples for chrom in store.chroms_with_reads(biosample)}:
            first = owner.setdefault(chrom, store)
            known[chrom] = first.chromsizes[chrom]
            if store.chromsizes[chrom] != known[chrom]:
                raise StoreError(
                    f"{store.name}: {chrom} is {store.chromsizes[chrom]:,} bp but {known[chrom]:,} bp in {first.name}; "
                    "use stores of one genome build"
                )
    return known


def _check_chroms(chroms: Sequence[str], known: Chromsizes) -> None:
    for chrom in chroms:
        if chrom not in known:  # a misspelt test chromosome would be trained on
            raise RequestError(f"--test-chrom {chrom}: not in any store; known are {', '.join(known)}")


def _open_sequences(stores: Sequence[Store], stack: ExitStack, reference: Path | None) -> dict[str, Fasta]:
    if reference is None:
        return {}
    sequences = {}
    for store in stores:
        fasta = stack.enter_context(Fasta(reference))
        fasta.name_as(store.chromsizes, source=store.name)
        for chrom in {chrom for biosample in store.biosamples for chrom in store.chroms_with_reads(biosample)}:
            if fasta.chromsizes.get(chrom, store.chromsizes[chrom]) != store.chromsizes[chrom]:
                raise GenomeError(f"{reference}: {chrom} has another length than in {store.name}; use one genome build")
        sequences[store.name] = fasta
    return sequences


def _preset(
    name: str, assays: tuple[str, ...], rule: CountingRule, reads_sequence: bool, depths: tuple[float, float]
) -> Config:
    if reads_sequence and rule.resolution != 25:
        raise RequestError(
            f"-T: the DNA tower pools 200 bp into 8 bins of 25 bp, not of {rule.resolution}; leave -T out"
        )
    config = preset(name, assays, resolution=rule.resolution, reads_sequence=reads_sequence)
    return replace(config, depth_range=(float(np.log2(depths[0])), float(np.log2(depths[1]))))


def _find(
    members: Sequence[tuple[Store, str]],
    assays: tuple[str, ...],
    regions: Sequence[Region],
    excluded: Mapping[str, NDArray[np.int64]],
    *,
    test_chroms: Sequence[str],
    context: int,
) -> list[tuple[Lanes, Loci]]:
    found = []
    for store, biosample in members:
        covered = {chrom: store.covered_blocks(biosample, chrom) for chrom in store.chroms_with_reads(biosample)}
        loci = find_loci(
            store.chromsizes, resolution=store.rule.resolution, context=context,
            regions=regions, covered=covered, blacklist=excluded, test_chroms=test_chroms,
        )  # fmt: skip
        shown = [assay for assay in store.assays(biosample) if store.experiment(biosample, assay).split in _TRAINED_ON]
        if len(loci) and set(shown) - {CONTROL}:
            found.append((Lanes(store, biosample, assays, shown=shown), loci))
    return found


def _assay_card(experiments: Sequence[StoredExperiment]) -> AssayCard:
    """Summarise an assay's training data.

    Its standard is the upper quartile of depth and the most frequent combination of the other covariates: one that
    training has seen, not the mode of each by itself, which may be of no experiment.
    """
    covariates = [item.covariates for item in experiments if "counts" in item.layers]
    depths = sorted(item.depth / item.span_bp * GB for item in covariates if item.depth and item.span_bp)
    if not depths:
        raise StoreError(f"{experiments[0].assay}: no depth is known for its reads; rebuild the store with 'candi bin'")
    upper = quantiles(depths, n=4, method="inclusive")[2] if len(depths) > 1 else depths[0]
    lengths = [item.read_length for item in covariates if item.read_length]
    run_types = [item.run_type for item in covariates if item.run_type]
    platforms = [item.platform for item in covariates if item.platform]
    return AssayCard(
        outputs=tuple(
            layer for layer in ("counts", "signal", "peaks") if any(layer in item.layers for item in experiments)
        ),
        standard=replace(_most_frequent(covariates), depth=upper, span_bp=GB),
        depth_range=(depths[0] / max(len(item.fold_depths) or _BINOMIAL_THINNING for item in experiments), depths[-1]),
        read_length_range=(min(lengths), max(lengths)) if lengths else None,
        run_types=tuple(sorted(set(run_types))),
        platforms=tuple(sorted(set(platforms))),
    )


def _most_frequent(covariates: Sequence[Covariates]) -> Covariates:
    """Return the most frequent combination of all but depth; of the deepest experiment among equals."""
    others = [replace(item, depth=None, span_bp=None) for item in covariates]
    frequent = multimode(others)
    deepest_first = sorted(covariates, key=depth_density, reverse=True)
    return next(other for item in deepest_first if (other := replace(item, depth=None, span_bp=None)) in frequent)


def _describe(store: Store) -> dict[str, Any]:
    """Return what a card tells of a store: its experiments and the names of their files, never whole paths."""
    return {
        "file": store.path.name if store.path else None,
        "experiments": {
            f"{biosample}/{assay}": [source["name"] for source in store.sources(biosample, assay)]
            for biosample in store.biosamples
            for assay in store.assays(biosample)
        },
    }
