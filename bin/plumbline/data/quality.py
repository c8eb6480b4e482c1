"""What a reader should know of a data set before believing any score: sizes, confounding, gene identity, warnings."""

import numpy as np
import pandas as pd

from plumbline.data.catalogue import Dataset
from plumbline.data.cells import CellTable
from plumbline.data.features import not_named_as_genes
from plumbline.data.genes import Genes
from plumbline.data.prepare import Sums
from plumbline.data.prepared import Prepared
from plumbline.genes.combinations import split_genes
from plumbline.genes.names import fill_ensembl

GENETIC = ("crispri", "crispra", "crisprko", "shrna", "overexpression")


def data_report(prepared: Prepared) -> dict:
    """The data report, ready for JSON (layout: docs/datasets.md)."""
    dataset, cells = prepared.dataset, prepared.cells
    report = {
        "cells": _cells(prepared.labels, cells),
        "counts": _counts(prepared.sums, cells, prepared.gene_table),
        "batches": _batches(cells),
        "perturbations": _perturbations(cells),
        "confounding": confounding(cells),
        "genes": _genes(dataset, prepared.genes, cells) | {"not_named_as_genes": _strange(prepared)},
    }
    return report | {"warnings": [*warnings(dataset, report), *prepared.labels.notes, *prepared.genes.notes]}


def _strange(prepared: Prepared) -> list[str]:
    table = prepared.gene_table
    names = table.loc[table["ensembl_id"] == "", "gene_id"].to_numpy(dtype=str)
    unknown = prepared.labels.unknown if prepared.dataset.organism != "other" else prepared.labels.unknown[:0]
    return not_named_as_genes(names, prepared.annotations, unknown)


def _cells(labels: CellTable, cells: pd.DataFrame) -> dict:
    return {
        "input": len(labels.cell_id),
        "kept": len(cells),
        "controls": int(cells["is_control"].sum()),
        "dropped_no_perturbation": labels.missing["perturbation"],
        "dropped_no_batch": int((~labels.usable).sum()) - labels.missing["perturbation"],
        "dropped_min_counts": int(labels.usable.sum()) - len(cells),
    }


def _counts(sums: Sums, cells: pd.DataFrame, table: pd.DataFrame) -> dict:
    detected = np.concatenate(sums.detected)
    share = float(detected.sum() / (len(cells) * len(table)))
    medians = {"median_counts": float(cells["n_counts"].median()), "median_genes": float(np.median(detected))}
    before = {"median_counts_before": float(np.median(np.concatenate(sums.all_totals)))}
    return medians | before | {"share_nonzero": share, "min_counts_for_95_percent": sums.fitting_min_counts()}


def _batches(cells: pd.DataFrame) -> list[dict]:
    perturbed = cells[~cells["is_control"]].groupby("batch")["perturbation"].nunique()
    sizes = cells.groupby("batch")["is_control"].agg(["size", "sum"])
    return [
        {
            "batch": str(batch),
            "cells": int(row["size"]),
            "controls": int(row["sum"]),
            "perturbations": int(perturbed.get(batch, 0)),
        }
        for batch, row in sizes.iterrows()
    ]


def _perturbations(cells: pd.DataFrame) -> dict:
    sizes = cells.loc[~cells["is_control"], "perturbation"].value_counts()
    return {
        "n": len(sizes),
        "cells_min": int(sizes.min()),
        "cells_median": float(sizes.median()),
        "cells_max": int(sizes.max()),
        "below_2_cells": int((sizes < 2).sum()),
        "below_5_cells": int((sizes < 5).sum()),
        "control_labels": sorted(cells.loc[cells["is_control"], "perturbation"].unique().tolist()),
    }


def confounding(cells: pd.DataFrame) -> dict:
    """How far batch and perturbation (controls excluded) are the same thing.

    cramers_v: bias-corrected (Bergsma 2013, J Korean Stat Soc 42:323), 0 = independent, 1 = the same; None where there is
    one batch or one perturbation. share_in_one_batch: perturbations seen in a single batch. share_with_controls: perturbed
    cells in batches that have controls. level: 'none'; 'partial' (V > 0.3); 'nested' (every perturbation in one batch only,
    controls beside it); 'full' (no perturbed cell shares a batch with a control, or there are none and it is nested: batch
    effects and perturbation effects cannot be told apart).
    """
    perturbed, controls = cells[~cells["is_control"]], cells[cells["is_control"]]
    counts = pd.crosstab(perturbed["perturbation"], perturbed["batch"]).to_numpy()
    single = float(((counts > 0).sum(axis=1) == 1).mean())
    shared = float(perturbed["batch"].isin(controls["batch"].unique()).mean())
    v = cramers_v(counts)
    apart = len(controls) > 0 and shared == 0
    nested = single == 1 and cells["batch"].nunique() > 1
    level = (
        "full" if apart or (nested and not len(controls)) else "nested" if nested else "partial" if (v or 0) > 0.3 else "none"
    )
    return {"cramers_v": v, "share_in_one_batch": single, "share_with_controls": shared, "level": level}


