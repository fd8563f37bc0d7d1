"""A head that reads a frozen network at every depth."""

import keras
import numpy as np
import pytest
from keras import layers

from headless import IDS, X, Y, fill, images, tokens
from unfreeze.core.boundary import plan_stage
from unfreeze.core.fit import fit
from unfreeze.core.graph import flatten
from unfreeze.core.layers import select
from unfreeze.core.presets import preset, vary
from unfreeze.core.read_out import (
    HEAD,
    PROJECTION,
    adapt,
    principal_components,
    projection_of,
    read_out,
    tap_points,
)
from unfreeze.core.read_out_layers import MeanPool
from unfreeze.core.schedule import Stage
from unfreeze.errors import DataError, ScheduleError

RNG = np.random.default_rng(1)


def output(model: keras.Model, name: str, x: np.ndarray) -> np.ndarray:
    """What one layer of a model returns."""
    part = keras.Model(model.inputs[0], model.get_layer(name).output)
    return keras.ops.convert_to_numpy(part(x, training=False))


@pytest.mark.on_each_backend
def test_it_reads_the_end_of_every_block():
    base = images()
    points = tap_points(flatten(base))
    assert {name: step.path for name, step in points.items()} == {
        "block1": "block1_relu",
        "block2": "block2_relu",
        "block3": "block3_relu",
    }
    model = read_out(base, 3, components=7)
    assert model.get_layer("tap_join").output.shape == (None, 3 + 4 + 5)
    assert model.get_layer(HEAD).input.shape == (None, 7)
    assert model.output_shape == (None, 3)
    assert model.layers[: len(base.layers)] == base.layers  # shared, not copied
    assert not projection_of(model).is_fitted
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), 1 / 3, atol=1e-6)


@pytest.mark.on_each_backend
def test_taps_are_pooled_and_compressed():
    base = images()
    found = output(read_out(base, 3), "tap_join", X[:5])
    wanted = np.concatenate(
        [output(base, f"block{i}_relu", X[:5]).mean(axis=(1, 2)) for i in (1, 2, 3)], axis=1
    )
    np.testing.assert_allclose(found, wanted / np.sqrt(np.abs(wanted) + 1e-3), atol=1e-5)


@pytest.mark.on_each_backend
def test_pool_over_time_keeps_the_frequencies():
    base = images()
    model = read_out(base, 3, taps=["block1_relu", "block3_relu"], pool="time")
    for name, shape in (("block1_relu", (5, 6, 3)), ("block3_relu", (5, 3, 5))):
        wanted = output(base, name, X[:5]).mean(axis=1)
        assert wanted.shape == shape
        np.testing.assert_allclose(
            output(model, f"tap_{name}", X[:5]), wanted.reshape(5, -1), atol=1e-5
        )


def test_a_function_may_pool():
    base = images()
    model = read_out(base, 3, taps="block2_relu", pool=layers.GlobalMaxPooling2D(name="most"))
    wanted = output(base, "block2_relu", X[:5]).max(axis=(1, 2))
    np.testing.assert_allclose(output(model, "most", X[:5]), wanted, atol=1e-6)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("pool", ["mean", "time"])
def test_layers_that_have_their_channels_first(pool):
    """Also a tap on a layer that does not say so itself."""
    inputs = keras.Input((2, 8, 6))
    x = layers.Conv2D(3, 3, data_format="channels_first", name="conv")(inputs)
    base = keras.Model(inputs, layers.ReLU(name="relu")(x))
    model = read_out(base, 2, taps=["conv", "relu"], pool=pool)
    assert model.get_layer("tap_conv").axes == model.get_layer("tap_relu").axes
    assert model.get_layer("tap_relu").output.shape == (None, {"mean": 3, "time": 3 * 4}[pool])
    if keras.backend.backend() == "tensorflow":
        return  # it convolves so on a GPU only
    x = X[:4].transpose(0, 3, 1, 2)
    wanted = output(base, "relu", x).mean(axis={"mean": (2, 3), "time": 2}[pool])
    np.testing.assert_allclose(output(model, "tap_relu", x), wanted.reshape(4, -1), atol=1e-5)


