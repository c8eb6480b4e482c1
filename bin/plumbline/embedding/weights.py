"""Reading the authors' checkpoint files without running code from them, strictly, and with messages that say what to fetch."""

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from plumbline.common.errors import UserError
from plumbline.common.files import sha256
from plumbline.embedding.checkpoints import fetch_hint, known_checkpoints
from plumbline.embedding.damage import check_members
from plumbline.embedding.recorded import check

if TYPE_CHECKING:
    import torch

# what numpy scalars in a pickle are made of, under the names of old and new numpy; nothing else is ever looked up
SAFE_GLOBALS = {
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in SAFE_GLOBALS:
            raise UserError(f"asks for {module}.{name}, which a dictionary of genes has no use for: it is not loaded.")
        if name == "scalar":
            return _plain_scalar
        return super().find_class(module, name)


def _plain_scalar(dtype, data: bytes = b"") -> object:
    """A numpy scalar from its pickled form; object dtypes, which could hide a further pickle, are refused."""
    import numpy as np

    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise UserError("holds a numpy scalar of type object: it is not loaded.")
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def load_dictionary(path: Path, variant: str) -> dict:
    """A pickled dictionary of strings and numbers (Geneformer's tokens, medians, gene mapping; UCE's offsets).

    Raises UserError if it is missing, truncated, no dictionary, or asks for any class other than numpy's scalars.
    """
    with open_file(path, variant) as stream:
        try:
            value = _SafeUnpickler(stream).load()
        except UserError as error:
            raise UserError(f"{path} {error}") from error
        except Exception as error:  # a damaged pickle fails in a dozen ways, each meaning the same
            raise UserError(f"{path} is truncated or no pickle ({error}). {fetch_hint(variant)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not a dictionary. {fetch_hint(variant)}")
    return value


def load_tensors(path: Path, variant: str) -> dict[str, "torch.Tensor"]:
    """The tensors of a .safetensors file or a torch.save file, on the CPU (mapped, not copied, where the format allows).

    A training checkpoint is returned as the nested dictionary it is. Raises UserError if the file is missing, truncated or
    would need code to load.
    """
    open_file(path, variant).close()
    try:
        tensors = _load(path, variant)
    except UserError:
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        if "Weights only load failed" in str(error) and "Unsupported global" in str(error):
            raise UserError(f"{path} holds Python objects besides tensors; it is not loaded. {fetch_hint(variant)}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is truncated or damaged ({reason}). {fetch_hint(variant)}") from error
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise UserError(f"{path} holds a {type(tensors).__name__}, not tensors with their names. {fetch_hint(variant)}")
    return tensors


def _load(path: Path, variant: str) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path, device="cpu")
    import torch

    mapped = zipfile.is_zipfile(path)  # the format of torch < 1.6 cannot be mapped
    if mapped:
        check_members(path, variant)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def find_folder(weights: Path | None, model: str, pattern: str, variant: str) -> Path:
    """--weights itself, or its subfolder ``model`` (as fetched): whichever holds a file like ``pattern``.

    Raises UserError if there is no such folder.
    """
    if weights is None or not Path(weights).is_dir():
        raise UserError(f"--weights {weights} is not a folder. {fetch_hint(variant)}")
    folders = [folder for folder in (Path(weights), Path(weights) / model) if any(folder.glob(pattern))]
    if not folders:
        raise UserError(f"{weights} holds no file like {pattern}. {fetch_hint(variant)}")
    return folders[0]


