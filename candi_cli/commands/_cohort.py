"""From the stores and options of `candi train` to a network's configuration, its training windows and its card."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from candi_cli.commands._assay_cards import assay_card
from candi_cli.commands._console import console
from candi_cli.commands._places import Places, Strategy, covered_by, places
from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL
from candi_cli.errors import GenomeError, RequestError, StoreError
from candi_cli.genome import Chromsizes, Region, parse_region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import Loci, any_start
from candi_cli.model import AssayCard, ModelCard
from candi_cli.model.candi import Config, Corruption, Lanes, LossWeights, preset
from candi_cli.model.candi.dataset import shares_of
from candi_cli.model.candi.matching import track_quantiles, typical_quantiles
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.training import Progress
from candi_cli.store import Store

_TRAINED_ON = (None, "train")  # splits of the sample sheet


@dataclass(frozen=True)
class Cohort:
    """What training needs to know of its stores.

    Attributes
    ----------
    average : the mean signal of other biosamples, for a network that reads it
    """

    config: Config
    rule: CountingRule
    training: list[tuple[Lanes, Loci]]
    held_out: list[tuple[Lanes, Loci]]
    sequences: dict[str, Fasta]
    average: ReferenceAverage | None
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
            **settings,
            **self.data,  # tells more of the stores than their names
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
    region_intervals: Path | None = None,
    loci: str = "any",
    ccre: Path | None = None,
    n_windows: int = 5_000,
    seed: int = 0,
    input: str = "counts",
    reads_reference: bool = False,
    matches_signal: bool = False,
    start: Config | None = None,
) -> Cohort:
    """Check that the stores fit together and find the windows to train and to score on.

    Parameters
    ----------
    region_intervals : BED of more regions
    loci, ccre, n_windows, seed : see `_places.Strategy`
    input : the layer that the network reads, `counts` or `signal`
    reads_reference : the network also reads the mean signal of other biosamples
    matches_signal : signal is matched to what is typical of its assay in these stores
    start : the network, instead of the preset's; assays that it does not have are left out

    Raises
    ------
    StoreError, GenomeError, RequestError
        Stores were counted under different rules, a chromosome is unknown, or nothing is left to train on.
    """
    strategy = Strategy(loci, ccre, n_windows, seed)
    strategy.check(has_regions=bool(regions or region_intervals))
    rule = _one_rule(stores, input)
    known = _known_chroms(stores, input)
    where = places(
        known, test_chroms=test_chroms, regions=regions, region_intervals=region_intervals, blacklist=blacklist
    )
    held_out_regions = [parse_region(text, known) for text in valid_regions]
    sequences = _open_sequences(stores, stack, reference, input)
    members, cards, kept_out = _members(stores, input, start.assays if start else None)
    depths = [depth for card in cards.values() for depth in card.depth_range or ()]
    config = start or _preset(preset, tuple(cards), rule, bool(sequences), depths, input, reads_reference)
    if matches_signal and start is None:
        config = replace(config, typical_signal=_typical_signal(members, config.assays, test_chroms))
    for lanes in members:
        lanes.match(config.typical_signal, without=test_chroms)
    held_out = _held_out(members, where, held_out_regions, config)
    where.exclude(held_out_regions)
    allowed = [where.allowed(lanes.store, _covered(lanes, input), where.regions) for lanes in members]
    found = strategy.find(allowed, config.context_bins, resolution=rule.resolution, known=known)
    training = [(lanes, loci) for lanes, loci in zip(members, found, strict=True) if len(loci)]
    if not training:
        raise RequestError(
            f"no window of {config.context_bins} bins is left to train on; widen -r or give stores with data there"
        )
    data = {
        "stores": [_describe(store) for store in stores],
        "regions": [*regions, *([region_intervals.name] if region_intervals else [])],
        "valid_regions": list(valid_regions), "test_chroms": list(test_chroms),
        "blacklist": blacklist.name if blacklist else None, "reference": reference.name if reference else None,
        "windows": {**strategy.describe(), **_shares(training, input)},
        **({"kept_out": kept_out} if kept_out else {}),
    }  # fmt: skip
    average = ReferenceAverage(config.assays, members) if reads_reference else None
    return Cohort(config, rule, training, held_out, sequences, average, cards, data)


def _one_rule(stores: Sequence[Store], layer: str) -> CountingRule:
    """Return the counting rule of all stores; a signal has no more of it than the resolution."""
    rule = stores[0].rule
    for store in stores[1:]:
        if store.rule != rule and (layer == "counts" or store.rule.resolution != rule.resolution):
            raise StoreError(
                f"{store.name}: counted by {store.rule}, but {stores[0].name} by {rule}; rebuild one of them"
            )
    return rule


def _members(
    stores: Sequence[Store], layer: str, lanes_of: Sequence[str] | None
) -> tuple[list[Lanes], dict[str, AssayCard], list[str]]:
    """Return the biosamples that have something to train on, the cards of their assays, and what is kept out.

    Parameters
    ----------
    lanes_of : the assays of the network's lanes; default: all that the stores have
    """
    named = [(store, biosample) for store in stores for biosample in store.biosamples]
    everything = [store.experiment(name, assay) for store, name in named for assay in store.assays(name)]
    experiments = [item for item in everything if item.split in _TRAINED_ON]
    kept_out = sorted(f"{item.biosample}/{item.assay}" for item in everything if item not in experiments)
    if kept_out:
        console.log(f"{len(kept_out)} experiments of the splits validation and test are left out")
    assays = tuple(sorted({item.assay for item in experiments if item.assay != CONTROL and layer in item.layers}))
    if not assays:
        what = "reads" if layer == "counts" else "a signal"
        raise RequestError(f"{stores[0].name}: has no assay with {what}; add experiments with {what} by 'candi bin'")
    left_out = sorted(set(assays) - set(lanes_of or assays))
    if left_out:
        console.log(f"left out, as --init does not know them: {', '.join(left_out)}; --add-assay adds assays")
    assays = tuple(assay for assay in assays if assay not in left_out)
    outputs = ("counts", "signal", "peaks") if layer == "counts" else ("signal", "peaks")
    cards = {
        assay: assay_card([item for item in experiments if item.assay == assay], layer=layer, outputs=outputs)
        for assay in assays
    }
    members = []
    for store, biosample in named:
        shown = [assay for assay in store.assays(biosample) if store.experiment(biosample, assay).split in _TRAINED_ON]
        lanes = Lanes(store, biosample, lanes_of or assays, shown=shown)
        if lanes.available(layer)[:-1].any():
            members.append(lanes)
    return members, cards, kept_out


def _covered(lanes: Lanes, layer: str) -> Mapping[str, Any]:
    shown = [item.assay for item in lanes.experiments if item is not None and layer in item.layers]
    return covered_by(lanes.store, lanes.biosample, shown, layer)


def _held_out(
    members: Sequence[Lanes], where: Places, regions: Sequence[Region], config: Config
) -> list[tuple[Lanes, Loci]]:
    """Return the windows to score on: any in the regions, whatever the strategy of training is."""
    if not regions:
        return []
    found = []
    for lanes in members:
        allowed = where.allowed(lanes.store, _covered(lanes, config.input), regions)
        loci = any_start(allowed, config.context_bins)
        if len(loci):
            found.append((lanes, loci))
    if not found:
        raise RequestError(
            f"--valid-region: holds no window of {config.context_bins * config.resolution:,} bp with data; widen it"
        )
    return found


def _shares(training: Sequence[tuple[Lanes, Loci]], layer: str) -> dict[str, Any]:
    """Return how often windows are drawn of each biosample, for the card."""
    shares = shares_of(np.stack([lanes.available(layer)[:-1] for lanes, _ in training]))
    named: dict[str, float] = {}
    for (lanes, _), share in zip(training, shares.tolist(), strict=True):
        named[lanes.biosample] = round(named.get(lanes.biosample, 0.0) + share, 6)
    return {"drawn": "half evenly over biosamples, half evenly over assays and then over those that have it",
            "shares": named}  # fmt: skip


def _known_chroms(stores: Sequence[Store], layer: str) -> Chromsizes:
    """Return the chromosomes of all stores; those with data in two stores must be of one genome build."""
    known = {chrom: length for store in stores for chrom, length in store.chromsizes.items()}
    owner: dict[str, Store] = {}
    for store in stores:
        for chrom in _chroms_with(store, layer):
            first = owner.setdefault(chrom, store)
            known[chrom] = first.chromsizes[chrom]
            if store.chromsizes[chrom] != known[chrom]:
                raise StoreError(
                    f"{store.name}: {chrom} is {store.chromsizes[chrom]:,} bp but {known[chrom]:,} bp in {first.name}; "
                    "use stores of one genome build"
                )
    return known


def _chroms_with(store: Store, layer: str) -> list[str]:
    found = {chrom for biosample in store.biosamples for chrom in store.chroms_with(biosample, layer)}
    return [chrom for chrom in store.chromsizes if chrom in found]


def _open_sequences(stores: Sequence[Store], stack: ExitStack, reference: Path | None, layer: str) -> dict[str, Fasta]:
    if reference is None:
        return {}
    sequences = {}
    for store in stores:
        fasta = stack.enter_context(Fasta(reference))
        fasta.name_as(store.chromsizes, source=store.name)
        for chrom in _chroms_with(store, layer):
            if fasta.chromsizes.get(chrom, store.chromsizes[chrom]) != store.chromsizes[chrom]:
                raise GenomeError(f"{reference}: {chrom} has another length than in {store.name}; use one genome build")
        sequences[store.name] = fasta
    return sequences


def _preset(
    name: str,
    assays: tuple[str, ...],
    rule: CountingRule,
    reads_sequence: bool,
    depths: Sequence[float],
    layer: str,
    reads_reference: bool,
) -> Config:
    if reads_sequence and rule.resolution != 25:
        raise RequestError(
            f"-T: the DNA tower pools 200 bp into 8 bins of 25 bp, not of {rule.resolution}; leave -T out"
        )
    config = preset(
        name, assays, resolution=rule.resolution, reads_sequence=reads_sequence, input=layer,
        reads_reference=reads_reference,
    )  # fmt: skip
    if not depths:
        return config
    return replace(config, depth_range=(float(np.log2(min(depths))), float(np.log2(max(depths)))))


def _typical_signal(members: Sequence[Lanes], assays: Sequence[str], test_chroms: Sequence[str]) -> tuple[float, ...]:
    """Return the quantiles of each assay's signal, in the mean over biosamples, off the test chromosomes."""
    typical: list[float] = []
    for lane, assay in enumerate(assays):
        tracks = [
            track_quantiles(lanes.store, lanes.biosample, assay, without=test_chroms)
            for lanes in members
            if lanes.available("signal")[lane]
        ]
        typical += typical_quantiles([each for each in tracks if each is not None]).tolist()
    return tuple(typical)


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
