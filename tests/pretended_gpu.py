"""A stand-in for a GPU: tensors that say that they lie on ``cuda:0`` and are computed by the CPU.

It holds code to the rules of a device, not to its arithmetic or its memory: what mixes tensors of the CPU with those of the
device fails as it would there, a tensor on the device cannot become a numpy array, and what is made without naming the device
is made on the CPU. Every call of torch on such a tensor is made on the one that it holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda:0")
MEMORY = 8 << 30
FROM_ANYWHERE = ("copy_", "module_load", "to", "type_as", "_has_compatible_shallow_copy_type")  # take tensors of other devices
ABOUT = {"device": DEVICE, "is_cuda": True, "is_cpu": False}
INDEXED = ("__getitem__", "__setitem__", "index_put_", "index_put")  # by tensors of the CPU, too


class There(torch.Tensor):
    """A tensor on the device; ``here`` is the one that holds its values."""

    here: torch.Tensor

    @classmethod
    def __torch_function__(cls, function, _types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class _Everywhere(TorchFunctionMode):
    """What makes tensors, too."""

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


def _there(here: torch.Tensor) -> There:
    with torch._C.DisableTorchFunctionSubclass():
        tensor = torch.Tensor._make_subclass(There, torch.empty(0, device="meta"))
        tensor.here = here
    return tensor


def _computed(function: Callable, args: tuple, kwargs: dict) -> object:
    """The result of a call, where a device would have it."""
    name = getattr(function, "__name__", "")
    if name == "_parse_to" or function is torch.device:  # the arguments of a module's .to(); a name
        return function(*args, **kwargs)
    given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    wrappers = {id(one.here): one for one in given if isinstance(one, There)}
    if wrappers and name == "__get__" and function.__self__.__name__ in ABOUT:
        return ABOUT[function.__self__.__name__]
    if wrappers and name in ("numpy", "__array__"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
    _check(name, args, given)
    there = _place(name, args, kwargs, bool(wrappers))
    out = function(*tree_map(_here, args), **tree_map(_here, kwargs))
    moved = {id(one) for one in given} if there else set(wrappers)  # what did not have to be moved here, but would be there

    def placed(one: object) -> object:
        if not isinstance(one, torch.Tensor):
            return one
        if there and id(one) in wrappers:  # a call in place returns what it was given
            return wrappers[id(one)]
        one = one.clone() if id(one) in moved else one
        return _there(one) if there else one

    return tree_map(placed, out)


def _here(one: object) -> object:
    if isinstance(one, There):
        return one.here
    return torch.device("cpu") if _is_device(one) else one


def _is_device(one: object) -> bool:
    return (isinstance(one, str) and one.partition(":")[0] == "cuda") or (isinstance(one, torch.device) and one.type == "cuda")


def _place(name: str, args: tuple, kwargs: dict, there: bool) -> bool:
    """Whether the result lies on the device."""
    said = [*args, kwargs.get("device")] if name == "to" else [kwargs.get("device")]
    said = [one for one in said if isinstance(one, str | torch.device)]
    if name in ("cpu", "cuda"):
        return name == "cuda"
    if said:
        return any(map(_is_device, said))
    if name in FROM_ANYWHERE and args:
        other = args[1] if name == "to" and len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
        return isinstance(other, There)
    return there


def _check(name: str, args: tuple, given: list[torch.Tensor]) -> None:
    """As a device would: tensors of the CPU and of the device do not meet, but for single numbers."""
    if name in INDEXED:
        places = [one for one in tree_flatten(args[1])[0] if isinstance(one, torch.Tensor)]
        given = [args[0], *args[2:]] if places else []  # without one, values are copied from wherever they lie
        given = [one for one in given if isinstance(one, torch.Tensor)]
        if places and not isinstance(args[0], There) and any(isinstance(one, There) for one in places):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    with torch._C.DisableTorchFunction():
        strangers = [one for one in given if not isinstance(one, There) and one.dim()]
    if strangers and any(isinstance(one, There) for one in given) and name not in FROM_ANYWHERE:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})"
        )


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """One GPU, cuda:0, as far as torch says."""
    facts = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "mem_get_info": (MEMORY, MEMORY),
        "max_memory_allocated": 0,
        "get_device_name": "pretended",
        "get_device_capability": (7, 0),
        "is_bf16_supported": True,
    }
    ends = {name: mock.Mock(return_value=value) for name, value in facts.items()}
    ends |= {name: mock.Mock() for name in ("_lazy_init", "empty_cache", "set_device", "synchronize")}
    to = torch.Tensor.to  # by itself, too: a mode is not seen in other threads
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    # a parameter of the CPU cannot take the storage of another class
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        health = mock.patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check")
        moving = mock.patch.object(torch.Tensor, "to", lambda one, *args, **kwargs: _computed(to, (one, *args), kwargs))
        with mock.patch.multiple(torch.cuda, **ends), health, moving, _Everywhere():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
