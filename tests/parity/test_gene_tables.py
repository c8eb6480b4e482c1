"""Gene tables of the small checkpoints in ../shared: every gene's vector is that which the checkpoint's own files give it."""

import json
import pickle
import shutil
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from foundation import options

from plumbline.common.errors import NotApplicable, UserError
from plumbline.models.gene_tables import PROTEINS, READERS, read_gene_table
from plumbline.models.shared.gene_table import GeneTable

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def fixtures(shared) -> Path:
    return shared / "fixtures"


def read(model: str, variant: str, weights: Path, **settings) -> GeneTable:
    return READERS[model](options(variant, weights, **settings))


def vector(table: GeneTable, name: str) -> np.ndarray:
    return table.vectors[table.names.tolist().index(name)]


def test_scgpt(fixtures):
    folder = fixtures / "geneformer_scgpt/scgpt/scGPT_tiny_plain"
    table = read("scgpt", "scgpt", folder)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    held = torch.load(folder / "best_model.pt", weights_only=True)["encoder.embedding.weight"]
    name = sorted(vocabulary)[5]
    assert len(table.names) == len(vocabulary)  # this file lacks the special tokens
    np.testing.assert_array_equal(vector(table, name), held[vocabulary[name]].numpy())


def test_geneformer(fixtures):
    from safetensors.torch import load_file

    folder = fixtures / "geneformer_scgpt/geneformer/hf_repo"
    table = read("geneformer", "geneformer_v1", folder, model_dir="Geneformer-V1-tiny")
    held = load_file(folder / "Geneformer-V1-tiny/model.safetensors")["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(table.vectors, held[2:].numpy())  # <pad> and <mask> are tokens 0 and 1
    assert all(name.startswith("ENSG") for name in table.names)


def test_tahoe(fixtures):
    folder = next((fixtures / "tahoe_x1/hf_repo").glob("*/vocab.json")).parent
    table = read("tahoe_x1", "tahoe_x1_70m", folder)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    name = next(gene for gene in vocabulary if gene.startswith("ENSG"))
    from safetensors.torch import load_file

    held = {key.removeprefix("model."): value for key, value in load_file(folder / "model.safetensors").items()}
    expected = held["gene_encoder.embedding.weight"][vocabulary[name]].float().numpy()
    np.testing.assert_array_equal(vector(table, name), expected)
    assert not any(name.startswith("<") for name in table.names)


def test_scfoundation(fixtures):
    table = read("scfoundation", "scfoundation", fixtures / "scfoundation")
    held = torch.load(fixtures / "scfoundation/models/models.ckpt", weights_only=True)["cell"]["state_dict"]
    expected = held["model.pos_emb.weight" if "model.pos_emb.weight" in held else "pos_emb.weight"]
    np.testing.assert_array_equal(table.vectors, expected[: len(table.names)].numpy())
    assert len(expected) == len(table.names) + 3


def test_nicheformer(fixtures):
    table = read("nicheformer", "nicheformer", fixtures / "nicheformer")
    ids = ad.read_h5ad(fixtures / "nicheformer/model_means/model.h5ad").var_names.tolist()
    state = torch.load(fixtures / "nicheformer/nicheformer.ckpt", weights_only=True)["state_dict"]
    name = next(gene for gene in ids if gene.startswith("ENSG"))
    np.testing.assert_array_equal(vector(table, name), state["embeddings.weight"][30 + ids.index(name)].numpy())


def test_scconcept(fixtures):
    folder = fixtures / "scconcept/hf_repo"
    table = read("scconcept", "scconcept_30m", folder, model_dir="corpus-tiny-human")
    assert all(name.startswith("ENSG") for name in table.names)
    assert table.vectors.std() > 0


def test_cellplm(fixtures):
    folder = fixtures / "uce_cellplm/cellplm"
    path = sorted(folder.glob("*.config.json"))[0]
    prefix = path.name.removesuffix(".config.json")
    table = read("cellplm", "cellplm", folder, checkpoint=prefix)
    assert table.names.tolist() == json.loads(path.read_text())["gene_list"]
    state = torch.load(folder / f"{prefix}.best.ckpt", weights_only=True)["model_state_dict"]
    np.testing.assert_array_equal(table.vectors, state["embedder.feat_enc.emb"].numpy())


def test_proteins_of_uce_transcriptformer_and_state(fixtures):
    """The protein vectors by symbol or id; UCE's rows of the checkpoint are those of its protein file."""
    uce = read("uce", "uce_4l", fixtures / "uce_cellplm/uce", model_file="tiny_model.torch")
    file = next((fixtures / "uce_cellplm/uce").rglob("Homo_sapiens*gene_symbol_to_embedding_ESM2.pt"))
    proteins = {name.upper(): found for name, found in torch.load(file, weights_only=True).items()}
    assert set(uce.names) == set(proteins)
    for name in list(proteins)[:3]:
        np.testing.assert_array_equal(vector(uce, name), proteins[name].float().numpy())
    former = read("transcriptformer", "transcriptformer_sapiens", fixtures / "transcriptformer/tf_sapiens")
    state = read("state", "state_se600m", fixtures / "state/SE-tiny")
    held = torch.load(fixtures / "state/SE-tiny/protein_embeddings.pt", weights_only=True)
    for name in list(held)[:3]:
        np.testing.assert_array_equal(vector(state, name), held[name].float().numpy())
    with h5py.File(fixtures / "transcriptformer/tf_sapiens/vocabs/homo_sapiens_gene.h5") as table:
        assert set(former.names) == {name for name in table["keys"].asstr()[:] if name.startswith("ENSG")}
    assert {uce.kind, former.kind, state.kind} == {PROTEINS}


def test_ids_become_symbols_and_a_gene_counts_once(tmp_path):
    path = tmp_path / "vectors.csv"
    path.write_text("gene,a,b\nENSG00000141510,1,2\nTP53,3,4\nmyc,5,6\n")
    table = read_gene_table("gene_vectors", options("gene_vectors", path))
    assert table.names.tolist() == ["MYC", "TP53"]
    np.testing.assert_array_equal(table.vectors, [[5, 6], [1, 2]])


def test_names_of_another_number_of_genes_are_refused(fixtures, tmp_path):
    """Each family's list of genes cut by one: its vectors would then be those of other genes, or there would be none."""
    families = {
        "scgpt": ("scgpt", "geneformer_scgpt/scgpt/scGPT_tiny_plain", "vocab.json"),
        "tahoe_x1": ("tahoe_x1_70m", "tahoe_x1/hf_repo/70m-model", "model_config.yml"),
        "scconcept": ("scconcept_30m", "scconcept/hf_repo/corpus-tiny-human", "gene_mappings/hsapiens.csv"),
        "nicheformer": ("nicheformer", "nicheformer", "model_means/model.h5ad"),
        "transcriptformer": ("transcriptformer_sapiens", "transcriptformer/tf_sapiens", "config.json"),
        "uce": ("uce_4l", "uce_cellplm/uce", "species_offsets.pkl"),
    }
    for model, (variant, source, file) in families.items():
        place = tmp_path / model
        shutil.copytree(fixtures / source, place, copy_function=shutil.copyfile)
        for path in [place, *place.rglob("*")]:
            path.chmod(0o755)
        assert len(read(model, variant, place, **{"model_file": "nicheformer.ckpt"} if model == "nicheformer" else {}).names)
        cut(place / file)
        with pytest.raises(UserError, match=r"(gene vectors, and its files name another number of genes).*plumb fetch"):
            read(model, variant, place, **{"model_file": "nicheformer.ckpt"} if model == "nicheformer" else {})


def cut(file: Path) -> None:
    """Take one gene, or name, away from a file, or move its genes behind the table's end."""
    if file.suffix == ".h5ad":
        names = ad.read_h5ad(file).var_names.tolist()[1:]
        ad.AnnData(np.zeros((1, len(names))), var=pd.DataFrame(index=names)).write_h5ad(file)
    elif file.suffix == ".csv":
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    elif file.suffix == ".pkl":
        file.write_bytes(pickle.dumps({name: 10_000 for name in pickle.loads(file.read_bytes())}))
    elif file.suffix == ".yml":
        file.write_text(file.read_text().replace("vocab_size: 512", "vocab_size: 511"))
    elif file.name == "config.json":
        file.write_text(file.read_text().replace('"[MASK]"', '"[CELL]"'))
    else:
        vocabulary = json.loads(file.read_text())
        file.write_text(json.dumps({name: number for name, number in vocabulary.items() if number < len(vocabulary) - 1}))


def test_what_has_no_table_says_so(tmp_path):
    with pytest.raises(NotApplicable, match="scimilarity holds no table"):
        read_gene_table("scimilarity", options("scimilarity", tmp_path))
    torch.save({"other": torch.zeros(2, 2)}, tmp_path / "best_model.pt")
    (tmp_path / "vocab.json").write_text('{"TP53": 0}')
    (tmp_path / "args.json").write_text("{}")
    with pytest.raises(UserError, match=r"no table encoder\.embedding\.weight"):
        read_gene_table("scgpt", options("scgpt", tmp_path))
