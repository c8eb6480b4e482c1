"""Values that are not what they are said to be: in the matrix, in an embedding, in a checkpoint."""

import json
import pickle

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata.io import write_elem
from made_input import prepare_run, refused, screen, tables  # noqa: F401 - the fixture "run"
from made_screen import options, write_genes

from plumbline.common.errors import UserError
from plumbline.counts.reading import open_counts, require_raw
from plumbline.embedding.contract import read_embedding, write_embedding
from plumbline.embedding.weights import fill, load_tensors, whole_numbers
from plumbline.models.command import opened

# --- counts


def with_value(value: float, dtype: type = np.float64) -> ad.AnnData:
    data = screen()
    values = data.X.toarray().astype(dtype)
    values[5, 3] = value
    data.X = sp.csr_matrix(values)
    return data


VALUES = {
    "beyond float32": (1e300, np.float64, "cell 'cell5' holds the value 1e.300. That is more than any number of 32 bits"),
    "beyond exact counts": (2**24 + 1, np.float64, r"holds the value 16777217. Counts above 16777216"),
    "beyond exact counts, integers": (2**24 + 1, np.int64, "Counts above 16777216 are not kept exactly"),
    "negative integers": (-3, np.int32, "holds the value -3. Counts are never negative"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_would_be_changed_silently_are_refused(run, case):
    value, dtype, message = VALUES[case]
    refused(run, with_value(value, dtype), message, min_counts=0)


def test_a_large_signed_value_is_refused_as_well(run):
    refused(run, with_value(-1e300), "holds the value -1e.300", x_kind="signed")


def test_a_value_that_is_nearly_whole_is_printed_with_its_digits(run):
    """It said that the value 1 is not whole."""
    refused(run, with_value(1.000001), r"holds the value 1\.000001\. Raw counts are whole")


def test_the_largest_exact_count_is_kept(run):
    written = ad.read_h5ad(run(with_value(2**24), min_counts=0) / "counts.h5ad")
    assert written["cell5"].X.toarray()[0, 3] == 2**24


def test_duplicate_genes_are_added_before_they_are_rounded(run):
    data = with_value(2**24)
    data.var_names = [f"ENSG{n // 2:011d}" for n in range(40)]
    data.X[5, 2] = 1
    refused(run, data, "Counts above 16777216", min_counts=0)


def in_parts(data, dtype) -> sp.csr_matrix:
    """Every value of a matrix as 200 and 100 at the same place, as an assembled sparse matrix may lie in a file."""
    x = sp.csr_matrix(data.X)
    values, columns = np.tile([200, 100], x.nnz).astype(dtype), np.repeat(x.indices, 2)
    return sp.csr_matrix((values, columns, 2 * x.indptr), shape=x.shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_values_that_are_stored_in_parts_are_added_up_whatever_their_type(run, tmp_path, kind, dtype):
    data = screen()
    expected = 300.0 * (data.X > 0).toarray()
    data.write_h5ad(tmp_path / "parts.h5ad")
    parts = in_parts(data, dtype)
    if kind == "csc":  # the arrays of a CSR of the transpose, or scipy would add the parts up
        turned = in_parts(data.T, dtype)
        parts = sp.csc_matrix((turned.data, turned.indices, turned.indptr), shape=data.shape)
    with h5py.File(tmp_path / "parts.h5ad", "a") as file:
        del file["X"]
        write_elem(file, "X", parts)
    out = run(tmp_path / "parts.h5ad", min_counts=0)
    np.testing.assert_array_equal(ad.read_h5ad(out / "counts.h5ad").X.toarray(), expected)
    if kind == "csr":  # what `embed` reads of a file that PREPARE has not seen
        (_, block), *_ = open_counts(tmp_path / "parts.h5ad").blocks()
        assert block.has_canonical_format
        np.testing.assert_array_equal(block.toarray(), expected)


def stored_as(path, dtype, kind):
    """The screen of ``screen()`` with its counts in a type that sparse matrices cannot have."""
    data = screen()
    data.X = sp.csc_matrix(data.X) if kind == "csc" else sp.csr_matrix(data.X)
    data.write_h5ad(path)
    with h5py.File(path, "a") as file:
        name, values = ("X", data.X.toarray()) if kind == "dense" else ("X/data", file["X/data"][:])
        del file[name]
        file[name] = values.astype(dtype)
    return path


@pytest.mark.parametrize("dtype", ["<f2", ">f8", ">i4"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_numbers_of_16_bits_and_of_another_byte_order_are_read(run, tmp_path, kind, dtype):
    out = run(stored_as(tmp_path / "x.h5ad", dtype, kind), min_counts=0)
    np.testing.assert_array_equal(ad.read_h5ad(out / "counts.h5ad").X.toarray(), screen().X.toarray())
    if kind != "csc":
        (_, block), *_ = open_counts(tmp_path / "x.h5ad").blocks()
        np.testing.assert_array_equal(block.toarray(), screen().X.toarray())


def test_counts_that_float16_has_rounded_are_refused(run, tmp_path):
    path = stored_as(tmp_path / "x.h5ad", "<f2", "csr")
    with h5py.File(path, "a") as file:
        file["X/data"][3] = 2050
    refused(run, path, "stored as float16, which has whole numbers up to 2048 only, but go up to 2050", min_counts=0)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0), slice(None)), (slice(None), slice(0))])
def test_a_file_without_cells_or_genes_is_refused(run, rows, columns):
    refused(run, screen()[rows, columns].copy(), r"holds \d+ cells x \d+ genes: nothing to prepare")


def test_fractional_counts_are_told_to_be_rounded(run):
    data = screen()
    data.X = sp.csr_matrix(data.X.toarray() * 20.5)
    text = refused(run, data, "fractional counts, as RSEM, alevin, kallisto or CellBender .* Round them first")
    assert "x_kind log" not in text


def twice(data: ad.AnnData) -> ad.AnnData:
    """Every gene twice, next to each other."""
    data.var_names = [f"ENSG{n // 2:011d}" for n in range(data.n_vars)]
    return data


def test_repeated_genes_of_log_data_are_added_as_counts(run):
    data = twice(screen())
    sc.pp.normalize_total(data, target_sum=1e4)
    linear = data.X.toarray()
    sc.pp.log1p(data)
    written = ad.read_h5ad(run(data, x_kind="log") / "counts.h5ad").X.toarray()
    np.testing.assert_allclose(written, np.log1p(linear[:, ::2] + linear[:, 1::2]), rtol=1e-5)


def test_repeated_genes_of_scores_are_refused(run):
    data = twice(screen())
    data.X = sp.csr_matrix(np.random.default_rng(0).normal(size=data.shape))
    refused(run, data, "20 genes occur more than once .* Signed scores cannot be added up", x_kind="signed")


@pytest.mark.parametrize(("kind", "expected"), [("counts", 5.0), ("log", np.log1p(np.expm1(2.0) + np.expm1(3.0)))])
def test_columns_that_come_to_bear_one_name(tmp_path, kind, expected):
    from dataclasses import replace

    counts = replace(write_genes(tmp_path / "x.h5ad", np.array([[2.0, 3.0]]), ["", ""], ["A", "B"]), x_kind=kind)
    added = counts.renamed(np.array(["", ""]), np.array(["C", "C"]))
    (_, block), *_ = added.blocks()
    np.testing.assert_allclose(block.toarray(), [[expected, 0]], rtol=1e-6)
    with pytest.raises(UserError, match="several genes have the name C, and signed scores cannot be added"):
        replace(counts, x_kind="signed").renamed(np.array(["", ""]), np.array(["C", "C"]))


def test_a_filter_that_drops_many_cells_is_said_with_a_value_that_would_not(run, capsys):
    facts, report, cells, _ = tables(run(screen(), min_counts=100))
    totals = np.asarray(screen().X.sum(1)).ravel()
    fitting = report["counts"]["min_counts_for_95_percent"]
    assert (totals > fitting).mean() >= 0.95 > (totals > 100).mean()
    assert len(cells) == (totals > 100).sum()
    assert any(f"min_counts {fitting} in the sheet would keep 95 % of them" in text for text in facts["warnings"])
    assert f"min_counts {fitting}" in capsys.readouterr().out
    assert tables(run(screen(), min_counts=fitting))[0]["n_cells"] >= 0.95 * 120


def test_batches_that_hold_one_perturbation_are_said(run):
    """Perturbations in two batches each, most batches with one of them: partly nested, as plates of one compound."""
    data, rng = screen(400), np.random.default_rng(0)
    names = np.array(["non-targeting", "TP53", "MYC", "EGFR", "KRAS"])
    code = rng.integers(0, 5, 400)
    batch = np.where(code == 0, rng.integers(0, 9, 400), 2 * (code - 1) + rng.integers(0, 2, 400))
    data.obs["gene"], data.obs["batch"] = names[code], np.where(rng.random(400) < 0.1, 8, batch).astype(str)
    facts, *_ = tables(run(data, min_counts=0))
    assert any("Batch and perturbation depend on each other (Cramer's V 0." in text for text in facts["warnings"])
    assert any("8 of 9 batches hold one perturbation only" in text for text in facts["warnings"])


# --- plumb embed on a file of one's own


def test_embed_refuses_what_is_no_counts(tmp_path):
    data = screen()
    data.layers["counts"] = data.X.copy()
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    data.write_h5ad(tmp_path / "log.h5ad")
    with pytest.raises(UserError, match=r"log-normalised \(log1p of counts to 10000 per cell\).*add --layer counts"):
        opened(tmp_path / "log.h5ad", "X", options())
    counts = opened(tmp_path / "log.h5ad", "counts", options())
    assert (next(counts.blocks())[1] != screen().X).nnz == 0


@pytest.mark.parametrize(("factor", "message"), [(-1.0, "negative in part"), (0.37, "do not|does not hold raw counts")])
def test_embed_names_what_it_found(tmp_path, factor, message):
    data = screen()
    data.X = data.X * factor
    data.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(UserError, match=message):
        require_raw(open_counts(tmp_path / "x.h5ad"))


def test_embed_takes_what_prepare_calls_logarithms(tmp_path):
    data = screen()
    data.X = data.X * 0.37
    data.write_h5ad(tmp_path / "x.h5ad")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "dataset.json").write_text(json.dumps({"x_kind": "log"}))
    assert opened(tmp_path / "x.h5ad", "X", options(tmp_path / "tables")).x_kind == "log"


