"""The work of `candi calibrate`: judging, and learning a recalibration."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from candi_cli import __version__
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._judge_options import JudgeOptions
from candi_cli.commands._judging import Judgement, files_read
from candi_cli.commands._output import check_writable, replacing
from candi_cli.commands._recalibration import Collected, recalibrated
from candi_cli.commands._score_pages import Calibrated, calibration_page
from candi_cli.commands._scores_output import check_scores_output, deliver_scores
from candi_cli.errors import RequestError
from candi_cli.evaluation.recalibration import LEAST_BINS
from candi_cli.genome import parse_regions
from candi_cli.judging.calibration import MODEL_AFTER, calibration
from candi_cli.judging.table import Row
from candi_cli.model import save
from candi_cli.model.recalibration import Fit, Recalibration


def calibrate(options: JudgeOptions) -> None:
    """Judge predicted distributions, and write the scores."""
    check_scores_output(options.output, inputs=files_read(options))
    with ExitStack() as stack:
        judgement = Judgement(options, stack)
        rows: list[Row] = []
        judged: list[Calibrated] = []
        for each, masks in judgement.judged():
            found = calibration(each.track, masks)
            rows += found.rows
            judged.append(Calibrated.of(each.track, found))
        judgement.note_empty(rows)
        deliver_scores(calibration_page(judgement, rows, judged), options.output)


def fit_and_judge(options: JudgeOptions, *, fit: bool, test_regions: Sequence[str], new_model: Path | None) -> None:
    """Learn a recalibration on some chromosomes, judge it on others, and write both.

    Raises
    ------
    RequestError
        Options are missing, or a chromosome is in both.
    """
    if not (fit and test_regions and new_model is not None and options.regions):
        raise RequestError(
            "--fit: needs -r REGION to fit on, --test REGION to judge on, and -M MODEL to write; give all"
        )
    _check_outputs(options, new_model)
    with ExitStack() as stack:
        judgement = Judgement(options, stack)
        _check_apart(options.regions, test_regions, judgement)
        collected = Collected(seed=options.seed)
        for each, masks in judgement.judged(what="fit to ", recalibrated=False):
            collected.add(each.track, masks)
        fits = collected.fits(judgement.note)
        _check_enough(fits, options.regions)
        rows, judged = _before_and_after(judgement, fits, test_regions)
        model = judgement.model
        assert model is not None
        fitted_on = {
            "regions": list(options.regions), "judged_on": list(test_regions),
            "stores": [path.name for path in options.stores],
            **({"cohort": [path.name for path in options.cohort]} if options.cohort else {}),
            "tracks": collected.names, "command": command_line(),
            "candi": __version__, "seed": options.seed,
        }  # fmt: skip
        card = replace(model.card, recalibration=Recalibration(tuple(fits), fitted_on))
        judgement.note_empty(rows)
        with replacing(new_model) as temporary:
            save(temporary, model.network, card)
        console.log(f"{new_model}: {len(fits)} tracks recalibrated")
        deliver_scores(calibration_page(judgement, rows, judged), options.output)


def _before_and_after(
    judgement: Judgement, fits: Sequence[Fit], test_regions: Sequence[str]
) -> tuple[list[Row], list[Calibrated]]:
    """Return the scores and the curves of each track as it is, and as a fit of it makes it."""
    rows: list[Row] = []
    judged: list[Calibrated] = []
    own = {(fit.assay, fit.pool, fit.kind): fit for fit in fits}
    for each, masks in judgement.judged(recalibrated=False, regions=test_regions):
        before = each.track
        found = calibration(before, masks)
        rows += found.rows
        judged.append(Calibrated.of(before, found))
        fit = own.get((before.assay, before.pool, before.kind))
        if fit is not None:
            after = recalibrated(before, fit)
            found = calibration(after, masks, predictor=MODEL_AFTER)
            rows += found.rows
            judged.append(Calibrated.of(after, found, predictor=MODEL_AFTER))
    return rows, judged


def _check_outputs(options: JudgeOptions, new_model: Path) -> None:
    """Raise RequestError where there is no model to change, or no place for the new one."""
    if options.is_given or options.predictions:
        raise RequestError("--fit: changes a model; give STORE and -m, not tracks or --predictions")
    if new_model.suffix != ".safetensors":
        raise RequestError(f"-M {new_model}: a model file ends in .safetensors; name it so")
    check_writable(new_model, inputs=files_read(options), option="-M")
    check_scores_output(options.output, inputs=files_read(options))
    if options.output is not None and options.output.resolve() in (new_model.resolve(), *new_model.resolve().parents):
        raise RequestError(f"-M {new_model}: lies where -o is written; give another place")


def _check_enough(fits: Sequence[Fit], regions: Sequence[str]) -> None:
    """Raise RequestError where no track has as many bins as a fit needs."""
    most = max((fit.n_bins for fit in fits), default=0)
    if most < LEAST_BINS:
        raise RequestError(
            f"--fit: {most} bins of {', '.join(regions)} are left to fit on, {LEAST_BINS} are needed; give more with -r"
        )


def _check_apart(fitted: Sequence[str], judged: Sequence[str], judgement: Judgement) -> None:
    """Raise RequestError where a chromosome is both fitted on and judged on."""
    sizes, resolution = judgement.chromsizes, judgement.resolution
    one, other = ({region.chrom for region in parse_regions(each, sizes, resolution)} for each in (fitted, judged))
    both = sorted(one & other)
    if both:
        raise RequestError(
            f"--fit: {', '.join(both)} is both in -r and in --test; a fit is judged on chromosomes that it has not seen"
        )
