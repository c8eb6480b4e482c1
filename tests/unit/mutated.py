"""Mutations of files, and what becomes of each: for the tests of this folder and for benchmarks/robustness.py.

A case is a file, and a function that reads it as the pipeline does and returns a digest of what it read.
"""

import hashlib
import os
import signal
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from made_input import screen
from test_ingest import BARCODES, write_10x_h5, write_10x_mtx

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts import hdf5
from plumbline.counts.reading import open_counts
from plumbline.data.ingest import open_source
from plumbline.embedding.contract import read_embedding, write_embedding
from plumbline.embedding.options import Options

OUTCOMES = ("refused", "the same", "different", "traceback", "crash", "hang")
LIMIT = 60  # seconds until a file counts as one that hangs


@dataclass(frozen=True)
class Case:
    """path: the file to mutate. read: reads it, returns bytes that any change of what was read would change.

    patience: seconds of processor time, far more than reading takes.
    """

    path: Path
    read: Callable[[], bytes]
    patience: float = 0.1


def put(where: object, value: object) -> Callable[[np.ndarray], np.ndarray]:
    """A change of an array: ``value`` at ``where``."""

    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[where] = value
        return values

    return change


MUTATIONS = {
    "flipped": lambda whole, rng: put(rng.integers(0, len(whole), 4), rng.integers(256, size=4))(whole),
    "zeroed": lambda whole, rng: put(slice(place := int(rng.integers(len(whole))), place + 64), 0)(whole),
    "cut": lambda whole, rng: whole[: rng.integers(1, len(whole))],
}


def mutated(whole: np.ndarray, number: int, seed: int) -> bytes:
    """The ``number``th mutation of a file; the kinds take turns."""
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    return MUTATIONS[kind](whole, np.random.default_rng([seed, number])).tobytes()


def outcomes(case: Case, numbers: range, seed: int, guarded: bool = False) -> Counter:
    """What becomes of mutations of a case's file, which is whole again at the end: how often each of OUTCOMES.

    Read in one process for all of them, as starting one takes longer than reading the file, and without the guard of
    ``open_hdf5`` (a process per file, too). Where a file ends that process or keeps it busy, as damaged HDF5 can, the file is
    read again with the guard, which must refuse it, and the next process goes on behind it. guarded: each with the guard.
    """
    whole, expected = np.frombuffer(case.path.read_bytes(), np.uint8), case.read()
    found: Counter = Counter()
    try:
        while numbers:
            ended = [] if guarded else _read_unguarded(case, expected, whole, numbers, seed)
            found.update(ended)
            numbers = numbers[len(ended) :]
            if numbers:
                case.path.write_bytes(mutated(whole, numbers[0], seed))
                found[_read_guarded(case, expected)] += 1
                numbers = numbers[1:]
    finally:
        case.path.write_bytes(whole.tobytes())
    return found


def _read_unguarded(case: Case, expected: bytes, whole: np.ndarray, numbers: range, seed: int) -> list[str]:
    """Outcomes of the first ``numbers``: of all, or until one ends the process."""
    result, written = os.pipe()
    child = os.fork()
    if not child:
        hdf5._try = lambda path: None
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends a process in the middle of a library's loop
        for number in numbers:
            case.path.write_bytes(mutated(whole, number, seed))
            signal.setitimer(signal.ITIMER_PROF, case.patience)
            os.write(written, bytes([OUTCOMES.index(_outcome(case, expected))]))
        os._exit(0)
    os.close(written)
    with open(result, "rb") as stream:
        codes = stream.read()
    os.waitpid(child, 0)
    return [OUTCOMES[code] for code in codes]


def _read_guarded(case: Case, expected: bytes) -> str:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT)
        os._exit(OUTCOMES.index(_outcome(case, expected)))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return OUTCOMES[code] if code >= 0 else "hang" if -code == signal.SIGALRM else "crash"


def _outcome(case: Case, expected: bytes) -> str:
    try:
        return "the same" if case.read() == expected else "different"
    except (UserError, NotApplicable):
        return "refused"
    except BaseException:
        traceback.print_exc(limit=-4)
        return "traceback"


def digest(*parts: object) -> bytes:
    """Of arrays (NaN equals NaN, as the bytes do) and texts."""
    joined = hashlib.sha256()
    for part in parts:
        array = np.asarray(part)
        joined.update(str((array.shape, array.dtype.kind)).encode())
        joined.update(array.astype(str).tobytes() if array.dtype.kind in "OUS" else np.ascontiguousarray(array).tobytes())
    return joined.digest()


# --- the formats


def _cells(open_it: Callable, *columns: str) -> Callable[[], bytes]:
    def read() -> bytes:
        source = open_it()
        values = [block.toarray() for _, block in source.blocks()]
        return digest(source.cell_id, np.vstack(values), *(source.column(name, "") for name in columns))

    return read


def h5ad(folder: Path, **compressed: str) -> Case:
    """A user's h5ad."""
    screen().write_h5ad(folder / "x.h5ad", **compressed)
    return Case(folder / "x.h5ad", _cells(lambda: open_source(folder / "x.h5ad"), "gene", "batch"))


def _counts() -> sp.csr_matrix:
    return sp.csr_matrix(np.eye(30, 12, dtype=np.int32))


def tenx_h5(folder: Path) -> Case:
    """A 10x h5."""
    path = write_10x_h5(folder / "x.h5", _counts(), 3)
    return Case(path, _cells(lambda: open_source(path)))


