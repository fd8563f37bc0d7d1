"""Stacks of blocks (transformers) as layer groups: custom layers, and blocks inside one layer."""

import logging

import keras
import numpy as np
import pytest
from keras import layers, ops

from unfreeze import Stage, UnfreezeSchedule, fit, gradual
from unfreeze.core.graph import flatten
from unfreeze.core.groups import find_groups
from unfreeze.core.layer_entries import entries
from unfreeze.core.layers import apply, check, select
from unfreeze.core.optimizers import layer_factors
from unfreeze.core.presets import as_schedule

RNG = np.random.default_rng(0)
X = RNG.integers(0, 30, (32, 6))
Y = np.arange(32) % 2
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Block(layers.Layer):
    """Attention and a dense layer."""

    def build(self, shape):
        self.attend = layers.MultiHeadAttention(2, 4, name="attend")
        self.norm = layers.LayerNormalization(name="norm")
        self.dense = layers.Dense(8, name="dense")
        self.attend.build(shape, shape), self.norm.build(shape), self.dense.build(shape)

    def call(self, x):
        return x + self.dense(self.norm(x + self.attend(x, x)))


class Mixer(Block):
    """A block of another class."""


class Bare(layers.Layer):
    """A block that holds matrices and no layers."""

    def build(self, shape):
        self.up = self.add_weight(shape=(8, 8), name="up")
        self.down = self.add_weight(shape=(8, 8), name="down")

    def call(self, x):
        return x + ops.relu(x @ self.up) @ self.down


class TokenEmbedding(layers.Layer):
    def build(self, shape):
        self.tokens = layers.Embedding(30, 8)
        self.places = layers.Embedding(6, 8)
        self.tokens.build(shape), self.places.build(shape)

    def call(self, x):
        return self.tokens(x) + self.places(ops.arange(6))


class Encoder(layers.Layer):
    """Blocks in a list, what embeds made last, a norm after them and a weight of its own."""

    def __init__(self, depth=3, **more):
        super().__init__(**more)
        self.blocks = [Block(name=f"layer_{i}") for i in range(depth)]
        self.last = layers.LayerNormalization(name="last")
        self.embed = TokenEmbedding(name="embed")

    def build(self, shape):
        self.embed.build(shape)
        for block in self.blocks:
            block.build((*shape, 8))
        self.last.build((*shape, 8))
        self.scale = self.add_weight(shape=(8,), initializer="ones", name="scale")

    def call(self, x):
        y = self.embed(x) * self.scale
        for block in self.blocks:
            y = block(y)
        return self.last(y)


class Whole(keras.Model):
    """A submodel that is a subclass, around the encoder."""

    def __init__(self, **more):
        super().__init__(**more)
        self.encoder = Encoder(name="encoder")

    def build(self, shape):
        self.encoder.build(shape)
        self.built = True

    def call(self, x):
        return self.encoder(x)


def classifier(x, y) -> keras.Model:
    return keras.Model(x, layers.Dense(2, name="top")(layers.GlobalAveragePooling1D()(y)))


def stacked(blocks) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(30, 8, name="tokens")(x)
    for block in blocks:
        y = block(y)
    return classifier(x, y)


def encoded(kind=Encoder) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), dtype="int32")
    return classifier(x, kind(name="encoder")(x))


def groups(model) -> list[tuple[str, list[str]]]:
    return [(g.name, [layer.name for layer in g.layers]) for g in find_groups(flatten(model))]


def names(model, train) -> list[str]:
    graph = flatten(model)
    return [
        entry.path for entry in select(graph, Stage("s", train=train)).chosen if entry.learnable
    ]


FOUR = [
    ("embeddings", ["tokens"]),
    *[(f"block_{i}", [f"block_{i}"]) for i in range(4)],
    ("head", ["top"]),
]


@pytest.mark.parametrize("kind", [Block, Bare])
def test_each_custom_block_is_a_group(kind):
    assert groups(stacked([kind(name=f"block_{i}") for i in range(4)])) == FOUR


