"""Models that are subclasses: no graph to walk, but layers to train by stages."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from unfreeze import Stage, UnfreezeSchedule, fit
from unfreeze.core.graph import outline
from unfreeze.core.groups import find_groups
from unfreeze.errors import ScheduleError

X = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype("float32")
Y = np.arange(32) % 2
LOSS = "sparse_categorical_crossentropy"


class Block(layers.Layer):
    """A convolution beside a shortcut, with a norm."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(3, 3, padding="same")
        self.norm = layers.LayerNormalization()

    def call(self, x):
        return x + self.norm(ops.relu(self.conv(x)))


class Own(keras.Model):
    """A stem, blocks in a list, and a head, called in Python."""

    def __init__(self):
        super().__init__(name="own")
        self.stem = layers.Conv2D(3, 3, name="stem")
        self.blocks = [Block(name=f"block_{number}") for number in range(3)]
        self.pool = layers.GlobalAveragePooling2D()
        self.top = layers.Dense(2, "softmax", name="top")

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.top(self.pool(x))


class Around(keras.Model):
    """A functional base inside a subclass."""

    def __init__(self):
        super().__init__(name="around")
        x = keras.Input((6, 6, 1))
        y = layers.Conv2D(3, 3, strides=2, name="low")(x)
        self.base = keras.Model(x, layers.Conv2D(3, 2, name="high")(y), name="base")
        self.top = layers.Dense(2, "softmax", name="top")

    def call(self, x):
        return self.top(ops.mean(self.base(x), axis=(1, 2)))


def built(kind) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = kind()
    model(X[:1])
    model.compile("adam", LOSS)
    return model


def test_it_trains_by_stages_in_its_own_fit():
    model = built(Own)
    stages = [
        Stage("head", "head", epochs=1),
        Stage("top", "top:1", epochs=1),
        Stage("all", ["all", "!stem"], epochs=1, layer_decay=0.5, learning_rate=1e-4),
    ]
    callback = UnfreezeSchedule(stages)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    blocks = {f"block_{number}" for number in range(3)}
    moved = [{row.layer for row in s.layers if row.max_abs} for s in callback.audit.stages]
    assert moved == [{"top"}, {"top", "block_2"}, {"top", *blocks}]
    # Adam's first step moves each weight by its rate: half of it a group below.
    rows = {row.layer: row.max_abs for row in callback.audit.stages[2].layers}
    assert rows["block_2"] / rows["block_1"] == pytest.approx(2, rel=0.05)
    assert rows["block_1"] / rows["block_0"] == pytest.approx(2, rel=0.05)
    assert callback.results[0].cache == "not cached: one fit"


def test_layers_of_functional_submodels_have_their_paths():
    graph = outline(built(Around))
    groups = {group.name: [x.name for x in group.layers] for group in find_groups(graph)}
    assert groups["head"] == ["top"]
    assert [step.path for step in graph.steps if step.is_layer] == ["base/low", "base/high", "top"]


def test_unfreeze_fit_says_which_way_it_goes():
    with pytest.raises(ScheduleError, match=r"'own' has no graph to walk, because its class Own"):
        fit(built(Own), "two_stage", (X, Y))
    with pytest.raises(ScheduleError, match=r"with the callback UnfreezeSchedule\(schedule\), or"):
        fit(built(Own), "two_stage", (X, Y))
    plain = keras.Sequential([layers.Dense(2, name="d")], name="plain")
    with pytest.raises(ScheduleError, match=r"'plain' has no graph to walk: build it"):
        fit(plain, "two_stage", (X, Y))


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(ScheduleError, match=r"'own' is not built: call it before `fit`"):
        outline(Own())

    class Weighted(Own):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(), name="scale")

    with pytest.raises(ScheduleError, match=r"weights of its own \(scale\).*put them into a layer"):
        outline(built(Weighted))
