"""PREPARE as one call: raw input -> counts.h5ad and tables/ (cells, genes, facts, data report)."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.common.usage import usage
from plumbline.data.catalogue import Dataset
from plumbline.data.cells import harmonise_cells
from plumbline.data.genes import harmonise_genes
from plumbline.data.ingest import CountsFile, input_sha256, open_source
from plumbline.data.prepare import write_counts
from plumbline.data.prepared import Prepared
from plumbline.data.quality import data_report
from plumbline.data.splits import split_by
from plumbline.data.tables import cell_table, facts, gene_table, write_tables


def prepare(dataset: Dataset, path: Path, annotations: Path | None, folder: Path) -> dict:
    """Write counts.h5ad and tables/ of one data set into ``folder``; return the facts (dataset.json)."""
    start, digest = time.monotonic(), input_sha256(path)
    if dataset.sha256 and dataset.sha256 != digest:
        raise UserError(
            f"{path.name} has the sha256 {digest}, but the sheet says {dataset.sha256}. Is it another version, or was it cut "
            "in transfer? Fetch it again, or correct the sheet."
        )
    source = open_source(path, dataset.layer, annotations or dataset.cell_table or None)
    prepared = harmonise(source, dataset, folder / "counts.h5ad")
    report = data_report(prepared)
    about = facts(prepared, report, digest)
    write_tables(folder / "tables", prepared, about, report | {"usage": usage(start)})
    return about


def harmonise(source: CountsFile, dataset: Dataset, counts: Path) -> Prepared:
    """Write ``counts`` in one pass over the source; return what was found out."""
    labels, genes = harmonise_cells(source, dataset), harmonise_genes(source, dataset)
    sums = write_counts(counts, source, dataset, labels, genes)
    cells = cell_table(labels, sums)
    return Prepared(
        dataset=dataset,
        annotations=source.columns,
        labels=labels,
        genes=genes,
        sums=sums,
        cells=cells,
        gene_table=gene_table(genes, sums),
        split_by=split_by(cells["is_control"].to_numpy(), cells["batch"].to_numpy()),
    )


@contextmanager
def staged(outdir: Path) -> Iterator[Path]:
    """A folder beside the results; what was written there moves into ``outdir`` at the end, or disappears on an error.

    Scratch files go there too: they can be as large as the input, and a node's /tmp may be small or in memory.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".prepare_", dir=outdir))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
        shutil.rmtree(outdir / "tables", ignore_errors=True)
        for name in ("counts.h5ad", "tables"):
            (folder / name).replace(outdir / name)
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
