"""Which features of a data set are genes: guides, antibodies and hashtags that lie beside them are not expression."""

import re

import numpy as np
import pandas as pd

EXPRESSION = "gene expression"
TYPE_COLUMNS = ("feature_types", "feature_type")
# Cell Ranger's feature types; any other text (protein_coding, Gene, ...) says something else than this
OTHER_TYPES = ("antibody capture", "antigen capture", "crispr guide capture", "multiplexing capture", "custom", "peaks",
               "chromatin accessibility", "spike-in", "hto", "adt", "grna", "sgrna", "vdj", "vdj-t", "vdj-b")  # fmt: skip
NOT_GENES = re.compile(
    r"(sg|g|guide[_ -]?)rna[s_-]?.*|.*[_-](sg|g)rna\d*|.*totalseq.*|(hto|adt|hashtag|cmo)[_-]?\d.*|cd\d+\w*[_-](adt|prot|ab)|"
    r"(n_?counts?|n_?umis?|n_?genes?|ncount_rna|nfeature_rna|pct_counts_mt|percent[._]mt|guide_(umi|count)s?|batch)",
    flags=re.IGNORECASE,
)


MEASURED = re.compile(r".*(umi|count|n_gene|nfeature|pct|percent|score|size_factor|depth|total).*", flags=re.IGNORECASE)
FEW = 20  # different numbers that a column of batches or guides may hold, whatever it is called


def measurement_notes(columns: dict[str, tuple[str | None, np.ndarray]]) -> list[str]:
    """Sentences about columns of the sheet that hold a measurement of each cell rather than its labels.

    columns: {column of the sheet: (column of obs, labels (n,))}. Counts of guides or of targets would tell the perturbation.
    """
    notes = []
    for role, (name, labels) in columns.items():
        values = pd.unique(labels[labels != ""]) if name else labels[:0]
        numbers = pd.to_numeric(pd.Series(values, dtype=str), errors="coerce").notna().all()
        if len(values) > FEW and numbers and (MEASURED.fullmatch(name or "") or 3 * len(values) > len(labels)):
            what = f"The {role} '{name}' holds {len(values)} different numbers, as a measurement of each cell does"
            tells = "" if role == "perturbation_column" else " (such as counts of guides, which tell the perturbation)"
            notes.append(f"{what}{tells}. Name the column of labels.")
    return notes


def genes_of(var: pd.DataFrame) -> tuple[np.ndarray | None, dict[str, int]]:
    """(positions of the features that are gene expression, {other type: number of features left out}).

    None: the table does not tell types apart, all features are taken for genes.
    """
    for column in TYPE_COLUMNS:
        if column not in var:
            continue
        types = var[column].str.strip().str.lower().to_numpy(dtype=str)
        other = np.isin(types, OTHER_TYPES) if (types != EXPRESSION).all() else types != EXPRESSION
        if other.any():
            names, counts = np.unique(var[column].to_numpy(dtype=str)[other], return_counts=True)
            return np.flatnonzero(~other), dict(zip(names.tolist(), counts.tolist(), strict=True))
    return None, {}


def not_named_as_genes(names: np.ndarray, annotations: list[str], perturbations: np.ndarray) -> list[str]:
    """Features (without an Ensembl id) named as guides, antibodies, cell annotations or perturbed cells, not as genes.

    perturbations: labels that are not known genes. Counts of them would tell the perturbation itself.
    """
    others = {*map(str.lower, annotations), *map(str.lower, perturbations.tolist())}
    return [name for name in names.tolist() if NOT_GENES.fullmatch(name) or name.lower() in others]
