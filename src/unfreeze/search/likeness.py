"""Compares vectors with all windows of an index: exactly, block by block, on all cores.

Likeness is the cosine of the angle between two vectors. A window of digital silence has the
vector 0 and is like nothing. Most of the time goes into making float32 of float16, for which
numpy needs 2.5 ns a number; so it is done by shifting bits, in blocks that stay in the
processor's cache.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from unfreeze.audio.parallel import available_cores
from unfreeze.search.index_folder import Index

_T = TypeVar("_T")

# Rows that one thread reads at once, and values of them that it turns into float32 at once.
_READ, _VALUES = 1 << 14, 1 << 15
# A float16 has its exponent 13 bits below float32's and 112 smaller: after the shift, the sign
# is copied into the three bits above the exponent, which this clears.
_BITS, _CLEAR, _SCALE = 13, np.int32(-0x7000_0001), np.float32(2.0**112)
# Below this length a vector is 0, and like nothing.
_NOTHING = 1e-6


def likeness(index: Index, examples: np.ndarray, first: int = 0) -> np.ndarray:
    """How like its most similar example each window is.

    Args:
        index: where the windows are.
        examples: (examples, numbers), each of any length but 0.
        first: the first window that is compared.

    Returns:
        (windows,) float32, from -1 to 1; -inf for digital silence.

    Raises:
        DataError: the index is damaged.
    """
    wanted = unit(examples.astype(np.float32)).T.copy()

    def compare(start: int, end: int) -> np.ndarray:
        return cosines(index.vectors(start, end), wanted)

    return joined(in_blocks(range(first, index.rows), compare))


def cosines(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The largest cosine of each row with some directions.

    Args:
        rows: (n, numbers) float16, finite.
        wanted: (numbers, directions) float32, of length 1 each.

    Returns:
        (n,) float32; -inf for a row of 0.
    """
    found = np.empty(len(rows), np.float32)
    step = max(_VALUES // rows.shape[1], 1)
    bits = rows.view(np.int16)
    room = np.empty((step, rows.shape[1]), np.int32)
    for at in range(0, len(rows), step):
        part = room[: len(bits[at : at + step])]
        np.left_shift(bits[at : at + step], _BITS, out=part, dtype=np.int32)
        np.bitwise_and(part, _CLEAR, out=part)
        values = part.view(np.float32)
        np.multiply(values, _SCALE, out=values)
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
        products = (values @ wanted).max(axis=1)
        some = lengths > _NOTHING
        np.divide(products, lengths, out=products, where=some)
        products[~some] = -np.inf
        found[at : at + step] = products
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of 0 stay 0."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, _NOTHING), np.float32)


def in_blocks(rows: range, function: Callable[[int, int], _T]) -> list[_T]:
    """Call a function with the first and the end of each block of rows, on all cores.

    Returns:
        What it returns, in the order of the rows.
    """
    starts = range(rows.start, rows.stop, _READ)
    with ThreadPoolExecutor(max(min(available_cores(), len(starts)), 1)) as pool:
        return list(pool.map(lambda at: function(at, min(at + _READ, rows.stop)), starts))


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The numbers of all blocks, float32, one after the other."""
    return np.concatenate([*parts, np.zeros(0, np.float32)])
