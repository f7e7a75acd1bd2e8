"""`candi cindex`: whether predicted distributions order bins as they were observed."""

from typing import Any

import click

from candi_cli.commands._judge_options import JudgeOptions, judge_options


@click.command("cindex")
@judge_options(
    click.option(
        "--pairs", "n_pairs", type=click.IntRange(100, 1_000_000_000), metavar="N",
        show_default="2,000,000 of signal, 1,000,000 of counts", help="Pairs of bins that are compared.",
    ),
)  # fmt: skip
def command(n_pairs: int | None, **values: Any) -> None:
    """Compare the order of bins by predicted distributions with the observed one, in STOREs.

    Prints the paper's concordance index (the AUC of P(Y_i > Y_j) over pairs of bins), Harrell's C of the mean, which
    no spread changes, and the mean probability of the right order, which an overall wrong spread lowers. Each has its
    Monte-Carlo standard error and that over blocks of the genome, which is the larger one.
    """
    chosen = JudgeOptions.of(values)
    from candi_cli.commands._concordance import concordance

    concordance(chosen, n_pairs=n_pairs)
