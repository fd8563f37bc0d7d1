"""Strategies as detectors: the events that their models find in annotated recordings.

A trained model gets its gate and its thresholds as `unfreeze train` would give them, and
searches the recordings. What was found is kept as counts of each class in each recording at
many thresholds, so that recordings can be drawn again and again for intervals: average
precision is not a mean over recordings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.manifest import Manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.pipeline.bootstrap import RESAMPLES, Floats, mean_of_defined, plain_number, ratio
from unfreeze.pipeline.event_rates import FOUND, HIT, RIGHT, TRUE, average_precisions
from unfreeze.pipeline.gate import with_gate
from unfreeze.pipeline.held_counts import count_held, score_held, threshold_entries
from unfreeze.pipeline.patch_training import Material
from unfreeze.pipeline.wish import Wish

Record = Mapping[str, Any]
#: What a strategy is ranked by, and the two numbers beside it.
AP, F1, ALARMS = "mean_average_precision", "f1", "false_alarms_per_hour"
# Resamples computed at once; bounds memory.
_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Found:
    """What a model found in annotated recordings.

    Attributes:
        labels: the classes that are judged.
        recordings: name of each recording.
        seconds: of each recording.
        counts: (recordings, classes, levels, 4) in the order of `TRUE`, `FOUND`, `HIT`,
            `RIGHT`; the first level is the model's own thresholds.
    """

    labels: tuple[str, ...]
    recordings: tuple[str, ...]
    seconds: tuple[float, ...]
    counts: np.ndarray

    def as_plain(self) -> dict[str, Any]:
        """For a run's record: what changes from one level to the next, where there is anything."""
        cells = []
        for recording, label in np.argwhere(self.counts.any(axis=(2, 3))).tolist():
            rows = self.counts[recording, label]
            new = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))
            steps = [[level, *rows[level].tolist()] for level in np.flatnonzero(new).tolist()]
            cells.append([recording, label, steps])
        return {
            "labels": list(self.labels),
            "recordings": list(self.recordings),
            "seconds": list(self.seconds),
            "levels": self.counts.shape[2],
            "cells": cells,
        }


def read_found(plain: Record) -> Found:
    """What `Found.as_plain` wrote.

    Raises:
        ValueError, KeyError, TypeError, IndexError: it is something else.
    """
    labels, names = tuple(plain["labels"]), tuple(plain["recordings"])
    seconds = tuple(float(number) for number in plain["seconds"])
    if len(seconds) != len(names) or not names:
        raise ValueError("not as many lengths as recordings")
    counts = np.zeros((len(names), len(labels), int(plain["levels"]), 4), np.int64)
    for recording, label, steps in plain["cells"]:
        for level, *row in steps:
            counts[recording, label, level:] = row
    return Found(labels, names, seconds, counts)


@dataclass(frozen=True, eq=False)
class Judge:
    """Annotated recordings, and how models search them.

    Attributes:
        described: the recordings and what is annotated in them, in words and a digest; no path.
        find: search with a model of patches, the network's front end, the model's classes, and
            the (classes,) scores from which they are heard.
        notes: called with the seconds of recordings by name, as in `Found`: what of the tables and
            recordings is not used, a sentence each.
    """

    described: str
    find: Callable[[keras.Model, FrontEnd, tuple[str, ...], np.ndarray], Found]
    notes: Callable[[Mapping[str, float]], Sequence[str]]


#: Makes a judge for the data that models are trained on, or refuses what cannot judge them.
MakeJudge = Callable[[Manifest, FrontEnd], Judge]


def detect(
    model: keras.Model, material: Material, cut: Pieces, seed: int, judge: Judge
) -> dict[str, Any]:
    """Make a detector of a trained model, and search the annotated recordings.

    Args:
        model: patches to probabilities; trained on `cut`.
        material: the inputs that all runs share.
        cut: the data set.
        seed: of the run.
        judge: the recordings.

    Returns:
        The entry `detection` of the run's record: `AP`, `F1` and `ALARMS`, and what
        `read_found` reads.
    """
    front = material.backbone.front_end
    published = material.backbone.build(weights=material.weights)
    gated = with_gate(model, published, cut, front, seed)
    cut = replace(cut, manifest=replace(cut.manifest, labels=gated.labels))
    held = score_held(gated.model, cut, ("validation",))
    counts = count_held(gated.model, cut, held, gated.noisy, front, seed)
    chosen = threshold_entries(counts, Wish())["thresholds"]
    # A comparison always has validation clips.
    assert chosen is not None
    found = judge.find(gated.model, front, gated.labels, np.array(list(chosen.values())))
    scores = _scores(found, np.ones((1, len(found.recordings))))
    return {
        **{name: plain_number(values[0]) for name, values in scores.items()},
        **found.as_plain(),
    }


