"""Which contigs of two sources are one: by exact name, else by an alias of equal length.

UCSC's `chr1` is Ensembl's `1`, RefSeq's `NC_000001.11` and GenBank's `CM000663.2` (hg38). A prefix is never stripped or
added: a name is an alias only where a table says so, and the lengths decide (hg19's `chrM` of 16,571 bp is not the
16,569 bp `MT` of GRCh37 and GRCh38).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from candi_cli.errors import GenomeError

_NEARLY_ALL = 0.95
Aliases = tuple[frozenset[str], ...]
"""The names of one contig in each set."""


class ContigMatch(NamedTuple):
    """Which contigs of a source are which of those expected.

    Attributes
    ----------
    names : expected name -> found name, in the order of those expected
    unmatched : found contigs without a partner, in the order found; what lies on them is left out
    conflicts : found contigs (name, length, expected length) whose partner has another length
    """

    names: dict[str, str]
    unmatched: list[str]
    conflicts: list[tuple[str, int, int]]


def match_contigs(
    found: Mapping[str, int],
    expected: Mapping[str, int],
    *,
    source: str,
    against: str,
    aliases: Aliases | None = None,
) -> ContigMatch:
    """Match the contigs of two sources by exact name and length, else by an alias of equal length.

    A contig whose own name is expected at another length is a conflict, whatever its aliases say. An alias of a contig
    that is already matched by its exact name is unmatched.

    Parameters
    ----------
    found, expected : name -> length in bp
    source, against : what messages call the two sides
    aliases : of the user, in addition to the table of the package

    Raises
    ------
    GenomeError
        No contig matches (both sides are named), or an alias leaves it open which contig is meant.
    """
    synonyms = _join((*(names for _, _, names in _known_contigs()), *(aliases or ())))
    partners = {chrom: chrom for chrom, length in found.items() if expected.get(chrom) == length}
    exact = set(partners)
    without: list[tuple[str, list[str]]] = []
    for chrom, length in found.items():
        if chrom in exact:
            continue
        others = [chrom] if chrom in expected else sorted(synonyms.get(chrom, set()) & expected.keys())
        equal = [other for other in others if expected[other] == length]
        if not equal or exact.intersection(equal):
            without.append((chrom, others))
        elif len(equal) > 1:
            raise _ambiguous(source, chrom, against, equal)
        elif equal[0] in partners:
            raise _ambiguous(against, equal[0], source, [partners[equal[0]], chrom])
        else:
            partners[equal[0]] = chrom
    clashes = [(chrom, others[0]) for chrom, others in without if chrom in others or _clashes(others, partners)]
    if not partners:
        raise _no_match(found, expected, clashes, source=source, against=against)
    clashing = {chrom for chrom, _ in clashes}
    return ContigMatch(
        {chrom: partners[chrom] for chrom in expected if chrom in partners},
        [chrom for chrom, _ in without if chrom not in clashing],
        [(chrom, found[chrom], expected[other]) for chrom, other in clashes],
    )


def match_name(chrom: str, expected: Mapping[str, int], *, aliases: Aliases | None = None) -> str | None:
    """Return the expected contig that a name means where its length is not known (in BED, say), None without one.

    It is the contig of that name, else one that the package's table knows as another name of it at that length, or
    that the user's aliases do.
    """
    if chrom in expected:
        return chrom
    known = {
        name
        for _, length, names in _known_contigs()
        if chrom in names
        for name in names
        if expected.get(name) == length
    }
    stated = {name for names in aliases or () if chrom in names for name in names & expected.keys()}
    found = sorted(known | stated)
    if len(found) > 1:
        raise GenomeError(f"{chrom} may be {' or '.join(found)}; keep one name of each contig")
    return found[0] if found else None


class NameMatcher:
    """The contigs that names in a file without lengths mean; see `match_name`.

    Parameters
    ----------
    expected : name -> length in bp
    source : the file, for messages
    """

    def __init__(self, expected: Mapping[str, int], *, source: str, aliases: Aliases | None = None) -> None:
        self._expected, self._source, self._aliases = expected, source, aliases
        self._known: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | None:
        """Return the expected contig, None without one; raise GenomeError when another name meant it already."""
        if name not in self._known:
            chrom = match_name(name, self._expected, aliases=self._aliases)
            other = next((known for known, meant in self._known.items() if meant == chrom), None)
            if chrom is not None and other is not None:
                raise GenomeError(f"{self._source}: {other} and {name} are both {chrom}; keep one name of each contig")
            self._known[name] = chrom
        return self._known[name]


def read_aliases(path: Path) -> Aliases:
    """Read a table of contig names: each line lists those of one contig, tab-separated (UCSC's chromAlias.txt).

    Lines that start with `#` are comments; empty fields are passed over.

    Raises
    ------
    GenomeError
        The file cannot be read, a name is on two lines, or no line holds two names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GenomeError(f"{path}: {error.strerror}; give a table of contig names, such as chromAlias.txt") from error
    except UnicodeDecodeError as error:
        raise GenomeError(f"{path}: not a text file; unpack it, or give a tab-separated table of names") from error
    contigs: list[frozenset[str]] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        names = frozenset(name for name in map(str.strip, line.split("\t")) if name)
        if line.startswith("#") or not names:
            continue
        for name in sorted(names):  # a word on every line (a column that names the source) would make all contigs one
            if name in line_of:
                raise GenomeError(f"{path}:{number}: {name} is on line {line_of[name]} too; keep one line a contig")
        line_of |= dict.fromkeys(names, number)
        contigs.append(names)
    if not any(len(names) > 1 for names in contigs):
        raise GenomeError(f"{path}: no line holds two names; separate the names of a contig by tabs")
    return tuple(contigs)


def shorten(names: Mapping[str, int] | Sequence[str], limit: int = 4) -> str:
    """Name the first few of a list, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


@cache
def _known_contigs() -> tuple[tuple[str, int, frozenset[str]], ...]:
    """Return the assembly, the length in bp and the names of each contig of the package's table."""
    table = Path(__file__).with_name("contig_aliases.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return tuple((row[0], int(row[1]), frozenset(filter(None, row[2:]))) for row in rows)


def _join(contigs: Iterable[frozenset[str]]) -> dict[str, set[str]]:
    """Return for each name all names that it is linked to, itself included."""
    joined: dict[str, set[str]] = {}
    for names in contigs:
        merged = set(names).union(*(joined[name] for name in names if name in joined))
        joined |= dict.fromkeys(merged, merged)
    return joined


def _clashes(others: Sequence[str], partners: Mapping[str, str]) -> bool:
    """Whether a contig has aliases on the other side, all of another length and none of them matched otherwise."""
    return bool(others) and not any(other in partners for other in others)


def _ambiguous(source: str, chrom: str, against: str, others: Sequence[str]) -> GenomeError:
    return GenomeError(
        f"{source}: {chrom} may be {' or '.join(others)} of {against}, all of one length; keep one name of each contig"
    )


def _no_match(
    found: Mapping[str, int],
    expected: Mapping[str, int],
    clashes: Sequence[tuple[str, str]],
    *,
    source: str,
    against: str,
) -> GenomeError:
    """Return the error for two sources that share no contig: it names both sides."""
    if not clashes:
        return GenomeError(
            f"{source}: has contigs {shorten(found)} but {against} has {shorten(expected)}; "
            "use the same genome build and chromosome names for both"
        )
    chrom, other = clashes[0]
    one, another = _assemblies(chrom, found[chrom]), _assemblies(other, expected[other])
    told = one and another and not set(one).intersection(another)
    builds = f" (by their lengths they are {' or '.join(one)} and {' or '.join(another)})" if told else ""
    name = "" if other == chrom else f"{other} is "
    return GenomeError(
        f"{source}: {chrom} is {found[chrom]:,} bp but {name}{expected[other]:,} bp in {against}; "
        f"use the same genome build for both{builds}"
    )


def assembly_of(chromsizes: Mapping[str, int]) -> str | None:
    """Return the assembly of a genome, by UCSC's name: that of nearly all its known contigs, by their bases.

    None when there is no one such: builds of hg19 differ in their mitochondrion, but not in what is known of them.
    """
    bases: dict[str, int] = {}
    known = 0
    for chrom, length in chromsizes.items():
        found = set(_assemblies(chrom, length))
        known += length if found else 0
        for assembly in found:
            bases[assembly] = bases.get(assembly, 0) + length
    fitting = [assembly for assembly, sum_of in bases.items() if sum_of >= _NEARLY_ALL * known]
    return fitting[0] if len(fitting) == 1 else None


def _assemblies(chrom: str, length: int) -> list[str]:
    """Return the assemblies of the package's table that have a contig of this name and length."""
    return [assembly for assembly, known, names in _known_contigs() if known == length and chrom in names]
