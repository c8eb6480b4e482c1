"""`plumb weights check`: right files pass; permuted, transposed and other ones do not, by the reference or by the markers."""

import csv
import io
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from plumbline.embedding.conformance import kit as conformance_kit
from plumbline.embedding.conformance import marker_cells as made
from plumbline.embedding.conformance import weights as rules
from plumbline.genes.names import TABLE

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

OUT = "bert.encoder.layer.1.attention.output.dense.weight"  # square: nothing but its values can tell that it lies on its side
WORDS = "bert.embeddings.word_embeddings.weight"


def run(script: Path, words: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a script in this process: no second Python to start."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [str(script), *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            runpy.run_path(str(script), run_name="__main__")
        return 0, out.getvalue(), err.getvalue()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before


@pytest.fixture
def check(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, dict[str, tuple[str, str]], str]]:
    """(exit code, {check: (status, text)}, stderr) of `plumb weights check`."""

    def inside(command: list[str]) -> tuple[int, str]:
        return run(Path(command[0]), [*command[1:], "--threads", "1"])[::2]

    assert rules.CHECKS  # imported before the class is replaced
    monkeypatch.setattr(conformance_kit, "Kit", partial(conformance_kit.Kit, launch=inside))

    def checked(variant: str, *words: str | Path) -> tuple[int, dict[str, tuple[str, str]], str]:
        told = ["check", variant, "--device", "cpu", *map(str, words)]
        code, out, err = run(root / "bin/check_weights.py", told)
        lines = (line.split(maxsplit=2) for line in out.splitlines()[2:-2])
        return code, {name: (status, text) for name, status, text in lines}, err

    return checked


@pytest.fixture(scope="module")
def geneformer(shared, tmp_path_factory) -> tuple[Path, list[str]]:
    """(a copy of the tiny V1, arguments that compare it with the output of the authors' code)."""
    import shutil

    source, place = shared / "fixtures/geneformer_scgpt", tmp_path_factory.mktemp("geneformer")
    shutil.copytree(source / "geneformer/hf_repo", place / "weights")
    cells = ad.read_h5ad(source / "counts.h5ad")
    kind = cells.var["kind"].to_numpy(dtype=str)
    keep = ~(cells.var["is_alias_dup"] | cells.var["is_exact_dup"]).to_numpy() & (kind != "versioned")
    # ids that plumbline does not read as upstream does: cells without them
    plain = np.asarray(cells[:, kind == "symbol_in_ensembl_col"].X.sum(axis=1)).ravel() == 0
    every = np.load(source / "geneformer/expected/v1_nodup_cell_layer-1.npy")
    plain &= np.isfinite(every).all(axis=1)
    expected = every[plain][:12]
    few = cells[plain, keep][:12].copy()
    few.write_h5ad(place / "counts.h5ad")
    np.savez(place / "reference.npz", cell_id=few.obs_names.to_numpy(dtype=str), embedding=expected)
    files = ["--counts", place / "counts.h5ad", "--reference", place / "reference.npz"]
    return place / "weights", [*files, "--set", "checkpoint=own", "--tolerance", "1e-5"]


def changed(source: Path, target: Path, change: Callable[[dict], dict]) -> Path:
    """A copy of the weights with other tensors in V1."""
    import shutil

    shutil.copytree(source, target)
    file = target / "Geneformer-V1-tiny/model.safetensors"
    safetensors.save_file({k: v.contiguous() for k, v in change(safetensors.load_file(file)).items()}, file)
    return target


def test_the_right_files_pass(check, geneformer):
    weights, words = geneformer
    code, found, _ = check("geneformer_v1", "--weights", weights, *words)
    assert code == 0
    assert {name: status for name, (status, _) in found.items()} == {
        "files": "note", "genes": "note", "output": "pass", "repeatable": "pass", "trained": "n/a", "reference": "pass"
    }  # fmt: skip
    assert "12 cells" in found["reference"][1]


@pytest.mark.parametrize("change", [
    lambda state: state | {OUT: state[OUT].T},
    lambda state: state | {WORDS: state[WORDS][torch.randperm(len(state[WORDS]), generator=torch.Generator().manual_seed(0))]},
    lambda state: state | {name: state[name.replace("query", "key")].clone() for name in state if "query" in name},
], ids=["transposed", "permuted", "queries for keys"])  # fmt: skip
def test_files_that_are_read_in_another_way_fail_by_the_reference(check, geneformer, tmp_path, change):
    code, found, _ = check("geneformer_v1", "--weights", changed(geneformer[0], tmp_path / "w", change), *geneformer[1])
    assert code == 1
    assert found["output"][0] == found["repeatable"][0] == "pass"  # nothing else can tell
    assert found["reference"][0] == "FAIL"
    assert "not as the authors' code reads them, or are other files" in found["reference"][1]


