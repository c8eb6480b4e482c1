"""The conformance kit passes the models there are, and finds the faults it is made to find."""

import io
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.embedding.conformance import kit as conformance_kit
from plumbline.embedding.conformance import rules as conformance
from plumbline.embedding.conformance.cells import first_cells, generated
from plumbline.embedding.variants import read_variants

HONEST = """
import hashlib
import numpy as np
from plumbline.embedding.options import Result
from plumbline.models.command import run

def row(counts, cell, values):  # what a cell's embedding is made of
    return values[:8] + values[8:16] * 0.5

def embed(counts, options):
    out = np.empty((len(counts.cell_id), 8), dtype=np.float32)
    wanted = np.argsort([symbol if symbol.startswith(("UNKNOWN", "SILENT")) else "" for symbol in counts.symbol], kind="stable")
    for rows, block in counts.blocks():
        for place, cell in enumerate(rows):
            out[cell] = row(counts, cell, np.log1p(block[place].toarray()[0][wanted]))
    FAULT
    return Result(values=out, genes_used=counts.shape[1], genes_total=counts.shape[1])

run("fake", embed)
"""
FAULTS = {
    "": set(),
    "out = out[::-1].copy()": {"row_order", "shards", "empty_cells", "one_cell", "duplicate_cells"},
    "out += np.random.default_rng().random(out.shape, dtype=np.float32)": {
        "determinism", "row_order", "batch_size", "shards", "duplicate_cells", "empty_cells", "one_cell"
    },
    "out += np.arange(len(out), dtype=np.float32)[:, None]": {"row_order", "shards", "duplicate_cells", "one_cell"},
    "out = out - out.mean(0)": {"shards", "empty_cells", "one_cell"},
    "out += options.batch_size": {"batch_size"},
    "out = out[out.any(1)]": {"empty_cells"},
    "out = out if len(out) > 1 else out[:0]": {"one_cell"},
    "out[out.sum(1) == 0] = np.nan": {"empty_cells"},
}  # fmt: skip


def inside(command: list[str]) -> tuple[int, str]:
    """Run a script in this process: no second Python to start."""
    stderr, before = io.StringIO(), sys.argv
    sys.argv = command
    try:
        with redirect_stderr(stderr):
            runpy.run_path(command[0], run_name="__main__")
        return 0, stderr.getvalue()
    except SystemExit as end:
        return int(end.code or 0), stderr.getvalue()
    except Exception as error:
        return 1, f"{stderr.getvalue()}\nTraceback\n{error!r}"
    finally:
        sys.argv = before


@pytest.fixture
def kit(root: Path, tmp_path: Path) -> Callable[..., conformance_kit.Kit]:
    def make(model: str, *arguments: str, **more: object) -> conformance_kit.Kit:
        script = Path(model) if model.endswith(".py") else root / "bin" / f"embed_{model}.py"
        told = ["--device", "cpu", "--threads", "1", *arguments]
        return conformance_kit.Kit(script, told, generated(), tmp_path / "runs", launch=inside, memory_cells=0, **more)

    return make


def failed(verdicts: dict[str, conformance_kit.Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict.status == "FAIL"}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_finds_each_fault(kit: Callable, tmp_path: Path, fault: str) -> None:
    script = tmp_path / "fake.py"
    script.write_text(HONEST.replace("FAULT", fault or "pass"))
    assert failed(conformance.check(kit(str(script)))) == FAULTS[fault]


def test_a_script_of_ones_own_finds_plumbline_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "mine.py").write_text(HONEST.replace("FAULT", "pass"))
    code, stderr = conformance_kit.launch([str(tmp_path / "mine.py"), "--help"])
    assert (code, stderr) == (0, "")


@pytest.mark.parametrize(("model", "arguments", "fitted"), [
    ("pca", ["--fit-on", "all", "--set", "n_components=8"], True),
    ("expression", ["--fit-on", "all"], True),
    ("reference", ["--fit-on", "none"], False),
    ("reference", ["--fit-on", "none", "--set", "kind=label_oracle"], False),
    ("reference", ["--fit-on", "none", "--set", "kind=no_effect"], False),
])  # fmt: skip
def test_models_without_weights(kit: Callable, model: str, arguments: list[str], fitted: bool) -> None:
    verdicts = conformance.check(kit(model, *arguments, fitted=fitted))
    assert not failed(verdicts), conformance.as_table(verdicts)
    assert verdicts["shards"].status in (("recorded",) if fitted else ("pass",))


