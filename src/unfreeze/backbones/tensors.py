"""Weights as plain named arrays, and the digest that makes them trustworthy.

Invariant: wherever weights come from, they are compared as the same set of
named float32 tensors with one pinned sha256. So the file format does not
matter, and a damaged or different file is refused before a model sees it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.errors import WeightsError

Tensors = dict[str, np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """One place in the network that has the weights.

    Attributes:
        label: what the user reads when it fails.
        fetch: gets an empty folder for its files and a progress callback,
            returns the tensors; raises WeightsError with the cause.
    """

    label: str
    fetch: Callable[[Path, Progress | None], Tensors]


@dataclass(frozen=True)
class WeightsSpec:
    """What the weights of one backbone must be, and where they can be had.

    Attributes:
        name: the backbone's name.
        shapes: shape of each tensor by its canonical name, `layer/variable`,
            in the order of the network.
        sha256: `tensor_digest` of the published weights.
        sources: places in the network, in the order they are tried.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    sha256: str
    sources: tuple[Source, ...]

    @property
    def env(self) -> str:
        """Environment variable that holds the path of a file of the user."""
        return f"UNFREEZE_{self.name.upper()}_WEIGHTS"


def tensor_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of a set of tensors, whatever file they were in.

    Args:
        tensors: arrays by name; read as little-endian float32, C order.

    Returns:
        64 hexadecimal digits over the names, shapes and bytes, sorted by name.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_tensors(tensors: Mapping[str, np.ndarray], spec: WeightsSpec, where: str) -> None:
    """Refuse tensors that are not the published weights.

    Args:
        tensors: arrays by canonical name.
        spec: what they must be.
        where: the file or source, for the message.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape, or the
            digest differs.
    """
    faults = [f"{name} is missing" for name in spec.shapes if name not in tensors]
    faults += [f"{name} is unknown" for name in tensors if name not in spec.shapes]
    for name in tensors.keys() & spec.shapes.keys():
        if tuple(tensors[name].shape) != spec.shapes[name]:
            found, expected = tuple(tensors[name].shape), spec.shapes[name]
            faults.append(f"{name} has shape {found}, expected {expected}")
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise WeightsError(
            f"{where} does not hold the weights of {spec.name}: "
            f"{'; '.join(sorted(faults)[:3])}{more}."
        )
    found_digest = tensor_digest(tensors)
    if found_digest != spec.sha256:
        raise WeightsError(
            f"{where} does not hold the published weights of {spec.name}: the checksum of its "
            f"tensors is\n  found    sha256 {found_digest}\n  expected sha256 {spec.sha256}\n"
            f"The file is damaged, or it holds other weights. Delete it and run "
            f"`unfreeze weights --fetch`. (For weights of your own, build the backbone with "
            f"weights=None and call model.load_weights.)"
        )
