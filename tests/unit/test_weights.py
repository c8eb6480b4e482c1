"""Checkpoint files are read without running code from them, strictly, and what is wrong with one is said."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.common.files import sha256
from plumbline.embedding import checkpoints, weights
from plumbline.embedding.checkpoints import Checkpoint, KnownFile
from plumbline.embedding.training_checkpoints import load_checkpoint

torch = pytest.importorskip("torch")


class Bomb:
    """A pickle that would write a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "boom")


@pytest.fixture
def pkl(tmp_path):
    def write(value: object, protocol: int = 4) -> Path:
        (tmp_path / "d.pkl").write_bytes(pickle.dumps(value, protocol))
        return tmp_path / "d.pkl"

    return write


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_dictionaries_of_text_and_numbers_are_read(pkl, protocol: int) -> None:
    value = {"<pad>": 0, "A": np.int16(-7), "B": np.float64(1.25), "C": 3.5, "D": "x", "E": OrderedDict(F=1)}
    found = weights.load_dictionary(pkl(value, protocol), "v")
    assert found == value
    assert found["A"].dtype == np.int16
    assert found["B"].dtype == np.float64


def test_numpy_scalars_pickled_by_an_older_numpy_are_read(pkl) -> None:
    path = pkl({"A": np.float64(1.25)}, 3)
    old = path.read_bytes().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    path.write_bytes(old)
    assert weights.load_dictionary(path, "v") == {"A": 1.25}


def test_code_in_a_pickle_is_never_run(pkl, tmp_path) -> None:
    for bomb in (Bomb(tmp_path / "boom"), {"A": Bomb(tmp_path / "boom")}):
        with pytest.raises(UserError, match="is not loaded"):
            weights.load_dictionary(pkl(bomb), "v")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(tmp_path, name: str) -> None:
    (tmp_path / "d.pkl").write_bytes(b"c" + f"builtins\n{name}\n".encode() + b"(S'1'\ntR.")
    with pytest.raises(UserError, match=f"builtins.{name}"):
        weights.load_dictionary(tmp_path / "d.pkl", "v")


def test_a_pickle_inside_an_object_scalar_is_refused(tmp_path) -> None:
    """numpy would unpickle the content of a scalar of type object with no restriction."""
    inner = pickle.dumps(Bomb(tmp_path / "boom"))

    class Scalar:
        def __reduce__(self) -> tuple:
            from numpy._core.multiarray import scalar

            return scalar, (np.dtype("O"), inner)

    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"A": Scalar()}))
    with pytest.raises(UserError, match="type object"):
        weights.load_dictionary(tmp_path / "d.pkl", "v")
    assert not (tmp_path / "boom").exists()


def test_damaged_dictionaries_are_named(pkl, tmp_path) -> None:
    path = pkl({str(number): np.float64(number) for number in range(50)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"d.pkl is truncated or no pickle.*plumb fetch scgpt$"):
        weights.load_dictionary(path, "scgpt")
    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        weights.load_dictionary(pkl([1]), "v")
    with pytest.raises(UserError, match=r"none.pkl does not exist. Give the folder"):
        weights.load_dictionary(tmp_path / "none.pkl", "v")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 41183536\n"


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "d.pkl"])
@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (POINTER, "git-lfs pointer")])
def test_empty_files_and_pointers_are_recognised(tmp_path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    load = weights.load_dictionary if name == "d.pkl" else weights.load_tensors
    with pytest.raises(UserError, match=f"{message}.*plumb fetch geneformer_v1$"):
        load(tmp_path / name, "geneformer_v1")


def save(path: Path, tensors: dict) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=path.suffix != ".old")
    return path


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.old"])
def test_tensors_come_back_as_they_were(tmp_path, name: str) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    found = weights.load_tensors(save(tmp_path / name, tensors), "v")
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert set(found) == set(tensors)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.old"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_tensor_file_is_named(tmp_path, name: str, share: float) -> None:
    path = save(tmp_path / name, {"a": torch.randn(200, 30), "b": torch.randn(300)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"is truncated or damaged.*plumb fetch scgpt$"):
        weights.load_tensors(path, "scgpt")


def test_code_in_a_torch_file_is_never_run(tmp_path) -> None:
    path = save(tmp_path / "m.pt", {"a": Bomb(tmp_path / "boom")})
    with pytest.raises(UserError, match="Python objects besides tensors"):
        weights.load_tensors(path, "v")
    assert not (tmp_path / "boom").exists()


def test_a_training_checkpoint_gives_its_tensors_and_stubs_for_its_objects(tmp_path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3)[:, 1:], "b": torch.nn.Parameter(torch.ones(2, dtype=torch.float16))}
    held = {
        "state_dict": OrderedDict(tensors),
        "hyper_parameters": {"width": 3, "kind": torch.float16},
        "size": torch.Size([2]),
    }
    torch.save({**held, "callback": Bomb(tmp_path / "trace"), "classes": [Path, Bomb]}, tmp_path / "model.ckpt")
    found = load_checkpoint(tmp_path / "model.ckpt", "scgpt")
    assert not (tmp_path / "trace").exists()
    assert {name: found[name] for name in ("hyper_parameters", "size")} == {
        name: held[name] for name in ("hyper_parameters", "size")
    }
    assert all(torch.equal(found["state_dict"][name], tensor) for name, tensor in tensors.items())
    assert not isinstance(found["callback"], int)
    assert all(kind not in (Path, Bomb) for kind in found["classes"])


