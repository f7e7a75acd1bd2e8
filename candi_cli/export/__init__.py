"""From predicted distributions to files: bigWig, bedGraph, narrowPeak, and one HDF5 file of several."""
