"""Layer groups, on the models of keras.applications and where names say nothing."""

import keras
import pytest

from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import is_learnable
from unfreeze.core.layers import find_groups

layers = keras.layers


def groups_of(model: keras.Model) -> list[tuple[str, int]]:
    graph = flatten(model)
    groups = find_groups(graph)
    found = [layer for group in groups for layer in group.layers]
    learnable = {id(s.operation) for s in graph.steps if is_learnable(s.operation)}
    # Each learnable layer is in exactly one group.
    assert len(found) == len(learnable)
    assert {id(layer) for layer in found} == learnable
    return [(group.name, len(group.layers)) for group in groups]


APPLICATIONS = {
    "MobileNetV3Small": [
        ("stem", 8),
        ("expanded_conv_1", 6),
        ("expanded_conv_2", 6),
        *[(f"expanded_conv_{i}", 8) for i in range(3, 11)],
        ("conv_1", 3),
        ("head", 1),
    ],
    "ResNet50": [
        ("conv1", 2),
        ("conv2", 20),
        ("conv3", 26),
        ("conv4", 38),
        ("conv5", 20),
        ("head", 1),
    ],
    "EfficientNetV2B0": [
        ("stem", 2),
        ("block1", 2),
        ("block2", 8),
        ("block3", 8),
        ("block4", 24),
        ("block5", 40),
        ("block6", 66),
        ("head", 1),
    ],
    "ConvNeXtTiny": [
        ("stem", 2),
        ("convnext_tiny_stage_0", 17),
        ("convnext_tiny_stage_1", 17),
        ("convnext_tiny_stage_2", 47),
        ("convnext_tiny_stage_3", 15),
        ("head", 2),
    ],
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_applications(name: str) -> None:
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10)
    assert groups_of(model) == APPLICATIONS[name]


def test_a_head_on_a_nested_base() -> None:
    base = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    inputs = keras.Input((32, 32, 3))
    x = layers.Dense(8, name="mid")(base(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    assert groups_of(model) == [*APPLICATIONS["ResNet50"][:-1], ("head", 2)]
    assert [layer.name for layer in find_groups(flatten(model))[-1].layers] == ["mid", "out"]


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("norm", [False, True])
def test_without_names_the_resolution_decides(layout: str, norm: bool) -> None:
    axis = 1 if layout == "channels_first" else -1
    parts = [layers.Input((2, 16, 16) if axis == 1 else (16, 16, 2))]
    for filters in (4, 64, 128):
        for _ in range(2):
            parts.append(layers.Conv2D(filters, 3, padding="same", data_format=layout))
            parts += [layers.BatchNormalization(axis=axis)] if norm else []
        parts.append(layers.MaxPooling2D(data_format=layout))
    parts += [layers.Flatten(), layers.Dense(8), layers.Dense(2)]
    size = 4 if norm else 2
    expected = [("level 1", size), ("level 2", size), ("level 3", size), ("head", 2)]
    assert groups_of(keras.Sequential(parts)) == expected


def test_sequences_are_grouped_by_their_length() -> None:
    model = keras.Sequential(
        [
            layers.Input((40, 3)),
            layers.Conv1D(8, 3, padding="same"),
            layers.Conv1D(8, 3, strides=2, padding="same"),
            layers.LSTM(8, return_sequences=True),
            layers.LSTM(8),
            layers.Dense(2),
        ]
    )
    # The last LSTM makes the vector, so it belongs to the base.
    assert groups_of(model) == [("level 1", 1), ("level 2", 2), ("level 3", 1), ("head", 1)]


def test_sizes_that_are_not_known_make_no_border() -> None:
    model = keras.Sequential(
        [
            layers.Input((None, 3)),
            layers.Conv1D(8, 3),
            layers.Conv1D(8, 3, strides=2),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    assert groups_of(model) == [("level 1", 2), ("head", 1)]


def test_dense_models_have_their_last_layer_as_head() -> None:
    dense = [layers.Dense(4) for _ in range(3)]
    assert groups_of(keras.Sequential([layers.Input((5,)), *dense])) == [
        ("level 1", 2),
        ("head", 1),
    ]
    assert groups_of(keras.Sequential([layers.Input((5,)), layers.Dense(2)])) == [("head", 1)]


def test_a_model_without_weights_has_no_groups() -> None:
    assert find_groups(flatten(keras.Sequential([layers.Input((5,)), layers.ReLU()]))) == ()
