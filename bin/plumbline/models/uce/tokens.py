"""How UCE turns a cell into a sentence: genes drawn by expression, laid out along the chromosomes.

Rosen et al. 2023 (bioRxiv 2023.11.28.568918), "Universal Cell Embeddings". A sentence is CLS, then for every chromosome in
random order: its token, its drawn genes by start position (a gene may be drawn several times), and a closing token.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import NotApplicable, UserError
from plumbline.common.random import generator_of
from plumbline.counts.reading import Counts
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.weights import fetch_hint, load_dictionary, load_tensors, open_file, whole_numbers
from plumbline.models.shared.genes import organism_of

if TYPE_CHECKING:
    import pandas as pd

PAD, CHROMOSOME_END, CLS = 0, 2, 3
MIN_CELLS, MIN_GENES = 10, 25  # upstream's filter
SAMPLE_SIZE = 1024  # genes drawn per cell
SPECIES = {  # the species of the released token table, and how the file of their proteins begins
    "human": "Homo_sapiens",
    "mouse": "Mus_musculus",
    "frog": "Xenopus_tropicalis",
    "zebrafish": "Danio_rerio",
    "mouse_lemur": "Microcebus_murinus",
    "pig": "Sus_scrofa",
    "macaca_fascicularis": "Macaca_fascicularis",
    "macaca_mulatta": "Macaca_mulatta",
}


@dataclass(frozen=True)
class Genome:
    """What UCE knows about the genes of a data set.

    columns (k,): the columns of the count matrix it uses, ascending. token (k,): row in the token table; several columns may
    share one (symbols that differ in case only). chromosome (k,): category code; ``chromosome_offset`` + code is its token.
    start (k,): position on the chromosome. unplaced: genes with a protein but without a position, left out.
    """

    columns: np.ndarray
    token: np.ndarray
    chromosome: np.ndarray
    start: np.ndarray
    chromosome_offset: int
    unplaced: int = 0


def species_name(organism: str) -> str:
    """UCE's name of an organism ('Homo sapiens', 'human', 'mouse', ...). Raises NotApplicable for any other."""
    name = organism.strip().lower().replace(" ", "_")
    latin = {latin.lower(): species for species, latin in SPECIES.items()}
    if name in SPECIES or name in latin:
        return latin.get(name, name)
    raise NotApplicable(f"UCE has no proteins of {organism!r}; it knows {', '.join(SPECIES)} (--set species=...)")


def organism(counts: Counts, options: Options) -> str:
    """UCE's name of the species: setting species, else the organism of PREPARE's facts, else what the Ensembl ids say.

    Upper-cased symbols of mice are those of people, so that a wrong guess would go unnoticed.
    """
    return species_name(str(options.get("species", organism_of(counts, options))))


def upstream_filter(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers kept, genes kept (n_genes,) bool): genes in >= 10 cells of the file, then cells with >= 25 such genes.

    Upstream's default (scanpy's filter_genes and filter_cells). It makes a cell's embedding depend on the other cells.
    """
    n_cells = sum((np.bincount(block.indices[block.data > 0], minlength=counts.shape[1]) for _, block in counts.blocks()))
    genes = np.broadcast_to(n_cells >= MIN_CELLS, counts.shape[1])
    n_genes = [np.asarray((block[:, genes] > 0).sum(axis=1)).ravel() for _, block in counts.blocks()]
    return np.flatnonzero(np.concatenate([np.zeros(0), *n_genes]) >= MIN_GENES), genes


def read_genome(folder: Path, variant: str, species: str, symbols: np.ndarray, n_tokens: int, offset: int = 0) -> Genome:
    """Match the gene ``symbols`` of a data set to UCE's tokens, as upstream does: upper-cased, genes without a token dropped.

    folder: species_chrom.csv, species_offsets.pkl (or .json) and the protein files. n_tokens: rows of the token table.
    offset: first chromosome token; 0 derives it: the chromosomes of all species are the table's last rows.
    Raises NotApplicable if no gene matches, UserError if files are missing or do not belong together.
    """
    names = protein_names(folder, variant, species)
    code, start, n_chromosomes = _positions(folder, variant, species)
    first = first_token(folder, variant, species)
    offset = offset or n_tokens - n_chromosomes
    if not first + len(names) <= offset <= n_tokens - n_chromosomes:
        raise UserError(
            f"{folder}: {n_tokens} tokens cannot hold {len(names)} {species} genes from row {first} and {n_chromosomes} "
            f"chromosomes from row {offset}: these files do not belong together. {fetch_hint(variant)} "
            "(other species files: --set chrom_token_offset=...)"
        )
    upper = [str(symbol).upper() for symbol in symbols]
    known = [column for column, symbol in enumerate(upper) if symbol in names]
    placed = [column for column in known if upper[column] in code]
    if not placed:
        raise NotApplicable(
            f"none of the {len(upper)} gene symbols is a {species} gene of UCE (first: {', '.join(symbols[:3])}); "
            "is the organism right, and are these symbols?"
        )
    kept = [upper[column] for column in placed]
    token = np.array([first + names[symbol] for symbol in kept])
    chromosome = np.array([code[symbol] for symbol in kept])
    starts = np.array([start[symbol] for symbol in kept])
    return Genome(np.array(placed), token, chromosome, starts, offset, len(known) - len(placed))


def protein_names(folder: Path, variant: str, species: str) -> dict[str, int]:
    """Upper-cased symbol -> position among the species' proteins. The vectors themselves are in the checkpoint."""
    pattern = f"{SPECIES[species]}.*gene_symbol_to_embedding_ESM2.pt"
    found = sorted(folder.rglob(pattern))
    path = found[0] if found else folder / "protein_embeddings" / pattern
    unique = dict.fromkeys(symbol.upper() for symbol in load_tensors(path, variant))
    return {symbol: position for position, symbol in enumerate(unique)}


