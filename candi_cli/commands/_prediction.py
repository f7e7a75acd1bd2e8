"""From reads, a store or shards to files of tracks: what `candi denoise` and `candi impute` have in common."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from candi_cli import __version__
from candi_cli.binning import Binning
from candi_cli.binning.experiments import source as file_facts
from candi_cli.commands import command_line
from candi_cli.commands._amounts import counted, size
from candi_cli.commands._console import console
from candi_cli.commands._delivery import Made, deliver
from candi_cli.commands._dry_run import TRACK_BYTES, tell
from candi_cli.commands._experiments import Inputs, find_given, find_inputs, named_aliases, open_store
from candi_cli.commands._latent import write_latent
from candi_cli.commands._output import sweep
from candi_cli.commands._reference import alone, check_signals, cohort_facts, open_cohort, reference_average
from candi_cli.commands._track_files import (
    STDOUT,
    FilePlan,
    Target,
    formats_of,
    kinds_asked,
    place_for,
    plan_files,
    regions_asked,
)
from candi_cli.commands._track_options import TrackOptions
from candi_cli.commands._tracks import (
    LaneCovariates,
    check_asked,
    check_model,
    lane_covariates,
    measured,
    never_learned,
    open_sequence,
    prediction_dataset,
)
from candi_cli.commands._writing import write_plan
from candi_cli.covariates import CONTROL
from candi_cli.errors import OutputError
from candi_cli.export.files import HDF5, NARROWPEAK
from candi_cli.export.source import Source, joined
from candi_cli.genome import Region, bin_count
from candi_cli.model import Loaded, ModelCard, load
from candi_cli.model.device import choose, kind_of, versions
from candi_cli.model.parts import Computing, Part, compute_parts, parts_of, windows_of
from candi_cli.model.prediction import Windows
from candi_cli.models import default_model
from candi_cli.parts import PartsFolder, is_whole
from candi_cli.store import Store
from candi_cli.store.predictions import Described, bytes_of, parameters_of

Choose = Callable[[Loaded, Inputs], list[Target]]


def predict_tracks(options: TrackOptions, choose_targets: Choose, *, named: bool) -> None:
    """Predict tracks and write them.

    Parameters
    ----------
    choose_targets : returns which tracks are wanted of what was given
    named : their assays were asked for by name
    """
    loaded = load(options.model) if options.model is not None else None  # before READS that come through a pipe
    device, given = choose(options.device), find_given(options.reads, options.sheet)
    loaded = loaded or load(default_model(given.layer))
    binning = Binning(options.reference, aliases=named_aliases(options.aliases))
    layer = loaded.config.input
    inputs = find_inputs(given, binning, rule=loaded.card.counting, genome=options.genome, layer=layer)
    targets = choose_targets(loaded, inputs)
    kinds = options.kinds or _default_kinds(options, loaded.card, targets)
    regions = regions_asked(options, inputs.chromsizes, inputs.rule.resolution)
    check_model(loaded, inputs, targets)
    asked = tuple(dict.fromkeys((*kinds, *kinds_asked(options))))
    absent = never_learned(loaded, targets, asked, named=named, formats=formats_of(options))
    targets = [target for target in targets if any((target[1], kind) not in absent for kind in asked)]
    check_asked(loaded, options.asked, targets)
    _warn_of_unused(options, inputs, loaded)
    plan = plan_files(options, targets, kinds, absent=absent)
    files = _files_of(inputs, layer)
    computing = Computing.on(device, batch_size=options.batch_size, threads=options.threads, warn=console.warn)
    with ExitStack() as stack:
        cohort = _open_cohort(options, loaded, inputs, stack)
        if options.dry_run:
            tell(loaded, inputs, plan, regions, computing, targets, _parameters(loaded.card, plan), cohort)
            return
        files += [store.path for store in cohort if store.path is not None]
        run = _Run(options, loaded, plan, computing, targets, [file_facts(path) for path in files], cohort)
        named_files = (options.sheet, options.model, options.genome, options.aliases, options.reference)
        read = (*files, *options.cohort, *named_files)
        stack.enter_context(place_for(plan, (options.latent, options.provenance), inputs=read))
        store = open_store(inputs, binning, command=command_line(), threads=options.threads, layer=layer)
        run.write(stack.enter_context(store), regions)


def _open_cohort(options: TrackOptions, model: Loaded, inputs: Inputs, stack: ExitStack) -> list[Store]:
    """Open the stores of other biosamples; none for a model that reads nothing of them, which is told."""
    if not model.config.reads_reference:
        for path in options.cohort:
            console.warn(f"--cohort {path}: is not used; the model does not read the mean signal of other biosamples")
        return []
    source = inputs.store or next((row.file or row.signal for row in inputs.experiments), None) or "the reads given"
    cohort = open_cohort(
        options.cohort, stack, chromsizes=inputs.chromsizes, resolution=inputs.rule.resolution, source=str(source)
    )
    check_signals(model, cohort)
    return cohort


def _warn_of_unused(options: TrackOptions, inputs: Inputs, model: Loaded) -> None:
    """Warn of options that are about reads where a store is given, which has its own sheet and genome."""
    if options.reference is not None and not model.config.reads_sequence:
        if inputs.store is None:
            console.log("the model reads no DNA; -T serves for CRAM alone")
        else:
            console.warn(f"-T {options.reference}: is not used; the model reads no DNA")
    given = {"--covariates": options.sheet, "-g": options.genome, "--aliases": options.aliases}
    for name, value in given.items():
        if inputs.store is not None and value is not None:
            console.warn(f"{name} {value}: is not used; {inputs.store} holds what its reads were counted with")


def _default_kinds(options: TrackOptions, card: ModelCard, targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the kinds of tracks where none was asked for: counts, or signal of a model that has no counts."""
    learned = [set(card.assays[assay].outputs) for _, assay in targets if assay in card.assays]
    common = [kind for kind in ("counts", "signal", "peaks") if all(kind in outputs for outputs in learned)]
    if formats_of(options) == (NARROWPEAK,):
        return ("peaks",)
    if formats_of(options) == (HDF5,):
        return tuple(common) or ("counts",)
    return tuple(common[:1]) or ("counts",)


