"""Vectors that are read when they are asked for: the same numbers as arrays, from any file, in little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_postprocess import cells

from plumbline.common.errors import UserError
from plumbline.embedding.contract import open_embedding, read_embedding, rows_of, write_embedding
from plumbline.embedding.stored import GAP, StoredArray
from plumbline.scoring import postprocess as fitting
from plumbline.scoring import vectors as module
from plumbline.scoring.alignment import Factored, Whole
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.protocol import POSTPROCESSINGS
from plumbline.scoring.screen import Subject
from plumbline.scoring.vectors import Vectors

BIN = Path(__file__).resolve().parents[2] / "bin"


def ids(n: int) -> np.ndarray:
    return np.array([f"cell{i:06d}" for i in range(n)])


@pytest.fixture
def stored(tmp_path):
    """A function: an embedding written to a file, opened there."""

    def write(values: np.ndarray) -> StoredArray:
        write_embedding(tmp_path / "e.npz", ids(len(values)), values, {})
        return open_embedding(tmp_path / "e.npz").values

    return write


def test_rows_of_a_file_are_those_of_the_array(stored):
    values = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)
    there, random = stored(values), np.random.default_rng(1)
    assert isinstance(there, StoredArray)
    far = np.array([0, 4999, 3, GAP // 28 + 5, 3])  # further apart than what is read along; one twice
    for rows in (
        far,
        random.permutation(5000),
        random.random(5000) < 0.1,
        slice(10, 20),
        slice(None, None, 3),
        np.zeros(0, int),
    ):
        np.testing.assert_array_equal(there[rows], values[rows])
    with pytest.raises(IndexError, match="of an array of 5000"):
        there[np.array([5000])]


def test_only_float32_rows_of_an_uncompressed_file_are_left_there(tmp_path):
    values = np.arange(12.0).reshape(4, 3)
    files = {
        "compressed": lambda path: np.savez_compressed(path, cell_id=ids(4), embedding=values.astype(np.float32)),
        "float64": lambda path: np.savez(path, cell_id=ids(4), embedding=values),
        "columns": lambda path: np.savez(path, cell_id=ids(4), embedding=np.asfortranarray(values.astype(np.float32))),
        "swapped": lambda path: np.savez(path, cell_id=ids(4), embedding=values.astype(">f4")),
        "plain": lambda path: np.savez(path, cell_id=ids(4), embedding=values.astype(np.float32)),
    }
    for name, write in files.items():
        write(tmp_path / f"{name}.npz")
        found = open_embedding(tmp_path / f"{name}.npz").values
        assert isinstance(found, StoredArray) == (name == "plain")
        np.testing.assert_array_equal(found[:], values)
        assert read_embedding(tmp_path / f"{name}.npz").values.dtype == np.float32


def test_a_damaged_value_is_found_though_no_array_is_made(tmp_path):
    write_embedding(tmp_path / "e.npz", ids(20_000), np.ones((20_000, 4), dtype=np.float32), {})
    content = bytearray((tmp_path / "e.npz").read_bytes())
    content[content.rindex(np.ones(4, dtype=np.float32).tobytes())] ^= 1  # far beyond what is read to find the array
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        open_embedding(tmp_path / "e.npz")


def test_ids_in_the_same_order_are_not_searched():
    assert rows_of(ids(5), ids(5)) is None
    assert rows_of(ids(5), ids(5).astype(object)) is None
    assert rows_of(ids(5), ids(5)[[2, 0, 1, 4, 3]]).tolist() == [2, 0, 1, 4, 3]


@pytest.mark.parametrize("method", POSTPROCESSINGS)
@pytest.mark.parametrize("d", [12, 80])
def test_rows_on_demand_equal_the_array_under_every_post_processing(method, d, stored, monkeypatch):
    """In 80 dimensions a batch's map is factored, in 12 it is a matrix."""
    values, control, batch = cells(n=300, d=d, n_batches=5, seed=3)
    held, _ = postprocess(values, control, batch, method)
    monkeypatch.setattr(module, "HELD_BYTES", 0)
    lazy, _ = postprocess(Vectors.of(stored(values)), control, batch, method)
    assert isinstance(lazy.source, StoredArray)
    assert isinstance(held.source, np.ndarray)
    expected = np.asarray(held)
    scale = np.abs(expected).max()
    part = np.random.default_rng(0).permutation(300)[:77]
    np.testing.assert_allclose(lazy[part], expected[part], atol=1e-6 * scale)
    np.testing.assert_allclose(lazy.take(part)[10:20], expected[part][10:20], atol=1e-6 * scale)
    np.testing.assert_allclose(lazy.take(control).take(np.arange(9)[::-1])[:], expected[control][:9][::-1], atol=1e-6 * scale)
    np.testing.assert_allclose(lazy.dimensions(slice(3, 9))[part], expected[part][:, 3:9], atol=1e-6 * scale)
    seen = np.zeros((77, d), dtype=np.float32)
    sizes = [len(positions) for positions, block in lazy.blocks(part, size=10) if seen.__setitem__(positions, block) is None]
    np.testing.assert_allclose(seen, expected[part], atol=1e-6 * scale)
    assert sizes == [10] * 7 + [7]