def test_blocks_with_the_names_that_keras_gives():
    found = groups(stacked([Block() for _ in range(3)]))
    assert [len(members) for _, members in found] == [1, 1, 1, 1, 1]
    assert found[0] == ("embeddings", ["tokens"])


def test_blocks_of_different_classes_with_one_stem():
    kinds = [Block, Bare, Mixer, Bare]
    assert groups(stacked([kind(name=f"block_{i}") for i, kind in enumerate(kinds)])) == FOUR


def test_two_kinds_with_the_same_number_are_one_group():
    pairs = [(Block(name=f"attention_{i}"), Bare(name=f"mlp_{i}")) for i in range(2)]
    found = groups(stacked([layer for pair in pairs for layer in pair]))
    assert found[1:3] == [
        ("attention_0", ["attention_0", "mlp_0"]),
        ("attention_1", ["attention_1", "mlp_1"]),
    ]


def test_what_follows_a_block_belongs_to_it_and_a_late_embedding_to_the_lowest():
    late = keras.Input((6,), dtype="int32")
    x = keras.Input((6,), dtype="int32")
    y = Block(name="block_0")(layers.Embedding(30, 8, name="tokens")(x))
    y = layers.LayerNormalization(name="norm_a")(y)
    y = layers.Add()([y, layers.Embedding(30, 8, name="more")(late)])
    y = layers.LayerNormalization(name="norm_b")(Block(name="block_1")(y))
    model = classifier([x, late], y)
    assert groups(model)[:-1] == [
        ("embeddings", ["tokens", "more"]),
        ("block_0", ["block_0", "norm_a"]),
        ("block_1", ["block_1", "norm_b"]),
    ]


def test_a_functional_backbone_is_opened_as_ever():
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(30, 8, name="token_embedding")(x)
    for i in range(3):
        y = Block(name=f"transformer_layer_{i}")(y)
    backbone = keras.Model(x, y, name="backbone")
    outer = keras.Input((6,), dtype="int32")
    found = [name for name, _ in groups(classifier(outer, backbone(outer)))]
    assert found == ["embeddings", *(f"backbone/transformer_layer_{i}" for i in range(3)), "head"]


def test_attention_layers_of_keras_divide_a_model_without_custom_blocks():
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(30, 8)(x)
    for _ in range(3):
        y = layers.LayerNormalization()(y + layers.MultiHeadAttention(2, 4)(y, y))
        y = layers.LayerNormalization()(y + layers.Dense(8)(y))
    found = groups(classifier(x, y))
    assert [len(members) for _, members in found] == [1, 4, 4, 4, 1]


@pytest.mark.parametrize("kind", [Encoder, Whole])
def test_blocks_inside_one_layer(kind):
    found = groups(encoded(kind))
    around = "encoder/encoder" if kind is Whole else "encoder"
    assert found == [
        ("embeddings", ["encoder", "embed"]),
        (f"{around}/layer_0", ["layer_0"]),
        (f"{around}/layer_1", ["layer_1"]),
        (f"{around}/layer_2", ["layer_2", "last"]),
        ("head", ["top"]),
    ]


def test_blocks_are_not_opened_themselves():
    class Twice(layers.Layer):
        def build(self, shape):
            self.parts = [Block(name=f"part_{i}") for i in range(2)]
            for part in self.parts:
                part.build(shape)

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    found = groups(stacked([Twice(name=f"block_{i}") for i in range(4)]))
    assert found == FOUR


def test_stages_do_what_they_say():
    model = stacked([Block(name=f"block_{i}") for i in range(4)])
    assert names(model, "top:2") == ["block_2", "block_3", "top"]
    assert names(model, "top:50%") == ["block_1", "block_2", "block_3", "top"]
    assert names(model, "group:1") == ["tokens"]
    selections = check(flatten(model), as_schedule("gradual"))
    sizes = [len(s.chosen) for s in selections]
    assert sizes == sorted(set(sizes))
    assert len(sizes) == 5
    factors = layer_factors(select(flatten(model), Stage("s", layer_decay=0.5)))
    by_layer = {model.get_layer(n): n for n in ("tokens", "block_0", "block_3", "top")}
    found = {n: {factors.get(id(v), 1.0) for v in x.trainable_weights} for x, n in by_layer.items()}
    assert found == {"tokens": {1 / 32}, "block_0": {1 / 16}, "block_3": {0.5}, "top": {1.0}}


