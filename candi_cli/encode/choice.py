"""Of the files of each experiment, those that go into the sheet, as candidates."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from candi_cli.biosamples import Candidate, clean_name
from candi_cli.covariates import FILE_COLUMNS, Covariates, parse_platform
from candi_cli.encode.table import TREATMENTS, PortalFile, split_values

T = TypeVar("T")


def choose(files: Sequence[PortalFile], paths: Mapping[str, Path], table: Path) -> list[Candidate]:
    """Return the candidates of every experiment."""
    experiments = defaultdict(list)
    for item in files:
        experiments[item.experiment].append(item)
    experiment_of = {item.accession: item.experiment for item in files}
    return [
        candidate
        for _, members in sorted(experiments.items())
        for candidate in _candidates(members, experiment_of, paths, table)
    ]


def _candidates(
    files: Sequence[PortalFile], experiment_of: Mapping[str, str], paths: Mapping[str, Path], table: Path
) -> list[Candidate]:
    """Return one candidate for each biosample of an experiment."""
    usable = _newest_analysis([item for item in files if item.layer])
    found: dict[str, Candidate] = {}
    for replicates in _replicates(usable):
        chosen = _pick(usable, replicates)
        first = next(iter(chosen.values()))
        sources = _fastqs(first, {item.accession: item for item in files})
        platform, remark = _platform(sources, table)
        # a FASTQ names its control's FASTQ; a signal is derived from the alignments of both
        named = [name for item in sources for name in item.accessions("Controlled by")]
        named += [name for item in chosen.values() for name in item.accessions("Derived from")]
        biosample = _biosample(first, replicates)
        found.setdefault(
            biosample,
            Candidate(
                term=first["Biosample term name"],
                assay=first.assay,
                experiment=first.experiment,
                biosample=biosample,
                files={layer: paths[item.accession] for layer, item in chosen.items()},
                md5sums={layer: item["md5sum"].lower() for layer, item in chosen.items() if item["md5sum"]},
                covariates=Covariates(
                    read_length=first.read_length or _agreed(item.read_length for item in sources),
                    run_type=_agreed(item.run_type for item in sources),
                    platform=platform,
                ),
                donor=",".join(sorted(first.accessions("Donor(s)"))) or None,
                lab=first["Lab"] or None,
                controls=frozenset(experiment_of[name] for name in named if name in experiment_of) - {first.experiment},
                remark=remark,
            ),
        )
    return list(found.values())


def _newest_analysis(files: Sequence[PortalFile]) -> list[PortalFile]:
    """Return the files of the newest analysis with alignments (of the newest, without any); released ones if any are.

    The table dates no analysis: the version in its title says which is newer (`ENCODE4 v1.5.1 GRCh38`), and one without
    a version (`Lab custom GRCh38`) is older than any.
    """
    files = [item for item in files if item["File Status"].lower() in ("released", "")] or list(files)
    analyses: dict[str, list[PortalFile]] = defaultdict(list)
    released: set[str] = set()
    for item in files:
        titles, stated = split_values(item["File analysis title"]), split_values(item["File analysis status"].lower())
        for number, title in enumerate(titles or [""]):
            analyses[title].append(item)
            if len(stated) != len(titles) or not titles or stated[number] == "released":
                released.add(title)

    def age(title: str) -> tuple[bool, bool, list[int], str]:
        version = title.replace(analyses[title][0]["File assembly"], "")
        has_reads = any(item.layer == "file" for item in analyses[title])
        return has_reads, title in released, [int(n) for n in re.findall(r"\d+", version)], title

    return analyses[max(analyses, key=age)] if analyses else []


def _replicates(files: Sequence[PortalFile]) -> list[frozenset[str]]:
    """Return the biological replicates that there are reads of (without reads, signal; without it, peaks), one by one.

    Files of pooled replicates count only for those that have no file of their own.
    """
    for layer in FILE_COLUMNS:
        sets = {item.replicates for item in files if item.layer == layer}
        if sets:
            own = [one for one in sets if one and not any(other and other < one for other in sets)]
            return sorted(own, key=_numbered) or [frozenset()]
    return []


def _pick(files: Sequence[PortalFile], replicates: frozenset[str]) -> dict[str, PortalFile]:
    """Return the file of each layer: by output type, then of these replicates only, then from the chosen reads."""
    chosen: dict[str, PortalFile] = {}

    def order(item: PortalFile) -> tuple[int, bool, int, bool, str]:
        reads = chosen.get("file")
        derived = reads is not None and reads.accession in item.accessions("Derived from")
        n_replicates = len(item.replicates)
        return item.preference, item.replicates != replicates, n_replicates or 99, not derived, item.accession

    for layer in FILE_COLUMNS:
        fitting = [item for item in files if item.layer == layer]
        fitting = [item for item in fitting if replicates <= item.replicates or not item.replicates]
        if fitting:
            chosen[layer] = min(fitting, key=order)
    return chosen


def _fastqs(start: PortalFile, files: Mapping[str, PortalFile]) -> list[PortalFile]:
    """Return the FASTQ files of the same experiment that a file derives from, over any number of steps."""
    found, seen, open_ends = [], {start.accession}, [start]
    while open_ends:
        item = open_ends.pop()
        if item["File format"].lower() == "fastq":
            found.append(item)
        names = [name for name in item.accessions("Derived from") if name in files and name not in seen]
        seen.update(names)
        open_ends += [files[name] for name in names]
    return sorted(found, key=lambda item: item.line)


def _platform(sources: Sequence[PortalFile], table: Path) -> tuple[str | None, str | None]:
    """Return the platform that FASTQ files agree on, and what is to be told where they name one that is not used."""
    names = sorted({item["Platform"] for item in sources} - {""})
    platforms = {parse_platform(name) for name in names}
    if len(platforms) == 1 and None not in platforms:
        return platforms.pop(), None
    if not names:
        return None, None
    fact = "is not in the vocabulary" if len(names) == 1 else "are different"
    return None, f"{table}:{sources[0].line}: Platform: {', '.join(names)} {fact}; taken as not known"


def _biosample(item: PortalFile, replicates: Collection[str]) -> str:
    """Return the biosample accession, or what stands for it: donor (or experiment), replicate and treatment."""
    accessions = item.accessions("Biosample accession")
    if len(accessions) == 1:
        return clean_name(accessions[0])
    parts = sorted(item.accessions("Donor(s)")) or [item.experiment]
    parts += [f"rep{'_'.join(_numbered(replicates))}"] if replicates else []
    treated = " ".join(item[header] for header in TREATMENTS if item[header])
    return clean_name("_".join([*parts, re.sub(r"\W+", "_", treated)] if treated else parts))


def _numbered(replicates: Iterable[str]) -> list[str]:
    return sorted(replicates, key=lambda name: (len(name), name))


def _agreed(values: Iterable[T | None]) -> T | None:
    """Return the value that all that are known agree on."""
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None