@pytest.mark.on_each_backend
def test_mean_of_vectors_is_the_vectors_themselves():
    x = RNG.normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(MeanPool(())(x)), x)


def test_taps_may_be_patterns_and_layers_and_count_from_the_input_up():
    base = images()
    graph = flatten(base)
    layer = base.get_layer("block3_bn")
    assert list(tap_points(graph, [layer, "block1_r*"])) == ["block1_relu", "block3_bn"]
    assert list(tap_points(graph, "re:block[12]_conv")) == ["block1_conv", "block2_conv"]


def test_of_many_blocks_every_second_or_third_is_read_and_the_last():
    inputs = x = keras.Input((4,))
    for number in range(1, 21):
        x = layers.Dense(4, name=f"block{number}_a")(x)
        x = layers.Dense(4, name=f"block{number}_b")(x)
    points = tap_points(flatten(keras.Model(inputs, x)))
    assert list(points) == [f"block{number}" for number in (2, 5, 8, 11, 14, 17, 20)]
    assert points["block20"].path == "block20_b"


@pytest.mark.slow_on("jax")
def test_a_published_network():
    base = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    photos = RNG.uniform(0, 255, (12, 32, 32, 3)).astype("float32")
    model = read_out(base, 4, components=8, data=photos)
    points = tap_points(flatten(base))
    assert [step.path for step in points.values()][-2:] == ["expanded_conv_9_add", "activation_17"]
    assert len(points) == 6
    found = output(model, PROJECTION, photos)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    assert found.var(axis=0).mean() == pytest.approx(1, abs=0.15)


def test_the_groups_of_mobilenet_v2_are_its_blocks():
    base = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35
    )
    taps = ["block_2_add", "block_5_add", "block_8_add", "block_11_add", "block_14_add", "out_relu"]
    assert [step.path for step in tap_points(flatten(base)).values()] == taps
    assert list(tap_points(flatten(base), most=None))[:3] == ["stem", "block_1", "block_2"]


@pytest.mark.on_each_backend
def test_a_network_out_of_an_old_file_with_frozen_layers(tmp_path):
    """A classifier in an .h5 file whose lower layers were saved as frozen, as is common."""
    inside = images()
    for layer in inside.layers[:-3]:
        layer.trainable = False
    inputs = keras.Input((8, 6, 2))
    pooled = layers.GlobalAveragePooling2D()(inside(inputs))
    keras.Model(inputs, layers.Dense(5, "softmax")(pooled)).save(tmp_path / "old.h5")

    base = keras.models.load_model(tmp_path / "old.h5", compile=False).get_layer(inside.name)
    assert not base.get_layer("block1_conv").trainable
    model = read_out(base, 3, components=6, data=X)
    result = fit(model, Stage("all", epochs=1, learning_rate=1e-3), (X, Y), seed=0, verbose=0)
    moved = {layer.layer: layer.max_abs for layer in result.audit.stages[0].layers}
    assert moved["block1_conv"] > 1e-4
    model.save(tmp_path / "new.h5")
    loaded = keras.models.load_model(tmp_path / "new.h5")
    np.testing.assert_allclose(
        loaded.predict(X[:9], verbose=0), model.predict(X[:9], verbose=0), atol=1e-6
    )


@pytest.mark.needs_backend("tensorflow")
def test_keras_exports_the_read_out_of_an_image_model(tmp_path):
    """A SavedModel that is called with the pictures, not with a list of them."""
    import tensorflow as tf

    model = read_out(images(), 3, components=6, data=X)
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    found = saved.serve(X[:9].astype("float32")).numpy()
    np.testing.assert_allclose(found, model.predict(X[:9], verbose=0), atol=1e-6)


def test_a_transformer_is_read_behind_each_block():
    points = tap_points(flatten(tokens()))
    assert {name: step.path for name, step in points.items()} == {
        "attention_0": "norm_a1",
        "attention_1": "norm_a2",
        "attention_2": "norm_out",
    }


