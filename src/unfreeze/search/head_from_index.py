"""A new head from labelled places of an index: trained in seconds, no recording is read.

A place is heard as the windows of the index that lie in it. The head is solved on these by
logistic regression (`unfreeze.core.solve`), its strength chosen on the validation places; places
of one recording stay in one part. The result is a run folder that `predict`, `evaluate`,
`listen`, `serve`, `export` and `report` take: the index's own model up to the vector, and the new
head on it. It has no schedule and no gate against background, since nothing but the head is
trained: label some places `background`.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.annotations import find_tables, read_sounds, settle_sounds
from unfreeze.audio.clip_model import (
    OUTPUT,
    PATCH_MODEL,
    clip_model,
    head_input,
    notice_of,
    parts_of,
)
from unfreeze.audio.entries import Entry, is_quiet, settle_labels
from unfreeze.audio.label_sets import is_set
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.rules import Problem
from unfreeze.audio.split import Split, split_clips, split_notes
from unfreeze.core.boundary import Solvable
from unfreeze.core.solve import STRENGTHS, regression
from unfreeze.errors import DataError, show
from unfreeze.files import atomic_path, write_json, write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.calibration import best_threshold, calibrate, loss
from unfreeze.pipeline.evaluation import score_clips
from unfreeze.pipeline.predictions import write_predictions
from unfreeze.pipeline.run_writing import Tested
from unfreeze.pipeline.training_data import label_numbers
from unfreeze.search.embedding import open_index_encoder
from unfreeze.search.index_folder import Index, Indexed
from unfreeze.search.queries import Example, rows_of
from unfreeze.version import __version__


def train_head(
    index: Index,
    tables: str | Path,
    out: str | Path,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a classifier on labelled places of an index, and write it as a run.

    Args:
        index: of the recordings.
        tables: a table of places (path, start, end and label, under any name that training
            takes), or a folder of tables; without times, a whole recording is a place.
        out: folder of the run.
        validation: the share of the places that the regression's strength is chosen on.
        test: the share that the scores are of.
        seed: of the split.
        overwrite: replace the run in `out`.

    Returns:
        The scores, as in the run's `metrics.json`.

    Raises:
        DataError: the tables cannot be used, or their places are not in the index.
        RunError: `out` holds something else.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> scores = unfreeze.train_head(index, "places.csv", "head")
        >>> unfreeze.SoundClassifier.load("head").labels
        ('high', 'low', 'noise')
    """
    tables, out = Path(tables), Path(out)
    command = ["unfreeze", "head", str(index.folder), str(tables), "--out", str(out)]
    command += ["--validation", f"{validation:g}", "--test", f"{test:g}", "--seed", str(seed)]
    with run_folder.held(out, overwrite, False, {}):
        manifest, rows, notes = _labelled(index, tables)
        split = split_clips(manifest, validation=validation, test=test, seed=seed)
        notes = [*notes, *split_notes(manifest, split)]
        encoder = open_index_encoder(index)
        vectors = [index.vectors(r.start, r.stop).astype(np.float32) for r in rows]
        head, strength = _solved(vectors, label_numbers(manifest), split, len(manifest.labels))
        patches, front_end, _ = parts_of(encoder.clip_model)
        model = keras.Model(patches.input, head(head_input(patches)), name=PATCH_MODEL)
        whole = clip_model(model, front_end, manifest.labels, notice=notice_of(encoder.clip_model))
        metrics, held = _scores(manifest, split, vectors, head, seed)
        run_folder.clear(out)
        run_folder.write_config(
            out,
            {
                "unfreeze": __version__,
                "command": shlex.join(command),
                "labels": list(manifest.labels),
                "data": {"root": str(manifest.root), "clips": len(manifest.clips)},
                "index": {
                    "folder": str(index.folder.absolute()),
                    "encoder": index.settings.encoder,
                    "of": index.settings.of,
                    "windows": sum(map(len, rows)),
                    "C": strength,
                },
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
            },
        )
        notice = notice_of(encoder.clip_model)
        if notice:
            write_text(out / run_folder.LICENCE, notice + "\n")
        run_folder.write_table(out / run_folder.SPLITS, _split_rows(manifest, split))
        with atomic_path(out / run_folder.MODEL) as partial:
            whole.save(partial)
        write_predictions(out, manifest, held, manifest.labels)
        write_json(out / run_folder.NOTES, Tested(manifest, held, None, notes).about())
        run_folder.write_scores(out, metrics)
    return metrics


