"""`candi impute --merge`: predictions of parts of the genome into what one run would have written."""

from collections.abc import Sequence
from pathlib import Path

import click

from candi_cli.binning.experiments import source as file_facts
from candi_cli.commands._absent_tracks import absent_of
from candi_cli.commands._console import console
from candi_cli.commands._delivery import Made, deliver
from candi_cli.commands._track_files import (
    Target,
    Track,
    formats_of,
    kinds_asked,
    place_for,
    plan_files,
    regions_asked,
)
from candi_cli.commands._track_options import KINDS, TrackOptions
from candi_cli.commands._writing import write_plan
from candi_cli.errors import RequestError
from candi_cli.export.files import HDF5, NARROWPEAK
from candi_cli.export.source import Source, merged
from candi_cli.store.predictions import Described, Predictions, kinds_of

_OF_PREDICTION = {
    "sheet": "--covariates", "model": "-m", "latent": "--latent", "asked": "--as", "genome": "-g",
    "aliases": "--aliases", "reference": "-T", "cohort": "--cohort", "resume": "--resume", "batch_size": "--batch-size",
}  # fmt: skip


def merge_shards(options: TrackOptions, shards: Sequence[Path], names: Sequence[str]) -> None:
    """Write the tracks of predictions that lie in several files.

    Parameters
    ----------
    names : assays to write; all that the shards hold without any, or with `all`
    """
    for name, option in _OF_PREDICTION.items():
        given_by = click.get_current_context().get_parameter_source(name)
        if getattr(options, name) and given_by != click.core.ParameterSource.ENVIRONMENT:
            raise RequestError(f"--merge: joins what was predicted; {option} has no meaning with it, leave it out")
    with Predictions(shards[0]) as first:
        described = first.described
    regions = regions_asked(options, described.chromsizes, described.resolution)
    source = merged(shards, regions)
    targets = _targets(described, names)
    kinds = options.kinds or _kinds(options, described, targets)
    asked = tuple(dict.fromkeys((*kinds, *kinds_asked(options))))
    named = bool(names) and tuple(names) != ("all",)
    absent = _absent(shards[0], described, targets, asked, options, named=named)
    targets = [target for target in targets if any((target[1], kind) not in absent for kind in asked)]
    plan = plan_files(options, targets, kinds, absent=absent)
    if options.dry_run:
        console.log(f"{len(shards)} shards fit together" if len(shards) > 1 else f"{shards[0]} is whole")
        for file in plan.files:
            click.echo(f"output\t{file.path}")
        return
    with place_for(plan, (options.provenance,), inputs=shards):
        source = _only(source, targets)
        write_plan(plan, options, source)
        deliver(Made(plan, source, [file_facts(path) for path in shards], None), options, store=None)


def _absent(
    shard: Path,
    described: Described,
    targets: Sequence[Target],
    kinds: Sequence[str],
    options: TrackOptions,
    *,
    named: bool,
) -> set[Track]:
    """Return the tracks that are asked for and not held, and tell that they are left out."""
    held = {target[1]: kinds_of(described.tracks[target]["parameters"]) for target in targets}
    absent = absent_of(held, kinds, named=named, formats=formats_of(options))
    if absent.refused:
        assay, kind = absent.refused
        raise RequestError(f"{shard}: holds no {kind} of {assay}; predict with the --track that is wanted")
    absent.warn("the shards hold no")
    return absent.tracks


def _targets(described: Described, names: Sequence[str]) -> list[Target]:
    if not names or tuple(names) == ("all",):
        return list(described.tracks)
    held = {assay for _, assay in described.tracks}
    unknown = [name for name in names if name not in held]
    if unknown:
        raise RequestError(f"--assay {unknown[0]}: not in the shards; give some of {', '.join(sorted(held))}")
    return [target for target in described.tracks if target[1] in names]


def _kinds(options: TrackOptions, described: Described, targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the kinds of tracks to write where none was asked for: of HDF5 all, else the first that is held."""
    each = [kinds_of(described.tracks[target]["parameters"]) for target in targets]
    held = [kind for kind in KINDS if all(kind in kinds for kinds in each)]
    if formats_of(options) == (NARROWPEAK,):
        return ("peaks",)
    return tuple(held) if formats_of(options) == (HDF5,) else tuple(held[:1])


def _only(source: Source, targets: Sequence[Target]) -> Source:
    """Return a source of some of the tracks."""
    described = source.described.only(targets)
    return Source(described, {name: source.laid[name] for name in described.biosamples})
