"""The border between models and science: what may cross it, and what is refused with which words."""

import json

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.embedding.contract import Embedding, align, read_embedding, write_embedding, write_not_applicable

IDS = np.array(["c1", "c2", "c3"])
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_an_embedding_comes_back_as_it_was_written(tmp_path):
    write_embedding(tmp_path / "e.npz", IDS, VALUES, {"model": "pca"})
    read = read_embedding(tmp_path / "e.npz")
    assert read.cell_id.tolist() == IDS.tolist()
    np.testing.assert_array_equal(read.values, VALUES)
    assert read.provenance == {"status": "ok", "model": "pca", "n_cells": 3, "n_dimensions": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "e.npz"]


def test_rows_are_joined_by_id():
    shuffled = Embedding(IDS[[2, 0, 1]], VALUES[[2, 0, 1]], {})
    np.testing.assert_array_equal(align(shuffled, IDS), VALUES)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["c1", "c2"], "1 missing (such as 'c3'), 0 extra"),
        (["c1", "c2", "c3", "c9"], "0 missing, 1 extra (such as 'c9')"),
        (["c1", "c2", "c2", "c3"], "the cell id 'c2' more than once"),
    ],
)
def test_other_cells_than_the_data_set_are_refused(ids, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        align(Embedding(np.array(ids), np.zeros((len(ids), 2)), {}), IDS)


@pytest.mark.parametrize(
    ("ids", "values", "words"),
    [
        (IDS, VALUES[:2], "3 cell ids but an array of shape"),
        (np.array(["a", "a", "b"]), VALUES, "duplicate cell ids"),
        (
            IDS,
            np.where(VALUES == 3, np.nan, VALUES),
            "1 rows hold NaN .*, or numbers beyond 1e.15 .first: cell 'c2'",
        ),
        (IDS, VALUES * np.float32(1e20), "3 rows hold NaN or infinite values, or numbers beyond"),
    ],
)
def test_a_wrong_embedding_is_refused_and_nothing_is_left_behind(tmp_path, ids, values, words):
    with pytest.raises(UserError, match=words):
        write_embedding(tmp_path / "e.npz", ids, values, {})
    assert list(tmp_path.iterdir()) == []


def test_cells_that_a_model_cannot_embed_are_counted(tmp_path):
    values = VALUES.copy()
    values[1] = np.nan
    write_embedding(tmp_path / "e.npz", IDS, values, {"unembedded_cells": 1})
    assert np.isnan(read_embedding(tmp_path / "e.npz").values[1]).all()


def test_not_applicable_is_recorded_with_its_reason(tmp_path):
    write_not_applicable(tmp_path / "e.npz", "mouse genes", {"model": "scgpt"})
    read = read_embedding(tmp_path / "e.npz")
    assert read.provenance == {"status": "not_applicable", "reason": "mouse genes", "model": "scgpt"}
    assert read.values.shape == (0, 0)


def test_a_file_that_is_no_embedding_is_told_so(tmp_path):
    (tmp_path / "e.npz").write_bytes(b"PK not really")
    with pytest.raises(UserError, match="needs the arrays cell_id and embedding"):
        read_embedding(tmp_path / "e.npz")


def test_the_provenance_is_plain_json(tmp_path):
    write_embedding(tmp_path / "e.npz", IDS, VALUES, {"seed": 42})
    assert json.loads((tmp_path / "e.json").read_text())["seed"] == 42