def _labelled(index: Index, tables: Path) -> tuple[Manifest, list[range], list[str]]:
    """The labelled places as clips, the windows of each, and notes."""
    if not tables.exists():
        raise DataError(f"{show(tables)} does not exist: give a table of places, or a folder")
    files = [tables] if tables.is_file() else sorted(find_tables(tables))
    entries, problems = list[Entry](), list[Problem]()
    for file in files:
        found, told = read_sounds(file)
        entries, problems = entries + found, problems + told
    items = {item.path: item for item in index.recordings}
    known = [(entry, index.recording(entry.path)) for entry in entries]
    inside = [replace(entry, path=item.path) for entry, item in known if item is not None]
    notes = [f"{show(problem.path)} {problem.cause}" for problem in problems]
    if len(inside) < len(entries):
        gone = Counter(show(entry.path) for entry, item in known if item is None)
        some = ", ".join(list(gone)[:3])
        notes.append(
            f"{gone.total()} places are of {len(gone)} recordings that are not in the index, such "
            f"as {some}"
        )
    changed = sorted(
        {item.path for _, item in known if item and item.path.exists() and item.change()}
    )
    if changed:
        some = ", ".join(map(show, changed[:3]))
        notes.append(
            f"{len(changed)} recordings have changed since they were embedded, such as {some}: the "
            "head is trained on what they were; `unfreeze embed` adds them again"
        )
    if not inside:
        raise DataError(
            f"{show(tables)} has no place that is in {show(index.folder)}{_because(notes)}"
        )
    if any(is_set(entry.label) for entry in inside):
        raise DataError(
            f"{show(tables)} has places with several labels or none, for which a head from an "
            "index is not made: use `unfreeze train`"
        )
    settled, told = settle_labels(inside)
    lengths = {path: item.seconds for path, item in items.items()}
    settled, behind = settle_sounds(settled, lengths, False, window=index.settings.window)
    notes += [f"{show(problem.path)} {problem.cause}" for problem in told]
    notes += [f"{show(problem.path)}: {problem.cause}" for problem in behind]
    settled, contrary = _without_contrary(settled)
    notes += contrary
    clips, rows, silent = list[Clip](), list[range](), 0
    for entry in settled:
        item = items[entry.path]
        mine = rows_of(index, item, Example(entry.path, entry.start or 0.0, _end(entry, item)))
        if not index.vectors(mine.start, mine.stop).any():
            silent += 1
            continue
        clips.append(_clip(entry, item, index.settings.window))
        rows.append(mine)
    if silent:
        notes.append(f"{silent} places are digital silence and left out")
    labels = tuple(sorted({clip.label for clip in clips}))
    if len([label for label in labels if not is_quiet(label)]) < 1 or len(labels) < 2:
        raise DataError(
            f"{show(tables)} has places of {', '.join(map(show, labels)) or 'no class'} alone: "
            f"label two classes or more, such as background{_because(notes)}"
        )
    home = Path(os.path.commonpath([clip.path.parent for clip in clips]))
    return Manifest(home, tuple(clips), labels, (), ""), rows, notes


def _because(notes: Sequence[str]) -> str:
    """The last notes, for an error: what was left out before."""
    return f" ({'; '.join(notes[-3:])})" if notes else ""


