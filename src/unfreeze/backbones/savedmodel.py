"""Read the variables of a TensorFlow SavedModel with numpy alone.

Its data file is the raw bytes of the variables, one after the other. Where
each one lies is said in an index that TensorFlow writes as a table of
protocol buffers. We need no parser for that: the data file is pinned by its
sha256, so the offsets are facts about these very bytes.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from unfreeze.backbones.tensors import Tensors
from unfreeze.errors import WeightsError


def read_variables(
    path: Path,
    layout: Iterable[tuple[str, int, tuple[int, ...]]],
    sha256: str,
) -> Tensors:
    """Read float32 variables at known places of a pinned data file.

    Args:
        path: `variables.data-00000-of-00001` of the SavedModel.
        layout: name, offset in bytes and shape of each variable.
        sha256: digest of the whole file; the layout holds for no other.

    Returns:
        The variables by name.

    Raises:
        WeightsError: the file has another digest.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path.name} of the SavedModel has another checksum:\n"
            f"  found    sha256 {found}\n  expected sha256 {sha256}\n"
            f"The download is damaged or was altered; try again."
        )
    tensors = {}
    for name, offset, shape in layout:
        count = int(np.prod(shape))
        values = np.frombuffer(data, dtype="<f4", count=count, offset=offset)
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors
