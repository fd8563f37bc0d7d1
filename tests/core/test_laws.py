"""The five laws of the engine, on models drawn at random."""

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import tree

from graphs import Recipe, build, draw_inputs, draw_labels, loss_of, recipes
from unfreeze.core.boundary import Cut, find_cut
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import FitResult, fit
from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import get_keras_mask, is_learnable
from unfreeze.core.layers import entries, select
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.step_model import joined_model, masks_of, prefix_model, suffix_model
from unfreeze.errors import ScheduleError

pytestmark = [pytest.mark.several_steps, pytest.mark.on_each_backend]

# Each example of the laws on training makes two to six models, which takes half a second on
# PyTorch and many on JAX; others are drawn in each run, and shrinking would take hours.
_SHARE = {"torch": 3, "tensorflow": 4, "jax": 5}[keras.backend.backend()]
FEW = settings(
    max_examples=max(2, settings.default.max_examples // _SHARE),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def numbers(structure):
    return [keras.ops.convert_to_numpy(x) for x in tree.flatten(structure)]


def draw_cut(model: keras.Model, bits: int) -> Cut:
    """A boundary where layer i trains if bit i is set."""
    graph = flatten(model)
    learnable = [e.layer for e in entries(graph) if is_learnable(e.layer)]
    chosen = [layer for i, layer in enumerate(learnable) if bits >> i & 1]
    return find_cut(graph, {id(v) for layer in chosen for v in layer.weights})


@given(recipes(most=8), st.integers(0, 2**12 - 1), st.booleans())
def test_law_1_prefix_and_suffix_joined_are_the_model(recipe: Recipe, bits: int, fused: bool):
    model = build(recipe)
    cut = draw_cut(model, bits)
    x = draw_inputs(recipe, 3)
    flat = list(x.values()) if recipe.named else (x if isinstance(x, list) else [x])
    flat = [flat[list(recipe.inputs).index(name)] for name in _order(recipe)]
    wanted = model(x, training=False)

    joined = joined_model(cut, model, frozenset(), fused)(x, training=False)
    assert type(joined) is type(wanted)
    prefix = prefix_model(cut, model, masks_of(prefix_model(cut, model, fused=fused), flat), fused)
    made = prefix(flat, training=False)
    masked = tuple(cut.frontier[i] for i in prefix.program.emit_masks)
    count = len(cut.frontier)
    passed = [flat[cut.graph.inputs.index(i)] for i in cut.passed]
    suffix = suffix_model(cut, model, frozenset(), masked, fused)
    # As from a cache: numbers alone, no mask hangs on them.
    fed = [numbers(x)[0] for x in made[:count]] + passed + numbers(made[count:])
    split = suffix(fed, training=False) if fed else None
    for got in (joined, split):
        for a, b in zip(numbers(got), numbers(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        for a, b in zip(tree.flatten(got), tree.flatten(wanted), strict=True):
            assert (get_keras_mask(a) is None) == (get_keras_mask(b) is None)


def _order(recipe: Recipe) -> list[str]:
    return sorted(recipe.inputs) if recipe.named else list(recipe.inputs)


def train(recipe: Recipe, schedule: Schedule, **options) -> tuple[FitResult, keras.Model, list]:
    """A run on the recipe's data; also the weights from before it."""
    model = build(recipe)
    before = model.get_weights()
    data = draw_inputs(recipe, 10), draw_labels(recipe, 10)
    # Batches of 4, 4 and 2.
    options = {"batch_size": 4, "seed": 7, "verbose": 0, "validation_data": data, **options}
    result = fit(model, schedule, data, loss=loss_of(recipe), **options)
    return result, model, before


def draw_schedule(model: keras.Model, bits: int, policy: str, **changes) -> Schedule:
    """The heads first, then layers by the bits too; plain SGD, whose steps do not amplify noise."""
    heads = [name for name in ("out0", "out1") if name in model.output_names]
    learnable = [e.path for e in entries(flatten(model)) if is_learnable(e.layer)]
    chosen = [path for i, path in enumerate(learnable) if bits >> i & 1]
    common = {"epochs": 2, "learning_rate": 0.05, "optimizer": "sgd", **changes}
    return Schedule(
        (
            Stage("heads", heads, **common),
            Stage("more", [*heads, *chosen], batch_norm=policy, **common),
        )
    )


policies = st.sampled_from(["frozen", "affine", "train"])


@FEW
@given(recipes(), st.integers(0, 2**8 - 1), policies)
def test_laws_2_and_3_cached_is_uncached_and_only_what_should_move_moves(
    recipe: Recipe, bits: int, policy: str
):
    schedule = draw_schedule(build(recipe), bits, policy)
    cached, model, before = train(recipe, schedule.with_changes(cache="always"))
    plain, other, _ = train(recipe, schedule.with_changes(cache="never"))

    assert cached.best_stage == plain.best_stage
    for row, wanted in zip(cached.history, plain.history, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert row["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-5)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

    graph = flatten(model)
    stages = [select(graph, stage) for stage in schedule][: 1 + (cached.best_stage == "more")]
    claimed = {id(v) for selection in stages for v in selection.trained}
    live = {i for selection in stages for i in selection.live}
    for variable, old in zip(model.weights, before, strict=True):
        moved = np.abs(variable.numpy() - old).max()
        if id(variable) not in live:
            assert moved == 0.0, variable.path
        elif id(variable) in claimed and not (policy == "train" and variable.name == "bias"):
            # BatchNorm in training mode takes the bias before it away, gradient and all.
            assert moved > 0.0, variable.path


class Kill(StageCallback):
    """Ends the process, as far as `fit` can tell, at the start of the second stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = 0

    def on_train_begin(self, logs=None):
        self.stages += 1
        if self.stages == 2:
            raise KeyboardInterrupt


@pytest.mark.slow_on("tensorflow", "jax")
@FEW
@given(recipes(), st.integers(1, 2**8 - 1), policies)
def test_law_4_a_killed_run_ends_as_if_it_had_not_been_killed(
    tmp_path_factory, recipe: Recipe, bits: int, policy: str
):
    schedule = draw_schedule(build(recipe), bits, policy)
    folder = tmp_path_factory.mktemp("run")
    wanted, whole, _ = train(recipe, schedule)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, schedule, run_dir=folder, callbacks=[Kill()])
    resumed, model, _ = train(recipe, schedule, run_dir=folder)

    assert resumed.best_stage == wanted.best_stage
    for row, expected in zip(resumed.history, wanted.history, strict=True):
        assert {**row, "seconds": 0} == {**expected, "seconds": 0}
    for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def impossible(model: keras.Model):
    """Schedules that cannot be run on the model, each with a word of the reason."""
    head, first = model.output_names[0], entries(flatten(model))[0].layer
    yield "matches no layer", lambda: [Stage("a", head), Stage("b", "no_such_*")]
    yield "trains nothing", lambda: [Stage("a", head), Stage("b", "head_dropout")]
    yield "named 'a'", lambda: [Stage("a", head), Stage("a", "all")]
    yield "takes nothing away", lambda: [Stage("a", head), Stage("b", [head, f"!{first.name}"])]
    yield "matches no layer", lambda: [Stage("a", head), Stage("b", keras.layers.Dense(1))]
    yield "0 epochs", lambda: [Stage("a", head, epochs=0)]
    yield "at least one stage", list
    yield "should look like", lambda: [Stage("a", head), Stage("b", "top:many")]
    yield "has", lambda: [Stage("a", head), Stage("b", "top:99")]
    rates = {"default": 0.1, "no_such_layer": 0.5}
    yield "matches no layer", lambda: [Stage("a", head), Stage("b", learning_rate=rates)]
    yield "optimizer", lambda: [Stage("a", head), Stage("b", optimizer="no such optimizer")]


@pytest.mark.slow_on("tensorflow", "jax")
@given(recipes(), st.integers(0, 10))
def test_law_5_impossible_schedules_are_refused_and_the_model_is_untouched(
    recipe: Recipe, which: int
):
    model = build(recipe)
    reason, make = list(impossible(model))[which]
    for i, layer in enumerate(model.layers):
        layer.trainable = bool(i % 3)
    flags = [layer.trainable for layer in model.layers]
    before = model.get_weights()
    data = draw_inputs(recipe, 4), draw_labels(recipe, 4)
    with pytest.raises(ScheduleError, match=reason):
        fit(model, make(), data, loss=loss_of(recipe), verbose=0)
    assert [layer.trainable for layer in model.layers] == flags
    assert not model.compiled
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
