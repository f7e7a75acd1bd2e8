"""A network that gains assays predicts for its own what it predicted before."""

from dataclasses import replace

import pytest
import torch

from candi_cli.model.candi import Model, preset
from candi_cli.model.candi.extension import extend, freeze, new_entries
from candi_cli.model.candi.network import MISSING, NO_SEQUENCE, OBSERVED, CandiBatch

OLD, NEW = ("ATAC-seq", "H3K4me3"), ("ATAC-seq", "H3K27ac", "H3K4me3", "H3K9me3")
LANES = [NEW.index(assay) for assay in OLD]
KINDS = {
    "shared head, skips, DNA": {"reads_sequence": True},
    "paper's decoders and mixing head": {
        "reads_sequence": True, "attends": True, "lane_skips": False, "shared_decoder": False, "shared_head": False,
        "smoothing_levels": 0, "depth_offset": False,
    },
    "mixing head that reads smoothed tracks": {"reads_sequence": False, "shared_head": False},
    "normalised lanes": {"reads_sequence": False, "lane_norm": True},
    "signal and reference": {"reads_sequence": False, "input": "signal", "reads_reference": True},
}  # fmt: skip


def make_model(kind: str) -> Model:
    options = dict(KINDS[kind])
    asked = {name: options.pop(name) for name in ("reads_sequence", "input", "reads_reference") if name in options}
    torch.manual_seed(1)
    model = Model(replace(preset("tiny", OLD, resolution=25, **asked), **options)).eval()
    for parameter in model.parameters():  # biases too, as after training
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def make_batch(model: Model) -> CandiBatch:
    n, length, n_lanes = 2, model.config.context_bins, len(OLD) + 1
    generator = torch.Generator().manual_seed(2)
    signal = model.config.input == "signal"
    values = torch.rand(n, length, n_lanes, generator=generator) * 5
    covariates = torch.stack([torch.full((n, n_lanes), value) for value in (23.0, 5.5, 3.0, 4.0)], dim=1)
    return CandiBatch(
        values if signal else values.int(),
        torch.full((n, length, n_lanes), OBSERVED, dtype=torch.uint8),
        covariates,
        covariates[..., :-1],
        torch.randint(0, NO_SEQUENCE, (n, length * 25), generator=generator, dtype=torch.uint8)
        if model.config.reads_sequence
        else None,
        torch.rand(n, length, len(OLD), generator=generator) if model.config.reads_reference else None,
    )


def widen(batch: CandiBatch, *, present: bool) -> CandiBatch:
    """The same batch for the network with more assays, whose new lanes are missing or hold something."""
    lanes = [*LANES, len(NEW)]

    def spread(values, size, where, fill):
        wide = torch.full((*values.shape[:2], size), fill, dtype=values.dtype)
        wide[..., where] = values
        return wide

    return CandiBatch(
        spread(batch.values, len(NEW) + 1, lanes, 3 if present else 0),
        spread(batch.availability, len(NEW) + 1, lanes, OBSERVED if present else MISSING),
        spread(batch.covariates_in, len(NEW) + 1, lanes, 4.0),
        spread(batch.covariates_out, len(NEW), LANES, 4.0),
        batch.sequence,
        None if batch.reference is None else spread(batch.reference, len(NEW), LANES, torch.nan),
    )


def test_the_tensors_with_lanes_are_exactly_those_whose_size_depends_on_the_assays():
    for kind in KINDS:
        old = make_model(kind)
        new = Model(replace(old.config, assays=NEW))
        sizes = {name: value.shape for name, value in old.named_parameters()}
        differ = {name for name, value in new.named_parameters() if value.shape != sizes[name]}
        entries = new_entries(new, OLD)
        assert set(entries) == differ, kind
        for name, mask in entries.items():
            assert int((~mask).sum()) == sizes[name].numel(), (kind, name)


@pytest.mark.parametrize("present", [False, True], ids=["missing", "present"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_predictions_of_the_known_assays_stay_when_new_ones_are_added(kind, present):
    old = make_model(kind)
    batch = make_batch(old)
    before = old(batch)
    after = extend(old, replace(old.config, assays=NEW))(widen(batch, present=present))
    for name, values in before._asdict().items():
        if values is not None:
            torch.testing.assert_close(getattr(after, name)[..., LANES], values, rtol=1e-5, atol=1e-5)


def test_a_frozen_trunk_changes_in_nothing_but_the_new_lanes():
    old = make_model("mixing head that reads smoothed tracks")
    new = extend(old, replace(old.config, assays=NEW)).train()
    freeze(new, OLD)
    before = {name: value.detach().clone() for name, value in new.named_parameters()}
    trained = [parameter for parameter in new.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.0)
    for _ in range(3):
        output = new(widen(make_batch(old), present=True))
        optimiser.zero_grad()
        sum(values.square().mean() for values in output).backward()
        optimiser.step()
    entries = new_entries(new, OLD)
    for name, value in new.named_parameters():
        changed = value.detach() != before[name]
        assert not changed[~entries[name] if name in entries else ...].any(), name
    assert all((new.get_parameter(name) != before[name]).any() for name in entries if "bias.peaks" not in name)


def test_assays_in_another_order_are_refused():
    old = make_model("normalised lanes")
    with pytest.raises(ValueError, match="in this order"):
        extend(old, replace(old.config, assays=("H3K4me3", "ATAC-seq")))
