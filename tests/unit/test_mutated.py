"""Damaged files of every kind that is read: each is refused in words or read; no traceback, no crash, no endless loop."""

from collections import Counter

import h5py
import numpy as np
import pytest
from mutated import FORMATS, MODELS, Case, checkpoints, made, outcomes

from plumbline.common.errors import UserError
from plumbline.counts.hdf5 import open_hdf5
from plumbline.embedding.damage import check_members, understood

NEVER = ("traceback", "crash", "hang")
SUMMED = ("10x zip", "csv.gz", "embedding.npz", "counts.h5ad of PREPARE")  # what holds a checksum of its content


def ends(cases: list[Case], n: int, seed: int = 0) -> Counter:
    """Outcomes of ``n`` mutations, shared among the files."""
    found: Counter = Counter()
    for number, case in enumerate(cases):
        found += outcomes(case, range(n // len(cases)), seed + number)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_an_input_is_read_or_refused(name, monkeypatch):
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.5)
    place, case = made(FORMATS[name])
    with place:
        found = ends([case], 250 if name.startswith("h5ad") else 500)  # of this there are two kinds
    assert not any(found[word] for word in NEVER), found
    assert found["refused"] > 100  # the damage is damage
    assert name not in SUMMED or not found["different"], found


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_is_read_or_refused(model, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.5)
    place, cases = made(lambda folder: checkpoints(model, folder))
    with place:
        found = ends(cases, 48)  # over 500 of all models
    assert not any(found[word] for word in NEVER), found
    assert found["refused"] > 9, found


def test_a_changed_weight_is_noticed(tmp_path):
    """torch itself reads such a file without a word."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "best_model.pt"
    torch.save({"a": torch.arange(999.0)}, path)
    check_members(path, "scgpt")
    whole = np.frombuffer(path.read_bytes(), np.uint8).copy()
    place = path.read_bytes().index(np.arange(500.0, 510.0, dtype=np.float32).tobytes())
    whole[place] ^= 1
    path.write_bytes(whole.tobytes())
    assert torch.load(path, weights_only=True)["a"][500] != 500
    with pytest.raises(UserError, match="is damaged"):
        check_members(path, "scgpt")


def test_a_file_without_checksums_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    path, before = tmp_path / "best_model.pt", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(9.0)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    check_members(path, "scgpt")


def test_a_heap_of_texts_that_goes_in_a_circle_is_refused(tmp_path, monkeypatch):
    """The library finds no end in it, but only when the texts are read, which opening the file does not do."""
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.5)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["names"] = [f"cell_{n}" for n in range(500)]
    whole = bytearray(path.read_bytes())
    first = whole.index(b"GCOL") + 16
    whole[first : first + 64] = bytes(64)  # a first entry of no length
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"x\.h5 could not be read within 0.5 seconds: it is damaged"), open_hdf5(path) as file:
        file["names"].shape  # noqa: B018 - asks nothing of the heap


def test_what_is_ours_to_say_is_not_said_twice(tmp_path):
    with pytest.raises(UserError, match=r"^first .*fetch"), understood(tmp_path / "x", "is no table", "scgpt"):
        raise UserError("first")
    with (
        pytest.raises(UserError, match=r"x is no table \(no 'a'\)\. .*fetch"),
        understood(tmp_path / "x", "is no table", "scgpt"),
    ):
        {}["a"]
    with pytest.raises(UserError), open_hdf5(tmp_path / "absent.h5"):
        pass
