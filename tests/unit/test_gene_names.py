"""Ensembl ids for symbols and symbols for ids: against Ensembl's own table, and against the same cells with both names."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_screen import write_genes

import embed_cellplm
import embed_geneformer
import embed_scgpt
import embed_uce
from assets.make_gene_names import gene_names as made
from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.genes import names as gene_names
from plumbline.genes import orthologs
from plumbline.genes.relationships import perturbed_genes
from plumbline.models.cellplm import untrained as cellplm_untrained
from plumbline.models.geneformer import untrained as geneformer_untrained
from plumbline.models.scgpt import untrained as scgpt_untrained
from plumbline.models.uce import untrained as uce_untrained

MODELS = {
    "cellplm": (embed_cellplm, cellplm_untrained),
    "geneformer": (embed_geneformer, geneformer_untrained),
    "scgpt": (embed_scgpt, scgpt_untrained),
    "uce": (embed_uce, uce_untrained),
}


@pytest.fixture(scope="module")
def table(root) -> pd.DataFrame:
    return pd.read_csv(root / "assets/gene_names_human.tsv", sep="\t", dtype=str, keep_default_na=False)


def names(*values: str) -> np.ndarray:
    return np.array(values, dtype=str)


def blank(like: np.ndarray) -> np.ndarray:
    return np.full(len(like), "", dtype=str)


# --- the table -----------------------------------------------------------------------------------------------------------


def test_the_table_names_every_gene_and_every_symbol_once(table):
    assert table["ensembl"].is_monotonic_increasing
    assert table["ensembl"].str.fullmatch(r"ENSG\d{11}").all()
    former = [name for cell in table["former_symbols"] for name in cell.split("|") if name]
    every = pd.Series([*table["ensembl"], *table["symbol"].str.upper(), *former])
    assert every.is_unique
    assert (every != "").all()


def test_the_table_is_made_of_approved_genes_and_of_former_symbols_that_tell_which():
    def row(gene: str, symbol: str, ensembl: str, previous: str = "", status: str = "Approved") -> dict:
        return {"HGNC ID": gene, "Approved symbol": symbol, "Ensembl gene ID": ensembl, "Previous symbols": previous,
                "Status": status}  # fmt: skip

    source = [row("1", "B", "E2", "OLDB, Shared"), row("2", "A", "E1", "shared, B, olda"), row("3", "C", "", "OLDC"),
              row("4", "D", "E4", "X", "Entry Withdrawn"), row("5", "E", "E5", "A")]  # fmt: skip
    assert made(source) == [("E1", "A", "OLDA"), ("E2", "B", "OLDB"), ("E5", "E", "")]
    with pytest.raises(ValueError, match="symbol twice"):
        made([row("1", "A", "E1"), row("2", "a", "E2")])


def test_another_table_is_refused(tmp_path, monkeypatch):
    (tmp_path / "t.tsv").write_text("ensembl\tsymbol\tformer_symbols\n")
    monkeypatch.setattr(gene_names, "TABLE", tmp_path / "t.tsv")
    gene_names._ids.cache_clear()
    with pytest.raises(UserError, match="not the table of this version"):
        gene_names.fill_ensembl(names(""), names("TAL1"), "human")
    gene_names._ids.cache_clear()


def test_ids_and_symbols_are_those_of_ensembl():
    """The orthologs' human column is Ensembl's, of another year: a gene in 500 may have another id or symbol there."""
    pairs = pd.DataFrame(orthologs.pairs()).query("human_symbol != ''")
    ensembl, symbol = pairs["human_ensembl"].to_numpy(str), pairs["human_symbol"].to_numpy(str)
    found = gene_names.fill_ensembl(blank(symbol), symbol, "human")
    assert (found != "").mean() > 0.99
    assert (found == ensembl)[found != ""].mean() > 0.998
    back = gene_names.fill_symbol(ensembl, blank(ensembl), "human")
    assert (back != "").mean() > 0.99
    renamed = gene_names.fill_ensembl(blank(back), back, "human")  # whatever the year calls it, it is the same gene
    assert (renamed == ensembl)[back != ""].all()


# --- filling ---------------------------------------------------------------------------------------------------------------


def test_what_is_given_stays_and_no_gene_is_named_twice():
    symbol = names("TP53", "tal1", "C10orf11", "nothing", "STAT1", "MACF1", "KIAA0754", "")
    given = names("", "", "", "", "MINE", "", "", "ENSG00000141510.9")
    assert gene_names.fill_ensembl(given, symbol, "human").tolist() == [
        "ENSG00000141510", "ENSG00000162367", "ENSG00000148655", "", "MINE", "ENSG00000127603", "",
        "ENSG00000141510.9"]  # fmt: skip
    assert given[0] == "", "the input is left alone"
    order = np.array([6, 5])  # KIAA0754 is a former symbol of MACF1: which comes first does not matter
    assert gene_names.fill_ensembl(blank(order), symbol[order], "Homo sapiens").tolist() == ["", "ENSG00000127603"]
    ids = names("ENSG00000141510.18", "ensg00000162367", "ENSG00000115415", "ENSG99999999999", "")
    filled = gene_names.fill_symbol(ids, names("", "", "", "", "STAT1"), "human")
    assert filled.tolist() == ["TP53", "TAL1", "", "", "STAT1"], "STAT1 is there already"


def test_the_mouse_is_named_as_far_as_its_orthologs_go_and_others_are_not():
    symbol = names("Trp53", "Tal1", "TP53")
    assert gene_names.fill_ensembl(blank(symbol), symbol, "mouse").tolist() == ["ENSMUSG00000059552", "ENSMUSG00000028717", ""]
    ids = names("ENSMUSG00000059552.4", "ENSG00000141510")
    assert gene_names.fill_symbol(ids, blank(ids), "Mus musculus").tolist() == ["Trp53", ""]
    assert gene_names.fill_symbol(ids, blank(ids), "rat").tolist() == ["", ""]


def test_a_perturbation_that_is_called_by_an_id_is_its_gene_also_if_the_data_set_has_no_symbols():
    genes = pd.DataFrame({"ensembl_id": ["ENSG00000141510"], "symbol": ["mine"]})
    labels = names("ENSG00000141510", "ENSG00000162367", "STAT1", "control")
    assert perturbed_genes(labels, genes, "human").tolist() == ["mine", "TAL1", "STAT1", "control"]


# --- models ----------------------------------------------------------------------------------------------------------------


def told(variant: str, weights: Path | None = None) -> Options:
    return Options(
        variant=variant,
        weights=weights,
        tables=None,
        fit_on="none",
        seed=42,
        device="cpu",
        batch_size=0,
        threads=1,
        settings={"checkpoint": "own"} if weights else {},
    )


@pytest.fixture(scope="module")
def screen(table, tmp_path_factory) -> dict[str, Counts]:
    """The same cells under both names of the genes, under ids alone, and under symbols alone (some of them former ones)."""
    folder, rng = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    genes = table.sample(60, random_state=1)
    x = rng.poisson(2.0, (8, len(genes))).astype(np.float32)
    old = genes["former_symbols"].str.partition("|")[0]
    symbol = genes["symbol"].where(old == "", old)
    assert (old != "").sum() > 5
    nothing = [""] * len(genes)
    return {
        "both": write_genes(folder / "both.h5ad", x, genes["ensembl"], genes["symbol"]),
        "ensembl_id": write_genes(folder / "ids.h5ad", x, genes["ensembl"], nothing),
        "symbol": write_genes(folder / "symbols.h5ad", x, nothing, symbol),
    }


@pytest.mark.parametrize(("model", "given"), [("cellplm", "symbol"), ("scgpt", "ensembl_id"), ("uce", "ensembl_id")])
def test_a_model_embeds_genes_of_the_other_name_as_if_both_were_given(screen, tmp_path, model, given):
    script, untrained = MODELS[model]
    untrained.make_checkpoint(tmp_path, screen["both"], told(f"{model}_x"))
    want = script.embed(screen["both"], told(f"{model}_x", tmp_path))
    got = script.embed(screen[given], told(f"{model}_x", tmp_path))
    np.testing.assert_array_equal(got.values, want.values)
    assert np.isfinite(want.values).all()
    assert (got.genes_used, got.counts_used) == (want.genes_used, want.counts_used) == (60, pytest.approx(1.0))
    other = {"symbol": "ensembl_id", "ensembl_id": "symbol"}[given]
    about = {"table": "gene_names_human.tsv", "sha256": gene_names.SHA256, "filled": other, "genes": 60}
    assert got.extra["gene_names"] == about
    assert "gene_names" not in want.extra


def test_geneformer_reads_symbols_by_its_own_dictionary(screen, tmp_path):
    """Its authors ship one; no second table comes between."""
    script, untrained = MODELS["geneformer"]
    untrained.make_checkpoint(tmp_path, screen["symbol"], told("geneformer_x"))
    assert "gene_names" not in script.embed(screen["symbol"], told("geneformer_x", tmp_path)).extra


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("given", ["ensembl_id", "symbol"])
def test_untrained_models_take_either_name(screen, model, given):
    options = Options(
        variant=f"{model}_untrained",
        weights=None,
        tables=None,
        fit_on="none",
        seed=42,
        device="cpu",
        batch_size=0,
        threads=1,
        settings={"untrained": "true"},
    )
    done = MODELS[model][0].embed(screen[given], options)
    assert np.isfinite(done.values).all()
    assert done.genes_used == 60


def test_symbols_that_nobody_knows_are_an_error(screen, root, tmp_path):
    write_genes(tmp_path / "odd.h5ad", np.ones((3, 4), np.float32), [""] * 4, ["what", "is", "that", "gene"])
    command = [sys.executable, root / "bin/embed_cellplm.py", "--input", tmp_path / "odd.h5ad", "--output", tmp_path / "e.npz"]
    MODELS["cellplm"][1].make_checkpoint(tmp_path, screen["both"], told("cellplm_x"))
    done = subprocess.run([*command, "--weights", tmp_path, "--set", "checkpoint=own"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "no human gene goes by what, is, that" in done.stderr
    assert not (tmp_path / "e.npz").exists()
