"""without_cuda.py FILE: pins of a requirements.txt less torch and what its CUDA needs, for images with torch for CPUs."""

import re
import sys
from pathlib import Path

OF_CUDA = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")


def without_cuda(text: str) -> str:
    """The entries that stay, with their hashes (an entry goes on over lines that end in a backslash)."""
    entries = re.findall(r"(?:.*\\\n)*.*\n", text)
    return "".join(entry for entry in entries if not OF_CUDA.match(entry))


if __name__ == "__main__":
    sys.stdout.write(without_cuda(Path(sys.argv[1]).read_text()))
