"""LoRA for one stage: the kernels stay, their matrices train, and are merged at its end."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from small_runs import Rates, assert_same_weights
from unfreeze import fit
from unfreeze.core import run_state
from unfreeze.core.boundary import check_stages, plan_stage
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.graph import flatten
from unfreeze.core.lora import adapted_layers, lora_while
from unfreeze.core.presets import preset, split_variant, vary
from unfreeze.core.run_state import identity
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.schedule_file import dump_schedule, parse_schedule
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import ScheduleError, StageError, Stopped

RNG = np.random.default_rng(0)
X = RNG.integers(0, 9, (48, 4)).astype("int32")
Y = (X[:, 0] > 4).astype("int32")
HELD = (X[:16], Y[:16])
HEAD = Stage("head", "head", epochs=1)
LORA = Stage("lora", "all", epochs=3, lora=2, learning_rate=0.02, keep="last")
SCHEDULE = Schedule([LORA])


def make() -> keras.Model:
    """An embedding, a convolution, attention, a dense layer and norms below a head."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), dtype="int32")
    y = layers.Embedding(9, 8, name="embed")(x)
    y = layers.Conv1D(8, 2, padding="same", name="conv")(y)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Dense(8, "tanh", name="mid")(layers.MultiHeadAttention(2, 4, name="att")(y, y))
    y = layers.LayerNormalization(name="scale")(y)
    y = layers.GlobalAveragePooling1D()(y)
    model = keras.Model(x, layers.Dense(2, "softmax", name="top")(y))
    model.get_layer("norm").moving_mean.assign([0.1] * 8)
    return model


def run(model, schedule=SCHEDULE, **more):
    settings = {"validation_data": HELD, "batch_size": 24, "seed": 0, "verbose": 0, **more}
    return fit(model, schedule, (X, Y), **settings)


class See(StageCallback):
    """What a callback of the user sees of the whole model while a stage trains."""

    def __init__(self, model):
        super().__init__()
        self.whole, self.outputs, self.kernels, self.plans = model, [], [], []

    def on_stage_begin(self, plan):
        self.plans.append(plan)

    def on_epoch_end(self, epoch, logs=None):
        self.outputs.append(self.whole.predict(X, verbose=0))
        self.kernels.append(np.array(ops.convert_to_numpy(self.whole.get_layer("mid")._kernel)))


@pytest.fixture(scope="module")
def whole():
    """A run of a stage with LoRA, its model before and after, what was seen: to look at."""
    model = make()
    before = [np.array(w) for w in model.get_weights()]
    names = [v.path for v in model.weights]
    model.predict(X, verbose=0)  # traced, so that it must be traced again
    see = See(model)
    return run(model, callbacks=[see]), model, before, names, see


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_kernels_stay_while_it_trains_and_hold_its_product_afterwards(whole):
    result, model, before, names, see = whole
    assert [v.path for v in model.weights] == names
    assert not any(getattr(x, "lora_enabled", False) for x in model._flatten_layers())
    place = names.index("mid/kernel")
    for kernel in see.kernels:
        np.testing.assert_array_equal(kernel, before[place])
    change = model.get_weights()[place] - before[place]
    values = np.linalg.svd(change, compute_uv=False)
    assert values[0] > 1e-3
    assert values[2:] == pytest.approx(0, abs=1e-5)
    # The merged model is the trained one, whatever was traced before.
    np.testing.assert_allclose(model.predict(X, verbose=0), see.outputs[-1], atol=1e-5)
    loss = model.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
    assert result.stages[0].best_value == pytest.approx(loss, rel=1e-4)
    assert all(v.trainable for v in model.get_layer("mid").weights)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_the_audit_and_the_plan_show_it(whole):
    result, _, _, _, see = whole
    rows = {row.layer: row for row in result.audit.stages[0].layers}
    assert {name: row.lora for name, row in rows.items() if row.lora} == {
        "embed": 2,
        "conv": 2,
        "att": 2,
        "mid": 2,
    }
    for held in ("embed/embeddings", "conv/kernel", "att/query/kernel", "mid/kernel"):
        assert (rows[held].trainable, rows[held].moved) == (False, 0.0)
    assert rows["top"].trainable
    assert rows["top"].weights == 18
    assert (rows["norm"].trainable, rows["scale"].trainable) == (False, True)
    assert rows["mid"].moved > 0
    assert "trained by LoRA of rank 2" in str(result.audit)
    assert result.audit.stages[0].as_dict()["layers"][0]["lora"] == 2
    trained = result.stages[0].trained_weights
    assert see.plans[0].weights_trained == trained
    # The plan knows it before there are any matrices.
    graph = flatten(make())
    assert plan_stage(graph, check_stages(graph, SCHEDULE)[0]).weights_trained == trained


@pytest.mark.slow_on("jax")
def test_interrupted_it_ends_with_the_same_weights(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)
    model, more = make(), {"run_dir": tmp_path, "validation_data": None}
    with pytest.raises(Stopped):
        run(model, callbacks=[Rates(last=2)], **more)
    assert not model.get_layer("mid").lora_enabled
    # Another call in the same process, on the same model.
    run(model, **more)
    assert_same_weights(whole[1], model)
    # Finished stages are only loaded.
    again = make()
    run(again, **more)
    assert_same_weights(whole[1], again)


