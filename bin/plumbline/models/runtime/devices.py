"""Which devices and which number format a foundation model runs on."""

from typing import TYPE_CHECKING

from plumbline.common.devices import is_gpu
from plumbline.common.errors import UserError
from plumbline.embedding.options import Options

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_devices(option: str) -> list[str]:
    """Devices that share the cells: every visible GPU for 'auto' or 'cuda' ('auto' falls back to the CPU), else the one named.

    Several may be named, separated by commas ('cuda:0,cuda:2'). Raises UserError for a device this machine lacks.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if option == "auto":
        return [f"cuda:{gpu}" for gpu in range(n_gpus)] or ["cpu"]
    if option == "cuda" and n_gpus:
        return [f"cuda:{gpu}" for gpu in range(n_gpus)]
    names, offered = option.split(","), ["cpu", *(f"cuda:{gpu}" for gpu in range(n_gpus))]
    for name in names:
        if name not in offered:
            raise UserError(f"--device {option}: this machine offers cpu{_offer(n_gpus)}. Leave it at auto to choose.")
    return names


def pick_device(option: str) -> str:
    """The first of ``pick_devices``: for models whose cells see each other and so cannot be shared out."""
    return pick_devices(option)[0]


def pick_precision(options: Options, device: str) -> "torch.dtype":
    """The format activations are computed in: setting ``precision`` = auto | fp32 | bf16 | fp16.

    auto is fp32 on a CPU and, on a GPU, fp16 (as the authors of scGPT run it: three more bits of mantissa than bf16).
    Reduced precision is autocast: weights, normalisations and softmax stay in fp32.
    """
    import torch

    name = str(options.get("precision", "auto"))
    if name not in PRECISIONS:
        raise UserError(f"--set precision={name}: expected one of {', '.join(PRECISIONS)}.")
    if name == "auto":
        name = "fp16" if is_gpu(device) else "fp32"
    if name == "fp16" and not is_gpu(device):
        raise UserError("--set precision=fp16 needs a GPU; on a CPU use fp32 (or bf16).")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _offer(n_gpus: int) -> str:
    return "".join(f", cuda:{gpu}" for gpu in range(n_gpus)) or " only (torch sees no GPU)"
