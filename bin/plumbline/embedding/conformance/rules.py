"""The conformance kit: what every embedding script must do, tried on any of them, ours or a user's.

A script is run as the pipeline runs it, on small files of counts, and its embeddings are compared. A verdict is 'pass', 'FAIL',
'recorded' (a dependence that the model declares: it is fitted on the cells, cells attend to each other, random numbers belong
to the cell id) or 'n/a'.
"""

import json
from collections.abc import Callable

import numpy as np

from plumbline.common.errors import UserError
from plumbline.embedding.conformance.kit import Broken, Kit, Verdict, distance, pick
from plumbline.embedding.contract import Embedding, provenance_path

PROVENANCE = (
    "model",
    "variant",
    "seconds",
    "peak_memory_bytes",
    "genes_used",
    "genes_total",
    "counts_used",
    "unembedded_cells",
)
MEMORY_SLACK = 48 << 20  # bytes a process may grow by without being suspected


def output_contract(kit: Kit) -> Verdict:
    """Ids in file order, float32 (n, d), finite but for counted rows, and the provenance every embedding carries."""
    base = kit.base
    absent = [name for name in PROVENANCE if name not in base.provenance]
    if absent or not provenance_path(kit.folder / "base" / "embedding.npz").exists():
        return Verdict("FAIL", f"the JSON lacks {', '.join(absent) or 'everything: there is none'}")
    with np.load(kit.folder / "base" / "embedding.npz", allow_pickle=False) as arrays:
        kind = arrays["embedding"].dtype
    bad = int((~np.isfinite(base.values).all(axis=1)).sum())
    if base.cell_id.tolist() != kit.cells.ids.tolist() or kind != np.float32 or bad != base.provenance["unembedded_cells"]:
        return Verdict(
            "FAIL", f"ids in order: {base.cell_id.tolist() == kit.cells.ids.tolist()}, {kind}, {bad} rows not finite"
        )
    about = base.provenance
    return Verdict("pass", f"{base.values.shape[1]} dimensions, {about['genes_used']} of {about['genes_total']} genes")


def determinism(kit: Kit) -> Verdict:
    """The same command twice."""
    return kit.compare(kit.run("again", kit.cells), "")


def row_order(kit: Kit) -> Verdict:
    """The cells in another order: the same embedding by id."""
    order = np.random.default_rng(0).permutation(len(kit.cells.ids))
    excuse = "cells are grouped in file order (declared)" if kit.base.provenance.get("depends_on_order") else ""
    return kit.compare(kit.run("permuted", kit.cells.take(order)), excuse or (kit.neighbours if kit.fitted else ""))


def gene_order(kit: Kit) -> Verdict:
    """The genes in another order: no model may know how the columns of a file happen to be sorted, unless it says why."""
    order = np.random.default_rng(0).permutation(kit.cells.x.shape[1])
    excuse = str(kit.base.provenance.get("depends_on_gene_order") or "")
    return kit.compare(kit.run("genes_permuted", kit.cells.take_genes(order)), excuse)


def batch_size(kit: Kit) -> Verdict:
    """Batches of 1 and of 5 cells."""
    verdicts = [kit.compare(kit.run(f"batch{n}", kit.cells, "--batch-size", str(n)), "") for n in (1, 5)]
    return next((verdict for verdict in verdicts if verdict.status == "FAIL"), verdicts[0])


def shards(kit: Kit) -> Verdict:
    """The file in two halves."""
    halves = np.array_split(np.arange(len(kit.cells.ids)), 2)
    verdicts = [kit.compare(kit.run(f"half{n}", kit.cells.take(rows)), kit.neighbours) for n, rows in enumerate(halves)]
    return max(verdicts, key=lambda verdict: ("pass", "recorded", "FAIL").index(verdict.status))


def duplicate_cells(kit: Kit) -> Verdict:
    """Two cells with the same counts: equal, unless random numbers belong to the cell id (and not to its place)."""
    first, second = kit.base.values[:2]
    difference = distance(first[None], second[None])
    if difference <= kit.tolerance:
        return Verdict("pass", f"largest difference {difference:.1e}")
    if row_order(kit).status == "pass":
        return Verdict("recorded", f"differ by up to {difference:.1e}: random numbers that belong to the cell id")
    return Verdict("FAIL", f"differ by up to {difference:.1e}, and order matters")


def unknown_genes(kit: Kit) -> Verdict:
    """50 genes of unknown names, with counts, are added."""
    excuse = kit.neighbours if kit.fitted else "genes the model does not know enter the size of the library"
    return kit.compare(kit.run("more_genes", kit.cells.with_unknown_genes(50)), excuse)


