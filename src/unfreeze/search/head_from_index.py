"""A new head from labelled places of an index: trained in seconds, no recording is read.

A place is heard as the windows of the index that lie in it. The head is solved on these by
logistic regression (`unfreeze.core.solve`), its strength chosen on the validation places; places
of one recording stay in one part. Then a gate is solved, as after a training: computed background
goes through the index's model, once for each index, and the gate separates its vectors from
those of the places. The result is a run folder that `predict`, `evaluate`, `listen`, `serve`,
`export` and `report` take: the index's own model up to the vector, and the new head on it. It
has no schedule, since nothing but the head is trained.

To the pipeline the vectors are patches, like those that a frozen network makes
(`unfreeze.backbones.frontend.EncodedWindows`), so scores, gate and thresholds are computed by the
same functions. What they cannot have is the places in noise: nobody hears a vector again.
"""

import hashlib
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
from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.clip_model import (
    OUTPUT,
    PATCH_MODEL,
    clip_model,
    head_input,
    notice_of,
    parts_of,
)
from unfreeze.audio.entries import Entry, is_quiet, settle_labels
from unfreeze.audio.label_sets import classes_of, heard_in, is_set, union
from unfreeze.audio.label_table import Columns
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.patches import FrameArray, PatchView
from unfreeze.audio.rules import Problem
from unfreeze.audio.split import Split, split_clips, split_notes
from unfreeze.backbones.frontend import EncodedWindows
from unfreeze.core.graph import copied_behind
from unfreeze.errors import DataError, show
from unfreeze.files import write_json, write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.gate import Gated, with_gate
from unfreeze.pipeline.held_counts import count_held, score_held, threshold_entries
from unfreeze.pipeline.held_metrics import HELD, held_metrics
from unfreeze.pipeline.inference import all_scores
from unfreeze.pipeline.predictions import write_predictions
from unfreeze.pipeline.run_writing import Tested
from unfreeze.pipeline.saved_model import write_clip_model
from unfreeze.pipeline.vector_head import ClipVectors, solve_head
from unfreeze.pipeline.wish import Wish
from unfreeze.search.embedding import open_index_encoder
from unfreeze.search.encoder import Encoder
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
    multilabel: bool = False,
    gate: bool = True,
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
        seed: of the split and of the background.
        multilabel: a place may have several labels, or none: each class is judged by itself.
            It is so in any case where a label names several, such as `cat;dog`.
        gate: learn to name nothing where only background is heard.
        overwrite: replace the run in `out`.

    Returns:
        The scores, as in the run's `metrics.json`.

    Raises:
        DataError: the tables cannot be used, or their places are not in the index.
        RunError: `out` holds something else.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> scores = unfreeze.train_head(index, "places.csv", "head", multilabel=True)
        >>> unfreeze.SoundClassifier.load("head").multilabel, scores["test"]["multilabel"]
        (True, True)
    """
    tables, out = Path(tables), Path(out)
    command = ["unfreeze", "head", str(index.folder), str(tables), "--out", str(out)]
    command += ["--validation", f"{validation:g}", "--test", f"{test:g}", "--seed", str(seed)]
    command += ["--multilabel"] * multilabel + ["--no-gate"] * (not gate)
    with run_folder.held(out, overwrite, False, {}):
        manifest, rows, notes = _labelled(index, tables, multilabel)
        split = split_clips(manifest, validation=validation, test=test, seed=seed)
        notes = [*notes, *split_notes(manifest, split)]
        encoder = open_index_encoder(index)
        cut = _pieces(index, manifest, split, rows)
        model, strength = _solved(cut)
        front_end = _front_end(index, encoder)
        gated = Gated(model, manifest.labels, None, ())
        if gate:
            gated = with_gate(model, model, cut, front_end, seed)
        notes += gated.notes
        model, labels = gated.model, gated.labels
        cut = replace(cut, manifest=replace(manifest, labels=labels))
        held = score_held(model, cut, HELD)
        counts = count_held(model, cut, held, gated.noisy, front_end, seed)
        metrics = held_metrics(cut, held, seed, threshold_entries(counts, Wish()))
        metrics["background"] = manifest.several or any(map(is_quiet, labels))
        run_folder.clear(out)
        notice = notice_of(encoder.clip_model)
        run_folder.write_config(
            out,
            {
                "unfreeze": __version__,
                "command": shlex.join(command),
                "labels": list(labels),
                **({"multilabel": True} if manifest.several else {}),
                "data": {"root": str(manifest.root), "clips": len(manifest.clips)},
                "index": {
                    "folder": str(index.folder.absolute()),
                    "encoder": index.settings.encoder,
                    "of": index.settings.of,
                    "windows": sum(map(len, rows)),
                    "C": strength,
                },
                **({"licence": notice} if notice else {}),
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
            },
        )
        if notice:
            write_text(out / run_folder.LICENCE, notice + "\n")
        run_folder.write_table(out / run_folder.SPLITS, _split_rows(manifest, split))
        write_clip_model(_whole(encoder, model, labels, notice), out / run_folder.MODEL)
        parts = {name: (split.parts()[name], held[name][0][split.parts()[name]]) for name in held}
        cuts = None
        if manifest.several and parts:
            scores = metrics["test"] or metrics["validation"]
            cuts = [row["threshold"] for row in scores["per_class"].values()]
        write_predictions(out, cut.manifest, parts, labels, cuts)
        write_json(out / run_folder.NOTES, Tested(cut.manifest, parts, cuts, notes).about())
        run_folder.write_scores(out, metrics)
    return metrics


def _whole(encoder: Encoder, model: keras.Model, labels: Sequence[str], notice: str) -> Any:
    """Waveforms to probabilities: the index's model up to the vector, and what stands on it."""
    patches, front_end, _ = parts_of(encoder.clip_model)
    above = copied_behind(model, head_input(patches), patches.input, PATCH_MODEL)
    return clip_model(above, front_end, labels, notice=notice)


