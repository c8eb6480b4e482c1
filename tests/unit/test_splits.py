"""Splits: the paper's rule, splits by cell, validation halves."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_screen import write_given_splits

import plan_evaluation
from plumbline.common.errors import UserError
from plumbline.data.splits import PARTS, make_split, n_train, read_splits, split_by, split_seeds, split_warnings


def screen(n: int, n_batches: int, n_perturbations: int, share_controls: float = 0.1, seed: int = 0) -> tuple:
    random = np.random.default_rng(seed)
    control = random.random(n) < share_controls
    perturbation = np.array([f"gene{i}" for i in range(n_perturbations)])[random.integers(0, n_perturbations, n)]
    batch = np.array([f"batch{i}" for i in range(n_batches)])[random.integers(0, n_batches, n)]
    return np.where(control, "non-targeting", perturbation), control, batch


def plain_split(perturbation, control, batch, seed):
    """The rule of the protocol, cell by cell."""
    random = np.random.RandomState(seed)
    names = [list(dict.fromkeys(column[~control])) for column in (batch, perturbation)]
    first = [{column[i] for i in random.permutation(len(column))[: int(0.7 * len(column))]} for column in names]
    batches, perturbations = first
    train, test1, test2 = ([False] * len(control) for _ in range(3))
    for i in range(len(control)):
        inside = batch[i] in batches
        train[i] = inside and (control[i] or perturbation[i] in perturbations)
    seen = {p for p, t, c in zip(perturbation, train, control, strict=True) if t and not c}
    for i in range(len(control)):
        outside = batch[i] in names[0] and batch[i] not in batches
        test1[i] = outside and (control[i] or perturbation[i] in seen)
        test2[i] = outside and (control[i] or perturbation[i] not in perturbations)
    return train, test1, test2


@pytest.mark.parametrize("seed", [42, 43, 7])
def test_agrees_with_the_rule_applied_cell_by_cell(seed):
    cells = screen(400, 9, 60, seed=seed)
    split = make_split(*cells, seed, "batch")
    for name, expected in zip(("train", "test1", "test2"), plain_split(*cells, seed), strict=True):
        np.testing.assert_array_equal(getattr(split, name), expected, err_msg=name)


def test_sizes_of_the_genome_wide_replogle_screen():
    assert n_train(267) == 186
    assert n_train(9865) == 6905
    # 20 cells for each perturbation, spread so that every train perturbation has one in a train batch
    perturbation = np.repeat([f"g{i}" for i in range(9865)], 20)
    batch = np.array([f"b{i}" for i in range(267)])[np.arange(len(perturbation)) % 267]
    split = make_split(perturbation, np.zeros(len(batch), bool), batch, 42, "batch")
    assert len(np.unique(batch[split.train])) == 186
    assert len(np.unique(perturbation[split.train])) == 6905


def test_two_million_cells_take_seconds():
    cells = screen(2_000_000, 267, 9865)
    start = time.process_time()
    make_split(*cells, 42, "batch")
    assert time.process_time() - start < 10


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 120),
    st.integers(1, 8),
    st.integers(1, 12),
    st.floats(0, 0.5),
    st.integers(0, 9),
    st.sampled_from(("batch", "cell")),
)
def test_parts_are_apart_and_halves_are_used(n, n_batches, n_perturbations, share, seed, by):
    perturbation, control, batch = screen(n, n_batches, n_perturbations, share, seed)
    if control.all() or (by == "batch" and split_by(control, batch) == "cell"):
        return
    split = make_split(perturbation, control, batch, seed, by)
    assert not (split.train & (split.test1 | split.test2)).any()
    assert not (split.test1 & split.test2 & ~control).any()
    assert set(perturbation[split.test1 & ~control]) <= set(perturbation[split.train & ~control])
    assert not set(perturbation[split.test2 & ~control]) & set(perturbation[split.train & ~control])
    test = split.test1 | split.test2
    assert not (split.validation & ~test).any()
    both = (split.validation & ~control).any() and (~split.validation & test & ~control).any()
    assert both == split.validation.any()

    if (test & ~control).sum() > 1:
        assert both
    for part in (split.test1, split.test2):
        if by == "cell" and (part & ~control).sum() > 1:
            assert (part & split.validation & ~control).any()
            assert (part & ~split.validation & ~control).any()


def test_validation_is_half_of_the_test_batches():
    perturbation, control, batch = screen(5000, 20, 10)
    split = make_split(perturbation, control, batch, 42, "batch")
    test = split.test1 | split.test2
    chosen, rest = set(batch[test & split.validation]), set(batch[test & ~split.validation])
    assert not chosen & rest
    assert (len(chosen), len(rest)) == (3, 3)


def test_validation_by_cells_where_one_test_batch_is_left():
    perturbation, control, batch = screen(300, 2, 4)
    split = make_split(perturbation, control, batch, 42, "batch")
    test = split.test1 | split.test2
    assert len(np.unique(batch[test])) == 1
    for name in np.unique(perturbation[test]):
        of_it = test & (perturbation == name)
        assert abs((of_it & split.validation).sum() - (of_it & ~split.validation).sum()) <= 1


def test_by_cell_within_each_perturbation():
    perturbation, control, batch = screen(1000, 1, 10, 0.2)
    split = make_split(perturbation, control, batch, 42, "cell")
    assert len(np.unique(perturbation[split.train & ~control])) == 7
    for name in np.unique(perturbation):
        size, trained = (perturbation == name).sum(), (split.train & (perturbation == name)).sum()
        assert trained == (0 if name in perturbation[split.test2 & ~control] else int(0.7 * size))
    np.testing.assert_array_equal(split.test1[control], split.test2[control])
    held_out = np.isin(perturbation, np.unique(perturbation[split.test2 & ~control]))
    assert split.test2[held_out].all()


def test_one_perturbation_is_a_train_perturbation():
    perturbation, control, batch = screen(200, 1, 1, 0.5)
    split = make_split(perturbation, control, batch, 42, "cell")
    assert (split.train & ~control).sum() == int(0.7 * (~control).sum())
    assert (split.test1 | split.train).all()
    assert not split.test2.any()


def test_deterministic_and_moved_by_the_seed():
    cells = screen(500, 10, 20)
    one, again, other = (make_split(*cells, seed, "batch") for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.validation, again.validation)
    assert (one.train != other.train).any()


def test_controls_of_a_batch_without_perturbed_cells_join_nothing():
    perturbation, control, batch = screen(500, 6, 5)
    batch = np.where(np.arange(500) < 20, "lonely", batch)
    control = control | (batch == "lonely")
    split = make_split(perturbation, control, batch, 42, "batch")
    assert not (split.train | split.test1 | split.test2)[batch == "lonely"].any()


@pytest.mark.parametrize(
    ("control", "batch", "by", "message"),
    [
        ([True, True], ["a", "b"], "batch", "every cell is a control"),
        ([False, False], ["a", "a"], "batch", "to be split by cell"),
        ([False, False], ["a", "b"], "plate", "expected 'batch' or 'cell'"),
    ],
)
def test_what_cannot_be_split_is_said(control, batch, by, message):
    with pytest.raises(UserError, match=message):
        make_split(np.array(["x", "y"]), np.array(control), np.array(batch), 42, by)


@pytest.fixture
def tables(tmp_path):
    """cells.parquet and dataset.json of a made screen, as PREPARE leaves them."""
    perturbation, control, batch = screen(400, 6, 8)
    cells = pd.DataFrame({"perturbation": perturbation, "is_control": control, "batch": batch})
    cells.to_parquet(tmp_path / "cells.parquet")
    facts = {"name": "made", "n_cells": 400, "n_perturbations": 8, "n_batches": 6, "has_batches": True, "has_controls": True}
    (tmp_path / "dataset.json").write_text(json.dumps(facts | {"perturbation_type": "chemical"}))
    return tmp_path


def test_a_split_follows_from_the_tables_and_the_seed(tables):
    labels = [pd.read_parquet(tables / "cells.parquet")[name].to_numpy() for name in ("perturbation", "is_control", "batch")]
    for made, seed in zip(read_splits(tables, [42, 7]), (42, 7), strict=True):
        wanted = make_split(*labels, seed, "batch")
        for part in PARTS:
            np.testing.assert_array_equal(getattr(made, part), getattr(wanted, part))


def test_splits_that_are_given_are_used_for_their_seeds_alone(tables):
    write_given_splits(tables, {42: np.arange(400) < 100})
    given, made = read_splits(tables, [42, 43])
    assert given.train.tolist() == [True] * 100 + [False] * 300
    assert 0 < made.train.sum() != 100
    assert split_seeds(tables) == [42]


def test_the_plan_of_an_evaluation(tables, tmp_path, monkeypatch, capsys):
    made = tmp_path / "made"
    command = ["plan", "--tables", tables, "--seeds", "42,43", "--splits", made / "splits.parquet"]
    command += ["--output", made / "plan.json"]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    plan_evaluation.main()
    plan, split = json.loads((made / "plan.json").read_text()), read_splits(tables, [42])[0]
    assert (plan["dataset"], plan["warnings"]) == ("made", [])
    assert [row["seed"] for row in plan["splits"]] == split_seeds(made) == [42, 43]
    assert plan["splits"][0]["cells"] == {
        part: getattr(split, part).sum() for part in ("train", "test1", "test2", "validation")
    }
    assert plan["splits"][0]["perturbations"]["test2"] == 3
    assert plan["not_applicable"] == {"recall": "known relationships are between genes, and the perturbations are compounds"}
    np.testing.assert_array_equal(pd.read_parquet(made / "splits.parquet")["test1_42"], split.test1)
    assert capsys.readouterr().out == ""


def test_what_a_seed_leaves_unscored_is_a_warning():
    sizes = [{"seed": 42, "perturbations": {"train": 1, "test1": 0, "test2": 0}}]
    assert split_warnings(sizes) == [
        "Seeds [42]: train or test1 holds no perturbed cell; tasks that need both are not applicable.",
        "Seeds [42]: no held-out perturbation (test2); reconstruction is not applicable.",
    ]


def test_by_id_the_order_of_the_file_does_not_enter(tables):
    """By first appearance, the paper's rule, it does."""
    cells = pd.read_parquet(tables / "cells.parquet").assign(cell_id=[f"cell{n:03}" for n in range(400)])
    before = {order: _train_ids(tables, cells, order) for order in ("file", "id")}
    shuffled = cells.sample(frac=1, random_state=1, ignore_index=True)
    after = {order: _train_ids(tables, shuffled, order) for order in ("file", "id")}
    assert before["id"] == after["id"]
    assert before["file"] != after["file"]


def _train_ids(tables, cells, order) -> set[str]:
    cells.to_parquet(tables / "cells.parquet")
    (tables / "dataset.json").write_text(json.dumps({"split_order": order}))
    (split,) = read_splits(tables, [42])
    return set(cells["cell_id"][split.train])
