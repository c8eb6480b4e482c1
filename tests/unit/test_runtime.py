"""How models are run: batches, padding, memory, order, shards, progress. The model here is arithmetic, so it can be checked."""

import errno
import importlib
import os
import sys
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from plumbline.common.errors import OUT_OF_MEMORY, UserError, run_script
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options
from plumbline.models.runtime import batches, devices, rows
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.runtime.progress import Progress

torch = pytest.importorskip("torch")

N_CELLS, N_GENES = 50, 12


class Sums:
    """Embeds a cell as (number of its tokens, sum of token ids, sum of values); the last gene is unknown to it."""

    dimension, fills, max_length, bytes_per_token, sort = 3, (999, -999.0), N_GENES, 4, True

    def __init__(self, device: str, fits: int = 10**9, seen: list | None = None, order: str = "length") -> None:
        self.known = np.arange(N_GENES) < N_GENES - 1
        self.fits, self.seen, self.sort = fits, seen if seen is not None else [], order == "length"

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        genes = block[:, self.known].tocsr()
        return Ragged(np.diff(genes.indptr).astype(np.int64), (genes.indices.astype(np.int32), genes.data))

    def forward(self, length, tokens, values):
        if tokens.numel() > self.fits:
            raise torch.cuda.OutOfMemoryError("no room")
        self.seen.append(tuple(tokens.shape))
        inside = torch.arange(tokens.shape[1]) < length[:, None]
        assert bool((tokens[~inside] == 999).all())
        assert bool((values[~inside] == -999).all())
        return torch.stack([length, (tokens * inside).sum(1), (values * inside).sum(1)], dim=1)


@pytest.fixture(scope="module")
def counts(tmp_path_factory) -> Counts:
    rng = np.random.default_rng(0)
    matrix = rng.poisson(rng.uniform(0.1, 2, (N_CELLS, 1)), (N_CELLS, N_GENES)).astype(np.float32)
    matrix[7] = 0
    matrix[8, :-1], matrix[8, -1] = 0, 3  # only a gene nobody knows
    path = tmp_path_factory.mktemp("runtime") / "counts.h5ad"
    names = [f"g{column}" for column in range(N_GENES)]
    obs, var = pd.DataFrame(index=[f"c{row}" for row in range(N_CELLS)]), pd.DataFrame(index=names)
    ad.AnnData(sp.csr_matrix(matrix), obs=obs, var=var).write_h5ad(path)
    return open_counts(path)


@pytest.fixture(scope="module")
def expected(counts) -> np.ndarray:
    matrix = next(counts.blocks())[1].toarray()[:, :-1]
    values = np.stack([(matrix > 0).sum(1), ((matrix > 0) * np.arange(N_GENES - 1)).sum(1), matrix.sum(1)], axis=1).astype(
        float
    )
    values[values[:, 0] == 0] = np.nan
    assert np.isnan(values).all(axis=1).sum() >= 2
    return values


def options(batch_size: int = 0, device: str = "cpu", **settings: str) -> Options:
    return Options(
        variant="v",
        weights=None,
        tables=None,
        fit_on="all",
        seed=1,
        device=device,
        batch_size=batch_size,
        threads=1,
        settings=settings,
    )


def test_values_come_back_in_the_order_of_the_cells_with_their_coverage(counts, expected) -> None:
    done = embed_cells(counts, options(), Sums)
    np.testing.assert_allclose(done.values, expected)
    matrix = next(counts.blocks())[1].toarray()
    assert done.counts_used == pytest.approx(matrix[:, :-1].sum() / matrix.sum())
    assert done.unembedded == np.isnan(expected).all(axis=1).sum()
    assert done.extra["precision"] == "float32"


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_batch_size_is_a_limit_and_changes_nothing(counts, expected, batch_size: int) -> None:
    seen: list = []
    done = embed_cells(counts, options(batch_size), partial(Sums, seen=seen))
    np.testing.assert_allclose(done.values, expected)
    assert max(shape[0] for shape in seen) == min(batch_size, N_CELLS - done.unembedded)


def test_batches_hold_cells_of_similar_length_and_respect_the_budget(counts, expected, monkeypatch) -> None:
    monkeypatch.setattr(batches, "CPU_TOKENS", 30)
    seen: list = []
    embed_cells(counts, options(), partial(Sums, seen=seen))
    assert all(cells * tokens <= 30 for cells, tokens in seen)
    padded, real = sum(cells * tokens for cells, tokens in seen), np.nansum(expected[:, 0])
    assert padded < 1.2 * real
    assert [tokens for _, tokens in seen] == sorted((tokens for _, tokens in seen), reverse=True)


def test_file_order_keeps_batches_as_they_lie_in_the_file(counts, expected) -> None:
    seen: list = []
    done = embed_cells(counts, options(8), partial(Sums, seen=seen, order="file"))
    np.testing.assert_allclose(done.values, expected)
    lengths = expected[~np.isnan(expected[:, 0]), 0].astype(int)
    assert seen == [(len(part), part.max()) for part in np.split(lengths, range(8, len(lengths), 8))]


@pytest.mark.parametrize("window", [1, 5, 64])
def test_windows_change_nothing(counts, expected, monkeypatch, window: int) -> None:
    monkeypatch.setattr(rows, "WINDOW_TOKENS", window * N_GENES)
    np.testing.assert_allclose(embed_cells(counts, options(), Sums).values, expected)


def test_out_of_memory_halves_the_batch_and_it_stays_halved(counts, expected) -> None:
    seen: list = []
    done = embed_cells(counts, options(), partial(Sums, fits=40, seen=seen))
    np.testing.assert_allclose(done.values, expected)
    assert 0 < done.extra["batches_halved"] < 8, "learned once, not again for every batch"
    assert all(cells * tokens <= 40 for cells, tokens in seen)