def test_embed_reads_raw_with_its_own_genes(tmp_path):
    data = screen()
    data.raw = data.copy()
    data = data[:, :7].copy()
    data.X = data.X * 0.5
    data.write_h5ad(tmp_path / "x.h5ad")
    assert opened(tmp_path / "x.h5ad", "raw", options()).shape == (120, 40)
    with pytest.raises(UserError, match="no layer 'counts'"):
        open_counts(tmp_path / "x.h5ad", "counts")


# --- embeddings

IDS = np.array(["a", "b", "c"])
EMBEDDINGS = {
    "no dimensions": (np.zeros((3, 0), np.float32), "has no dimensions"),
    "complex": (np.ones((3, 2)) * 1j, "values of type complex128"),
    "text": (np.full((3, 2), "x"), "values of type <U1"),
    "one value a cell": (np.ones(3), "3 cell ids but an array of shape"),
    "other cells": (np.ones((2, 2)), "3 cell ids but an array of shape"),
    "not finite": (np.full((3, 2), np.inf), "3 rows hold NaN or infinite values"),
}


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embeddings_that_are_none_are_neither_written_nor_read(tmp_path, case):
    values, message = EMBEDDINGS[case]
    with pytest.raises(UserError, match=message):
        write_embedding(tmp_path / "e.npz", IDS, values, {})
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "e.npz", cell_id=IDS, embedding=values)
    with pytest.raises(UserError, match=message):
        read_embedding(tmp_path / "e.npz")


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"unembedded_cells": "many"}', '{"unembedded_cells": -1}'])
def test_provenance_that_is_none_is_refused(tmp_path, text):
    write_embedding(tmp_path / "e.npz", IDS, np.ones((3, 2)), {})
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(UserError, match=r"e.json.* embed again"):
        read_embedding(tmp_path / "e.npz")


