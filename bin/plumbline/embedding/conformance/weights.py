"""Is a checkpoint read right? What a small embedding with it can tell, and what only a reference output can.

The model's own script embeds the marker cells (or a user's) as EMBED does: as they are, in another order, and with its
untrained network. Beside the statuses of the conformance kit there are 'note' (nothing to judge) and 'doubt' (a trained model
should do better, but no published number says so).
"""

from dataclasses import dataclass

import numpy as np

from plumbline.embedding.checkpoints import known_checkpoints
from plumbline.embedding.conformance.kit import Kit, Verdict
from plumbline.embedding.conformance.marker_cells import pairing
from plumbline.embedding.contract import Embedding, rows_of

KNOWN_GENES = 0.5  # of the bundled genes, all of them well known; fewer: another dictionary
CHANCE = 0.01  # p of the pairing of marker cells below which it is no chance


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is checked. untrained: the same script with random weights, None where it has none. markers: of bundled cells."""

    variant: str
    kit: Kit
    untrained: Kit | None
    markers: bool
    own: bool
    reference: Embedding | None
    tolerance: float


def files(given: Given) -> Verdict:
    """The sha256 of every file that was read, against models.csv, and against what `plumb fetch` recorded."""
    read = given.kit.base.provenance.get("weights", [])
    checkpoint = known_checkpoints().get(given.variant)
    published = {file.path.rpartition("/")[2]: file.sha256 for file in (checkpoint.files if checkpoint else ()) if file.sha256}
    other = [file for file in read if not file["known"] and file["file"] in published]
    if other and not given.own:
        told = "; ".join(
            f"{file['file']} has sha256 {file['sha256']}, published is {published[file['file']]}" for file in other
        )
        return Verdict("FAIL", f"not the published files: {told}. Fetch them again; weights of your own: --set checkpoint=own")
    known = [file["file"] for file in read if file["known"]]
    recorded = [file["file"] for file in read if file.get("recorded")]
    rest = [file["file"] for file in read if file["file"] not in (*known, *recorded)]
    groups = {"sha256 published": known, "as recorded when fetched": recorded, "no sha256 to compare with": rest}
    text = "; ".join(f"{told}: {', '.join(names)}" for told, names in groups.items() if names) or "the script names none"
    return Verdict("pass" if known and not rest else "note", text)


def genes(given: Given) -> Verdict:
    """How many of the genes the model knows."""
    about = given.kit.base.provenance
    used, total = about["genes_used"], about["genes_total"]
    text = f"{used} of {total} known, with {100 * about['counts_used']:.0f} % of the counts"
    if not given.markers:
        return Verdict("note", text)
    enough = used >= KNOWN_GENES * total
    more = "" if enough else ": these are well-known human genes, so its dictionary is another one, or shifted"
    return Verdict("pass" if enough else "FAIL", text + more)


def output(given: Given) -> Verdict:
    """Finite values, which differ between cells."""
    values = given.kit.base.values
    lost = int((~np.isfinite(values).all(axis=1)).sum())
    if lost and given.markers:
        return Verdict("FAIL", f"{lost} of {len(values)} cells have no embedding, though they express genes that it knows")
    values = values[np.isfinite(values).all(axis=1)]
    distinct = len(np.unique(values.round(6), axis=0))
    expected = len(values) if given.markers else min(2, len(values))
    length = np.linalg.norm(values, axis=1).mean() if len(values) else 0.0
    text = f"{values.shape[1]} dimensions, {distinct} of {len(values)} cells differ, length {length:.3g}"
    return Verdict("pass" if distinct >= expected else "FAIL", text)


def repeatable(given: Given) -> Verdict:
    """Cells and genes in another order (genes unless the model declares that it matters), in batches of 3."""
    rng, cells, about = np.random.default_rng(0), given.kit.cells, given.kit.base.provenance
    turned = cells.take(rng.permutation(len(cells.ids)))
    if not about.get("depends_on_gene_order"):
        turned = turned.take_genes(rng.permutation(cells.x.shape[1]))
    excuse = "its cells are grouped in file order" if about.get("depends_on_order") else ""
    return given.kit.compare(given.kit.run("turned", turned, "--batch-size", "3"), excuse)


def trained(given: Given) -> Verdict:
    """Two cells of one type share no marker: a trained model pairs them nevertheless, a random network does not."""
    if not given.markers:
        return Verdict("n/a", "needs the bundled cells: leave out --counts")
    if not np.isfinite(given.kit.base.values).all():
        return Verdict("n/a", "cells without an embedding")
    n_pairs, p = pairing(given.kit.base.values)
    n_types = len(given.kit.cells.ids) // 2
    text = f"{n_pairs} of {n_types} cell types paired without a shared marker (p = {p:.2g}"
    if given.untrained is not None:
        n_floor, floor = pairing(given.untrained.base.values)
        text += f"; untrained network: {n_floor}, p = {floor:.2g}"
    if p < CHANCE:
        return Verdict("pass", f"{text})")
    return Verdict("doubt", f"{text}): no better than chance, as random, permuted or misread gene vectors are")


def reference(given: Given) -> Verdict:
    """The same cells, embedded by the authors' code."""
    if given.reference is None:
        text = f"no output of the authors' code is published for {given.variant} that could be bundled; bring one: --counts"
        return Verdict("n/a", f"{text} FILE --reference FILE")
    cells = given.kit.cells.ids
    rows = rows_of(given.reference.cell_id, cells, "the reference")
    wanted = given.reference.values if rows is None else given.reference.values[rows]
    return compare(given.kit.base.values, wanted, given.tolerance)


def compare(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> Verdict:
    """found and wanted (n, d): equal up to ``tolerance`` of the largest value, in cells that both embed."""
    if found.shape != wanted.shape:
        return Verdict("FAIL", f"{found.shape[1]} dimensions, the reference has {wanted.shape[1]}: another model, or layer")
    both = np.isfinite(found).all(axis=1) & np.isfinite(wanted).all(axis=1)
    if not both.any():
        return Verdict("FAIL", "no cell has an embedding in both")
    a, b = found[both].astype(np.float64), wanted[both].astype(np.float64)
    largest = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-30)
    text = f"{both.sum()} cells: largest difference {largest:.1e} of the largest value, cosine at least {cosine.min():.4f}"
    if largest <= tolerance:
        return Verdict("pass", f"{text}; equal up to {tolerance:g}")
    return Verdict("FAIL", f"{text}: the files are read, but not as the authors' code reads them, or are other files")


CHECKS = (files, genes, output, repeatable, trained, reference)
