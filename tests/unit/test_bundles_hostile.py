"""Bundles that an enemy made are refused before anything in them is loaded."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import change_table, sign, texts

from plumbline.bundles.manifest import MANIFEST, read_bundle
from plumbline.common.errors import UserError
from plumbline.common.files import write_json


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_loaded(bundle, tmp_path):
    ids = np.array(["a"] * 133)
    np.savez(bundle / "embedding.npz", cell_id=ids, embedding=np.array([[Bomb(tmp_path / "run")]] * 133, dtype=object))
    sign(bundle)
    assert "holds Python objects, which are never loaded" in texts(bundle)
    (bundle / "embedding.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "run")))
    sign(bundle)
    assert "embedding.npz cannot be read" in texts(bundle)
    assert not (tmp_path / "run").exists()


def test_an_array_that_states_more_than_it_holds_takes_no_memory(bundle):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (133, 60000), }".ljust(117) + b"\n"
    with np.load(bundle / "embedding.npz") as arrays:
        ids = arrays["cell_id"]
    np.savez(bundle / "embedding.npz", cell_id=ids)
    with zipfile.ZipFile(bundle / "embedding.npz", "a") as archive:
        archive.writestr("embedding.npy", header)
    sign(bundle)
    assert "embedding.npy states 31,920,000 bytes and holds 128" in texts(bundle)


@pytest.mark.parametrize("name", ["../outside.parquet", "/etc/passwd", "run.pkl", "a/scores.parquet", ".hidden"])
def test_a_manifest_names_files_of_a_bundle_only(bundle, name):
    manifest = json.loads((bundle / MANIFEST).read_text())
    write_json(bundle / MANIFEST, manifest | {"files": manifest["files"] | {name: "0" * 64}})
    with pytest.raises(UserError, match="is not a file of a bundle"):
        read_bundle(bundle)


def test_links_folders_and_strangers_are_refused(bundle, tmp_path):
    (bundle / "items.parquet").rename(tmp_path / "items.parquet")
    (bundle / "items.parquet").symlink_to(tmp_path / "items.parquet")
    (bundle / "more").mkdir()
    (bundle / "setup.py").touch()
    (bundle / "embedding.7.npz").touch()
    found = texts(bundle)
    assert "items.parquet: a link or folder" in found
    assert "more: a link or folder" in found
    assert "setup.py is not a file of a bundle" in found
    assert "embedding.7.npz is not listed in the manifest" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle_version": "2.0.0"}, r"bundle version '2.0.0', but this plumbline reads 1\.\d"),
        ({"model": {"variant": "../../x"}}, "model.model is missing"),
        (
            {"dataset": {"name": "a/b", "n_cells": 3, "cells": "", "genes": "", "splits": {}}},
            "dataset.name is 'a/b', not a plain name",
        ),
        ({"embeddings": ["x"]}, "embeddings. is not an object"),
        ({"settings": 3}, "settings. is not an object"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(bundle, change, message):
    manifest = json.loads((bundle / MANIFEST).read_text())
    write_json(bundle / MANIFEST, manifest | change)
    with pytest.raises(UserError, match=message):
        read_bundle(bundle)


def test_a_manifest_that_is_no_json_or_too_large_is_refused(bundle):
    for content, message in ((b"[" * 100_000, "cannot be read"), (b" " * 10_000_001, "more than a manifest can need")):
        (bundle / MANIFEST).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_bundle(bundle)


def test_a_table_of_another_model_or_shape_is_refused(bundle):
    change_table(bundle, "scores", lambda table: table.__setitem__("variant", "better"))
    sign(bundle)
    assert "scores.parquet: variant is 'better', but 'mine' in the manifest" in texts(bundle)
    pd.DataFrame({"a": [[1]]}).to_parquet(bundle / "scores.parquet")
    sign(bundle)
    assert "scores.parquet has no column 'dataset'" in texts(bundle)