def test_a_cell_that_alone_does_not_fit_ends_with_the_exit_code_for_it(counts, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        embed_cells(counts, options(), partial(Sums, fits=3))
    assert end.value.code == OUT_OF_MEMORY
    assert "does not fit" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EISDIR])
def test_a_disk_that_takes_nothing_is_one_message(capsys, code):
    def write():
        raise OSError(code, os.strerror(code), "/results/scores.tsv")

    with pytest.raises(SystemExit) as end:
        run_script(write)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith(f"ERROR: {os.strerror(code)} (/results/scores.tsv). Make room")


def test_a_missing_package_is_one_message(capsys):
    """Without an image or an environment, the first task ended with a traceback of numpy."""
    with pytest.raises(SystemExit) as end:
        run_script(lambda: importlib.import_module("no_such_package.part"))
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"ERROR: {sys.executable} has no package 'no_such_package'. Packages come with an image")
    assert "./plumb run" in message
    with pytest.raises(ModuleNotFoundError):  # a fault of ours keeps its traceback
        run_script(lambda: importlib.import_module("plumbline.no_such_module"))


def test_shards_give_the_result_of_one_device(counts, expected) -> None:
    """Two processes on the CPU stand for two GPUs."""
    done = embed_cells(counts, options(device="cpu,cpu"), Sums)
    np.testing.assert_allclose(done.values, expected)
    alone = embed_cells(counts, options(), Sums)
    assert (done.unembedded, done.extra["devices"]) == (alone.unembedded, ["cpu", "cpu"])
    assert done.counts_used == pytest.approx(alone.counts_used)


def test_an_error_while_reading_ahead_is_not_lost(counts) -> None:
    class Broken(Sums):
        def encode(self, rows, block):
            raise UserError("bad cell")

    with pytest.raises(UserError, match="bad cell"):
        embed_cells(counts, options(), Broken)


def test_not_a_number_from_the_model_is_not_taken_for_a_cell_without_genes(counts) -> None:
    class Overflowing(Sums):
        def forward(self, length, tokens, values):
            return super().forward(length, tokens, values) * float("nan")

    done = embed_cells(counts, options(), Overflowing)
    assert np.isnan(done.values).all()
    assert done.unembedded < N_CELLS, "so that writing the embedding fails"


def test_some_rows_only_in_the_order_asked_for(counts, expected) -> None:
    rows = np.array([40, 3, 7, 20])
    done = embed_cells(counts, options(), Sums, rows)
    np.testing.assert_allclose(done.values, expected[rows])


def test_the_difference_to_float32_is_measured_on_request(counts) -> None:
    class Linear(Sums):
        def __init__(self, device: str) -> None:
            super().__init__(device)
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, *batch):
            return self.linear(super().forward(*batch).float())

    exact = embed_cells(counts, options(measure_precision="true"), Linear).extra["fp32_difference"]
    reduced = embed_cells(counts, options(measure_precision="true", precision="bf16"), Linear).extra
    assert exact["max_difference"] == 0
    assert reduced["precision"] == "bfloat16"
    assert 0 < reduced["fp32_difference"]["max_difference"] < 1
    assert 0.999 < reduced["fp32_difference"]["min_cosine"] < 1.00001
    assert "fp32_difference" not in embed_cells(counts, options(), Linear).extra


def test_progress_tells_cells_speed_and_time_left(capsys) -> None:
    progress = Progress(100, "cuda:1", every=0)
    progress.add(25)
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cuda:1: 25 of 100 cells, ")
    assert lines[0].endswith(" s left")
    assert "cells/s" in lines[1]


def test_devices_that_are_not_there_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.pick_devices("auto") == ["cpu"]
    for name in ("cuda", "cuda:0", "mps", ""):
        with pytest.raises(UserError, match="only"):
            devices.pick_devices(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices.pick_devices("auto") == devices.pick_devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices.pick_devices("cuda:2,cuda:0") == ["cuda:2", "cuda:0"]
    assert devices.pick_device("auto") == "cuda:0"
    for name in ("cuda:3", "cuda:x"):
        with pytest.raises(UserError, match="cuda:2"):
            devices.pick_devices(name)


def test_memory_does_not_grow_with_the_number_of_cells(tmp_path, monkeypatch) -> None:
    """What 20,000 cells take more than 1,000 at the peak, beside the size of their counts; the embedding is not counted."""
    import tracemalloc

    monkeypatch.setattr(rows, "WINDOW_TOKENS", 100 * N_GENES)
    peaks, sizes = [], []
    for n in (1_000, 20_000):
        matrix = sp.csr_matrix(np.random.default_rng(1).poisson(3, (n, N_GENES)).astype(np.float32))
        names = [f"g{column}" for column in range(N_GENES)]
        obs, var = pd.DataFrame(index=[f"c{row}" for row in range(n)]), pd.DataFrame(index=names)
        ad.AnnData(matrix, obs=obs, var=var).write_h5ad(tmp_path / f"{n}.h5ad")
        counts = open_counts(tmp_path / f"{n}.h5ad")
        tracemalloc.start()
        done = embed_cells(counts, options(), Sums)
        peaks.append(tracemalloc.get_traced_memory()[1] - done.values.nbytes - 8 * n)
        tracemalloc.stop()
        sizes.append(matrix.data.nbytes + matrix.indices.nbytes)
    assert peaks[1] - peaks[0] < 0.1 * (sizes[1] - sizes[0])
