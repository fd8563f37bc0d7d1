"""The fused layers are the original pair: same outputs, same gradients, same variables."""

import contextlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from unfreeze.core.fusing import frozen_batch_norm, fuse_pair, why_not

pytestmark = pytest.mark.on_each_backend

LAST, FIRST = "channels_last", "channels_first"
# name: (layer, input shape, axis of the channels)
CASES: dict[str, tuple[Callable[[], keras.layers.Layer], tuple[int, ...], int]] = {
    "conv1d": (lambda: layers.Conv1D(4, 3), (9, 3), -1),
    "conv1d_causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 3), -1),
    "conv2d": (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (8, 7, 3), -1),
    "conv2d_positive_axis": (lambda: layers.Conv2D(4, 3), (8, 7, 3), 3),
    "conv2d_no_bias": (lambda: layers.Conv2D(4, (1, 3), use_bias=False), (8, 7, 3), -1),
    "conv2d_dilated": (lambda: layers.Conv2D(4, 2, dilation_rate=(1, 2)), (8, 7, 3), -1),
    "conv2d_groups": (lambda: layers.Conv2D(6, 3, groups=2), (8, 7, 4), -1),
    "conv3d": (lambda: layers.Conv3D(4, 2, strides=(1, 2, 1)), (4, 5, 4, 2), -1),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 3), -1),
    "depthwise2d": (lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"), (8, 7, 3), -1),
    "depthwise2d_multiplier": (
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=3, dilation_rate=2),
        (8, 7, 3),
        -1,
    ),
    "separable1d": (lambda: layers.SeparableConv1D(4, 3, depth_multiplier=2), (9, 3), -1),
    "separable2d": (lambda: layers.SeparableConv2D(4, 3, padding="same"), (8, 7, 3), -1),
    "conv1d_transpose": (lambda: layers.Conv1DTranspose(4, 3, strides=2), (9, 3), -1),
    "conv2d_transpose": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
        (5, 4, 3),
        -1,
    ),
    "conv3d_transpose": (lambda: layers.Conv3DTranspose(3, 2, strides=2), (3, 4, 3, 2), -1),
    "dense": (lambda: layers.Dense(4), (5,), -1),
    "dense_rank_4": (lambda: layers.Dense(4, use_bias=False), (3, 2, 5), -1),
    "conv1d_first": (lambda: layers.Conv1D(4, 3, data_format=FIRST), (3, 9), 1),
    "conv1d_causal_first": (
        lambda: layers.Conv1D(4, 3, padding="causal", data_format=FIRST),
        (3, 9),
        1,
    ),
    "conv2d_first": (lambda: layers.Conv2D(4, 3, strides=2, data_format=FIRST), (3, 8, 7), 1),
    "conv2d_first_negative_axis": (lambda: layers.Conv2D(4, 3, data_format=FIRST), (3, 8, 7), -3),
    "conv3d_first": (lambda: layers.Conv3D(4, 2, data_format=FIRST), (2, 4, 5, 4), 1),
    "depthwise1d_first": (lambda: layers.DepthwiseConv1D(3, data_format=FIRST), (3, 9), 1),
    "depthwise2d_first": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, data_format=FIRST),
        (3, 8, 7),
        1,
    ),
    "separable1d_first": (lambda: layers.SeparableConv1D(4, 3, data_format=FIRST), (3, 9), 1),
    "separable2d_first": (lambda: layers.SeparableConv2D(4, 3, data_format=FIRST), (3, 8, 7), 1),
    "conv1d_transpose_first": (lambda: layers.Conv1DTranspose(4, 3, data_format=FIRST), (3, 9), 1),
    "conv2d_transpose_first": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2, data_format=FIRST),
        (3, 5, 4),
        1,
    ),
    "conv3d_transpose_first": (
        lambda: layers.Conv3DTranspose(3, 2, data_format=FIRST),
        (2, 3, 4, 3),
        1,
    ),
}


