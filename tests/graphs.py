"""Small models of every shape, drawn at random, for the tests of the engine.

`recipes()` is a Hypothesis strategy of plain data, which shrinks well; `build`
makes the model of a recipe, the same one each time.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

CHANNELS = 3  # of all maps and vectors, so that any two of a kind can be added
STEPS = 4
WORDS = 9

_MAP_BLOCKS = (
    "conv",
    "conv_bn",
    "depthwise_bn",
    "pool",
    "map_dropout",
    "map_add",
    "map_concat",
    "map_ops",
    "gate",
    "map_nested",
    "twice",
    "atom",
)
_VECTOR_BLOCKS = (
    "dense",
    "dense_bn",
    "dropout",
    "add",
    "vector_ops",
    "nested",
    "two_deep",
    "two_inputs",
)
_SEQUENCE_BLOCKS = ("lstm", "gru", "attention", "norm", "sequence_nested")


@dataclass(frozen=True)
class Recipe:
    """What a model is made of.

    Attributes:
        blocks: names of blocks, in order; those that need what is not there are passed over.
        seed: decides which tensors each block reads, and all weights.
        inputs: any of "map", "vector", "ids".
        outputs: number of heads.
        named: whether inputs and outputs are dicts.
    """

    blocks: tuple[str, ...]
    seed: int
    inputs: tuple[str, ...] = ("map",)
    outputs: int = 1
    named: bool = False


@st.composite
def recipes(draw: Any, most: int = 5) -> Recipe:
    """Recipes of up to `most` blocks."""
    inputs = draw(st.sampled_from([("map",), ("ids",), ("map", "vector"), ("ids", "map")]))
    known = _VECTOR_BLOCKS
    known += _MAP_BLOCKS if "map" in inputs else ()
    known += _SEQUENCE_BLOCKS if "ids" in inputs else ()
    blocks = draw(st.lists(st.sampled_from(known), min_size=2, max_size=most))
    return Recipe(
        blocks=tuple(blocks),
        seed=draw(st.integers(0, 10_000)),
        inputs=inputs,
        outputs=draw(st.sampled_from([1, 1, 2])),
        named=draw(st.booleans()),
    )


@keras.saving.register_keras_serializable(package="unfreeze_tests")
class Atom(layers.Layer):
    """A layer of layers, written as a subclass: one step for the engine."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(CHANNELS, activation="tanh", name="inner")
        self.drop = layers.Dropout(0.3)

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x + self.drop(self.inner(x), training=training)


