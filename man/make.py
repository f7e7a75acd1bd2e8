"""Write the man pages of `candi` and of each of its commands: `python man/make.py [FOLDER]`.

The pages come from the commands themselves, so that they say what `--help` says. sphinx-click was tried instead: it
leaves out ranges and -h, shows Python names as metavars, cuts summaries, and its bytes change with docutils.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from candi_cli import __version__
from candi_cli.commands import BROKEN_PIPE, HUNG_UP, INTERRUPTED, STOPPED, TERMINATED, candi

FOLDER = Path(__file__).parent
EXIT_STATUS = {
    0: "Done.",
    1: "The data cannot be used, or a file cannot be read or written; one line on stderr for each problem says why.",
    2: "Wrong usage: an unknown option, a value out of range, or options that contradict each other.",
    HUNG_UP: "Ended by SIGHUP, as when a terminal is closed; no half-written output is left. nohup keeps it away.",
    INTERRUPTED: "Interrupted by Ctrl-C; no half-written output is left.",
    STOPPED: "Training was stopped by SIGUSR1 and saved a checkpoint first.",
    BROKEN_PIPE: "The reader of stdout went away.",
    TERMINATED: "Ended by SIGTERM, as batch systems send at a time limit; no half-written output is left. "
    "Training saves a checkpoint first.",
}
# what the lines do, and the lines; a test parses each of them
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "candi": {
        "Denoise one BAM with the model that ships for reads:": (
            "candi denoise sample.bam --covariates meta.tsv -o out.bw"
        ),
        "Train a model on experiments of your own, then use it:": (
            "candi bin --covariates meta.tsv -o store.h5\n"
            "candi train store.h5 -o model.safetensors --test-chrom chr21\n"
            "candi denoise sample.bam --covariates meta.tsv -m model.safetensors \\\n    -o out.bw"
        ),
    },
    "sheet": {
        "Turn the metadata.tsv of an ENCODE download into a sheet of merged cell types, then count them:": (
            "candi sheet metadata.tsv --merge --min-assays 3 -o sheet.tsv\ncandi bin --covariates sheet.tsv -o store.h5"
        ),
    },
    "bin": {
        "Count the reads of every file that the sample sheet names:": "candi bin --covariates meta.tsv -o store.h5",
        "Count a CRAM file against its reference, on the chromosomes of hg38.chrom.sizes:": (
            "candi bin sample.cram --covariates meta.tsv -T hg38.fa \\\n    -g hg38.chrom.sizes -o store.h5"
        ),
        "Look at the sample sheet with what the reads themselves tell, and make no store:": (
            "candi bin --covariates meta.tsv --print-sheet > measured.tsv"
        ),
        "Count many experiments, four at a time; given again after an interruption, it goes on:": (
            "candi bin --covariates meta.tsv -@ 4 -o store.h5"
        ),
        "Count fragments of single cells, and reads that come through a pipe:": (
            "candi bin fragments.tsv.gz --covariates meta.tsv -g hg38.chrom.sizes \\\n"
            "    --count fragment -o fragments.h5\n"
            "samtools view -b sample.bam chr21 | candi bin - --covariates meta.tsv \\\n    -o chr21.h5"
        ),
        "Count Tn5 cut sites of ATAC-seq:": (
            "candi bin atac.bam --covariates meta.tsv --count five-prime --shift 4,-5 \\\n    -o atac.h5"
        ),
        "Count each molecule once, reads of single-ended ChIP-seq in the middle of fragments of 150 bp:": (
            "candi bin chip.bam --covariates meta.tsv --count midpoint --shift 75,-75 \\\n    -o chip.h5"
        ),
    },
    "info": {
        "Verify a store, and show what it holds:": "candi info store.h5",
        "List the models that ship, and show the card of one:": "candi info\ncandi info counts-core",
        "List the assays of a model of your own:": "candi info model.safetensors",
    },
    "downsample": {
        "Keep a half and a quarter of the reads, the quarter a part of the half:": (
            "candi downsample K562.bam --dsf 2 --dsf 4 --seed 1 -@ 4 --write-index \\\n    -o K562.dsf{dsf}.bam"
        ),
        "Halve a file whose reads have no names of their own:": (
            "candi downsample K562.bam --dsf 2 --by position -o K562.dsf2.bam"
        ),
    },
    "train": {
        "Train with chr21 kept for tests and the blacklist left out:": (
            "candi train store.h5 -o model.safetensors --test-chrom chr21 \\\n    --blacklist blacklist.bed"
        ),
        "Train on two stores and their DNA, and keep the weights that do best on a part of chr20:": (
            "candi train one.h5 two.h5 -T hg38.fa --valid-region chr20:1-20000000 \\\n"
            "    --test-chrom chr21 --device cuda -o model.safetensors"
        ),
        "Train on four GPUs, and go on from the checkpoint of a training that was stopped:": (
            "candi train store.h5 -o model.safetensors --nproc 4 --device cuda \\\n    --workers 8 --resume auto"
        ),
        "Write all options to a file, to change them there and train with --config train.toml:": (
            "candi train store.h5 -o model.safetensors --preset paper \\\n    --print-config > train.toml"
        ),
        "Teach a model an assay that it does not know, and leave the rest as it is:": (
            "candi train mine.h5 --init model.safetensors --add-assay H3K79me2 \\\n"
            "    --freeze-trunk -o more.safetensors"
        ),
    },
    "calibrate": {
        "Judge the model that ships for what a store holds on its chr21, into a folder with a page:": (
            "candi calibrate store.h5 -r chr21 --genes gencode.gtf.gz \\\n    --enhancers ccre.bed -o calibration"
        ),
        "Learn what a model gets wrong on chr20, judge that on chr21, and use it:": (
            "candi calibrate store.h5 -m model.safetensors --fit -r chr20 \\\n"
            "    --test chr21 -M recalibrated.safetensors -o calibration\n"
            "candi denoise sample.bam --covariates meta.tsv \\\n"
            "    -m recalibrated.safetensors --interval 0.9 -o out.bw"
        ),
        "Judge the tracks of another program:": (
            "candi calibrate --mean mean.bw --sd sd.bw --observed observed.bw \\\n    -r chr21 -o scores.tsv"
        ),
    },
    "cindex": {
        "Compare the order of bins on chr21, and within promoters and genes:": (
            "candi cindex store.h5 -r chr21 --genes gencode.gtf.gz > cindex.tsv"
        ),
        "Judge saved predictions:": (
            "candi impute input.h5 --assay all -O hdf5 -r chr21 -o predictions.h5\n"
            "candi cindex truth.h5 --predictions predictions.h5 -o cindex.json"
        ),
    },
    "evaluate": {
        "Compare a model with baselines on chr21, into a folder with a page:": (
            "candi evaluate store.h5 -m model.safetensors -r chr21 \\\n"
            "    --genes gencode.gtf.gz --enhancers enhancers.bed -o evaluation"
        ),
        "Predict the expression of genes from tracks:": (
            "candi evaluate store.h5 -m model.safetensors --genes gencode.gtf.gz \\\n"
            "    --expression tpm.tsv -o evaluation"
        ),
    },
    "denoise": {
        "Denoise one BAM:": "candi denoise sample.bam --covariates meta.tsv -o out.bw",
        "Denoise chr21 as if it had been sequenced with 50 million reads of 100 bp:": (
            "candi denoise sample.bam --covariates meta.tsv -r chr21 \\\n    --as depth=50M,read_length=100 -o chr21.bw"
        ),
        "Write a track of -log10 p for every experiment of a store into a folder:": (
            "candi denoise store.h5 -m model.safetensors --track signal -o tracks"
        ),
        "Write the expected counts with their 90 % interval: out.bw, out.lower.bw and out.upper.bw:": (
            "candi denoise sample.bam --covariates meta.tsv --interval 0.9 -o out.bw"
        ),
        "Call peaks, and send a track through a pipe:": (
            "candi denoise sample.bam --covariates meta.tsv -o out.narrowPeak\n"
            "candi denoise sample.bam --covariates meta.tsv -o - | head"
        ),
    },
    "impute": {
        "Write every assay that the model knows, with its 90 % interval, into a folder:": (
            "candi impute *.bam --covariates meta.tsv --assay all --interval 0.9 -@ 4 \\\n    -o tracks"
        ),
        "Go on after an interruption:": (
            "candi impute *.bam --covariates meta.tsv --assay all --interval 0.9 -@ 4 \\\n    -o tracks --resume"
        ),
        "Predict chromosomes on several machines, and join them:": (
            "candi impute store.h5 --assay all -r chr1 -o chr1.h5\n"
            "candi impute store.h5 --assay all -r chr2 -o chr2.h5\n"
            "candi impute --merge chr1.h5 chr2.h5 -r chr1 -r chr2 -o tracks"
        ),
    },
}
_WIDTH = 78
_SENTENCE_END = re.compile(r"(?<=\.) (?=[A-Z])")
_LITERAL = re.compile(r"('candi[^']*'|(?<![\w-])(?:--[a-z][\w-]*|-[A-Za-z@](?!\w)))")  # a command, or an option's name
_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def write_pages(folder: Path) -> list[Path]:
    """Write the page of the program and of each command into a folder; return their paths."""
    root = click.Context(candi, info_name="candi", **candi.context_settings)
    contexts = [root]
    for name in candi.list_commands(root):
        command = candi.get_command(root, name)
        if command is not None and not command.hidden:
            contexts.append(click.Context(command, info_name=name, parent=root))
    paths = []
    for context in contexts:
        path = folder / f"{page_name(context)}.1"
        path.write_text("\n".join(page(context, contexts)) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def page_name(context: click.Context) -> str:
    """Return `candi` or `candi-COMMAND`."""
    return context.command_path.replace(" ", "-")


def page(context: click.Context, contexts: list[click.Context]) -> Iterator[str]:
    """Yield the lines of one page; `contexts` are those of all pages."""
    name = page_name(context)
    program = context.parent is None
    yield '.\\" Written by man/make.py from the command itself; change it there.'
    yield f'.TH {escape(name.upper())} 1 "" "candi {__version__}" "candi manual"'  # no date: same bytes any day
    yield ".SH NAME"
    summary = short(context.command)
    yield f"{escape(name)} \\- {escape(summary[0].lower() + summary[1:])}"
    yield ".SH SYNOPSIS"
    yield synopsis(context)
    yield ".SH DESCRIPTION"
    yield from description(context.command)
    if program:
        yield ".SH COMMANDS"
        for other in contexts[1:]:
            yield from item(bold(other.command_path), f"{short(other.command)}.")
    yield ".SH OPTIONS"
    for option in options(context):
        yield from item(signature(option, context), explanation(option, context))
    if program:
        yield ".SH ENVIRONMENT"
        for variable, readers in environment(contexts).items():
            yield from item(bold(variable), f"Value of {' and of '.join(readers)}, where that is not given.")
    yield ".SH EXAMPLES"
    for number, (title, lines) in enumerate(EXAMPLES.get(context.info_name or "", {}).items()):
        if number:
            yield ".PP"
        yield from [*prose(title), ".PP", ".RS 4", ".nf", *map(verbatim, lines.splitlines()), ".fi", ".RE"]
    yield ".SH EXIT STATUS"
    for status, meaning in EXIT_STATUS.items():
        yield from item(bold(str(status)), meaning)
    yield ".SH SEE ALSO"
    related = [(page_name(other), 1) for other in contexts if other is not context]
    related += [("candi-store", 5), ("samtools", 1)]
    yield " ,\n".join(f".BR {escape(other)} ({section})" for other, section in related)


def short(command: click.Command) -> str:
    """Return the first sentence of a command's help, without its full stop."""
    return command.get_short_help_str(limit=10_000).rstrip(".")


