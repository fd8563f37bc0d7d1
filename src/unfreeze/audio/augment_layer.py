"""A layer that changes log-mel patches at random: every training step draws new ones."""

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from unfreeze.audio.augmentation import Augmentation

# How much weaker the added patch is than its own level, in dB of amplitude.
_WEAKER = (5.0, 20.0)
_NEPER = 8.685889638


@keras.saving.register_keras_serializable(package="unfreeze")
class AugmentPatches(keras.layers.Layer):
    """Changes patches (batch, frames, bands) at random in training; else does nothing.

    Args:
        augmentation: how much.
        seed: of the random numbers.
    """

    def __init__(self, augmentation: Augmentation, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.augmentation = augmentation
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, patches: Any, training: bool | None = None) -> Any:
        """Shape is kept."""
        if not training:
            return patches
        # Half precision would round places in a patch.
        how, x = self.augmentation, ops.cast(patches, "float32")
        batch, frames, bands = ops.shape(x)[0], x.shape[1], x.shape[2]
        if how.shift:
            start = ops.floor(self._even(batch, -how.shift, how.shift + 1))
            x = _resampled(x, ops.arange(frames, dtype=x.dtype)[None] + start, axis=1)
        if how.warp:
            factor = 1 + self._even(batch, -how.warp, how.warp)
            x = _resampled(x, ops.arange(bands, dtype=x.dtype)[None] * factor, axis=2)
        if how.level:
            x = x + how.level * self._normal((batch, 1, 1))
        if how.response:
            x = x + how.response * self._curve(batch, bands)
        if how.mix:
            x = ops.where(self._even(batch, 0, 1)[:, :, None] < how.mix, self._mixed(x, batch), x)
        middle = ops.mean(x, axis=(1, 2), keepdims=True)
        for _ in range(how.band_masks):
            x = ops.where(self._stretch(batch, bands, how.band_width)[:, None, :], middle, x)
        for _ in range(how.frame_masks):
            x = ops.where(self._stretch(batch, frames, how.frame_width)[:, :, None], middle, x)
        return ops.cast(x, patches.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape is kept."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """For saving; without the seed, so that runs with other seeds share their caches."""
        return {**super().get_config(), "augmentation": asdict(self.augmentation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AugmentPatches":
        """From `get_config`."""
        return cls(**{**config, "augmentation": Augmentation(**config["augmentation"])})

    def _mixed(self, x: Any, batch: Any) -> Any:
        """Each patch with its neighbour in the batch, which has a random order, behind it."""
        weaker = self._even(batch, *_WEAKER)[:, :, None] / _NEPER
        return ops.logaddexp(x, ops.roll(x, 1, axis=0) - weaker)

    def _even(self, batch: Any, low: float, high: float) -> Any:
        return keras.random.uniform((batch, 1), low, high, "float32", self.seed_generator)

    def _normal(self, shape: tuple[Any, ...]) -> Any:
        return keras.random.normal(shape, dtype="float32", seed=self.seed_generator)

    def _curve(self, batch: Any, bands: int) -> Any:
        """A smooth curve over the bands: three cosines of random weight."""
        place = ops.arange(bands, dtype="float32") / bands
        waves = ops.stack([ops.cos(3.14159265 * k * place) for k in (1, 2, 3)])
        return ops.matmul(self._normal((batch, 1, 3)), waves)

    def _stretch(self, batch: Any, length: int, widest: int) -> Any:
        """(batch, length) bool: a stretch of 0 to `widest`, anywhere."""
        width = ops.floor(self._even(batch, 0, widest + 1))
        begin = ops.floor(self._even(batch, 0, 1) * (length - width + 1))
        place = ops.arange(length, dtype="float32")[None]
        return ops.logical_and(place >= begin, place < begin + width)


def _resampled(x: Any, place: Any, axis: int) -> Any:
    """The values of patches at fractional places along an axis; edges are repeated."""
    last = x.shape[axis] - 1
    place = ops.clip(place, 0, last)
    low = ops.floor(place)
    share = ops.expand_dims(place - low, 3 - axis)
    low = ops.cast(low, "int32")
    high = ops.minimum(low + 1, last)
    below, above = (
        ops.take_along_axis(x, ops.expand_dims(index, 3 - axis), axis=axis) for index in (low, high)
    )
    return below * (1 - share) + above * share
