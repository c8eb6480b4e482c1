"""A user's embedding arrives row by row where it belongs, in every format; every mistake in the file is named."""

import csv
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from made_screen import made_counts, options, write_screen

from plumbline.benchmark.embeddings import _numbers
from plumbline.common.errors import UserError
from plumbline.embedding.numbers import as_float32
from plumbline.models import external

N, D = 40, 7


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(N, 10))


@pytest.fixture
def shuffled():
    """(cell ids, values) in another order than the counts; row i of the counts has values i, i + 0.1, ..."""
    order = np.random.default_rng(0).permutation(N)
    return np.array([f"cell{i}" for i in order]), (order[:, None] + np.arange(D) / 10).astype(np.float32)


EXPECTED = (np.arange(N)[:, None] + np.arange(D) / 10).astype(np.float32)


def write(folder, kind, ids, values):
    """The embedding as a file of one format, and the settings that name it."""
    path = folder / f"mine.{kind.split('-')[0]}"
    table = pd.DataFrame(values, index=ids, columns=[f"d{j}" for j in range(values.shape[1])])
    if kind.startswith("h5ad"):
        data = ad.AnnData(np.zeros((len(ids), 1), np.float32), obs=pd.DataFrame({"barcode": ids}, index=ids))
        if kind == "h5ad-column":
            data.obs_names = [f"row{i}" for i in range(len(ids))]
        data.obsm["X_mine"] = values
        data.write_h5ad(path)
    elif kind == "npz":
        np.savez(path, cell_id=ids, embedding=values)
    elif kind == "parquet-index":
        table.to_parquet(path)
    elif kind.startswith("parquet"):
        table.rename_axis("cell_id" if kind == "parquet" else "barcode").reset_index().to_parquet(path)
    else:
        np.save(path, values)
        header = ["cell_id"] if kind == "npy-csv" else []
        path.with_suffix(f".{kind.split('-')[1]}").write_text("\r\n".join([*header, *ids]) + "\r\n")
    settings = {"id_column": "barcode"} if kind.endswith("column") else {}
    return path, settings | ({"key": "X_mine"} if kind == "h5ad" else {})


@pytest.mark.parametrize(
    "kind",
    ["h5ad", "h5ad-onlykey", "h5ad-column", "npz", "parquet", "parquet-index", "parquet-column", "npy-txt", "npy-csv"],
)
def test_every_format_is_joined_by_cell_id(tmp_path, counts, shuffled, kind):
    path, settings = write(tmp_path, kind, *shuffled)
    result = external.embed(counts, options(weights=path, **settings))
    np.testing.assert_array_equal(result.values, EXPECTED)
    assert result.values.dtype == np.float32
    assert result.extra["source"] == path.name
    assert len(result.extra["source_sha256"]) == 64


def test_missing_and_extra_cells_are_errors(tmp_path, counts, shuffled):
    ids, values = shuffled
    path, _ = write(tmp_path, "npz", ids[1:], values[1:])
    with pytest.raises(UserError, match=f"1 missing.*{ids[0]}.*0 extra"):
        external.embed(counts, options(weights=path))
    path, _ = write(tmp_path, "npz", np.append(ids, "stranger"), np.vstack([values, values[:1]]))
    with pytest.raises(UserError, match=r"0 missing, 1 extra.*stranger"):
        external.embed(counts, options(weights=path))
    result = external.embed(counts, options(weights=path, extra="drop"))
    np.testing.assert_array_equal(result.values, EXPECTED)
    assert result.extra["extra_cells_left_out"] == 1
    with pytest.raises(UserError, match="expected error or drop"):
        external.embed(counts, options(weights=path, extra="ignore"))


def test_extra_cells_that_were_filtered_out_are_left_out(tmp_path, counts, shuffled):
    ids, values = shuffled
    (tmp_path / "tables" / "dropped_cells.txt").write_text("empty1\nempty2\n")
    path, _ = write(tmp_path, "npz", np.append(ids, "empty1"), np.vstack([values, values[:1]]))
    result = external.embed(counts, options(tmp_path / "tables", weights=path))
    np.testing.assert_array_equal(result.values, EXPECTED)
    assert result.extra["extra_cells_left_out"] == 1
    path, _ = write(tmp_path, "npz", np.append(ids, "stranger"), np.vstack([values, values[:1]]))
    with pytest.raises(UserError, match="1 extra"):
        external.embed(counts, options(tmp_path / "tables", weights=path))


def test_duplicate_ids_and_bad_values_are_errors(tmp_path, counts, shuffled):
    ids, values = shuffled
    twice, _ = write(tmp_path, "npz", np.append(ids, ids[:1]), np.vstack([values, values[:1]]))
    with pytest.raises(UserError, match="more than once"):
        external.embed(counts, options(weights=twice))
    values = values.copy()
    values[3, 2], values[5, 0] = np.nan, np.inf
    bad, _ = write(tmp_path, "parquet", ids, values)
    first = min((ids[3], ids[5]), key=lambda name: int(name[4:]))
    with pytest.raises(UserError, match=f"2 rows hold NaN or infinite values.*'{first}'"):
        external.embed(counts, options(weights=bad))


