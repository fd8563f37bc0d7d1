"""A gate before the classes: nothing is named where computed background is heard.

A model that has only ever heard its classes calls everything one of them. The gate is a
second head, solved after training: logistic regression with a column for each class and one
for each kind of computed background (`unfreeze.audio.made_background`), on training clips, the
same in noise, and background. The probabilities of the classes are multiplied by the chance
that the gate gives all of them together; the rest is the class `background`. So which of the
classes is likeliest does not change, and nothing is trained for longer. (`--in-noise` trains the
classes themselves in noise, which tells them apart better there, at the cost of time.)

While the network is as published, the gate reads what the head reads. A network that was
trained on knows its classes and forgets the rest: speech, say, moves towards one of them. The
gate then has frozen copies of the published lower blocks, which take half as long as the
whole network.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.clip_model import PATCH_MODEL, head_input, is_as_published
from unfreeze.audio.entries import BACKGROUND, is_quiet
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.noisy_patches import NoisyView
from unfreeze.audio.patches import PatchView
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core.boundary import inference_cut
from unfreeze.core.graph import flatten, take_again
from unfreeze.core.read_out import COMPONENTS, pool_axes, tap_points
from unfreeze.core.read_out_layers import Compress, MeanPool, Projection
from unfreeze.pipeline.in_noise import COLUMNS, NoisyParts, labels_with_background, with_noise
from unfreeze.pipeline.inference import all_scores, view_scores
from unfreeze.pipeline.kept_fits import adapt_once, fit_key, once

#: Name of the gate's layer.
GATE = "background_gate"
# The inverse strength of its penalty, on standardized inputs.
_STRENGTH, _ITERATIONS = 0.03, 300
# Training clips that it is solved on, at most; and so many of each class, at least.
_CLIPS, _OF_EACH = 3_000, 3
# Patches of these, at most.
_PATCHES = 20_000
# Of the depths at which a network is read, the share of the lowest that the gate reads again.
_LOWER = 3 / 7
# The largest share of validation clips that may be taken for background.
_TAKEN = 0.02


@dataclass(frozen=True, eq=False)
class Gated:
    """A model with a gate.

    Attributes:
        model: patches to probabilities of `labels`.
        labels: the classes, with `background` among them; where clips may have several
            labels, the classes alone.
        noisy: what the gate was solved on, and what thresholds are counted with; None if the
            model has no gate.
        notes: why it has none, or what was left out; one sentence each.
    """

    model: keras.Model
    labels: tuple[str, ...]
    noisy: NoisyParts | None
    notes: tuple[str, ...]


def with_gate(
    model: keras.Model,
    published: keras.Model,
    cut: Pieces,
    front_end: FrontEnd,
    seed: int,
    left_out: tuple[str, ...] = (),
) -> Gated:
    """Put a gate before a trained model's classes.

    A kind of background that too many validation clips are taken for is left out, and the gate
    solved again.

    Args:
        model: patches to probabilities, from `patch_model`; its layers are shared.
        published: its backbone as it was before training.
        cut: the data set that it was trained on.
        front_end: of the network.
        seed: of what is drawn.
        left_out: kinds of background that are not used.
    """
    manifest = cut.manifest
    some = {name: _some(cut, name, seed) for name in ("train", "validation")}
    few = replace(cut, parts={**cut.parts, "train": some["train"]})
    noisy = with_noise(few, front_end, seed, left_out)
    if not noisy.kinds:
        return Gated(model, manifest.labels, None, noisy.notes)
    if is_as_published(model, published):
        read = keras.Model(model.input, head_input(model))
    else:
        read = keras.Model(model.input, _lower_blocks(model, published))
        adapt_once(read, noisy.parts["train"], seed)
    kernel, bias, columns, quiet = _solved(read, noisy, manifest)
    gate = keras.layers.Dense(
        len(bias), activation="softmax", trainable=False, dtype="float32", name=GATE
    )
    chances = gate(read.output)
    gate.set_weights([kernel, bias])
    gated, labels = _gated(model, chances, quiet, manifest)
    # Both in one pass.
    both = keras.layers.Concatenate(name=f"{GATE}_both")([gated.outputs[0], chances])
    judge = keras.Model(model.input, both)
    taken, clips = _taken(judge, len(labels), quiet, some["validation"], cut)
    if len(taken) <= max(1, _TAKEN * clips):
        return Gated(gated, labels, noisy, noisy.notes)
    # Columns of kinds come last, in their order.
    own = int(columns[-1]) + 1 - len(noisy.kinds)
    heard = np.where(columns >= own, taken.mean(axis=0), -1.0)
    worst = noisy.kinds[int(columns[heard.argmax()]) - own]
    note = (
        f"Computed {worst} was heard in validation clips ({len(taken)} of {clips} were taken for "
        "background), so it is not used as background."
    )
    again = with_gate(model, published, cut, front_end, seed, (*left_out, worst))
    return replace(again, notes=tuple(dict.fromkeys((*noisy.notes, note, *again.notes))))


def _lower_blocks(model: keras.Model, published: keras.Model) -> keras.KerasTensor:
    """What the lower blocks of the published network make of the patches, projected.

    Returns:
        (batch, numbers) in the model's graph; the projection is to be fitted.
    """
    graph, (patches,) = flatten(published), model.inputs
    points = list(tap_points(graph).values())
    points = points[: max(1, round(_LOWER * len(points)))]
    tensors, copies = {graph.inputs[0]: patches}, dict[int, Any]()
    for step in graph.steps:
        take_again(step, tensors, f"{GATE}_{step.path.replace('/', '_')}", copies)
        if step is points[-1]:
            break
    for layer in copies.values():
        layer.trainable = False
    vectors = []
    for number, step in enumerate(points, start=1):
        name = f"{GATE}_tap{number}"
        tap = tensors[step.outputs[0]]
        pooled = MeanPool(pool_axes(graph, step, "time"), name=name)(tap)
        vectors.append(Compress(name=f"{name}_root")(pooled))
    x = keras.layers.Concatenate(name=f"{GATE}_join")(vectors) if vectors[1:] else vectors[0]
    return Projection(COMPONENTS, name=f"{GATE}_projection")(x)


def _gated(
    model: keras.Model, chances: keras.KerasTensor, quiet: np.ndarray, manifest: Manifest
) -> tuple[keras.Model, tuple[str, ...]]:
    """The model behind a gate, and its classes.

    Args:
        model: patches to probabilities of the user's classes.
        chances: of each of the gate's columns, in the model's graph.
        quiet: (columns,) which of them are background.
        manifest: of the user's classes.
    """
    classes, labels = len(manifest.labels), labels_with_background(manifest, True)
    # The chance that it is any class, for each of them.
    sound = _fixed(np.repeat(~quiet[:, None], classes, axis=1), f"{GATE}_open", chances)
    scores = keras.layers.Multiply(name=f"{GATE}_classes")([model.outputs[0], sound])
    if not manifest.several:
        rest = _fixed(quiet[:, None], f"{GATE}_closed", chances)
        both = keras.layers.Concatenate(name=f"{GATE}_all")([scores, rest])
        order = np.zeros((classes + 1, len(labels)))
        for row, label in enumerate((*manifest.labels, BACKGROUND)):
            order[row, labels.index(label)] = 1
        scores = _fixed(order, f"{GATE}_order", both)
    return keras.Model(model.input, scores, name=PATCH_MODEL), labels


def _fixed(kernel: np.ndarray, name: str, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A fixed matrix, as a layer that every backend and export knows."""
    layer = keras.layers.Dense(
        kernel.shape[1], use_bias=False, trainable=False, dtype="float32", name=name
    )
    result = layer(tensor)
    layer.set_weights([kernel.astype(np.float32)])
    return result