def test_gene_vectors(kit: Callable, tmp_path: Path) -> None:
    genes = generated().symbol
    np.savez(tmp_path / "v.npz", gene=genes, vector=np.random.default_rng(0).standard_normal((len(genes), 6)))
    verdicts = conformance.check(kit("gene_vectors", "--weights", str(tmp_path / "v.npz")))
    assert not failed(verdicts), conformance.as_table(verdicts)
    assert verdicts["unknown_genes"].status == "recorded"  # the library size


@pytest.mark.parametrize(("model", "variant", "recorded"), [
    ("uce", "uce_4l", {"duplicate_cells"}),
    ("cellplm", "cellplm", {"shards", "empty_cells", "one_cell"}),
    ("cellplm", "cellplm_gmvae", {"shards", "empty_cells", "one_cell"}),
])  # fmt: skip
def test_foundation_models(shared: Path, kit: Callable, model: str, variant: str, recorded: set[str]) -> None:
    pytest.importorskip("torch")
    weights = shared / "fixtures" / "uce_cellplm" / model
    verdicts = conformance.check(kit(model, "--weights", str(weights), "--variant", variant))
    assert not failed(verdicts), conformance.as_table(verdicts)
    assert {name for name, verdict in verdicts.items() if verdict.status == "recorded"} == recorded
    assert verdicts["no_known_gene"].detail.startswith("not applicable")


@pytest.mark.parametrize(("variant", "weights"), [
    ("scfoundation_t4", "scfoundation/models"),
    ("scimilarity", "scimilarity/model_tiny"),
    ("tahoe_x1_70m", "tahoe_x1/hf_repo"),
    ("tahoe_x1_3b", "tahoe_x1/hf_repo"),
])  # fmt: skip
def test_foundation_models_in_which_a_cell_depends_on_nothing_but_its_counts(
    shared: Path, kit: Callable, variant: str, weights: str
) -> None:
    pytest.importorskip("torch")
    model = read_variants()[variant].model
    verdicts = conformance.check(kit(model, "--weights", str(shared / "fixtures" / weights), "--variant", variant))
    assert {name for name, verdict in verdicts.items() if verdict.status != "pass"} == {"memory_growth"}, conformance.as_table(
        verdicts
    )
    assert verdicts["memory_growth"].detail == "switched off"


def test_memory_growth_is_found(root: Path, tmp_path: Path) -> None:
    """A dense matrix of all cells is found in a process of its own; streaming passes."""
    for fault, status in (("pass", "pass"), ("kept = [b.toarray() + 1 for _, b in counts.blocks()]", "FAIL")):
        script = tmp_path / f"{status}.py"
        # the honest part, too, must not make a row as wide as the file
        lean = "out = np.zeros((len(counts.cell_id), 8), dtype=np.float32)"
        body = HONEST[HONEST.index("def embed") :].split("    FAULT")
        script.write_text(
            f"import sys; sys.path.insert(0, {str(root / 'bin')!r})\nimport numpy as np\n"
            "from plumbline.embedding.options import Result\nfrom plumbline.models.command import run\n"
            f"def embed(counts, options):\n    {lean}\n    {fault}{body[1]}"
        )
        kit = conformance_kit.Kit(script, ["--threads", "1"], generated(), tmp_path / status, memory_cells=256)
        assert conformance.memory_growth(kit).status == status


def test_command_line(root: Path, tmp_path: Path, kit: Callable) -> None:
    """Exit code 1 and a table for a script that fails; a hint for an unknown model."""
    script = tmp_path / "broken.py"
    script.write_text("import sys; sys.exit('no')")
    command = [sys.executable, str(root / "bin/check_model.py")]
    done = subprocess.run([*command, "mine", "--script", str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "output_contract  FAIL" in done.stdout
    done = subprocess.run([*command, "pcaa"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Did you mean 'pca'" in done.stderr
    done = subprocess.run([*command, "mine", "--script", str(tmp_path / "none.py")], capture_output=True, text=True)
    assert "no such file" in done.stderr


def test_cells_of_a_file_the_model_cannot_take(kit: Callable, tmp_path: Path) -> None:
    generated().only_unknown_genes().write(tmp_path / "file")
    cells = first_cells(tmp_path / "file" / "counts.h5ad")
    assert (cells.x[0] != cells.x[1]).nnz == 0
    np.savez(tmp_path / "v.npz", gene=["TP53"], vector=np.ones((1, 2)))
    made = kit("gene_vectors", "--weights", str(tmp_path / "v.npz"))
    made.cells = cells
    with pytest.raises(UserError, match="not applicable to these cells"):
        conformance.check(made)