@pytest.fixture
def float64() -> Iterator[None]:
    """All of Keras in double precision, which JAX has to be asked for."""
    context: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        context = jax.enable_x64(True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        with context:
            yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


# Each compiles for a second, and what is computed is Keras' own on each backend: by day these do,
# of each family one.
BY_DAY = (
    "conv1d_causal",
    "conv2d",
    "conv2d_groups",
    "depthwise2d",
    "separable2d",
    "conv2d_transpose",
    "dense_rank_4",
    "conv2d_first",
)
BY_NIGHT = pytest.mark.slow_on("tensorflow", "jax")
EACH_CASE = [pytest.param(case, marks=() if case in BY_DAY else BY_NIGHT) for case in CASES]


def randomize(*parts: keras.layers.Layer, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for variable in [v for part in parts for v in part.weights]:
        value = rng.normal(size=variable.shape) * 0.5
        variable.assign(np.abs(value) + 0.1 if variable.name == "moving_variance" else value)


def set_affine(norm: keras.layers.BatchNormalization) -> None:
    """Statistics frozen, gamma and beta trainable."""
    norm.trainable = False
    for variable in (norm.gamma, norm.beta):
        if variable is not None:
            variable.trainable = True


def make_pair(
    case: str, **norm_options: object
) -> tuple[keras.Model, keras.layers.Layer, keras.layers.BatchNormalization]:
    make, shape, axis = CASES[case]
    operation, norm = make(), layers.BatchNormalization(axis=axis, **norm_options)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, norm(operation(inputs)))
    randomize(model)
    return model, operation, norm


def wrap(layer: keras.layers.Layer | None, model: keras.Model) -> keras.Model:
    """A model of one layer, for the inputs of another model."""
    assert layer is not None
    inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model(inputs, layer(inputs))


def batch(model: keras.Model, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, *model.input_shape[1:])).astype(keras.config.floatx())
    y = rng.normal(size=(4, *model.output_shape[1:])).astype(keras.config.floatx())
    return x, y


class PlainMaths(layers.Layer):
    """The pair by its definition. (Keras's own normalizes in float32 on PyTorch and JAX.)"""

    def __init__(
        self, operation: keras.layers.Layer | None, norm: keras.layers.BatchNormalization
    ) -> None:
        super().__init__(dtype="float64")
        self.operation, self.norm = operation, norm
        self.built = True

    def call(self, inputs: object) -> object:
        outputs = self.operation(inputs) if self.operation else inputs
        shape = [1] * len(outputs.shape)
        shape[self.norm.axis] = -1
        mean, variance, gamma, beta = (
            ops.reshape(v, shape)
            for v in (
                self.norm.moving_mean,
                self.norm.moving_variance,
                self.norm.gamma,
                self.norm.beta,
            )
        )
        return (outputs - mean) / ops.sqrt(variance + self.norm.epsilon) * gamma + beta


def to_numpy(tensor: object) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, keras.config.floatx()))


def compile_for_gradients(model: keras.Model) -> None:
    # TensorFlow on a CPU has gradients of channels_first convolutions with XLA only;
    # JAX would compile each operation by itself.
    first = any(getattr(x, "data_format", "") == "channels_first" for x in model._flatten_layers())
    jit = {"tensorflow": first, "jax": True}.get(keras.backend.backend(), False)
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit)


