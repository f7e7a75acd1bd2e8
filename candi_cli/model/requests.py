"""Matching covariates to what a model was trained on: inputs as they are, outputs as they are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from candi_cli.covariates import GB, Covariates, parse_request
from candi_cli.model.checkpoint import AssayCard, ModelCard


class Fitted(NamedTuple):
    """Covariates that a model can use, and one line for each that it had never met."""

    covariates: Covariates
    warnings: list[str]


def fit_to_card(
    covariates: Covariates, card: ModelCard, assay: str | None, *, instead: str = "taken as not known"
) -> Fitted:
    """Return covariates as the model can use them: what training never saw counts as not known.

    A read length outside of training's is moved to its nearest end, as a depth is inside the network.

    Parameters
    ----------
    assay : whose training depths to compare with; None for a control
    instead : what becomes of a value that training never saw, for the warning
    """
    assays = list(card.assays.values())
    fitted, warnings = covariates, []
    for name, known in (("run_type", _union(assays, "run_types")), ("platform", _union(assays, "platforms"))):
        value = getattr(covariates, name)
        if value is not None and value not in known:
            fitted = replace(fitted, **{name: None})
            trained = ", ".join(known) or "none"
            warnings.append(f"{name} {value} was not in the model's training ({trained}); {instead}")
    lengths = [bound for item in assays for bound in item.read_length_range or ()]
    if lengths and covariates.read_length and not min(lengths) <= covariates.read_length <= max(lengths):
        nearest = min(max(covariates.read_length, min(lengths)), max(lengths))
        fitted = replace(fitted, read_length=nearest)
        trained = f"{min(lengths):.0f}-{max(lengths):.0f} bp"
        warnings.append(
            f"read length {covariates.read_length:.0f} bp is outside the model's training range {trained}; "
            f"taken as {nearest:.0f} bp"
        )
    if assay in card.assays:
        warnings += _depth_warning(covariates, card.assays[assay])
    return Fitted(fitted, warnings)


def _depth_warning(covariates: Covariates, trained: AssayCard) -> list[str]:
    if not covariates.depth or not covariates.span_bp or not trained.depth_range:
        return []
    low, high = (bound * covariates.span_bp / GB for bound in trained.depth_range)
    if low <= covariates.depth <= high:
        return []
    return [
        f"depth {covariates.depth:,.0f} over {covariates.span_bp / 1e6:,.1f} Mb is outside the model's training range "
        f"{low:,.0f}-{high:,.0f}"
    ]


def _union(assays: list[AssayCard], name: str) -> tuple[str, ...]:
    return tuple(sorted({value for assay in assays for value in getattr(assay, name)}))


def request(card: ModelCard, assay: str, asked: Covariates, *, span_bp: float | None) -> Fitted:
    """Return the covariates of an assay's output: those asked for, the rest as the model's standard for the assay.

    Parameters
    ----------
    asked : a depth among them is meant over `span_bp`, as the depth of the input is
    """
    trained = card.assays[assay]
    spanned = replace(asked, span_bp=span_bp if asked.depth else None)
    fitted = fit_to_card(spanned, card, assay, instead="the model's standard is used")
    return Fitted(fitted.covariates.filled(trained.standard), fitted.warnings)


class Asked(NamedTuple):
    """Covariates of the output that were asked for.

    assay : whose; None for all assays
    covariates : those that are not None; None for those of the input
    """

    assay: str | None
    covariates: Covariates | None


def parse_asked(text: str) -> Asked:
    """Parse `[ASSAY:]same` or `[ASSAY:]depth=50M,...` into what is asked for.

    Raises
    ------
    ValueError
        A key is not a covariate or its value is not valid.
    """
    assay, colon, rest = text.partition(":")
    if not colon or "=" in assay:
        assay, rest = "", text
    return Asked(assay.strip() or None, None if rest.strip() == "same" else parse_request(rest))


def asked_of(assay: str, several: Sequence[Asked], own: Covariates | None) -> Covariates:
    """Return what is asked of one assay's output: what was asked of it alone goes before what was asked
    of all, and of what was asked twice the last.

    Parameters
    ----------
    own : the covariates of its input, None where it has none
    """
    found, last_first = Covariates(), several[::-1]
    for asked in sorted(last_first, key=lambda each: each.assay is None):
        if asked.assay in (None, assay):
            wanted = asked.covariates if asked.covariates is not None else own or Covariates()
            found = found.filled(replace(wanted, span_bp=None))
    return found
