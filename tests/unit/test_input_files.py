"""Files as people have them: damaged, hostile, of another kind. Each is read rightly or refused in words."""

import gzip
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from made_input import prepare_run, refused, screen, tables  # noqa: F401 - the fixture "run"
from mutated import put
from test_ingest import BARCODES, FEATURES, write_10x_h5, write_10x_mtx

from plumbline.common.errors import UserError
from plumbline.counts.reading import open_counts
from plumbline.data.ingest import open_source


def read_whole(path) -> np.ndarray:
    return sp.vstack([block for _, block in open_source(path).blocks()]).toarray()


@pytest.fixture
def stored(tmp_path):
    """An h5ad on disk."""
    screen().write_h5ad(tmp_path / "input.h5ad")
    return tmp_path / "input.h5ad"


# --- HDF5 that contradicts itself


def replace(name: str, change):
    """A damage: the data set ``name`` with other values."""

    def damage(file: h5py.File) -> None:
        values, attributes = file[name][()], dict(file[name].attrs)
        del file[name]
        file[name] = change(values)
        file[name].attrs.update(attributes)

    return damage


def attribute(name: str, key: str, value):
    return lambda file: file[name].attrs.__setitem__(key, value)


DAMAGES = {
    "indptr too short": (replace("X/indptr", lambda v: v[:-5]), "indptr has 116 entries, but 121 are needed"),
    "indptr too long": (replace("X/indptr", lambda v: np.append(v, v[-1])), "indptr has 122 entries, but 121"),
    "indptr falls": (replace("X/indptr", put(7, 0)), "indptr does not divide"),
    "indptr beyond": (replace("X/indptr", put(-1, 10**6)), "indptr does not divide"),
    "indptr starts late": (replace("X/indptr", put(0, 3)), "indptr does not divide"),
    "indptr of floats": (replace("X/indptr", lambda v: v.astype(float)), "values of type float64, but whole numbers"),
    "indices beyond": (replace("X/indices", put(3, 2**31 - 1)), "position 2147483647 lies outside of the matrix"),
    "indices below": (replace("X/indices", put(3, -2)), "position -2 lies outside"),
    "indices cut": (replace("X/indices", lambda v: v[:-4]), r"values at \d+ positions"),
    "data cut": (replace("X/data", lambda v: v[:-4]), r"values at \d+ positions"),
    "complex": (replace("X/data", lambda v: v + 1j), "values of type complex64, but real numbers"),
    "text": (replace("X/data", lambda v: v.astype("S4")), "but real numbers are needed"),
    "no data": (lambda file: file.__delitem__("X/data"), "no list 'data'"),
    "shape of three": (attribute("X", "shape", [120, 40, 1]), "not a matrix of rows and columns"),
    "shape of text": (attribute("X", "shape", "big"), "not a matrix of rows and columns"),
    "negative shape": (attribute("X", "shape", [-120, 40]), "not a matrix of rows and columns"),
    "huge shape": (attribute("X", "shape", [2**60, 40]), "X is 1152921504606846976 x 40 but obs and var hold 120 x 40"),
    "unknown encoding": (attribute("X", "encoding-type", "coo_matrix"), "stored as coo"),
    "category beyond": (replace("obs/gene/codes", put(2, 99)), "names category 99 of 5"),
    "short column": (replace("obs/gene/codes", lambda v: v[:-2]), "column 'gene' of obs has 118 entries, but its index 120"),
    "short gene column": (replace("var/symbol", lambda v: v[:-2]), "column 'symbol' of var has 38 entries"),
    "no index": (attribute("obs", "_index", "absent"), "cannot be read"),
    "no var": (lambda file: file.__delitem__("var"), "no gene table"),
    "no X": (lambda file: file.__delitem__("X"), "no layer 'X'"),
    "X is a number": (lambda file: (file.__delitem__("X"), file.__setitem__("X", 3)), "not a matrix of rows and columns"),
    "not UTF-8": (replace("obs/_index", lambda v: np.array([b"\xff\xfe" + bytes(n) for n in v])), "cannot be read|not UTF-8"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_an_h5ad_that_contradicts_itself_is_refused(run, stored, case):
    damage, message = DAMAGES[case]
    with h5py.File(stored, "r+") as file:
        damage(file)
    refused(run, stored, message, min_counts=0)


@pytest.mark.parametrize(
    "case", [name for name in DAMAGES if name.startswith(("ind", "data", "complex", "text", "shape", "no "))]
)
def test_embed_refuses_it_too(stored, case):
    with h5py.File(stored, "r+") as file:
        DAMAGES[case][0](file)
    with pytest.raises(UserError):
        list(open_counts(stored).blocks())


CSC = {"a row beyond": (put(3, 10**9), "position 1000000000 lies outside"), "a row below": (put(0, -1), "position -1 lies")}


@pytest.mark.parametrize("case", CSC)
def test_columns_that_name_absent_rows_are_refused(run, tmp_path, case):
    data = screen()
    data.X = sp.csc_matrix(data.X)
    data.write_h5ad(tmp_path / "csc.h5ad")
    with h5py.File(tmp_path / "csc.h5ad", "r+") as file:
        replace("X/indices", CSC[case][0])(file)
    refused(run, tmp_path / "csc.h5ad", CSC[case][1], min_counts=0)


def test_a_file_that_never_opens_is_given_up(stored, monkeypatch):
    monkeypatch.setattr("plumbline.counts.hdf5._walk", lambda path: time.sleep(60))
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.2)
    with pytest.raises(UserError, match=r"could not be read within 0.2 seconds: it is damaged"):
        open_source(stored)


def test_a_file_that_crashes_the_library_is_refused(stored, monkeypatch):
    monkeypatch.setattr("plumbline.counts.hdf5._walk", lambda path: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match="crashes the HDF5 library"):
        open_source(stored)


# --- hostile HDF5


def external_link(file: h5py.File, secret) -> None:
    del file["obs/batch"]
    file["obs/batch"] = h5py.ExternalLink(str(secret), "/x")


def external_storage(file: h5py.File, secret) -> None:
    del file["obs/batch"]
    file.create_dataset("obs/batch", (120,), "S1", external=[(str(secret), 0, 120)])


def virtual(file: h5py.File, secret) -> None:
    del file["obs/batch"]
    layout = h5py.VirtualLayout((120,), "i8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (120,))
    file.create_virtual_dataset("obs/batch", layout)


@pytest.mark.parametrize("attack", [external_link, external_storage, virtual], ids=lambda function: function.__name__)
def test_no_other_file_is_read(run, stored, tmp_path, attack):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(120)
    with h5py.File(stored, "r+") as file:
        attack(file, tmp_path / "secret.h5")
    refused(run, stored, "/obs/batch is (an external link|stored externally|a virtual data set)", min_counts=0)
    with pytest.raises(UserError, match="obs/batch is"):
        open_counts(stored)


def test_links_within_the_file_are_followed(run, stored):
    with h5py.File(stored, "r+") as file:
        file.move("obs/batch", "uns/batch")
        file["obs/batch"] = h5py.SoftLink("/uns/batch")
        file["uns/again"] = file["uns"]  # a circle
    assert tables(run(stored, min_counts=0))[0]["n_batches"] == 3


READ_IN_A_NEW_PROCESS = """
import sys
from plumbline.data.ingest import open_source
print(sum(block.sum() for _, block in open_source(sys.argv[1]).blocks()))
"""


@pytest.mark.parametrize("name", ["Zstd", "Blosc", "Blosc2"])
def test_files_compressed_by_plugins_are_read(stored, root, name):
    """In a process that has not loaded the plugins yet."""
    plugins = pytest.importorskip("hdf5plugin")
    with h5py.File(stored, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file.create_dataset("X/data", data=values, chunks=(100,), compression=getattr(plugins, name)())
    command = [sys.executable, "-c", READ_IN_A_NEW_PROCESS, stored]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root / "bin")})
    assert float(done.stdout) == values.sum(), done.stderr


