"""candi: reads to denoised epigenomic tracks with calibrated uncertainty."""

__version__ = "0.1.0"
