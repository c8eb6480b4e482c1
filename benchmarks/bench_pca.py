#!/usr/bin/env python3
"""PCA of plumbline compared with scanpy and scikit-learn: CPU seconds, peak memory, residual and captured variance, in one run.

Every method runs in a process of its own on the same simulated counts file, log-normalises it, and computes the scores of
all cells. Ratios are to plumbline: above 1, plumbline is faster or smaller. ``python benchmarks/bench_pca.py --quick``
The residual is the largest of |C v - w v| / w_k over the k components, in float64 where the method gives its components
(plumbline states it in the provenance). Results of one thread: benchmarks/pca.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
METHODS = ("plumbline", "scanpy", "scanpy_covariance", "truncated_svd", "incremental_pca")


def simulate(path: Path, n_cells: int, n_genes: int, density: float, seed: int = 0) -> None:
    """Write Poisson counts of 40 factors with about ``density`` non-zeros as a CSR h5ad, block by block."""
    import h5py
    import numpy as np
    import scipy.sparse as sp

    rng = np.random.default_rng(seed)
    level = rng.gamma(0.4, 1.0, n_genes)
    level *= 1.5 * density / level.mean()
    factors = rng.normal(0, 0.25, (40, n_genes)) * (rng.random((40, n_genes)) < 0.1)
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]})
        data = x.create_dataset("data", (0,), np.float32, maxshape=(None,), chunks=(1 << 18,))
        indices = x.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(1 << 18,))
        indptr = [np.zeros(1, np.int64)]
        for start in range(0, n_cells, 2000):
            n = min(2000, n_cells - start)
            rate = level * np.exp(rng.normal(size=(n, 40)) @ factors) * rng.gamma(5, 0.2, (n, 1))
            block = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
            indptr.append(indptr[-1][-1] + block.indptr[1:])
            for dataset, values in ((data, block.data), (indices, block.indices)):
                dataset.resize((int(indptr[-1][-1]),))
                dataset[int(indptr[-2][-1]) :] = values
        x["indptr"] = np.concatenate(indptr).astype(np.int32)  # scanpy wants both index arrays of one type
        for name, size, letter in (("obs", n_cells, "c"), ("var", n_genes, "g")):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            group.attrs["column-order"] = np.zeros(0, "S1")
            group["_index"] = np.array([f"{letter}{i}" for i in range(size)], dtype=h5py.string_dtype())
            group["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def plumbline(path: Path, k: int, threads: int):
    """Our streaming PCA, as bin/embed_pca.py runs it."""
    from plumbline.counts.reading import open_counts
    from plumbline.embedding.options import Options
    from plumbline.models.pca import pca

    told = Options(
        variant="pca",
        weights=None,
        tables=None,
        fit_on="all",
        seed=42,
        device="cpu",
        batch_size=0,
        threads=threads,
        settings={"n_components": str(k)},
    )
    result = pca.embed(open_counts(path), told)
    return result.values, lambda: result.extra["residual"]


def scanpy(path: Path, k: int, _threads: int, solver: str = "arpack"):
    """scanpy.pp.pca of the sparse matrix, centred implicitly (randomized falls back to arpack on a sparse matrix)."""
    import scanpy as sc

    data = _lognormalised(path)
    sc.pp.pca(data, n_comps=k, svd_solver=solver)
    return data.obsm["X_pca"], lambda: residual(data.X, data.varm["PCs"])


def scanpy_covariance(path: Path, k: int, threads: int):
    """The same through scikit-learn's covariance_eigh: the covariance as a dense matrix, all its eigenvectors by LAPACK."""
    return scanpy(path, k, threads, "covariance_eigh")


def truncated_svd(path: Path, k: int, _threads: int):
    """scikit-learn's TruncatedSVD (randomised, not centred: another result than PCA)."""
    from sklearn.decomposition import TruncatedSVD

    return TruncatedSVD(k, random_state=0).fit_transform(_lognormalised(path).X), lambda: float("nan")


def incremental_pca(path: Path, k: int, _threads: int):
    """scikit-learn's IncrementalPCA on dense blocks of 2,048 cells."""
    from sklearn.decomposition import IncrementalPCA

    fitted = IncrementalPCA(k, batch_size=2048)
    data = _lognormalised(path).X
    return fitted.fit_transform(data), lambda: residual(data, fitted.components_.T)


def residual(matrix, components) -> float:
    """The largest |C v - w v| over the columns v of ``components`` (genes, k), relative to the smallest w; C the covariance."""
    import numpy as np

    vectors, mean = components.astype(np.float64), np.asarray(matrix.mean(axis=0, dtype=np.float64)).ravel()
    scores = matrix @ vectors - mean @ vectors
    images = matrix.T @ scores - np.outer(mean, scores.sum(axis=0))
    values = (vectors * images).sum(axis=0)
    return float(np.linalg.norm(images - vectors * values, axis=0).max() / values.min())


def _lognormalised(path: Path):
    import anndata as ad
    import scanpy as sc

    data = ad.read_h5ad(path)
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    return data


def measure(method: str, path: Path, k: int, threads: int) -> None:
    """Run one method and print its numbers as JSON. Imports and compilation count: they are part of every run."""
    import numpy as np

    scores, find_residual = globals()[method](path, k, threads)
    used = resource.getrusage(resource.RUSAGE_SELF)
    variance = float(np.asarray(scores, dtype=np.float64).var(axis=0, ddof=1).sum())
    numbers = {"seconds": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e6, "variance": variance}
    print(json.dumps(numbers | {"residual": float(find_residual())}))


def compare(path: Path, methods: list[str], k: int, threads: int) -> None:
    """One process a method; a line of the table for each."""
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    print("method\tCPU_seconds\tpeak_GB\tresidual\tvariance\tslower_than_plumbline\tlarger_than_plumbline\tvariance_ratio")
    ours = None
    for method in methods:
        command = [sys.executable, __file__, "--measure", method, "--file", str(path), "-k", str(k), "--threads", str(threads)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{method}\tfailed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", flush=True)
            continue
        got = json.loads(done.stdout.strip().splitlines()[-1])
        ours = ours or got
        ratios = [got[name] / ours[name] for name in ("seconds", "peak", "variance")]
        cells = [f"{got['seconds']:.1f}", f"{got['peak']:.2f}", f"{got['residual']:.0e}", f"{got['variance']:.4f}"]
        cells += [f"{ratio:.2f}" for ratio in ratios[:2]]
        print("\t".join([method, *cells, f"{ratios[2]:.6f}"]), flush=True)


def main() -> None:
    """Parse, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("-k", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--methods", default=",".join(METHODS), help="plumbline must come first")
    parser.add_argument("--quick", action="store_true", help="5,000 cells, 2,000 genes, 50 components")
    parser.add_argument("--measure", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help="an h5ad of counts to use instead of the simulated one")
    a = parser.parse_args()
    if a.measure:
        measure(a.measure, a.file, a.k, a.threads)
        return
    if a.quick:
        a.cells, a.genes, a.k = 5_000, 2_000, 50
    with tempfile.TemporaryDirectory() as folder:
        path = a.file or Path(folder) / "counts.h5ad"
        if a.file is None:
            simulate(path, a.cells, a.genes, a.density)
        compare(path, a.methods.split(","), a.k, a.threads)


if __name__ == "__main__":
    main()
