"""A convolution and the BatchNormalization after it, with frozen statistics, as one convolution.

With fixed statistics a BatchNormalization is a multiply-add per channel, which folds
into the kernel and the bias of the linear layer before it (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3.2):

    scale = gamma / sqrt(variance + epsilon)
    BN(conv(x, kernel) + bias) = conv(x, kernel * scale) + (bias - mean) * scale + beta

`fuse_steps` finds the pairs among a stage's steps. It leaves a pair alone where
something else reads the convolution's output, or the BatchNorm updates its statistics.
Invariants: the fused layer owns no variable; it reads those of the two layers in every
call, so the gradients are theirs and the original model sees all training. The
statistics are never written, and the scale is computed in float32 or wider.

A convolution of size 1 runs as one matrix product at each position, its kernel's
gradient too: that is faster than TensorFlow's own way on a CPU (4 % of a training step
of YAMNet, docs/performance.md). The kernel's gradient differs by rounding only.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers, ops

from unfreeze.core.boundary import Cut
from unfreeze.core.graph import Step
from unfreeze.core.keras_internals import conv_kernel_gradients_are_slow

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


def fuse_pair(
    operation: keras.layers.Layer, batch_norm: keras.layers.BatchNormalization
) -> keras.layers.Layer | None:
    """Make one layer of a linear layer and the BatchNormalization after it.

    Args:
        operation: a built Conv1D/2D/3D, Conv1D/2D/3DTranspose, DepthwiseConv1D/2D,
            SeparableConv1D/2D or Dense layer, of any data format, stride, dilation,
            padding and number of groups.
        batch_norm: the built BatchNormalization that normalizes its output channels.

    Returns:
        A layer that maps `x` to `batch_norm(operation(x), training=False)`, named
        `<operation>_<batch_norm>_fused`. It shares the variables of both layers and
        follows their `trainable` flags, variable by variable. None when the pair does
        not fit; `why_not` says why. Two calls give two layers of the same name: keep
        one for each pair.

    Examples:
        >>> import numpy as np
        >>> conv, norm = keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv, norm])
        >>> x = np.ones((2, 8, 8, 1), "float32")
        >>> fused = keras.ops.convert_to_numpy(fuse_pair(conv, norm)(x))
        >>> bool(np.allclose(fused, model.predict(x, verbose=0), atol=1e-6))
        True
    """
    if why_not(operation, batch_norm) is not None:
        return None
    return FusedLinear(operation, batch_norm)


def why_not(
    operation: keras.layers.Layer, batch_norm: keras.layers.BatchNormalization
) -> str | None:
    """Say why two layers cannot be fused, in words for a log; None when they can."""
    kind = _KINDS.get(type(operation))
    # Exact types only: a subclass may do anything in its call.
    if kind is None:
        return f"{type(operation).__name__} is not a layer that can be fused"
    if type(batch_norm) is not layers.BatchNormalization:
        return f"{type(batch_norm).__name__} is not keras.layers.BatchNormalization"
    if not (operation.built and batch_norm.built):
        return "a layer without weights yet (not built)"
    for layer in (operation, batch_norm):
        if layer.quantization_mode is not None:
            return f"{layer.name} is quantized"
        if layer.activity_regularizer is not None:
            return f"{layer.name} has an activity regularizer"
    if operation.activation is not None and operation.activation is not keras.activations.linear:
        return f"{operation.name} has an activation"
    if getattr(operation, "lora_enabled", False):
        return f"{operation.name} has LoRA weights"
    if operation.compute_dtype != batch_norm.compute_dtype:
        return f"one computes in {operation.compute_dtype}, the other in {batch_norm.compute_dtype}"
    rank = batch_norm.input_spec.ndim
    if batch_norm.axis % rank != _channel_axis(operation, rank):
        return f"{batch_norm.name} normalizes an axis that is not the output channels"
    return None


def frozen_batch_norm(batch_norm: keras.layers.BatchNormalization) -> keras.layers.Layer | None:
    """Make a layer for a BatchNormalization whose statistics stay as they are.

    Args:
        batch_norm: a built BatchNormalization, of any axis and dtype policy.

    Returns:
        A layer named `<batch_norm>_frozen` that maps `x` to `batch_norm(x, training=False)`
        even where Keras would run it in training mode. It shares the variables and follows
        their `trainable` flags, so that gamma and beta train if theirs are set, and passes
        masks on. None for a subclass or a layer that is not built or regularizes its output.
    """
    if (
        type(batch_norm) is not layers.BatchNormalization
        or not batch_norm.built
        or batch_norm.activity_regularizer is not None
    ):
        return None
    return FrozenBatchNorm(batch_norm)


class FusedLinear(keras.layers.Layer):
    """The layer that `fuse_pair` returns."""

    def __init__(
        self, operation: keras.layers.Layer, batch_norm: keras.layers.BatchNormalization
    ) -> None:
        # autocast=False, and variable and compute dtype the same: Keras then leaves the
        # variables as they are in every call, and half precision comes after the scale.
        super().__init__(
            name=f"{operation.name}_{batch_norm.name}_fused",
            dtype=operation.variable_dtype,
            autocast=False,
        )
        self.operation = operation
        self.batch_norm = batch_norm
        self.supports_masking = operation.supports_masking
        self.input_spec = operation.input_spec
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Convolve with the scaled kernel and add the folded bias."""
        kind = _KINDS[type(self.operation)]
        dtype = self.operation.compute_dtype
        scale, shift = _scale_and_shift(self.batch_norm)
        if self.operation.bias is not None:
            shift = shift + scale * ops.cast(self.operation.bias, scale.dtype)
        kernel = ops.cast(getattr(self.operation, kind.kernel), scale.dtype)
        kernel = kernel * ops.reshape(scale, kind.scale_shape(kernel.shape))
        outputs = kind.run(self.operation, ops.cast(inputs, dtype), ops.cast(kernel, dtype))
        # The form that TensorFlow's bias_add and its fusions recognize.
        shape = [1] * len(outputs.shape)
        shape[_channel_axis(self.operation, len(shape))] = -1
        return ops.add(outputs, ops.reshape(ops.cast(shift, dtype), shape))

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """Give the shape of the original layer's output, without tracing `call`."""
        shape = self.operation.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=self.operation.compute_dtype)