def archive(folder: Path) -> Case:
    """An archive of a 10x folder."""
    write_10x_mtx(folder / "10x", _counts(), 3)
    with zipfile.ZipFile(folder / "x.zip", "w") as target:
        for file in sorted((folder / "10x").iterdir()):
            target.write(file, file.name)
    return Case(folder / "x.zip", _cells(lambda: open_source(folder / "x.zip")))


def text_matrix(folder: Path) -> Case:
    """A matrix of a 10x folder."""
    path = write_10x_mtx(folder / "10x", _counts(), 2) / "matrix.mtx"
    return Case(path, _cells(lambda: open_source(path.parent)))


def cell_table(folder: Path, name: str = "c.csv") -> Case:
    """A table of cells beside a 10x folder."""
    counts = write_10x_mtx(folder / "10x", _counts(), 2)
    table = pd.DataFrame({"cell": BARCODES, "guide": [f"g{n}" for n in range(30)]})
    table.to_parquet(folder / name) if name.endswith("parquet") else table.to_csv(folder / name, index=False)
    return Case(folder / name, _cells(lambda: open_source(counts, cells=folder / name), "guide"))


def embedding(folder: Path) -> Case:
    """An embedding of the user's."""
    path = folder / "e.npz"
    write_embedding(path, [f"c{n}" for n in range(40)], np.random.default_rng(0).normal(size=(40, 8)), {})

    def read() -> bytes:
        found = read_embedding(path)
        return digest(found.cell_id, found.values)

    return Case(path, read)


def prepared(folder: Path) -> Case:
    """The counts that PREPARE wrote."""
    from plumbline.counts.writing import CsrWriter

    path, rng = folder / "counts.h5ad", np.random.default_rng(0)
    with CsrWriter(path, 50) as writer:
        writer.append(sp.csr_matrix(rng.poisson(0.4, (80, 50)).astype(np.float32)))
        names = np.array([f"g{n}" for n in range(50)])
        writer.finish(
            np.array([f"c{n}" for n in range(80)]), {"batch": ["a"] * 80}, names, {"ensembl_id": names, "symbol": names}
        )

    def read() -> bytes:
        counts = open_counts(path)
        return digest(counts.cell_id, counts.symbol, np.vstack([block.toarray() for _, block in counts.blocks()]))

    return Case(path, read)


FORMATS = {
    "h5ad": h5ad,
    "h5ad, gzip": lambda folder: h5ad(folder, compression="gzip"),
    "10x h5": tenx_h5,
    "10x zip": archive,
    "mtx": text_matrix,
    "csv": cell_table,
    "csv.gz": lambda folder: cell_table(folder, "c.csv.gz"),
    "parquet": lambda folder: cell_table(folder, "c.parquet"),
    "embedding.npz": embedding,
    "counts.h5ad of PREPARE": prepared,
}


# --- checkpoints, in the authors' formats: those that the untrained models make

MODELS = ("cellplm", "geneformer", "nicheformer", "scconcept", "scfoundation", "scgpt", "scimilarity", "state", "tahoe_x1",
          "transcriptformer", "uce")  # fmt: skip


def checkpoints(model: str, folder: Path) -> list[Case]:
    """Every file of a tiny checkpoint of ``model``, and the embedding that the ordinary code makes with it."""
    from importlib import import_module

    script, make = import_module(f"embed_{model}"), import_module(f"plumbline.models.{model}.untrained").make_checkpoint
    screen().write_h5ad(folder / "counts.h5ad")
    counts = open_counts(prepared_screen(folder))
    weights = folder / "weights"
    weights.mkdir()
    options = Options(variant=f"{model}_untrained", weights=None, tables=None, fit_on="none", seed=1, device="cpu",
                      batch_size=8, threads=1, settings={})  # fmt: skip
    make(weights, counts, options)
    own = {"weights": weights, "settings": {"checkpoint": "own"}}

    def read() -> bytes:
        return digest(script.embed(counts, Options(**{**vars(options), **own})).values)

    return [Case(path, read, 1.0) for path in sorted(weights.rglob("*")) if path.is_file()]


def prepared_screen(folder: Path) -> Path:
    """One cell, as what is tried is the reading of checkpoints, of a few genes with both names, as PREPARE writes them."""
    from plumbline.counts.writing import CsrWriter

    x = np.random.default_rng(0).poisson(1.0, (1, 30)).astype(np.float32)
    with CsrWriter(folder / "prepared.h5ad", 30) as writer:
        writer.append(sp.csr_matrix(x))
        var = {"ensembl_id": [f"ENSG{7 * g:011d}" for g in range(30)], "symbol": [f"Gene{g}" for g in range(30)]}
        writer.finish(np.array(["c0"]), {"batch": ["a"]}, np.array([f"g{g}" for g in range(30)]), var)
    return folder / "prepared.h5ad"


def made(make: Callable[[Path], Case | list[Case]]) -> tuple[tempfile.TemporaryDirectory, Case | list[Case]]:
    """A case, or several, in a folder of its own, which lasts as long as the first of the two is kept."""
    memory = Path("/dev/shm")  # a disk takes longer to write a file again and again than it takes to read it
    place = tempfile.TemporaryDirectory(prefix="plumbline_", dir=memory if os.access(memory, os.W_OK) else None)
    return place, make(Path(place.name))