def synopsis(context: click.Context) -> str:
    """Return the usage line, with the required options spelt out."""
    required = [
        f"{bold(names_of(option)[0])} {italic(option.make_metavar(context))}"
        for option in options(context)
        if option.required
    ]
    pieces = [italic(piece) for piece in context.command.collect_usage_pieces(context)]
    return " ".join([bold(context.command_path), *pieces, *required])


def description(command: click.Command) -> Iterator[str]:
    """Yield a command's help; its exit codes have a section of their own."""
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    paragraphs = [paragraph for paragraph in text.split("\n\n") if not paragraph.startswith("Exit codes:")]
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        if paragraph.startswith("\b\n"):  # click's mark of a paragraph that keeps its line ends
            yield from [".nf", *map(verbatim, paragraph.splitlines()[1:]), ".fi"]
        else:
            yield from prose(paragraph)


def options(context: click.Context) -> list[click.Option]:
    """Return the options that --help shows, in its order."""
    parameters = context.command.get_params(context)
    return [option for option in parameters if isinstance(option, click.Option) and not option.hidden]


def names_of(option: click.Option) -> list[str]:
    """Return an option's names, short ones first; some versions of click give those of --help in any order."""
    return sorted([*option.opts, *option.secondary_opts], key=lambda name: name.startswith("--"))