class FrozenBatchNorm(keras.layers.Layer):
    """The layer that `frozen_batch_norm` returns."""

    def __init__(self, batch_norm: keras.layers.BatchNormalization) -> None:
        super().__init__(
            name=f"{batch_norm.name}_frozen", dtype=batch_norm.variable_dtype, autocast=False
        )
        self.batch_norm = batch_norm
        self.supports_masking = True
        self.input_spec = batch_norm.input_spec
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Multiply and add per channel, in float32 or wider."""
        scale, shift = _scale_and_shift(self.batch_norm)
        shape = [1] * len(inputs.shape)
        shape[self.batch_norm.axis] = -1
        outputs = ops.cast(inputs, scale.dtype) * ops.reshape(scale, shape)
        outputs = ops.add(outputs, ops.reshape(shift, shape))
        return ops.cast(outputs, self.batch_norm.compute_dtype)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """Give the shape of the input in the dtype of the original layer."""
        return keras.KerasTensor(inputs.shape, dtype=self.batch_norm.compute_dtype)


def _scale_and_shift(batch_norm: keras.layers.BatchNormalization) -> tuple[Tensor, Tensor]:
    """Write the normalization as `x * scale + shift`; both of shape (channels,)."""
    # Not keras.backend.result_type: on PyTorch and JAX it makes float32 of float64.
    dtype = "float64" if batch_norm.variable_dtype == "float64" else "float32"
    scale = ops.rsqrt(ops.cast(batch_norm.moving_variance, dtype) + batch_norm.epsilon)
    if batch_norm.gamma is not None:
        scale = scale * ops.cast(batch_norm.gamma, dtype)
    shift = -ops.cast(batch_norm.moving_mean, dtype) * scale
    if batch_norm.beta is not None:
        shift = shift + ops.cast(batch_norm.beta, dtype)
    return scale, shift


def _channel_axis(operation: keras.layers.Layer, rank: int) -> int:
    first = getattr(operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1


@dataclass(frozen=True)
class _Kind:
    """How one kind of linear layer is run with another kernel.

    Attributes:
        kernel: name of the attribute with the kernel that makes the output channels.
        scale_shape: kernel shape -> the shape in which a (channels,) scale fits it.
        run: (layer, inputs, kernel) -> outputs without bias.
    """

    kernel: str
    scale_shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    run: Callable[[Any, Tensor, Tensor], Tensor]


def _conv(layer: Any, inputs: Tensor, kernel: Tensor) -> Tensor:
    if fits(layer):
        return pointwise_conv(inputs, kernel)
    padding = layer.padding
    if padding == "causal":
        left = [layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0]
        steps_last = layer.data_format == "channels_first"
        inputs = ops.pad(inputs, [[0, 0], [0, 0], left] if steps_last else [[0, 0], left, [0, 0]])
        padding = "valid"
    return ops.conv(
        inputs,
        kernel,
        strides=list(layer.strides),
        padding=padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _depthwise(layer: Any, inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.depthwise_conv(
        inputs,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _separable(layer: Any, inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.separable_conv(
        inputs,
        ops.cast(layer.depthwise_kernel, kernel.dtype),
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _transpose(layer: Any, inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.conv_transpose(
        inputs,
        kernel,
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _dense(_layer: Any, inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.matmul(inputs, kernel)


# Where the output channels are: last in a convolution's kernel; (inputs, multiplier), in this
# order, in a depthwise one; last but one in a transposed one.
_CONV = _Kind("kernel", lambda shape: (shape[-1],), _conv)
_DEPTHWISE = _Kind("kernel", lambda shape: (shape[-2], shape[-1]), _depthwise)
_SEPARABLE = _Kind("pointwise_kernel", lambda shape: (shape[-1],), _separable)
_TRANSPOSE = _Kind("kernel", lambda shape: (shape[-2], 1), _transpose)
_DENSE = _Kind("kernel", lambda shape: (shape[-1],), _dense)
_KINDS: dict[type, _Kind] = {
    layers.Conv1D: _CONV,
    layers.Conv2D: _CONV,
    layers.Conv3D: _CONV,
    layers.DepthwiseConv1D: _DEPTHWISE,
    layers.DepthwiseConv2D: _DEPTHWISE,
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.Conv1DTranspose: _TRANSPOSE,
    layers.Conv2DTranspose: _TRANSPOSE,
    layers.Conv3DTranspose: _TRANSPOSE,
    layers.Dense: _DENSE,
}


def fuse_steps(steps: tuple[Step, ...], cut: Cut, updating: Collection[int]) -> tuple[Step, ...]:
    """Replace each pair that fits by one step.

    Args:
        steps: the prefix or the suffix of a cut, in running order.
        cut: where they come from.
        updating: ids of variables that layers update by themselves in this
            stage; a BatchNorm that holds one of them is in training mode.
    """
    read_by = _readers(cut)
    made_by = {index: step for step in steps for index in step.outputs}
    fused: dict[tuple[int, int], keras.layers.Layer | None] = {}
    dropped: set[int] = set()
    changed: dict[int, Step] = {}
    for step in steps:
        before = _before(step, made_by, read_by, updating)
        if before is None:
            continue
        pair = (id(before.operation), id(step.operation))
        if pair not in fused:
            fused[pair] = fuse_pair(before.operation, step.operation)
        layer = fused[pair]
        if layer is not None:
            dropped.add(id(before))
            changed[id(step)] = replace(
                step, operation=layer, args=before.args, kwargs=before.kwargs, path=before.path
            )
    return tuple(changed.get(id(step), step) for step in steps if id(step) not in dropped)


def _before(
    step: Step, made_by: dict[int, Step], read_by: dict[int, int], updating: Collection[int]
) -> Step | None:
    """The step before a BatchNorm with fixed statistics, if nothing else reads from it."""
    norm: Any = step.operation
    if type(norm) is not keras.layers.BatchNormalization:
        return None
    # Keras notes `mask=None` in each call; a mask that is there is left to Keras.
    if any(value is not None for value in step.kwargs.values()):
        return None
    if any(id(weight) in updating for weight in norm.weights):
        return None
    if len(step.args) != 1 or len(step.inputs) != 1:
        return None
    index = step.inputs[0]
    before = made_by.get(index)
    if before is None or not before.is_layer or read_by.get(index, 0) != 1:
        return None
    return before


def _readers(cut: Cut) -> dict[int, int]:
    """How often each tensor is read, by steps or as an output, in the whole model."""
    counts: dict[int, int] = {}
    for step in cut.graph.steps:
        for index in step.inputs:
            counts[index] = counts.get(index, 0) + 1
    for index in (*cut.graph.outputs, *cut.frontier):
        counts[index] = counts.get(index, 0) + 1
    return counts
