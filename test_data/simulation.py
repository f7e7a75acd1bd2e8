"""Simulate what the test data are drawn from: a genome, a latent landscape, and the expected fragments of each assay.

One landscape of genes, repressed domains and heterochromatin is shared by all assays and biosamples. From it follow,
per 25 bp bin, the expected number of fragments that begin there and the expected number of 5' ends of reads.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rng = np.random.Generator

SEED = 26
RESOLUTION = 25
CHROMSIZES = {"chr1": 300_010, "chr2": 120_000}
GAP = ("chr1", 150_000, 153_000)  # a run of N, on bin boundaries so that its bins hold no reads at all
ARTEFACT = ("chr1", 62_340, 64_340)  # a collapsed repeat: piles up reads in every assay, control included
BLACKLIST = (ARTEFACT, GAP, ("chr2", 0, 1_500))

FRAGMENT_MEAN, FRAGMENT_SD, FRAGMENT_MIN, FRAGMENT_MAX = 180, 30, 90, 270


class Noise(NamedTuple):
    """How many units of each noise class one file holds: fragments (one record a mate) or single records."""

    duplicate_fragments: int
    low_mapq_fragments: int
    qc_fail_fragments: int
    unmapped_fragments: int  # neither mate placed: at the end of the file
    orphans: int  # kept reads whose unmapped mate is placed at their position; paired-end only
    secondary_records: int
    supplementary_records: int


class Biosample(NamedTuple):
    """The sequencing of one biosample; `assays` maps an assay to its expected number of kept fragments."""

    name: str
    paired: bool
    read_length: int
    platform: str
    assays: dict[str, int]
    noise: Noise


BIOSAMPLES = (
    Biosample(
        name="sim1",
        paired=True,
        read_length=50,
        platform="Illumina HiSeq 4000",
        assays={"H3K4me3": 7_600, "H3K36me3": 7_300, "H3K27me3": 7_100, "control": 7_000},
        noise=Noise(150, 150, 50, 30, 24, 60, 40),
    ),
    Biosample(
        name="sim2",
        paired=False,
        read_length=36,
        platform="Illumina HiSeq 2000",
        assays={"H3K4me3": 5_800, "H3K36me3": 5_500, "H3K9me3": 5_200},
        noise=Noise(120, 200, 60, 40, 0, 50, 30),
    ),
)
DISPERSION = {"H3K4me3": 8.0, "H3K36me3": 6.0, "H3K27me3": 5.0, "H3K9me3": 5.0, "control": 12.0}
ENRICHED_SHARE = {"H3K4me3": 0.7, "H3K36me3": 0.65, "H3K27me3": 0.6, "H3K9me3": 0.55, "control": 0.0}


class Gene(NamedTuple):
    """A gene with what all biosamples share of it: its promoter's width and whether it lies in a polycomb domain."""

    chrom: str
    start: int
    end: int
    reverse: bool
    promoter_bp: float
    domain: int


class Landscape(NamedTuple):
    """The latent structure: (kind, chrom, start, end) of each domain, the genes, and the background per bin."""

    domains: list[tuple[str, str, int, int]]
    genes: list[Gene]
    background: dict[str, Array]


class Experiment(NamedTuple):
    """The truth of one assay in one biosample: per chromosome, arrays of shape (L,) at 25 bp."""

    enrichment: dict[str, Array]
    fragment_rate: dict[str, Array]  # fragments whose left end lies in the bin, before the assembly's edges lose some
    left_rate: dict[str, Array]
    right_rate: dict[str, Array]


