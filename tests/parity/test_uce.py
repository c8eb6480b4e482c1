"""UCE against the authors' own code: tokens exactly, embeddings within the tolerance of float32."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from foundation import make_counts
from scipy.stats import chisquare

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options

torch = pytest.importorskip("torch")
from plumbline.models.uce import network as uce
from plumbline.models.uce import tokens as uce_tokens

ATOL = 1e-5  # the fixtures' README; float32 reaches 5e-7


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "uce_cellplm"


@pytest.fixture(scope="module")
def counts(folder: Path) -> Counts:
    return open_counts(folder / "cells.h5ad")


def told(weights: Path, seed: int = 42, tables: Path | None = None, batch_size: int = 0, **settings: object) -> Options:
    return Options(
        variant="uce_4l",
        weights=weights,
        tables=tables,
        fit_on="none",
        seed=seed,
        device="cpu",
        batch_size=batch_size,
        threads=1,
        settings={k: str(v) for k, v in settings.items()},
    )


def expected(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "uce" / f"expected_{name}.npz"))


def genome_of(folder: Path, counts: Counts, kept: np.ndarray) -> uce_tokens.Genome:
    return uce_tokens.read_genome(folder / "uce", "uce_4l", "human", np.where(kept, counts.symbol, ""), 749)


@pytest.mark.parametrize("name", ["nofilter", "filter"])
def test_genes_and_sentences_are_upstreams(folder: Path, counts: Counts, name: str) -> None:
    want = expected(folder, name)
    rows, kept = uce_tokens.upstream_filter(counts) if name == "filter" else (np.arange(64), np.ones(600, bool))
    genome = genome_of(folder, counts, kept)
    np.testing.assert_array_equal(counts.cell_id[rows], want["obs_names"])
    np.testing.assert_array_equal(counts.symbol[genome.columns], want["var_names"])
    for mine, theirs in (("token", "pe_idx"), ("chromosome", "chrom_code"), ("start", "start")):
        np.testing.assert_array_equal(getattr(genome, mine), want[theirs])
    network, table = uce.load_network(folder / "uce" / "tiny_model.torch", "uce_4l")
    parts = {"seed": int(want["np_random_seed"]), "padding": "mask", "sampling": "upstream"}
    model = uce.UCE(network, table, genome, counts.cell_id, 600, "cpu", **parts)
    ragged = model.encode(*next(counts.blocks(rows)))
    token = np.flatnonzero(model.local)[:, None]  # back from local to global ids
    globally = np.zeros(model.local.max() + 1, dtype=int)
    globally[model.local[token]] = token
    np.testing.assert_array_equal(ragged.length, want["lengths"])
    want_tokens = want["sentences"][np.arange(1536) < want["lengths"][:, None]]
    np.testing.assert_array_equal(globally[ragged.fields[0]], want_tokens)


@pytest.mark.parametrize(("name", "padding", "key"), [
    ("nofilter", "mask", "embeddings_bs1"),
    ("nofilter", "upstream", "embeddings_bs25"),
    ("filter", "mask", "embeddings_bs1"),
    ("filter", "upstream", "embeddings_bs25"),
])  # fmt: skip
def test_embeddings_are_upstreams(folder: Path, counts: Counts, name: str, padding: str, key: str) -> None:
    want = expected(folder, name)
    settings = {"sampling": "upstream", "padding": padding, "filter": name == "filter"}
    result = uce.embed(counts, told(folder / "uce", int(want["np_random_seed"]), **settings))
    kept = ~np.isnan(result.values[:, 0])
    np.testing.assert_array_equal(counts.cell_id[kept], want["obs_names"])
    np.testing.assert_allclose(result.values[kept], want[key], atol=ATOL, rtol=0)
    assert result.unembedded == result.extra["cells_filtered"] == 64 - len(want["obs_names"])
    assert result.genes_used == len(want["var_names"])


def test_upstream_padding_is_told_from_masking(folder: Path) -> None:
    want = expected(folder, "nofilter")
    assert np.abs(want["embeddings_bs1"] - want["embeddings_bs25"]).max() > 100 * ATOL


def test_default_depends_on_the_cell_alone(folder: Path, counts: Counts) -> None:
    whole = uce.embed(counts, told(folder / "uce")).values
    np.testing.assert_allclose(uce.embed(counts, told(folder / "uce", batch_size=5)).values, whole, atol=1e-6)
    other_seed = uce.embed(counts, told(folder / "uce", seed=1)).values
    assert np.abs(other_seed - whole).max() > 1e-3
    genome = genome_of(folder, counts, np.ones(600, bool))
    network, table = uce.load_network(folder / "uce" / "tiny_model.torch", "uce_4l")
    model = uce.UCE(network, table, genome, counts.cell_id, 600, "cpu", 42, "mask", "cell")
    rows = np.array([50, 3])
    few = model.encode(*next(counts.blocks(rows)))
    many = model.encode(*next(counts.blocks()))
    starts = np.concatenate([[0], np.cumsum(many.length)])
    alone = [many.fields[0][starts[row] : starts[row + 1]] for row in rows]
    np.testing.assert_array_equal(few.fields[0], np.concatenate(alone))


def test_reduced_precision_is_measured(folder: Path, counts: Counts) -> None:
    exact = uce.embed(counts, told(folder / "uce")).values
    reduced = uce.embed(counts, told(folder / "uce", precision="bf16", measure_precision="true"))
    difference = float(np.abs(reduced.values - exact).max())
    measured = reduced.extra["fp32_difference"]
    assert measured["cells"] == 64
    assert measured["max_difference"] == pytest.approx(difference, abs=1e-5)
    assert 1e-6 < difference < 0.05


def test_sampling_follows_expression(folder: Path, counts: Counts) -> None:
    """The default's draws against upstream's probabilities, by chi-square on genes expected more than five times."""
    want = dict(np.load(folder / "uce" / "sampler_stats.npz"))
    genome = genome_of(folder, counts, np.ones(600, bool))
    for cell, probability in zip(want["cells"], want["prob"], strict=True):
        block = next(counts.blocks(np.array([cell])))[1][:, genome.columns].tocsr()
        block.sort_indices()
        weights = uce_tokens.expression_weights(block)
        draws = [
            uce_tokens.draw_genes(weights, block.indices, len(probability), uce_tokens.cell_generator("cell", seed))
            for seed in range(100)
        ]
        seen = np.bincount(np.concatenate(draws), minlength=len(probability))
        wanted = probability * seen.sum()
        often = wanted > 5
        assert seen[wanted == 0].sum() == 0
        assert chisquare(seen[often], wanted[often] * seen[often].sum() / wanted[often].sum()).pvalue > 1e-4


def test_fractions_of_counts_are_cut_off() -> None:
    block = sp.csr_matrix(np.array([[1.9, 0.5, 2.0]], dtype=np.float32))
    np.testing.assert_allclose(uce_tokens.expression_weights(block), np.log([2.0, 1.0, 3.0]), rtol=1e-6)


def test_upstreams_filter_keeps_genes_of_10_cells_and_cells_of_25_of_them(tmp_path: Path) -> None:
    matrix = np.zeros((12, 28))
    matrix[:10, :26] = 1
    matrix[:8, 26] = 1  # a gene of 9 cells, which then counts for no cell
    matrix[10, :24] = matrix[10, 26] = matrix[11, :25] = 1
    rows, genes = uce_tokens.upstream_filter(make_counts(tmp_path / "c.h5ad", matrix, [""] * 28, [f"G{n}" for n in range(28)]))
    assert rows.tolist() == [*range(10), 11]
    assert genes.tolist() == [True] * 26 + [False] * 2


def test_of_a_name_that_comes_twice_the_first_counts_and_chromosomes_are_numbered_over_all_species(tmp_path: Path) -> None:
    file = tmp_path / "protein_embeddings" / "Homo_sapiens.x.gene_symbol_to_embedding_ESM2.pt"
    file.parent.mkdir()
    torch.save({name: torch.zeros(1) for name in ("Abc", "B", "ABC", "C")}, file)
    assert uce_tokens.protein_names(tmp_path, "uce_4l", "human") == {"ABC": 0, "B": 1, "C": 2}
    rows = ["C,X,7,human", "ABC,2,30,human", "C,1,9,human", "Z,9,1,frog", "B,10,5,human"]
    (tmp_path / "species_chrom.csv").write_text("\n".join(["gene_symbol,chromosome,start,species", *rows]))
    (tmp_path / "species_offsets.json").write_text('{"human": 4}')
    genome = uce_tokens.read_genome(tmp_path, "uce_4l", "human", np.array(["c", "Abc", "b"]), 12)
    assert (genome.token.tolist(), genome.start.tolist()) == ([6, 4, 5], [7, 30, 5])
    assert genome.chromosome.tolist() == [4, 3, 2]  # of frog_9, human_1, human_10, human_2, human_X
    assert genome.chromosome_offset == 7


def test_sentence_by_hand() -> None:
    """Two chromosomes, one gene drawn twice, genes by start within a chromosome."""
    genome = uce_tokens.Genome(np.arange(3), np.array([10, 11, 12]), np.array([7, 7, 5]), np.array([30, 20, 1]), 100)
    tokens = uce_tokens.sentence(np.array([0, 2, 0, 1]), genome, np.random.default_rng(0))
    first, second = [107, 11, 10, 10, 2], [105, 12, 2]
    assert tokens.tolist() in ([3, *first, *second], [3, *second, *first])


def test_empty_and_duplicate_genes(folder: Path, counts: Counts) -> None:
    """A cell without known genes has no sentence; two columns of one symbol share a token."""
    symbols = counts.symbol.copy()
    genome = genome_of(folder, counts, np.ones(600, bool))
    first, second = genome.columns[:2]
    symbols[second] = symbols[first].lower()
    doubled = uce_tokens.read_genome(folder / "uce", "uce_4l", "human", symbols, 749)
    assert doubled.token[0] == doubled.token[1] == genome.token[0]
    network, table = uce.load_network(folder / "uce" / "tiny_model.torch", "uce_4l")
    model = uce.UCE(network, table, doubled, counts.cell_id, 600, "cpu", 42, "mask", "cell")
    block = next(counts.blocks())[1][:2]
    block.data[block.indptr[0] : block.indptr[1]] = 0
    assert model.encode(np.arange(2), block).length[0] == 0


def test_organisms(folder: Path, counts: Counts, tmp_path: Path) -> None:
    facts = tmp_path / "dataset.json"
    for organism, species in (("Mus musculus", "mouse"), ("human", "human"), ("", "human")):
        facts.write_text(json.dumps({"organism": organism, "x_kind": "counts"}))
        assert uce_tokens.organism(counts, told(folder / "uce", tables=tmp_path)) == species
    facts.write_text(json.dumps({"organism": "Arabidopsis thaliana", "x_kind": "counts"}))
    with pytest.raises(NotApplicable, match="arabidopsis thaliana"):
        uce.embed(counts, told(folder / "uce", tables=tmp_path))
    facts.write_text(json.dumps({"organism": "human", "x_kind": "log"}))
    with pytest.raises(NotApplicable, match="raw counts"):
        uce.embed(counts, told(folder / "uce", tables=tmp_path))
    mice = replace(counts, ensembl_id=np.char.replace(counts.ensembl_id, "ENSG", "ENSMUSG"))
    assert uce_tokens.organism(mice, told(folder / "uce")) == "mouse"  # whose symbols, upper-cased, are those of people
    assert uce_tokens.organism(mice, told(folder / "uce", species="human")) == "human"
    with pytest.raises(NotApplicable, match="none of the 600 gene symbols"):
        uce.embed(counts, told(folder / "uce", species="mouse"))


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder / "uce", target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755)
    return target


def test_bad_weights(folder: Path, counts: Counts, tmp_path: Path) -> None:
    weights = copy_of(folder, tmp_path / "w")
    model = weights / "tiny_model.torch"
    tensors, whole = torch.load(model, weights_only=True), model.read_bytes()
    with pytest.raises(UserError, match="is not a folder"):
        uce.embed(counts, told(tmp_path / "none"))
    with pytest.raises(UserError, match=r"absent\.torch does not exist"):
        uce.embed(counts, told(weights, model_file="absent.torch"))
    torch.save({k: v for k, v in tensors.items() if k != "decoder.1.0.bias"}, model)
    with pytest.raises(UserError, match=r"1 missing: decoder\.1\.0\.bias"):
        uce.embed(counts, told(weights))
    torch.save(tensors | {"extra.weight": torch.zeros(1)}, model)
    with pytest.raises(UserError, match=r"1 unexpected: extra\.weight"):
        uce.embed(counts, told(weights))
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated"):
        uce.embed(counts, told(weights))
    model.write_bytes(whole)
    with pytest.raises(UserError, match="do not belong together"):
        uce.embed(counts, told(weights, chrom_token_offset=600))
    (weights / "copy.torch").write_bytes(whole)
    with pytest.raises(UserError, match="2 model files"):
        uce.embed(counts, told(weights))


def test_bad_species_files(folder: Path, tmp_path: Path) -> None:
    weights = copy_of(folder, tmp_path / "w")
    read = partial(uce_tokens.read_genome, weights, "uce_4l", "human", np.array(["DAO"]), 749)
    (weights / "species_offsets.pkl").unlink()
    assert len(read().columns) == 1  # the JSON copy
    (weights / "species_offsets.json").write_text('{"mouse": 4}')
    with pytest.raises(UserError, match="no offset for human"):
        read()
    (weights / "species_chrom.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table with the columns gene_symbol"):
        read()
    (weights / "species_chrom.csv").unlink()
    with pytest.raises(UserError, match="does not exist"):
        read()
    shutil.rmtree(weights / "protein_embeddings")
    with pytest.raises(UserError, match="Homo_sapiens"):
        read()
