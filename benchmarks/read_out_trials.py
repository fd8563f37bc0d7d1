"""Changes to the solved head of a read-out, on the splits of the spoken digits.

    python -m benchmarks.read_out_trials FOLDER [--only mean ...]

FOLDER is that of `benchmarks.evidence`. The network's outputs are computed once for each
pooling and each augmentation; then heads are solved as `probe` does it. Prints the accuracy
on the test clips, of speakers that were not trained on, for each of five splits and in the
mean (docs/evidence.md).
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.evidence import options_of
from benchmarks.evidence_depths import quiet
from unfreeze.audio.augment_layer import AugmentPatches
from unfreeze.audio.augmentation import AUGMENTATIONS, Augmentation
from unfreeze.audio.patches import clip_means
from unfreeze.compare.trial import prepare
from unfreeze.compare.trial_splits import trial_splits
from unfreeze.core.graph import flatten
from unfreeze.core.read_out import COMPONENTS, SAMPLES, principal_components, tap_points
from unfreeze.core.regression import STRENGTHS, regression
from unfreeze.pipeline.training_data import label_numbers

SEEDS, BATCH = 5, 64
WEAKER = (*STRENGTHS, 10.0, 30.0, 100.0)
WARPED = Augmentation(warp=0.15)
WARPED_AND_MORE = Augmentation(warp=0.15, response=0.2)


def parts_of_time(tap, count):
    """The means of parts of a tap's frames."""
    return np.stack([part.mean(axis=1) for part in np.array_split(tap, count, axis=1)], axis=1)


POOLS = {
    "mean": lambda tap: tap.mean(axis=1),
    "root mean square": lambda tap: np.sqrt((tap**2).mean(axis=1)),
    "deviation": lambda tap: tap.std(axis=1),
    "maximum": lambda tap: tap.max(axis=1),
    "mean and deviation": lambda tap: np.stack([tap.mean(axis=1), tap.std(axis=1)], axis=1),
    "halves": lambda tap: parts_of_time(tap, 2),
    "thirds": lambda tap: parts_of_time(tap, 3),
}
# Pooling, augmentation with its number of copies, strengths, directions removed (all: whitened),
# and whether the head is solved again with the validation clips.
TRIALS = {
    **{name: (name, None, 0, STRENGTHS, 0, False) for name in POOLS},
    "10 directions removed": ("mean", None, 0, STRENGTHS, 10, False),
    "whitened within classes": ("mean", None, 0, STRENGTHS, -1, False),
    "both": ("mean and deviation", None, 0, STRENGTHS, 10, False),
    "six copies, strong": ("mean", AUGMENTATIONS["strong"], 6, STRENGTHS, 0, False),
    "four copies, warped": ("mean", WARPED, 4, STRENGTHS, 0, False),
    "four copies, warped and response": ("mean", WARPED_AND_MORE, 4, STRENGTHS, 0, False),
    "C up to 100": ("mean", None, 0, WEAKER, 0, False),
    "solved again with validation": ("mean", None, 0, STRENGTHS, 0, True),
}


def outputs(network, patches, pool):
    """(patches, numbers) what a read-out's projection is given."""
    graph = flatten(network)
    made = {id(step.operation): step.operation.output for step in graph.steps}
    taps = [made[id(step.operation)] for step in tap_points(graph).values()]
    model, found = keras.Model(network.inputs, taps), []
    for at in range(0, len(patches), BATCH):
        each = [np.asarray(tap) for tap in model.predict_on_batch(patches[at : at + BATCH])]
        pooled = [POOLS[pool](tap).reshape(len(tap), -1) for tap in each]
        values = np.concatenate(pooled, axis=1)
        found.append((np.sign(values) * np.sqrt(np.abs(values))).astype(np.float32))
    return np.concatenate(found)


def spread_of_groups(values, labels, groups, directions):
    """A linear map that takes out how groups of one class differ."""
    apart = [
        values[(labels == c) & (groups == g)].mean(axis=0) - values[labels == c].mean(axis=0)
        for c in np.unique(labels)
        for g in np.unique(groups[labels == c])
    ]
    _, size, axes = np.linalg.svd(np.array(apart), full_matrices=False)
    whole = np.eye(values.shape[1])
    if directions > 0:
        return whole - axes[:directions].T @ axes[:directions]
    share = size**2 / (size**2).sum() * values.shape[1]
    return whole + (axes.T * ((1 + share) ** -0.5 - 1)) @ axes


def accuracy(copies, clip, labels, groups, split, seed, trial):
    """The share of test clips that are right."""
    _, _, _, strengths, directions, again = trial

    def solved(clips, strength):
        rows = np.flatnonzero(np.isin(clip, clips))
        x = np.concatenate([copy[rows] for copy in copies])
        truth = np.tile(labels[clip[rows]], len(copies))
        of = np.tile(groups[clip[rows]], len(copies))
        drawn = np.random.default_rng(seed).permutation(len(x))[:SAMPLES]
        kernel, bias = principal_components(x[drawn], COMPONENTS, seed)
        turn = np.eye(COMPONENTS)
        if directions:
            turn = spread_of_groups(x @ kernel + bias, truth, of, directions)
        weights = np.tile(1 / np.bincount(clip)[clip[rows]], len(copies))
        weights = weights / np.bincount(truth, weights)[truth]
        inputs = (x @ kernel + bias) @ turn
        classes = labels.max() + 1
        head = regression(inputs, truth, weights / weights.mean(), strength, classes, "softmax")

        def chances(of_clips):
            at = np.flatnonzero(np.isin(clip, of_clips))
            logits = (copies[0][at] @ kernel + bias) @ turn @ head[0] + head[1]
            grown = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = grown / grown.sum(axis=1, keepdims=True)
            return clip_means(scores, clip[at], len(labels))[of_clips]

        return chances

    def loss(strength):
        held = split.validation
        found = solved(split.train, strength)(held)
        return -np.log(np.maximum(found[np.arange(len(held)), labels[held]], 1e-9)).mean()

    best = min(strengths, key=loss)
    trained = np.concatenate([split.train, split.validation]) if again else split.train
    guess = solved(trained, best)(split.test).argmax(axis=1)
    return float(np.mean(guess == labels[split.test]))


def main():
    """Run the trials and print them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--only", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    chosen = options.parse_args()
    asked = options_of(chosen.folder, chosen.folder / "unused", "spoken-digits", ("probe",), SEEDS)
    material, data = prepare(asked.train, [], quiet)
    labels, count = label_numbers(material.manifest), len(material.manifest.clips)
    groups = np.array([clip.group for clip in material.manifest.clips])
    view = material.store.patches(np.arange(count))
    patches, network = view[np.arange(len(view))], material.backbone.build(weights=material.weights)
    trials = list(trial_splits(data.manifest, asked))
    for name in chosen.only:
        pool, augmentation, more, *_ = TRIALS[name]
        copies = [outputs(network, patches, pool)]
        for number in range(more):
            changed = AugmentPatches(augmentation, seed=number)(patches, training=True)
            copies.append(outputs(network, np.asarray(changed), pool))
        each = [
            accuracy(copies, view.clip, labels, groups, t.split, t.seed, TRIALS[name])
            for t in trials
        ]
        print(f"{name}: {np.mean(each):.3f} {np.round(each, 3).tolist()}", flush=True)


if __name__ == "__main__":
    main()
