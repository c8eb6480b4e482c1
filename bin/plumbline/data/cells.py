"""The cells of an input in one vocabulary: perturbation, control flag, batch; what is missing is counted."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.labels import among
from plumbline.counts.gene_columns import gene_names
from plumbline.data.catalogue import NONE, Dataset, labels_in
from plumbline.data.features import measurement_notes
from plumbline.data.ingest import CountsFile
from plumbline.data.label_notes import label_notes
from plumbline.genes.combinations import is_combination, joined_otherwise, like_control, normalise, split_genes
from plumbline.genes.organism import known

NO_BATCH = "all"
COMPOUNDS = ("chemical", "cytokine")  # their names hold every sign that joins genes


@dataclass(frozen=True, kw_only=True)
class CellTable:
    """Labels of all rows of the input, arrays of length n. ``usable`` is False where a label is missing.

    notes: sentences about the labels. unknown: perturbation labels that are no known genes. guide: '' where none is known.
    """

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    usable: np.ndarray
    guide: np.ndarray
    missing: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=str))


def harmonise_cells(source: CountsFile, dataset: Dataset) -> CellTable:
    """Read the labels. Raises UserError: unknown column, duplicate cell ids, control label of no cell, nothing perturbed."""
    _check_ids(source)
    named = "perturbation_column of the sheet"
    labels = {"perturbation": source.column(dataset.perturbation_column, named, dataset.kept_labels)}
    if dataset.batch_column:
        labels["batch"] = source.column(dataset.batch_column, "batch_column of the sheet")
    missing = {name: int(values.isna().sum()) for name, values in labels.items()}
    usable = np.logical_and.reduce([values.notna().to_numpy() for values in labels.values()])
    text = {name: values.fillna("").to_numpy(dtype=str) for name, values in labels.items()}
    batch = text.get("batch", np.full(len(source.cell_id), NO_BATCH))
    controls = control_labels(text["perturbation"], dataset, source.path)
    is_gene = _gene_test(source, dataset, text["perturbation"])
    perturbation, notes = _one_name_each(text["perturbation"], controls, dataset, is_gene)
    is_control = among(perturbation, controls) & usable
    if not (usable & ~is_control).any():
        raise _nothing_left(source.path.name, dataset, missing)
    others = pd.Series(perturbation[usable & ~is_control]).value_counts()
    guide = _guides(source, dataset)
    columns = {"perturbation_column": text["perturbation"], "batch_column": batch, "guide_column": guide}
    notes += measurement_notes({role: (getattr(dataset, role), labels) for role, labels in columns.items()})
    return CellTable(
        cell_id=source.cell_id,
        perturbation=perturbation,
        is_control=is_control,
        batch=batch,
        usable=usable,
        guide=guide,
        missing=missing,
        notes=notes + label_notes(others, controls, dataset, is_gene),
        unknown=np.array([label for label in others.index if not all(map(is_gene, split_genes(label)))], dtype=str),
    )


def _nothing_left(name: str, dataset: Dataset, missing: dict[str, int]) -> UserError:
    text = f"{name}: no cell with a perturbation in column {dataset.perturbation_column!r} is left."
    if missing.get("batch"):
        text += (
            f" {missing['batch']} cells have no label in the batch_column {dataset.batch_column!r}, and are left out. Name "
            "another column, or none."
        )
    return UserError(text)


def _guides(source: CountsFile, dataset: Dataset) -> np.ndarray:
    """The guide of each cell, (n,); '' where the sheet names no column or the cell has no value."""
    if not dataset.guide_column:
        return np.full(len(source.cell_id), "")
    return source.column(dataset.guide_column, "guide_column of the sheet").fillna("").to_numpy(dtype=str)


def _check_ids(source: CountsFile) -> None:
    repeated = pd.Index(source.cell_id).duplicated()
    if repeated.any():
        raise UserError(
            f"{source.path.name} has {int(repeated.sum())} duplicate cell ids (such as '{source.cell_id[repeated][0]}'). "
            "Make them unique, for example with adata.obs_names_make_unique() or a prefix per batch."
        )


def control_labels(perturbation: np.ndarray, dataset: Dataset, path: Path) -> list[str]:
    """The labels of controls among ``perturbation`` (n,), as they occur there; empty if the data set has none.

    Raises UserError if a label of the sheet occurs nowhere.
    """
    occurring = [str(label) for label in pd.Series(perturbation[perturbation != ""]).value_counts().index]
    found = named_controls(dataset.control_label, occurring)
    for label, names in found.items():
        if not names:
            raise _of_no_cell(label, occurring, dataset, path)
    return list(dict.fromkeys(name for names in found.values() for name in names))


def named_controls(control_label: str, occurring: list[str]) -> dict[str, list[str]]:
    """Label of the sheet -> the labels that it names among those that occur; empty for a data set without controls.

    A label that occurs exactly as given wins, be it 'None', 'a;b' or 'a*'; else one with a star at its end stands for all that
    begin so, such as 'non-targeting_*'.
    """
    given = control_label.strip()
    if given and given in occurring:
        return {given: [given]}
    if given.lower() in NONE:
        return {}
    return {label: _matching(label, occurring) for label in labels_in(given)}


def _matching(label: str, occurring: list[str]) -> list[str]:
    if label in occurring:
        return [label]
    same = [other for other in occurring if _number(other) is not None and _number(other) == _number(label)]
    return same[:1] or [other for other in occurring if label.endswith("*") and other.startswith(label[:-1])]


def _of_no_cell(label: str, occurring: list[str], dataset: Dataset, path: Path) -> UserError:
    longer = sorted(other for other in occurring if other.startswith(label))
    family = f" {len(longer)} labels begin so (such as {longer[0]!r}): {label + '*'!r} names all of them." if longer else ""
    return UserError(
        f"{path.name}: the control label {label!r} matches no cell in column {dataset.perturbation_column!r}."
        f"{family if len(longer) > 1 else _meant(label, occurring)} A data set without controls says control_label none."
    )


def _meant(label: str, occurring: list[str]) -> str:
    """The labels that are spelt like controls, the most similar first; without any, did_you_mean."""
    alike = [other for other in occurring if all(map(like_control, split_genes(other) or [other]))]
    names = difflib.get_close_matches(label, alike, n=3, cutoff=0)
    return f" Did you mean {' or '.join(map(repr, names))}?" if names else did_you_mean(label, occurring)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _gene_test(source: CountsFile, dataset: Dataset, perturbation: np.ndarray) -> Callable[[str], bool]:
    """Whether a text names a gene: of the data set, of the organism's tables, or one that is perturbed alone."""
    columns = {name: source.var[name].to_numpy(dtype=str) for name in source.var}
    here = {name for names in gene_names(columns, source.var.index.to_numpy(dtype=str)) for name in names.tolist() if name}
    if dataset.perturbation_type not in COMPOUNDS:
        here |= {label for label in pd.unique(perturbation).tolist() if re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", label)}

    @cache
    def is_gene(text: str) -> bool:
        if like_control(text):
            return False
        return text in here or bool(known(np.array([text]), np.array([text]), dataset.organism)[0])

    return is_gene


def _one_name_each(
    perturbation: np.ndarray, controls: list[str], dataset: Dataset, is_gene: Callable[[str], bool]
) -> tuple[np.ndarray, list[str]]:
    """(perturbations (n,), each combination under one name; sentences about it)."""
    codes, labels = pd.factorize(perturbation)
    labels = labels.astype(str)
    if dataset.perturbation_type in COMPOUNDS:
        return perturbation, []
    names = normalise(labels.tolist(), controls, is_gene)
    notes = []
    if names:
        label, name = next(iter(names.items()))
        notes.append(f"{len(names)} combinations were renamed: a control is not a gene, and order does not count "
                     f"('{label}' is '{name}').")  # fmt: skip
    otherwise = joined_otherwise(
        (label for label in labels.tolist() if label not in controls and not is_combination(label)), is_gene
    )
    if otherwise:
        notes.append(f"{len(otherwise)} perturbations look like combinations joined by another sign than + (such as "
                     f"'{otherwise[0]}') and are taken for single genes. Write them as A+B.")  # fmt: skip
    return np.array([names.get(label, label) for label in labels.tolist()], dtype=str)[codes], notes
