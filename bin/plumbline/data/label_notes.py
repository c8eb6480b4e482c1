"""Sentences about perturbation labels that may stand for something else: controls, no perturbation at all, guides, typos."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np
import pandas as pd

from plumbline.data.catalogue import Dataset
from plumbline.genes.combinations import like_control, split_genes
from plumbline.genes.organism import known

# cells without one clear guide, as those who assign guides or hashtags label them; without anything but letters
UNASSIGNED = re.compile(
    "(un|not)assigned|unknown|doublets?|multiplets?|multi(ple)?(guide|grna|sgrna)?s?|negative|ambiguous|undetermined|"
    "no(guide|grna|sgrna|call|feature)s?"
)
GUIDE = re.compile(
    r"(?:sg|g)?(?P<gene>[A-Za-z][A-Za-z0-9-]*?)"  # then KLF1-2, KLF1_g2, KLF1_+_53715438.23-P1P2 or KLF1_ACGT...
    r"[-_.](?:(?:sg|g|guide|grna|sgrna|sh)?\d+[a-z]?|[+-]_\d.*|[ACGT]{15,})"
)


def label_notes(sizes: pd.Series, controls: list[str], dataset: Dataset, is_gene: Callable[[str], bool]) -> list[str]:
    """Sentences about the labels that are taken for perturbations. sizes: cells of each, indexed by label."""
    labels = sizes.index.tolist()
    guides = [] if dataset.perturbation_type in ("chemical", "cytokine") else _guides(labels, dataset.organism)
    return _like_controls(sizes, controls, is_gene) + _unassigned(sizes) + guides + _spelt_alike(labels)


def _unassigned(sizes: pd.Series) -> list[str]:
    """Labels of cells that nobody assigned to a perturbation: as one, they would be scored."""
    found = [label for label in sizes.index if UNASSIGNED.fullmatch(re.sub(r"[^a-z]", "", label.lower()))]
    listed = ", ".join(f"'{label}' ({sizes[label]} cells)" for label in found[:5])
    advice = "If these cells have no single perturbation, remove them, or leave their label empty: then they are dropped."
    return [f"Taken for a perturbation, but it reads as none: {listed}. {advice}"] if found else []


def _guides(labels: list[str], organism: str) -> list[str]:
    """Guides in place of genes: each counts as a perturbation, and no known relationship is found."""
    # the name of a guide may hold a +, for its strand
    parts = sorted({part for label in labels for part in ([label] if GUIDE.fullmatch(label) else split_genes(label))})
    found = {part: match["gene"] for part in parts if (match := GUIDE.fullmatch(part))}
    names = np.array([*found, *found.values()], dtype=str)
    known_names = set(names[known(names, names, organism)].tolist()) if found else set()
    guides = {part: gene for part, gene in found.items() if gene in known_names and part not in known_names}
    genes = set(guides.values())
    if 2 * len(guides) < len(parts) or len(genes) == len(guides):
        return []
    first, gene = next(iter(guides.items()))
    what = f"{len(guides)} names of perturbations look like guides of {len(genes)} genes (such as '{first}' of {gene})"
    advice = "To score genes, name the column of genes as perturbation_column, and this one as guide_column."
    return [f"{what}, and count as one each. {advice}"]


def _spelt_alike(labels: list[str]) -> list[str]:
    """Perturbations that differ in case, blanks or invisible signs alone: probably one, split in two by its spelling."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        plain = re.sub(r"[\s\u200b-\u200d\u2060\ufeff]", "", unicodedata.normalize("NFKC", label)).casefold()
        groups.setdefault(plain, []).append(label)
    twice = [group for group in groups.values() if len(group) > 1]
    if not twice:
        return []
    listed = " and ".join(map(ascii, twice[0][:3]))
    return [f"{len(twice)} perturbations occur in two spellings, which count as two (such as {listed}). Write each in one way."]


def _like_controls(sizes: pd.Series, controls: list[str], is_gene: Callable[[str], bool]) -> list[str]:
    """Labels that look like controls but are taken for perturbations: another spelling splits the controls in two."""
    plain = {re.sub(r"[^a-z0-9]", "", label.lower()) for label in controls}
    alike = [str(label) for label in sizes.index if like_control(label) or re.sub(r"[^a-z0-9]", "", label.lower()) in plain]
    alike = [label for label in alike if not is_gene(label)]
    if not alike:
        return []
    listed = ", ".join(f"'{label}' ({sizes[label]} cells)" for label in alike[:5])
    listed += f" and {len(alike) - 5} others" if len(alike) > 5 else ""
    given = _family([*controls, *alike], sizes) if len(alike) > 5 else ";".join([*controls, *alike])
    return [f"Taken for a perturbation, but spelt like a control: {listed}. If it is one, set control_label to '{given}'."]


def _family(labels: list[str], sizes: pd.Series) -> str:
    """Many labels in short: what stands before their numbers and a star, if it begins these and no others; else all of them."""
    first = labels[0].rstrip("0123456789")
    alike = {label for label in (*labels, *sizes.index) if label.startswith(first)}
    return f"{first}*" if first and alike == set(labels) else ";".join(labels)