def test_layer_decay_inside_one_layer():
    model = encoded()
    encoder = model.get_layer("encoder")
    factors = layer_factors(select(flatten(model), Stage("s", layer_decay=0.5)))
    wanted = [
        (encoder.scale, 1 / 16),
        (encoder.embed.tokens.embeddings, 1 / 16),
        (encoder.blocks[0].dense.kernel, 1 / 8),
        (encoder.blocks[2].dense.kernel, 1 / 2),
        (encoder.last.gamma, 1 / 2),
    ]
    assert [factors[id(v)] for v, _ in wanted] == [factor for _, factor in wanted]


@pytest.mark.parametrize("own_fit", [False, True])
def test_part_of_a_layer_trains_and_the_rest_does_not_move(own_fit):
    model = encoded()
    before = {w.path: np.array(ops.convert_to_numpy(w)) for w in model.weights}
    stages = [
        Stage("head", train="head", epochs=1),
        Stage("one", train="top:1", epochs=1),
        Stage("again", train=["top:2"], epochs=1),
    ]
    if own_fit:
        model.compile("adam", LOSS)
        callback = UnfreezeSchedule(stages)
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
        audit = callback.audit
    else:
        audit = fit(model, stages, (X, Y), loss=LOSS, seed=0, verbose=0).audit
    moved = [{row.layer for row in stage.layers if row.moved > 0} for stage in audit.stages]
    last = {"encoder/layer_2", "encoder/last", "top"}
    assert moved == [{"top"}, last, last | {"encoder/layer_1"}]
    for weight in model.weights:
        if any(part in weight.path for part in ("layer_0", "embed", "scale")):
            assert np.array_equal(before[weight.path], ops.convert_to_numpy(weight))
    # What stages froze is no weight that the layer holds frozen itself.
    everything = select(flatten(model), Stage("all"))
    assert everything.held == ()
    assert len(everything.trained) == len({id(w) for w in model.weights} & everything.live)
    apply(model, everything)
    assert len(model.trainable_variables) == len(model.weights)


def test_patterns_name_the_layer_around_and_those_inside():
    model = encoded()
    inside = [e.path for e in entries(flatten(model)) if e.path.startswith("encoder")]
    encoder = model.get_layer("encoder")
    for train in ("encoder", encoder, lambda layer: layer is encoder, ["all", "!top"]):
        assert names(model, train) == inside
    assert names(model, "encoder/layer_?") == [f"encoder/layer_{i}" for i in range(3)]
    assert names(model, encoder.blocks[1]) == ["encoder/layer_1"]
    assert names(model, ["all", "!encoder"]) == ["top"]


def test_gradual_trains_more_and_more():
    model = encoded()
    schedule = gradual().with_changes(epochs=1)
    result = fit(model, schedule, (X, Y), loss=LOSS, seed=0, verbose=0)
    sizes = [stage.trained_weights for stage in result.stages]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == model.count_params()


def test_a_model_without_groups_says_so_before_it_trains(caplog):
    x = keras.Input((6, 8))
    model = classifier(x, layers.Dense(8)(layers.LSTM(8, return_sequences=True)(x)))
    data = (RNG.normal(size=(32, 6, 8)).astype("float32"), Y)
    schedule = gradual().with_changes(epochs=1)
    with caplog.at_level(logging.INFO, "unfreeze"):
        fit(model, schedule, data, loss=LOSS, seed=0, verbose=0)
    told = [r.message for r in caplog.records if "only one layer group" in r.message]
    assert len(told) == 1
    assert "'top 1/4', 'top 2/4', 'top 3/4'" in told[0]
    assert caplog.records[0].message == told[0]
    assert caplog.records[0].levelname == "WARNING"
    caplog.clear()
    model.compile("adam", LOSS)
    model.fit(
        *data, epochs=5, validation_data=data, verbose=0, callbacks=[UnfreezeSchedule(schedule)]
    )
    assert any("only one layer group" in r.message for r in caplog.records)
