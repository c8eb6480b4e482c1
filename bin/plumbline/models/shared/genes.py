"""Whether a model that knows only human genes can take a data set, and under which names its genes go."""

import csv
from dataclasses import dataclass, field, replace

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.common.files import sha256
from plumbline.counts.reading import Counts
from plumbline.data.facts import read_facts
from plumbline.embedding.options import Options
from plumbline.genes import names as gene_names
from plumbline.genes import orthologs
from plumbline.models.shared.fitting import counts_share, x_kind

SETTINGS = ("organism", "orthologs")


@dataclass(frozen=True)
class HumanCounts:
    """Counts of which the genes go by human names ('' where unknown). orthologs: how they got them; {} if they are human.

    Columns that name one human gene are added: the first holds the sum, the others have neither counts nor a name.
    names: what ``named`` looked up.
    """

    counts: Counts
    orthologs: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)

    def facts(self) -> dict:
        """For the provenance: what ``named`` says, and {"orthologs": {table, sha256, genes_mapped, genes_without_ortholog,
        genes_added, counts_mapped}}; the last is the share of all counts, 0..1, for which the cells are read once."""
        if not self.orthologs:
            return self.names
        named = (self.counts.ensembl_id != "") | (self.counts.symbol != "")
        return self.names | {"orthologs": self.orthologs | {"counts_mapped": counts_share(self.counts, np.flatnonzero(named))}}


def human_counts(counts: Counts, options: Options, kinds: tuple[str, ...] = ("counts",), by: str = "") -> HumanCounts:
    """The data set for a model trained on human cells.

    by: the names the model reads, ensembl_id or symbol; genes that have the other name alone get it by ``named``.
    Mouse genes go by their one-to-one human orthologs (orthologs.py). The setting ``orthologs`` names another table: two
    columns (gene of the data set, human gene; each an Ensembl id or a symbol); ``none`` uses no table. Raises NotApplicable
    for another organism without a table, and for data whose X is none of ``kinds`` (counts, log, signed).
    """
    kind = x_kind(options)
    if kind not in kinds:
        raise NotApplicable(f"{options.variant} needs {' or '.join(kinds)} and the data set holds {kind} values")
    human = _under_human_names(counts, options)
    if not by:
        return human
    filled, names = named(human.counts, by, "human")
    return replace(human, counts=filled, names=names)


def _under_human_names(counts: Counts, options: Options) -> HumanCounts:
    table, organism = options.settings.get("orthologs", ""), organism_of(counts, options)
    if table not in ("", "none"):
        return _rename(counts, *_by_file(counts, table), {"table": table, "sha256": sha256(table)})
    if organism in gene_names.HUMAN:
        return HumanCounts(counts)
    found = by_mouse_orthologs(counts) if organism in orthologs.MOUSE and not table else None
    if found is None:
        raise NotApplicable(
            f"{options.variant} knows human genes only and the data set is {organism}{_why(counts, organism, table)}; "
            "a table of orthologs can be given with --set orthologs=FILE"
        )
    return found


def named(counts: Counts, by: str, organism: str) -> tuple[Counts, dict]:
    """``counts`` with the blanks among their names ``by`` (ensembl_id or symbol) filled as far as gene_names.py knows them.

    Also what the provenance says of it: {}, or {"gene_names": {table, sha256, filled, genes}}, genes being how many were.
    """
    fill = {"ensembl_id": gene_names.fill_ensembl, "symbol": gene_names.fill_symbol}[by]
    names, before = fill(counts.ensembl_id, counts.symbol, organism), getattr(counts, by)
    n = int((names != before).sum())
    if not n:
        return counts, {}
    table, digest = gene_names.table_of(organism)
    return replace(counts, **{by: names}), {"gene_names": {"table": table, "sha256": digest, "filled": by, "genes": n}}


def by_mouse_orthologs(counts: Counts) -> HumanCounts | None:
    """Mouse counts under the names of one-to-one human orthologs; None if no gene has one."""
    names = np.where(counts.ensembl_id == "", counts.symbol, counts.ensembl_id)
    ensembl, symbol = orthologs.human_names(names)
    if not (ensembl != "").any():
        return None
    return _rename(counts, ensembl, symbol, {"table": orthologs.TABLE.name, "sha256": orthologs.SHA256})


def organism_of(counts: Counts, options: Options) -> str:
    """The data set's organism in lower case: setting, PREPARE's facts, else what the Ensembl ids say."""
    return str(options.get("organism", read_facts(options.tables).get("organism") or _guess(counts.ensembl_id))).lower()


def require_genes(n_known: int, names: np.ndarray, variant: str) -> None:
    """Raises UserError if a model knows none of the genes: the ids are of another kind, not the cells empty."""
    if not n_known:
        examples = ", ".join(str(name) for name in names[:3]) or "no names at all"
        raise UserError(
            f"{variant} knows none of the {len(names)} genes (first: {examples}). Give human Ensembl ids in the var column "
            "ensembl_id and symbols in the var column symbol."
        )


def _guess(ensembl_id: np.ndarray) -> str:
    """Outside the pipeline nobody states the organism, but mouse ids do."""
    mouse = np.char.startswith(np.char.upper(ensembl_id.astype(str)), "ENSMUS")
    return "mouse" if len(mouse) and mouse.mean() > 0.5 else "human"


def _why(counts: Counts, organism: str, table: str) -> str:
    if organism not in orthologs.MOUSE or table:
        return ""
    examples = ", ".join(np.where(counts.ensembl_id == "", counts.symbol, counts.ensembl_id)[:3])
    return f", none of whose {counts.shape[1]} genes (first: {examples}) has a one-to-one human ortholog"


def _rename(counts: Counts, ensembl: np.ndarray, symbol: np.ndarray, about: dict) -> HumanCounts:
    mapped = (ensembl != "") | (symbol != "")
    renamed = counts.renamed(ensembl, symbol)
    left = int(((renamed.ensembl_id != "") | (renamed.symbol != "")).sum())
    n = int(mapped.sum())
    about |= {"genes_mapped": n, "genes_without_ortholog": len(mapped) - n, "genes_added": n - left}
    return HumanCounts(renamed, about)


def _by_file(counts: Counts, file: str) -> tuple[np.ndarray, np.ndarray]:
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
