"""Named arrays in one file, with a checksum: what a run keeps of its numbers.

Safetensors and not HDF5, whose library crashes the process when the disk is full.
The metadata hold `unfreeze` (text of the caller's), `types` (numpy's name of each
array's type, as the format's numpy side knows no bfloat16) and `crc32`.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unfreeze.files import atomic_path, system_error


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], text: str = "") -> None:
    """Write a file, atomically.

    Raises:
        OSError: it cannot be written.
    """
    stored = {name: _storable(value) for name, value in arrays.items()}
    meta = {
        "unfreeze": text,
        "types": json.dumps({name: str(value.dtype) for name, value in arrays.items()}),
        "crc32": str(_checksum(stored)),
    }
    try:
        with atomic_path(file) as partial:
            save_file(stored, partial, meta)
    except SafetensorError as error:
        raise system_error(error, file) from None


def read_arrays(file: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read a file and compare its checksum.

    Returns:
        The arrays by name, and the caller's text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            meta = opened.metadata() or {}
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if int(meta["crc32"]) != _checksum(stored):
            raise ValueError("its checksum is another")
        types = {str(name): np.dtype(kind) for name, kind in json.loads(meta["types"]).items()}
        return {name: stored[name].view(kind) for name, kind in types.items()}, meta["unfreeze"]
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, found)
    return found


def _storable(value: np.ndarray) -> np.ndarray:
    value = np.asarray(value, order="C")
    return value if value.dtype.kind in "fiub" and value.dtype.isbuiltin else value.view(np.uint16)
