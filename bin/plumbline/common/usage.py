"""What a step used: time, processor time, memory, GPU. Every step records it, and the report fits it against the cells.

Why not ``psutil``: it tells the memory of this moment. What is asked for is the peak, and the time of children that have ended:
the system's own accounts (getrusage, /proc) have both.
"""

import platform
import resource
import sys
import time
from pathlib import Path

from plumbline.common.threads import limited_threads


def usage(start: float) -> dict:
    """Since ``start`` (time.monotonic()): seconds; of this process: cpu_seconds (with children), peak memory, GPU memory."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = {
        "seconds": round(time.monotonic() - start, 3),
        "cpu_seconds": round(sum(part.ru_utime + part.ru_stime for part in (own, children)), 3),
        "peak_memory_bytes": peak_memory(),
        "hostname": platform.node(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        used["peak_gpu_memory_bytes"] = int(torch.cuda.max_memory_allocated())
        used["gpu"] = torch.cuda.get_device_name()
    return used


def machine_seconds() -> float:
    """Processor time of a fixed computation (products, sorting, a loop of Python), the best of six: how fast a machine is.

    By one thread: where others keep the processors busy, a second would spend several times as much on waiting for its turn.
    """
    import numpy as np

    values = np.random.default_rng(0).random((256, 256))
    times = []
    with limited_threads(1):
        for _ in range(6):
            start = time.process_time()
            for _ in range(5):
                np.sort((values @ values).ravel())
            sum(number % 7 for number in range(100_000))
            times.append(time.process_time() - start)
    return min(times)


def duration(seconds: float) -> str:
    """'90 s', '17 min', '2.5 h'."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def peak_memory() -> int:
    """Peak resident bytes of this process. Linux: its own, as getrusage would include the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
