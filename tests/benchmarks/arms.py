"""The arms of the ablation: a preset with one thing changed, in its configuration, its network or its batches.

Some put a fault of the research code back: missing and masked entries that look alike, metadata that act only through
attention, a scale that is not centred at 1, a target that holds its own input.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from candi_cli.model.candi import Corruption, LossWeights
from candi_cli.model.candi.dataset import TrainingBatch
from candi_cli.model.candi.lanes import Condition
from candi_cli.model.candi.network import MASKED, MISSING, OBSERVED

WEIGHTS = LossWeights(count=1.0, signal=0.2, peak=0.1, observed=0.5, imputed=0.5)
CORRUPTION = Corruption(mask_assays=0.5, mask_loci=0.25, thin=1.0)
Batch = TrainingBatch


def unchanged(anything: Any) -> Any:
    """Return what is given."""
    return anything


def merge_missing_and_masked(batch: Batch) -> Batch:
    """Make hidden entries look like those of assays that were never done, as the research code does."""
    inputs = batch.inputs
    availability = torch.where(inputs.availability == MASKED, MISSING, inputs.availability).to(torch.uint8)
    return batch._replace(inputs=inputs._replace(availability=availability))


def let_target_hold_its_input(batch: Batch) -> Batch:
    """Make the target of a thinned track the seen reads and those that were the target: an identity copy helps."""
    inputs, targets = batch
    seen = (inputs.availability[:, :1, :-1] == OBSERVED) & targets.valid[:, 0][:, None]  # (N, 1, A), bar hidden loci
    depths = torch.stack([inputs.covariates_in[:, 0, :-1], inputs.covariates_out[:, 0]]) * math.log(2)
    joined = inputs.covariates_out.clone()
    joined[:, 0] = torch.where(seen[:, 0], torch.logsumexp(depths, dim=0) / math.log(2), joined[:, 0])
    counts = targets.counts.int() + torch.where(seen, inputs.values[..., :-1].int(), 0)
    return Batch(inputs._replace(covariates_out=joined), targets._replace(counts=counts))


def forget_metadata(batch: Batch) -> Batch:
    """Make every covariate that goes in, and every one that is asked for, not known."""
    unknown = [each.clone() for each in (batch.inputs.covariates_in, batch.inputs.covariates_out)]
    for covariates in unknown:
        covariates[:, :2] = torch.nan
        covariates[:, 2:] = torch.where(covariates[:, 2:] > 0, 1, covariates[:, 2:])
    return batch._replace(inputs=batch.inputs._replace(covariates_in=unknown[0], covariates_out=unknown[1]))


def conditions(model: nn.Module) -> list[Condition]:
    """Return the layers through which metadata act."""
    return [module for module in model.modules() if isinstance(module, Condition)]


def cut_direct_path(model: nn.Module) -> nn.Module:
    """Let metadata act only through what they attend to: the weights of the direct path are 0 and stay so."""
    for condition in conditions(model):
        if condition.query is None:
            raise ValueError("a network that does not attend has the direct path only")
        weight = condition.hidden.weight  # (D, M + W, 2M)
        kept = torch.ones_like(weight)
        kept[:, : condition.query.weight.shape[1]] = 0
        with torch.no_grad():
            weight.mul_(kept)
        weight.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient.device))
    return model


def centre_scale_at_zero(model: nn.Module) -> nn.Module:
    """Scale by tanh alone, not by 1 + tanh."""

    def shift(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return output[0] - 1, output[1]

    for condition in conditions(model):
        condition.register_forward_hook(shift)
    return model


class Arm(NamedTuple):
    """A preset with fields changed, a change to the network, one to every batch, the loss, and how it is minimised."""

    preset: str = "base"
    fields: Mapping[str, Any] = MappingProxyType({})
    network: Callable[[nn.Module], nn.Module] = unchanged
    batch: Callable[[Batch], Batch] = unchanged  # in training and, but for what only targets have, in scoring
    weights: LossWeights = WEIGHTS
    schedule: Mapping[str, Any] = MappingProxyType({})


SPREAD = {"decoder_widths": (8, 4, 1), "shared_head": False}
PLAIN = {
    **SPREAD, "shared_decoder": False, "lane_skips": False, "smoothing_levels": 0, "cross_width": 0,
    "depth_offset": False,
}  # fmt: skip
ARMS = {
    "paper": Arm("paper"),
    "paper, Adamax at 5e-4 as there": Arm("paper", schedule={"optimiser": "adamax", "learning_rate": 5e-4}),
    "base": Arm(),
    "- lanes of constant width, shared head": Arm(fields=SPREAD),
    "- one decoder: one an output": Arm(fields={"shared_decoder": False}),
    "- lane skips": Arm(fields={"lane_skips": False}),
    "- path across lanes at each bin": Arm(fields={"cross_width": 0}),
    "- smoothed own counts": Arm(fields={"smoothing_levels": 0, "cross_width": 0}),
    "- depth offset": Arm(fields={"depth_offset": False}),
    "- all six of these": Arm(fields=PLAIN),
    "- tokens: missing and masked are one": Arm(batch=merge_missing_and_masked),
    "+ metadata attend to the lanes": Arm(fields={"attends": True}),
    "- metadata: only through attention": Arm(fields={"attends": True}, network=cut_direct_path),
    "- scale centred at 1": Arm(network=centre_scale_at_zero),
    "- metadata altogether": Arm(batch=forget_metadata),
    "- independent target: it holds its input": Arm(batch=let_target_hold_its_input),
    "lane_norm turned over": Arm(fields={"lane_norm": None}),
    "+ beta = 1 in the count term": Arm(weights=replace(WEIGHTS, beta=1.0)),
    "paper + skips, smoothing, across, offset": Arm(
        "paper", {"lane_skips": True, "smoothing_levels": 6, "cross_width": 64, "depth_offset": True}
    ),
}
