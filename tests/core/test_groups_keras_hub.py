"""Networks of KerasHub with random weights: a group for each block, and what stages train.

It takes long to import and to trace, so it runs with `-m slow`.
"""

import keras
import numpy as np
import pytest

from unfreeze import ScheduleError, Stage, UnfreezeSchedule, fit
from unfreeze.core.graph import flatten
from unfreeze.core.groups import find_groups
from unfreeze.core.presets import gradual

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 50, (16, 8)).astype("int32")
Y = np.arange(16) % 2
TEXT = {"token_ids": TOKENS, "padding_mask": np.ones_like(TOKENS)}
SIZES = {"num_layers": 3, "hidden_dim": 16}


@pytest.fixture(scope="module")
def models():
    reason = "keras-hub is not installed: pip install keras-hub"
    keras.utils.set_random_seed(0)
    return pytest.importorskip("keras_hub", reason=reason).models


def classifier(inputs, sequence) -> keras.Model:
    y = keras.layers.GlobalAveragePooling1D()(sequence)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="top")(y))


def groups(model) -> list[str]:
    return [group.name.rpartition("/")[2] for group in find_groups(flatten(model))]


def moved(audit) -> list[set[str]]:
    """The layers that each stage moved, without the path."""
    return [
        {row.layer.rpartition("/")[2] for row in stage.layers if row.max_abs}
        for stage in audit.stages
    ]


def run(model, stages, x):
    return fit(model, stages, (x, Y), batch_size=8, seed=0, verbose=0)


def test_a_task_trains_gradually_in_its_own_fit(models):
    heads = {"num_heads": 2, "intermediate_dim": 32, "max_sequence_length": 8}
    backbone = models.BertBackbone(vocabulary_size=50, **SIZES, **heads)
    task = models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    blocks = [f"transformer_layer_{number}" for number in range(3)]
    assert groups(task) == ["embeddings", *blocks, "head"]
    x = {**TEXT, "segment_ids": np.zeros_like(TOKENS)}
    with pytest.raises(ScheduleError, match="BertTextClassifier overrides `fit`, which a stage"):
        fit(task, "gradual", (x, Y))
    task.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plan = gradual(groups=2).with_changes(epochs=1, until=None, reduce=None)
    callback = UnfreezeSchedule(plan)
    task.fit(x, Y, epochs=3, batch_size=8, verbose=0, callbacks=[callback])
    head = {"pooled_dense", "logits"}
    low = {f"{kind}_embedding" for kind in ("token", "position", "segment")}
    everything = {*head, *blocks, *low, "embeddings_layer_norm"}
    assert moved(callback.audit) == [head, head | set(blocks[1:]), everything]


def test_a_vision_transformer_from_the_top_and_with_falling_rates(models):
    backbone = models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=4, num_heads=2, mlp_dim=32, **SIZES
    )
    model = classifier(backbone.input, backbone.output)
    blocks = [f"transformer_block_{number}" for number in (1, 2, 3)]
    assert groups(model) == ["embeddings", *blocks, "head"]
    decayed = Stage("all", "all", epochs=1, layer_decay=0.5, optimizer="sgd", learning_rate=0.01)
    x = RNG.normal(size=(16, 16, 16, 3)).astype("float32")
    result = run(model, [Stage("two", "top:2", epochs=1), decayed], x)
    upper = {"top", "ln", *blocks[1:]}
    everything = upper | {blocks[0], "vit_patching_and_embedding"}
    assert moved(result.audit) == [upper, everything]
    half = run(model, [Stage("half", "top:50%", epochs=1)], x)
    assert moved(half.audit) == [upper]


def test_a_decoder_with_lora(models):
    backbone = models.GemmaBackbone(
        vocabulary_size=50, num_query_heads=2, num_key_value_heads=1, intermediate_dim=32,
        head_dim=8, **SIZES,
    )  # fmt: skip
    model = classifier(backbone.input, backbone.output)
    assert groups(model) == ["embeddings", *(f"decoder_block_{n}" for n in range(3)), "head"]
    names = [v.path for v in model.weights]
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.weights}
    result = run(model, [Stage("lora", "top:2", epochs=2, lora=2, learning_rate=0.01)], TEXT)
    assert [v.path for v in model.weights] == names
    rows = {row.layer: row for row in result.audit.stages[0].layers}
    ranks = {name: row.lora for name, row in rows.items() if row.lora}
    assert ranks == {"decoder_block_1": 2, "decoder_block_2": 2}
    # 7 kernels in a block, and the norms and the head in full.
    assert result.stages[0].trained_weights < sum(v.size for v in before.values()) / 4
    changed = [v for v in model.weights if (keras.ops.convert_to_numpy(v) != before[v.path]).any()]
    kernels = [v for v in changed if v.name == "kernel" and "decoder_block" in v.path]
    assert len(kernels) == 14
    for kernel in kernels:
        change = keras.ops.convert_to_numpy(kernel) - before[kernel.path]
        flat = change.reshape(-1, change.shape[-1])
        assert np.linalg.matrix_rank(flat, tol=1e-5) <= 2


def test_the_encoder_of_a_model_for_speech(models):
    backbone = models.WhisperBackbone(
        vocabulary_size=50, num_heads=2, intermediate_dim=32, max_encoder_sequence_length=20,
        max_decoder_sequence_length=8, **SIZES,
    )  # fmt: skip
    features = next(x for x in backbone.inputs if "encoder_features" in x.name)
    model = classifier(features, backbone.output["encoder_sequence_output"])
    blocks = [f"transformer_encoder_layer_{number}" for number in range(3)]
    assert groups(model) == ["embeddings", *blocks, "head"]
    x = RNG.normal(size=(16, 20, 80)).astype("float32")
    result = run(model, [Stage("one", "top:1", epochs=1)], x)
    assert moved(result.audit) == [{"top", "encoder_layer_norm", blocks[2]}]
