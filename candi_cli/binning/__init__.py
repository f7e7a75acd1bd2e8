"""From files of reads, signal and peaks to stores."""

from candi_cli.binning.experiments import Binning, Outcome, bin_experiment, genome_of, measured_covariates
from candi_cli.binning.parts import Parts

__all__ = ["Binning", "Outcome", "Parts", "bin_experiment", "genome_of", "measured_covariates"]
