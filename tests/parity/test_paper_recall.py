"""`paper` recall against values computed by the paper's own code (n_pairs exact, recall within one pair)."""

import json

import numpy as np
import pytest

from plumbline.genes.relationships import SOURCES, known_pairs
from plumbline.metrics.recall import in_band, known_among, pairwise_cosines, recalled


def _recall(names: np.ndarray, means: np.ndarray, source: str, share: float = 0.05) -> tuple[float, int, int]:
    order = np.argsort(names)
    similarities = pairwise_cosines(means[order])
    i, j = known_among(names[order], known_pairs(source))
    hit = recalled(similarities.values[similarities.index(i, j)], in_band(similarities.values, share))
    return hit.mean(), len(i), len(similarities.values)


@pytest.mark.parametrize("source", SOURCES)
def test_recall_of_raw_embedding_agrees(shared, source):
    folder = shared / "fixtures/metrics"
    expected = json.loads((folder / "expected.json").read_text())["bmdb"]["controls_removed"]["raw"][source]
    arrays = np.load(folder / "expected.npz")
    recall, n_pairs, n_null = _recall(arrays["bmdb_entities"].astype(str), arrays["bmdb_mean_embedding"], source)
    assert n_pairs == expected["n_pairs"]
    assert n_null == expected["null_size"]
    assert recall == pytest.approx(expected["recall"], abs=1.001 / n_pairs)


@pytest.mark.parametrize("method", ["raw", "centered", "center_scaled", "tvn"])
@pytest.mark.parametrize("source", SOURCES)
def test_recall_task_agrees_from_cells(paper_view, method, source):
    from plumbline.tasks import recall

    view, expected = paper_view(method)
    score = next(s for s in recall.run(view) if s.metric == f"recall_{source.lower()}")
    wanted = expected["bmdb"]["controls_removed"][method][source]
    assert score.n == wanted["n_pairs"]
    assert score.value == pytest.approx(wanted["recall"], abs=1.001 / wanted["n_pairs"])


def test_mean_is_the_mean_of_the_sources(paper_view):
    from plumbline.tasks import recall

    view, _ = paper_view("raw")
    scores = {s.metric: s.value for s in recall.run(view)}
    assert scores["recall_mean"] == pytest.approx(np.mean([scores[f"recall_{s.lower()}"] for s in SOURCES]), abs=1e-12)
