"""Small networks in files of their own, as others publish them: ONNX and TFLite."""

from pathlib import Path

import numpy as np

RATE, SAMPLES, FRAME, BANDS = 16_000, 8_000, 40, 24
FRAMES = SAMPLES // FRAME


def _filters() -> np.ndarray:
    """(frame, bands) cosines and sines of rising pitch."""
    place = np.arange(FRAME)[:, None] / RATE
    pitch = np.geomspace(150, 6_000, BANDS // 2)
    return np.concatenate(
        [np.cos(2 * np.pi * place * pitch), np.sin(2 * np.pi * place * pitch)], axis=1
    ).astype(np.float32)


FILTERS = _filters()
TOP = np.random.default_rng(3).normal(size=(BANDS, 5)).astype(np.float32)


def expected(windows: np.ndarray) -> dict[str, np.ndarray]:
    """What the networks give for windows (n, samples)."""
    frames = np.abs(windows.reshape(len(windows), FRAMES, FRAME).astype(np.float64) @ FILTERS)
    embedding = frames.mean(axis=1)
    return {"places": embedding, "embedding": embedding, "scores": np.tanh(embedding @ TOP)}


def write_onnx(
    path: Path,
    shape: tuple[int | str, ...] = ("batch", SAMPLES),
    outputs: tuple[str, ...] = ("embedding", "scores"),
    opset: int = 17,
    double: bool = False,
) -> Path:
    """An ONNX file that takes samples of a shape; `places` has a vector for each frame."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind, numbers = (TensorProto.DOUBLE, "<f8") if double else (TensorProto.FLOAT, "<f4")
    axes = {"axes": [1]} if opset < 18 else {}
    nodes = [
        helper.make_node("Reshape", ["samples", "frames_shape"], ["frames"], name="cut"),
        helper.make_node("MatMul", ["frames", "filters"], ["bands"]),
        helper.make_node("Abs", ["bands"], ["places"]),
        helper.make_node(
            "ReduceMean", ["places", *([] if axes else ["one"])], ["embedding"], keepdims=0, **axes
        ),
        helper.make_node("MatMul", ["embedding", "top"], ["logits"]),
        helper.make_node("Tanh", ["logits"], ["scores"]),
    ]
    rows = "batch" if isinstance(shape[0], str) else 1
    sizes = {"embedding": [rows, BANDS], "scores": [rows, 5], "places": [rows, FRAMES, BANDS]}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("samples", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, sizes[name]) for name in outputs],
        [
            numpy_helper.from_array(np.array([-1, FRAMES, FRAME], np.int64), "frames_shape"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(FILTERS.astype(numbers), "filters"),
            numpy_helper.from_array(TOP.astype(numbers), "top"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_tflite(path: Path, shape: tuple[int | None, ...] = (1, SAMPLES)) -> Path:
    """A TFLite file that takes samples of a shape; its only output are the scores."""
    import tensorflow as tf

    def run(samples):
        frames = tf.reshape(samples, (-1, FRAMES, FRAME))
        embedding = tf.reduce_mean(tf.abs(frames @ FILTERS), axis=1, name="embedding")
        return tf.tanh(embedding @ TOP, name="scores")

    spec = tf.TensorSpec(shape, tf.float32, name="samples")
    traced = tf.function(run, input_signature=[spec], autograph=False).get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())
    return path


def write_card(model: Path, **more: object) -> Path:
    """The card beside a model's file."""
    said = {"model": model.name, "sample_rate": RATE, "window": SAMPLES / RATE, **more}
    card = model.with_suffix(".yaml")
    card.write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    return card


#: A module of the user's own with functions that build networks.
MODULE = """
import keras

def build(channels=1, frames=96):
    layers = keras.layers
    shape = (frames, 64) if channels is None else (frames, 64, channels)
    x = given = keras.Input(shape)
    if channels is None:
        x = layers.Reshape((frames, 64, 1), name="image")(x)
    for number, filters in ((1, 8), (2, 16)):
        start = keras.initializers.GlorotUniform(seed=number)
        x = layers.Conv2D(filters, 5, 4, "same", kernel_initializer=start, use_bias=False,
                          name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    x = layers.AveragePooling2D((6, 1), name="over_time")(x)
    x = layers.Flatten(name="vector")(x)
    return keras.Model(given, layers.Dense(3, "softmax", name="old_classes")(x))

def color():
    return build(3)

def nested():
    whole = build()
    inner = keras.Model(whole.inputs[0], whole.get_layer("vector").output, name="inner")
    given = keras.Input((96, 64, 1))
    return keras.Model(given, inner(keras.layers.Rescaling(0.5, name="scale")(given)))

def raw():
    layers = keras.layers
    x = given = keras.Input((None, 1))
    for number in (1, 2):
        start = keras.initializers.GlorotUniform(seed=number)
        x = layers.Conv1D(8, 8, 4, "same", activation="relu", kernel_initializer=start,
                          name=f"block{number}_conv")(x)
    return keras.Model(given, x)

class Mine(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def foreign():
    given = keras.Input((96, 64))
    return keras.Model(given, keras.layers.Flatten()(Mine(name="mine")(given)))

class Closed(Mine):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)

    def get_config(self):
        return keras.layers.Layer.get_config(self)

def closed():
    given = keras.Input((96, 64))
    return keras.Model(given, keras.layers.Flatten()(Closed(3)(given)))

def needs_more(units):
    return None

def nothing():
    return "a model"

number = 3
"""