class _Builder:
    def __init__(self, recipe: Recipe) -> None:
        self.rng = np.random.default_rng(recipe.seed)
        self.recipe = recipe
        self.inputs: dict[str, Any] = {}
        self.maps: list[Any] = []
        self.vectors: list[Any] = []
        self.sequences: list[Any] = []
        self.shared: list[Any] = []
        self.count = 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"  # not `kind_1`: so Keras names its own operations

    def pick(self, tensors: list[Any]) -> Any:
        return tensors[int(self.rng.integers(len(tensors)))]

    def build(self) -> keras.Model:
        for kind in self.recipe.inputs:
            self.add_input(kind)
        for block in self.recipe.blocks:
            getattr(self, block)()
        ends = [layers.GlobalAveragePooling2D(name=self.name("mean"))(x) for x in self.maps]
        ends += [layers.GlobalAveragePooling1D(name=self.name("mean"))(x) for x in self.sequences]
        ends += self.vectors
        joined = layers.Concatenate(name="joined")(ends) if len(ends) > 1 else ends[0]
        joined = layers.Dropout(0.2, name="head_dropout")(joined)
        heads = {
            f"out{i}": layers.Dense(2, activation="softmax", name=f"out{i}")(joined)
            for i in range(self.recipe.outputs)
        }
        many = len(heads) > 1
        outputs = heads if self.recipe.named and many else list(heads.values())
        inputs: Any = list(self.inputs.values())
        if self.recipe.named:
            inputs = self.inputs
        elif len(inputs) == 1:
            inputs = inputs[0]
        model = keras.Model(inputs, outputs if many else outputs[0], name="drawn")
        for variable in model.weights:
            self.fill(variable)
        return model

    def fill(self, variable: Any) -> None:
        shape = tuple(variable.shape)
        if variable.name == "moving_variance" or variable.name == "gamma":
            value = self.rng.uniform(0.6, 1.5, shape)
        else:
            scale = 0.5 if len(shape) < 2 else 1.2 / np.sqrt(np.prod(shape[:-1]))
            value = self.rng.normal(0.0, scale, shape)
        variable.assign(value.astype("float32"))

    def add_input(self, kind: str) -> None:
        if kind == "map":
            self.inputs[kind] = keras.Input((6, 6, CHANNELS), name=kind)
            self.maps.append(self.inputs[kind])
        elif kind == "vector":
            self.inputs[kind] = keras.Input((CHANNELS,), name=kind)
            self.vectors.append(self.inputs[kind])
        else:
            self.inputs[kind] = keras.Input((STEPS,), dtype="int32", name=kind)
            embedding = layers.Embedding(WORDS, CHANNELS, mask_zero=True, name="embedding")
            self.sequences.append(embedding(self.inputs[kind]))

    def conv(self) -> None:
        conv = layers.Conv2D(CHANNELS, 3, padding="same", activation="tanh", name=self.name("conv"))
        self.shared.append(conv)
        self.maps.append(conv(self.pick(self.maps)))

    def conv_bn(self) -> None:
        name = self.name("conv")
        x = layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False, name=name)
        y = layers.BatchNormalization(name=f"{name}_bn")(x(self.pick(self.maps)))
        self.maps.append(layers.Activation("tanh", name=f"{name}_act")(y))

    def depthwise_bn(self) -> None:
        name = self.name("depthwise")
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=name)
        self.maps.append(
            layers.BatchNormalization(scale=False, name=f"{name}_bn")(x(self.pick(self.maps)))
        )

    def pool(self) -> None:
        x = layers.AveragePooling2D(2, 1, padding="same", name=self.name("pool"))
        self.maps.append(x(self.pick(self.maps)))

    def map_dropout(self) -> None:
        self.maps.append(layers.Dropout(0.3, name=self.name("drop"))(self.pick(self.maps)))

    def map_add(self) -> None:
        pair = [self.pick(self.maps), self.pick(self.maps)]
        self.maps.append(layers.Add(name=self.name("add"))(pair))

    def map_concat(self) -> None:
        pair = [self.pick(self.maps), self.pick(self.maps)]
        both = layers.Concatenate(name=self.name("concat"))(pair)
        self.maps.append(layers.Conv2D(CHANNELS, 1, name=self.name("mix"))(both))

    def map_ops(self) -> None:
        x = self.pick(self.maps)
        self.maps.append(ops.tanh(x * 1.5 + np.float32(0.1)) - ops.mean(x, axis=-1, keepdims=True))

    def gate(self) -> None:
        x = self.pick(self.maps)
        mean = layers.GlobalAveragePooling2D(keepdims=True, name=self.name("squeeze"))(x)
        gate = layers.Dense(CHANNELS, activation="sigmoid", name=self.name("excite"))(mean)
        self.maps.append(layers.Multiply(name=self.name("scale"))([x, gate]))

    def map_nested(self) -> None:
        x = keras.Input((6, 6, CHANNELS))
        y = layers.Conv2D(CHANNELS, 3, padding="same", name="conv")(x)
        y = layers.BatchNormalization(name="bn")(y)
        z = layers.Add(name="add")([x, layers.Activation("tanh", name="act")(y)])
        inner = keras.Model(x, z, name=self.name("block"))
        self.maps.append(inner(self.pick(self.maps), training=False))

    def twice(self) -> None:
        """Call a layer again that was called before (siamese)."""
        if not self.shared:
            self.conv()
        self.maps.append(self.pick(self.shared)(self.pick(self.maps)))

    def atom(self) -> None:
        self.maps.append(Atom(name=self.name("atom"))(self.pick(self.maps)))

    def vector(self) -> Any:
        if not self.vectors:
            pool = layers.GlobalAveragePooling2D if self.maps else layers.GlobalAveragePooling1D
            self.vectors.append(pool(name=self.name("mean"))((self.maps or self.sequences)[-1]))
        return self.pick(self.vectors)

    def dense(self) -> None:
        x = layers.Dense(CHANNELS, activation="tanh", name=self.name("dense"))
        self.vectors.append(x(self.vector()))

    def dense_bn(self) -> None:
        name = self.name("dense")
        y = layers.Dense(CHANNELS, name=name)(self.vector())
        self.vectors.append(layers.BatchNormalization(name=f"{name}_bn")(y))

    def dropout(self) -> None:
        self.vectors.append(layers.Dropout(0.3, name=self.name("drop"))(self.vector()))

    def add(self) -> None:
        pair = [self.vector(), self.vector()]
        self.vectors.append(layers.Add(name=self.name("add"))(pair))

    def vector_ops(self) -> None:
        self.vectors.append(ops.sin(self.vector()) * 2.0)

    def nested(self) -> None:
        x = keras.Input((CHANNELS,))
        y = layers.Dense(CHANNELS, activation="tanh", name="dense")(x)
        inner = keras.Model(x, layers.Add(name="add")([x, y]), name=self.name("block"))
        self.vectors.append(inner(self.vector()))

    def two_deep(self) -> None:
        inner = keras.Sequential(
            [layers.Dense(CHANNELS, activation="tanh", name="dense"), layers.Dropout(0.2)],
            name="inner",
        )
        x = keras.Input((CHANNELS,))
        y = layers.BatchNormalization(name="bn")(inner(x))
        outer = keras.Model(x, layers.Dense(CHANNELS, name="dense")(y), name=self.name("outer"))
        self.vectors.append(outer(self.vector()))

    def two_inputs(self) -> None:
        """A submodel of two inputs, called by names that sort the other way round."""
        x, y = keras.Input((CHANNELS,), name="z"), keras.Input((CHANNELS,), name="a")
        z = layers.Subtract(name="less")([layers.Dense(CHANNELS, name="dense")(x), y])
        inner = keras.Model([x, y], z, name=self.name("pair"))
        self.vectors.append(inner({"a": self.vector(), "z": self.vector()}))

    def lstm(self) -> None:
        x = layers.LSTM(CHANNELS, return_sequences=True, name=self.name("lstm"))
        self.sequences.append(x(self.pick(self.sequences)))

    def gru(self) -> None:
        x = layers.GRU(CHANNELS, name=self.name("gru"))
        self.vectors.append(x(self.pick(self.sequences)))

    def attention(self) -> None:
        # No biases: that of the keys has no gradient (softmax does not see it).
        x = layers.MultiHeadAttention(2, 2, use_bias=False, name=self.name("attention"))
        y = self.pick(self.sequences)
        self.sequences.append(layers.Add(name=self.name("add"))([y, x(y, y)]))

    def sequence_nested(self) -> None:
        x = keras.Input((STEPS, CHANNELS))
        y = layers.GRU(CHANNELS, return_sequences=True, name="gru")(x)
        inner = keras.Model(x, y, name=self.name("reader"))
        self.sequences.append(inner(self.pick(self.sequences)))

    def norm(self) -> None:
        x = layers.LayerNormalization(name=self.name("norm"))
        self.sequences.append(x(self.pick(self.sequences)))