def test_arrays_of_other_names_and_types_are_explained(tmp_path, counts, shuffled):
    ids, values = shuffled
    path = tmp_path / "mine.npz"
    for arrays, message in (
        ({"ids": ids, "X": values}, r"no array cell_id and embedding; it holds ids, X\..*np.savez"),
        ({"cell_id": ids.astype(object), "embedding": values}, r"Object arrays.*obs_names.to_numpy\(dtype=str\)"),
        ({"cell_id": ids, "embedding": values.astype("<f2").view("V2")}, "Is it bfloat16"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message):
            external.embed(counts, options(weights=path))


ANNOTATIONS = {  # columns of single names, or of truth values, next to d0, d1, ...
    "n_counts": np.full(N, 1000.0),
    "batch": np.arange(N) % 3,
    "Unnamed: 0": np.arange(N),
    "d8": np.arange(N) > 5,
}


@pytest.mark.parametrize("column", ANNOTATIONS)
@pytest.mark.parametrize("kind", ["parquet", "h5ad"])
def test_annotations_among_the_columns_are_no_dimensions(tmp_path, counts, shuffled, kind, column):
    ids, values = shuffled
    table = pd.DataFrame(values, index=ids, columns=[f"d{j}" for j in range(D)]).assign(**{column: ANNOTATIONS[column]})
    path = tmp_path / f"mine.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    else:
        data = ad.AnnData(np.zeros((N, 1), np.float32), obs=pd.DataFrame(index=ids), obsm={"X_mine": table})
        data.write_h5ad(path)
    with pytest.raises(UserError, match=f"the columns {column} seem to be annotations of the cells.*such as d0"):
        external.embed(counts, options(weights=path))


NAMES = {
    "numbers": [str(n) for n in range(D)],
    "genes": ["TP53", "MYC", "RPS6", "RPL3", "EGFR", "JAK2", "n_counts"],
    "two models": ["pca_0", "pca_1", "pca_2", "pca_3", "vae_0", "vae_1", "vae_2"],
    "words": list("abcdefg"),
    "x and y": ["x1", "y1", "x2", "y2", "x3", "y3", "x4"],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("dtype", ["Float32", "float64", "float32[pyarrow]"])
def test_dimensions_by_any_name_and_of_any_number_type_of_pandas(tmp_path, counts, shuffled, names, dtype):
    ids, values = shuffled
    table = pd.DataFrame(values, index=ids, columns=NAMES[names])
    table.astype(dtype).to_parquet(tmp_path / "mine.parquet")
    np.testing.assert_array_equal(external.embed(counts, options(weights=tmp_path / "mine.parquet")).values, EXPECTED)


@pytest.mark.parametrize("kind", ["h5ad", "npz", "parquet", "npy-txt"])
def test_blanks_around_ids_do_not_count_as_they_do_not_in_prepare(tmp_path, counts, shuffled, kind):
    ids, values = shuffled
    (tmp_path / "tables" / "dropped_cells.txt").write_text("empty1\n")
    path, settings = write(tmp_path, kind, np.append(np.char.add(ids, " "), " empty1"), np.vstack([values, values[:1]]))
    result = external.embed(counts, options(tmp_path / "tables", weights=path, **settings))
    np.testing.assert_array_equal(result.values, EXPECTED)


def test_tables_without_one_id_for_each_cell_or_with_lists_are_explained(tmp_path, counts, shuffled):
    ids, values = shuffled
    table, path = pd.DataFrame(values, index=[ids, ids], columns=[f"d{j}" for j in range(D)]), tmp_path / "mine.parquet"
    table.to_parquet(path)
    with pytest.raises(UserError, match=r"holds no cell ids.*the columns d0, d1"):
        external.embed(counts, options(weights=path))
    pd.DataFrame({"cell_id": ids, "vector": values.tolist()}).to_parquet(path)
    with pytest.raises(UserError, match=r"the columns vector are not numeric.*np.stack\(table\['vector'\]\)"):
        external.embed(counts, options(weights=path))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("h5ad", {"key": "X_mne"}, "Did you mean 'X_mine'"),
        ("h5ad", {"id_column": "barcod"}, "no column 'barcod'.*Did you mean 'barcode'"),
        ("parquet", {"id_column": "name"}, "no column 'name'"),
        ("npz", {"key": "X_mine"}, "Leave key empty"),
        ("npz", {"id_column": "barcode"}, "id_column names a column of an h5ad or parquet"),
    ],
)
def test_wrong_keys_and_columns_are_explained(tmp_path, counts, shuffled, kind, settings, message):
    path, _ = write(tmp_path, kind, *shuffled)
    with pytest.raises(UserError, match=message):
        external.embed(counts, options(weights=path, **settings))


