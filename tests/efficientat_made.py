"""Weights and sounds for EfficientAT that a formula gives, so that no file has to hold them."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

#: What the reference made of them; by tools/efficientat_reference.py.
NUMBERS = Path(__file__).with_name("backbones") / "efficientat_reference.npz"
#: The frames of each spectrogram whose numbers are kept.
FRAMES = (0, 1, 2, 3, 60, 111, 196, 197, 198, 199)
SAMPLES = 64_000


def even(name: str, count: int) -> np.ndarray:
    """(count,) float64 in [-1, 1), without a pattern; whole numbers alone, so alike everywhere."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2_654_435_761)
    x = x + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((15, 2_246_822_519), (13, 3_266_489_917), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x / 2.0**31 - 1


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a state dict with this name, such that sounds leave a trace in the output."""
    if name.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    x = even(name, int(np.prod(shape))).reshape(shape)
    if len(shape) > 1:
        spread = 2.0 if "classifier" in name or "se_layers" in name else 5.2
        return (x * np.sqrt(spread / np.prod(shape[1:]))).astype(np.float32)
    # BatchNorm: a scale near 1, a small mean, a variance near 1; and small biases.
    centre = 1.0 if name.endswith(("running_var", ".1.weight")) else 0.0
    return (centre + 0.3 * x).astype(np.float32)


def state(names: Iterable[str], shapes: Iterable[str]) -> dict[str, np.ndarray]:
    """A state dict by the names and shapes that `NUMBERS` keeps."""
    sizes = (tuple(int(n) for n in shape.split("x") if n) for shape in shapes)
    return {str(name): tensor(str(name), size) for name, size in zip(names, sizes, strict=True)}


def sounds() -> np.ndarray:
    """(3, SAMPLES) float32: noise that fades, a chord that swells, clicks in silence."""
    time = np.arange(SAMPLES) / 32_000
    noise = 0.3 * even("noise", SAMPLES) * np.exp(-2 * time)
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220.0, 1_370.0, 6_250.0))
    clicks = np.zeros(SAMPLES)
    clicks[[0, 9_000, 31_000, SAMPLES - 2]] = 0.9, -0.5, 0.7, 0.8
    found = np.stack([noise, 0.2 * chord * time / 2 + 1e-4 * even("hiss", SAMPLES), clicks])
    return found.astype(np.float32)
