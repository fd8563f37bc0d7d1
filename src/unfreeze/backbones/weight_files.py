"""Read weights files into named tensors, and verify the tensors by a pinned checksum.

Formats of any backbone: `.safetensors` (ours); `.weights.h5`, as Keras 3 writes it for the model of
`yamnet_with_top`; a plain `.h5` in the older Keras layout, in which Google publishes
`yamnet.h5`; and the data file of a TensorFlow SavedModel, whose pinned sha256 fixes
the offset of each variable, so that its index need not be parsed. A backbone may have
readers of further formats (`WeightsSpec.readers`).

Invariant: whatever the format, weights are the same set of named float32 tensors with
one pinned sha256. `check_tensors` refuses a damaged or different file before a model
sees it; `read_tensors` does not verify.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from unfreeze.backbones.licence import Licence
from unfreeze.errors import WeightsError
from unfreeze.files import atomic_path, system_error

Tensors = dict[str, np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """One place on the network that has the weights.

    Attributes:
        label: its name in messages.
        fetch: takes an empty folder for its files and a progress callback, and
            returns the tensors; raises WeightsError with the cause.
    """

    label: str
    fetch: Callable[[Path, Progress | None], Tensors]


@dataclass(frozen=True)
class WeightsSpec:
    """What the weights of one backbone must be, and where they come from.

    Attributes:
        name: the backbone's name.
        shapes: shape of each tensor by its canonical name, `layer/variable`,
            in the order of the network.
        sha256: `tensor_digest` of the published weights; empty where it is not known, as those
            who wrote the record could not reach the file. Then names and shapes are checked.
        sources: places on the network, in the order they are tried; none where the user has to
            get the file.
        size: bytes of the weights as they are kept.
        licence: of the weights; None if it asks nothing of the user.
        readers: by suffix, what reads a file in the format they were published in.
        own_file: name of a file that users may have, for messages.
        beside: reads what belongs to the weights and is no tensor, such as the names of
            the published classes, from a user's file or the folder of a download; called
            with that and with the folder of the cached weights.
        url: where users can get that file, if it is not downloaded for them.
        file: of a network of the user's own, which holds its weights: the model's, or the card
            that names a function; None for ours.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    sha256: str
    sources: tuple[Source, ...]
    size: int = 0
    licence: Licence | None = None
    readers: Mapping[str, Callable[[Path], Tensors]] = field(default_factory=dict)
    own_file: str = ""
    beside: Callable[[Path, Path], None] | None = None
    url: str = ""
    file: Path | None = None

    @property
    def env(self) -> str:
        """Environment variable for the path of the user's own file."""
        return f"UNFREEZE_{self.name.upper().replace('-', '_')}_WEIGHTS"

    @property
    def fetch_command(self) -> str:
        """The command that downloads the weights, or reads the file that the user got."""
        if not self.sources:
            return f"unfreeze weights --path {self.own_file} --backbone {self.name}"
        return f"unfreeze weights --fetch --backbone {self.name}"


def tensor_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of a set of tensors, whatever the format of their file.

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
    if not spec.sha256:
        return
    found_digest = tensor_digest(tensors)
    if found_digest != spec.sha256:
        raise WeightsError(
            f"{where} does not hold the published weights of {spec.name}: the checksum of its "
            f"tensors is\n  found    sha256 {found_digest}\n  expected sha256 {spec.sha256}\n"
            f"The file is damaged, or it holds other weights. Delete it and run "
            f"`{spec.fetch_command}`. (To use weights of your own, build the backbone with "
            f"weights=None and call model.load_weights.)"
        )


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
            f"{path.name} of the SavedModel has the wrong checksum:\n"
            f"  found    sha256 {found}\n  expected sha256 {sha256}\n"
            f"The download is damaged or was changed; try again."
        )
    tensors = {}
    for name, offset, shape in layout:
        count = int(np.prod(shape))
        values = np.frombuffer(data, dtype="<f4", count=count, offset=offset)
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors


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


def read_tensors(
    path: Path, shapes: Shapes, readers: Mapping[str, Callable[[Path], Tensors]] | None = None
) -> Tensors:
    """Read a weights file in any of the three formats, or in one of the backbone's own.

    Args:
        path: a `.safetensors`, `.weights.h5` or older Keras `.h5` file.
        shapes: canonical names in the order of the network; the HDF5 layouts lack
            these names, so their tensors are matched by layer and order.
        readers: further formats by suffix.

    Returns:
        The tensors by canonical name, not verified.

    Raises:
        WeightsError: the file is missing or unreadable, or has an unknown suffix.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file at {path}. Correct the path.")
    try:
        if readers and path.suffix in readers:
            return readers[path.suffix](path)
        if path.suffix == ".safetensors":
            return dict(safetensors.numpy.load_file(path))
        if path.suffix in {".h5", ".hdf5"}:
            return _read_hdf5(path, shapes)
    except WeightsError:
        raise
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path} cannot be read as weights: {error}. "
            f"The file may be incomplete; copy it again, or download it with "
            f"`unfreeze weights --fetch`, and --backbone for another network than YAMNet."
        ) from error
    more = "".join(f"{suffix}, " for suffix in readers or ())
    raise WeightsError(
        f"{path} has an unknown suffix; give a {more}.safetensors, .weights.h5 or .h5 file."
    )


def write_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write tensors atomically, with metadata on where they come from.

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
    # Imported late: HDF5 is only needed for the user's own files.
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
                f"{file.filename} has variables of a layer `{layer}`, which the network does not "
                f"have; it was saved from another model."
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
            f"it was saved from another model."
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