def cramers_v(counts: np.ndarray) -> float | None:
    """Bias-corrected Cramer's V of a contingency table (rows x columns, no empty row or column); None if it has one row."""
    n, (rows, columns) = counts.sum(), counts.shape
    if min(rows, columns) < 2 or n < 2:
        return None
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / n
    phi2 = ((counts - expected) ** 2 / expected).sum() / n
    corrected = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, np.sqrt(corrected / smaller))) if smaller > 0 else None


def _genes(dataset: Dataset, genes: Genes, cells: pd.DataFrame) -> dict:
    table = genes.table
    found = fill_ensembl(table["ensembl_id"].to_numpy(str), table["symbol"].to_numpy(str), dataset.organism)
    about = {
        "input": len(genes.target),
        "kept": len(table),
        "merged": genes.n_merged,
        "share_ensembl": float((table["ensembl_id"] != "").mean()),
        "share_ensembl_found": float((found != "").mean()),
        "share_symbol": float((table["symbol"] != "").mean()),
        "share_known": genes.n_known / len(table),
        "left_out": genes.left_out,
    }
    if dataset.perturbation_type not in GENETIC:
        return about | {"perturbed": None, "perturbed_measured": None}
    names = {gene for name in cells.loc[~cells["is_control"], "perturbation"].unique() for gene in split_genes(name)}
    measured = names & {*table["symbol"], *table["ensembl_id"], *table["gene_id"]}
    return about | {"perturbed": len(names), "perturbed_measured": len(measured)}


def warnings(dataset: Dataset, report: dict) -> list[str]:
    """What is odd about the data, in plain words; empty if nothing is."""
    cells, genes, batches, mixing = (report[key] for key in ("cells", "genes", "batches", "confounding"))
    without = [row["batch"] for row in batches if not row["controls"]]
    one, few = mixing["share_in_one_batch"], report["perturbations"]["below_2_cells"]
    lone = sum(row["perturbations"] == 1 for row in batches)
    other, strange = genes["left_out"], genes["not_named_as_genes"]
    told = {
        "The data set has no controls: what compares with controls is not applicable.": not cells["controls"],
        "The data set has no batches (or one): splits are by cell, batch tasks are not applicable.": len(batches) < 2,
        "Batch and perturbation are fully confounded: no score can tell a perturbation effect from a batch effect.": (
            mixing["level"] == "full"
        ),
        "Every perturbation is seen in one batch only: its effect is confounded with what differs between batches.": (
            mixing["level"] == "nested"
        ),
        f"{one:.0%} of the perturbations are seen in one batch only.": mixing["level"] == "partial" and one > 0.2,
        f"Batch and perturbation depend on each other (Cramer's V {mixing['cramers_v'] or 0:.2f}); {lone} of {len(batches)} "
        "batches hold one perturbation only. What differs between batches passes for effects in part.": (
            mixing["level"] == "partial"
        ),
        f"{len(without)} of {len(batches)} batches have no controls; they are aligned on the controls of the other batches.": (
            bool(without) and bool(cells["controls"]) and mixing["level"] != "full"
        ),
        f"{cells['dropped_no_perturbation']} cells have no perturbation label and were dropped{_if_controls(cells)}.": cells[
            "dropped_no_perturbation"
        ],
        f"{cells['dropped_no_batch']} cells have no batch label and were dropped.": cells["dropped_no_batch"],
        f"{cells['dropped_min_counts']} of {cells['input']} cells with at most {dataset.min_counts:g} counts were dropped"
        f"{_suggestion(dataset, report)}.": (
            cells["dropped_min_counts"] > 0.2 * cells["input"] or (dataset.min_counts == 0 and cells["dropped_min_counts"])
        ),
        f"{few} perturbations have fewer than 2 cells.": few,
        f"{genes['merged']} genes occur more than once in the input and were added up.": genes["merged"],
        f"{sum(other.values())} features are not gene expression and were left out ({_listed(other)}).": bool(other),
        f"{len(strange)} features are named as guides, antibodies, annotations or perturbations, not as genes (such as "
        f"{', '.join(strange[:3])}). If they are, they tell the perturbation: remove them, or name their type in a column "
        "feature_types.": bool(strange),
        f"Only {genes['kept']} genes: models that need the whole transcriptome see little of it.": genes["kept"] < 2000,
        f"Only {genes['share_ensembl_found']:.0%} of the genes have an Ensembl id, or a symbol of which one is known: models "
        "keyed by Ensembl ids see little of the data.": genes["share_ensembl_found"] < 0.5,
        f"{genes['perturbed_measured']} of {genes['perturbed']} perturbed genes are measured.": (
            genes["perturbed"] and genes["perturbed_measured"] < 0.5 * genes["perturbed"]
        ),
    }
    return [text for text, applies in told.items() if applies]


def _suggestion(dataset: Dataset, report: dict) -> str:
    fitting = report["counts"]["min_counts_for_95_percent"]
    return f"; min_counts {fitting} in the sheet would keep 95 % of them" if fitting < dataset.min_counts else ""


def _if_controls(cells: dict) -> str:
    return "" if cells["controls"] else "; if they are the controls, give them a label and name it as control_label"


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name or 'no type'}: {n}" for name, n in numbers.items())