def open_file(path: Path, variant: str) -> BinaryIO:
    """Open a checkpoint file. Raises UserError if it is missing, empty, or a git-lfs pointer instead of the file itself."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist. {fetch_hint(variant)}")
    stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    start = stream.read(40)
    stream.seek(0)
    if not start or start.startswith(b"version https://git-lfs"):
        stream.close()
        state = "is a git-lfs pointer, not the file itself" if start else "is empty"
        raise UserError(f"{path} {state}. {fetch_hint(variant)}")
    return stream


def fill(
    model: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], path: Path, variant: str, ignore: Iterable[str] = ()
) -> None:
    """Copy ``tensors`` into ``model``, name by name and shape by shape, as float32.

    ignore: prefixes of names that the checkpoint may hold beyond the model's. Raises UserError that lists missing, extra and
    misshapen tensors: a tensor that was not loaded would be random, and nobody would notice; and those with NaN or infinity.
    """
    import torch

    wanted = model.state_dict()
    _require_dense(tensors, wanted, path, variant)
    prefixes = tuple(ignore)
    extra = [name for name in tensors if name not in wanted and not name.startswith(prefixes)]
    missing = [name for name in wanted if name not in tensors]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    faults = {"missing": missing, "unexpected": extra, "misshapen": shapes}
    if any(faults.values()):
        text = "; ".join(f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in faults.items() if names)
        raise UserError(f"{path} does not fit the model its configuration describes ({text}). {fetch_hint(variant)}")
    broken = [name for name in wanted if not torch.isfinite(tensors[name]).all()]
    if broken:
        text = f"{len(broken)} tensors that hold NaN or infinity: {', '.join(broken[:3])}"
        raise UserError(f"{path} is damaged, or its training failed ({text}). {fetch_hint(variant)}")
    model.load_state_dict({name: tensors[name].float() for name in wanted}, assign=True)


def _require_dense(tensors: object, wanted: dict, path: Path, variant: str) -> None:
    """Raises UserError for what ``float()`` would silently turn into something else: integers, complex or packed values."""
    import torch

    if not isinstance(tensors, dict):
        raise UserError(f"{path} holds a {type(tensors).__name__} in place of named tensors. {fetch_hint(variant)}")
    for name in (name for name in wanted if name in tensors):
        value = tensors[name]
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name} is a {type(value).__name__}, not a tensor. {fetch_hint(variant)}")
        plain = value.layout is torch.strided and not value.is_quantized
        if not plain or value.is_floating_point() != wanted[name].is_floating_point() or value.is_complex():
            kind = str(value.dtype).removeprefix("torch.") + ("" if plain else ", not dense")
            raise UserError(f"{path}: {name} holds {kind} values, but floating-point numbers are needed. {fetch_hint(variant)}")


def whole_numbers(values: dict, path: Path, variant: str) -> dict[str, int]:
    """``values`` (names to token ids) as integers. Raises UserError if one is not a whole number, 0 or more."""
    bad = [name for name, value in values.items() if isinstance(value, bool) or not _is_index(value)]
    if bad:
        raise UserError(f"{path}: the token id of {bad[0]!r} is {values[bad[0]]!r}, not a whole number. {fetch_hint(variant)}")
    return {name: int(value) for name, value in values.items()}


def _is_index(value: object) -> bool:
    import numbers

    return isinstance(value, numbers.Real) and float(value) >= 0 and float(value).is_integer()


def verify(path: Path, variant: str, own: bool = False) -> dict:
    """{'file', 'sha256', 'known'} of a checkpoint file, for the provenance.

    known: models.csv lists exactly this file for this variant. A file of the listed size with another hash is damaged:
    UserError, unless ``own`` (setting checkpoint=own) says that it holds weights of one's own. A file of another size is
    another checkpoint (a truncated one fails to load) and is recorded as not known; ``recorded: True`` then tells that
    ./plumb fetch noted this very hash when it first fetched the file (another one noted there is a UserError).
    """
    open_file(path, variant).close()
    found, size = sha256(path), Path(path).stat().st_size
    checkpoint = known_checkpoints().get(variant)
    listed = (
        [file for file in checkpoint.files if Path(file.path).name == Path(path).name and file.sha256] if checkpoint else []
    )
    known = any(file.sha256 == found for file in listed)
    if not known and not own and any(file.size == size for file in listed):
        raise UserError(
            f"{path} has the size of the checkpoint of {variant} but sha256 {found} instead of {listed[0].sha256}: it is "
            f"damaged. {fetch_hint(variant)} (weights of your own in the same format: --set checkpoint=own)"
        )
    recorded = {"recorded": True} if not (known or own) and check(path, found) else {}
    return {"file": Path(path).name, "sha256": found, "known": known, **recorded}
