"""Readers and writers of the field's own formats: the only homes of pysam and pyBigWig."""
