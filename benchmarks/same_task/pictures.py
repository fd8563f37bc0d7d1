"""Two synthetic tasks on pictures of 32 x 32: flowers, told apart by petals and by texture.

A picture has one flower of a random place, size, angle and bright colour on a ground of
a dark one, with noise. The source task has twelve classes: 2 to 5 petals, each plain, striped or
dotted. The target task has five, 2 to 6 petals, in few and other pictures: the textures are
mixed (a checkered one is new), flowers have holes, the noise is stronger. NumPy only.
"""

from typing import NamedTuple

import numpy as np

SIZE = 32
SOURCE_CLASSES, TARGET_CLASSES = 12, 5
TRAIN, VALIDATION, TEST = 300, 150, 1000


class Part(NamedTuple):
    """Pictures (samples, 32, 32, 3) of about -1 to 1, float32; labels (samples,), int64."""

    x: np.ndarray
    y: np.ndarray


class Target(NamedTuple):
    """The three parts of the target task."""

    train: Part
    validation: Part
    test: Part


def source(count: int, seed: int = 0) -> Part:
    """Pictures of the task that the network is pretrained on."""
    rng = np.random.default_rng([0, seed])
    y = rng.integers(SOURCE_CLASSES, size=count)
    return Part(_draw(rng, 2 + y // 3, y % 3, noise=0.1), y)


def target(seed: int = 0) -> Target:
    """The task that the network is tuned on; each seed draws other pictures."""
    rng = np.random.default_rng([1, seed])
    y = rng.integers(TARGET_CLASSES, size=TRAIN + VALIDATION + TEST)
    x = _draw(rng, 2 + y, rng.integers(4, size=len(y)), noise=0.3, hole=0.35)
    ends = np.cumsum([TRAIN, VALIDATION])
    return Target(*map(Part, np.split(x, ends), np.split(y, ends)))


def _draw(
    rng: np.random.Generator,
    petals: np.ndarray,
    texture: np.ndarray,
    noise: float,
    hole: float = 0.0,
) -> np.ndarray:
    count = len(petals)

    def one(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (count, *(shape or (1, 1))))

    line = np.linspace(-1, 1, SIZE)
    down, right = line[:, None] - one(-0.2, 0.2), line[None, :] - one(-0.2, 0.2)
    angle = np.arctan2(down, right) + one(-0.4, 0.4)
    edge = one(0.45, 0.65) * (1 + 0.45 * np.cos(petals[:, None, None] * angle))
    away = np.hypot(down, right)
    inside = (away < edge) & (away > hole * edge)
    wide = one(8, 14)
    waves_down, waves_right = np.sin(wide * down), np.sin(wide * right)
    plain, striped = np.ones_like(away), np.sign(waves_down)
    dotted = np.where((waves_down > 0) & (waves_right > 0), -1.0, 1.0)
    checkered = np.sign(waves_down * waves_right)
    textures = np.stack(np.broadcast_arrays(plain, striped, dotted, checkered))
    shade = 0.65 + 0.35 * textures[texture, np.arange(count)]
    flower, ground = one(0, 1, 1, 1, 3), one(-1, -0.2, 1, 1, 3)
    x = np.where(inside[..., None], flower * shade[..., None], ground)
    return (x + rng.normal(0, noise, x.shape)).astype(np.float32)
