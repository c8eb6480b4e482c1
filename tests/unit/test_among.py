"""Which labels are among some: as numpy says it."""

import numpy as np
import pytest

from plumbline.common.labels import among


@pytest.mark.parametrize("names", [[], ["a"], ["nan", "", "gene 7"], {"gene 3", "none"}, np.array(["gene 1", "gene 2"])])
def test_labels_among_names_are_those_that_numpy_finds(names):
    labels = np.random.default_rng(0).choice([*(f"gene {number}" for number in range(9)), "nan", "", "Gene 1"], 500)
    found = among(labels, names)
    assert found.dtype == bool
    assert (found == np.isin(labels, np.array(list(names), dtype=str))).all()
    assert (among(labels.astype(object), names) == found).all()


def test_no_labels_are_among_none():
    assert among(np.array([], dtype=str), ["a"]).tolist() == []