@pytest.mark.parametrize("kind", ["h5ad", "npz", "parquet", "npy-txt"])
def test_truncated_files_are_explained(tmp_path, counts, shuffled, kind):
    path, settings = write(tmp_path, kind, *shuffled)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=path.name):
        external.embed(counts, options(weights=path, **settings))


def test_files_that_hold_something_else_are_explained(tmp_path, counts, shuffled):
    ids, values = shuffled
    with pytest.raises(UserError, match="no such file"):
        external.embed(counts, options(weights=tmp_path / "absent.npz"))
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(UserError, match=r"unknown format 'csv'.*h5ad, npz, parquet, npy"):
        external.embed(counts, options(weights=tmp_path / "a.csv"))
    np.savez(tmp_path / "names.npz", cells=ids, embedding=values)
    with pytest.raises(UserError, match="needs the arrays cell_id and embedding"):
        external.embed(counts, options(weights=tmp_path / "names.npz"))
    pd.DataFrame({"cell_id": ids, "label": ids}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="columns label are not numeric"):
        external.embed(counts, options(weights=tmp_path / "text.parquet"))
    pd.DataFrame(values, columns=list("abcdefg")).to_parquet(tmp_path / "noid.parquet")
    with pytest.raises(UserError, match="holds no cell ids"):
        external.embed(counts, options(weights=tmp_path / "noid.parquet"))
    np.save(tmp_path / "alone.npy", values)
    with pytest.raises(UserError, match=r"alone\.txt or alone\.csv"):
        external.embed(counts, options(weights=tmp_path / "alone.npy"))
    (tmp_path / "alone.txt").write_text("\n".join(ids[:-3]))
    with pytest.raises(UserError, match="37 cell ids, and values of shape"):
        external.embed(counts, options(weights=tmp_path / "alone.npy"))


def test_the_example_sheet_fits_its_schema(root):
    schema = json.loads((root / "assets" / "schema_embeddings.json").read_text())["items"]
    with open(root / "assets" / "embeddings.example.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(schema["properties"])
    assert rows
    jsonschema = pytest.importorskip("jsonschema")
    for row in rows:
        jsonschema.validate({name: value for name, value in row.items() if value}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"dataset": "a", "name": "b", "path": "c.txt"}, schema)


@pytest.mark.parametrize(("kind", "place"), [("h5ad", "dimension 2"), ("npz", "dimension 2"), ("parquet", "the column d2"),
                                             ("npy-txt", "dimension 2")])  # fmt: skip
def test_an_offset_that_uses_up_the_digits_of_float32_is_refused(tmp_path, counts, shuffled, kind, place):
    """1e8 is kept to the next multiple of 8: of a spread of 1 nothing is left, and was scored."""
    ids, values = shuffled
    values = np.random.default_rng(1).normal(size=values.shape)
    values[:, 2] += 1e8
    path, settings = write(tmp_path, kind, ids, values)
    message = rf"{path.name}.* in 1 of {D} dimensions: {place}.* has the mean 1e\+08 .* Subtract each dimension's mean"
    with pytest.raises(UserError, match=message):
        external.embed(counts, options(weights=path, **settings))
    path, settings = write(tmp_path, kind, ids, values - values.mean(axis=0))
    found = external.embed(counts, options(weights=path, **settings)).values
    rows = pd.DataFrame(values - values.mean(axis=0), index=ids).loc[[f"cell{i}" for i in range(N)]]
    np.testing.assert_allclose(found, rows, atol=1e-6)


def test_only_what_float32_would_lose_is_refused():
    """Up to a hundredth of a dimension's spread; by the numbers themselves, whatever their type."""
    spread = np.random.default_rng(0).normal(size=(500, 3))
    kept = [spread, spread + 1e4, spread * 1e-30, np.round(spread * 9).astype(np.int64) + 2**23, np.full((500, 3), 0.1),
            0.1 + 1e-16 * np.round(spread)]  # fmt: skip
    for values in kept:
        np.testing.assert_array_equal(as_float32(values, "z"), values.astype(np.float32))
    unembedded = spread.copy()
    unembedded[3] = np.nan
    np.testing.assert_array_equal(as_float32(unembedded, "z"), unembedded.astype(np.float32))
    for values in (spread + 1e7, unembedded + 1e7, spread * 1e-46, np.round(spread * 9).astype(np.int64) + 10**10):
        with pytest.raises(UserError, match=r"z: how cells differ is lost in float32.* in 3 of 3 dimensions: dimension 0"):
            as_float32(values, "z")


def test_a_tensor_of_64_bits_keeps_its_digits_until_they_are_looked_at():
    torch = pytest.importorskip("torch")
    values = torch.tensor(np.random.default_rng(0).normal(size=(50, 2)))
    np.testing.assert_array_equal(_numbers(values.bfloat16(), "z"), values.bfloat16().float().numpy())
    np.testing.assert_array_equal(_numbers(values, "z"), values.float().numpy())
    with pytest.raises(UserError, match="in 2 of 2 dimensions"):
        _numbers(values + 1e8, "z")