def _front_end(index: Index, encoder: Encoder) -> EncodedWindows:
    """What makes vectors of computed background: as the network reads it, rounded as in the index.

    Its digest is that of the index's model, so that what is computed serves all heads.
    """

    def encode(patches: np.ndarray) -> np.ndarray:
        found = all_scores(encoder.model, patches)[:, : encoder.numbers]
        return found.astype(np.float16).astype(np.float32)

    front = encoder.front_end
    apart = front.with_steps(max(front.steps, front.patch_samples // front.step))
    return EncodedWindows.of(apart, encode, encoder.numbers, index.settings.encoder)


def _pieces(index: Index, manifest: Manifest, split: Split, rows: Sequence[range]) -> Pieces:
    """The vectors of the windows of each part's places, as patches; silent windows have none."""
    parts = {}
    for name, clips in split.parts().items():
        own = [index.vectors(rows[i].start, rows[i].stop).astype(np.float32) for i in clips]
        own = [vectors[vectors.any(axis=1)] for vectors in own]
        numbers = np.repeat(np.asarray(clips, np.int64), [len(vectors) for vectors in own])
        frames = np.concatenate([np.zeros((0, index.settings.numbers), np.float32), *own])
        # Of what they are, too: the same index gives other places of the same number.
        found = hashlib.sha256(frames.tobytes() + numbers.tobytes()).hexdigest()
        digest = f"{index.settings.encoder} {found}"
        shape, places = (frames.shape[1],), np.arange(len(frames))
        parts[name] = PatchView(FrameArray(frames), places, numbers, 1, digest, shape)
    return Pieces(manifest, split, parts, ())


def _labelled(
    index: Index, tables: Path, multilabel: bool
) -> tuple[Manifest, list[range], list[str]]:
    """The labelled places as clips, the windows of each, and notes."""
    if not tables.exists():
        raise DataError(f"{show(tables)} does not exist: give a table of places, or a folder")
    files = [tables] if tables.is_file() else sorted(find_tables(tables))
    entries, problems = list[Entry](), list[Problem]()
    for file in files:
        found, told = read_sounds(file, Columns(several=multilabel))
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
    several = multilabel or any(is_set(entry.label) for entry in inside)
    settled, told = settle_labels(inside, several)
    lengths = {path: item.seconds for path, item in items.items()}
    settled, behind = settle_sounds(settled, lengths, False, several, index.settings.window)
    notes += [f"{show(problem.path)} {problem.cause}" for problem in told]
    notes += [f"{show(problem.path)}: {problem.cause}" for problem in behind]
    settled, contrary = _united(settled) if several else _without_contrary(settled)
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
    labels = tuple(sorted({x for clip in clips for x in classes_of(clip.label, several)}))
    contrast = len(labels) > 1 or (several and any(not heard_in(clip.label) for clip in clips))
    if not contrast or all(map(is_quiet, labels)):
        raise DataError(
            f"{show(tables)} has places of {', '.join(map(show, labels)) or 'no class'} alone: "
            f"label two classes or more, such as background{_because(notes)}"
        )
    home = Path(os.path.commonpath([clip.path.parent for clip in clips]))
    return Manifest(home, tuple(clips), labels, (), "", several), rows, notes


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
        f"{where}: {' and '.join(both)}. If both are heard there, say --multilabel"
    )
    return once, [note]


def _united(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Each place once, with all that is said of it; and how many have several labels."""
    places: dict[tuple[Path, float | None, float | None], Entry] = {}
    for entry in entries:
        label = "" if is_quiet(entry.label) else entry.label
        same = places.get((entry.path, entry.start, entry.end))
        known = replace(entry, label=label if same is None else union(same.label, label))
        places[entry.path, entry.start, entry.end] = known
    counts = [len(heard_in(entry.label)) for entry in places.values()]
    note = (
        f"{sum(n > 1 for n in counts)} of {len(counts)} places have several labels, "
        f"{counts.count(0)} have none: each class is judged by itself"
    )
    return list(places.values()), [note]


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


def _solved(cut: Pieces) -> tuple[keras.Model, float]:
    """The head, as a model of vectors, and the inverse strength of its penalty."""
    views = cut.parts["train"], cut.parts["validation"]
    train, held = (ClipVectors(view[:], view.clip) for view in views)
    found, strength = solve_head(cut.manifest, train, held)
    activation = "sigmoid" if cut.manifest.several else "softmax"
    head = keras.layers.Dense(len(found.bias), activation, name=OUTPUT, dtype="float32")
    vectors = keras.Input((len(found.kernel),), name="vectors")
    model = keras.Model(vectors, head(vectors), name=PATCH_MODEL)
    head.set_weights([found.kernel, found.bias])
    return model, strength


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