@pytest.mark.on_each_backend
def test_padding_does_not_change_what_is_read():
    model = read_out(tokens(), 2, components=6, data=IDS)
    short = np.array([[3, 7], [5, 1]])
    padded = np.pad(short, ((0, 0), (0, 5)))
    for name in ("tap_join", HEAD):
        np.testing.assert_allclose(
            output(model, name, short), output(model, name, padded), atol=2e-5
        )
    other = np.pad(short, ((0, 0), (0, 5)), constant_values=2)
    assert np.abs(output(model, "tap_join", other) - output(model, "tap_join", short)).max() > 0.1


@pytest.mark.on_each_backend
def test_a_mean_over_nothing_but_padding_is_zero():
    x, mask = np.ones((2, 3, 4), "float32"), np.array([[False] * 3, [True, False, False]])
    pooled = keras.ops.convert_to_numpy(MeanPool((1,))(x, mask=mask))
    np.testing.assert_array_equal(pooled, [[0] * 4, [1] * 4])


@pytest.mark.on_each_backend
@pytest.mark.parametrize("make", [images, tokens])
def test_adapted_outputs_are_centred_and_of_unit_variance(make):
    x = X if make is images else IDS
    model = read_out(make(), 3, components=6, data=x)
    found = output(model, PROJECTION, x)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    # Each is a share of the variance with n - 1 in the denominator.
    assert found.var(axis=0, ddof=1).mean() == pytest.approx(1, abs=1e-3)
    assert (np.diff(found.var(axis=0)) < 0).all()
    assert np.abs(np.corrcoef(found.T) - np.eye(6)).max() < 1e-3


@pytest.mark.on_each_backend
def test_adapt_leaves_the_network_and_the_head_as_they_were():
    base = images()
    model = read_out(base, 3, components=5)
    before = [np.array(w) for w in model.get_weights()]
    adapt(model, X)
    after = model.get_weights()
    names = [w.path for w, a, b in zip(model.weights, before, after, strict=True) if (a != b).any()]
    assert names == [f"{PROJECTION}/kernel", f"{PROJECTION}/bias"]
    assert projection_of(model).is_fitted
    assert not projection_of(model).trainable_variables


def test_fewer_samples_than_components_leave_the_rest_at_zero():
    model = read_out(images(), 3, components=30, data=X[:5])
    found = output(model, PROJECTION, X)
    assert (np.abs(found).max(axis=0) > 0).sum() == 4
    assert found[:, 4:].max() == 0


def test_at_most_2048_samples_are_used_drawn_from_all():
    inputs = keras.Input((6,))
    x = layers.Dense(5, "tanh", name="a")(inputs)
    base = fill(keras.Model(inputs, layers.Dense(5, "tanh", name="b")(x)))
    x = RNG.normal(size=(2100, 6)).astype("float32")
    kernels = []
    for seed in (0, 0, 1):
        model = read_out(base, 2, taps=["a", "b"], components=4)
        adapt(model, x, seed=seed)
        kernels.append(model.get_layer(PROJECTION).get_weights()[0])
        found = output(model, PROJECTION, x)
        assert np.abs(found.mean(axis=0)).max() < 0.03
        assert found.var(axis=0).mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()


def projected(values: np.ndarray, components: int, seed: int = 0) -> np.ndarray:
    kernel, bias = principal_components(values.astype("float32"), components, seed)
    assert (kernel.dtype, bias.dtype) == (np.float32, np.float32)
    return values.astype("float32") @ kernel + bias


def test_components_keep_half_of_the_differences_in_variance():
    """Each is divided by the fourth root of its variance, as the docstring says."""
    x = RNG.normal(size=(500, 1)) * np.ones((1, 8)) + RNG.normal(size=(500, 8))
    plain = np.linalg.svd((x - x.mean(0)) / x.std(0), full_matrices=False)[1] ** 2
    found = projected(x, 8).var(axis=0)
    np.testing.assert_allclose(found / found[0], np.sqrt(plain / plain[0]), rtol=1e-3)


def test_a_large_mean_and_many_samples_cost_no_precision():
    found = projected(100 + 0.1 * RNG.normal(size=(2000, 20)), 8)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=2e-3)
    assert found.var(axis=0).mean() == pytest.approx(1, abs=0.01)


