"""The key of a cache: every change of what its rows depend on, code included."""

import keras
import numpy as np
from keras import layers

from unfreeze.core.boundary import find_cut
from unfreeze.core.fingerprints import cache_key
from unfreeze.core.graph import flatten


def key_of(model: keras.Model, content="data", **options) -> str:
    head = {id(v) for v in model.get_layer("head").weights}
    cut = find_cut(flatten(model), head, views=options.get("views", 1))
    return cache_key(content, cut, **{"half": False, "views": 1, "fused": True, **options})


def model_of(*parts, shape=(3,)) -> keras.Model:
    x = y = keras.Input(shape, name="x")
    for part in parts:
        y = part(y)
    return filled(keras.Model(x, layers.Dense(2, name="head")(y)))


def filled(model: keras.Model) -> keras.Model:
    for weight in model.weights:
        weight.assign(np.arange(np.prod(weight.shape)).reshape(weight.shape))
    return model


def dense(**options):
    return layers.Dense(3, name="base", **options)


def test_the_same_model_built_anew_has_the_same_key():
    assert key_of(model_of(dense())) == key_of(model_of(dense()))
    assert key_of(model_of(dense(), lambda x: x * 2 + 1)) == key_of(
        model_of(dense(), lambda x: x * 2 + 1)
    )


def test_settings_and_data_are_in_it():
    model = model_of(dense())
    keys = {
        key_of(model),
        key_of(model, "other data"),
        key_of(model, half=True),
        key_of(model, views=2),
        key_of(model, fused=False),
    }
    assert len(keys) == 5


def test_layers_their_settings_and_their_order_are_in_it():
    keys = [
        key_of(model_of(dense())),
        key_of(model_of(dense(activation="relu"))),
        key_of(model_of(dense(), layers.ReLU(name="a"), layers.LayerNormalization(name="b"))),
        key_of(model_of(dense(), layers.LayerNormalization(name="b"), layers.ReLU(name="a"))),
        key_of(model_of(layers.BatchNormalization(epsilon=1e-3), dense())),
        key_of(model_of(layers.BatchNormalization(epsilon=1e-4), dense())),
        key_of(model_of(dense(dtype="mixed_bfloat16"))),
        key_of(model_of(dense(dtype="mixed_float16"))),
    ]
    assert len(set(keys)) == len(keys)


class Weighted(layers.Layer):
    """A layer of the user's own that makes its weights itself."""

    def build(self, shape):
        self.w = self.add_weight((shape[-1],), name="w")

    def call(self, x):
        return x * self.w


def test_a_layer_that_builds_itself_has_the_same_key_each_time():
    assert key_of(model_of(dense(), Weighted())) == key_of(model_of(dense(), Weighted()))
    model = model_of(dense(), Weighted(name="own"))
    before = key_of(model)
    model.get_layer("own").w.assign([0, 1, 3])
    assert key_of(model) != before
    # A method that was put in the place of its own is code of another kind.
    model = model_of(dense(), Weighted(name="own"))
    model.get_layer("own").call = lambda x: x * 2
    assert key_of(model) != before


def test_statistics_of_frozen_batch_norm_are_in_it():
    model = model_of(dense(), layers.BatchNormalization(name="bn"))
    before = key_of(model)
    model.get_layer("bn").moving_mean.assign([0, 0, 1e-6])
    assert key_of(model) != before


def test_wiring_is_in_it():
    def crossed(swap: bool) -> keras.Model:
        x = keras.Input((3,))
        a, b = dense()(x), layers.Dense(3, activation="tanh", name="other")(x)
        y = layers.Subtract(name="minus")([b, a] if swap else [a, b])
        return filled(keras.Model(x, layers.Dense(2, name="head")(y)))

    assert key_of(crossed(False)) != key_of(crossed(True))


def test_large_constants_are_in_it_to_the_last_number():
    # Their text form leaves the middle out.
    one = np.zeros(2000, "float32")
    other = one.copy()
    other[1000] = 1.0
    wide = layers.Dense(2000, name="base")
    keys = {key_of(model_of(wide, lambda x, c=c: x + c)) for c in (one, other)}
    assert len(keys) == 2


@keras.saving.register_keras_serializable(package="unfreeze_tests")
class Scale(layers.Layer):
    """Leaves its factor out of its configuration."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_numbers_that_a_users_layer_holds_are_in_it():
    layer = Scale(name="scale")
    model = model_of(dense(), layer)
    before = key_of(model)
    assert key_of(model_of(dense(), Scale(name="scale"))) == before
    layer.factor = 2.0
    assert key_of(model) != before


OWN = """
import keras

class L(keras.layers.Layer):
    def call(self, x):
        return x * {}
"""


def test_code_of_a_users_layer_is_in_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for number in (2, 3):
        (tmp_path / f"own{number}.py").write_text(OWN.format(number))
        module = __import__(f"own{number}")
        module.L.__module__ = "own"
        keys.append(key_of(model_of(dense(), module.L(name="l"))))
    assert keys[0] != keys[1]


def double(x):
    return x * 2


def triple(x):
    return x * 3


triple.__name__ = triple.__qualname__ = "double"


def test_code_of_a_function_is_in_it():
    for kind in (layers.Lambda, layers.Activation):
        keys = [key_of(model_of(dense(), kind(f, name="own"))) for f in (double, triple, double)]
        assert keys[0] == keys[2] != keys[1]


def test_values_that_a_function_took_along_are_in_it():
    def times(number):
        return layers.Lambda(lambda x: x * number, name="own")

    assert key_of(model_of(dense(), times(2))) == key_of(model_of(dense(), times(2)))
    assert key_of(model_of(dense(), times(2))) != key_of(model_of(dense(), times(3)))


class NoConfig(layers.Layer):
    def __init__(self, table):
        super().__init__(name="own")
        self.table = table

    def call(self, x):
        return x * 2


def test_what_cannot_be_told_for_certain_is_never_found_again():
    # Keras writes plain arguments down by itself, but not objects.
    plain, other = (model_of(dense(), NoConfig(table)) for table in ({"a": 1}, object()))
    assert key_of(plain) == key_of(plain)
    assert key_of(other) != key_of(other)

    odd = object()

    def by_default(x, table=(odd,)):
        return x

    def by_closure(x):
        return x if odd else None

    for function in (by_default, by_closure):
        model = model_of(dense(), layers.Lambda(function, name="own"))
        assert key_of(model) != key_of(model)


def test_seeds_of_augmentation_are_in_it_with_views_only():
    def photo():
        x = keras.Input((4, 4, 1))
        y = layers.RandomFlip(seed=3, name="flip")(x)
        y = layers.Flatten()(layers.Conv2D(2, 2, name="base")(y))
        return filled(keras.Model(x, layers.Dense(2, name="head")(y)))

    model = photo()
    before = key_of(model, views=2)
    assert key_of(photo(), views=2) == before
    flip = model.get_layer("flip")
    generator = flip._flatten_layers()[0]._seed_generators[0]
    generator.state.assign(np.array([9, 9], dtype=generator.state.dtype))
    assert key_of(model, views=2) != before