def test_an_unknown_compression_is_named(run, stored, monkeypatch):
    monkeypatch.setattr("plumbline.counts.hdf5.h5py.h5z.filter_avail", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with h5py.File(stored, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file.create_dataset("X/data", data=values, compression="gzip")
    refused(run, stored, "X/data is compressed with HDF5 filter 1, which .* Install hdf5plugin", min_counts=0)


# --- archives


def write_archive(path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))


@pytest.fixture
def members(tmp_path) -> dict[str, bytes]:
    folder = write_10x_mtx(tmp_path / "10x", sp.csr_matrix(np.eye(30, 12, dtype=np.int32)), 3)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_macos_adds_is_left_out(tmp_path, members, name):
    mac = {f"__MACOSX/._{key}": b"\0\5\26\7" for key in members} | {f"._{key}": b"\0\5" for key in members}
    write_archive(tmp_path / name, members | mac | {".DS_Store": b"x"})
    assert read_whole(tmp_path / name).shape == (30, 10)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_is_unpacked_no_further_than_it_declares(tmp_path, members, name, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    zeros = {"notes.bin": bytes(50_000_000)}
    write_archive(tmp_path / name, members | zeros)
    assert read_whole(tmp_path / name).shape == (30, 10)  # what is not needed is not unpacked
    text = gzip.decompress(members["matrix.mtx.gz"])
    write_archive(tmp_path / name, members | {"matrix.mtx.gz": gzip.compress(text + b"\n" * 50_000_000)})
    with pytest.raises(UserError, match=r"longer than the .* bytes it declares"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["../../out/", "/out/"])
def test_no_member_leaves_the_folder(tmp_path, members, name):
    write_archive(tmp_path / "a.zip", {name + key: content for key, content in members.items()})
    assert read_whole(tmp_path / "a.zip").shape == (30, 10)
    assert not list(tmp_path.rglob("out"))


MATRICES = {
    "no heading": (b"1 1 3\n", "cannot be read|states no sizes|its tables hold"),
    "absurd sizes": (
        b"%%MatrixMarket matrix coordinate integer general\n12 900000000000 1\n1 1 1\n",
        "900000000000 cells, its tables",
    ),
    "complex": (b"%%MatrixMarket matrix coordinate complex general\n12 30 1\n1 1 1 1\n", "complex"),
    "text": (b"hello\nthere\n", "states no sizes"),
    "empty": (b"", "cannot be read|states no sizes"),
    "transposed": (b"%%MatrixMarket matrix coordinate integer general\n30 12 1\n1 1 1\n", "cells in rows: write its transpose"),
    "entry beyond": (b"%%MatrixMarket matrix coordinate integer general\n12 30 1\n13 1 1\n", "cannot be read"),
}


@pytest.mark.parametrize("case", MATRICES)
def test_text_matrices_that_are_none(tmp_path, members, case):
    content, message = MATRICES[case]
    write_archive(tmp_path / "a.zip", members | {"matrix.mtx.gz": gzip.compress(content)})
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "a.zip")


def folder_with(tmp_path, **files: str):
    folder = write_10x_mtx(tmp_path / "10x", sp.csr_matrix(np.eye(30, 12, dtype=np.int32)), 2)
    for name, text in files.items():
        (folder / f"{name}.tsv").write_text(text)
    return folder


def test_a_third_column_that_is_no_feature_type_drops_no_gene(tmp_path):
    genes = FEATURES.assign(type="protein_coding").to_csv(sep="\t", header=False, index=False)
    assert read_whole(folder_with(tmp_path, genes=genes)).shape == (30, 12)
    assert read_whole(folder_with(tmp_path, genes="".join(f"{name}\n" for name in FEATURES["id"]))).shape == (30, 12)


def test_a_heading_in_the_tables_is_explained(tmp_path):
    folder = folder_with(tmp_path, barcodes="\n".join(["x", *BARCODES]))
    with pytest.raises(UserError, match=r"its tables hold 12 x 31. Remove the heading .*'x'"):
        open_source(folder)


def test_names_that_read_as_missing_are_names_in_text_tables(tmp_path):
    genes = FEATURES.assign(name=["nan", "NA", "null", "None", *FEATURES["name"][4:]]).to_csv(
        sep="\t", header=False, index=False
    )
    assert list(open_source(folder_with(tmp_path, genes=genes)).var["symbol"][:4]) == ["nan", "NA", "null", "None"]


def test_a_matrix_without_its_tables_is_explained(tmp_path, members):
    (tmp_path / "matrix.mtx.gz").write_bytes(members["matrix.mtx.gz"])
    shutil.rmtree(tmp_path / "10x")
    with pytest.raises(UserError, match=r"beside .*matrix.mtx.gz lies no file .* Give the folder of all three"):
        open_source(tmp_path / "matrix.mtx.gz")


def test_10x_h5_that_contradicts_itself(tmp_path):
    counts = sp.csr_matrix(np.eye(30, 12, dtype=np.int32))
    for number, (damage, message) in enumerate([
        (replace("matrix/shape", lambda v: np.array([12, 29])), "is 12 x 29 but its tables hold 12 genes x 30 cells"),
        (replace("matrix/indptr", lambda v: v[:-2]), "indptr has 29 entries, but 31"),
        (replace("matrix/features/name", lambda v: v[:-2]), "has 10 entries instead of 12"),
        (replace("matrix/features/genome", lambda v: np.repeat([b"GRCh38", b"mm10"], 6)), "genes of 2 genomes .GRCh38, mm10"),
        (lambda file: file.copy("matrix", "mm10"), "holds 2 genomes"),
    ]):  # fmt: skip
        path = write_10x_h5(tmp_path / f"{number}.h5", counts, 3)
        with h5py.File(path, "r+") as file:
            damage(file)
        with pytest.raises(UserError, match=message):
            open_source(path)


# --- files of another kind


def as_mudata(path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("mod/rna/obs")
        file.create_group("mod/gdo")


def as_loom(path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = np.eye(3)
        file.create_group("row_attrs")


def as_zarr(path) -> None:
    path.mkdir()
    (path / ".zgroup").write_text("{}")


def as_folder_of_h5ad(path) -> None:
    path.mkdir()
    for name in "ab":
        (path / f"{name}.h5ad").write_text("x")


def as_text(path) -> None:
    path.write_text("gene,cell1\nTP53,3\n")


def as_gzipped(path) -> None:
    path.write_bytes(gzip.compress(b"\x89HDF\r\n\x1a\n"))


KINDS = {
    "x.h5mu": (as_mudata, "MuData file .h5mu. of (gdo, rna|rna, gdo)"),
    "x.loom": (as_loom, "is a loom file"),
    "y.h5": (as_loom, "is a loom file"),
    "x.zarr": (as_zarr, "is a zarr store"),
    "store": (as_zarr, "is a zarr store"),
    "folder": (as_folder_of_h5ad, "folder of 2 files .a.h5ad, b.h5ad."),
    "x.csv": (as_text, "is a text table"),
    "x.csv.gz": (as_text, "is a text table"),
    "x.rds": (as_text, "is an R object"),
    "x.h5seurat": (as_text, "is a Seurat file"),
    "x.xlsx": (as_text, "is a spreadsheet"),
    "x.h5ad.gz": (as_gzipped, "Unpack it first"),
    "x.h5ad": (as_text, "is no HDF5 file"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_of_another_kind_are_named(tmp_path, name):
    make, message = KINDS[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / name)


def test_raw_of_old_anndata_is_found(run, stored):
    counts = ad.read_h5ad(stored).X
    with h5py.File(stored, "r+") as file:
        file.move("X", "raw.X")
        file.copy("var", "raw.var")
        file["X"] = np.full((120, 40), 0.5)
    refused(run, stored, "holds whole numbers in: raw; set layer", min_counts=0)
    written = ad.read_h5ad(run(stored, layer="raw", min_counts=0) / "counts.h5ad")
    assert (counts != written.X).nnz == 0


# --- tables of cell annotations


def annotated(path) -> list:
    return open_source(path[0], cells=path[1]).column("guide", "perturbation").fillna("?").tolist()


TEXTS = {
    "comma": (lambda t: t.to_csv(index=False), "c.csv"),
    "semicolon": (lambda t: t.to_csv(index=False, sep=";"), "c.csv"),
    "tab in csv": (lambda t: t.to_csv(index=False, sep="\t"), "c.csv"),
    "byte-order mark": (lambda t: "\ufeff" + t.to_csv(index=False), "c.csv"),
    "R write.csv": (lambda t: t.set_index("cell").rename_axis(None).to_csv(quoting=2), "c.csv"),
    "R write.table": (lambda t: '"guide"\n' + "".join(f'"{c}" "{g}"\n' for c, g in t.itertuples(index=False)), "c.txt"),
    "Windows": (lambda t: t.to_csv(index=False).replace("\n", "\r\n"), "c.csv"),
    "empty columns": (lambda t: t.assign(**{"Unnamed: 9": ""}).to_csv(index=False), "c.csv"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_tables_of_cells_as_programs_write_them(tmp_path, case):
    write, name = TEXTS[case]
    table = pd.DataFrame({"cell": BARCODES, "guide": [f"g{n}" for n in range(30)]})
    (tmp_path / name).write_text(write(table), newline="")
    counts = write_10x_h5(tmp_path / "v3.h5", sp.csr_matrix(np.eye(30, 12, dtype=np.int32)), 3)
    assert annotated((counts, tmp_path / name)) == table["guide"].tolist()


BAD_TABLES = {
    "latin-1": ("c.csv", "cell,guide\nA,\xe9\n".encode("latin-1"), "is not UTF-8 text"),
    "utf-16": ("c.csv", "cell,guide\nA,b\n".encode("utf-16"), "is not UTF-8 text"),
    "xlsx": ("c.csv", b"PK\x03\x04\xff\xfe", "is not UTF-8 text"),
    "empty": ("c.csv", b"", "cannot be read .No columns"),
    "only a heading": ("c.csv", b"cell,guide\n", "holds no cells"),
    "ragged": ("c.csv", b"cell,guide\nA,b\nB,c,d,e\n", "cannot be read .*line 3"),
    "comment above": ("c.csv", b"# mine\ncell,guide,batch\nA,b,c\n", "more values in a line than its first line names"),
    "row numbers first": (
        "c.csv",
        b",cell,guide\n0," + BARCODES[0].encode() + b",g\n",
        "column 'cell' holds them: make that the",
    ),
    "quoted wrong": ("c.csv", b'cell,guide\nA,"b\nB,c\n', "cannot be read"),
    "plain as gz": ("c.csv.gz", b"cell,guide\nA,b\n", "cannot be read .Not a gzipped file"),
    "text as parquet": ("c.parquet", b"cell,guide\nA,b\n", "cannot be read"),
    "column twice": ("c.parquet", None, "names no cell"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_of_cells_that_are_none(tmp_path, case):
    name, content, message = BAD_TABLES[case]
    if content is None:
        pd.DataFrame({"cell": [1, 2], "guide": ["a", "b"]}).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    counts = write_10x_h5(tmp_path / "v3.h5", sp.csr_matrix(np.eye(30, 12, dtype=np.int32)), 3)
    with pytest.raises(UserError, match=message):
        open_source(counts, cells=tmp_path / name)


def test_scipy_reads_what_we_read(tmp_path, members):
    """The bounded copy of a compressed matrix is the matrix."""
    (tmp_path / "m.mtx").write_bytes(gzip.decompress(members["matrix.mtx.gz"]))
    assert (sp.csr_matrix(scipy.io.mmread(tmp_path / "m.mtx").T)[:, :10].toarray() == read_whole(tmp_path / "10x")).all()
