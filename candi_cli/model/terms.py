"""What a family's loss is made of, so that the training loop can add it up over windows and processes."""

from typing import NamedTuple

from torch import Tensor


class LossTerm(NamedTuple):
    """One term of a loss, before it is divided by the number of entries.

    Attributes
    ----------
    total : the sum over valid entries that is reported, in nats
    learned : the sum that is minimised: the same, unless entries are weighted
    entries : how many valid entries there are, a scalar tensor
    weight : of the term's mean in the loss
    """

    total: Tensor
    learned: Tensor
    entries: Tensor
    weight: float


def weighted_loss(terms: dict[str, LossTerm]) -> Tensor:
    """Return the sum of weight times mean over all terms; a term without any entry is 0."""
    means = [term.weight * term.learned / term.entries.clamp(min=1) for term in terms.values()]
    return sum(means[1:], means[0])


def means(terms: dict[str, LossTerm]) -> dict[str, Tensor]:
    """Return the mean of each term over its valid entries, 0 where there is none."""
    return {name: term.total / term.entries.clamp(min=1) for name, term in terms.items()}


def weighted_score(terms: dict[str, LossTerm]) -> Tensor:
    """Return the sum of weight times reported mean: a loss that can be compared between networks.

    What is minimised cannot, where entries are weighted by what the network itself predicts.
    """
    parts = [term.weight * term.total / term.entries.clamp(min=1) for term in terms.values()]
    return sum(parts[1:], parts[0])
