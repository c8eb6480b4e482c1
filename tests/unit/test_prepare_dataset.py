"""PREPARE end to end: what it writes equals an independent computation, and bad input is refused before anything is written."""

import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from made_input import prepare_run, refused, screen  # noqa: F401 - the fixture "run"

import prepare_dataset
from plumbline.common.errors import UserError
from plumbline.counts.reading import open_counts
from plumbline.data.quality import confounding, cramers_v
from plumbline.data.splits import read_split
from plumbline.experiments.hold_out import write_part
from plumbline.metrics.divisions import labels_of
from plumbline.scoring.screen import read_screen


def test_output_equals_scanpy(run):
    data = screen()
    out = run(data)
    kept = data[np.asarray(data.X.sum(1)).ravel() > 50].copy()
    assert 20 < kept.n_obs < data.n_obs
    written = ad.read_h5ad(out / "counts.h5ad")
    assert written.X.dtype == np.float32
    assert (written.X != kept.X).nnz == 0
    assert list(written.obs_names) == list(kept.obs_names)
    assert list(written.var_names) == [name.partition(".")[0] for name in kept.var_names] == list(written.var["ensembl_id"])
    assert list(written.var["symbol"]) == list(kept.var["symbol"])
    genes, cells = pd.read_parquet(out / "tables/genes.parquet"), pd.read_parquet(out / "tables/cells.parquet")
    np.testing.assert_allclose(genes["mean_count"], kept.X.toarray().mean(0), rtol=1e-6)
    np.testing.assert_array_equal(genes["n_cells"], (kept.X.toarray() > 0).sum(0))
    np.testing.assert_allclose(cells["n_counts"], kept.X.toarray().sum(1))
    sc.pp.normalize_total(kept, target_sum=1e4)
    sc.pp.log1p(kept)
    np.testing.assert_allclose(genes["mean_lognorm"], kept.X.toarray().mean(0), rtol=1e-5)
    np.testing.assert_array_equal(cells["perturbation"], kept.obs["gene"].astype(str))
    np.testing.assert_array_equal(cells["is_control"], kept.obs["gene"] == "non-targeting")


def test_tables_are_what_evaluation_reads(run):
    out = run(screen(400))
    facts = read_screen(out / "tables").facts
    counts = open_counts(out / "counts.h5ad")
    assert counts.shape == (facts["n_cells"], facts["n_genes"])
    assert list(counts.cell_id) == list(read_screen(out / "tables").cell_id)
    for seed in (42, 43):
        split = read_split(out / "tables", seed)
        assert split.train.any()
        assert not (split.train & (split.test1 | split.test2)).any()
    assert (facts["split_by"], facts["has_batches"], facts["has_controls"]) == ("batch", True, True)
    assert (facts["n_perturbations"], facts["n_batches"], facts["title"]) == (4, 3, "tiny")
    assert len(facts["input_sha256"]) == 64


def test_guides_reach_the_tasks_and_the_held_out_data_set(run, tmp_path):
    data = screen(400)
    guide = np.char.add(data.obs["gene"].astype(str).to_numpy(dtype=str), np.char.add("-", (np.arange(400) % 3).astype(str)))
    guides = pd.Series(guide, data.obs_names).where(np.arange(400) % 7 != 0)
    data.obs["sgRNA"] = guides
    out = run(data, guide_column="sgRNA")
    known = read_screen(out / "tables")
    expected = guides.fillna("")[known.cell_id]
    assert known.guide.tolist() == expected.tolist() == ad.read_h5ad(out / "counts.h5ad").obs["guide"].tolist()
    assert labels_of(known.take(np.arange(5))).guide.tolist() == expected.tolist()[:5]
    write_part(out / "counts.h5ad", out / "tables", np.arange(50), "tiny.heldout", tmp_path / "held")
    assert ad.read_h5ad(tmp_path / "held.h5ad").obs["guide"].tolist() == expected.tolist()[:50]
    assert json.loads((tmp_path / "held.row.json").read_text())["guide_column"] == "guide"


