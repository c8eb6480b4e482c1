"""Names of devices."""


def is_gpu(device: str) -> bool:
    """Whether ``device`` ('cpu', 'cuda' or 'cuda:1') is a GPU."""
    return device.startswith("cuda")