def test_another_checkpoint_fails(check, geneformer):
    weights, words = geneformer
    code, found, _ = check("geneformer_v1", "--weights", weights, *words, "--set", "model_dir=Geneformer-V2-tiny")
    assert (code, found["reference"][0]) == (1, "FAIL")
    code, found, _ = check("geneformer_v1", "--weights", weights, *(w for w in words if w != "checkpoint=own" and w != "--set"))
    assert (code, found["files"][0]) == (1, "FAIL")
    assert "model.safetensors has sha256" in found["files"][1]
    assert "published is a5e33a757431" in found["files"][1]


def test_a_damaged_file_fails_with_the_next_command(check, geneformer, tmp_path):
    def cut(state):
        return {name: tensor for name, tensor in state.items() if name != OUT}

    code, found, _ = check("geneformer_v1", "--weights", changed(geneformer[0], tmp_path / "w", cut), *geneformer[1])
    assert code == 1
    assert list(found) == ["files"]
    assert "1 missing: " in found["files"][1]
    assert "plumb fetch geneformer_v1" in found["files"][1]


# --- the bundled cells ---


def test_markers_are_genes_with_their_ids_and_cells_of_a_type_share_none():
    with open(TABLE, newline="") as stream:
        names = {row["ensembl"]: row["symbol"] for row in csv.DictReader(stream, delimiter="\t")}
    cells = made.marker_cells()
    assert all(names[gene] == symbol for gene, symbol in zip(cells.ensembl_id[-160:], cells.symbol[-160:], strict=True))
    markers = cells.x[:, made.N_BACKGROUND :]
    np.testing.assert_array_equal((markers > 0).sum(axis=1), 10)
    np.testing.assert_array_equal((markers > 0).sum(axis=0), 1)
    assert len(set(cells.ensembl_id)) == len(cells.ensembl_id) == made.N_BACKGROUND + 160


def test_pairing_by_hand():
    rng = np.random.default_rng(0)
    kinds, noise = rng.normal(size=(8, 20)), 0.1 * rng.normal(size=(16, 20))
    pairs, p = made.pairing(np.repeat(kinds, 2, axis=0) + noise)
    assert (pairs, p) == (8, 1 / 40320)  # the true pairs alone
    shifted = np.stack([kinds, np.roll(kinds, 1, axis=0)], axis=1).reshape(16, 20)
    pairs, p = made.pairing(shifted + noise)
    assert pairs == 0
    assert p > 0.2


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A Geneformer whose vectors of a type's markers are alike, as training makes them."""
    from plumbline.models.geneformer.untrained import TINY, write_checkpoint

    place, cells = tmp_path_factory.mktemp("planted"), made.marker_cells()
    folder = place / "Geneformer-V1-tiny"
    folder.mkdir()
    write_checkpoint(folder, list(cells.ensembl_id), 0, TINY)
    state = safetensors.load_file(folder / "model.safetensors")
    first = 2 + made.N_BACKGROUND  # behind the specials
    state[WORDS][first:] += 0.05 * torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).repeat_interleave(20, dim=0)
    safetensors.save_file(state, folder / "model.safetensors")
    return place


def test_a_trained_model_pairs_the_bundled_cells_and_permuted_gene_vectors_do_not(check, planted, tmp_path):
    own = ["--set", "checkpoint=own"]
    code, found, _ = check("geneformer_v1", "--weights", planted, *own)
    assert (code, found["trained"][0], found["genes"][0]) == (0, "pass", "pass")
    assert found["trained"][1].startswith("8 of 8 cell types paired without a shared marker (p = 2.5e-05; untrained network: ")
    assert found["reference"][0] == "n/a"
    assert "no output of the authors' code is published for geneformer_v1" in found["reference"][1]

    def permuted(state):
        rows = torch.cat(
            [torch.arange(2), 2 + torch.randperm(len(state[WORDS]) - 2, generator=torch.Generator().manual_seed(1))]
        )
        return state | {WORDS: state[WORDS][rows]}

    code, found, _ = check("geneformer_v1", "--weights", changed(planted, tmp_path / "w", permuted), *own)
    assert (code, found["trained"][0]) == (0, "doubt")
    assert "as random, permuted or misread gene vectors are" in found["trained"][1]


def test_a_dictionary_of_other_genes_fails(check, geneformer):
    code, found, _ = check("geneformer_v1", "--weights", geneformer[0], "--set", "checkpoint=own")
    assert (code, found["genes"][0]) == (1, "FAIL")
    assert "its dictionary is another one" in found["genes"][1]


def test_what_cannot_be_checked_is_refused(check, tmp_path):
    for words, message in (
        (["pca"], "pca has no weights to check"),
        (["scgptt"], "Did you mean 'scgpt'"),
        (["scgpt", "--reference", "x.npz"], "--reference needs --counts"),
        (["scgpt", "--weights", tmp_path / "none"], r"no such folder. Fetch the files (./plumb fetch scgpt --output"),
    ):
        code, found, err = check(*words)
        assert (code, found) == (1, {})
        assert message in err
