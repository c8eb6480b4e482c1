"""Item tables that are read score by score: the same rows as the whole table has, and never the whole table."""

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from plumbline.common.errors import UserError
from plumbline.summary import items
from plumbline.summary.item_writing import keys_first, write_items
from plumbline.summary.items import ItemTable

CHOSEN = {"paper": "best", "corrected": "selected"}


def made_table(variant: str, seeds: tuple[int, ...], rng: np.random.Generator) -> pd.DataFrame:
    """Scores of three metrics under both protocols, of perturbations and pairs, with what they share."""
    frames = []
    for seed in seeds:
        for protocol, methods in (("paper", ("none", "best")), ("corrected", ("none", "selected"))):
            for method in methods:
                for metric, kind in (("m1", "perturbation"), ("m2", "pair"), ("m3", "perturbation")):
                    about = {"seed": seed, "protocol": protocol, "postprocess": method, "metric": metric, "offset": 0.5}
                    units = {"unit": [f"{metric}{i}" for i in range(5)], "numerator": rng.random(5), "denominator": 1.0}
                    units["unit2"] = [f"x{i}" for i in range(5)] if kind == "pair" else ""
                    frames.append(pd.DataFrame(units).assign(**about, unit_kind=kind, scale=2.0))
                    shared = {"unit": ["g"], "unit2": "", "numerator": 0.0, "denominator": 0.0, "influence": rng.random()}
                    frames.append(pd.DataFrame(shared).assign(**about, unit_kind="shared", scale=2.0))
    return pd.concat(frames, ignore_index=True).assign(dataset="d", model="m", variant=variant, fit_on="all", task="t")


@pytest.fixture
def tables(tmp_path):
    """Files of three models and two seeds each, with row groups that scores cross, and one without rows."""
    rng, frames = np.random.default_rng(0), {}
    for variant in ("a", "b"):
        for seed in (1, 2):
            frames[tmp_path / f"{variant}{seed}.parquet"] = made_table(variant, (seed,), rng)
    frames[tmp_path / "c.parquet"] = made_table("c", (1, 2), rng).assign(p=0.25)
    for path, frame in frames.items():
        frame.to_parquet(path, index=False, row_group_size=7)
    pd.DataFrame({"task": pd.Series([], dtype=object)}).to_parquet(tmp_path / "none.parquet")
    return [*frames, tmp_path / "none.parquet"], pd.concat(frames.values(), ignore_index=True)


def test_a_score_is_read_as_if_from_the_whole_table(tables):
    paths, whole = tables
    table = ItemTable(paths)
    for (variant, protocol, metric), rows in whole.groupby(["variant", "protocol", "metric"]):
        found = table.read("t", metric, protocol, dataset="d", variant=variant, fit_on="all")
        rows = rows[rows["postprocess"] == CHOSEN[protocol]]
        assert list(found) == [1, 2]
        for seed, part in rows.groupby("seed"):
            wanted = items.items_of(part)
            for name in ("kind", "offset", "scale", "influence"):
                assert getattr(found[seed], name) == getattr(wanted, name)
            for name in ("unit", "unit2", "numerator", "denominator"):
                np.testing.assert_array_equal(getattr(found[seed], name), getattr(wanted, name))
            assert list(found[seed].extra) == (["p"] if variant == "c" else [])
    assert table.read("t", "m1", "paper", variant="unknown") == {} == table.read("other", "m1", "paper")


def test_rows_of_some_values_are_written_in_order_keys_first(tables, tmp_path):
    paths, whole = tables
    write_items(ItemTable(paths), tmp_path / "all.parquet")
    of_b = ItemTable([tmp_path / "all.parquet"]).of(variant="b").of(postprocess=frozenset(("best", "selected")))
    write_items(of_b, tmp_path / "b.parquet")
    chosen = whole[(whole["variant"] == "b") & whole["postprocess"].isin(("best", "selected"))]
    for name, wanted in (("all", whole), ("b", chosen)):
        read = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert list(read) == keys_first(list(whole))
        pd.testing.assert_frame_equal(read[list(whole)], wanted.reset_index(drop=True))
    assert parquet.read_metadata(tmp_path / "all.parquet").num_row_groups == 1  # of a few rows each, joined
    kinds = {str(field.type) for field in parquet.read_schema(tmp_path / "all.parquet")}
    assert kinds == {"string", "int64", "double"}  # and no dictionaries, which bundles refuse


def test_sums_of_every_score(tables):
    paths, whole = tables
    table = ItemTable(paths).of(variant="a")
    wanted = whole[whole["variant"] == "a"].groupby(items.SCORE)[["numerator", "denominator"]].sum()
    found = table.sums()
    pd.testing.assert_frame_equal(found[["numerator", "denominator"]].sort_index(), wanted)
    assert found[["offset", "scale"]].drop_duplicates().to_numpy().tolist() == [[0.5, 2.0]]


def test_a_damaged_table_says_so(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(UserError, match=r"x\.parquet cannot be read"):
        ItemTable([tmp_path / "x.parquet"]).read("t", "m1", "paper")
