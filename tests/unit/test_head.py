"""A head on any model: what it is trained on and what it gives, and what is said where that cannot be."""

from dataclasses import replace

import numpy as np
import pytest
from made_screen import made_counts, relabel, with_head, write_screen

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Source
from plumbline.models.command import HEAD_SETTINGS
from plumbline.models.pca import pca

pytest.importorskip("torch")
from plumbline.models.objectives.head import embed_with_head


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(300, 80))


@pytest.mark.parametrize("kind", ["contrastive", "classify"])
def test_labels_of_test_cells_change_nothing(tmp_path, counts, kind):
    before = embed_with_head(pca.embed, counts, with_head(tmp_path, head=kind)).values
    test = "batch in ('b3', 'b4')"

    def spoil(cells):
        rows = cells.eval(test).to_numpy()
        cells.loc[rows, "perturbation"] = "other"
        cells.loc[rows, "is_control"] = False
        return cells

    relabel(tmp_path, spoil)
    np.testing.assert_array_equal(embed_with_head(pca.embed, counts, with_head(tmp_path, head=kind)).values, before)
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.random.default_rng(0).permutation(cells["perturbation"])))
    assert np.abs(embed_with_head(pca.embed, counts, with_head(tmp_path, head=kind)).values - before).max() > 1e-3


def test_a_head_repeats_and_the_seed_and_hidden_layer_count(tmp_path, counts):
    first, again = (embed_with_head(pca.embed, counts, with_head(tmp_path)) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    assert first.values.shape == (300, 5)
    assert first.values.dtype == np.float32
    about = first.extra["head"]
    assert (about["n_classes"], about["validation_by"], about["features"], about["epochs"]) == (9, "batch", 8, 8)
    assert about["n_train_cells"] + about["n_validation_cells"] == 180
    other = embed_with_head(pca.embed, counts, with_head(tmp_path, head_hidden=6)).values
    assert np.abs(other - first.values).max() > 1e-3


def test_the_order_of_the_cells_does_not_matter(tmp_path, counts):
    first = embed_with_head(pca.embed, counts, with_head(tmp_path)).values
    order = np.random.default_rng(3).permutation(300)
    shuffled = write_screen(tmp_path / "shuffled", made_counts(300, 80), order=order)
    second = embed_with_head(pca.embed, shuffled, with_head(tmp_path / "shuffled")).values
    np.testing.assert_allclose(second, first[order], atol=2e-3)


def test_cells_that_could_not_be_embedded_stay_nan(tmp_path, counts):
    def embed(counts, options):
        result = pca.embed(counts, options)
        result.values[[0, 7, 3]] = np.nan
        return result

    result = embed_with_head(embed, counts, with_head(tmp_path))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.values).all(axis=1)), [0, 3, 7])
    assert result.unembedded == 3


def test_the_model_below_is_run_once_on_both_parts(tmp_path, counts):
    seen = []

    def embed(counts, options):
        seen.append(len(counts.cell_id))
        return pca.embed(counts, options)

    other = write_screen(tmp_path / "other", made_counts(50, 80, seed=5))
    elsewhere = replace(with_head(tmp_path / "other", "screen:train"), source=Source(counts=counts, tables=tmp_path / "tables"))
    found = embed_with_head(embed, other, elsewhere)
    assert seen == [180 + 50]
    assert found.values.shape == (50, 5)
    # embedding the screen itself trains the same head, which gives these cells the same values
    here = embed_with_head(pca.embed, counts, with_head(tmp_path))
    itself = embed_with_head(pca.embed, counts, replace(elsewhere, tables=tmp_path / "tables"))
    np.testing.assert_allclose(itself.values, here.values, atol=1e-4)


def test_an_embedding_without_variation_is_not_applicable(tmp_path, counts):
    def embed(counts, options):
        result = pca.embed(counts, options)
        return replace(result, values=np.ones_like(result.values))

    with pytest.raises(NotApplicable, match="nothing for a head to learn from"):
        embed_with_head(embed, counts, with_head(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "contrast"}, "Did you mean 'contrastive'"),
        ({"head_dim": "0"}, "at least 1"),
        ({"head_epochs": "0"}, "at least 1"),
        ({"head_temperature": "0"}, "must be above 0"),
        ({"head_learning_rate": "-1"}, "must be above 0"),
        ({"head_learning_rate": "1e30"}, "Lower head_learning_rate"),
    ],
)
def test_bad_settings_are_explained(tmp_path, counts, settings, message):
    with pytest.raises(UserError, match=message):
        embed_with_head(pca.embed, counts, with_head(tmp_path, **settings))


def test_every_script_takes_a_head_and_says_so(tmp_path, counts, monkeypatch, capsys):
    import embed_pca
    from plumbline.models.command import run

    paths = [
        "--counts",
        str(tmp_path / "counts.h5ad"),
        "--output",
        str(tmp_path / "e.npz"),
        "--tables",
        str(tmp_path / "tables"),
    ]
    arguments = ["embed_pca.py", *paths, "--fit-on", "train", "--threads", "1", "--device", "cpu", "--set", "n_components=8"]
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "head=classify", "--set", "head_dim=3", "--set", "head_epochs=2"])
    run("pca", embed_pca.embed, ("n_components",))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        assert any(file[name].shape == (300, 3) for name in file.files)
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "head_dim=3"])
    with pytest.raises(SystemExit):
        run("pca", embed_pca.embed, ("n_components",))
    assert "there is no head" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["embed_pca.py", "--help"])
    with pytest.raises(SystemExit):
        run("pca", embed_pca.embed, ())
    shown = capsys.readouterr().out
    assert all(f"{name}:" in shown for name in HEAD_SETTINGS)