def random_stream(*key: object) -> Rng:
    """Return the generator of one named purpose, so that a change to one file leaves all others as they are."""
    digest = hashlib.sha256(repr((SEED, *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def round_to_bits(values: Array, bits: int = 8) -> Array:
    """Round to so many significant bits: what is drawn from is what is stored, and CPUs agree on it."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)


def bin_starts(chrom: str) -> Array:
    """Return the first position of every bin of a chromosome; the last bin ends with the chromosome."""
    return np.arange(0, CHROMSIZES[chrom], RESOLUTION)


def bin_widths(chrom: str) -> Array:
    """Return the width of every bin in bp."""
    return np.diff(np.append(bin_starts(chrom), CHROMSIZES[chrom]))


def smooth(values: Array, sd: float) -> Array:
    """Return the values under a Gaussian kernel of `sd` bins, normalised at the edges."""
    offsets = np.arange(-int(3 * sd), int(3 * sd) + 1)
    kernel = np.exp(-0.5 * (offsets / sd) ** 2)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def wiggle(rng: Rng, n_bins: int, sd: float) -> Array:
    """Return a smooth random curve with mean 0 and standard deviation 1."""
    curve = smooth(rng.standard_normal(n_bins), sd)
    return (curve - curve.mean()) / curve.std()


def draw_genome() -> dict[str, str]:
    """Return random sequences whose GC content wanders around 42 %, with one run of N."""
    genome = {}
    for chrom, size in CHROMSIZES.items():
        rng = random_stream("genome", chrom)
        n_bins = len(bin_starts(chrom))
        gc_per_bin = np.clip(0.42 + 0.06 * wiggle(rng, n_bins, 200) + 0.05 * wiggle(rng, n_bins, 12), 0.2, 0.75)
        gc = np.repeat(round_to_bits(gc_per_bin), bin_widths(chrom))
        strong, other = rng.random(size) < gc, rng.random(size) < 0.5
        bases = np.where(strong, np.where(other, b"G", b"C"), np.where(other, b"A", b"T"))
        if chrom == GAP[0]:
            bases[GAP[1] : GAP[2]] = b"N"
        genome[chrom] = bases.tobytes().decode()
    return genome


def draw_landscape(genome: dict[str, str]) -> Landscape:
    """Return the domains, genes and background that all biosamples share."""
    domains, genes = [], []
    for chrom, size in CHROMSIZES.items():
        rng = random_stream("domains", chrom)
        kinds: list[str] = []
        start = 0
        while start < size:
            kinds = kinds or list(rng.permutation(["open", "polycomb", "open", "hetero"]))
            end = start + int(rng.integers(8_000, 20_000))
            end = end if end < size - 6_000 else size
            domains.append((kinds.pop(), chrom, start, end))
            if domains[-1][0] != "hetero":
                genes += place_genes(rng, chrom, start, end, domain=len(domains) - 1)
            start = end
    return Landscape(domains, genes, {chrom: background(chrom, genome[chrom]) for chrom in CHROMSIZES})


def place_genes(rng: Rng, chrom: str, start: int, end: int, *, domain: int) -> list[Gene]:
    """Return genes of 1.5 to 6 kb, one after the other, inside one domain."""
    genes = []
    position = start + int(rng.integers(1_000, 2_500))
    while (gene_end := position + int(rng.integers(1_500, 6_000))) < end - 1_000:
        if not (chrom == GAP[0] and position < GAP[2] and gene_end > GAP[1]):
            reverse, promoter_bp = bool(rng.random() < 0.5), float(rng.uniform(500, 2_000))
            genes.append(Gene(chrom, position, gene_end, reverse, promoter_bp, domain))
        position = gene_end + int(rng.integers(1_500, 3_500))
    return genes


def background(chrom: str, sequence: str) -> Array:
    """Return the bias that multiplies every assay: GC content, slow drift, poorly mappable stretches, the artefact."""
    rng = random_stream("background", chrom)
    starts, n_bins = bin_starts(chrom), len(bin_starts(chrom))
    letters = np.frombuffer(sequence.encode(), "S1")
    gc = smooth(np.add.reduceat(((letters == b"G") | (letters == b"C")).astype(float), starts) / bin_widths(chrom), 10)
    bias = np.exp(0.15 * (gc - gc.mean()) / gc.std() + 0.2 * wiggle(rng, n_bins, 150))
    for centre in rng.integers(0, n_bins, size=CHROMSIZES[chrom] // 30_000):
        bias *= 1 - 0.8 * np.exp(-0.5 * ((np.arange(n_bins) - centre) / 15) ** 2)
    if chrom == ARTEFACT[0]:
        bias[(starts >= ARTEFACT[1]) & (starts + RESOLUTION <= ARTEFACT[2])] *= 6
    bias *= bin_widths(chrom) / RESOLUTION
    if chrom == GAP[0]:
        bias[(starts >= GAP[1]) & (starts < GAP[2])] = 0
    return bias


def draw_activity(landscape: Landscape, biosample: str) -> tuple[Array, Array]:
    """Return the activity of every gene and whether each domain is repressed.

    Half of the genes and domains have one state in all biosamples; the others draw their own in each.
    """
    shared, own = random_stream("activity"), random_stream("activity", biosample)

    def draw(chance: float, size: int) -> Array:
        keep = shared.random(size) < 0.5
        return np.where(keep, shared.random(size), own.random(size)) < chance

    polycomb = np.array([kind == "polycomb" for kind, *_ in landscape.domains])
    repressed = polycomb & draw(0.75, len(polycomb))
    n_genes = len(landscape.genes)
    active = draw(0.7, n_genes) & ~repressed[[gene.domain for gene in landscape.genes]]
    level = np.exp(0.5 * shared.standard_normal(n_genes) + 0.3 * own.standard_normal(n_genes))
    return np.where(active, level, 0.0), repressed


def enrichment(landscape: Landscape, biosample: str, assay: str) -> dict[str, Array]:
    """Return the relative enrichment of an assay over the background, 0 where there is none."""
    activity, repressed = draw_activity(landscape, biosample)
    tracks = {}
    for chrom in CHROMSIZES:
        rng = random_stream("texture", biosample, assay, chrom)
        centres = bin_starts(chrom) + RESOLUTION / 2
        texture = np.exp(0.25 * wiggle(rng, len(centres), 15))
        expressed = [(g, a) for g, a in zip(landscape.genes, activity, strict=True) if g.chrom == chrom and a > 0]
        promoters, bodies = np.zeros_like(centres), np.zeros_like(centres)
        for gene, level in expressed:
            tss, sign = (gene.end, -1) if gene.reverse else (gene.start, 1)
            promoters += level * np.exp(-(((centres - tss - sign * 200) / (gene.promoter_bp / 2)) ** 4))
            along = sign * (centres - tss) / (gene.end - gene.start)  # 0 at the TSS, 1 at the end of the gene
            bodies += level * np.where((along > 0.15) & (along < 1.05), 0.4 + along, 0)
        kinds = {"H3K27me3": repressed, "H3K9me3": np.array([kind == "hetero" for kind, *_ in landscape.domains])}
        broad = np.zeros_like(centres)
        for present, (_, where, start, end) in zip(kinds.get(assay, repressed), landscape.domains, strict=True):
            if present and where == chrom:
                broad += (centres > start + 500) & (centres < end - 500)
        track = {
            "H3K4me3": promoters,
            "H3K36me3": smooth(bodies, 6) * texture,
            "H3K27me3": smooth(broad, 30) * texture * np.exp(-3 * np.minimum(promoters + bodies, 2)),
            "H3K9me3": smooth(broad, 30) * texture,
            "control": np.zeros_like(centres),
        }[assay]
        tracks[chrom] = np.where(landscape.background[chrom] > 0, track, 0)
    return tracks


def fragment_lengths() -> tuple[Array, Array]:
    """Return the possible fragment lengths and their probabilities: a normal distribution, truncated.

    The probabilities are multiples of 2^-20 and sum to 1 exactly.
    """
    lengths = np.arange(FRAGMENT_MIN, FRAGMENT_MAX + 1)
    weights = np.exp(-0.5 * ((lengths - FRAGMENT_MEAN) / FRAGMENT_SD) ** 2)
    shares = np.round(weights / weights.sum() * 2**20)
    shares[FRAGMENT_MEAN - FRAGMENT_MIN] += 2**20 - shares.sum()
    return lengths, shares / 2**20


def room_to_the_right(chrom: str) -> Array:
    """Return for every position how long a fragment may be that starts there: to the gap or the chromosome's end."""
    size = CHROMSIZES[chrom]
    room = size - np.arange(size)
    if chrom == GAP[0]:
        room[: GAP[1]] -= size - GAP[1]
        room[GAP[1] : GAP[2]] = 0
    return room


def end_rates(chrom: str, fragment_rate: Array) -> tuple[Array, Array]:
    """Return the expected left and right fragment ends per bin, shape (L,), given the fragments begun in each bin.

    A fragment begins uniformly inside its bin, takes a random length, and is lost if it leaves the chromosome or enters
    the gap. The right ends are therefore the begun fragments convolved with the lengths, base by base.

    Rates and probabilities have few significant bits, so that their products and sums are exact: one rate in a hundred
    is a tie when it is rounded, which the order of summation (another CPU, another BLAS) must not decide.
    """
    lengths, chances = fragment_lengths()
    starts, widths, size = bin_starts(chrom), bin_widths(chrom), CHROMSIZES[chrom]
    per_bin = np.repeat(fragment_rate * (RESOLUTION / widths), widths)  # at every base, as if its bin had full width
    room = room_to_the_right(chrom)
    fits = np.concatenate([np.zeros(FRAGMENT_MIN), np.cumsum(chances)])[np.clip(room, 0, FRAGMENT_MAX)]
    kernel = np.concatenate([np.zeros(lengths[0] - 1), chances])
    right = np.where(room > 0, np.convolve(per_bin, kernel)[:size], 0)
    return np.add.reduceat(per_bin * fits, starts) / RESOLUTION, np.add.reduceat(right, starts) / RESOLUTION


def expected_rates(landscape: Landscape, biosample: Biosample, assay: str) -> Experiment:
    """Return the truth of one experiment: the share of its fragments that is enriched, on top of the background."""
    tracks = enrichment(landscape, biosample.name, assay)
    share = ENRICHED_SHARE[assay]
    plain = landscape.background
    enriched = {chrom: plain[chrom] * tracks[chrom] for chrom in CHROMSIZES}
    plain_sum, enriched_sum = (sum(track.sum() for track in part.values()) for part in (plain, enriched))
    rates, left, right = {}, {}, {}
    for chrom in CHROMSIZES:
        density = (1 - share) * plain[chrom] / plain_sum
        if share:
            density = density + share * enriched[chrom] / enriched_sum
        rates[chrom] = round_to_bits(biosample.assays[assay] * density)
        left[chrom], right[chrom] = end_rates(chrom, rates[chrom])
    return Experiment(tracks, rates, left, right)


def read_rate(experiment: Experiment, biosample: Biosample, chrom: str) -> Array:
    """Return the expected 5' ends of kept reads per bin, shape (L,).

    Paired-end: both ends of every fragment, less the mates that became unmapped (an orphan loses either mate with equal
    chance). Single-end: one end of every fragment, chosen at random.
    """
    both = experiment.left_rate[chrom] + experiment.right_rate[chrom]
    if not biosample.paired:
        return round_to_bits(both / 2)
    n_fragments = sum(rate.sum() for rate in experiment.left_rate.values())
    return round_to_bits(both * (1 - biosample.noise.orphans / (2 * n_fragments)))
