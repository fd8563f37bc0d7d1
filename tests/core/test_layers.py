"""From what a stage says to variables and flags, and back to the flags of before."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import flatten_layers
from unfreeze.core.layers import Selection, apply, check, flags, select
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError

layers = keras.layers


def block(name: str, size: int, channels: int) -> keras.Model:
    """A submodel: convolution, BatchNorm, ReLU, with the same inner names in each."""
    inputs = keras.Input((size, size, channels))
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name=name)


@keras.saving.register_keras_serializable(package="unfreeze_tests")
class Gated(layers.Layer):
    """A layer with layers inside it, BatchNorm among them: one step for us."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(4, name="inner")
        self.norm = layers.BatchNormalization(name="inner_norm")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.norm.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x + self.norm(self.inner(x), training=training)


def nested_model() -> keras.Model:
    """Two nested blocks, a dense layer used twice, a composite layer, and a head."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = block("lower", 8, 2)(inputs)
    x = block("upper", 4, 4)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    shared = layers.Dense(4, activation="tanh", name="shared")
    x = shared(shared(x))
    x = Gated(name="gated")(x)
    outputs = layers.Dense(3, activation="softmax", name="out")(x)
    model = keras.Model(inputs, outputs, name="whole")
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            # As if pretrained: a new one trains whatever the policy.
            layer.moving_mean.assign(np.full(4, 0.1))
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return nested_model()


def chosen(model: keras.Model, train: Any, **more: Any) -> list[str]:
    selection = select(flatten(model), Stage("s", train=train, **more))
    return [entry.path for entry in selection.chosen]


LOWER = ["lower/conv", "lower/norm", "lower/relu"]
UPPER = ["upper/conv", "upper/norm", "upper/relu"]
REST = ["pool", "shared", "gated", "out"]


@pytest.mark.parametrize(
    ("train", "paths"),
    [
        ("all", LOWER + UPPER + REST),
        ("*", LOWER + UPPER + REST),
        ("out", ["out"]),
        ("lower", LOWER),
        ("lower/*", LOWER),
        ("upper/conv", ["upper/conv"]),
        ("conv", ["lower/conv", "upper/conv"]),
        ("re:^upper/c", ["upper/conv"]),
        ("re:^(out|gated)$", ["gated", "out"]),
        (["out", "upper"], [*UPPER, "out"]),
        (("out", "lower/conv"), ["lower/conv", "out"]),
        ({"out", "gated"}, ["gated", "out"]),
        (["all", "!lower"], UPPER + REST),
        (["all", "!lower", "!re:norm$"], ["upper/conv", "upper/relu", *REST]),
        ("!lower", UPPER + REST),
        (["!lower", "!upper"], REST),
        (["upper", "!*/norm", "out"], ["upper/conv", "upper/relu", "out"]),
        ("head", ["shared", "gated", "out"]),
        (["all", "!head"], [*LOWER, *UPPER, "pool"]),
        (lambda layer: layer.name.startswith("s"), ["shared"]),
    ],
)
def test_patterns(model: keras.Model, train: Any, paths: list[str]) -> None:
    assert chosen(model, train) == paths


def test_layer_objects_and_submodels(model: keras.Model) -> None:
    assert chosen(model, model.get_layer("out")) == ["out"]
    assert chosen(model, [model.get_layer("upper"), "out"]) == [*UPPER, "out"]
    inner = model.get_layer("upper").get_layer("conv")
    assert chosen(model, inner) == ["upper/conv"]
    assert chosen(model, model) == LOWER + UPPER + REST


def test_a_layer_named_twice_is_trained_once(model: keras.Model) -> None:
    once = select(flatten(model), Stage("s", train="out"))
    out = model.get_layer("out")
    twice = select(flatten(model), Stage("s", train=["out", "out", out, "re:^out$"]))
    assert [id(v) for v in twice.trained] == [id(v) for v in once.trained]
    assert len(twice.chosen) == 1


def test_a_shared_layer_counts_once(model: keras.Model) -> None:
    selection = select(flatten(model), Stage("s", train="shared"))
    assert [v.shape for v in selection.trained] == [(4, 4), (4,)]


def test_groups_from_the_top() -> None:
    inputs = x = keras.Input((16, 16, 2))
    for i in range(1, 5):
        x = layers.Conv2D(3, 3, strides=2, padding="same", name=f"block{i}_conv")(x)
        x = layers.Conv2D(3, 3, padding="same", name=f"block{i}_mix")(x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    four = [[f"block{i}_conv", f"block{i}_mix"] for i in range(1, 5)]

    def below(count: int) -> list[str]:
        return [name for pair in four[4 - count :] for name in pair] + ["last"]

    for train, count in [
        ("head", 0),
        ("top:0", 0),
        ("top:1", 1),
        ("top:3", 3),
        ("top:4", 4),
        ("top:0%", 0),
        ("top:1%", 1),
        ("top:25%", 1),
        ("top:26%", 2),
        ("top:66.6667%", 3),
        ("top:100%", 4),
    ]:
        assert chosen(model, train) == below(count), train
    assert chosen(model, ["all", "!top:2"]) == ["block1_conv", "block1_mix", *four[1], "flat"]
    for train, reason in [
        ("top:5", "the model has 4 groups below its head"),
        ("top:101%", "more than the whole base"),
        ("top:1.5", "should look like"),
        ("top:two", "should look like"),
    ]:
        with pytest.raises(ScheduleError, match=f"stage 's': '{train}'.*{reason}"):
            chosen(model, train)


def test_thirds_of_three_groups_are_one_two_and_three() -> None:
    inputs = x = keras.Input((8, 8, 1))
    for i in range(1, 4):
        x = layers.Conv2D(2, 3, padding="same", name=f"block{i}_a")(x)
        x = layers.Conv2D(2, 3, padding="same", name=f"block{i}_b")(x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Flatten()(x)))
    for third in (1, 2, 3):
        assert len(chosen(model, f"top:{100 * third / 3:g}%")) == 2 * third + 1


def test_a_layer_or_submodel_named_head_comes_before_the_group() -> None:
    inputs = keras.Input((4,))
    top = keras.Input((3,))
    head = keras.Model(top, layers.Dense(2, name="b")(layers.Dense(3, name="a")(top)), name="head")
    model = keras.Model(inputs, head(layers.Dense(3, name="base")(inputs)))
    assert chosen(model, "head") == ["head/a", "head/b"]


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ("ouut", r"'ouut' matches no layer of the model\. Did you mean 'out'\?"),
        ("zzzz", "matches no layer of the model. Its last layers with weights are"),
        (["out", "zzzz"], "'zzzz' matches no layer"),
        ("!zzzz", "'!zzzz' matches no layer"),
        ("re:(", "not a regular expression"),
        (["out", "!lower"], "'!lower' takes nothing away"),
        (["out", "!out"], "trains nothing"),
        ("relu", "trains nothing.*names 2 layers, none with weights"),
        ("norm", "BatchNorm layers are frozen in it: use batch_norm='affine'"),
        (lambda layer: False, "matches no layer"),
        (3, "cannot select layers by 3"),
        ([None], "cannot select layers by None"),
        (layers.Dense(2, name="foreign"), "matches no layer"),
    ],
)
def test_selections_that_are_refused(model: keras.Model, train: Any, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        chosen(model, train)


def test_check_refuses_a_later_stage_too(model: keras.Model) -> None:
    good = Schedule((Stage("a", train="out"), Stage("b", train="all")))
    assert [s.stage.name for s in check(flatten(model), good)] == ["a", "b"]
    with pytest.raises(ScheduleError, match=r"stage 'b'.*matches no layer"):
        check(flatten(model), Schedule((Stage("a", train="out"), Stage("b", train="zzzz"))))


def norms(model: keras.Model) -> list[Any]:
    kind = layers.BatchNormalization
    return [layer for layer in flatten_layers(model) if isinstance(layer, kind)]


@pytest.mark.parametrize("policy", ["frozen", "affine", "train"])
def test_batch_norm_flags_under_each_policy(policy: Any) -> None:
    model = nested_model()
    selection = select(flatten(model), Stage("s", train=["upper", "gated"], batch_norm=policy))
    apply(model, selection)
    upper = model.get_layer("upper").get_layer("norm")
    inner = model.get_layer("gated").norm
    lower = model.get_layer("lower").get_layer("norm")
    for norm in (upper, inner):
        assert norm.trainable is (policy == "train")
        assert norm.gamma.trainable is (policy != "frozen")
        assert norm.beta.trainable is (policy != "frozen")
    assert lower.trainable is False
    assert lower.gamma.trainable is False
    assert model.get_layer("upper").get_layer("conv").trainable is True
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in selection.trained}
    statistics = {
        id(v) for norm in (upper, inner) for v in (norm.moving_mean, norm.moving_variance)
    }
    assert {id(v) for v in selection.updating} == (statistics if policy == "train" else set())


@pytest.mark.parametrize("policy", ["frozen", "affine", "train"])
def test_statistics_move_only_under_train(policy: Any) -> None:
    model = nested_model()
    apply(model, select(flatten(model), Stage("s", train="all", batch_norm=policy)))
    before = [keras.ops.convert_to_numpy(norm.moving_mean) for norm in norms(model)]
    model(np.random.default_rng(0).normal(1, 2, (8, 8, 8, 2)).astype("float32"), training=True)
    after = [keras.ops.convert_to_numpy(norm.moving_mean) for norm in norms(model)]
    moved = [float(np.abs(b - a).max()) > 0 for b, a in zip(before, after, strict=True)]
    assert moved == [policy == "train"] * 3


def state(model: keras.Model) -> tuple[list[bool], list[bool]]:
    found = flatten_layers(model)
    return [layer.trainable for layer in found], [v.trainable for v in model.weights]


def selection_of(model: keras.Model, paths: list[str], policy: Any) -> Selection | None:
    """The selection, None where such a stage trains nothing."""
    try:
        return select(flatten(model), Stage("s", train=paths, batch_norm=policy))
    except ScheduleError:
        with_weights = {"conv", "shared", "gated", "out", *(["norm"] if policy != "frozen" else [])}
        if any(path.split("/")[-1] in with_weights for path in paths):
            raise
        return None


_LAW_MODEL: list[keras.Model] = []


@settings(max_examples=40, deadline=None)
@given(
    paths=st.lists(st.sampled_from(LOWER + UPPER + REST), min_size=1, unique=True),
    policy=st.sampled_from(["frozen", "affine", "train"]),
    layer_flags=st.lists(st.booleans(), min_size=16, max_size=16),
    variable_flags=st.lists(st.none() | st.booleans(), min_size=30, max_size=30),
)
def test_flags_are_exact_whatever_was_before_and_come_back(
    paths: list[str], policy: Any, layer_flags: list[bool], variable_flags: list[bool | None]
) -> None:
    """Law: after `apply` exactly `trained` is trainable, and restoring is exact."""
    model = _LAW_MODEL[0] if _LAW_MODEL else nested_model()
    _LAW_MODEL[:] = [model]
    for layer, flag in zip(flatten_layers(model), layer_flags, strict=False):
        layer.trainable = flag
    for variable, flag in zip(model.weights, variable_flags, strict=False):
        if flag is not None and "moving" not in variable.name:
            variable.trainable = flag
    before = state(model)
    restore = flags(model)
    selection = selection_of(model, paths, policy)
    if selection is not None:
        assert state(model) == before
        apply(model, selection)
        assert {id(v) for v in model.trainable_variables} == {id(v) for v in selection.trained}
    restore()
    assert state(model) == before


def test_flags_come_back_where_a_layer_is_shared_with_a_submodel() -> None:
    shared = layers.Dense(4, name="shared")
    inner = keras.Input((4,))
    sub = keras.Model(inner, shared(layers.Dense(4, name="own")(inner)), name="sub")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, sub(shared(inputs)))
    shared.trainable = False
    before = state(model)
    restore = flags(model)
    apply(model, select(flatten(model), Stage("s", train="all")))
    assert state(model) != before
    restore()
    assert state(model) == before
    assert shared.trainable is False
    assert sub.trainable is True
