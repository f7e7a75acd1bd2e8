"""`candi info`: what a store, a model or predictions hold, whether a store is whole, and which models ship."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from candi_cli.commands import _options as options
from candi_cli.commands._console import console
from candi_cli.contigs import shorten
from candi_cli.counting import CountingRule
from candi_cli.errors import StoreError
from candi_cli.models import shipped_models

if TYPE_CHECKING:
    from candi_cli.store.predictions import Predictions


_COLUMNS = (
    "biosample", "assay", "layers", "depth", "read_length", "run_type", "platform", "donor", "tissue", "split", "files",
)  # fmt: skip


@click.command("info")
@click.argument("path", type=options.MODEL, metavar="[STORE|MODEL|PREDICTIONS]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")
@click.option("--quick", is_flag=True, help="Of a store, read the header only: verify nothing.")
@options.verbosity
def command(path: Path | None, as_json: bool, quick: bool) -> None:
    """Show what STORE, MODEL or PREDICTIONS hold, and verify a store; without any, list the models that ship.

    MODEL is a file, or the name of a model that ships with candi.

    Every dataset of a store is read and compared with its checksum, and its length with the genome's bins. The exit
    code is 1 when anything is wrong.
    """
    from candi_cli.store import Store, is_hdf5, verify
    from candi_cli.store.predictions import Predictions, is_predictions

    if path is None:
        from candi_cli.commands._model_facts import models_json, models_table

        click.echo(models_json(shipped_models()) if as_json else models_table(shipped_models()))
        return
    if not path.exists():
        names = ", ".join(shipped_models())
        raise StoreError(f"{path}: no such file; give a store or a model, or one that ships: {names}")
    if not is_hdf5(path):
        from candi_cli.commands._model_facts import model_text
        from candi_cli.model import load

        model = load(path)
        click.echo(model.card.to_json() if as_json else model_text(model))
        return
    if is_predictions(path):
        with Predictions(path) as predictions:
            click.echo(predictions.described.to_json() if as_json else _predictions_text(predictions))
        return
    with Store.open(path) as store:
        facts = store.facts()
        if not quick:
            found = list(verify(store))
            faults = [f"{finding.dataset} {finding.fault}" for finding in found if finding.fault]
            facts["datasets"] = sum(finding.dataset.count("/") > 2 for finding in found)
            facts["faults"] = faults
    click.echo(json.dumps(facts, indent=2) if as_json else _store_text(path, facts))
    if facts.get("faults"):
        raise StoreError("\n".join(f"{path}: {fault}; rebuild it with 'candi bin'" for fault in facts["faults"]))
    if not quick:
        console.log(f"{path}: {facts['datasets']:,} datasets verified")


def _store_text(path: Path, facts: dict[str, Any]) -> str:
    rule = CountingRule.from_json(facts["counting"])
    sizes = facts["chromsizes"]
    lines = [
        f"store\t{path}",
        f"format version\t{facts['format_version']}",
        f"candi version\t{facts['candi_version']}",
        f"command\t{facts['command']}",
        f"counting\t{rule}",
        f"genome\t{len(sizes)} chromosomes, {sum(sizes.values()):,} bp ({shorten(sizes)})",
        "",
        "\t".join(_COLUMNS),
    ]
    for experiment in facts["experiments"]:
        files = ",".join(source["name"] for source in experiment["sources"])
        cells = {**experiment, **experiment["covariates"], "layers": ",".join(experiment["layers"]), "files": files}
        lines.append("\t".join(_cell(cells[column]) for column in _COLUMNS))
    return "\n".join(lines)


def _predictions_text(predictions: "Predictions") -> str:
    described = predictions.described
    sizes = described.chromsizes
    lines = [
        f"predictions\t{predictions.path}",
        f"command\t{predictions.command}",
        f"model\t{described.model['family']}, sha256 {described.model['sha256']}",
        f"genome\t{len(sizes)} chromosomes, {sum(sizes.values()):,} bp ({shorten(sizes)})",
        f"resolution\t{described.resolution} bp",
    ]
    for biosample in described.biosamples:
        regions = predictions.regions(biosample)
        bases = sum(region.end - region.start for region in regions)
        chroms = list(dict.fromkeys(region.chrom for region in regions))
        lines.append(f"predicted of {biosample}\t{bases:,} bp on {shorten(chroms)}")
    lines += ["", "biosample\tassay\tmade\tparameters"]
    for (biosample, assay), track in described.tracks.items():
        made = "denoised" if track["observed"] else "imputed"
        lines.append(f"{biosample}\t{assay}\t{made}\t{','.join(track['parameters'])}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "NA" if value is None else str(value)
