"""What EVALUATE computes on a GPU is what the CPU computes: on a stand-in for one (tests/pretended_gpu.py), which refuses what
a GPU refuses. benchmarks/gpu.sh repeats it on a real one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from made_screens import counts_view

torch = pytest.importorskip("torch")

from pretended_gpu import There, pretended_gpu

from plumbline import tasks
from plumbline.metrics import distances, relabelling
from plumbline.metrics.cosine import matched_null
from plumbline.metrics.energy import energy_distances, matched_test
from plumbline.metrics.groups import group_by
from plumbline.metrics.neighbours import nearest
from plumbline.metrics.probe import Schedule, fit_linear

ON_DEVICE = [name for name, task in tasks.records().items() if task.uses_device]


@pytest.fixture
def cells() -> dict:
    """240 cells of 6 perturbations, controls among them, in 4 batches; two without a direction."""
    rng, n = np.random.default_rng(3), 240
    x = rng.normal(size=(n, 40)).astype(np.float32)
    x[[5, 90]] = 0
    names = np.array([f"p{code}" for code in rng.integers(0, 6, n)])
    return {"x": x, "cell_id": np.arange(n).astype(str), "perturbation": names, "batch": rng.integers(0, 4, n).astype(str)}


@pytest.fixture
def both():
    """Call a function on the CPU and on the stand-in."""

    def call(function):
        with pretended_gpu():
            there = function(device="cuda")
        return function(device="cpu"), there

    return call


def test_the_stand_in_refuses_what_a_gpu_refuses():
    with pretended_gpu():
        x = torch.ones(3, 2).to("cuda")
        assert isinstance(x, There)
        assert x.device.type == "cuda"
        assert x.sum().item() == 6
        for wrong in (lambda: x + torch.ones(3, 2), lambda: x.numpy(), lambda: torch.ones(3)[x[:, 0].long()]):
            with pytest.raises((RuntimeError, TypeError), match="device"):
                wrong()
        assert torch.ones(2).device.type == "cpu"
        assert (x * torch.tensor(2.0)).cpu().sum() == 12
        model = torch.nn.Linear(2, 1).to("cuda")
        model(x).sum().backward()
        assert model.weight.grad.device.type == "cuda"
        with pytest.raises(RuntimeError, match="same device"):
            model(torch.ones(3, 2))


def test_neighbours_and_probe(both, cells):
    x, code = cells["x"], group_by(cells["perturbation"]).codes
    here, there = both(partial(nearest, x, 30))
    np.testing.assert_array_equal(here[1], there[1])
    here, there = both(partial(fit_linear, x, code, 6, Schedule(64, 20), 0))
    np.testing.assert_allclose(here.weight, there.weight, atol=1e-5)


def test_null_draws_of_consistency_whatever_fits_the_device(both, cells, monkeypatch):
    names = np.unique(cells["perturbation"])
    draw = partial(matched_null, **cells, names=names, n_draws=60, seed=1)
    here, there = both(draw)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    monkeypatch.setattr(relabelling, "_room", lambda device: 4 * 240 * relabelling.LANES)  # 32 of 40 dimensions, then 8
    np.testing.assert_allclose(here[1], both(draw)[1][1], atol=1e-6)


@pytest.mark.parametrize("precision", [np.float64, np.float32])
def test_energy_distances_and_their_null_draws(both, cells, precision):
    x, names = cells["x"].copy(), cells["perturbation"]
    x[7] = x[8]  # at no distance, far from the origin
    x[[7, 8]] += 30
    test = partial(matched_test, x, cells["cell_id"], names, names == "p0", cells["batch"], np.unique(names)[1:], 60, 1)
    here, there = both(partial(test, precision=precision))
    np.testing.assert_allclose(here.observed, there.observed, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(here.null, there.null, rtol=1e-5, atol=1e-3)
    here, there = both(partial(energy_distances, x, group_by(names), x[names == "p0"], precision))
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5)


def test_mean_distances_of_more_than_a_block(both, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 16)
    x = np.random.default_rng(0).normal(size=(50, 5))
    for function in (distances.mean_distance_within, partial(distances.mean_distance, y=x[:20])):
        here, there = both(partial(function, x))
        assert here == pytest.approx(there, rel=1e-9)


@pytest.mark.parametrize("name", ON_DEVICE)
@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_every_score_of_a_task_that_uses_a_device(name, protocol, both, tmp_path):
    view, expression = counts_view(tmp_path, n_cells=250, n_genes=10)
    view = replace(view, embedding=expression.astype(np.float32), protocol=protocol, n_draws=50)

    def score(device: str) -> dict:
        return {score.metric: score.value for score in tasks.load(name).run(replace(view, device=device))}

    here, there = both(score)
    assert here.keys() == there.keys()
    found = {metric: value for metric, value in here.items() if value is not None}
    assert found or protocol == "paper"
    for metric, value in here.items():
        assert there[metric] == pytest.approx(value, abs=5e-3, nan_ok=True), metric
