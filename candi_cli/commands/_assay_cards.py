"""What a model's card says of an assay's training data."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import multimode, quantiles

from candi_cli.covariates import GB, Covariates, depth_density
from candi_cli.errors import StoreError
from candi_cli.model import AssayCard
from candi_cli.store import StoredExperiment

_BINOMIAL_THINNING = 8  # the deepest where a store has no folds


def assay_card(experiments: Sequence[StoredExperiment], *, layer: str, outputs: Sequence[str]) -> AssayCard:
    """Summarise an assay's training data.

    Its standard is the upper quartile of depth and the most frequent combination of the other covariates: one that
    training has seen, not the mode of each by itself, which may be of no experiment.

    Parameters
    ----------
    layer : what the network reads; a depth need not be known of a signal
    outputs : what the network predicts
    """
    covariates = [item.covariates for item in experiments if layer in item.layers]
    depths = sorted(item.depth / item.span_bp * GB for item in covariates if item.depth and item.span_bp)
    if not depths and layer == "counts":
        raise StoreError(f"{experiments[0].assay}: no depth is known for its reads; rebuild the store with 'candi bin'")
    standard, depth_range = _most_frequent(covariates), None
    if depths:
        upper = quantiles(depths, n=4, method="inclusive")[2] if len(depths) > 1 else depths[0]
        standard = replace(standard, depth=upper, span_bp=GB)
        thinning = max(len(item.fold_depths) or _BINOMIAL_THINNING for item in experiments) if layer == "counts" else 1
        depth_range = (depths[0] / thinning, depths[-1])
    lengths = [item.read_length for item in covariates if item.read_length]
    return AssayCard(
        outputs=tuple(name for name in outputs if any(name in item.layers for item in experiments)),
        standard=standard,
        depth_range=depth_range,
        read_length_range=(min(lengths), max(lengths)) if lengths else None,
        run_types=tuple(sorted({item.run_type for item in covariates if item.run_type})),
        platforms=tuple(sorted({item.platform for item in covariates if item.platform})),
    )


def _most_frequent(covariates: Sequence[Covariates]) -> Covariates:
    """Return the most frequent combination of all but depth; of the deepest experiment among equals."""
    others = [replace(item, depth=None, span_bp=None) for item in covariates]
    frequent = multimode(others)
    deepest_first = sorted(covariates, key=depth_density, reverse=True)
    return next(other for item in deepest_first if (other := replace(item, depth=None, span_bp=None)) in frequent)