def test_what_hardly_ever_varies_does_not_count():
    x = RNG.normal(size=(100, 6))
    x[:, 2] = 3 + 1e-6 * x[:, 2]
    x[:, 4] = 0
    kernel, _ = principal_components(x.astype("float32"), 4, 0)
    assert np.abs(kernel[[2, 4]]).max() == 0
    assert (np.abs(kernel[[0, 1, 3, 5]]).max(axis=1) > 0.1).all()


def test_beyond_the_rank_of_the_data_nothing_is_blown_up():
    x = np.repeat(RNG.normal(size=(5, 40)), 20, axis=0)
    kernel, bias = principal_components(x.astype("float32"), 16, 0)
    assert (np.abs(kernel).max(axis=0) > 0).sum() == 4
    new = RNG.normal(size=(200, 40)).astype("float32") @ kernel + bias
    assert new.var(axis=0).max() < 2


@pytest.mark.parametrize("count", [2, 150, 2048])
def test_equal_samples_are_refused(count, recwarn):
    x = np.tile(RNG.normal(size=(1, 40)) * 10, (count, 1)).astype("float32")
    with pytest.raises(DataError, match="all samples give the network the same outputs"):
        principal_components(x, 8, 0)
    assert [w for w in recwarn if w.category is RuntimeWarning] == []


def with_nan() -> np.ndarray:
    x = X[:10].copy()
    x[3, 0, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_nan(), "outputs are not finite: is there NaN in the data"),
        (X[:1], "one sample is too few"),
        (X[:0], "there are no samples"),
        (np.repeat(X[:1], 40, axis=0), "all samples give the network the same outputs"),
        (X[:, :4], r"samples of shape \(4, 6, 2\) do not fit the input 'x'"),
        ((X, Y), "the model has 1 input, the data 2"),
    ],
)
def test_data_that_nothing_can_be_fitted_to(data, message):
    # Some processors' ReLU makes 0 of NaN.
    model = read_out(images(), 3, taps="*_conv")
    with pytest.raises(DataError, match=message):
        adapt(model, data)
    assert not projection_of(model).is_fitted


def test_adapt_needs_a_read_out():
    assert projection_of(images()) is None
    with pytest.raises(DataError, match=r"has no read-out: make it with unfreeze\.read_out"):
        adapt(images(), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": "block9_*"}, "'block9_\\*' matches no layer of the network.*block3_relu"),
        ({"taps": ["block1_relu", layers.Dense(3, name="else")]}, "'else' matches no layer"),
        ({"taps": []}, "taps: none are given"),
        ({"pool": "max"}, "pool 'max' must be 'mean', 'time' or a function"),
        (
            {"taps": "block1_relu", "pool": layers.MaxPooling2D()},
            r"block1_relu is pooled to the shape \(None, 4, 3, 3\), not to \(batch, numbers\)",
        ),
    ],
)
def test_what_cannot_be_read(options, message):
    with pytest.raises(ScheduleError, match=message):
        read_out(images(), 3, **options)


def test_a_network_without_weights_or_of_unknown_width():
    inputs = keras.Input((None, None, 2))
    with pytest.raises(ScheduleError, match="no layer with weights to read"):
        read_out(keras.Model(inputs, layers.ReLU()(inputs)), 2)
    base = keras.Model(inputs, layers.Conv2D(3, 3, name="conv")(inputs))
    assert read_out(base, 2, taps="conv").get_layer("tap_conv").output.shape == (None, 3)
    with pytest.raises(ScheduleError, match=r"conv is pooled to the shape \(None, None\)"):
        read_out(base, 2, taps="conv", pool="time")