def gradients(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """What plain gradient descent at rate 1 takes off each trainable variable."""
    before = {v.path: v.numpy() for v in model.trainable_variables}
    compile_for_gradients(model)
    model.train_on_batch(x, y)
    moved = {v.path: before[v.path] - v.numpy() for v in model.trainable_variables}
    for variable in model.trainable_variables:
        variable.assign(before[variable.path])
    return moved


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", EACH_CASE)
def test_outputs_and_gradients_are_those_of_the_pair(case: str) -> None:
    model, operation, norm = make_pair(case)
    set_affine(norm)
    fused, plain = (
        wrap(layer, model) for layer in (fuse_pair(operation, norm), PlainMaths(operation, norm))
    )
    x, y = batch(model)

    # On PyTorch keras.ops.matmul, and so any Dense layer, works in float32 all the same.
    single = isinstance(operation, layers.Dense) and keras.backend.backend() == "torch"
    tolerance = 1e-6 if single else 1e-9

    wanted, got = gradients(plain, x, y), gradients(fused, x, y)
    assert set(got) == set(wanted)
    assert {path.split("/")[-1] for path in got} >= {"gamma", "beta"}
    for path, gradient in wanted.items():
        size = np.abs(gradient).max()
        # A bias and beta do the same after the fold, so no gradient is zero.
        assert size > 1e-6, path
        assert np.abs(got[path] - gradient).max() <= tolerance * size, path

    expected, outputs = plain.predict_on_batch(x), fused.predict_on_batch(x)
    assert outputs.dtype == np.float64
    assert outputs.shape[1:] == fused.output_shape[1:] == model.output_shape[1:]
    assert np.abs(outputs - expected).max() <= tolerance * np.abs(expected).max()
    compile_for_gradients(model)
    assert np.abs(outputs - model.predict_on_batch(x)).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options", [{"scale": False}, {"center": False}, {"epsilon": 0.1}], ids=str
)
def test_batch_norm_options(options: dict[str, object]) -> None:
    model, operation, norm = make_pair("conv2d", **options)
    x, _ = batch(model)
    fused = fuse_pair(operation, norm)
    expected = to_numpy(model(x, training=False))
    np.testing.assert_allclose(to_numpy(fused(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow_on("jax")
def test_a_deep_float32_stack_stays_within_1e_4() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 16, 1))
    plain, fused = inputs, inputs
    for strides, filters in [(2, 8), (1, 16), (2, 16), (1, 32), (1, 32)]:
        for operation in (
            layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False),
            layers.Conv2D(filters, 1, use_bias=False),
        ):
            norm = layers.BatchNormalization(scale=False, epsilon=1e-4)
            plain = layers.ReLU()(norm(operation(plain)))
            fused = layers.ReLU()(fuse_pair(operation, norm)(fused))
    plain_model, fused_model = keras.Model(inputs, plain), keras.Model(inputs, fused)
    rng = np.random.default_rng(0)
    for variable in plain_model.non_trainable_variables:
        low, high = (0.01, 0.3) if variable.name == "moving_variance" else (-0.1, 0.1)
        variable.assign(rng.uniform(low, high, variable.shape))
    x = rng.normal(size=(3, 24, 16, 1)).astype("float32")
    expected = to_numpy(plain_model(x, training=False))
    scale = np.abs(expected).max()
    assert scale > 0.1
    assert np.abs(to_numpy(fused_model(x)) - expected).max() <= 1e-4 * scale


@pytest.mark.slow_on("tensorflow", "jax")
@settings(max_examples=12, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    step=st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]),
    padding=st.sampled_from(["same", "valid"]),
    depthwise=st.booleans(),
    use_bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_geometry(
    kernel: tuple[int, int],
    step: tuple[int, int],
    padding: str,
    depthwise: bool,
    use_bias: bool,
    seed: int,
) -> None:
    options = {
        "strides": step[0],
        "dilation_rate": step[1],
        "padding": padding,
        "use_bias": use_bias,
    }
    operation = (
        layers.DepthwiseConv2D(kernel, depth_multiplier=2, **options)
        if depthwise
        else layers.Conv2D(4, kernel, **options)
    )
    norm = layers.BatchNormalization()
    x = np.random.default_rng(seed).normal(size=(2, 11, 10, 2)).astype("float32")
    norm(operation(x))
    randomize(operation, norm, seed=seed)
    expected = to_numpy(norm(operation(x), training=False))
    got = to_numpy(fuse_pair(operation, norm)(x))
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["conv", "separable", "dense"])
def test_mixed_precision_scales_in_float32(policy: str, kind: str) -> None:
    operation = {
        "conv": lambda: layers.Conv2D(4, 3, dtype=policy),
        "separable": lambda: layers.SeparableConv2D(4, 3, dtype=policy),
        "dense": lambda: layers.Dense(4, dtype=policy),
    }[kind]()
    norm = layers.BatchNormalization(epsilon=1e-9, dtype=policy)
    inputs = keras.Input((6, 6, 3))
    plain = keras.Model(inputs, norm(operation(inputs)))
    randomize(plain)
    # Below float16's smallest number: its square root is lost unless taken in float32.
    norm.moving_variance.assign(np.full(4, 1e-8))
    norm.gamma.assign(np.full(4, 1e-4))
    norm.moving_mean.assign(np.zeros(4))
    fused = wrap(fuse_pair(operation, norm), plain)
    assert fused.output.dtype == plain.output.dtype == policy.removeprefix("mixed_")

    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    expected, got = to_numpy(plain(x, training=False)), to_numpy(fused(x))
    size = np.abs(expected).max()
    assert size > 0.5
    # Three roundings of 2**-8 (bfloat16) or 2**-11 (float16) on the way.
    tolerance = 4 * (2.0**-8 if policy == "mixed_bfloat16" else 2.0**-11)
    assert np.abs(got - expected).max() <= tolerance * size