def build(recipe: Recipe) -> keras.Model:
    """The model of a recipe; the same weights in each call."""
    keras.utils.set_random_seed(recipe.seed)
    return _Builder(recipe).build()


def draw_inputs(recipe: Recipe, count: int) -> Any:
    """Samples for the model of a recipe, as its inputs are: one array, a list or a dict."""
    rng = np.random.default_rng(recipe.seed + 1)
    made: dict[str, np.ndarray] = {}
    for kind in recipe.inputs:
        if kind == "ids":
            ids = rng.integers(1, WORDS, (count, STEPS))
            # Padding at the end, of a length of its own in each row.
            ids[np.arange(STEPS) >= rng.integers(2, STEPS + 1, (count, 1))] = 0
            made[kind] = ids.astype("int32")
        else:
            shape = (6, 6, CHANNELS) if kind == "map" else (CHANNELS,)
            made[kind] = rng.normal(size=(count, *shape)).astype("float32")
    if recipe.named:
        return made
    return list(made.values()) if len(made) > 1 else next(iter(made.values()))


def draw_labels(recipe: Recipe, count: int) -> Any:
    """Integer labels, one array for each head, structured as the outputs."""
    rng = np.random.default_rng(recipe.seed + 2)
    made = {f"out{i}": rng.integers(0, 2, count) for i in range(recipe.outputs)}
    if recipe.outputs == 1:
        return made["out0"]
    return made if recipe.named else list(made.values())


def loss_of(recipe: Recipe) -> Any:
    """A loss for each head."""
    name = "sparse_categorical_crossentropy"
    if recipe.outputs == 1:
        return name
    heads = [f"out{i}" for i in range(recipe.outputs)]
    return dict.fromkeys(heads, name) if recipe.named else [name] * recipe.outputs


def three_blocks() -> keras.Model:
    """Three blocks of convolution and BatchNorm, and a head of two dense layers."""
    inputs = x = keras.Input((16, 16, 2))
    for block in range(1, 4):
        x = layers.Conv2D(4, 3, strides=2, padding="same", name=f"block{block}_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.ReLU(name=f"block{block}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, activation="relu", name="transfer_dense")(x)
    x = layers.Dropout(0.5, name="transfer_dropout")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="transfer_out")(x))