def _parameters(card: ModelCard, plan: FilePlan) -> Callable[[str], list[str]]:
    """Return a function from an assay to the parameters that are kept of it."""
    calls_peaks = any(file.format == NARROWPEAK for file in plan.files)

    def of(assay: str) -> list[str]:
        more = ("peaks", "signal") if calls_peaks else ()
        return parameters_of([kind for kind in (*plan.kinds, *more) if kind in card.assays[assay].outputs])

    return of


def _files_of(inputs: Inputs, layer: str) -> list[Path]:
    """Return the files that are read."""
    column = "file" if layer == "counts" else layer
    files = [file for row in inputs.experiments if (file := getattr(row, column))]
    return files + ([inputs.store] if inputs.store else [])


class _Run:
    """A prediction under way."""

    def __init__(
        self,
        options: TrackOptions,
        loaded: Loaded,
        plan: FilePlan,
        computing: Computing,
        targets: Sequence[Target],
        sources: Sequence[dict[str, Any]],
        cohort: Sequence[Store],
    ) -> None:
        self.options, self.loaded, self.plan, self.computing = options, loaded, plan, computing
        self.targets, self.sources, self.cohort = list(targets), list(sources), list(cohort)
        self.covariates: dict[str, LaneCovariates] = {}

    def write(self, store: Store, regions: Sequence[Region]) -> None:
        """Predict, write every file, and what goes with them."""
        options, loaded = self.options, self.loaded
        recalibrated = ", recalibrated" if loaded.card.recalibration else ""
        console.log(f"model {loaded.path.name}{recalibrated}, on {self.computing.device}")
        described, spans = self._described(store, regions)
        average = reference_average(loaded.config, [store, *self.cohort])
        for line in filter(None, (alone(loaded, average, name) for name in described.biosamples)):
            console.warn(line)
        with ExitStack() as stack:
            chroms = sorted({region.chrom for found in spans.values() for region in found})
            fasta = open_sequence(loaded, store, chroms, options.reference, stack)

            def dataset_of(biosample: str) -> Windows:
                return prediction_dataset(loaded, store, biosample, self.covariates[biosample], fasta, average)

            folder = stack.enter_context(PartsFolder(self._place(stack)))
            outputs = [*(file.path for file in self.plan.files), options.latent, options.provenance]
            sweep([path for path in outputs if path not in (None, STDOUT)])
            parts = parts_of(folder, described, spans, made_of=self._made_of())
            self._sort_out(folder, parts)
            self._check_room(folder, described, spans)
            laid = {
                name: [(r, part.path) for part in parts if part.biosample == name for r in part.regions]
                for name in spans
            }
            source = Source(described, laid, abandoned=folder.folder / "abandoned")
            try:
                self._make(described, parts, folder, source, dataset_of)
                if options.latent is not None:
                    write_latent(options.latent, loaded, described, spans, dataset_of, self.computing)
                deliver(Made(self.plan, source, self.sources, loaded.path.name), options, store=store)
            except BaseException:
                self._tell_kept(parts)
                raise
            finally:
                (folder.folder / "abandoned").unlink(missing_ok=True)

    def _described(self, store: Store, regions: Sequence[Region]) -> tuple[Described, dict[str, list[Region]]]:
        """Return what will be predicted, and where."""
        options, card, layer = self.options, self.loaded.card, self.loaded.config.input
        parameters = _parameters(card, self.plan)
        biosamples = sorted({biosample for biosample, _ in self.targets})
        tracks, wanted, read = {}, {}, {}
        names = (*self.loaded.config.assays, CONTROL)
        dna = options.reference.name if options.reference and self.loaded.config.reads_sequence else None
        more = {"cohort": cohort_facts(self.cohort)} if self.cohort else {}
        for biosample in biosamples:
            shown = [assay for name, assay in self.targets if name == biosample]
            found = lane_covariates(self.loaded, store, biosample, options.asked, shown=shown)
            self.covariates[biosample] = found
            for assay in shown:
                lane = self.loaded.config.assays.index(assay)
                own = found.own[lane]
                observed = own is not None and layer in store.experiment(biosample, assay).layers
                tracks[biosample, assay] = {
                    "observed": observed,
                    "covariates": asdict(own) if own else None,
                    "asked": asdict(found.requested[lane]),
                    "parameters": parameters(assay),
                    **self._recalibration(assay, parameters(assay), observed=observed),
                }
            wanted[biosample] = joined(measured(store, biosample, layer))
            lanes = {name: asdict(own) for name, own in zip(names, found.own, strict=True) if own is not None}
            read[biosample] = {"covariates": lanes, "sequence": dna, **more}
        model = {"family": card.family, "sha256": card.weights_sha256, "assays": list(card.assays)}
        described = Described(store.rule.resolution, store.chromsizes, model, tracks, wanted, read)
        return described, {name: list(regions) or wanted[name] for name in biosamples}

    def _recalibration(self, assay: str, parameters: list[str], *, observed: bool) -> dict[str, Any]:
        """Return how a track's distributions are recalibrated, if the model's card says so."""
        recalibration = self.loaded.card.recalibration
        found = recalibration.of(assay, "denoised" if observed else "imputed", parameters) if recalibration else None
        return {"recalibration": found} if found else {}

    def _made_of(self) -> list[Any]:
        """Return what else the predicted values depend on."""
        reference = self.options.reference
        return [
            self.sources,
            file_facts(reference) if reference else None,
            kind_of(self.computing.device),
            versions(__version__),
        ]

    def _place(self, stack: ExitStack) -> Path:
        """Return what the parts are kept beside."""
        if self.plan.place != STDOUT:
            return self.plan.place.resolve()
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candi-"))) / "stdout"

    def _sort_out(self, folder: PartsFolder, parts: Sequence[Part]) -> None:
        """Keep what an interrupted run has finished, when that was asked for."""
        there = [part.path for part in parts if self.options.resume and part.path.exists()]
        usable = {path for path in there if is_whole(path)}
        if len(usable) < len(there):
            n_damaged = len(there) - len(usable)
            console.warn(f"{n_damaged} of {len(parts)} parts in {folder.folder} are damaged, and are computed again")
        others = [path for path in folder.own() if path not in usable]
        for path in others:
            path.unlink()
        if self.options.resume:
            kept = f"{len(usable):,} of {counted(len(parts), 'part')}"
            console.log(f"{kept} are there from a run that was interrupted")
        elif others:
            removed = f"{counted(len(others), 'part')} of a run that was interrupted"
            were = "was" if len(others) == 1 else "were"
            console.log(f"{removed} {were} removed; --resume would go on from them")

    def _check_room(self, folder: PartsFolder, described: Described, spans: dict[str, list[Region]]) -> None:
        """Raise OutputError unless the disk has room for the predictions and the tracks."""
        n_bins = {
            name: sum(bin_count(r.end - r.start, described.resolution) for r in found) for name, found in spans.items()
        }
        tracks = sum(TRACK_BYTES * n_bins[file.target[0]] for file in self.plan.files if file.target is not None)
        needed, free = bytes_of(described, spans) + tracks, shutil.disk_usage(folder.folder).free
        if free < needed:
            raise OutputError(
                f"{self.plan.place}: about {size(needed)} are needed on that disk, "
                f"{size(free)} are free; make room, ask for fewer tracks, or give another -o"
            )

    def _make(
        self,
        described: Described,
        parts: Sequence[Part],
        folder: PartsFolder,
        source: Source,
        dataset_of: Callable[[str], Windows],
    ) -> None:
        """Compute the parts and write the files; on a GPU, files are written meanwhile."""
        n_windows = sum(1 for part in parts for _ in windows_of(self.loaded, described, part.regions))

        def compute() -> None:
            with console.progress(" ".join(self.plan.kinds), n_windows, "windows") as advance:
                compute_parts(self.loaded, described, parts, folder, dataset_of, self.computing, advance=advance)

        write_plan(self.plan, self.options, source, compute=compute, meanwhile=self.computing.device.type != "cpu")

    def _tell_kept(self, parts: Sequence[Part]) -> None:
        n_kept = sum(part.path.exists() for part in parts)
        if n_kept and self.plan.place != STDOUT:
            console.warn(f"{n_kept:,} of {counted(len(parts), 'part')} are kept; give --resume to go on from them")
