"""Training for recordings in which mostly nothing is heard: `unfreeze train --in-noise`.

Three things make events in long recordings reliable. Computed background
(`unfreeze.audio.made_background`) is trained on as "none of these". Training clips are heard
in noise as well, 0 to 30 dB above it, so that noise around a sound does not look like another
class. And thresholds are chosen on validation clips in noise, and on background that was not
trained on.

Where clips have one label each, every kind of background is a column of its own while the
model trains, as no single class holds hum and rain together; `merged` adds their
probabilities up to one class, `background`. A kind that sounds like one of the user's classes
is left out.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.clip_model import PATCH_MODEL
from unfreeze.audio.entries import BACKGROUND, is_of_silence
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.audio.made_background import KINDS, RATE
from unfreeze.audio.manifest import Clip, Manifest, heard_table
from unfreeze.audio.noisy_patches import SECONDS, Bank, NoisyView, make_bank
from unfreeze.audio.patches import PatchView
from unfreeze.backbones.frontend import NUMBERS, SAMPLES, FrontEnd
from unfreeze.pipeline.kept_fits import Arrays, once, plain_key

# Clips of each kind that are trained on, and others that thresholds are chosen on: in all
# half an hour, of which the latter are made and scored a few at a time.
_TRAINED, _HELD, _MORE = 20, 12, (58, 8)
# How often each training and validation clip is heard in noise.
COPIES = 2
# Columns of the model while it trains, a kind each.
COLUMNS = len(KINDS)
# A kind is left out if so many of a class's clips, out of fold, sound like it.
_CLASH, _FOLDS = 0.2, 3
# Clips that are compared with the kinds: of each class, and of all. Patches of each.
_COMPARED, _MOST_COMPARED, _PATCHES = 60, 3_000, 8


@dataclass(frozen=True, eq=False)
class NoisyParts:
    """What is trained on, and what thresholds are chosen on.

    Attributes:
        manifest: with the copies and the background of training as further clips.
        parts: the same, but `train` is a `NoisyView`.
        held: validation clips, the same in noise, and background; None without such clips.
        held_heard: (clips, classes of the model) for `held`, what is heard in each clip by its
            number, as in `heard_table`; nothing in background.
        kinds: of background that are used.
        notes: what was left out, one sentence each.
    """

    manifest: Manifest
    parts: dict[str, Any]
    held: NoisyView | None
    held_heard: np.ndarray
    kinds: tuple[str, ...]
    notes: tuple[str, ...]


def with_noise(
    cut: Pieces, front_end: FrontEnd, seed: int, left_out: Sequence[str] = ()
) -> NoisyParts:
    """Add background, and copies of clips in noise.

    Args:
        cut: the data set.
        front_end: of the network.
        seed: of what is drawn.
        left_out: kinds of background that are not used, whatever they sound like.
    """
    manifest = cut.manifest
    rng = np.random.default_rng([seed, 521])
    bank, held_bank = (_kept_bank(front_end, n, rng) for n in (_TRAINED, _HELD))
    train, validation = cut.parts["train"], cut.parts["validation"]
    copies = 0 if front_end.holds == NUMBERS else COPIES
    alike = like_classes(manifest, train, bank, rng, front_end)
    silent = [label for label in manifest.labels if is_of_silence(label)]
    if silent:
        alike.setdefault("silence", silent[0])
    notes = tuple(
        f"The computed background {kind!r} sounds like your class {label!r}, so it is not used."
        for kind, label in sorted(alike.items())
    )
    unused = (*alike, *left_out)
    bank, held_bank = bank.without(unused), held_bank.without(unused)
    if not bank.kinds:
        notes += ("No kind of computed background is left, so none is used.",)
        return NoisyParts(_extended(manifest, None, bank), cut.parts, None, _none(), (), notes)
    clips = len(manifest.clips)
    view = NoisyView(train, bank, rng, front_end, clips, copies)
    whole = _extended(manifest, view, bank)
    parts = {**cut.parts, "train": view}
    held, heard = None, _none()
    if len(validation):
        held = NoisyView(validation, held_bank, rng, front_end, clips, copies)
        table = heard_table(replace(manifest, labels=labels_with_background(manifest, True)))
        more = np.where((held.source >= 0)[:, None], table[held.source], 0)
        heard = np.concatenate([table, more])
    return NoisyParts(whole, parts, held, heard, bank.kinds, notes)


def more_background(front_end: FrontEnd, kinds: Sequence[str], seed: int) -> Iterator[Bank]:
    """Make further background that nothing was trained on, a few sounds at a time.

    Args:
        front_end: of the network.
        kinds: to make.
        seed: of what is drawn.
    """
    rng = np.random.default_rng([seed, 522])
    unused = tuple(kind for kind in KINDS if kind not in kinds)
    amount, at_once = _MORE
    for start in range(0, amount, at_once):
        yield _kept_bank(front_end, min(at_once, amount - start), rng).without(unused)


def _kept_bank(front_end: FrontEnd, sounds: int, rng: np.random.Generator) -> Bank:
    """`make_bank`, or what it made in an earlier run; the generator goes on as after it."""
    state = rng.bit_generator.state

    def make() -> Arrays:
        made = make_bank(front_end, sounds, rng)
        after = np.array(json.dumps(rng.bit_generator.state))
        return {"patches": made.patches, "clip": made.clip, "kind": made.kind, "after": after}

    found = once(plain_key(["bank", front_end.identity, list(KINDS), sounds, state]), make)
    rng.bit_generator.state = json.loads(str(found["after"]))
    return Bank(found["patches"], found["clip"], found["kind"], tuple(KINDS))


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


def _extended(manifest: Manifest, view: NoisyView | None, bank: Bank) -> Manifest:
    source = _none() if view is None else view.source
    copies = [
        replace(manifest.clips[i], content=f"{manifest.clips[i].content}+noise{number}")
        for number, i in enumerate(source)
        if i >= 0
    ]
    made = [
        Clip(
            path=Path(f"{bank.kinds[kind]} {number}"),
            label="" if manifest.several else column_of(bank.kinds[kind]),
            group=f"made background {number}",
            split="train",
            seconds=SECONDS,
            sample_rate=RATE,
            channels=1,
            content=f"made background {number}",
        )
        for number, kind in enumerate(bank.kind)
    ]
    labels = manifest.labels
    if not manifest.several:
        labels = (*labels, *map(column_of, KINDS))
    return replace(manifest, clips=(*manifest.clips, *copies, *made), labels=labels)


def column_of(kind: str) -> str:
    """The name of a kind's column while the model trains: one that no class can have."""
    return f"\x1f{kind}"


