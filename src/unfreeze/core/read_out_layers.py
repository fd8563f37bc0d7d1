"""The fixed layers of a read-out: pooling, compression, projection, parts of a vector.

They import Keras alone, so that importing Keras can register them (see `unfreeze`) whatever
module of this package is half-way through its own import.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="unfreeze")
class MeanPool(keras.layers.Layer):
    """Mean over some axes of a tensor, the rest as one vector per sample.

    Masked tokens do not count where the axis of tokens, 1, is averaged.

    Args:
        axes: those to average over, counted with the batch as 0.
    """

    def __init__(self, axes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = tuple(axes)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """(batch, ...) -> (batch, numbers)."""
        if mask is not None and 1 in self.axes:
            ones = (1,) * (len(x.shape) - 2)
            weight = ops.cast(ops.reshape(mask, (*ops.shape(mask), *ones)), x.dtype)
            total = ops.maximum(ops.sum(weight, axis=1, keepdims=True), 1)
            x = ops.sum(x * weight, axis=1, keepdims=True) / total
        return ops.reshape(ops.mean(x, axis=self.axes), (-1, self._numbers(x.shape)))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The result has no tokens left to mask."""

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], mask_shape: Any = None
    ) -> tuple[int | None, ...]:
        """One vector per sample."""
        return (x_shape[0], self._numbers(x_shape))

    def _numbers(self, shape: tuple[int | None, ...]) -> int | None:
        sizes = [n for axis, n in enumerate(shape) if axis and axis not in self.axes]
        known = [n for n in sizes if n is not None]
        return math.prod(known) if len(known) == len(sizes) else None

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "axes": list(self.axes)}


@keras.saving.register_keras_serializable(package="unfreeze")
class Compress(keras.layers.Layer):
    """x / sqrt(|x| + 0.001): the root of large values, linear near 0, where a root has no slope.

    Pooled activations have long tails; their roots are nearer to normal, which suits PCA
    and a linear head.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def call(self, x: Any) -> Any:
        """Shape is kept."""
        return x * ops.rsqrt(ops.abs(x) + 1e-3)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape is kept."""
        return input_shape


@keras.saving.register_keras_serializable(package="unfreeze")
class Projection(keras.layers.Layer):
    """A fixed linear map, fitted by `adapt` and never trained: standardization and PCA in one.

    Args:
        components: numbers in the result.
    """

    # No stage updates it, whatever it trains.
    is_fixed = True

    def __init__(self, components: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = components

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights; 0 until they are fitted."""
        self.kernel = self.add_weight(
            (input_shape[-1], self.components), "zeros", trainable=False, name="kernel"
        )
        self.bias = self.add_weight((self.components,), "zeros", trainable=False, name="bias")

    @property
    def is_fitted(self) -> bool:
        """Whether `adapt` has been called, or fitted weights were loaded."""
        return bool(np.any(ops.convert_to_numpy(self.kernel)))

    def call(self, x: Any) -> Any:
        """(batch, numbers) -> (batch, components)."""
        return ops.matmul(x, self.kernel) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """One vector per sample."""
        return (*input_shape[:-1], self.components)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "components": self.components}


@keras.saving.register_keras_serializable(package="unfreeze")
class Part(keras.layers.Layer):
    """Some of the numbers of a vector: (batch, numbers) to (batch, end - first).

    Args:
        first: the first of them.
        end: behind the last.
    """

    def __init__(self, first: int, end: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.end = first, end

    def call(self, x: Any) -> Any:
        """Take them."""
        return x[:, self.first : self.end]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """One vector per sample."""
        return (input_shape[0], self.end - self.first)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "first": self.first, "end": self.end}
