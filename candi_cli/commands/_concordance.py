"""The work of `candi cindex`."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

from candi_cli.commands._judge_options import KINDS, JudgeOptions
from candi_cli.commands._judging import Judgement, files_read
from candi_cli.commands._score_pages import concordance_page
from candi_cli.commands._scores_output import check_scores_output, deliver_scores
from candi_cli.errors import RequestError
from candi_cli.evaluation.concordance import Concordance, gaussian_concordance, negative_binomial_concordance
from candi_cli.judging.classes import Mask
from candi_cli.judging.table import MODEL, Row
from candi_cli.judging.tracks import JudgedTrack

SIGNAL_PAIRS, COUNT_PAIRS = 2_000_000, 1_000_000


def concordance(options: JudgeOptions, *, n_pairs: int | None) -> None:
    """Judge the order of bins, and write the scores."""
    if options.kinds == ("peaks",):
        raise RequestError("--track peaks: a probability has no order of its own; see AUROC in 'candi evaluate'")
    if not options.is_given:  # whose kind is the one that was named
        options = replace(options, kinds=tuple(kind for kind in options.kinds or KINDS if kind != "peaks"))
    check_scores_output(options.output, inputs=files_read(options))
    with ExitStack() as stack:
        judgement = Judgement(options, stack)
        rows: list[Row] = []
        for each, masks in judgement.judged():
            rows += concordance_rows(each.track, masks, n_pairs=n_pairs, seed=options.seed)
        judgement.note_empty(rows)
        deliver_scores(concordance_page(judgement, rows), options.output)


def concordance_rows(track: JudgedTrack, masks: Mapping[str, Mask], *, n_pairs: int | None, seed: int) -> Iterator[Row]:
    """Yield the concordance of a track in each class of bins."""
    for region, mask in masks.items():
        chosen = mask & track.known
        found = _of(track, chosen, n_pairs, seed)
        scores = {
            "cindex": (found.auc, found.auc_block_error),
            "cindex_monte_carlo_error": (found.auc_error, math.nan),
            "harrell_c": (found.harrell_exact, math.nan),
            "harrell_c_pairs": (found.harrell, found.harrell_error),
            "oriented_probability": (found.oriented, found.oriented_error),
            "comparable_pairs": (found.comparable, math.nan),
        }
        for name, (value, error) in scores.items():
            yield track.row(region, MODEL, name, value, error, found.n_pairs, found.reason)


def _of(track: JudgedTrack, chosen: Mask, n_pairs: int | None, seed: int) -> Concordance:
    observed, parameters = track.observed[chosen], track.parameters[:, chosen]
    blocks = track.grid.blocks[chosen]
    if track.kind == "counts":
        return negative_binomial_concordance(
            observed, *parameters, n_pairs=n_pairs or COUNT_PAIRS, seed=seed, blocks=blocks
        )
    return gaussian_concordance(observed, *parameters, n_pairs=n_pairs or SIGNAL_PAIRS, seed=seed, blocks=blocks)
