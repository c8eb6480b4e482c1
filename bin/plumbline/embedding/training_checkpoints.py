"""Training checkpoints that hold objects beside the weights, read without making one of these objects."""

import pickle
import zipfile
from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.damage import check_members
from plumbline.embedding.weights import open_file

# what tensors in a torch.save file are made of
TENSOR_GLOBALS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.storage", "UntypedStorage"),
    ("torch", "device"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
}


class _Stub:
    """Stands for an object of a class that is not loaded; whatever is asked of it does nothing."""

    def __init__(self, *args: object, **more: object) -> None:
        pass

    def __call__(self, *args: object, **more: object) -> "_Stub":
        return _Stub()

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """For objects that unpickle as lists."""

    def extend(self, values: object) -> None:
        """For objects that unpickle as lists."""


class _StubUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        import torch

        if (module, name) in TENSOR_GLOBALS or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        return type(name, (_Stub,), {})


class _Stubs:
    """What torch.load takes for pickle; ``load`` would be asked of files older than torch 1.6, which are refused."""

    Unpickler = _StubUnpickler
    load = None


def load_checkpoint(path: Path, variant: str) -> dict:
    """A training checkpoint: its nested dictionary, in which objects that are no tensors, numbers or text are empty stubs.

    For checkpoints that hold configurations or collaters beside the weights. No class but torch's tensors is looked up, so no
    code of the file can run. Raises UserError if the file is missing, damaged or no dictionary.
    """
    import torch

    open_file(path, variant).close()
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise ValueError("TorchScript, a program")
        check_members(path, variant)
        value = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Stubs, mmap=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in a dozen ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is truncated or damaged ({reason}). {fetch_hint(variant)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not a checkpoint. {fetch_hint(variant)}")
    return value
