"""The CANDI family: masked, thinned tracks in, distributions of counts, signal and peaks out."""

from candi_cli.model.candi.config import PRESETS, Config, preset
from candi_cli.model.candi.dataset import Lanes, PredictionDataset, TrainingDataset
from candi_cli.model.candi.masking import PAPER, Corruption
from candi_cli.model.candi.objective import LossWeights, Model
from candi_cli.model.candi.windows import empty_batch

__all__ = [
    "PAPER",
    "PRESETS",
    "Config",
    "Corruption",
    "Lanes",
    "LossWeights",
    "Model",
    "PredictionDataset",
    "TrainingDataset",
    "empty_batch",
    "preset",
]