@pytest.mark.slow_on("jax")
def test_cached_dropped_and_followed_by_others(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = make()
    part = {"train": ["head", "mid"], "epochs": 1, "cache": "always", "optimizer": "sgd"}
    stages = [
        HEAD,
        Stage("low", lora=1, learning_rate=0.01, **part),
        Stage("wild", lora=1, learning_rate=30.0, **part),
    ]
    see = See(model)
    result = run(model, stages, callbacks=[see], batch_size=8)
    assert [s.cache.split(":")[0] for s in result.stages[1:]] == ["cached", "reused"]
    assert result.best_stage != "wild"
    # The model has the weights of a stage before, whose kernels are whole again.
    number = [s.stage for s in result.stages].index(result.best_stage)
    np.testing.assert_allclose(model.predict(X, verbose=0), see.outputs[number], atol=2e-2)
    file = tmp_path / "m.keras"
    model.save(file)
    loaded = keras.saving.load_model(file)
    outputs = [m.predict(X, verbose=0) for m in (model, loaded)]
    np.testing.assert_array_equal(*outputs)
    assert {v.dtype for v in model.weights} == {"float32"}


def test_a_stage_that_fails_leaves_the_model_as_it_was_built():
    model = make()
    names = [v.path for v in model.weights]
    with pytest.raises(StageError, match="finite"):
        run(model, [Stage("s", lora=2, optimizer="sgd", learning_rate=1e38)])
    assert [v.path for v in model.weights] == names
    assert np.isfinite(np.concatenate([w.ravel() for w in model.get_weights()])).all()


def test_it_draws_from_the_seed():
    def drawn(*seed):
        model = make()
        graph = flatten(model)
        with lora_while(model, check_stages(graph, SCHEDULE)[0], seed) as selection:
            kinds = [v.name for v in model.trainable_variables]
            assert {id(v) for v in model.trainable_variables} == {id(v) for v in selection.trained}
            assert "lora_kernel_a" in kinds
            return np.array(ops.convert_to_numpy(model.get_layer("mid").lora_kernel_a))

    np.testing.assert_array_equal(drawn(3, 1), drawn(3, 1))
    assert np.abs(drawn(3, 1) - drawn(3, 2)).max() > 0.01


def quantized(model):
    model.get_layer("mid").quantize("int8")


def adapted(model):
    model.get_layer("mid").enable_lora(2)


def nothing(model):
    """Leave it."""


@pytest.mark.parametrize(
    ("prepare", "train", "reason"),
    [
        (nothing, "head", "trains only the model's head, which is new and trains in full"),
        (nothing, ["scale", "top"], "none of its layers below the head offers LoRA"),
        (adapted, "all", "layer 'mid' has LoRA already: leave `lora` out"),
        (quantized, "all", "layer 'mid' is quantized.*call layer.enable_lora"),
    ],
)
def test_what_has_no_lora_is_refused_before_the_first_stage(prepare, train, reason):
    model = make()
    prepare(model)
    with pytest.raises(ScheduleError, match=f"stage 'lora': lora: .*{reason}"):
        run(model, [HEAD, Stage("lora", train, lora=2)])


def test_constraints_are_refused():
    x = keras.Input((4,))
    y = layers.Dense(3, name="low", kernel_constraint="non_neg")(x)
    graph = flatten(keras.Model(x, layers.Dense(2, "softmax", name="top")(y)))
    with pytest.raises(ScheduleError, match=r"'low' has a constraint on its kernel.*'!low'"):
        check_stages(graph, Schedule([Stage("s", lora=1)]))


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "8"])
def test_a_rank_is_a_whole_number_from_one(rank):
    with pytest.raises(ScheduleError, match=r"stage 's': lora .* must be a whole number"):
        Stage("s", lora=rank)
    with pytest.raises(ScheduleError, match="solve takes no steps, so lora would have no effect"):
        Stage("s", solve=True, lora=1)


def test_inside_a_fit_of_the_user_it_is_refused():
    with pytest.raises(ScheduleError, match=r"lora needs unfreeze.fit; or call layer.enable_lora"):
        UnfreezeSchedule([Stage("s", lora=1)])


def test_presets_leave_new_and_solved_heads_out():
    ranks = {n: [s.lora for s in preset(n).with_changes(lora=4)] for n in ("gradual", "probe_tune")}
    assert ranks == {"gradual": [None, 4, 4, 4, 4], "probe_tune": [None, None, 4]}
    name, changes = split_variant("two_stage+lora=8")
    assert [stage.lora for stage in vary(preset(name), changes)] == [None, 8]
    graph = flatten(make())
    selections = check_stages(graph, preset("two_stage").with_changes(lora=4))
    assert {x.name for x in adapted_layers(selections[1])} >= {"embed", "conv", "mid", "query"}


def test_files_and_older_run_folders():
    assert parse_schedule(dump_schedule(SCHEDULE)) == SCHEDULE
    assert "lora: 2" in dump_schedule(SCHEDULE)
    assert "lora" not in identity(Schedule([HEAD]), 0, {}, {}, {})["schedule"]["head"]
    assert identity(SCHEDULE, 0, {}, {}, {})["schedule"]["lora"]["lora"] == 2
