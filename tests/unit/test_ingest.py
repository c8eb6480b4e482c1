"""Inputs other than h5ad, and matrices streamed in blocks, against scanpy's and scipy's own readers."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.io
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts import hdf5, row_blocks
from plumbline.data.ingest import as_text, input_sha256, open_source

N_CELLS, N_GENES = 30, 12
BARCODES = [f"{'ACGT' * 3}{i:02d}-{i % 3 + 1}" for i in range(N_CELLS)]
FEATURES = pd.DataFrame(
    {
        "id": [f"ENSG{i:011d}" for i in range(N_GENES - 2)] + ["guide1", "guide2"],
        "name": [f"SYM{i}" for i in range(N_GENES - 2)] + ["g1", "g2"],
        "type": ["Gene Expression"] * (N_GENES - 2) + ["CRISPR Guide Capture"] * 2,
    }
)


@pytest.fixture
def counts() -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(0).poisson(0.7, (N_CELLS, N_GENES)).astype(np.int32))


def gather(source) -> np.ndarray:
    return sp.vstack([block for _, block in source.blocks()]).toarray()


def write_10x_h5(path: Path, counts: sp.csr_matrix, version: int) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(counts, name)
        group["shape"] = np.array(counts.shape[::-1])
        group["barcodes"] = np.array(BARCODES, dtype="S")
        if version == 3:
            columns = {"id": "id", "name": "name", "feature_type": "type", "genome": None}
            for key, column in columns.items():
                group[f"features/{key}"] = np.array(FEATURES[column] if column else ["GRCh38"] * N_GENES, dtype="S")
        else:
            group["genes"], group["gene_names"] = (np.array(FEATURES[name], dtype="S") for name in ("id", "name"))
    return path


def write_10x_mtx(folder: Path, counts: sp.csr_matrix, version: int = 3, prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = io.BytesIO()
    scipy.io.mmwrite(text, counts.T)
    files = {
        "matrix.mtx": text.getvalue(),
        "barcodes.tsv": "\n".join(BARCODES).encode(),
        "features.tsv" if version == 3 else "genes.tsv": FEATURES.iloc[:, : 3 if version == 3 else 2]
        .to_csv(sep="\t", header=False, index=False)
        .encode(),
    }
    for name, content in files.items():
        path = folder / f"{prefix}{name}{'.gz' if version == 3 else ''}"
        path.write_bytes(gzip.compress(content) if version == 3 else content)
    return folder


def test_10x_h5_as_scanpy_reads_it(tmp_path, counts):
    source = open_source(write_10x_h5(tmp_path / "v3.h5", counts, 3))
    expected = sc.read_10x_h5(tmp_path / "v3.h5")  # keeps gene expression only
    np.testing.assert_array_equal(gather(source), expected.X.toarray())
    assert list(source.cell_id) == list(expected.obs_names)
    assert list(source.var["symbol"]) == list(expected.var_names)
    assert list(source.var["gene_ids"]) == list(expected.var["gene_ids"])
    old = open_source(write_10x_h5(tmp_path / "v2.h5", counts, 2))
    np.testing.assert_array_equal(gather(old), counts.toarray())
    assert list(old.column("gem_group", "batch")) == [barcode[-1] for barcode in BARCODES]


def test_10x_mtx_as_scanpy_reads_it(tmp_path, counts):
    for version in (3, 2):
        folder = write_10x_mtx(tmp_path / f"v{version}", counts, version)
        source, expected = open_source(folder), sc.read_10x_mtx(folder)
        np.testing.assert_array_equal(gather(source), expected.X.toarray())
        assert list(source.cell_id) == list(expected.obs_names)
        assert list(source.var["symbol"]) == list(expected.var_names)


def test_10x_archives_and_prefixes(tmp_path, counts):
    folder = write_10x_mtx(tmp_path / "geo" / "filtered", counts, 3, prefix="GSM1_sample_")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, "anything/filtered")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"filtered/{file.name}")
    for path in (folder.parent, tmp_path / "a.tar.gz", tmp_path / "a.zip", folder / "GSM1_sample_matrix.mtx.gz"):
        np.testing.assert_array_equal(gather(open_source(path)), counts.toarray()[:, :-2])
    assert input_sha256(folder) != input_sha256(tmp_path / "a.zip")


def test_broken_10x_input(tmp_path, counts):
    folder = write_10x_mtx(tmp_path / "v2", counts, 2)
    whole = (folder / "matrix.mtx").read_bytes()
    (folder / "matrix.mtx").write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"matrix.mtx cannot be read"):
        open_source(folder)
    (folder / "matrix.mtx").write_bytes(whole)
    (folder / "barcodes.tsv").write_text("\n".join(BARCODES[:-1]))
    with pytest.raises(UserError, match=r"12 genes x 30 cells, its tables hold 12 x 29"):
        open_source(folder)
    (folder / "genes.tsv").unlink()
    with pytest.raises(UserError, match=r"no file named features.tsv or"):
        open_source(folder)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder / "matrix.mtx", "matrix.mtx")
    (tmp_path / "a.tar.gz").write_bytes((tmp_path / "a.tar.gz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"a.tar.gz cannot be read .*Is the archive complete"):
        open_source(tmp_path / "a.tar.gz")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(UserError, match=r"neither an h5ad .* nor a 10x h5.*something"):
        open_source(tmp_path / "other.h5")


def test_cell_table_brings_labels_to_10x(tmp_path, counts):
    path = write_10x_h5(tmp_path / "v3.h5", counts, 3)
    labels = pd.DataFrame({"barcode": BARCODES[:0:-1], "guide": [f"g{i}" for i in range(N_CELLS - 1)]})  # one cell missing
    for name, write in {
        "cells.csv": lambda file: labels.to_csv(file, index=False),
        "cells.tsv.gz": lambda file: labels.to_csv(file, index=False, sep="\t"),
        "cells.parquet": lambda file: labels.to_parquet(file),
    }.items():
        write(tmp_path / name)
        source = open_source(path, cells=tmp_path / name)
        assert source.columns == ["guide", "gem_group"]
        values = source.column("guide", "perturbation")
        assert values.isna().to_list() == [True] + [False] * (N_CELLS - 1)
        assert values[1] == f"g{N_CELLS - 2}"
    with pytest.raises(UserError, match="does not exist"):
        open_source(path, cells=tmp_path / "absent.csv")
    pd.DataFrame({"barcode": ["x"], "guide": ["g"]}).to_csv(tmp_path / "cells.csv", index=False)
    with pytest.raises(UserError, match=r"names no cell of v3.h5.*begins with 'x'"):
        open_source(path, cells=tmp_path / "cells.csv")
    pd.DataFrame({"barcode": BARCODES[:1] * 2, "guide": ["g"] * 2}).to_csv(tmp_path / "cells.csv", index=False)
    with pytest.raises(UserError, match="more than once"):
        open_source(path, cells=tmp_path / "cells.csv")


@pytest.mark.parametrize("budget", [1, 200, 3000, 1 << 20])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_blocks_of_any_size_add_up_to_the_matrix(tmp_path, kind, budget):
    matrix = sp.random(97, 23, density=0.2, format="csr", dtype=np.float32, random_state=0)
    matrix = sp.csr_matrix(matrix.multiply((np.arange(97) // 20 != 2)[:, None]))  # empty rows, empty buckets
    with h5py.File(tmp_path / "m.h5", "w") as file:
        if kind == "dense":
            node = file.create_dataset("X", data=matrix.toarray())
        else:
            node, stored = file.create_group("X"), matrix.asformat(kind)
            for name in ("data", "indices", "indptr"):
                node[name] = getattr(stored, name)
            node.attrs.update({"encoding-type": f"{kind}_matrix", "shape": matrix.shape})
        assert (hdf5.layout(node), hdf5.shape(node)) == (kind, (97, 23))
        blocks = list(row_blocks.row_blocks(node, kind, (97, 23), budget))
    starts = [start for start, _ in blocks]
    assert starts == np.cumsum([0, *(block.shape[0] for _, block in blocks)])[:-1].tolist()
    assert (sp.vstack([block for _, block in blocks]) != matrix).nnz == 0
    assert len(blocks) > 5 or budget > 500


def test_labels_as_text():
    assert as_text(pd.Series([1.0, np.nan, 3.0])).fillna("?").to_list() == ["1", "?", "3"]
    assert as_text(pd.Series([" a ", "", "nan", None, "NaN", "NANOG"])).fillna("?").to_list() == [
        "a",
        "?",
        "?",
        "?",
        "?",
        "NANOG",
    ]
    assert as_text(pd.Series([True, False])).to_list() == ["True", "False"]
    assert as_text(pd.Series([1.5, 2.0])).to_list() == ["1.5", "2.0"]
    assert as_text(pd.Series(pd.Categorical(["x", None]))).fillna("?").to_list() == ["x", "?"]