def test_mutated_embeddings_are_read_or_refused(tmp_path):
    values = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)
    write_embedding(tmp_path / "e.npz", IDS, values, {})
    whole, rng, changed = (tmp_path / "e.npz").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "e.npz").write_bytes(flipped)
        try:
            found = read_embedding(tmp_path / "e.npz")
            changed += not (np.array_equal(found.values, values) and np.array_equal(found.cell_id, IDS))
        except UserError:
            pass
    assert changed == 0


# --- checkpoints

torch = pytest.importorskip("torch")
CHECKPOINTS = {
    "a list": (lambda: [torch.ones(2)], "holds a list"),
    "a tensor": (lambda: torch.ones(2), "holds a Tensor"),
    "a number": (lambda: 3, "holds a int"),
    "numbered": (lambda: {1: torch.ones(2)}, "not tensors with their names"),
}
TENSORS = {
    "integers": (lambda: torch.ones(2, 3, dtype=torch.int64), "weight holds int64 values"),
    "booleans": (lambda: torch.ones(2, 3, dtype=torch.bool), "weight holds bool values"),
    "complex": (lambda: torch.ones(2, 3, dtype=torch.complex64), "weight holds complex64 values"),
    "sparse": (lambda: torch.ones(2, 3).to_sparse(), "weight holds float32, not dense values"),
    "a list": (lambda: [[1.0] * 3] * 2, "weight is a list, not a tensor"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints_of_something_else_are_refused(tmp_path, case):
    make, message = CHECKPOINTS[case]
    torch.save(make(), tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_tensors(tmp_path / "model.pt", "geneformer_v1_10m")


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_no_weights_are_refused(tmp_path, case):
    make, message = TENSORS[case]
    with pytest.raises(UserError, match=message):
        fill(torch.nn.Linear(3, 2, bias=False), {"weight": make()}, tmp_path / "model.pt", "geneformer_v1_10m")


def test_half_precision_weights_are_taken(tmp_path):
    model = torch.nn.Linear(3, 2, bias=False)
    fill(model, {"weight": torch.full((2, 3), 0.5, dtype=torch.float16)}, tmp_path / "model.pt", "geneformer_v1_10m")
    assert model.weight.dtype == torch.float32
    assert (model.weight == 0.5).all()


@pytest.mark.parametrize("value", [1.5, -1, True, "3", None, np.nan, np.inf])
def test_token_ids_are_whole_numbers(tmp_path, value):
    with pytest.raises(UserError, match=r"token id of 'B' is .*, not a whole number"):
        whole_numbers({"A": 0, "B": value}, tmp_path / "token.pkl", "geneformer_v1_10m")
    assert whole_numbers({"A": 0, "B": np.int64(2), "C": 3.0}, tmp_path, "x") == {"A": 0, "B": 2, "C": 3}


def test_counts_written_by_prepare_are_checked_when_they_are_read(run):
    """A byte of a stored value that changes on disk is not another count."""
    out = run(screen(), min_counts=0)
    with h5py.File(out / "counts.h5ad") as file:
        place = file["X/data"].id.get_chunk_info(0)
    whole = bytearray((out / "counts.h5ad").read_bytes())
    whole[place.byte_offset + place.size // 2] ^= 4
    (out / "counts.h5ad").write_bytes(whole)
    with pytest.raises(UserError, match="cannot be read"):
        list(open_counts(out / "counts.h5ad").blocks())


def test_a_pickle_of_names_is_no_dictionary_of_tokens(tmp_path):
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(pd.Series([1]).to_list()))
    from plumbline.embedding.weights import load_dictionary

    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        load_dictionary(tmp_path / "t.pkl", "geneformer_v1_10m")
