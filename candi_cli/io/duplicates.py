"""Leaving out duplicates: of reads at one position, strand and mate, or of equal fragments, the first is counted."""

import numpy as np

from candi_cli.io.records import FIRST, PAIRED, REVERSE, SECOND, Records

_SAME_KIND = PAIRED | REVERSE | FIRST | SECOND  # reads that differ in these are no duplicates


class Duplicates:
    """Of reads that agree in position, strand and mate, the first; reads come by start, in any number at a time.

    Parameters
    ----------
    of_fragments : paired reads stand for fragments, and agree when those do in start, end and orientation: where the
        two reads end inside of it, as trimming and clipping leave them, plays no part
    """

    def __init__(self, *, of_fragments: bool = False) -> None:
        self.found = 0
        self._of_fragments = of_fragments
        self._held: Records | None = None

    def first_of_each(self, records: Records) -> Records:
        """Return the first reads of each kind; those at the last start are held back, as more may come there."""
        if self._held is not None and self._held.contig == records.contig:
            records = self._held.joined(records)
        last = int(np.searchsorted(records.start, records.start[-1]))
        self._held = records.take(np.arange(last, len(records.start)))
        return self._unique(records.take(np.arange(last)))

    def rest(self) -> Records:
        """Return the first reads of each kind at the last start of a contig."""
        assert self._held is not None
        held, self._held = self._held, None
        return self._unique(held)

    def _unique(self, records: Records) -> Records:
        end, mate_start, template = records.end, records.mate_start, records.template
        if self._of_fragments:
            paired = records.flag & PAIRED != 0
            end, mate_start = np.where(paired, 0, end), np.where(paired, 0, mate_start)
            template = np.where(paired, np.abs(template), template)  # its sign is free where both start at one base
        kinds = np.stack([records.start, end, records.flag & _SAME_KIND, mate_start, template], axis=1)
        order = np.lexsort(kinds.T)  # stable: of equal reads the first stays first
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (kinds[order[1:]] != kinds[order[:-1]]).any(axis=1)
        self.found += len(order) - int(first.sum())
        return records.take(np.sort(order[first]))