def column_weights(manifest: Manifest) -> dict[str, float]:
    """How much each kind counts beside a class: all together not more than all classes.

    With two classes, nine kinds of equal weight would make background likely everywhere.

    Args:
        manifest: of the user's classes.
    """
    return {column_of(kind): min(len(manifest.labels) / COLUMNS, 1.0) for kind in KINDS}


def like_classes(
    manifest: Manifest,
    train: PatchView,
    bank: Bank,
    rng: np.random.Generator,
    front_end: FrontEnd,
) -> dict[str, str]:
    """The kinds of background that sound like one of the classes, with that class.

    Means and spreads of the log-mel bands over time tell noises apart well, and anything
    that differs from them in its course as well. A kind is like a class if `_CLASH` of its
    clips, at least two, are taken for that kind by a logistic regression that was trained on
    other clips.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    heard = heard_table(manifest)
    names = manifest.labels
    chosen = []
    ids = np.unique(train.clip)
    for column in range(len(names)):
        mine = ids[(heard[ids] > 0)[:, column]]
        chosen.append(rng.permutation(mine)[: min(_COMPARED, _MOST_COMPARED // len(names) + 1)])
    numbers = np.unique(np.concatenate(chosen))
    order = np.argsort(train.clip, kind="stable")
    first, end = (np.searchsorted(train.clip[order], numbers, side) for side in ("left", "right"))
    rows = np.concatenate([_spread(order[a:b]) for a, b in zip(first, end, strict=True)])
    place = np.searchsorted(numbers, train.clip[rows])
    own = _statistics(train[rows], place, len(numbers), front_end)
    made = _statistics(bank.patches, bank.clip, len(bank.kind), front_end)
    features = np.concatenate([own, made])
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    truth = np.concatenate([heard[numbers].argmax(axis=1), len(names) + bank.kind])
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
    counts = np.bincount(truth)
    usable = counts[truth] >= _FOLDS
    guess = truth.copy()
    with warnings.catch_warnings():
        # Near enough: it only tells noises from other sounds.
        warnings.simplefilter("ignore", ConvergenceWarning)
        guess[usable] = cross_val_predict(model, features[usable], truth[usable], cv=_FOLDS)
    found: dict[str, str] = {}
    for column, label in enumerate(names):
        guesses = guess[: len(numbers)][truth[: len(numbers)] == column]
        for number, kind in enumerate(bank.kinds):
            like = np.count_nonzero(guesses == len(names) + number)
            if label != BACKGROUND and like >= max(2, _CLASH * len(guesses)):
                found.setdefault(kind, label)
    return found


def _spread(rows: np.ndarray) -> np.ndarray:
    """At most `_PATCHES` of some numbers, from first to last."""
    if len(rows) <= _PATCHES:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, _PATCHES).astype(int)])


def _statistics(
    patches: np.ndarray, clip: np.ndarray, clips: int, front_end: FrontEnd
) -> np.ndarray:
    """(clips, numbers) of each clip's loudest patch: mean, spread and change of each band.

    Less the loudness. The last patch of a clip may be padded, which would tell clips from
    background by their length. Of samples these are of their spectrogram; of a network's
    numbers, the mean over the patches of a clip.
    """
    if front_end.holds == NUMBERS:
        sums = np.zeros((clips, patches.shape[1]))
        np.add.at(sums, clip, patches)
        return np.asarray(sums / np.bincount(clip, minlength=clips)[:, None])
    if front_end.holds == SAMPLES:
        patches = np.stack([log_mel_frames(patch, front_end.picture) for patch in patches])
    # Spectrograms of one patch side by side.
    patches = patches.reshape(*patches.shape[:2], -1)
    means = patches.mean(axis=1)
    level = means.mean(axis=1)
    order = np.lexsort((-level, clip))
    loudest = order[np.searchsorted(clip[order], np.arange(clips))]
    chosen = patches[loudest]
    spread, change = chosen.std(axis=1), np.abs(np.diff(chosen, axis=1)).mean(axis=1)
    return np.concatenate([means[loudest] - level[loudest, None], spread, change], axis=1)


def labels_with_background(manifest: Manifest, in_noise: bool) -> tuple[str, ...]:
    """The classes of a model: those of the data and, with `in_noise`, `background`.

    Where clips may have several labels, or none, background is what has none.
    """
    if not in_noise or manifest.several:
        return manifest.labels
    return tuple(sorted({*manifest.labels, BACKGROUND}))


def merged(model: keras.Model, labels: Sequence[str], names: Sequence[str]) -> keras.Model:
    """Add the probabilities of all kinds of background up to one class, `background`.

    Args:
        model: a trained patch model with a column for each label, then for each kind.
        labels: the user's classes; one may be `background` already.
        names: the classes of the result, from `labels_with_background`.

    Returns:
        The model; its layers are shared.
    """
    table = np.zeros((len(labels) + COLUMNS, len(names)), np.float32)
    for row in range(len(table)):
        table[row, names.index(labels[row] if row < len(labels) else BACKGROUND)] = 1
    adding = keras.layers.Dense(
        len(names), use_bias=False, trainable=False, dtype="float32", name="merged_background"
    )
    scores = adding(model.outputs[0])
    adding.set_weights([table])
    return keras.Model(model.input, scores, name=PATCH_MODEL)