def _without_contrary(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Each place once, but for those with two labels: there is no telling which is right."""
    labels: dict[tuple[Path, float | None, float | None], list[Entry]] = {}
    for entry in entries:
        labels.setdefault((entry.path, entry.start, entry.end), []).append(entry)
    once = [own[0] for own in labels.values() if len({entry.label for entry in own}) == 1]
    twofold = [own for own in labels.values() if len({entry.label for entry in own}) > 1]
    if not twofold:
        return once, []
    first, both = twofold[0][0], sorted({show(entry.label) for entry in twofold[0]})
    where = "" if first.start is None else f" from {first.start:g} to {first.end:g} s"
    note = (
        f"{len(twofold)} places have two labels and are left out, such as {show(first.path)}"
        f"{where}: {' and '.join(both)}"
    )
    return once, [note]


def _end(entry: Entry, item: Indexed) -> float:
    return item.seconds if entry.end is None else entry.end


def _clip(entry: Entry, item: Indexed, window: float) -> Clip:
    start, end = entry.start or 0.0, _end(entry, item)
    return Clip(
        path=item.path,
        label=entry.label,
        group=entry.group or str(item.path),
        split=entry.split,
        seconds=end - start,
        sample_rate=item.sample_rate,
        channels=1,
        content=f"{item.path} {start:.6f} {end:.6f}",
        start=entry.start,
        end=entry.end,
        recording_seconds=item.seconds,
        window=window,
    )


def _solved(
    vectors: Sequence[np.ndarray], truth: np.ndarray, split: Split, classes: int
) -> tuple[keras.layers.Dense, float]:
    """The head, and the inverse strength of its penalty."""
    train = split.parts()["train"]
    inputs = np.concatenate([vectors[i] for i in train])
    owners = np.repeat(np.arange(len(train)), [len(vectors[i]) for i in train])
    sounding = np.any(inputs != 0, axis=1)
    inputs, owners = inputs[sounding], owners[sounding]
    # Each place counts the same however long it is, and each class however many places it has.
    labels = truth[train][owners]
    weights = 1 / np.bincount(owners, minlength=len(train))[owners]
    weights /= np.bincount(labels, weights, classes)[labels]
    weights /= weights.mean()
    # As a read-out's projection: mean 0, and variance 1 on average. Folded into the head again.
    middle = np.average(inputs.astype(np.float64), axis=0, weights=weights)
    scale = 1 / max(float(np.sqrt(((inputs - middle) ** 2).mean())), 1e-6)
    standard = (inputs - middle) * scale
    head = keras.layers.Dense(classes, "softmax", name=OUTPUT, dtype="float32")
    head.build((None, inputs.shape[1]))
    held = split.parts()["validation"]
    best: tuple[float, float, list[np.ndarray]] | None = None
    for strength in STRENGTHS if len(held) else STRENGTHS[:1]:
        kernel, bias = regression(standard, labels, weights, strength, Solvable(head, "softmax"))
        folded = [kernel * np.float32(scale), bias - (middle * scale @ kernel).astype(np.float32)]
        means = np.stack([_chances(vectors[i], *folded)[0] for i in held]) if len(held) else None
        found = 0.0 if means is None else loss(truth[held], means)
        if best is None or found < best[0]:
            best = found, strength, folded
    assert best is not None
    head.set_weights(best[2])
    return head, best[1]


def _chances(
    vectors: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest probabilities of a place, (classes,) each."""
    logits = vectors[np.any(vectors != 0, axis=1)] @ kernel + bias
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return chances.mean(axis=0), chances.max(axis=0)


def _scores(
    manifest: Manifest,
    split: Split,
    vectors: Sequence[np.ndarray],
    head: keras.layers.Dense,
    seed: int,
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The entries of `metrics.json`, and the scores of each held-out place."""
    labels, truth, weights = manifest.labels, label_numbers(manifest), head.get_weights()
    metrics: dict[str, Any] = {}
    held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    peaks: dict[str, np.ndarray] = {}
    for part in ("validation", "test"):
        clips = split.parts()[part]
        metrics[part] = None
        if len(clips):
            both = [_chances(vectors[i], *weights) for i in clips]
            means, peaks[part] = (np.stack(values) for values in zip(*both, strict=True))
            held[part] = clips, means
            metrics[part] = score_clips(manifest, clips, means, labels, seed)
    levels = None
    if "validation" in held:
        there = truth[held["validation"][0]]
        levels = np.array(
            [best_threshold(there == n, peaks["validation"][:, n]) for n in range(len(labels))]
        )
    metrics["thresholds"] = (
        None if levels is None else dict(zip(labels, map(float, levels), strict=True))
    )
    fitted = None
    if "validation" in held:
        fitted = truth[held["validation"][0]], held["validation"][1]
    tested = None
    if "test" in held:
        tested = truth[held["test"][0]], held["test"][1], peaks["test"]
    metrics |= calibrate(labels, fitted, tested, levels)
    metrics["background"] = any(map(is_quiet, labels))
    return metrics, held


def _split_rows(manifest: Manifest, split: Split) -> list[dict[str, str]]:
    part_of = {int(i): name for name, clips in split.parts().items() for i in clips}
    return [
        {
            "path": clip.path.relative_to(manifest.root).as_posix(),
            "label": clip.label,
            "group": clip.group,
            "split": part_of[number],
            "start": "" if clip.start is None else f"{clip.start:.6f}",
            "end": "" if clip.end is None else f"{clip.end:.6f}",
        }
        for number, clip in enumerate(manifest.clips)
    ]
