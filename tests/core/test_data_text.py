"""Text, which a TextVectorization in the model reads: on TensorFlow, as in Keras."""

import keras
import numpy as np
import pytest

from unfreeze.core.data import as_data
from unfreeze.core.fingerprints import fingerprint
from unfreeze.core.fit import fit
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import DataError

pytestmark = pytest.mark.needs_backend("tensorflow")  # where alone Keras vectorizes text
TEXTS = np.array(["good film", "bad film", "a good one", "a really bad thing"] * 6)
LABELS = np.array([1, 0, 1, 0] * 6)
SCHEDULE = Schedule([Stage("head", "head", epochs=2), Stage("all", epochs=1)])


def reader(ragged: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    words = layers.TextVectorization(20, ragged=ragged)
    words.adapt(TEXTS)
    inputs = keras.Input((1,), dtype="string")
    x = layers.Embedding(20, 4, name="words")(words(inputs))
    x = layers.GlobalAveragePooling1D(name="pool")(x if ragged else layers.Dense(4)(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(x))


def losses(x, y=None, ragged=False, **options):
    options = {"batch_size": 8, "seed": 0, "verbose": 0, **options}
    result = fit(reader(ragged), SCHEDULE, x, y, **options)
    return [row["loss"] for row in result.history], result.stages[0].cache


def test_text_in_any_form_trains_alike():
    wanted, cache = losses(TEXTS, LABELS)
    assert cache.startswith("cached: ")
    assert wanted[2] < wanted[0]
    # A list, and objects; the same ones in a dataset are cached, too.
    assert losses(list(TEXTS), LABELS) == (wanted, cache)
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(8)
    assert losses(dataset, validation_data=dataset)[1].startswith("cached: ")


def test_ragged_tokens_train_uncached_or_cached_behind_the_pooling():
    found, _ = losses(TEXTS, LABELS, ragged=True)
    assert np.isfinite(found).all()


def test_digests_follow_the_letters():
    model = reader()
    texts = [TEXTS, TEXTS.astype(object), TEXTS[:, None].astype("U40")[:, 0]]
    first, second, wider = (fingerprint(as_data((x, LABELS), model)).content for x in texts)
    assert first == second == wider
    assert fingerprint(as_data((TEXTS[::-1], LABELS), model)).content != first


@pytest.mark.parametrize("batched", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ragged_input_trains_in_stages_within_keras_own_fit(batched):
    tf = pytest.importorskip("tensorflow")
    x, y = tf.ragged.constant([[1, 2], [3], [4, 5, 6], [1]]), np.array([0, 1, 1, 0])
    inputs = keras.Input((None,), dtype="int64")
    words = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 2)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(words))
    model.compile("adam", "sparse_categorical_crossentropy")
    stages = UnfreezeSchedule([Stage("head", "head", epochs=1), Stage("all", "*", epochs=1)])
    data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(2),) if batched else (x, y)
    model.fit(*data, epochs=2, verbose=0, callbacks=[stages])
    moved = [sum(row.max_abs > 0 for row in stage.layers) for stage in stages.audit.stages]
    assert moved == [1, 2]


def test_what_is_neither_numbers_nor_text_is_refused():
    tf = pytest.importorskip("tensorflow")
    ragged = tf.ragged.constant([[1, 2], [3]])
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, keras.layers.Embedding(9, 2)(inputs))
    with pytest.raises(
        DataError, match=r"neither numbers nor text.*`x\.to_tensor\(\)` does, or train wi"
    ):
        as_data((ragged, np.zeros(2)), model)
    dataset = tf.data.Dataset.from_tensor_slices((ragged, np.zeros(2))).batch(2)
    with pytest.raises(DataError, match=r"rows of unequal size.*`padded_batch`.*UnfreezeSchedule"):
        as_data(dataset, model)
    with pytest.raises(DataError, match="the labels are text, not numbers"):
        fit(reader(), SCHEDULE, TEXTS, TEXTS, loss="sparse_categorical_crossentropy")