def _some(cut: Pieces, part: str, seed: int) -> PatchView:
    """Some patches of a part: of each class alike, from all over each clip."""
    view = cut.parts[part]
    ids, rows = np.unique(view.clip), np.arange(len(view))
    if len(ids) > _CLIPS:
        rng = np.random.default_rng([seed, 523])
        heard = heard_table(cut.manifest)[ids] > 0
        share = max(_OF_EACH, _CLIPS // heard.shape[1])
        chosen = [rng.permutation(ids[column])[:share] for column in heard.T]
        rows = np.flatnonzero(np.isin(view.clip, np.concatenate(chosen)))
    # Clips may be long; each keeps at least one.
    rows = rows[:: -(-len(rows) // _PATCHES)] if len(rows) > _PATCHES else rows
    return view.take(rows, view.clip[rows])


def _solved(
    read: keras.Model, noisy: NoisyParts, manifest: Manifest
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solve the gate.

    Args:
        read: patches to what the head reads.
        noisy: clips, the same in noise, and background.
        manifest: of the user's classes.

    Returns:
        Its kernel (numbers, columns), bias (columns,), the columns' numbers, as in `_columns`,
        and which of them are background.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    view: NoisyView = noisy.parts["train"]
    truth, quiet, factors = _columns(manifest, view, len(noisy.kinds))
    known = np.flatnonzero(truth >= 0)
    truth = truth[known]
    key = fit_key("gate", [view], inference_cut(flatten(read)), [])
    heard = once(key, lambda: {"inputs": all_scores(read, view)})["inputs"]
    inputs = heard[known].astype(np.float64)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    # Each column counts by its factor, however many patches it has.
    weights = (factors / np.maximum(np.bincount(truth, minlength=len(factors)), 1))[truth]
    model = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS)
    with threadpool_limits(1), warnings.catch_warnings():
        # Near enough: a gate need not be exact.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((inputs - mean) / spread, truth, sample_weight=weights / weights.mean())
    rows, biases = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        # One row for two columns: half of it for each gives the same probabilities.
        rows, biases = (np.concatenate([-part, part]) / 2 for part in (rows, biases))
    kernel = (rows / spread).T
    bias = biases - mean @ kernel
    known = model.classes_
    return kernel.astype(np.float32), bias.astype(np.float32), known, quiet[known]


def _columns(
    manifest: Manifest, view: NoisyView, kinds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each patch is.

    Returns:
        (patches,) its column, -1 where nobody knows; (columns,) which of them are background,
        and how much each counts. Where a clip has one label, there is a column for each, else
        one for any and one for none; then one for each kind of background.
    """
    clips = len(manifest.clips)
    further = view.clip >= clips
    number = np.where(further, view.clip - clips, 0)
    origin = np.where(further, view.source[number], view.clip)
    heard = heard_table(manifest)
    if manifest.several:
        # -1 is unknown: a clip of which no class is known to be there may have one.
        nothing, unknown = (heard <= 0).all(axis=1), (heard < 0).any(axis=1)
        of_clip = np.where(nothing & unknown, -1, nothing.astype(np.int64))
        quiet, factors = np.array([False, True]), np.array([float(kinds), 1.0])
    else:
        of_clip = heard.argmax(axis=1)
        quiet = np.array([is_quiet(label) for label in manifest.labels])
        factors = np.ones(len(quiet))
    truth = np.where(origin >= 0, of_clip[origin], len(quiet) + view.kind[number])
    share = min(len(manifest.labels) / COLUMNS, 1.0)
    quiet = np.concatenate([quiet, np.ones(kinds, bool)])
    return truth, quiet, np.concatenate([factors, np.full(kinds, share)])


def _taken(
    judge: Any, classes: int, quiet: np.ndarray, view: PatchView, cut: Pieces
) -> tuple[np.ndarray, int]:
    """The validation clips of a class that are taken for background.

    Args:
        judge: patches to probabilities of the classes, and the chances of the gate's columns.
        classes: their number.
        quiet: (columns,) which of them are background.
        view: patches of validation clips; may be empty.
        cut: the data set.

    Returns:
        (taken, columns) the gate's mean chances in each of them, and how many clips there are.
    """
    manifest = cut.manifest
    if not len(view):
        return np.zeros((0, len(quiet))), 0
    loud = np.array([not is_quiet(label) for label in manifest.labels])
    clips = np.unique(view.clip)
    clips = clips[(heard_table(manifest)[clips][:, loud] > 0).any(axis=1)]
    means = view_scores(judge, view, len(manifest.clips))[0][clips]
    scores, chances = means[:, :classes], means[:, classes:]
    if manifest.several:
        return chances[chances[:, quiet].sum(axis=1) > 0.5], len(clips)
    place = labels_with_background(manifest, True).index(BACKGROUND)
    return chances[scores.argmax(axis=1) == place], len(clips)