def no_known_gene(kit: Kit) -> Verdict:
    """Only genes of unknown names: not applicable or a clear error, unless any gene will do."""
    run = kit.try_run("no_gene", kit.cells.only_unknown_genes())
    if run.not_applicable:
        return Verdict("pass", f"not applicable: {run.reason[:60]}")
    if run.refused:
        return Verdict("pass", "refused with a message")
    return Verdict("n/a", "takes any gene") if run.code == 0 else Verdict("FAIL", f"exit code {run.code}, no clear message")


def empty_cells(kit: Kit) -> Verdict:
    """One cell without counts: a NaN row that is counted, or a finite one; the others as before."""
    x = kit.cells.x.tolil()
    x[2] = 0
    run = kit.run("empty", kit.cells.with_counts(x))
    row, counted = run.values[2], run.provenance["unembedded_cells"]
    if int(np.isnan(row).any()) != counted:
        return Verdict("FAIL", f"{counted} unembedded cells reported, but its row is {row[:3]}")
    rest = [cell for number, cell in enumerate(kit.cells.ids) if number != 2]
    excuse = kit.neighbours
    verdict = kit.compare(Embedding(np.array(rest), pick(run, rest), {}), excuse)
    return Verdict(verdict.status, f"{'NaN row, counted' if counted else 'finite row'}; others: {verdict.detail}")


def one_cell(kit: Kit) -> Verdict:
    """A file with a single cell."""
    run = kit.try_run("one", kit.cells.take(np.array([3])))
    if kit.fitted and (run.refused or run.not_applicable):
        return Verdict("recorded", "refused with a reason: nothing to fit on")
    return kit.compare(kit.run("one", kit.cells.take(np.array([3]))), kit.neighbours)


def nan_refused(kit: Kit) -> Verdict:
    """A NaN among the counts: a clear error and no file."""
    x = kit.cells.x.copy()
    x.data[5] = np.nan
    if not kit.base.provenance["genes_used"]:
        return Verdict("n/a", "reads no counts")
    run = kit.try_run("nan", kit.cells.with_counts(x))
    return Verdict("pass", "refused with a message") if run.refused else Verdict("FAIL", f"exit code {run.code}, not refused")


def memory_growth(kit: Kit) -> Verdict:
    """Four times the cells, in a wide file: a process may grow by its output and little else, certainly no dense matrix."""
    few = kit.memory_cells
    if not few:
        return Verdict("n/a", "switched off")
    speed = 1.0 / max(kit.base.provenance.get("cells_per_second", np.inf), 1e-9)
    if 5 * few * speed > 1800:
        return Verdict("n/a", f"would take {5 * few * speed / 60:.0f} minutes here: use --memory-cells")
    columns = max(100, int(4 * MEMORY_SLACK / (4 * 3 * few)) // 100 * 100)  # dense float32 growth: 4 x the slack
    wide = kit.cells.repeated(-(-few // len(kit.cells.ids)))
    cells = wide.take(np.arange(few)).with_silent_genes(columns)
    small, large = kit.run("memory1", cells), kit.run("memory4", cells.repeated(4))
    growth = large.provenance["peak_memory_bytes"] - small.provenance["peak_memory_bytes"]
    allowed = MEMORY_SLACK + 4 * (large.values.nbytes - small.values.nbytes)
    text = f"{growth >> 20} MiB more for {3 * few} more cells ({allowed >> 20} allowed, dense: {12 * few * columns >> 20})"
    return Verdict("pass" if growth <= allowed else "FAIL", text)


CHECKS = (
    output_contract,
    determinism,
    row_order,
    gene_order,
    batch_size,
    shards,
    duplicate_cells,
    unknown_genes,
    no_known_gene,
    empty_cells,
    one_cell,
    nan_refused,
    memory_growth,
)


def check(kit: Kit, checks: tuple[Callable, ...] = CHECKS, given: object = None) -> dict[str, Verdict]:
    """Every check's verdict. A model that cannot take the file at all fails the first and is not tried further.

    given: what the checks get in place of ``kit``.
    """
    base = kit.try_run("base", kit.cells)
    if base.not_applicable:
        raise UserError(f"not applicable to these cells: {base.reason}. Give others with --counts.")
    verdicts: dict[str, Verdict] = {}
    for one in checks:
        try:
            verdicts[one.__name__] = one(given or kit)
        except (Broken, UserError, json.JSONDecodeError) as error:
            verdicts[one.__name__] = Verdict("FAIL", str(error))
        if base.code or base.embedding is None:
            break
    return verdicts


def as_table(verdicts: dict[str, Verdict]) -> str:
    """The verdicts, a line each."""
    width = max(map(len, verdicts))
    lines = [f"{name:<{width}}  {verdict.status:<8}  {verdict.detail}" for name, verdict in verdicts.items()]
    statuses = ("pass", "FAIL", "recorded", "doubt", "note", "n/a")
    counted = {status: sum(v.status == status for v in verdicts.values()) for status in statuses}
    return "\n".join([*lines, "", ", ".join(f"{n} {status}" for status, n in counted.items() if n)])
