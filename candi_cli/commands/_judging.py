"""What is judged, one track after the other: a model on stores, saved predictions, or tracks of any program."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from candi_cli import __version__
from candi_cli.commands import command_line
from candi_cli.commands._annotation import read_annotation
from candi_cli.commands._console import console
from candi_cli.commands._experiments import holds, layer_of, shown
from candi_cli.commands._held_out import HeldOut, held_out, predict_held_out, trained_on
from candi_cli.commands._judge_options import KINDS, POOLS, JudgeOptions
from candi_cli.commands._reference import alone, check_signals, open_cohort, reference_average
from candi_cli.commands._tracks import check_counting, measured, open_sequence
from candi_cli.contigs import shorten
from candi_cli.errors import ModelError, RequestError, StoreError
from candi_cli.genome import Chromsizes, Region, parse_region, parse_regions, regions_within
from candi_cli.judging.classes import GENOME, Mask
from candi_cli.judging.given import Given, GivenTracks
from candi_cli.judging.grid import Grid, common_regions
from candi_cli.judging.table import Row
from candi_cli.judging.tracks import (
    DENOISED,
    IMPUTED,
    JudgedTrack,
    Observed,
    check_grids,
    judged_regions,
    read_track,
)
from candi_cli.model import Loaded, load
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing
from candi_cli.models import default_model
from candi_cli.store import Store
from candi_cli.store.predictions import Predictions, kinds_of


class Judged(NamedTuple):
    """A track that is judged, and what its rivals are made from.

    Attributes
    ----------
    stores : in which the other biosamples are; none for given tracks
    store : in which its own input is
    inputs : the folds that were its input; None where that is all of its reads
    """

    track: JudgedTrack
    stores: Sequence[Store] = ()
    store: Store | None = None
    inputs: Sequence[int] | None = None


@dataclass
class Judgement:
    """A run of a command that judges: what it is about, and the tracks.

    Attributes
    ----------
    subject : what is judged, for people
    facts : of the model, the regions and the versions, for the record
    notes : what a reader of the scores must know
    annotated : the classes of bins
    has_rivals : rivals are judged beside, and biosamples of the cohort serve them too
    """

    options: JudgeOptions
    stack: ExitStack
    subject: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    model: Loaded | None = None
    has_rivals: bool = False
    _grids: dict[tuple[Any, ...], Grid] = field(default_factory=dict)
    _masks: dict[Grid, dict[str, Mask]] = field(default_factory=dict)
    _n_judged: int = 0

    def __post_init__(self) -> None:
        self.facts = {"command": command_line(), "candi": __version__, "seed": self.options.seed}
        self.facts["regions"] = list(self.options.regions) or "all that was measured"
        if self.options.is_given:
            self._open_given()
        else:
            self._open_stores()
        self.annotated = read_annotation(self.options, self.chromsizes)

    def _open_stores(self) -> None:
        self.stores = [self.stack.enter_context(Store.open(path)) for path in self.options.stores]
        self.truth = self.stack.enter_context(Store.open(self.options.truth)) if self.options.truth else None
        for other in [*self.stores[1:], *([self.truth] if self.truth else [])]:
            if other.rule.resolution != self.stores[0].rule.resolution:
                raise StoreError(
                    f"{other.name}: bins of {other.rule.resolution} bp, but of {self.stores[0].rule.resolution} bp in "
                    f"{self.stores[0].name}; judge stores of one resolution"
                )
            for chrom, length in other.chromsizes.items():
                if self.stores[0].chromsizes.get(chrom, length) != length:
                    raise StoreError(
                        f"{other.name}: {chrom} is {length:,} bp, but {self.stores[0].chromsizes[chrom]:,} bp in "
                        f"{self.stores[0].name}; judge stores of one genome build"
                    )
        self._check_once()
        self._open_cohort()
        if self.options.predictions:
            self._open_predictions()
        else:
            self._open_model()

    def _open_cohort(self) -> None:
        """Open the stores of other biosamples, which are not judged."""
        self.cohort = open_cohort(
            self.options.cohort, self.stack, chromsizes=self.chromsizes, resolution=self.resolution,
            source=", ".join(store.name for store in self.stores),
        )  # fmt: skip
        if self.cohort:
            self.facts["cohort"] = [path.name for path in self.options.cohort]
        for store in self.cohort if self.has_rivals else ():
            if holds([store], "counts") and store.rule != self.stores[0].rule:
                self.note(
                    f"{store.name}: counted by {store.rule}, not by {self.stores[0].rule} as {self.stores[0].name}: "
                    "its reads are no part of the average of others"
                )

    def _check_once(self) -> None:
        """Raise StoreError where two stores hold the same experiment, which would count twice."""
        seen: dict[tuple[str, str], Store] = {}
        for store in self.stores:
            for key in [(name, assay) for name in store.biosamples for assay in store.assays(name)]:
                if key in seen:
                    raise StoreError(
                        f"{store.name}: {'/'.join(key)} is in {seen[key].name} too; give each experiment once"
                    )
                seen[key] = store

    @property
    def chromsizes(self) -> Chromsizes:
        """Chromosomes of what is judged, in all stores."""
        if self.options.is_given:
            return self._given.chromsizes
        return {chrom: length for store in self.stores[::-1] for chrom, length in store.chromsizes.items()}

    def _others(self, kind: str) -> list[Store]:
        """Return the stores in which other biosamples are for rivals of a kind of track."""
        alike = [store for store in self.cohort if kind != "counts" or store.rule == self.stores[0].rule]
        return [*self.stores, *alike]

    @property
    def _truth_names(self) -> str:
        return self.truth.name if self.truth is not None else ", ".join(store.name for store in self.stores)

    @property
    def _store_names(self) -> str:
        return ", ".join(path.name for path in self.options.stores)

    @property
    def resolution(self) -> int:
        """Bp of a bin."""
        return self.options.resolution if self.options.is_given else self.stores[0].rule.resolution

    def tracks(self, *, recalibrated: bool = True, regions: Sequence[str] | None = None) -> Iterator[Judged]:
        """Yield the tracks one by one; a note is added for what cannot be judged.

        Parameters
        ----------
        recalibrated : apply the recalibration of the model's card
        regions : instead of those of -r
        """
        wanted = self.options.regions if regions is None else regions
        if self.options.is_given:
            yield Judged(self._given.read())
        elif self.options.predictions:
            yield from self._predicted(wanted)
        else:
            yield from self._held_out(wanted, recalibrated=recalibrated)

    def note(self, line: str) -> None:
        """Tell a line and keep it for the report."""
        if line and line not in self.notes:
            self.notes.append(line)
            console.warn(line)

    def judged(
        self, *, what: str = "", recalibrated: bool = True, regions: Sequence[str] | None = None
    ) -> Iterator[tuple[Judged, dict[str, Mask]]]:
        """Yield the tracks one by one with the bins of each class, and tell of each in how many bins it is judged.

        Parameters
        ----------
        what : is done with them, for people
        recalibrated, regions : as of `tracks`
        """
        for each in self.tracks(recalibrated=recalibrated, regions=regions):
            track = each.track
            if track.grid not in self._masks:
                self._masks[track.grid] = self.annotated.annotation.masks(track.grid)
            masks = self._masks[track.grid]
            n_bins = int(np.count_nonzero(track.known & masks[GENOME]))
            self._n_judged += n_bins
            console.log(f"{what}{track.name}: {n_bins:,} bins")
            yield each, masks

    def note_empty(self, rows: Sequence[Row]) -> None:
        """Note classes of bins that hold no judged bin of any track; raise RequestError where there is none at all."""
        if not self._n_judged:
            raise RequestError(
                f"{self.subject}: no bin is left to judge; give other regions with -r, or another --blacklist"
            )
        for region in dict.fromkeys(row.region for row in rows):
            if not any(row.n for row in rows if row.region == region):
                self.note(f"{region}: no judged bin is in it; its scores are NA")

    def grid(self, regions: Sequence[Region]) -> Grid:
        """Return the grid of some regions, the same for the same."""
        key = tuple(regions)
        if key not in self._grids:
            self._grids[key] = Grid(regions, self.resolution)
        return self._grids[key]

    def _open_given(self) -> None:
        options = self.options
        assert options.mean is not None
        assert options.observed is not None
        kind = options.kinds[0] if options.kinds else "signal"
        tracks = GivenTracks(
            options.mean, options.observed, options.sd, options.lower, options.upper, options.interval, kind,
            options.scale == "arcsinh",
        )  # fmt: skip
        self._given = Given(tracks, options.regions, resolution=options.resolution)
        self.stores, self.truth, self.cohort = [], None, []
        self.subject = f"{options.mean.name} against {options.observed.name}"
        self.facts["tracks"] = {name: str(path) for name, path in tracks.files.items()}
        self.facts["scale"] = options.scale

    def _open_model(self) -> None:
        options = self.options
        model = load(options.model or default_model(layer_of(self.stores)))
        self.computing = Computing.on(
            choose(options.device), batch_size=options.batch_size, threads=options.threads, warn=console.warn
        )
        for store in (*self.stores, *([self.truth] if self.truth else [])):
            check_counting(model, store.rule, store.name)
        if not holds(self.stores, model.config.input):
            raise ModelError(
                f"{self.stores[0].name}: holds no {model.config.input}, which {model.path} reads; give a store that "
                "does, or another model with -m"
            )
        self._check_assays(list(model.card.assays), f"{model.path}")
        if model.config.reads_reference:
            check_signals(model, self.cohort)
        elif self.cohort:
            self._tell_unread(f"{model.path.name} does not read the mean signal of other biosamples")
        self.average = reference_average(model.config, [*self.stores, *self.cohort])
        self.model, self.subject = model, f"{model.path.name} on {self._store_names}"
        self.facts["model"] = {
            "file": model.path.name, "sha256": model.card.weights_sha256, "family": model.card.family,
            "recalibrated": model.card.recalibration is not None,
        }  # fmt: skip

    def _tell_unread(self, why: str) -> None:
        """Warn that no prediction depends on the cohort."""
        for path in self.options.cohort:
            used = "serves the average of others alone" if self.has_rivals else "is not used"
            console.warn(f"--cohort {path}: {used}; {why}")

    def _open_predictions(self) -> None:
        if not self.has_rivals:
            self._tell_unread("predictions are judged as they are")
        self._files = [self.stack.enter_context(Predictions(path)) for path in self.options.predictions]
        for file in self._files:
            for store in (*self.stores, *([self.truth] if self.truth else [])):
                check_grids(file, store)
        known = [assay for file in self._files for _, assay in file.described.tracks]
        self._check_assays(known, ", ".join(str(path) for path in self.options.predictions))
        self.subject = f"{', '.join(path.name for path in self.options.predictions)} on {self._store_names}"
        self.facts["predictions"] = [
            {"file": file.path.name, "command": file.command, "model": file.described.model} for file in self._files
        ]

    def _check_assays(self, known: Sequence[str], where: str) -> None:
        for assay in self.options.assays:
            if assay not in known:
                raise RequestError(
                    f"--assay {assay}: not in {where}, only {', '.join(dict.fromkeys(known))}; name those"
                )

    @property
    def _kinds(self) -> Sequence[str]:
        return self.options.kinds or KINDS

    @property
    def _pools(self) -> Sequence[str]:
        return self.options.pools or POOLS

    def _predicted(self, wanted: Sequence[str]) -> Iterator[Judged]:
        """Yield the tracks of saved predictions that the stores have a truth of."""
        found = of_own_reads = False
        for file in self._files:
            regions = parse_regions(wanted, file.described.chromsizes, self.resolution)
            for key, described in file.described.tracks.items():
                store = next((each for each in self.stores if Observed(each).kinds(*key)), None)
                observed = Observed(self.truth) if self.truth is not None else Observed(store) if store else None
                pool = DENOISED if described["observed"] else IMPUTED
                if observed is None or pool not in self._pools or not self._asked(key[1]) or not observed.kinds(*key):
                    continue
                if pool == DENOISED and self._is_own_input(file, key, observed.store):
                    of_own_reads = True
                    self.note(
                        f"{file.path.name}: {key[0]}/{key[1]} was made from the reads of {observed.store.name}, so "
                        "it is not judged; give a --truth of other reads"
                    )
                    continue
                grid = self.grid(judged_regions(file, key[0], regions))
                for kind in [each for each in observed.kinds(*key) if each in kinds_of(described["parameters"])]:
                    if kind in self._kinds and grid.n_bins:
                        found = True
                        track = read_track(file, observed, key, kind, pool, grid)
                        yield Judged(track, self._others(kind), store)
        if not found and of_own_reads:
            raise RequestError(
                "--predictions: were all made from the very reads that they are compared with; give a --truth of other "
                "reads, or a STORE and -m to judge by halves of the reads"
            )
        if not found:
            raise RequestError(
                f"--predictions: hold no track that {self._truth_names} has a truth of in "
                "the regions asked for; give the store of the experiments that were predicted"
            )

    def _is_own_input(self, file: Predictions, key: tuple[str, str], truth: Store) -> bool:
        """Return whether the truth of a denoised track has the depth of its input: it is the same reads.

        Where neither has a depth, as of signals, a truth that was given is taken for what it is said to be.
        """
        own = (file.described.tracks[key]["covariates"] or {}).get("depth")
        depth = truth.experiment(*key).covariates.depth
        return self.truth is None if own is None and depth is None else bool(own == depth)

    def _asked(self, assay: str) -> bool:
        return not self.options.assays or assay in self.options.assays

    def _held_out(self, wanted: Sequence[str], *, recalibrated: bool) -> Iterator[Judged]:
        """Yield the tracks of a model that is shown all but what is judged."""
        model, found = self.model, False
        assert model is not None
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="candi-")))
        path = folder / "held_out.h5"
        plan = [
            (held, store, self._judged_of(store, held.biosample, regions))
            for store, regions in self._stores_with(wanted)
            for held in held_out(
                model, store, self.truth, pools=self._pools, assays=self.options.assays, kinds=self._kinds,
                dna=self.options.reference is not None, average=self.average,
            )
        ]  # fmt: skip
        plan = [(held, store, regions) for held, store, regions in plan if regions]
        n_bins = sum(self.grid(regions).n_bins for _, _, regions in plan)
        with console.progress("predictions of what is held out", n_bins, "bins") as advance:
            for held, store, regions in plan:
                self.note(trained_on(model, regions))
                self.note(alone(model, self.average, held.biosample))
                with ExitStack() as stack:
                    chroms = sorted({region.chrom for region in regions})
                    fasta = open_sequence(model, store, chroms, self.options.reference, stack)
                    predict_held_out(
                        model, held, regions, path, self.computing, average=self.average, fasta=fasta,
                        recalibrated=recalibrated, advance=advance,
                    )  # fmt: skip
                for each in self._read(path, held, store, regions):
                    found = True
                    yield each
                path.unlink()
        if not found:
            raise RequestError(
                f"{', '.join(store.name for store in self.stores)}: nothing can be judged of {model.path.name}, which "
                f"knows {shorten(list(model.card.assays))}; give experiments of these, with folds or with others beside"
            )

    def _judged_of(self, store: Store, biosample: str, wanted: Sequence[Region]) -> list[Region]:
        """Return what is judged of a biosample: all that was measured, or what is wanted of it.

        Nothing is predicted from reads on a chromosome that has none, nor from signal where none was measured.
        """
        assert self.model is not None
        layer = self.model.config.input
        if wanted and layer == "counts":
            present = store.chroms_with_reads(biosample)
            absent = list(dict.fromkeys(region.chrom for region in wanted if region.chrom not in present))
            if absent:
                self.note(f"{biosample}: no read on {shorten(absent)}, so it is not judged there")
            return [region for region in wanted if region.chrom in present]
        found = measured(store, biosample, layer)
        return common_regions(found, wanted, store.chromsizes) if wanted else found

    def _stores_with(self, wanted: Sequence[str]) -> list[tuple[Store, list[Region]]]:
        """Return the stores that have the chromosome of a region that is wanted, and the regions in each.

        Raises
        ------
        GenomeError
            No store has the chromosome, or a region is not valid.
        """
        if not wanted:
            return [(store, []) for store in self.stores]
        found, known = [], set[str]()
        for store in self.stores:
            here = regions_within(wanted, store.chromsizes)
            known.update(here)
            if here:
                found.append((store, parse_regions(here, store.chromsizes, store.rule.resolution)))
        for text in wanted:
            if text not in known:
                parse_region(text, self.stores[0].chromsizes)  # says what is wrong with it
        return found

    def _read(self, path: Path, held: HeldOut, store: Store, regions: Sequence[Region]) -> Iterator[Judged]:
        with Predictions(path) as file:
            grid = self.grid(regions)
            for assay, kinds in held.kinds.items():
                for kind in kinds:
                    key = (held.biosample, assay)
                    track = read_track(file, held.observed, key, kind, held.pool, grid)
                    yield Judged(track, self._others(kind), store, held.inputs.get(assay))


def files_read(options: JudgeOptions) -> list[Path | None]:
    """Return the files that a command reads, so that none is written onto."""
    given = [options.mean, options.sd, options.lower, options.upper, options.observed]
    annotation = [options.genes, options.enhancers, options.blacklist, *(path for _, path in options.beds)]
    named = [options.model, options.truth, options.reference]
    several = (*options.stores, *options.predictions, *options.cohort)
    return [shown(path) for path in (*several, *given, *annotation, *named)]
