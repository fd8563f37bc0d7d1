"""The facts about EfficientAT that need no Keras: layers, tensors, front end, source.

Source: Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via
Transformer-to-CNN Knowledge Distillation", ICASSP 2023 (arXiv:2211.04772), and
github.com/fschmid56/EfficientAT (MIT). The network is MobileNetV3-Large (Howard et al. 2019,
arXiv:1905.02244) of several widths; `mn04` and `mn10` are 0.4 and 1 times as wide.

PyTorch lays a patch out as channels, bands, frames. Ours is frames by bands, as patches are
everywhere in this package, so each kernel's axes are exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.backbones import yamnet_spec
from unfreeze.backbones.frontend import LogMelWindows
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.torch_file import read_state_dict
from unfreeze.backbones.weight_files import Tensors, WeightsSpec
from unfreeze.errors import WeightsError, show

CLASSES = 527
#: Names of the dense layers behind the embedding.
HIDDEN, TOP = "hidden", "logits"

#: 2 s of sound at 32 kHz, every second. The network was trained on 10 s and takes any length;
#: a shorter window tells where in a recording a sound is.
FRONT_END = LogMelWindows(
    sample_rate=32_000,
    window=64_000,
    hop=32_000,
    fft=1024,
    bands=128,
    low_hz=0.0,
    high_hz=15_000.0,
    log_offset=1e-5,
    patch_frames=1,
    patch_hop=1,
    min_samples=64_000,
    smallest_hop=320,
    frame=800,
    frame_hop=320,
    preemphasis=0.97,
    shift=4.5,
    divisor=5.0,
)

# Kernel, channels inside, channels that leave, squeeze and excite, hard swish, stride of each
# block at width 1 (table 1 of the paper on MobileNetV3).
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_STEM, _HIDDEN_UNITS = 16, 1280
#: Number of what comes after the blocks: a last convolution, 1 x 1.
LAST = len(_BLOCKS) + 1


@dataclass(frozen=True)
class Block:
    """A block of the network: expand, filter each channel, weigh the channels, project.

    Attributes:
        entering: channels that enter it.
        kernel: positions of the depthwise filter, each way.
        expanded: channels inside the block; no layer expands where as many enter.
        filters: channels that leave it.
        squeezed: units that weigh the channels ("squeeze and excite"); 0 for none.
        hard_swish: the activation; else ReLU.
        stride: 2 halves the resolution.
    """

    entering: int
    kernel: int
    expanded: int
    filters: int
    squeezed: int
    hard_swish: bool
    stride: int

    @property
    def expands(self) -> bool:
        """Whether a layer expands."""
        return self.expanded != self.entering

    @property
    def adds(self) -> bool:
        """Whether what entered is added to what leaves."""
        return self.stride == 1 and self.entering == self.filters


@dataclass(frozen=True)
class Size:
    """One of the networks, which differ in their width.

    Attributes:
        name: the name of the backbone.
        width: channels, as a multiple of those of MobileNetV3-Large.
        file: name of the published file.
        bytes: of its weights, as they are kept.
    """

    name: str
    width: float
    file: str
    bytes: int

    @property
    def stem(self) -> int:
        """Filters of the first convolution, 3 x 3."""
        return wide(_STEM, self.width)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, from block 1 on."""
        found, entering = [], self.stem
        for kernel, expanded, filters, squeezes, hard_swish, stride in _BLOCKS:
            inside, leaving = wide(expanded, self.width), wide(filters, self.width)
            squeezed = wide(inside // 4) if squeezes else 0
            found.append(Block(entering, kernel, inside, leaving, squeezed, hard_swish, stride))
            entering = leaving
        return tuple(found)

    @property
    def embedding_size(self) -> int:
        """Filters of the last convolution."""
        return 6 * self.blocks[-1].filters

    @property
    def hidden(self) -> int:
        """Units between the embedding and the classes."""
        return wide(_HIDDEN_UNITS, self.width)

    @property
    def url(self) -> str:
        """Where the file was published."""
        return f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{self.file}"


def wide(channels: int, width: float = 1.0) -> int:
    """So many channels at another width: a multiple of 8, and not below nine tenths.

    Examples:
        >>> wide(40, 0.4), wide(112, 0.4), wide(16, 0.4)
        (16, 48, 8)
    """
    wanted = channels * width
    found = max(8, int(wanted + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wanted else found


MN04 = Size("efficientat-mn04", 0.4, "mn04_as_mAP_432.pt", 3_990_000)
MN10 = Size("efficientat-mn10", 1.0, "mn10_as_mAP_471.pt", 19_600_000)

SIZES = (MN04, MN10)

# Classes of AudioSet that YAMNet was not trained on, and their places.
_MORE_CLASSES = {
    1: "Male speech, man speaking",
    2: "Female speech, woman speaking",
    12: "Battle cry",
    32: "Male singing",
    33: "Female singing",
    277: "Funny music",
}

LICENCE = Licence(
    name="MIT",
    url="https://github.com/fschmid56/EfficientAT/blob/main/LICENSE",
    of="EfficientAT and its weights",
    credit="Florian Schmid, Khaled Koutini and Gerhard Widmer, Johannes Kepler University Linz",
)


def class_names() -> tuple[str, ...]:
    """Return the 527 names of AudioSet's classes, in the scores' order."""
    names = list(yamnet_spec.class_names())
    for place, name in _MORE_CLASSES.items():
        names.insert(place, name)
    return tuple(names)


def tensor_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name, in the order of the network."""
    return {
        f"{layer.name}/{variable}": shape
        for layer in layers(size)
        for variable, shape in layer.variables.items()
    }


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and what it is called in the published file.

    Attributes:
        name: ours.
        published: its name there.
        kernel: shape of its kernel; empty for a BatchNorm.
        units: its outputs.
        use_bias: whether it has a bias.
    """

    name: str
    published: str
    kernel: tuple[int, ...]
    units: int
    use_bias: bool = False

    @property
    def variables(self) -> dict[str, tuple[int, ...]]:
        """Shape of each variable, by name."""
        if not self.kernel:
            return dict.fromkeys(_BATCH_NORM, (self.units,))
        bias = {"bias": (self.units,)} if self.use_bias else {}
        return {"kernel": self.kernel, **bias}


# A BatchNorm's variables, and their names in PyTorch.
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNT = "num_batches_tracked"


def layers(size: Size) -> Iterator[Layer]:
    """The layers with weights, in the order of the network."""
    yield from _conv_norm("block0_conv", "features.0", (3, 3, 1, size.stem))
    for number, block in enumerate(size.blocks, start=1):
        name, published, inside = f"block{number}", f"features.{number}.block", block.expanded
        step = 0
        if block.expands:
            kernel: tuple[int, ...] = (1, 1, block.entering, inside)
            yield from _conv_norm(f"{name}_expand", f"{published}.{step}", kernel)
            step += 1
        kernel = (block.kernel, block.kernel, inside, 1)
        yield from _conv_norm(f"{name}_depthwise", f"{published}.{step}", kernel)
        step += 1
        if block.squeezed:
            part, units = f"{published}.{step}.conc_se_layers.0", block.squeezed
            yield Layer(f"{name}_squeeze_conv", f"{part}.fc1", (1, 1, inside, units), units, True)
            yield Layer(f"{name}_excite_conv", f"{part}.fc2", (1, 1, units, inside), inside, True)
            step += 1
        kernel = (1, 1, inside, block.filters)
        yield from _conv_norm(f"{name}_project", f"{published}.{step}", kernel)
    kernel = (1, 1, size.blocks[-1].filters, size.embedding_size)
    yield from _conv_norm(f"block{LAST}_conv", f"features.{LAST}", kernel)
    yield Layer(HIDDEN, "classifier.2", (size.embedding_size, size.hidden), size.hidden, True)
    yield Layer(TOP, "classifier.5", (size.hidden, CLASSES), CLASSES, True)


def _conv_norm(name: str, published: str, kernel: tuple[int, ...]) -> Iterator[Layer]:
    """A convolution without a bias, and the BatchNorm behind it."""
    units = kernel[2] if kernel[3] == 1 else kernel[3]
    yield Layer(name, f"{published}.0", kernel, units)
    yield Layer(f"{name}_bn", f"{published}.1", (), units)


def converted(state: Tensors, size: Size, where: str) -> Tensors:
    """Name and lay out the published tensors as ours.

    Args:
        state: arrays by the names of PyTorch; each is used, but for the counts of batches.
        size: of the network.
        where: the file, for messages.

    Returns:
        float32 tensors by canonical name.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or kind, or has values
            that are no finite numbers.
    """
    left = {name: array for name, array in state.items() if not name.endswith(f".{_COUNT}")}
    tensors: Tensors = {}
    for layer in layers(size):
        for variable, shape in layer.variables.items():
            own = _BATCH_NORM.get(variable, "weight" if variable == "kernel" else "bias")
            name = f"{layer.published}.{own}"
            if name not in left:
                raise _refused(size, where, f"{name} is missing")
            array = left.pop(name)
            if array.dtype.kind != "f":
                raise _refused(size, where, f"{name} holds {array.dtype} numbers")
            if variable == "kernel":
                array = _kernel(array, shape)
            if array.shape != shape:
                found = state[name].shape
                raise _refused(size, where, f"{name} has shape {found}, which does not fit")
            if not np.isfinite(array).all():
                raise _refused(size, where, f"{name} has values that are no finite numbers")
            tensors[f"{layer.name}/{variable}"] = np.ascontiguousarray(array, dtype="<f4")
    if left:
        raise _refused(size, where, f"{show(next(iter(left)))[:80]} is unknown")
    return tensors


def _refused(size: Size, where: str, cause: str) -> WeightsError:
    return WeightsError(
        f"{where} does not hold the weights of {size.name}: {cause}. The file to give is "
        f"{size.file}, from {size.url}"
    )


def _kernel(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel in the order of our axes, if it is one of so many axes."""
    if array.ndim == 2:
        # Squeeze and excite is a dense layer there, and here a convolution of one position.
        return array.T if len(shape) == 2 else array.T[np.newaxis, np.newaxis]
    if array.ndim != 4 or len(shape) != 4:
        return array
    # Out, in, bands, frames; a depthwise kernel has its channels in front, too.
    return array.transpose(3, 2, 0, 1) if shape[3] == 1 else array.transpose(3, 2, 1, 0)


def weights_spec(size: Size) -> WeightsSpec:
    """What the weights of one of the networks must be, and where they come from."""

    def read(path: Path) -> Tensors:
        return converted(read_state_dict(path), size, show(path))

    return WeightsSpec(
        name=size.name,
        shapes=tensor_shapes(size),
        sha256="",
        sources=(),
        size=size.bytes,
        licence=LICENCE,
        readers={".pt": read, ".pth": read},
        own_file=size.file,
        url=size.url,
    )