def test_an_unknown_column_of_guides_is_refused(run):
    refused(run, screen(), "guide_column of the sheet", guide_column="sgRNA")


def test_without_guides_none_is_known(run):
    known = read_screen(run(screen()) / "tables")
    assert known.guide is None
    assert set(labels_of(known).guide) == {""}


def as_csc(data: ad.AnnData, path: Path) -> None:
    data.X = sp.csc_matrix(data.X)
    data.write_h5ad(path)


def as_dense(data: ad.AnnData, path: Path) -> None:
    data.X = data.X.toarray()
    data.write_h5ad(path)


def as_gzipped_integers(data: ad.AnnData, path: Path) -> None:
    data.X = data.X.astype(np.int64)
    data.write_h5ad(path, compression="gzip")


def as_nullable(data: ad.AnnData, path: Path) -> None:
    data.obs = data.obs.astype(str).astype(object)
    data.write_h5ad(path)


def as_anndata_06(data: ad.AnnData, path: Path) -> None:
    """obs and var as compound arrays, categories in uns, a matrix marked by h5sparse."""
    with h5py.File(path, "w") as file:
        _old_matrix(file, data, {"h5sparse_format": "csr", "h5sparse_shape": data.shape})
        dtype = [("index", "S20"), ("gene", "i1"), ("batch", "i1")]
        codes = [data.obs[name].cat.codes for name in ("gene", "batch")]
        file["obs"] = np.array(list(zip(data.obs_names, *codes, strict=True)), dtype=dtype)
        for name in ("gene", "batch"):
            file[f"uns/{name}_categories"] = data.obs[name].cat.categories.to_numpy().astype("S20")
        rows = list(zip(data.var_names, data.var["symbol"], strict=True))
        file["var"] = np.array(rows, dtype=[("index", "S20"), ("symbol", "S20")])


