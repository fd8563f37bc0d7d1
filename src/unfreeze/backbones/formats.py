"""The three file formats of weights, read into named tensors.

`.safetensors` is ours; `.weights.h5` is what Keras 3 writes for the model that
`yamnet_with_top` builds; a plain `.h5` is the older Keras layout, in which
Google publishes `yamnet.h5`. Nothing is verified here: see `check_tensors`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from unfreeze.backbones.tensors import Tensors
from unfreeze.errors import WeightsError
from unfreeze.files import atomic_path, system_error

Shapes = Mapping[str, tuple[int, ...]]

# What h5py and safetensors raise on files that are cut off or of another layout.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    MemoryError,  # sizes that only the file's header claims
    safetensors.SafetensorError,
)


def read_tensors(path: Path, shapes: Shapes) -> Tensors:
    """Read a file of weights, whichever of the three formats it has.

    Args:
        path: a `.safetensors`, `.weights.h5` or older Keras `.h5` file.
        shapes: canonical names in the order of the network; the HDF5 layouts
            hold no such names, so theirs are found by layer and order.

    Returns:
        The tensors by canonical name, not verified.

    Raises:
        WeightsError: no such file, unknown suffix, or not readable as such.
    """
    if not path.is_file():
        raise WeightsError(f"There is no file of weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.numpy.load_file(path))
        if path.suffix in {".h5", ".hdf5"}:
            return _read_hdf5(path, shapes)
    except WeightsError:
        raise
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path} cannot be read as weights: {error}. "
            f"It may be cut off; copy it again, or run `unfreeze weights --fetch`."
        ) from error
    raise WeightsError(
        f"{path} has an unknown suffix; give a .safetensors, .weights.h5 or .h5 file."
    )


def write_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write tensors atomically, with a few words on where they come from.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with atomic_path(path) as partial:
            safetensors.numpy.save_file(tensors, partial, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise system_error(error, path) from None


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a `.safetensors` file; empty when unreadable."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return {}


def _read_hdf5(path: Path, shapes: Shapes) -> Tensors:
    # Imported late: HDF5 is only needed for files that the user brings.
    import h5py

    with h5py.File(path, "r") as file:
        if "layers" in file:
            return _read_keras3(file, shapes)
        return _read_legacy(file, shapes)


def _variables_by_layer(shapes: Shapes) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name in shapes:
        layer, variable = name.rsplit("/", 1)
        layers.setdefault(layer, []).append(variable)
    return layers


def _read_keras3(file: Any, shapes: Shapes) -> Tensors:
    # Keras 3 numbers the variables of a layer and keeps the layer's name as
    # an attribute of the group.
    layers = _variables_by_layer(shapes)
    tensors: Tensors = {}
    for group in file["layers"].values():
        variables = group["vars"]
        layer = str(variables.attrs.get("name", ""))
        arrays = [np.asarray(variables[key]) for key in sorted(variables, key=int)]
        names = layers.get(layer, [])
        if len(names) < len(arrays):
            raise WeightsError(
                f"{file.filename} has variables of a layer `{layer}` that the network lacks; "
                f"it was saved from another model."
            )
        tensors |= {f"{layer}/{name}": a for name, a in zip(names, arrays, strict=False)}
    return tensors


def _read_legacy(file: Any, shapes: Shapes) -> Tensors:
    # Layers appear in the order of the network but under the names of their
    # author; so they are paired with ours by order, and variables by kind.
    layers = _variables_by_layer(shapes)
    found = list(_legacy_layers(file.get("model_weights", file)))
    if len(found) != len(layers):
        raise WeightsError(
            f"{file.filename} has {len(found)} layers with weights, expected {len(layers)}; "
            f"it holds another network."
        )
    tensors: Tensors = {}
    for layer, variables in zip(layers, found, strict=True):
        tensors |= {f"{layer}/{kind}": array for kind, array in variables.items()}
    return tensors


def _legacy_layers(root: Any) -> Iterator[dict[str, np.ndarray]]:
    for layer in _texts(root.attrs["layer_names"]):
        group = root[layer]
        names = _texts(group.attrs["weight_names"])
        if names:
            yield {_kind(name): np.asarray(group[name]) for name in names}


def _kind(name: str) -> str:
    kind = name.rsplit("/", 1)[-1].split(":")[0]
    # Keras 3 calls the kernel of a depthwise convolution just `kernel`.
    return "kernel" if kind == "depthwise_kernel" else kind


def _texts(values: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
