"""`candi evaluate`: how well predictions agree with what was observed, beside what is easy to predict."""

from pathlib import Path
from typing import Any

import click

from candi_cli.commands import _options as options
from candi_cli.commands._judge_options import JudgeOptions, judge_options


@click.command("evaluate")
@judge_options(
    click.option("--partitions", is_flag=True, help="Also by strength of signal and by cell-type specificity."),
    click.option(
        "--expression", type=options.PATH, metavar="TPM",
        help="Predict the expression of --genes in the biosamples that are its columns.",
    ),
)  # fmt: skip
def command(partitions: bool, expression: Path | None, **values: Any) -> None:
    """Compare predictions with what was observed in STOREs, beside baselines.

    Prints MSE, Pearson, Spearman, R2 and log-loss of all bins and of classes of them, the measures of the ENCODE
    Imputation Challenge for signal, and precision, recall, AUROC and AUPRC of peaks. Beside the model stand the average
    of other cell types (those of --cohort too), the best marginal, and the input as it is and smoothed, each fitted to
    the very truth. Gains over them come with intervals clustered by track.

    With --expression, genes' expression is predicted from observed, denoised and imputed tracks by a nested
    cross-validation, as in the paper.
    """
    chosen = JudgeOptions.of(values)
    from candi_cli.commands._evaluation import evaluate

    evaluate(chosen, partitions=partitions, expression=expression)
