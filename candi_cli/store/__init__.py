"""The tensor store: one HDF5 file of counts, signal and peaks in bins; its layout is in `man/candi-store.5`."""

from candi_cli.store.chunks import CHUNK_BINS
from candi_cli.store.file import FORMAT_VERSION, LAYERS, Store, StoredExperiment
from candi_cli.store.opening import is_hdf5
from candi_cli.store.verification import Finding, verify

__all__ = ["CHUNK_BINS", "FORMAT_VERSION", "LAYERS", "Finding", "Store", "StoredExperiment", "is_hdf5", "verify"]
