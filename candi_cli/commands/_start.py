"""`--init`: a trained model to start from, with or without new assays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from candi_cli.commands._train_options import TrainOptions
from candi_cli.counting import CountingRule
from candi_cli.errors import ModelError, RequestError
from candi_cli.model import AssayCard, ModelCard, load
from candi_cli.model.candi import Config, LossWeights, Model
from candi_cli.model.candi.dataset import TrainingBatch
from candi_cli.model.candi.extension import extend, freeze


@dataclass(frozen=True)
class Start:
    """A trained model and what it becomes.

    Attributes
    ----------
    old : the trained network; card : what its file says of it
    config : of the network that is trained: with the new assays after the known ones
    """

    path: Path
    old: Model
    card: ModelCard
    config: Config
    freeze_trunk: bool

    @classmethod
    def of(cls, chosen: TrainOptions) -> "Start | None":
        """Load the model of --init, if there is one, and check that the options go with it."""
        if chosen.init is None:
            if chosen.add_assays or chosen.freeze_trunk:
                raise RequestError("--add-assay and --freeze-trunk: are for a model that is trained on; give --init")
            return None
        if chosen.freeze_trunk and not chosen.add_assays:
            raise RequestError("--freeze-trunk: leaves nothing to train without --add-assay; give one")
        loaded = load(chosen.init)
        old, config = loaded.network, loaded.config
        if not isinstance(old, Model):
            raise ModelError(f"{chosen.init}: is of the family {loaded.card.family}; give a model of the family candi")
        known = sorted(set(chosen.add_assays) & set(config.assays))
        if known:
            raise RequestError(f"--add-assay {known[0]}: {chosen.init} has this assay already; leave it out")
        for option, asked, reads in (
            ("-T", chosen.reference is not None, config.reads_sequence),
            ("--input signal", chosen.input == "signal", config.input == "signal"),
            ("--reference-average", chosen.reference_average, config.reads_reference),
            ("--match-signal", chosen.match_signal, bool(config.typical_signal)),
        ):
            if asked and not reads:
                raise RequestError(f"{option}: {chosen.init} does not read that; leave it out")
        if chosen.add_assays and config.typical_signal:
            raise RequestError(
                f"--add-assay: {chosen.init} matches signal to what is typical of its own assays; train a new model"
            )
        new = replace(config, assays=(*config.assays, *dict.fromkeys(chosen.add_assays)))
        return cls(chosen.init, old, loaded.card, new, chosen.freeze_trunk)

    def check(self, rule: CountingRule, found: Sequence[str]) -> None:
        """Raise unless the stores were counted as the model's were and have the new assays."""
        if self.config.input == "counts" and rule != self.card.counting:
            raise ModelError(
                f"{self.path}: learned from reads counted by {self.card.counting}, but the stores by {rule}; "
                "rebuild the stores with its rule"
            )
        absent = [assay for assay in self.config.assays if assay not in (*self.old.config.assays, *found)]
        if absent:
            raise RequestError(f"--add-assay {absent[0]}: no store has it; known are {', '.join(found)}")

    def network(self, weights: LossWeights, batches: Sequence[TrainingBatch]) -> Model:
        """Return the network to train; new assays start at their means in some batches."""
        known = self.old.config.assays
        new = extend(self.old, self.config)
        new.weights = weights
        if self.config.assays != known:
            trained = {name: bias.detach().clone() for name, bias in new.output_biases().items()}
            new.start_at_marginals(batches)
            for name, bias in new.output_biases().items():
                bias.data[:, : len(known)] = trained[name][:, : len(known)]
        if self.freeze_trunk:
            freeze(new, known)
        return new

    def cards(self, found: dict[str, AssayCard]) -> dict[str, AssayCard]:
        """Return the cards of all assays: what is known of an assay covers the data of both trainings."""
        both = {name: _joined(card, found[name]) for name, card in self.card.assays.items() if name in found}
        cards = {**self.card.assays, **found, **both}
        return {assay: cards[assay] for assay in self.config.assays if assay in cards}


def _joined(old: AssayCard, new: AssayCard) -> AssayCard:
    """Return the card of an assay that was trained twice; its standard stays."""
    return replace(
        old,
        outputs=tuple(name for name in ("counts", "signal", "peaks") if name in (*old.outputs, *new.outputs)),
        depth_range=_range(old.depth_range, new.depth_range),
        read_length_range=_range(old.read_length_range, new.read_length_range),
        run_types=tuple(sorted({*old.run_types, *new.run_types})),
        platforms=tuple(sorted({*old.platforms, *new.platforms})),
    )


def _range(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])