def as_anndata_07(data: ad.AnnData, path: Path) -> None:
    """Tables as groups whose categorical columns point to __categories."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        _old_matrix(file, data, {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": data.shape})
        for name, frame in (("obs", data.obs), ("var", data.var)):
            group = file.create_group(name)
            group.attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.1.0"})
            group.attrs["column-order"] = np.array(list(frame.columns), dtype=text)
            group.create_dataset("_index", data=frame.index.to_numpy(dtype=object), dtype=text)
        for name in ("gene", "batch"):
            file[f"obs/{name}"] = data.obs[name].cat.codes.to_numpy()
            labels = data.obs[name].cat.categories.to_numpy(dtype=object)
            categories = file.create_dataset(f"obs/__categories/{name}", data=labels, dtype=text)
            file[f"obs/{name}"].attrs["categories"] = categories.ref
        file.create_dataset("var/symbol", data=data.var["symbol"].to_numpy(dtype=object), dtype=text)


def _old_matrix(file: h5py.File, data: ad.AnnData, attributes: dict) -> None:
    for name in ("data", "indices", "indptr"):
        file[f"X/{name}"] = getattr(data.X, name)
    file["X"].attrs.update(attributes)


ENCODINGS = [as_csc, as_dense, as_gzipped_integers, as_nullable, as_anndata_06, as_anndata_07]


@pytest.mark.parametrize("encode", ENCODINGS, ids=lambda function: function.__name__)
def test_every_encoding_reads_the_same(run, tmp_path, encode, monkeypatch):
    expected = ad.read_h5ad(run(screen()) / "counts.h5ad")
    path = tmp_path / "encoded.h5ad"
    encode(screen(), path)
    monkeypatch.setattr("plumbline.data.ingest.BUDGET", 2000)  # a few rows a block
    written = ad.read_h5ad(run(path) / "counts.h5ad")
    assert (written.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(written.obs, expected.obs)
    pd.testing.assert_frame_equal(written.var, expected.var)


def test_layers_raw_and_backed_blocks(run, monkeypatch):
    data = screen()
    counts = data.X.copy()
    data.layers["counts"] = counts
    data.raw = data.copy()
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    data = data[:, :30].copy()  # raw keeps all genes
    monkeypatch.setattr("plumbline.data.ingest.BUDGET", 64)  # a few values a block
    kept = np.asarray(counts[:, :30].sum(1)).ravel() > 50
    written = ad.read_h5ad(run(data, layer="counts") / "counts.h5ad")
    assert (counts[kept][:, :30] != written.X).nnz == 0
    assert ad.read_h5ad(run(data, layer="raw") / "counts.h5ad").n_vars == 40
    with pytest.raises(UserError, match="holds whole numbers in: counts, raw; set layer"):
        run(data)


def test_duplicate_genes_are_summed_or_refused(run):
    data = screen()
    data.var_names = [f"ENSG{i // 2:011d}.{i % 2 + 1}" for i in range(data.n_vars)]  # versions of one gene
    written = ad.read_h5ad(run(data) / "counts.h5ad")
    kept = data[written.obs_names].X.toarray()
    np.testing.assert_array_equal(written.X.toarray(), kept[:, ::2] + kept[:, 1::2])
    assert "20 genes occur more than once" in (run.out / "tables/dataset.json").read_text()
    with pytest.raises(UserError, match=r"20 genes occur more than once \(such as 'ENSG00000000000'\).*duplicates sum"):
        run(data, duplicates="refuse")


def test_missing_labels_are_dropped_and_counted(run):
    data = screen()
    data.obs["gene"] = data.obs["gene"].astype(object)
    data.obs.iloc[:7, 0] = np.nan
    data.obs["batch"] = data.obs["batch"].astype(object)
    data.obs.iloc[5:9, 1] = np.nan
    report = json.loads((run(data, min_counts=0) / "tables/data_report.json").read_text())
    cells = report["cells"]
    assert (cells["dropped_no_perturbation"], cells["dropped_no_batch"], cells["kept"]) == (7, 2, 111)
    assert any(text.startswith("7 cells have no perturbation label") for text in report["warnings"])


def test_no_controls_and_no_batches(run):
    out = run(screen(), control_label="none", batch_column="none")
    facts = json.loads((out / "tables/dataset.json").read_text())
    assert (facts["has_controls"], facts["has_batches"], facts["n_batches"], facts["split_by"]) == (False, False, 1, "cell")
    assert set(pd.read_parquet(out / "tables/cells.parquet")["batch"]) == {"all"}
    assert sum("not applicable" in text for text in facts["warnings"]) >= 2


def test_several_control_labels_and_numeric_columns(run):
    data = screen()
    data.obs["batch"] = np.arange(data.n_obs) % 3 + 1.0
    cells = pd.read_parquet(run(data, control_label="non-targeting; KRAS") / "tables/cells.parquet")
    assert set(cells.loc[cells["is_control"], "perturbation"]) == {"non-targeting", "KRAS"}
    assert set(cells["batch"]) == {"1", "2", "3"}


def test_signed_and_log_values_pass_when_the_sheet_says_so(run):
    data = screen()
    data.X = sp.csr_matrix(np.random.default_rng(0).normal(size=data.shape).astype(np.float32))
    out = run(data, x_kind="signed")
    genes = pd.read_parquet(out / "tables/genes.parquet")
    np.testing.assert_allclose(genes["mean_count"], data.X.toarray().mean(0), atol=1e-6)
    np.testing.assert_allclose(genes["mean_lognorm"], data.X.toarray().mean(0), atol=1e-6)
    assert ad.read_h5ad(out / "counts.h5ad").n_obs == data.n_obs
    data.X = sp.csr_matrix(np.log1p(np.abs(data.X.toarray())))
    assert json.loads((run(data, x_kind="log") / "tables/dataset.json").read_text())["min_counts"] == 0


def lognormal(data: ad.AnnData) -> None:
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)


def spoil(row: int, value: float):
    def change(data: ad.AnnData) -> None:
        values = data.X.toarray()
        values[row, 3] = value
        data.X = sp.csr_matrix(values)

    return change


def rename(**names):
    def change(data: ad.AnnData) -> None:
        for key, value in names.items():
            setattr(data, key, value)

    return change


BAD = {
    "log-normalised": (lognormal, "log-normalised .log1p of counts to 10000 per cell.*x_kind log", {}),
    "normalised": (lambda data: sc.pp.normalize_total(data, target_sum=1e4), "look normalised", {}),
    "negative": (spoil(5, -1.0), "cell 'cell5' holds the value -1. Counts are never negative", {}),
    "nan": (spoil(7, np.nan), "cell 'cell7' holds the value nan", {}),
    "infinite": (spoil(8, np.inf), "cell 'cell8' holds the value inf", {}),
    "nan in signed": (spoil(7, np.nan), "cell 'cell7' holds the value nan", {"x_kind": "signed"}),
    "duplicate cells": (rename(obs_names=["a"] * 120), "119 duplicate cell ids .such as 'a'", {}),
    "unknown genes": (rename(var=pd.DataFrame(index=[str(i) for i in range(40)])), "no gene name is an Ensembl id", {}),
    "wrong organism": (
        rename(var=pd.DataFrame(index=[f"ENSMUSG{i:011d}" for i in range(40)])),
        "not of human. Check organism",
        {},
    ),
    "wrong column": (None, "no cell annotation 'gen'.*Did you mean 'gene'", {"perturbation_column": "gen"}),
    "wrong batch column": (None, "no cell annotation 'batches'.*Did you mean 'batch'", {"batch_column": "batches"}),
    "wrong gene column": (None, "no gene column 'symbols'.*Did you mean 'symbol'", {"gene_id_column": "symbols"}),
    "wrong control": (None, "'nontargeting' matches no cell.*Did you mean 'non-targeting'", {"control_label": "nontargeting"}),
    "one wrong control": (None, "'DMSO' matches no cell", {"control_label": "non-targeting;DMSO"}),
    "all controls": (None, "no cell with a perturbation", {"control_label": "non-targeting;TP53;MYC;EGFR;KRAS"}),
    "too few counts": (None, r"no cell has more than min_counts = 1e\+06 counts \(median", {"min_counts": 1e6}),
    "wrong layer": (None, "no layer 'count'", {"layer": "count"}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_is_written(run, case):
    change, message, row = BAD[case]
    data = screen()
    if change:
        change(data)
    refused(run, data, message, **row)


def test_only_controls_left(run):
    data = screen()
    per_gene = np.where(data.obs["gene"] == "non-targeting", 5, 1).astype(np.float32)
    data.X = sp.csr_matrix(np.repeat(per_gene[:, None], data.n_vars, axis=1))
    refused(run, data, "only controls are left", min_counts=100)


def test_missing_empty_and_truncated_files(run, tmp_path):
    refused(run, tmp_path / "absent.h5ad", "does not exist")
    (tmp_path / "empty.h5ad").touch()
    refused(run, tmp_path / "empty.h5ad", "is empty")
    (tmp_path / "text.h5ad").write_text("no HDF5")
    refused(run, tmp_path / "text.h5ad", "no HDF5 file")
    screen().write_h5ad(tmp_path / "whole.h5ad")
    whole = (tmp_path / "whole.h5ad").read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / "cut.h5ad").write_bytes(whole[: int(share * len(whole))])
        refused(run, tmp_path / "cut.h5ad", "Is the file complete")


def test_obs_that_does_not_fit_the_matrix(run, tmp_path):
    screen().write_h5ad(tmp_path / "short.h5ad")
    with h5py.File(tmp_path / "short.h5ad", "r+") as file:
        file["X"].attrs["shape"] = (119, 40)
    refused(run, tmp_path / "short.h5ad", "X is 119 x 40 but obs and var hold 120 x 40")


def test_an_error_keeps_earlier_results(run):
    out = run(screen())
    before = (out / "counts.h5ad").read_bytes()
    with pytest.raises(UserError, match="matches no cell"):
        run(screen(), control_label="DMSO")
    assert (out / "counts.h5ad").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["counts.h5ad", "tables"]


def test_bad_row(run, tmp_path):
    for text, message in (("{", "bad.json cannot be read .*line 1"), ("[]", "one JSON object")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match=message):
            prepare_dataset.read_row(tmp_path / "bad.json")


def frame(pairs: list[tuple[str, str, bool]], times: int = 20) -> pd.DataFrame:
    return pd.DataFrame(pairs * times, columns=["perturbation", "batch", "is_control"])


def test_confounding_levels():
    balanced = [(p, b, p == "c") for p in "xyc" for b in "12"]
    assert confounding(frame(balanced)) == {
        "cramers_v": 0.0, "share_in_one_batch": 0.0, "share_with_controls": 1.0, "level": "none"}  # fmt: skip
    nested = [("x", "1", False), ("y", "2", False), ("c", "1", True), ("c", "2", True)]
    assert confounding(frame(nested))["level"] == "nested"
    assert confounding(frame(nested))["cramers_v"] == pytest.approx(1.0)
    assert confounding(frame([row for row in nested if not row[2]]))["level"] == "full"
    apart = [("x", "1", False), ("x", "2", False), ("c", "3", True)]
    assert confounding(frame(apart)) == {
        "cramers_v": None, "share_in_one_batch": 0.0, "share_with_controls": 0.0, "level": "full"}  # fmt: skip


def test_cramers_v_is_the_corrected_form_of_scipys():
    from scipy.stats.contingency import association

    counts = np.random.default_rng(0).integers(1, 30, (5, 4))
    n, (r, c) = counts.sum(), counts.shape
    phi2 = association(counts, method="cramer") ** 2 * (min(r, c) - 1) - (r - 1) * (c - 1) / (n - 1)
    rows, columns = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    assert cramers_v(counts) == pytest.approx(np.sqrt(phi2 / (min(rows, columns) - 1)))


REAL = {
    "kang2018_pbmc_ifnb_small": ({"control_label": "control", "min_counts": 500}, (960, 14053, 1, 480, 8), "none"),
    "l1000_shrna_plate": ({"control_label": "EMPTY_VECTOR;GFP;UnTrt", "x_kind": "signed"}, (374, 976, 85, 40, 4), "none"),
    "norman2019_k562_crispra": ({"control_label": "control", "min_counts": 0}, (3375, 500, 33, 100, 8), "none"),
    "papalexi2021_thp1_crisprko": ({"min_counts": 0}, (20729, 299, 25, 2386, 3), "none"),
    "pijuansala2019_mouse_tal1": (
        {"control_label": "wild-type", "organism": "mouse", "min_counts": 0},
        (2938, 500, 1, 1785, 4),
        "full",
    ),
    "tggates_human_hepatocyte": ({"control_label": "vehicle", "x_kind": "log"}, (2382, 200, 146, 670, 6), "nested"),
    "vcc2025_h1_crispri": ({"min_counts": 0}, (600, 1000, 5, 100, 48), "none"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(run, shared, name):
    row, sizes, level = REAL[name]
    path = shared / "data" / "real" / f"{name}.h5ad"
    out = run(path, perturbation_column="perturbation", **row)
    facts = json.loads((out / "tables/dataset.json").read_text())
    assert tuple(facts[f"n_{what}"] for what in ("cells", "genes", "perturbations", "controls", "batches")) == sizes
    assert json.loads((out / "tables/data_report.json").read_text())["confounding"]["level"] == level
    written, given = ad.read_h5ad(out / "counts.h5ad"), ad.read_h5ad(path)
    np.testing.assert_array_equal(np.asarray(written.X.sum(0)), np.asarray(sp.csr_matrix(given.X).sum(0)))
    np.testing.assert_array_equal(written.obs["is_control"], given.obs["is_control"])
