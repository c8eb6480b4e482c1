"""Damaged counts: thinning against its binomial law, the same cells in any order and shard; what the report says of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, write_screen

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.thinning import thin
from plumbline.models.command import embed_to
from plumbline.models.pca import pca
from plumbline.models.shared.damage import damaged
from plumbline.models.shared.fit_on import read_fit_on
from plumbline.models.shared.variable_genes import select_genes
from plumbline.report.experiments.robustness import damage_title, ordered, retained


def read(counts, rows=None, size=2048) -> np.ndarray:
    return np.concatenate([block.toarray() for _, block in counts.blocks(rows, size)])


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return write_screen(tmp_path_factory.mktemp("screen"), made_counts(300, 120))


def test_thinned_counts_have_the_moments_of_the_binomial():
    """Counts of 40, thinned to 25 %: mean 10, variance 7.5, each within five standard errors of 20,000 draws."""
    block = sp.csr_matrix(np.full((200, 100), 40, dtype=np.float32))
    kept = thin(block, np.array([f"c{n}" for n in range(200)]), 0.25).toarray()
    assert kept.mean() == pytest.approx(10, abs=5 * np.sqrt(7.5 / kept.size))
    assert kept.var() == pytest.approx(7.5, abs=5 * 7.5 * np.sqrt(2 / kept.size))
    assert (block.data == 40).all()


def test_a_cell_is_thinned_alike_in_any_order_block_and_shard(screen):
    thinned = damaged(screen, "none+thinned25")
    whole, order = read(thinned), np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(read(thinned, order, 7), whole[order])
    np.testing.assert_array_equal(read(thinned, np.arange(150, 300)), whole[150:])
    assert 0 < whole.sum() < read(screen).sum()
    assert (whole <= read(screen)).all()


def test_genes_that_are_taken_do_not_change_the_draw(screen):
    """What is kept of a gene does not depend on which other genes a model knows."""
    thinned = damaged(screen, "none+thinned50")
    np.testing.assert_array_equal(read(thinned.take_genes(np.array([7, 3]))), read(thinned)[:, [7, 3]])


def test_thinning_to_all_changes_nothing(screen):
    np.testing.assert_array_equal(read(damaged(screen, "all+thinned100")), read(screen))
    assert damaged(screen, "train") is screen


def test_a_panel_holds_the_most_variable_genes(screen):
    panel = damaged(screen, "train+panel30")
    assert panel.shape == (300, 30)
    wanted = select_genes(screen, np.arange(300), "counts", 30)
    np.testing.assert_array_equal(panel.symbol, screen.symbol[wanted])


def test_what_cannot_be_damaged_says_so(screen):
    with pytest.raises(NotApplicable, match="120 genes, no more than the panel"):
        damaged(screen, "train+panel1000")
    with pytest.raises(NotApplicable, match="holds log values"):
        damaged(replace(screen, x_kind="log"), "train+thinned50")
    with pytest.raises(UserError, match="thinned and a percentage"):
        damaged(screen, "train+thinned150")
    with pytest.raises(UserError, match="is not damaged"):
        damaged(screen, "other+thinned50", elsewhere=True)
    with pytest.raises(NotApplicable, match="not counts"):
        thin(sp.csr_matrix(np.array([[0.5]])), np.array(["c"]), 0.5)


def test_the_words_of_fit_on():
    found = read_fit_on("train@0.5#2+thinned25", False)
    assert (found.part, found.share, found.draw, found.damage) == ("train", 0.5, 2, "thinned25")
    assert read_fit_on("none", False).damage == ""


def test_a_model_embeds_the_damaged_counts_of_the_same_cells(screen, tmp_path):
    """PCA of thinned counts is that of a file that holds them; the provenance states the damage."""
    how = replace(options(n_components=5), fit_on="all+thinned25")
    about = embed_to(tmp_path / "a.npz", "pca", pca.embed, screen, how)
    by_file = write_screen(tmp_path / "file", sp.csr_matrix(read(damaged(screen, "all+thinned25"))))
    embed_to(tmp_path / "b.npz", "pca", pca.embed, by_file, options(n_components=5))
    one, other = (np.load(tmp_path / f"{name}.npz") for name in "ab")
    np.testing.assert_array_equal(one["cell_id"], other["cell_id"])
    np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-4)
    assert about["fit_on"] == "all+thinned25"


def test_what_is_kept_of_the_advantage():
    """0.4 over a floor of 0.1 that falls by 0.15: half of the advantage of 0.3; of an error (lower is better) as well."""
    rows = pd.DataFrame({"fit_on": ["train+thinned25", "train+thinned25", "none+panel1000"], "baseline_value": [0.4, 0.1, 0.4],
                         "floor": [0.1, 0.4, 0.1], "direction": [1, -1, 1], "difference": [-0.15, 0.15, 0.0],
                         "diff_low": [-0.21, 0.09, -0.1], "diff_high": [-0.09, 0.21, 0.1],
                         "verdict": ["worse", "worse", "at the floor"]})  # fmt: skip
    found = retained(rows)
    np.testing.assert_allclose(found[["kept", "kept_low", "kept_high"]][:2], [[50, 30, 70]] * 2)
    assert np.isnan(found["kept"].iloc[2])
    assert found["damage"].tolist() == ["thinned25", "thinned25", "panel1000"]
    assert damage_title("thinned25") == "25 % of the counts"
    assert damage_title("panel1000") == "panel of 1,000 genes"
    assert ordered(pd.Series(["panel1000", "thinned10", "thinned50"])) == ["thinned50", "thinned10", "panel1000"]