def has_detection(record: Record) -> bool:
    """Whether the record of a run holds what its model found.

    Raises:
        ValueError, KeyError, TypeError, IndexError: it holds something else.
    """
    if "detection" not in record:
        return False
    read_found(record["detection"])
    return True


@dataclass(frozen=True, eq=False)
class Drawn:
    """Scores of strategies as detectors, as they are and in bootstrap resamples.

    Attributes:
        means: by score, (strategies,).
        draws: by score, (strategies, resamples); NaN throughout with a single recording.
        recordings: number of recordings.
    """

    means: dict[str, Floats]
    draws: dict[str, Floats]
    recordings: int


def detection_scores(
    runs: Sequence[Sequence[Record]], resamples: int = RESAMPLES, seed: int = 0
) -> Drawn:
    """Score strategies by the events that their models found.

    A score is the mean over a strategy's runs. Resamples draw recordings and seeds with
    replacement, each by itself, the same for all strategies: the pigeonhole bootstrap of
    `unfreeze.pipeline.bootstrap.resampled`. A single recording says nothing of others, so
    there are no resamples then.

    Args:
        runs: for each strategy its records, all of the same splits.
        resamples: number of resamples.
        seed: of the draws.
    """
    seeds = sorted({record["seed"] for record in runs[0]})
    recordings = len(runs[0][0]["detection"]["recordings"])
    rng = np.random.default_rng(seed)
    shares = np.full(len(seeds), 1 / len(seeds))
    of_seeds = rng.multinomial(len(seeds), shares, resamples).astype(np.float64)
    even = np.full(recordings, 1 / recordings)
    of_recordings = rng.multinomial(recordings, even, resamples).astype(np.float64)
    # The first row counts each recording once.
    weights = np.concatenate([np.ones((1, recordings)), of_recordings])
    means: dict[str, list[Floats]] = {name: [] for name in (AP, F1, ALARMS)}
    draws: dict[str, list[Floats]] = {name: [] for name in means}
    for own in runs:
        scored = [_scores(read_found(record["detection"]), weights) for record in own]
        drawn = np.stack([of_seeds[:, seeds.index(record["seed"])] for record in own])
        for name in means:
            values = np.stack([scores[name] for scores in scored])
            means[name].append(mean_of_defined(values[:, 0]))
            known = ~np.isnan(values[:, 1:])
            total = (np.where(known, values[:, 1:], 0.0) * drawn).sum(axis=0)
            draws[name].append(ratio(total, (known * drawn).sum(axis=0)))
    drawn_rows = {name: np.stack(rows) for name, rows in draws.items()}
    if recordings == 1:
        drawn_rows = {name: np.full_like(rows, np.nan) for name, rows in drawn_rows.items()}
    return Drawn({name: np.array(values) for name, values in means.items()}, drawn_rows, recordings)


def _scores(found: Found, weights: Floats) -> dict[str, Floats]:
    """The scores of a model, of (draws, recordings) with so much weight each: (draws,)."""
    counts, seconds = found.counts.astype(np.float64), np.array(found.seconds)
    flat = counts.reshape(len(counts), -1)
    parts: dict[str, list[Floats]] = {AP: [], F1: [], ALARMS: []}
    for first in range(0, len(weights), _AT_ONCE):
        drawn = weights[first : first + _AT_ONCE]
        summed = (drawn @ flat).reshape(len(drawn), *counts.shape[1:])
        parts[AP].append(mean_of_defined(average_precisions(summed)))
        used = summed[:, :, 0].sum(axis=1)
        true, heard, hit, right = (used[:, place] for place in (TRUE, FOUND, HIT, RIGHT))
        precision, recall = np.nan_to_num(ratio(right, heard)), np.nan_to_num(ratio(hit, true))
        f1 = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
        parts[F1].append(np.where(true + heard > 0, f1, np.nan))
        parts[ALARMS].append(ratio(heard - right, drawn @ seconds / 3600))
    return {name: np.concatenate(values) for name, values in parts.items()}
