"""Digests of training data: is it the same as before, and does it stay the same?

A cache may only be read again when nothing that it was made from has changed.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfreeze.core.data import Batch, Rows, Stream
from unfreeze.core.internals import tree


@dataclass(frozen=True)
class Fingerprint:
    """What data are.

    Attributes:
        content: digest of all samples. For streams it does not depend on their
            order, so that a stream that shuffles has the same one in each pass.
        order: digest of a stream's samples in the order and the batches of one
            pass; empty for rows.
    """

    content: str
    order: str = ""


def fingerprint(data: Rows | Stream, batch_size: int = 1024) -> Fingerprint:
    """Digest all samples, in one pass.

    An array-like that has a `fingerprint` of its own is taken at its word, its
    rows are not read.
    """
    if isinstance(data, Stream):
        seen = StreamDigest()
        for batch in data.batches():
            seen.add(batch)
        return seen.fingerprint()
    digest = hashlib.blake2b(digest_size=16)
    for part in (*data.x, *_arrays(data.y), *_arrays(data.weight)):
        _add_rows(digest, part, batch_size)
    return Fingerprint(digest.hexdigest())


class StreamDigest:
    """Digest of a stream, taken in batch by batch."""

    def __init__(self) -> None:
        self._sum, self._count = 0, 0
        self._order = hashlib.blake2b(digest_size=16)

    def add(self, batch: Batch) -> None:
        """Take a batch in."""
        x, y, weight = batch
        parts = [np.ascontiguousarray(p) for p in (*x, *_arrays(y), *_arrays(weight))]
        kinds = "".join(f"{p.dtype}{p.shape[1:]}" for p in parts).encode()
        for row in range(len(parts[0])):
            digest = hashlib.blake2b(kinds, digest_size=16)
            for part in parts:
                digest.update(part[row].tobytes())
            # A sum does not depend on the order, and counts samples that are the same.
            self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % (1 << 128)
            self._order.update(digest.digest())
        self._count += len(parts[0])
        self._order.update(f"batch of {len(parts[0])}".encode())

    def fingerprint(self) -> Fingerprint:
        """The digest of all batches so far."""
        return Fingerprint(f"{self._sum:032x}-{self._count}", self._order.hexdigest())


def describe(data: Rows | Stream | None) -> str:
    """What data are, for telling whether a run is the same run.

    Rows are digested. A stream need not be the same twice (augmentation), so
    only its kind and the shape of its samples count.
    """
    if data is None:
        return ""
    if isinstance(data, Rows):
        return fingerprint(data).content
    x, y, weight = data.first()
    kinds = [f"{p.dtype}{p.shape[1:]}" for p in (*x, *_arrays(y), *_arrays(weight))]
    return f"{type(data.source).__name__} of {', '.join(kinds)}"


def _add_rows(digest: Any, part: Any, batch_size: int) -> None:
    digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
    known = getattr(part, "fingerprint", None)
    if isinstance(known, str):
        digest.update(known.encode())
        return
    for start in range(0, len(part), batch_size):
        rows = np.arange(start, min(start + batch_size, len(part)))
        digest.update(np.ascontiguousarray(part[rows]).tobytes())


def _arrays(structure: Any) -> Iterable[Any]:
    return () if structure is None else tree.flatten(structure)
