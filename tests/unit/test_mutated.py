"""Damaged files of every kind that is read: each is refused in words or read; no traceback, no crash, no endless loop."""

from collections import Counter

import numpy as np
import pytest
from mutated import FORMATS, MODELS, Case, checkpoints, made, mutations, outcome_here

from plumbline.common.errors import UserError
from plumbline.counts.hdf5 import open_hdf5
from plumbline.embedding.damage import check_members, understood

NEVER = ("traceback", "hang")  # a crash would end the test itself
SUMMED = ("10x zip", "csv.gz", "embedding.npz", "counts.h5ad of PREPARE")  # what holds a checksum of its content


def ends(cases: list[Case], n: int, seed: int = 0) -> Counter:
    found: Counter = Counter()
    for number, case in enumerate(cases):
        expected = case.read()
        found += Counter(outcome_here(case, expected) for _ in mutations(case, n // len(cases), seed + number))
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_an_input_is_read_or_refused(name, monkeypatch):
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.5)
    place, case = made(FORMATS[name])
    with place:
        found = ends([case], 30)
    assert not any(found[word] for word in NEVER), found
    assert found["refused"] > 6  # the damage is damage
    assert name not in SUMMED or not found["different"], found


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_is_read_or_refused(model, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("plumbline.counts.hdf5.LIMIT", 0.5)
    place, cases = made(lambda folder: checkpoints(model, folder))
    with place:
        found = ends(cases, 12)
    assert not any(found[word] for word in NEVER), found
    assert found["refused"] > 1, found


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
