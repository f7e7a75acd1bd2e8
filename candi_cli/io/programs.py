"""The programs that a SAM header tells of (@PG): adding ours, and finding those that downsampled before."""

import re
from typing import NamedTuple

from candi_cli import __version__

NAME = "name"
_SUBSAMPLE = re.compile(r"-[^-@DFGLNORTUdeflmoqrstxz]*s(.*)")  # -s, maybe after letters that take no value


class EarlierDownsampling(NamedTuple):
    """What a header tells of how its file was downsampled."""

    by: str
    seed: int
    evidence: str


def with_program(header: str, description: str, command: str) -> str:
    """Return the text of a header with a @PG line of ours that continues its chain of programs."""
    programs = [_fields(line) for line in header.splitlines() if line.startswith("@PG\t")]
    names, parents = {program.get("ID") for program in programs}, {program.get("PP") for program in programs}
    own, number = "candi", 0
    while own in names:
        number += 1
        own = f"candi.{number}"
    ends = [program["ID"] for program in programs if "ID" in program and program["ID"] not in parents]
    previous = [f"PP:{ends[-1]}"] if ends else []
    one_line = re.sub(r"\s", " ", command)
    fields = ["@PG", f"ID:{own}", "PN:candi", *previous, f"VN:{__version__}", f"DS:{description}", f"CL:{one_line}"]
    return header + "\t".join(fields) + "\n"


def earlier_downsamplings(header: str) -> list[EarlierDownsampling]:
    """Return what the @PG lines of candi and of samtools, and samtools' comments, tell of earlier downsampling."""
    # newer versions write a comment, and without a seed in the command draw one that only the comment tells
    default_seed = None if "\n@CO\tSub-sampled fraction=" in header else 0
    found = []
    for line in header.splitlines():
        fields = _fields(line)
        if line.startswith("@PG\t") and fields.get("PN") == "candi":
            ours = re.match(r"downsample dsf=\S+ seed=(\d+) by=(\w+)", fields.get("DS", ""))
            if ours:
                found.append(EarlierDownsampling(ours[2], int(ours[1]), f"@PG {fields.get('ID')}: {fields['DS']}"))
        elif line.startswith("@PG\t") and fields.get("PN") == "samtools":
            seed = _samtools_seed(fields.get("CL", ""), default_seed)
            if seed is not None:
                found.append(EarlierDownsampling(NAME, seed, f"@PG {fields.get('ID')}: {fields['CL']}"))
        elif theirs := re.match(r"@CO\t(Sub-sampled fraction=\S+ seed=(\d+))", line):
            found.append(EarlierDownsampling(NAME, int(theirs[2]), f"@CO {theirs[1]}"))
    return found


def _fields(line: str) -> dict[str, str]:
    return {part[:2]: part[3:] for part in line.split("\t")[1:] if part[2:3] == ":"}


def _samtools_seed(command: str, default: int | None) -> int | None:
    """Return the seed with which a 'samtools view' command subsampled, None when it did not or it is not known."""
    words = command.split()
    if words[1:2] != ["view"]:
        return None
    subsampled, seed = False, default
    for word, following in zip(words[2:], [*words[3:], ""], strict=True):
        if word.startswith("--"):
            option, _, value = word.partition("=")
            subsampled |= option == "--subsample"
            if option == "--subsample-seed":
                seed = _number(value or following)
        elif match := _SUBSAMPLE.match(word):
            whole, point, fraction = (match[1] or following).partition(".")
            subsampled |= bool(point) and _number(fraction) > 0
            seed = _number(whole)
    return seed if subsampled else None


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