@pytest.mark.parametrize("kind", ["conv", "separable", "dense"])
def test_a_kernel_is_scaled_before_it_is_rounded(kind: str) -> None:
    policy = "mixed_float16"
    operation = {
        "conv": lambda: layers.Conv2D(4, 3, use_bias=False, dtype=policy),
        "separable": lambda: layers.SeparableConv2D(4, 3, use_bias=False, dtype=policy),
        "dense": lambda: layers.Dense(4, use_bias=False, dtype=policy),
    }[kind]()
    norm = layers.BatchNormalization(center=False, dtype=policy)
    inputs = keras.Input((6, 6, 3))
    outer = keras.Model(inputs, norm(operation(inputs)))
    randomize(outer)
    norm.moving_mean.assign(np.zeros(4))
    fused = wrap(fuse_pair(operation, norm), outer)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    expected = to_numpy(fused(x))
    # Out of float16's range, but for gamma, which brings it back.
    operation.weights[-1].assign(operation.weights[-1] * 2.0**20)
    norm.gamma.assign(norm.gamma * 2.0**-20)
    assert np.abs(operation.weights[-1].numpy()).max() > 65504
    np.testing.assert_array_equal(to_numpy(fused(x)), expected)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    "policy", [pytest.param("mixed_bfloat16", marks=BY_NIGHT), "mixed_float16"]
)
def test_mixed_precision_trains(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model, operation, norm = make_pair("conv2d")
        set_affine(norm)
        fused = wrap(fuse_pair(operation, norm), model)
        x, y = batch(model)
        before = [v.numpy() for v in model.trainable_variables]
        fused.compile(keras.optimizers.Adam(0.01), "mse")
        fused.fit(x, y, epochs=3, verbose=0)
        after = [v.numpy() for v in model.trainable_variables]
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(before) == 4
    for old, new in zip(before, after, strict=True):
        assert np.isfinite(new).all()
        assert np.abs(new - old).max() > 0.0


TRAINABLE = {
    "all": {"kernel", "bias", "gamma", "beta"},
    "frozen": {"kernel", "bias"},
    "affine": {"kernel", "bias", "gamma", "beta"},
    "only_affine": {"gamma", "beta"},
    "nothing_but_beta": {"beta"},
}


@pytest.mark.parametrize(
    "policy",
    [
        name if name in ("frozen", "nothing_but_beta") else pytest.param(name, marks=BY_NIGHT)
        for name in TRAINABLE
    ],
)
def test_training_moves_the_original_variables_that_are_flagged(policy: str) -> None:
    model, operation, norm = make_pair("conv2d")
    if policy == "frozen":
        norm.trainable = False
    elif policy != "all":
        set_affine(norm)
        operation.trainable = policy == "affine"
        norm.gamma.trainable = policy != "nothing_but_beta"
    paths = [v.path for v in model.variables]
    expected = model.predict_on_batch(batch(model)[0])

    fused = wrap(fuse_pair(operation, norm), model)
    assert {v.name for v in fused.trainable_variables} == TRAINABLE[policy]
    assert {id(v) for v in fused.variables} == {id(v) for v in model.variables}
    x, y = batch(model)
    before = {v.name: v.numpy() for v in model.weights}
    fused.compile(keras.optimizers.SGD(0.1), "mse")
    fused.fit(x, y, epochs=2, batch_size=2, verbose=0)
    moved = {v.name: float(np.abs(v.numpy() - before[v.name]).max()) for v in model.weights}

    for name, distance in moved.items():
        if name in TRAINABLE[policy]:
            assert distance > 1e-5, name
        else:
            assert distance == 0.0, name
    # The original model is as it was, but for the training, which it sees.
    assert [v.path for v in model.variables] == paths
    assert (model.layers[1], model.layers[2]) == (operation, norm)
    after = model.predict_on_batch(x)
    assert np.abs(after - expected).max() > 1e-3
    np.testing.assert_allclose(fused.predict_on_batch(x), after, rtol=1e-4, atol=1e-5)


def test_regularizers_and_constraints_of_the_originals_hold() -> None:
    inputs = keras.Input((6,))
    operation = layers.Dense(3, kernel_regularizer="l2", bias_constraint="non_neg")
    norm = layers.BatchNormalization(gamma_regularizer="l2")
    model = keras.Model(inputs, norm(operation(inputs)))
    norm.trainable = False
    fused = wrap(fuse_pair(operation, norm), model)
    assert [float(loss) for loss in fused.losses] == [float(loss) for loss in model.losses]
    assert len(fused.losses) == 1
    operation.bias.assign([-1.0, -1.0, 1.0])
    fused.compile(keras.optimizers.SGD(1e-3), "mse")
    fused.train_on_batch(np.ones((4, 6)), np.ones((4, 3)))
    assert operation.bias.numpy().min() == 0.0


def test_compiles_with_xla() -> None:
    model, operation, norm = make_pair("conv2d")
    norm.trainable = False
    fused = wrap(fuse_pair(operation, norm), model)
    jit = keras.backend.backend() != "torch"
    fused.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
    x, y = batch(model)
    losses = [float(fused.train_on_batch(x, y)) for _ in range(3)]
    assert losses[2] < losses[0]


def test_unknown_sizes_stay_unknown() -> None:
    inputs = keras.Input((None, None, 3))
    operation, norm = layers.Conv2D(4, 3, strides=2), layers.BatchNormalization()
    norm(operation(inputs))
    fused = fuse_pair(operation, norm)
    assert fused.name == f"{operation.name}_{norm.name}_fused"
    assert fused(inputs).shape == (None, None, None, 4)


def test_a_mask_goes_through_dense() -> None:
    inputs = keras.Input((5, 3))
    masked = layers.Masking()(inputs)
    operation, norm, pool = (
        layers.Dense(4),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling1D(),
    )
    plain = keras.Model(inputs, pool(norm(operation(masked))))
    randomize(plain)
    fused = keras.Model(inputs, pool(fuse_pair(operation, norm)(masked)))
    alone = keras.Model(inputs, pool(frozen_batch_norm(norm)(operation(masked))))
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    x[0, 2:] = 0.0
    expected = plain.predict_on_batch(x)
    np.testing.assert_allclose(fused.predict_on_batch(x), expected, atol=1e-5)
    np.testing.assert_allclose(alone.predict_on_batch(x), expected, atol=1e-5)
    x[0, 2:] = 1e-9  # no longer masked, so the mean must differ
    assert np.abs(fused.predict_on_batch(x)[0] - expected[0]).max() > 1e-2


class _OwnConv(layers.Conv2D):
    pass


class _OwnNorm(layers.BatchNormalization):
    pass


@pytest.mark.slow_on("jax")
def test_what_does_not_fit_is_left_alone_and_says_why() -> None:
    def built(operation: keras.layers.Layer, norm: keras.layers.Layer) -> tuple:
        norm(operation(np.ones((2, 6, 6, 4), "float32")))
        return operation, norm

    norm = layers.BatchNormalization
    lora = layers.Conv2D(4, 3)
    lora.build((None, 6, 6, 4))
    lora.enable_lora(2)
    int8 = layers.Dense(4)
    int8.build((None, 6, 6, 4))
    int8.quantize("int8")
    refused = {
        "not a layer that can be fused": built(layers.ReLU(), norm()),
        "_OwnConv is not": built(_OwnConv(4, 3), norm()),
        "_OwnNorm is not": built(layers.Conv2D(4, 3), _OwnNorm()),
        "LayerNormalization is not": built(layers.Conv2D(4, 3), layers.LayerNormalization()),
        "not built": (layers.Conv2D(4, 3), norm()),
        "has an activation": built(layers.Conv2D(4, 3, activation="relu"), norm()),
        "activity regularizer": built(layers.Conv2D(4, 3, activity_regularizer="l2"), norm()),
        "an axis that is not the output channels": built(layers.Conv2D(4, 3), norm(axis=1)),
        "LoRA": built(lora, norm()),
        "quantized": built(int8, norm()),
        "one computes in bfloat16, the other in float32": built(
            layers.Conv2D(4, 3, dtype="mixed_bfloat16"), norm()
        ),
    }
    for reason, pair in refused.items():
        assert reason in (why_not(*pair) or ""), reason
        assert fuse_pair(*pair) is None, reason
    fits = built(layers.Conv2D(4, 3, kernel_constraint="non_neg"), norm())
    assert why_not(*fits) is None
    assert fuse_pair(*fits) is not None


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_frozen_batch_norm_of_any_axis(axis: int) -> None:
    inputs = keras.Input((4, 5, 6))
    norm = layers.BatchNormalization(axis=axis)
    model = keras.Model(inputs, norm(inputs))
    randomize(model)
    alone = frozen_batch_norm(norm)
    x, y = batch(model)
    expected = to_numpy(norm(x, training=False))
    np.testing.assert_allclose(to_numpy(alone(x)), expected, rtol=1e-4, atol=1e-5)

    # Called in training mode, with all flags on: still the frozen statistics.
    frozen = wrap(alone, model)
    assert alone.name == f"{norm.name}_frozen"
    before = {v.name: v.numpy() for v in norm.weights}
    frozen.compile(keras.optimizers.SGD(0.1), "mse")
    frozen.train_on_batch(x, y)
    moved = {v.name: float(np.abs(v.numpy() - before[v.name]).max()) for v in norm.weights}
    assert moved["moving_mean"] == moved["moving_variance"] == 0.0
    assert min(moved["gamma"], moved["beta"]) > 1e-6


@pytest.mark.usefixtures("float64")
def test_frozen_batch_norm_has_the_same_gradients() -> None:
    inputs = keras.Input((4, 3))
    front, norm = layers.Dense(3), layers.BatchNormalization()
    norm.build((None, 4, 3))
    plain = keras.Model(inputs, PlainMaths(None, norm)(front(inputs)))
    randomize(plain)
    set_affine(norm)
    alone = keras.Model(inputs, frozen_batch_norm(norm)(front(inputs)))
    x, y = batch(plain)
    wanted, got = gradients(plain, x, y), gradients(alone, x, y)
    assert len(got) == len(wanted) == 4
    for path, gradient in wanted.items():
        np.testing.assert_allclose(got[path], gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_frozen_batch_norm_of_half_precision(policy: str) -> None:
    norm = layers.BatchNormalization(dtype=policy, epsilon=1e-3)
    half = policy.removeprefix("mixed_")
    x = ops.cast(np.random.default_rng(0).normal(size=(3, 4)) * 30.0, half)
    norm(x)
    randomize(norm)
    expected = to_numpy(norm(x, training=False))
    out = frozen_batch_norm(norm)(x)
    assert keras.backend.standardize_dtype(out.dtype) == half
    tolerance = 2.0**-8 if half == "bfloat16" else 2.0**-10
    got = to_numpy(out)
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def test_frozen_batch_norm_refuses_what_it_does_not_know() -> None:
    own = _OwnNorm()
    own.build((None, 3))
    assert frozen_batch_norm(own) is None
    assert frozen_batch_norm(layers.BatchNormalization()) is None