def environment(contexts: list[click.Context]) -> dict[str, list[str]]:
    """Return which options of which commands each environment variable stands in for."""
    readers: dict[str, list[str]] = {}
    for context in contexts:
        for option in options(context):
            for variable in option.get_help_extra(context).get("envvars", ()):
                readers.setdefault(variable, []).append(f"{names_of(option)[-1]} in '{context.command_path}'")
    return readers


def signature(option: click.Option, context: click.Context) -> str:
    """Return an option's names and the metavar or the choices of its value."""
    names = ", ".join(bold(name) for name in names_of(option))
    if option.is_flag or option.count:
        return names
    metavar = option.make_metavar(context)
    if isinstance(option.type, click.Choice) and option.metavar is None:
        return f"{names} {'|'.join(bold(choice) for choice in metavar.strip('[]').split('|'))}"
    return f"{names} {italic(metavar.removesuffix(' RANGE'))}"


def explanation(option: click.Option, context: click.Context) -> str:
    """Return an option's help, and what is known of its value besides."""
    extra = option.get_help_extra(context)
    facts = ["required"] if "required" in extra else []
    facts += [f"default: {extra['default']}"] if "default" in extra else []
    facts += [f"range: {extra['range']}"] if "range" in extra else []
    facts += [f"environment: {', '.join(extra['envvars'])}"] if "envvars" in extra else []
    return " ".join(filter(None, [option.help, f"[{'; '.join(facts)}]" if facts else ""]))


def item(tag: str, text: str) -> Iterator[str]:
    """Yield an entry of a list: a tag, and what it means."""
    yield from [".TP", tag, *prose(text)]


def prose(text: str) -> Iterator[str]:
    """Yield text as roff, each sentence on lines of its own, with commands and options in bold."""
    pieces = _LITERAL.split(" ".join(text.split()))
    marked = "".join(bold(piece.strip("'")) if i % 2 else escape(piece) for i, piece in enumerate(pieces))
    for sentence in _SENTENCE_END.split(marked):
        for line in textwrap.wrap(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield rf"\&{line}" if line.startswith(".") else line


def verbatim(line: str) -> str:
    """Return a line that must come out as it is."""
    return rf"\&{escape(line)}" if line.startswith(".") else escape(line)


def escape(text: str) -> str:
    """Return text with every character that roff would change written so that it does not."""
    return text.translate(_ESCAPES)


def bold(text: str) -> str:
    """Return text to be typed as it is."""
    return rf"\fB{escape(text)}\fR"


def italic(text: str) -> str:
    """Return text to be replaced by a value."""
    return rf"\fI{escape(text)}\fR"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