def _positions(folder: Path, variant: str, species: str) -> tuple[dict[str, int], dict[str, int], int]:
    """(symbol -> chromosome code, symbol -> start, number of chromosomes of all species), from species_chrom.csv.

    Codes count the sorted 'species_chromosome' names of the whole table. Of a symbol listed twice the first row counts
    (upstream's look-up would shift every later gene).
    """
    import pandas as pd

    path = folder / "species_chrom.csv"
    open_file(path, variant).close()
    with understood(path, "is not a table with the columns gene_symbol, chromosome, start, species", variant):
        table = pd.read_csv(path, dtype={"chromosome": str})
        name = pd.Categorical(table["species"] + "_" + table["chromosome"])
    mine = table.assign(code=name.codes)[table["species"] == species].drop_duplicates("gene_symbol")
    return _column(mine, "code"), _column(mine, "start"), len(name.categories)


def _column(table: "pd.DataFrame", name: str) -> dict[str, int]:
    return dict(zip(table["gene_symbol"], table[name], strict=True))


def first_token(folder: Path, variant: str, species: str) -> int:
    """The species' first row in the token table, from the authors' pickle or its JSON copy."""
    path = folder / "species_offsets.pkl"
    copy = path.with_suffix(".json")
    offsets = json.loads(copy.read_text()) if copy.exists() and not path.exists() else load_dictionary(path, variant)
    if species not in offsets:
        raise UserError(f"{path} has no offset for {species} (it has {', '.join(map(str, offsets))}). {fetch_hint(variant)}")
    return whole_numbers({species: offsets[species]}, path, variant)[species]


def expression_weights(block: sp.csr_matrix) -> np.ndarray:
    """log1p of whole counts, float32, for the stored values of ``block``: fractions are cut off, as upstream stores integers.

    Torch's logarithm, not numpy's: they differ in the last bit, which can move a draw.
    """
    import torch

    return torch.log1p(torch.from_numpy(block.data.astype(np.int64))).numpy()


def draw_genes(
    weights: np.ndarray, genes: np.ndarray, n_genes: int, rng: np.random.RandomState | np.random.Generator
) -> np.ndarray:
    """Draw SAMPLE_SIZE ``genes`` with replacement in proportion to their ``weights``: (SAMPLE_SIZE,) of the values in genes.

    The float32 sums are upstream's, over a dense row of ``n_genes`` and then one by one, so that the same random numbers give
    the same genes.
    """
    import torch

    dense = torch.zeros(n_genes)
    dense[torch.from_numpy(genes)] = torch.from_numpy(weights)
    share = weights / dense.sum().numpy()
    share = share / np.cumsum(share)[-1]
    cumulative = np.cumsum(share.astype(np.float64))
    return genes[np.searchsorted(cumulative / cumulative[-1], rng.random(SAMPLE_SIZE), side="right")]


def sentence(drawn: np.ndarray, genome: Genome, rng: np.random.RandomState | np.random.Generator) -> np.ndarray:
    """Token ids (1 + SAMPLE_SIZE + 2 x chromosomes,) of the ``drawn`` genes (indices into the genome).

    Genes that start at the same place keep the order in which they were drawn (upstream leaves it to an unstable sort).
    """
    drawn = drawn[np.lexsort((genome.start[drawn], genome.chromosome[drawn]))]
    codes, first, size = np.unique(genome.chromosome[drawn], return_index=True, return_counts=True)
    shuffled = codes.copy()
    rng.shuffle(shuffled)
    order = np.searchsorted(codes, shuffled)
    begin = np.empty(len(codes), dtype=np.int64)
    begin[order] = 1 + np.concatenate([[0], np.cumsum(size[order] + 2)[:-1]])
    tokens = np.empty(1 + len(drawn) + 2 * len(codes), dtype=np.int64)
    tokens[0] = CLS
    tokens[begin] = genome.chromosome_offset + codes
    tokens[begin + size + 1] = CHROMOSOME_END
    inside = np.arange(len(drawn)) - np.repeat(first, size)
    tokens[np.repeat(begin, size) + 1 + inside] = genome.token[drawn]
    return tokens


def cell_generator(cell_id: str, seed: int) -> np.random.Generator:
    """Random numbers that belong to one cell, whatever its neighbours, its place in the file or its shard."""
    return generator_of(f"{seed}:{cell_id}")
