"""What can go wrong with a user's input: each error is one line of path, fact and remedy."""


class CandiError(Exception):
    """Base of every error that a user can cause and mend; a command exits with `exit_code`."""

    exit_code = 1


class GenomeError(CandiError):
    """Contigs, lengths or regions that do not fit together."""


class SheetError(CandiError):
    """A sample sheet that cannot be used; the message holds one line per problem."""


class ReadsError(CandiError):
    """A file of reads (BAM, CRAM, SAM, BED, BEDPE, fragments) that cannot be read or counted."""


class TrackError(CandiError):
    """A bigWig, bedGraph or file of peaks that cannot be read or written."""


class AnnotationError(CandiError):
    """A file of genes, or of their expression, that cannot be read or does not fit another."""


class SequenceError(CandiError):
    """A FASTA file that cannot be read or does not fit the reads."""


class StoreError(CandiError):
    """A tensor store that cannot be read or written."""


class ModelError(CandiError):
    """A model file that cannot be used for what was asked."""


class ProcessError(CandiError):
    """One of several processes ended, so that the others cannot go on."""


class OutputError(CandiError):
    """An output that cannot be written where it was asked for."""


class RequestError(CandiError):
    """Options that contradict each other or the input; exits with 2, as usage errors do."""

    exit_code = 2


class DeviceError(CandiError):
    """A device that cannot do what was asked of it."""
