"""Counting one read a position, for files whose duplicates carry no flag."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest

from candi_cli.counting import CountingRule
from candi_cli.io.reads import ReadCounter

TEST_DATA = Path(__file__).parents[2] / "test_data"
# the duplicates of the test data are flagged; without that flag only their positions tell
UNFLAGGED = CountingRule(excl_flags=0xF04 & ~0x400)
UNIQUE = replace(UNFLAGGED, keep_duplicates=False)


def kinds(path: Path) -> Counter:
    """How often each combination of position, strand and mate occurs among reads that pass the filters."""
    with pysam.AlignmentFile(str(path)) as bam:
        return Counter(
            (
                read.reference_id, read.reference_start, read.reference_end, read.is_paired, read.is_reverse,
                read.is_read1, read.next_reference_start, read.template_length,
            )
            for read in bam
            if not read.flag & UNIQUE.excl_flags and read.mapping_quality >= 30
        )  # fmt: skip


@pytest.mark.parametrize("name", ["sim1.H3K4me3.bam", "sim2.H3K36me3.bam"])
def test_one_read_of_each_kind_is_counted(name):
    found = kinds(TEST_DATA / name)
    counter = ReadCounter(TEST_DATA / name, UNIQUE)
    total = sum(int(blocks.sum()) for _, _, _, blocks in counter)
    assert total == counter.summary.depth == len(found)
    assert counter.summary.duplicates == sum(found.values()) - len(found) > 0


def test_without_duplicates_no_count_grows():
    path = TEST_DATA / "sim1.H3K4me3.bam"
    every, unique = (list(ReadCounter(path, rule)) for rule in (UNFLAGGED, UNIQUE))
    for one, other in zip(every, unique, strict=True):
        assert (other.counts <= one.counts).all()
        assert np.array_equal(other.counts > 0, one.counts > 0)
