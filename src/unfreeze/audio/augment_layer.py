"""A layer that changes log-mel patches at random: every training step draws new ones."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from unfreeze.audio.augmentation import Augmentation

# How much weaker the added patch is than its own level, in dB of amplitude.
_WEAKER = (5.0, 20.0)
_NEPER = 8.685889638
# Powers below this are nothing, in patches that hold no logarithms.
_LEAST = 1e-3


@keras.saving.register_keras_serializable(package="unfreeze")
class AugmentPatches(keras.layers.Layer):
    """Changes patches (batch, frames, bands) at random in training; else does nothing.

    Patches may have several spectrograms, (batch, frames, bands, spectrograms), that are
    changed alike, and hold powers instead of logarithms (`FrontEnd.powers`): changes are made
    to their logarithms then. The level stays, as the samples of such a patch are scaled.

    Args:
        augmentation: how much.
        seed: of the random numbers.
        powers: of each spectrogram, the exponent of its squared mel values; empty where
            patches hold logarithms.
        scale: how many times more frames and bands patches have than the settings are for.
        unit: of patches that hold logarithms, by how much a value grows where the amplitude
            grows by a factor of e.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        seed: int | None = None,
        powers: Sequence[float] = (),
        scale: Sequence[float] = (1.0, 1.0),
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.augmentation, self.powers, self.scale = augmentation, tuple(powers), tuple(scale)
        self.unit = unit
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, patches: Any, training: bool | None = None) -> Any:
        """Shape is kept."""
        if not training:
            return patches
        # Half precision would round places in a patch.
        x = ops.cast(patches, "float32")
        if not self.powers:
            if self.unit != 1:
                x = x / self.unit
            changed = self._changed([x])[0]
            return ops.cast(changed * self.unit if self.unit != 1 else changed, patches.dtype)
        # Twice the exponent, as that is of the squares.
        logs = [
            ops.log(ops.maximum(x[..., i], _LEAST)) / (2 * power)
            for i, power in enumerate(self.powers)
        ]
        found = [
            ops.exp(2 * power * log)
            for power, log in zip(self.powers, self._changed(logs), strict=True)
        ]
        return ops.cast(ops.stack(found, axis=-1), patches.dtype)

    def _changed(self, each: list[Any]) -> list[Any]:
        """The same changes to each of some spectrograms (batch, frames, bands)."""
        how, first = self.augmentation, each[0]
        batch, frames, bands = ops.shape(first)[0], first.shape[1], first.shape[2]
        longer, wider = self.scale
        if how.shift:
            most = round(how.shift * longer)
            start = ops.floor(self._even(batch, -most, most + 1))
            places = ops.arange(frames, dtype="float32")[None] + start
            each = [_resampled(x, places, axis=1) for x in each]
        if how.warp:
            factor = 1 + self._even(batch, -how.warp, how.warp)
            places = ops.arange(bands, dtype="float32")[None] * factor
            each = [_resampled(x, places, axis=2) for x in each]
        if how.level and not self.powers:
            level = how.level * self._normal((batch, 1, 1))
            each = [x + level for x in each]
        if how.response:
            curve = how.response * self._curve(batch, bands)
            each = [x + curve for x in each]
        if how.mix:
            drawn = self._even(batch, 0, 1)[:, :, None] < how.mix
            weaker = self._even(batch, *_WEAKER)[:, :, None] / _NEPER
            each = [ops.where(drawn, _mixed(x, weaker), x) for x in each]
        middles = [ops.mean(x, axis=(1, 2), keepdims=True) for x in each]
        for _ in range(how.band_masks):
            masked = self._stretch(batch, bands, round(how.band_width * wider))[:, None, :]
            each = [ops.where(masked, m, x) for m, x in zip(middles, each, strict=True)]
        for _ in range(how.frame_masks):
            masked = self._stretch(batch, frames, round(how.frame_width * longer))[:, :, None]
            each = [ops.where(masked, m, x) for m, x in zip(middles, each, strict=True)]
        return each

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape is kept."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """For saving; without the seed, so that runs with other seeds share their caches."""
        more: dict[str, Any] = {}
        if self.powers:
            more = {"powers": list(self.powers), "scale": list(self.scale)}
        if self.unit != 1:
            more = {"scale": list(self.scale), "unit": self.unit}
        return {**super().get_config(), "augmentation": asdict(self.augmentation), **more}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AugmentPatches":
        """From `get_config`."""
        return cls(**{**config, "augmentation": Augmentation(**config["augmentation"])})

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


def _mixed(x: Any, weaker: Any) -> Any:
    """Each patch with its neighbour in the batch, which has a random order, behind it."""
    return ops.logaddexp(x, ops.roll(x, 1, axis=0) - weaker)


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
