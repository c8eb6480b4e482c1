"""Mouse genes under human names: against pandas on the table, and against the same cells with human genes."""

import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from made_screen import write_genes

import embed_cellplm
import embed_gene_vectors
import embed_geneformer
import embed_scgpt
from assets.make_orthologs import one_to_one
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.counts.stacked import stack
from plumbline.embedding.options import Options, Result
from plumbline.genes import orthologs
from plumbline.models.shared.genes import by_mouse_orthologs, human_counts

N_MAPPED, N_OTHER, N_CELLS = 40, 12, 9
SCRIPTS = {"geneformer": embed_geneformer, "scgpt": embed_scgpt, "cellplm": embed_cellplm}


@pytest.fixture(scope="module")
def table(root) -> pd.DataFrame:
    return pd.read_csv(root / "assets/orthologs_mouse_human.tsv", sep="\t", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def genes(table) -> pd.DataFrame:
    """Genes in both species: pairs of the table, among genes that have no ortholog, in no order."""
    pairs = table[(table["mouse_symbol"] != "") & (table["human_symbol"] != "")].sample(N_MAPPED, random_state=1)
    number = np.arange(N_OTHER)
    other = {
        name: [f"{prefix}{n}" for n in number] for name, prefix in (("mouse_symbol", "Only"), ("human_symbol", "ONLYHUMAN"))
    }
    ids = {"mouse_ensembl": [f"ENSMUSG999999{n:05d}" for n in number], "human_ensembl": [f"ENSG999999{n:05d}" for n in number]}
    both = pd.concat([pairs.assign(mapped=True), pd.DataFrame({**other, **ids, "mapped": False})])
    return both.sample(frac=1, random_state=2).reset_index(drop=True)


@pytest.fixture(scope="module")
def matrix(genes) -> np.ndarray:
    """Whole numbers; a cell of genes without orthologs alone, and one without counts."""
    x = np.random.default_rng(0).poisson(2.0, (N_CELLS, len(genes))).astype(np.float32)
    x[3, genes["mapped"]] = 0
    x[4] = 0
    return x


def told(variant: str, weights: Path | None = None, tables: Path | None = None, **settings: str) -> Options:
    return Options(
        variant=variant,
        weights=weights,
        tables=tables,
        fit_on="none",
        seed=42,
        device="cpu",
        batch_size=0,
        threads=1,
        settings=settings,
    )


def dense(counts: Counts) -> np.ndarray:
    return np.vstack([block.toarray() for _, block in counts.blocks()])


# --- the table -----------------------------------------------------------------------------------------------------------


def test_the_table_is_one_to_one_sorted_and_the_one_the_code_was_made_with(table):
    assert list(table.columns) == ["mouse_ensembl", "mouse_symbol", "human_ensembl", "human_symbol"]
    assert table["mouse_ensembl"].is_monotonic_increasing
    assert table["mouse_ensembl"].str.fullmatch(r"ENSMUSG\d{11}").all()
    assert table["human_ensembl"].str.fullmatch(r"ENSG\d{11}").all()
    for column in table:
        names = table[column][table[column] != ""].str.upper()
        assert names.is_unique, column
    assert len(table) == 17_122
    assert (table["human_symbol"] != "").sum() == 17_052
    of = table.set_index("mouse_symbol")["human_symbol"]
    assert of[["Trp53", "Tal1", "Cd4", "Nrg1"]].tolist() == ["TP53", "TAL1", "CD4", "NRG1"]


def test_the_table_is_made_of_pairs_that_ensembl_calls_one_to_one():
    def row(mouse: str, symbol: str, human: str, name: str, kind: str = "ortholog_one2one") -> dict:
        return {"Gene stable ID": mouse, "Gene name": symbol, "Human gene stable ID": human, "Human gene name": name,
                "Human homology type": kind}  # fmt: skip

    source = [row("M3", "C", "H3", "C"), row("M1", "A", "H1", "A"), row("M2", "B", "H2", "B", "ortholog_one2many"),
              row("M4", "D", "H4", ""), row("M5", "D", "H5", "D"), row("M6", "U6a", "H6", "U6"), row("M7", "U6b", "H7", "U6"),
              row("M8", "E", "H8", "E8"), row("M9", "E", "H9", "E9"), row("M1", "A", "H1", "A")]  # fmt: skip
    assert one_to_one(source) == [
        ("M1", "A", "H1", "A"), ("M3", "C", "H3", "C"), ("M4", "", "H4", ""), ("M5", "D", "H5", "D"), ("M6", "U6a", "H6", ""),
        ("M7", "U6b", "H7", ""), ("M8", "", "H8", "E8"), ("M9", "", "H9", "E9")]  # fmt: skip
    with pytest.raises(ValueError, match="mouse_ensembl it names twice"):
        one_to_one([row("M1", "A", "H1", "A"), row("M1", "A", "H2", "B")])


def test_another_table_is_refused(tmp_path, monkeypatch):
    (tmp_path / "t.tsv").write_text("mouse_ensembl\tmouse_symbol\thuman_ensembl\thuman_symbol\n")
    monkeypatch.setattr(orthologs, "TABLE", tmp_path / "t.tsv")
    orthologs._by_mouse_name.cache_clear()
    with pytest.raises(UserError, match="not the table of this version"):
        orthologs.human_names(["Tal1"])
    orthologs._by_mouse_name.cache_clear()


def test_names_by_id_symbol_version_and_case_are_those_of_a_pandas_merge(table):
    rng = np.random.default_rng(5)
    some = table[table["mouse_symbol"] != ""].iloc[rng.permutation(len(table) - (table["mouse_symbol"] == "").sum())[:300]]
    for names in (
        some["mouse_ensembl"],
        some["mouse_ensembl"] + ".12",
        some["mouse_symbol"],
        some["mouse_symbol"].str.upper(),
        some["mouse_symbol"].str.lower(),
    ):
        ensembl, symbol = orthologs.human_names(names)
        assert ensembl.tolist() == some["human_ensembl"].tolist()
        assert symbol.tolist() == some["human_symbol"].tolist()
    ensembl, symbol = orthologs.human_names(["", "TP53", "ENSMUSG00000000000", "ENSG00000141510", "Gm1"])
    assert set(ensembl) == set(symbol) == {""}
    assert [len(part) for part in orthologs.human_names([])] == [0, 0]


# --- counts under human names ----------------------------------------------------------------------------------------------


def test_genes_and_their_coverage_are_those_of_a_pandas_merge(table, genes, matrix, tmp_path):
    counts = write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    found = human_counts(counts, told("scgpt"))
    want = genes[["mouse_ensembl"]].merge(table, how="left", on="mouse_ensembl").fillna("")
    assert found.counts.ensembl_id.tolist() == want["human_ensembl"].tolist()
    assert found.counts.symbol.tolist() == want["human_symbol"].tolist()
    np.testing.assert_array_equal(dense(found.counts), matrix)
    mapped = (want["human_ensembl"] != "").to_numpy()
    assert found.facts() == {
        "orthologs": {
            "table": "orthologs_mouse_human.tsv",
            "sha256": orthologs.SHA256,
            "genes_mapped": N_MAPPED,
            "genes_without_ortholog": N_OTHER,
            "genes_added": 0,
            "counts_mapped": pytest.approx(matrix[:, mapped].sum() / matrix.sum()),
        }
    }
    human = write_genes(tmp_path / "h.h5ad", matrix, genes["human_ensembl"], genes["human_symbol"])
    assert human_counts(human, told("scgpt")).counts is human
    assert human_counts(human, told("scgpt")).facts() == {}


def test_columns_of_one_human_gene_are_added_whatever_is_done_before_and_after(genes, matrix, tmp_path):
    """One gene by its id, by its id with a version, and by its symbol."""
    first = int(np.flatnonzero(genes["mapped"])[0])
    split = np.hstack([matrix, 2 * matrix[:, [first]], 3 * matrix[:, [first]]])
    name = genes.iloc[first]
    ensembl = [*genes["mouse_ensembl"], f"{name['mouse_ensembl']}.3", ""]
    counts = write_genes(tmp_path / "d.h5ad", split, ensembl, [*genes["mouse_symbol"], "x", name["mouse_symbol"]])
    found = human_counts(counts, told("scgpt"))
    want = np.hstack([matrix, np.zeros((N_CELLS, 2), np.float32)])
    want[:, first] *= 6
    np.testing.assert_array_equal(dense(found.counts), want)
    assert found.counts.symbol[first] == name["human_symbol"]
    assert found.counts.symbol[-2:].tolist() == found.counts.ensembl_id[-2:].tolist() == ["", ""]
    about = found.facts()["orthologs"]
    assert (about["genes_mapped"], about["genes_added"], about["genes_without_ortholog"]) == (N_MAPPED + 2, 2, N_OTHER)
    mapped = np.append(genes["mapped"].to_numpy(bool), [True, True])
    assert about["counts_mapped"] == pytest.approx(split[:, mapped].sum() / split.sum())
    columns = np.array([first, len(ensembl) - 1, 0])
    np.testing.assert_array_equal(dense(found.counts.take_genes(columns)), want[:, columns])
    order = np.random.default_rng(3).permutation(len(ensembl))
    shuffled = human_counts(counts.take_genes(order), told("scgpt")).counts
    for gene in set(found.counts.symbol) - {""}:
        a, b = (dense(some)[:, some.symbol == gene] for some in (found.counts, shuffled))
        np.testing.assert_array_equal(a, b)
    rows = np.array([5, 2, 7])
    both = human_counts(stack((counts, rows), (counts, np.arange(N_CELLS))), told("scgpt")).counts
    np.testing.assert_array_equal(dense(both), np.vstack([want[rows], want]))
    assert both.symbol.tolist() == found.counts.symbol.tolist()


def test_other_organisms_none_and_strangers_do_not_apply(genes, matrix, tmp_path):
    mouse = write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    for settings in ({"orthologs": "none"}, {"organism": "other"}, {"organism": "Danio rerio"}, {"organism": "rat"}):
        with pytest.raises(NotApplicable, match=r"knows human genes only and the data set is .*; a table of orthologs can be"):
            human_counts(mouse, told("scgpt", **settings))
    strange = write_genes(tmp_path / "s.h5ad", np.ones((2, 3), np.float32), ["", "ENSG1", ""], ["aa", "b", "TP53"])
    with pytest.raises(
        NotApplicable, match=r"none of whose 3 genes \(first: aa, ENSG1, TP53\) has a one-to-one human ortholog"
    ):
        human_counts(strange, told("scgpt", organism="mouse"))
    (tmp_path / "dataset.json").write_text(json.dumps({"x_kind": "signed", "organism": "mouse"}))
    with pytest.raises(NotApplicable, match="holds signed values"):
        human_counts(mouse, told("scgpt", tables=tmp_path))


def test_a_table_of_ones_own_goes_before_the_bundled_one_and_may_map_several_to_one(genes, matrix, tmp_path):
    mouse = write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    (tmp_path / "own.csv").write_text(f"{genes['mouse_ensembl'][0]},TAL1\n{genes['mouse_symbol'][1]},TAL1\n")
    found = human_counts(mouse, told("scgpt", orthologs=str(tmp_path / "own.csv")))
    np.testing.assert_array_equal(dense(found.counts)[:, 0], matrix[:, 0] + matrix[:, 1])
    assert not dense(found.counts)[:, 1].any()
    assert found.counts.symbol.tolist() == ["TAL1", *[""] * (len(genes) - 1)]
    about = found.facts()["orthologs"]
    assert about["counts_mapped"] == pytest.approx(matrix[:, :2].sum() / matrix.sum())
    assert (about["genes_mapped"], about["genes_added"]) == (2, 1)
    assert len(about["sha256"]) == 64


# --- the models --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(genes, tmp_path_factory) -> Path:
    """A tiny checkpoint of each human model that knows all human genes, those without an ortholog too."""
    pytest.importorskip("torch")
    from plumbline.models.cellplm import untrained as cellplm_untrained
    from plumbline.models.geneformer import untrained as geneformer_untrained
    from plumbline.models.scgpt import untrained as scgpt_untrained

    place = tmp_path_factory.mktemp("weights")
    for name in SCRIPTS:
        (place / name).mkdir()
    ids, symbols = sorted(genes["human_ensembl"]), sorted(genes["human_symbol"])
    geneformer_untrained.write_checkpoint(place / "geneformer", ids, 1, geneformer_untrained.TINY)
    scgpt_untrained.write_checkpoint(place / "scgpt", symbols, 1, scgpt_untrained.TINY)
    cellplm_untrained.write_checkpoint(place / "cellplm", "own", ids, 1, cellplm_untrained.TINY)
    return place


def embed(model: str, counts: Counts, checkpoints: Path, **settings: str) -> Result:
    return SCRIPTS[model].embed(counts, told(model, checkpoints / model, checkpoint="own", pooling="cell", **settings))


@pytest.mark.parametrize("named", ["ids", "symbols", "both"])
@pytest.mark.parametrize("model", SCRIPTS)
def test_a_mouse_embeds_as_the_same_cells_with_the_human_genes_of_one_mouse_gene(
    model, named, genes, matrix, checkpoints, tmp_path
):
    nothing = [""] * len(genes)
    ensembl = nothing if named == "symbols" else genes["mouse_ensembl"]
    mouse = write_genes(tmp_path / "m.h5ad", matrix, ensembl, nothing if named == "ids" else genes["mouse_symbol"])
    kept = genes["mapped"].to_numpy(bool)
    human = write_genes(tmp_path / "h.h5ad", matrix[:, kept], genes["human_ensembl"][kept], genes["human_symbol"][kept])
    ours, theirs = embed(model, mouse, checkpoints, organism="mouse"), embed(model, human, checkpoints)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert np.isnan(ours.values).all(axis=1).tolist() == [n in (3, 4) for n in range(N_CELLS)]
    assert (ours.genes_used, ours.genes_total, ours.unembedded) == (N_MAPPED, len(genes), 2)
    assert ours.counts_used == pytest.approx(matrix[:, kept].sum() / matrix.sum())
    assert ours.extra["orthologs"]["counts_mapped"] == pytest.approx(ours.counts_used)
    assert ours.extra["orthologs"]["genes_without_ortholog"] == N_OTHER
    assert "orthologs" not in theirs.extra
    whole = write_genes(tmp_path / "w.h5ad", matrix, genes["human_ensembl"], genes["human_symbol"])
    with_all = embed(model, whole, checkpoints).values
    assert np.nanmax(np.abs(with_all - ours.values)) > 1e-3, "the genes without orthologs make a difference"


@pytest.mark.parametrize("model", SCRIPTS)
def test_a_gene_in_two_columns_embeds_as_their_sum(model, genes, matrix, checkpoints, tmp_path):
    gene = int(np.flatnonzero(genes["mapped"])[2])
    part = np.minimum(matrix[:, gene], 1)
    split = np.hstack([matrix, part[:, None]])
    split[:, gene] -= part
    symbol = [*genes["mouse_symbol"], genes["mouse_symbol"][gene]]
    two = write_genes(tmp_path / "two.h5ad", split, [*genes["mouse_ensembl"], ""], symbol)
    one = write_genes(tmp_path / "one.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    np.testing.assert_array_equal(embed(model, two, checkpoints).values, embed(model, one, checkpoints).values)


@pytest.mark.parametrize("model", SCRIPTS)
def test_without_the_table_a_mouse_does_not_apply_and_nothing_is_read(model, genes, matrix, tmp_path):
    mouse = write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    for more in ({"orthologs": "none"}, {"organism": "other"}):
        with pytest.raises(NotApplicable, match="orthologs=FILE"):
            SCRIPTS[model].embed(mouse, told(model, tmp_path, **more))


def test_an_untrained_model_knows_the_orthologs_of_a_mouse_and_the_provenance_says_so(genes, matrix, tmp_path, root):
    pytest.importorskip("torch")
    write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    (tmp_path / "dataset.json").write_text(json.dumps({"x_kind": "counts", "organism": "mouse"}))
    command = [sys.executable, root / "bin/embed_cellplm.py", "--counts", tmp_path / "m.h5ad", "--tables", tmp_path]
    command += ["--variant", "cellplm_untrained", "--set", "untrained=true", "--output", tmp_path / "embedding.npz"]
    subprocess.run([*map(str, command), "--device", "cpu", "--threads", "1"], check=True, timeout=300)
    about = json.loads((tmp_path / "embedding.json").read_text())
    assert (about["genes_used"], about["genes_total"]) == (N_MAPPED, len(genes))
    assert about["orthologs"]["genes_mapped"] == N_MAPPED
    assert about["counts_used"] == about["orthologs"]["counts_mapped"]


def vectors(path: Path, names: pd.Series) -> Path:
    np.savez(path, gene=names.to_numpy(str), vector=np.random.default_rng(1).normal(size=(len(names), 6)))
    return path


def test_gene_vectors_of_human_genes_meet_the_orthologs_and_those_of_mouse_genes_the_genes(genes, matrix, tmp_path):
    mouse = write_genes(tmp_path / "m.h5ad", matrix, genes["mouse_ensembl"], genes["mouse_symbol"])
    kept = genes["mapped"].to_numpy(bool)
    depth = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    lognorm = np.log1p(matrix / depth * 1e4)
    for column in ("human_symbol", "human_ensembl", "mouse_symbol", "mouse_ensembl"):
        file = vectors(tmp_path / f"{column}.npz", genes[column])
        result = embed_gene_vectors.embed(mouse, told("gene_vectors", file))
        use = kept if column.startswith("human") else np.ones(len(genes), bool)
        want = lognorm[:, use] @ np.load(file)["vector"][use]  # the size of the library is that of all measured genes
        length = np.linalg.norm(want, axis=1, keepdims=True)
        want = np.divide(want, length, out=np.full_like(want, np.nan), where=length > 0)
        np.testing.assert_allclose(result.values, want, atol=1e-5)
        assert result.genes_used == use.sum()
        assert ("orthologs" in result.extra) == column.startswith("human")
    with pytest.raises(NotApplicable, match="has a vector"):
        embed_gene_vectors.embed(mouse, told("gene_vectors", tmp_path / "human_ensembl.npz", orthologs="none"))
    (tmp_path / "own.csv").write_text(f"{genes['mouse_ensembl'][0]},{genes['human_ensembl'][5]}\n")
    own = told("gene_vectors", tmp_path / "human_ensembl.npz", orthologs=str(tmp_path / "own.csv"))
    result = embed_gene_vectors.embed(mouse, own)
    one = np.load(tmp_path / "human_ensembl.npz")["vector"][5]
    np.testing.assert_allclose(result.values[0], one / np.linalg.norm(one), atol=1e-6)


def test_the_real_mouse_screen_in_part(shared):
    """500 genes, by Ensembl id and by symbol; the coverage is counted by pandas."""
    file = shared / "data/real/pijuansala2019_mouse_tal1.h5ad"
    data, counts = ad.read_h5ad(file), open_counts(file)
    found = by_mouse_orthologs(counts)
    table = pd.read_csv(orthologs.TABLE, sep="\t", keep_default_na=False).set_index("mouse_ensembl")
    mapped = np.isin(counts.ensembl_id, table.index)
    about = found.facts()["orthologs"]
    assert about["genes_mapped"] == mapped.sum() > 400
    total = np.asarray(data.X.sum(axis=0)).ravel()
    assert about["counts_mapped"] == pytest.approx(total[mapped].sum() / total.sum(), rel=1e-6)