@pytest.mark.parametrize(("content", "message"), [
    (lambda path: torch.save([torch.ones(1)], path), "holds a list, not a checkpoint"),
    (lambda path: torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False), "truncated or damaged"),
    (lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(path), "a program"),
    (lambda path: path.write_bytes(pickle.dumps({"a": Bomb(path.with_name("trace"))})), "truncated or damaged"),
])  # fmt: skip
def test_what_is_no_training_checkpoint_is_refused(tmp_path, content, message: str) -> None:
    content(tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "model.ckpt", "scgpt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("load", [weights.load_tensors, load_checkpoint])
def test_a_number_that_was_changed_on_disk_is_noticed(tmp_path, load) -> None:
    """torch itself reads it without a word."""
    path, tensor = tmp_path / "m.ckpt", torch.full((64,), 1.5)
    torch.save({"state_dict": {"a": tensor}}, path)
    content, bytes_of = path.read_bytes(), tensor.numpy().tobytes()
    assert content.count(bytes_of) == 1
    path.write_bytes(content.replace(bytes_of, bytes_of[:-1] + b"\x40"))
    assert torch.load(path, weights_only=True)["state_dict"]["a"][-1] != 1.5
    with pytest.raises(UserError, match=r"m.ckpt is damaged: .* is not what was written.*plumb fetch scgpt"):
        load(path, "scgpt")


def test_every_tensor_is_placed_or_named(tmp_path) -> None:
    source = torch.nn.Linear(3, 2)
    tensors = dict(source.state_dict())
    target = torch.nn.Linear(3, 2)
    weights.fill(target, tensors | {"head.weight": torch.zeros(1)}, tmp_path / "m", "v", ignore=("head.",))
    assert torch.equal(target.weight, source.weight)
    faults = {
        "1 missing: bias": {"weight": tensors["weight"]},
        "1 unexpected: head.weight": tensors | {"head.weight": torch.zeros(1)},
        r"1 misshapen: weight \(3, 2\) instead of \(2, 3\)": tensors | {"weight": tensors["weight"].T},
    }
    with pytest.raises(UserError, match=r"2 tensors that hold NaN or infinity: weight, bias.*Give the folder"):
        weights.fill(target, {"weight": tensors["weight"] * torch.nan, "bias": tensors["bias"] / 0}, tmp_path / "m", "v")
    for message, damaged in faults.items():
        before = target.weight.clone()
        with pytest.raises(UserError, match=message):
            weights.fill(target, damaged, tmp_path / "m", "v")
        assert torch.equal(target.weight, before)


def test_half_precision_weights_are_computed_in_float32(tmp_path) -> None:
    target = torch.nn.Linear(3, 2)
    tensors = {name: tensor.half() for name, tensor in torch.nn.Linear(3, 2).state_dict().items()}
    weights.fill(target, tensors, tmp_path / "m", "v")
    assert target.weight.dtype == torch.float32


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A file, and a table that lists it as the checkpoint of variant 'v'."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"published")
    file = KnownFile("x/model.bin", "https://a/model.bin", sha256(path), 9)
    monkeypatch.setattr(weights, "known_checkpoints", lambda: {"v": Checkpoint("v", "m", "https://a", (file,))})
    return path


def test_the_published_file_is_recognised(published) -> None:
    assert weights.verify(published, "v") == {"file": "model.bin", "sha256": sha256(published), "known": True}
    assert not weights.verify(published, "another")["known"]


def test_a_file_of_the_right_size_with_another_hash_is_damaged_unless_it_is_ones_own(published) -> None:
    published.write_bytes(b"publishee")
    with pytest.raises(UserError, match=r"is damaged.*checkpoint=own"):
        weights.verify(published, "v")
    assert not weights.verify(published, "v", own=True)["known"]


def test_a_file_of_another_size_is_another_checkpoint(published) -> None:
    published.write_bytes(b"a model of one's own")
    assert not weights.verify(published, "v")["known"]


def test_the_hint_names_files_source_and_command() -> None:
    hint = checkpoints.fetch_hint("scgpt")
    assert "best_model.pt" in hint
    assert "wanglab/scGPT-human" in hint
    assert hint.endswith("./plumb fetch scgpt")
