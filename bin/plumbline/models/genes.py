"""Whether a model that knows only human genes can take a data set, and under which names its genes go."""

import csv
import json

import numpy as np

from plumbline.counts import Counts
from plumbline.embedding_cli import Options
from plumbline.errors import NotApplicable, UserError

SETTINGS = ("organism", "orthologs")
HUMAN = ("human", "homo sapiens", "homo_sapiens", "hsapiens")


def human_genes(counts: Counts, options: Options, kinds: tuple[str, ...] = ("counts",)) -> tuple[np.ndarray, np.ndarray]:
    """(Ensembl ids, symbols) of the genes, '' where unknown, for a model trained on human cells.

    Raises NotApplicable for another organism, unless the setting ``orthologs`` names a table of two columns (gene of the
    data set, human gene; each an Ensembl id or a symbol); and for data whose X is none of ``kinds`` (counts, log, signed).
    """
    facts = _facts(options)
    kind = facts.get("x_kind", "counts")
    if kind not in kinds:
        raise NotApplicable(f"{options.variant} needs {' or '.join(kinds)} and the data set holds {kind} values")
    if "orthologs" in options.settings:
        return _by_orthologs(counts, options.settings["orthologs"])
    organism = str(options.get("organism", facts.get("organism") or _guess(counts.ensembl_id)))
    if organism.lower() not in HUMAN:
        raise NotApplicable(
            f"{options.variant} knows human genes only and the data set is {organism}; "
            "a table of orthologs can be given with --set orthologs=FILE"
        )
    return counts.ensembl_id, counts.symbol


def require_genes(n_known: int, names: np.ndarray, variant: str) -> None:
    """Raises UserError if a model knows none of the genes: the ids are of another kind, not the cells empty."""
    if not n_known:
        examples = ", ".join(str(name) for name in names[:3]) or "no names at all"
        raise UserError(
            f"{variant} knows none of the {len(names)} genes (first: {examples}). Give human Ensembl ids in the var column "
            "ensembl_id and symbols in the var column symbol."
        )


def _facts(options: Options) -> dict:
    file = options.tables / "dataset.json" if options.tables else None
    return json.loads(file.read_text()) if file and file.exists() else {}


def _guess(ensembl_id: np.ndarray) -> str:
    """Outside the pipeline nobody states the organism, but mouse ids do."""
    mouse = np.char.startswith(np.char.upper(ensembl_id.astype(str)), "ENSMUS")
    return "mouse" if len(mouse) and mouse.mean() > 0.5 else "human"


def _by_orthologs(counts: Counts, file: str) -> tuple[np.ndarray, np.ndarray]:
    table = _read_orthologs(file)
    human = [table.get(e) or table.get(s) or "" for e, s in zip(counts.ensembl_id, counts.symbol, strict=True)]
    require_genes(sum(map(bool, human)), counts.symbol, f"the ortholog table {file}")
    ensembl = [name if name.startswith("ENSG") else "" for name in human]
    symbol = ["" if name.startswith("ENSG") else name for name in human]
    return np.array(ensembl, dtype=str), np.array(symbol, dtype=str)


def _read_orthologs(file: str) -> dict[str, str]:
    try:
        with open(file, newline="") as stream:
            rows = [row for row in csv.reader(stream, delimiter="\t" if file.endswith((".tsv", ".txt")) else ",") if row]
    except OSError as error:
        raise UserError(f"--set orthologs={file}: it cannot be read ({error.strerror}).") from error
    table: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(f"{file}, line {number}: expected two columns (gene, human gene), found {len(row)}.")
        if table.setdefault(row[0], row[1]) != row[1]:
            raise UserError(f"{file}, line {number}: {row[0]} has a second human ortholog. Keep one row a gene.")
    return table
