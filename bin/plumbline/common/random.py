"""Random numbers that belong to a name: a cell's draws depend neither on the cells around it nor on the order of the file."""

import hashlib
import zlib

import numpy as np


def seed_of(seed: int, name: str) -> int:
    """A 32-bit seed from a run's seed and a name, so that a group's draws do not depend on which others are scored."""
    return zlib.crc32(f"{seed}\t{name}".encode())


def generator_of(name: str) -> np.random.Generator:
    """The stream of random numbers of one name, such as a seed with a cell id."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def uniform_by_id(cell_id: np.ndarray, seed: int) -> np.ndarray:
    """Numbers in [0, 1) of the cells (n,), the same in any order of them; another cell changes those after it."""
    numbers = np.empty(len(cell_id))
    numbers[np.argsort(cell_id)] = np.random.default_rng(seed).random(len(cell_id))
    return numbers


def hashes(names: np.ndarray, key: str) -> np.ndarray:
    """One uint64 per name, (n,); blake2b, so that a run on another machine gives the same."""
    secret = hashlib.blake2b(key.encode(), digest_size=16).digest()
    digests = (hashlib.blake2b(str(name).encode(), digest_size=8, key=secret).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def sample_by_id(names: np.ndarray, size: int, key: str) -> np.ndarray:
    """Positions, ascending, of ``size`` of the names (or all): those of the smallest hashes, so that neither the order nor
    which others there are changes who of them goes before whom."""
    if len(names) <= size:
        return np.arange(len(names))
    return np.sort(np.argsort(hashes(names, key), kind="stable")[:size])


def normal(names: np.ndarray, width: int, key: str) -> np.ndarray:
    """Standard normal float32 (n, width), each row a function of its name and ``key`` alone.

    Counter-based: splitmix64 (Steele et al. 2014) of the name's hash and the column, then Box-Muller.
    """
    half = -(-width // 2)
    counter = np.arange(1, 2 * half + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    values = np.empty((len(names), 2 * half), dtype=np.float32)
    for start in range(0, len(names), 4096):
        rows = slice(start, start + 4096)
        uniform = (_mix(hashes(names[rows], key)[:, None] + counter) >> np.uint64(11)) * 2.0**-53
        radius = np.sqrt(-2 * np.log1p(-uniform[:, :half]))
        values[rows, :half] = radius * np.cos(2 * np.pi * uniform[:, half:])
        values[rows, half:] = radius * np.sin(2 * np.pi * uniform[:, half:])
    return values[:, :width]


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