def test_inside_of_a_nested_model_nothing_is_read_but_around_it():
    inputs = keras.Input((8, 6, 2))
    x = images()(layers.Rescaling(0.5, name="scale")(inputs))
    base = keras.Model(inputs, layers.Conv2D(4, 3, name="above")(x), name="outer")
    for taps in ("auto", "images", "block1_relu"):
        with pytest.raises(ScheduleError, match="lies inside the model images: give read_out that"):
            read_out(base, 3, taps=taps)
    model = read_out(base, 3, taps="above", components=3, data=X)
    np.testing.assert_allclose(
        output(model, "tap_above", X[:4]), base.predict(X[:4], verbose=0).mean((1, 2)), atol=1e-5
    )


def test_a_layer_that_is_called_twice_is_read_at_its_last_call():
    again = layers.Dense(5, "tanh", name="again")
    inputs = keras.Input((5,))
    base = keras.Model(inputs, again(again(inputs)))
    x = RNG.normal(size=(4, 5)).astype("float32")
    np.testing.assert_allclose(
        output(read_out(base, 2, taps="again"), "tap_again", x),
        base.predict(x, verbose=0),
        atol=1e-6,
    )


@pytest.mark.on_each_backend
def test_layers_that_are_also_part_of_another_network():
    first = images()
    inputs = x = keras.Input((8, 6, 2))
    for layer in first.layers[1:]:
        x = layer(x)
    model = read_out(keras.Model(inputs, x), 3, components=4, data=X)
    wanted = output(read_out(first, 3), "tap_join", X[:4])
    np.testing.assert_allclose(output(model, "tap_join", X[:4]), wanted, atol=1e-6)


@pytest.mark.on_each_backend
def test_of_several_outputs_of_a_layer_the_first_is_read():
    inputs = keras.Input((7, 2))
    first, *_ = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(inputs)
    base = fill(keras.Model(inputs, first))
    x = RNG.normal(size=(3, 7, 2)).astype("float32")
    np.testing.assert_allclose(
        output(read_out(base, 2, taps="lstm"), "tap_lstm", x),
        base.predict(x, verbose=0).mean(axis=1),
        atol=1e-6,
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_network_of_two_inputs(named):
    a, b = keras.Input((8, 6, 2), name="z"), keras.Input((5,), name="a")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="block1_conv")(a))
    x = layers.Add(name="sum")([x, layers.Dense(4, "relu", name="block2_side")(b)])
    x = layers.Dense(4, "relu", name="block2_mix")(x)
    base = fill(keras.Model({"z": a, "a": b} if named else [a, b], x))
    data = {"z": X, "a": RNG.normal(size=(60, 5)).astype("float32")}
    given = data if named else [data["z"], data["a"]]
    model = read_out(base, 2, taps=["block1_conv", "block2_*"], components=5, data=given)
    found = keras.Model(model.inputs, model.get_layer(PROJECTION).output)
    values = found.predict([data[i.name] for i in model.inputs], verbose=0)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    assert values.var(axis=0, ddof=1).mean() == pytest.approx(1, abs=1e-3)
    result = fit(model, vary(preset("probe"), {"epochs": "1"}), (given, Y % 2), verbose=0, seed=0)
    assert result.stages[0].cache.startswith("cached")


@pytest.mark.parametrize(("make", "pool"), [(images, "time"), (tokens, "mean")])
def test_saved_and_loaded_it_gives_the_same_scores(make, pool, tmp_path):
    x = X if make is images else IDS
    model = read_out(make(), 3, pool=pool, components=6, data=x)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    assert projection_of(loaded).is_fitted
    np.testing.assert_allclose(
        loaded.predict(x[:9], verbose=0), model.predict(x[:9], verbose=0), atol=1e-6
    )


def test_the_plan_does_not_count_the_fixed_layer():
    graph = flatten(read_out(images(), 3, components=8))
    plans = [plan_stage(graph, select(graph, stage)) for stage in preset("probe_tune")]
    assert plans[0].weights_trained == 8 * 3 + 3
    assert plans[0].boundary == (PROJECTION,)
    assert [plan.weights_updating for plan in plans] == [0, 0, 0]
    # Under batch_norm="train" the statistics of layers of 3, 4 and 5 filters move, and no more.
    stage = Stage("all", batch_norm="train")
    assert plan_stage(graph, select(graph, stage)).weights_updating == 2 * (3 + 4 + 5)
