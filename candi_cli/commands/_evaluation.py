"""The work of `candi evaluate`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._expression import expression_rows, read_expressed
from candi_cli.commands._judge_options import JudgeOptions
from candi_cli.commands._judging import Judged, Judgement, files_read
from candi_cli.commands._score_pages import Agreement, evaluation_page
from candi_cli.commands._scores_output import check_scores_output, deliver_scores
from candi_cli.errors import RequestError
from candi_cli.evaluation.challenge import BIN_BP
from candi_cli.judging.agreement import (
    Predictor,
    agreement_rows,
    challenge_rows,
    errors_of,
    partition_rows,
    peak_rows,
    predictors,
    summary_rows,
    uncertainty_rows,
)
from candi_cli.judging.classes import GENOME, Mask
from candi_cli.judging.rivals import Others, others_of, own_input, rivals_of
from candi_cli.judging.table import Row
from candi_cli.judging.tracks import DENOISED, GIVEN


def evaluate(options: JudgeOptions, *, partitions: bool, expression: Path | None) -> None:
    """Judge how well predictions agree with what was observed, and write the scores."""
    if expression is not None and options.genes is None:
        raise RequestError("--expression: which genes these are is missing; give their annotation with --genes GTF")
    if expression is not None and (options.is_given or options.predictions):
        raise RequestError("--expression: needs a model and a STORE; leave out --mean and --predictions")
    check_scores_output(options.output, inputs=[*files_read(options), expression])
    with ExitStack() as stack:
        judgement = Judgement(options, stack, has_rivals=True)
        genes = judgement.annotated.genes
        expressed = None
        if expression is not None and genes is not None:
            expressed = read_expressed(judgement, genes, expression)
        rows: list[Row] = []
        judged: list[Agreement] = []
        for each, masks in judgement.judged():
            track = each.track.only(masks[GENOME])  # so that no rival is fitted to what is left out
            rows += _rows(each._replace(track=track), masks, judgement, partitions=partitions)
            if track.kind != "peaks":
                errors = errors_of(track, masks[GENOME])
                rows += uncertainty_rows(track, masks[GENOME], errors)
                judged.append(Agreement.of(track, track.known, errors))
        judgement.note_empty(rows)
        summary = summary_rows(rows, seed=options.seed)
        if expressed is not None:
            rows += expression_rows(judgement, expressed)
        deliver_scores(evaluation_page(judgement, rows, judged, summary), options.output)


def _rows(judged: Judged, masks: dict[str, Mask], judgement: Judgement, *, partitions: bool) -> Iterator[Row]:
    """Yield the scores of one track and its rivals."""
    track = judged.track
    others = others_of(judged.stores, track.biosample, track.assay, track.kind, track.grid, masks[GENOME])
    if track.kind == "peaks":
        yield from peak_rows(track, masks, others)
        return
    several = predictors(track, rivals_of(track, others, _copy(judged)), others)
    yield from agreement_rows(track, several, masks)
    if track.kind == "signal":
        yield from _challenge(judged, several, others, judgement, masks[GENOME])
    if partitions:
        yield from partition_rows(track, several, masks[GENOME], others)


def _challenge(
    judged: Judged,
    several: Sequence[Predictor],
    others: Others | None,
    judgement: Judgement,
    kept: Mask,
) -> Iterator[Row]:
    """Yield the challenge's measures, whose promoters and enhancers are bins of 25 bp."""
    if judgement.resolution != BIN_BP:
        judgement.note(f"the challenge's measures are of bins of {BIN_BP} bp, not {judgement.resolution}: left out")
        return
    if judged.track.pool == GIVEN and judgement.options.scale == "linear":
        return  # not -log10 p for all we know
    annotated, variance = judgement.annotated, others.variance if others is not None else None
    yield from challenge_rows(
        judged.track, several, annotated.by_chrom, annotated.enhancers, variance, judgement.chromsizes, kept
    )


def _copy(judged: Judged) -> NDArray[np.float64] | None:
    """Return the reads of the experiment that the model saw, where it saw any."""
    track = judged.track
    if track.pool != DENOISED or judged.store is None or track.kind != "counts":
        return None
    return own_input(judged.store, track.biosample, track.assay, judged.inputs, track.grid)