def test_blocks_go_through_the_file_from_front_to_end(stored, monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES", 0)
    values = np.arange(40, dtype=np.float32)[:, None]
    order = np.random.default_rng(0).permutation(40)
    read = [block.ravel() for _, block in Vectors.of(stored(values)).take(order).blocks(size=9)]
    np.testing.assert_array_equal(np.concatenate(read), np.arange(40))


def test_a_factored_map_of_a_batch_is_the_matrix():
    values, control, batch = cells(n=200, d=64, n_batches=4, seed=2)
    vectors, rows = Vectors.of(values), np.flatnonzero(control & (batch == "batch1"))
    whiten = np.random.default_rng(0).normal(size=(64, 64)) / 8
    factored = fitting._of_batch(vectors, rows, whiten)
    assert isinstance(factored, Factored)
    whole = fitting._whole(fitting._covariance(vectors, rows, values[rows].mean(axis=0, dtype=float), ddof=1), whiten)
    assert isinstance(whole, Whole)
    matrix = factored.scale * (whiten - factored.projection @ factored.factor)
    np.testing.assert_allclose(matrix, whole.matrix, atol=1e-5 * np.abs(whole.matrix).max())


def test_cells_without_an_embedding_are_left_out_of_a_file(stored, tmp_path):
    from made_screens import view_of

    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    view = view_of(values, np.repeat(["ctrl", "a"], 3), np.repeat("b", 6))
    assert Subject.of_embedded(view.embedding, view.screen).screen is view.screen  # nothing is copied
    values[4] = np.nan
    write_embedding(tmp_path / "nan.npz", ids(6), values, {"unembedded_cells": 1})
    subject = Subject.of_embedded(open_embedding(tmp_path / "nan.npz").values, view.screen)
    assert subject.rows.tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(subject.embedding[:], values[subject.rows])


MEASURED = """
import sys
from pathlib import Path
sys.path.insert(0, {bin!r})
import numpy as np, pandas as pd
from plumbline.common.usage import peak_memory
from plumbline.embedding.contract import open_embedding
from plumbline.metrics.groups import group_by, group_means
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.vectors import Vectors
from plumbline.embedding import contract
from plumbline.scoring import vectors as module
module.BLOCK_BYTES = module.HELD_BYTES = contract.BLOCK = 2**22
before, n = peak_memory(), 100_000
rng = np.random.default_rng(0)
vectors = Vectors.of(open_embedding(Path({file!r})).values).take(rng.permutation(n))
batch, control = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, n)], rng.random(n) < 0.03
for method in ("none", "center_scale", "tvn"):
    aligned, _ = postprocess(vectors, control, batch, method)
    group_means(aligned, group_by(batch))
print(peak_memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of one process is read from /proc (Linux)")
def test_memory_does_not_grow_with_the_embedding(tmp_path):
    """An embedding of 128 MB under three post-processings, each of which was an array of that size once."""
    values = np.random.default_rng(0).random((100_000, 320), dtype=np.float32)
    np.savez(tmp_path / "e.npz", cell_id=ids(100_000), embedding=values)
    code = MEASURED.format(bin=str(BIN), file=str(tmp_path / "e.npz"))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 80e6, found.stdout
