"""A convolution of size 1 whose kernel gradient is one matrix product.

Such a convolution is a matrix product at each position, and so is its kernel's
gradient: inputs (positions, channels), transposed, times the outputs' gradient.
TensorFlow on a CPU has a slower way; a training step of YAMNet, nine tenths of
which are such convolutions, gained 4 % (docs/performance.md). Outputs and
the inputs' gradient are those of `keras.ops.conv`; the kernel's gradient differs
by rounding only.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from unfreeze.core.internals import conv_kernel_gradients_are_slow

Tensor = Any


def fits(layer: Any) -> bool:
    """Whether a convolution layer is one that `pointwise_conv` can run, where that pays."""
    return (
        conv_kernel_gradients_are_slow()
        and all(size == 1 for size in (*layer.kernel_size, *layer.strides))
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )


def pointwise_conv(inputs: Tensor, kernel: Tensor) -> Tensor:
    """Convolve with a kernel of size 1 and stride 1.

    Args:
        inputs: shape (batch, *positions, channels), channels known.
        kernel: shape (*ones, channels, filters), of the dtype of `inputs`.

    Returns:
        Shape (batch, *positions, filters).
    """
    outputs: Tensor = _with_gradient(inputs, kernel)
    return outputs


def _convolve(inputs: Tensor, kernel: Tensor) -> tuple[Tensor, Callable[..., Any]]:
    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
        channels, filters = kernel.shape[-2:]
        rows = ops.reshape(inputs, (-1, channels))
        product = ops.matmul(ops.transpose(rows), ops.reshape(upstream, (-1, filters)))
        rank = len(kernel.shape)
        turned = ops.transpose(kernel, (*range(rank - 2), rank - 1, rank - 2))
        back = ops.conv(upstream, turned, padding="same", data_format="channels_last")
        return back, ops.reshape(product, kernel.shape)

    return ops.conv(inputs, kernel, padding="same", data_format="channels_last"), gradient


_with_gradient: Callable[[Tensor, Tensor], Tensor] = ops.custom_gradient(_convolve)
