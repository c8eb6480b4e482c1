"""The shipped table of models is sound, and every mistake in one is named."""

import csv
from contextlib import nullcontext

import pytest

from fetch_weights import require_accepted
from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import known_checkpoints
from plumbline.embedding.variants import TABLE, find_variant, read_variants
from plumbline.models.command import HEAD_SETTINGS


def edited(tmp_path, **changes):
    """The shipped table with fields of its first row changed."""
    with open(TABLE, newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0] |= changes
    path = tmp_path / "models.csv"
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_shipped_table_is_valid_and_its_scripts_exist(root):
    variants = read_variants()
    assert {"pca", "pca_raw", "scvi", "hvg", "random", "label_oracle", "no_effect"} <= set(variants)
    assert variants["pca"].role == "baseline"
    assert variants["pca"].seeded
    assert variants["pca"].settings == {"n_components": "256", "input": "lognorm"}
    for variant in variants.values():
        assert (root / "bin" / f"embed_{variant.model}.py").is_file(), variant.id


@pytest.mark.parametrize("name", ["pca", "scvi", "expression", "reference"])
def test_settings_of_the_table_are_settings_of_the_scripts(root, name):
    script = (root / "bin" / f"embed_{name}.py").read_text() + str(list(HEAD_SETTINGS)).replace("'", '"')
    for variant in (v for v in read_variants().values() if v.model == name):
        assert all(f'"{setting}"' in script for setting in variant.settings), variant.id


def test_a_mistyped_model_gets_a_hint():
    with pytest.raises(UserError, match=r"no model 'scvi_nbb'.*Did you mean 'scvi_nb'"):
        find_variant("scvi_nbb", read_variants())
    assert find_variant("scvi_nb", read_variants()).settings["gene_likelihood"] == "nb"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "base"}, "role is 'base'.*Did you mean 'baseline'"),
        ({"title": ""}, "title must not be empty"),
        ({"seeded": "false"}, "seeded must be true exactly where fit_on is train"),
        ({"settings": "input"}, "settings holds 'input'"),
        ({"id": "scvi"}, "'scvi' occurs twice"),
        ({"x_kind": "logs"}, "x_kind is 'logs'"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_variants(edited(tmp_path, **changes))


def test_a_row_with_a_missing_or_surplus_field_is_named(tmp_path):
    for field in ("", ",surplus"):
        path = tmp_path / "models.csv"
        lines = TABLE.read_text().splitlines()
        lines[1] = lines[1].rsplit(",", 1)[0] if not field else lines[1] + field
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(UserError, match="does not have as many fields"):
            read_variants(path)


FETCHED = {variant.id: variant for variant in read_variants().values() if variant.row["weights_files"]}


@pytest.mark.parametrize("name", FETCHED)
def test_a_pre_trained_model_states_what_its_users_must_know(root, name):
    """Corpus, context, species, both licences and what to cite; dates where they are known."""
    row = FETCHED[name].row
    for column in ("organism", "code_licence", "weights_licence", "corpus", "context_length", "citation"):
        assert row[column], f"{name}: {column} is empty"
    assert row["role"] == "foundation"
    assert row["citation"].partition(":")[2] in (root / "CITATIONS.md").read_text()
    assert (
        f"`{name}`"
        in (root / "README.md").read_text() + (root / "docs/models.md").read_text() + (root / "docs/experiments.md").read_text()
    )
    until = row["corpus_until"]
    assert not until or (len(until) == 7 and until[4] == "-")
    assert row["supervised_on"] in ("", "cell types")
    assert row["n_dimensions"].isdigit(), "the estimate of a run depends on it"


def test_weights_for_non_commercial_use_are_fetched_after_an_explicit_yes_alone(capsys):
    """Each variant's licence is shown; of these three, and of no other, it has to be accepted."""
    checkpoints = known_checkpoints()
    assert set(checkpoints) == set(FETCHED)
    restricted = {"scfoundation_t4", "scfoundation_a5", "state_se600m"}
    for name, checkpoint in checkpoints.items():
        with pytest.raises(UserError, match="--accept-licence") if name in restricted else nullcontext():
            require_accepted([checkpoint], accepted=False)
        assert checkpoint.licence in capsys.readouterr().err
        require_accepted([checkpoint], accepted=True)
