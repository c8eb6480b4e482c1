"""Cells as the average of pretrained gene vectors, weighted by expression.

GenePT-w (Chen & Zou 2023, doi:10.1101/2023.10.16.562533): log-normalised expression (cells, genes) times gene vectors
(genes, d), each row scaled to unit length. Any table of gene vectors will do: text embeddings of gene summaries (GenePT),
co-expression (gene2vec, Du et al. 2019), proteins (ESM2).
"""

from pathlib import Path

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.common.files import UNREADABLE, sha256
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.genes.orthologs import MOUSE
from plumbline.models.shared.fitting import INPUTS, choice, counts_share, transform, x_kind
from plumbline.models.shared.genes import HumanCounts, by_mouse_orthologs, human_counts, organism_of

READERS = (".npz", ".csv", ".tsv", ".parquet", ".txt")


def embed(counts: Counts, options: Options) -> Result:
    """Unit vectors (n_cells, d) of all cells. Settings: vectors_file, input (lognorm or raw), organism, orthologs.

    Raises NotApplicable if no gene of the data set has a vector, UserError if the file of vectors cannot be used.
    """
    path = find_file(options)
    names, vectors = read_vectors(path)
    by_names = choose_names(counts, options, names)
    counts = by_names.counts
    columns, rows, by = match(counts, names)
    kind, values_read = x_kind(options), choice(options, "input", INPUTS)
    apply = transform(kind, values_read, columns)
    values = np.empty((counts.shape[0], vectors.shape[1]), dtype=np.float32)
    for cells, block in counts.blocks():
        values[cells] = apply(block) @ vectors[rows]
    length = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, length, out=np.full_like(values, np.nan), where=length > 0)
    about = {"checkpoint": path.name, "checkpoint_sha256": sha256(path), "input": values_read, "matched_by": by}
    about |= {"n_vectors": len(names), "attends_across_cells": False, **by_names.facts()}
    share, empty = counts_share(counts, columns), int((length == 0).sum())
    return Result(
        values=values, genes_used=len(columns), genes_total=counts.shape[1], counts_used=share, unembedded=empty, extra=about
    )


def choose_names(counts: Counts, options: Options, names: np.ndarray) -> HumanCounts:
    """The genes under their own names, or under those of human orthologs: by a table that is given, and for mouse genes if
    more of the vectors' ``names`` are (exactly) names of their orthologs than of themselves."""
    given = options.settings.get("orthologs", "")
    if given not in ("", "none"):
        return human_counts(counts, options, kinds=("counts", "log", "signed"))
    own = HumanCounts(counts)
    if given == "none" or organism_of(counts, options) not in MOUSE:
        return own
    mapped = by_mouse_orthologs(counts) or own
    known = set(names.tolist())
    return max(own, mapped, key=lambda some: len(known & {*some.counts.ensembl_id, *some.counts.symbol}))


def find_file(options: Options) -> Path:
    """The file of vectors: --weights itself, or in that folder the file vectors_file or the only one of a known format."""
    folder = options.weights
    if folder is None or not folder.exists():
        raise UserError(f"--weights {folder}: give a file of gene vectors ({', '.join(READERS)}), or a folder with one.")
    if folder.is_file():
        return folder
    name = str(options.get("vectors_file", ""))
    found = [folder / name] if name else sorted(path for path in folder.iterdir() if path.suffix in READERS)
    if len(found) != 1 or not found[0].is_file():
        have = ", ".join(path.name for path in sorted(folder.iterdir())) or "nothing"
        raise UserError(f"{folder}: no single file of gene vectors (it holds {have}). Choose with --set vectors_file=NAME.")
    return found[0]


def read_vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(gene names (k,), vectors (k, d) float32) of a file.

    .npz: arrays gene and vector. .csv, .tsv, .parquet: first column gene, the others numbers. .txt: word2vec, 'GENE x x x' a
    line, with or without the header 'k d'. Of a gene listed twice the first counts. Raises UserError on
    anything else, NaN included.
    """
    try:
        names, vectors = _read(path)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    except UNREADABLE as error:
        raise UserError(f"{path} holds no gene vectors ({error}). See docs/adding_a_model.md for the formats.") from error
    if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.size or not np.isfinite(vectors).all():
        raise UserError(f"{path}: {len(names)} genes and an array {vectors.shape}; expected one finite vector a gene.")
    return names, vectors


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["gene"].astype(str), arrays["vector"]
    import pandas as pd

    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        table = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    elif path.suffix in (".csv", ".tsv"):
        table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", keep_default_na=False)
    elif path.suffix == ".txt":
        first = path.open().readline().split()
        table = pd.read_csv(path, sep=r"\s+", header=None, skiprows=int(len(first) == 2), keep_default_na=False)
    else:
        raise ValueError(f"the name ends in none of {', '.join(READERS)}")
    return table.iloc[:, 0].to_numpy(dtype=str), table.iloc[:, 1:].to_numpy(dtype=np.float32)


def match(counts: Counts, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """(columns of the file, rows of the vectors, 'symbol' or 'ensembl_id': whichever more genes match, case ignored)."""
    index = {name.upper(): row for row, name in reversed(list(enumerate(names)))}
    by = {"symbol": counts.symbol, "ensembl_id": np.array([name.partition(".")[0] for name in counts.ensembl_id])}
    rows = {kind: np.array([index.get(gene.upper(), -1) if gene else -1 for gene in genes]) for kind, genes in by.items()}
    best = max(rows, key=lambda kind: (rows[kind] >= 0).sum())
    columns = np.flatnonzero(rows[best] >= 0)
    if not len(columns):
        raise NotApplicable(f"none of the {counts.shape[1]} genes has a vector (the first vectors: {', '.join(names[:3])})")
    return columns, rows[best][columns], best
