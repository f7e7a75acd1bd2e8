"""`candi calibrate`: whether predicted distributions mean what they say, and making them do so."""

from pathlib import Path
from typing import Any

import click

from candi_cli.commands import _options as options
from candi_cli.commands._judge_options import JudgeOptions, judge_options


@click.command("calibrate")
@judge_options(
    click.option("--fit", is_flag=True, help="Learn a recalibration on -r, and judge it on --test."),
    click.option(
        "--test", "test_regions", multiple=True, metavar="REGION",
        help="Of --fit: where the recalibration is judged, on other chromosomes than -r; repeatable.",
    ),
    click.option("-M", "--new-model", type=options.PATH, metavar="MODEL", help="Of --fit: the recalibrated model."),
)  # fmt: skip
def command(fit: bool, test_regions: tuple[str, ...], new_model: Path | None, **values: Any) -> None:
    """Judge predicted distributions against what was observed in STOREs.

    Each assay is predicted from the others of its biosample, and each experiment's reads from half of them, and
    compared with what the model was not shown. Saved predictions (--predictions) and tracks of any program (--mean,
    --sd, --observed) are judged by the same ruler. Prints the PIT error, coverage of intervals, CRPS, sharpness and
    more, of all bins and of classes of them, with standard errors.

    With --fit, what the model gets wrong is learned on the regions of -r and written into a new model, which 'candi
    denoise' and 'candi impute' apply.
    """
    chosen = JudgeOptions.of(values)
    from candi_cli.commands._calibration import calibrate, fit_and_judge

    if fit or test_regions or new_model is not None:
        fit_and_judge(chosen, fit=fit, test_regions=test_regions, new_model=new_model)
    else:
        calibrate(chosen)
