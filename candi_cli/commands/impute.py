"""`candi impute`: tracks of assays that nobody has made, and of those that were."""

from typing import TYPE_CHECKING, Any

import click

from candi_cli.commands._track_options import TrackOptions, track_options
from candi_cli.errors import RequestError

if TYPE_CHECKING:
    from candi_cli.commands._experiments import Inputs
    from candi_cli.model import Loaded


@click.command("impute")
@track_options
@click.option(
    "--assay", "assays", multiple=True, metavar="NAME[,NAME]",
    help="Assays to write, or all that the model knows; repeatable.",
)  # fmt: skip
@click.option(
    "--merge", is_flag=True, help="READS are predictions made with -O hdf5 and -r: join them, and predict nothing."
)
def command(assays: tuple[str, ...], merge: bool, **values: Any) -> None:
    """Impute tracks of the assays that READS, or a STORE made by 'candi bin', do not hold.

    All READS of a biosample are read together, with the ChIP control that the sample sheet names. An assay that is
    among them is denoised. Writes one track for each assay and biosample; several go into a folder, with a manifest, a
    track hub, an IGV session and a page that shows them.

    A genome may be predicted in parts, on any machines: each with -r, -O hdf5 and a file of its own. 'candi impute
    --merge PART.h5 ... -o OUT' joins them into what one run would have written.
    """
    names = tuple(dict.fromkeys(name.strip() for each in assays for name in each.split(",") if name.strip()))
    chosen = TrackOptions.of(values)
    if merge:
        from candi_cli.commands._merging import merge_shards

        if not chosen.reads:
            raise click.UsageError("--merge: give the predictions that are to be joined.")
        merge_shards(chosen, chosen.reads, names)
        return
    if not names:
        raise click.UsageError("Missing option '--assay': NAME[,NAME] or all.")
    if "all" in names and len(names) > 1:
        raise RequestError("--assay: all is every assay; give it alone")
    from candi_cli.commands._prediction import predict_tracks

    def choose(model: "Loaded", inputs: "Inputs") -> list[tuple[str, str]]:
        known = tuple(model.card.assays)
        wanted = known if names == ("all",) else names
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise RequestError(
                f"--assay {unknown[0]}: {model.path} does not know it, only {', '.join(known)}; give one of them"
            )
        biosamples = dict.fromkeys(biosample for biosample, _ in inputs.targets)
        return [(biosample, assay) for biosample in biosamples for assay in wanted]

    predict_tracks(chosen, choose, named=names != ("all",))
