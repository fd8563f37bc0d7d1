"""What the loop of `segments`, sorting and `--add-to` gives: the model before and after.

    python -m benchmarks.correction_loop ANIMALS DIGITS [--seeds 3] [--out results.json]

ANIMALS and DIGITS as for `benchmarks.false_alarms`. For each seed a run is trained
on a part of the animals (head only). The others are mixed into 14 recordings of 2
minutes with noise and speech, a kind of noise and a speaker each. `segments` cuts
clips of 2 s, at most 40 of a class; they are sorted as a person would who hears
everything; and `--add-to` learns from them. Once with the surest clips, once with
`--uncertain`.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import unfreeze
from benchmarks.false_alarms import accuracy_of_animals
from benchmarks.sides import field_sounds
from benchmarks.sides.field_sounds import KINDS, SPEECH
from unfreeze.audio.decode import decode
from unfreeze.audio.entries import BACKGROUND, is_quiet
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.split import split_clips
from unfreeze.files import write_json
from unfreeze.review.candidate_clips import best_of, find_candidates, write_folder

WAYS = {"the surest": False, "`--uncertain`": True}
FIELD_SHARE = 0.43
RECORDINGS, SECONDS, PHRASES = 14, 120, 6
LENGTH, PER_CLASS = 2.0, 40
# Seconds of a sound that must be in a clip for a person to hear it.
_HEARD = 0.25


def make(animals, digits, folder, *, seed, recordings=RECORDINGS):
    """Write the data of the first run and the recordings of the field.

    Args:
        animals: the data set with the classes.
        digits: the spoken words.
        folder: where to; gets `animals` and `field`.
        seed: of the division and of all that is drawn.
        recordings: how many; the clips are divided among them.

    Returns:
        The truth: by the recording's name a list of (start, end, label).
    """
    rng = np.random.default_rng(seed)
    manifest = read_manifest(animals)
    split = split_clips(manifest, validation=0.0, test=FIELD_SHARE, seed=seed)
    field_sounds.copy_clips(manifest, {"": split.train}, folder / "animals")
    speakers = field_sounds.by_speaker(digits)
    pool = [manifest.clips[i] for i in rng.permutation(split.test)]
    (folder / "field").mkdir()
    truth = {}
    for k in range(recordings):
        sounds = [(decode(clip.path), clip.label) for clip in pool[k::recordings]]
        files = speakers[k % len(speakers)]
        sounds += [(field_sounds.phrase(files, rng), SPEECH) for _ in range(PHRASES)]
        level = 10 ** rng.uniform(-3, -1.5)
        field = field_sounds.noise(rng, SECONDS, rng.choice(KINDS), level)
        name = f"field-{k:02}.wav"
        truth[name] = field_sounds.paste(field, sounds, rng)
        field_sounds.write_sound(folder / "field" / name, field)
    return truth


def heard(truth, start, end):
    """The class of a clip for a person who hears all in it; None if it is of no use.

    Args:
        truth: of its recording.
        start: seconds in the recording.
        end: the same.
    """
    labels = {label for a, b, label in truth if min(b, end) - max(a, start) >= _HEARD}
    if len(labels) > 1:
        return None
    label = labels.pop() if labels else SPEECH
    return BACKGROUND if label == SPEECH else label


def sort_clips(folder, segments, truth):
    """Move and delete the clips of a folder as a person who hears the truth would."""
    for segment in segments:
        clip = folder / segment.file
        label = heard(truth[Path(segment.source).name], segment.start, segment.end)
        if label is None:
            clip.unlink()
        elif label != segment.label:
            (folder / label).mkdir(exist_ok=True)
            clip.rename(folder / label / clip.name)


def corrected(run, field, truth, clips, uncertain):
    """Cut, sort and learn; gives `change` of the new run's metrics."""
    classifier = unfreeze.SoundClassifier.load(run)
    candidates = []
    for file in sorted(field.iterdir()):
        candidates += find_candidates(
            classifier, file, per_class=PER_CLASS, length=LENGTH, uncertain=uncertain
        )
    written = write_folder(
        clips, best_of(candidates, PER_CLASS, uncertain), run=str(run), command="",
        labels=classifier.labels, uncertain=uncertain,
    )  # fmt: skip
    sort_clips(clips, written.segments, truth)
    new = unfreeze.SoundClassifier.train(clips, add_to=run)
    change = new.metrics["change"]
    return {
        "cut": len(written.segments),
        **change,
        "animals": animals_alone(change["corrected"], new.metrics["corrected"]),
    }


def animals_alone(change, after):
    """Accuracy before and after on the held-out clips that are no background.

    The model before has no such class, so all that it has right are animals.

    Args:
        change: of the held-out clips; None if there are none.
        after: the new model's scores of them.
    """
    if change is None:
        return None
    confusion = np.array(after["confusion"])
    clips = sum(
        int(row.sum())
        for row, label in zip(confusion, after["labels"], strict=True)
        if not is_quiet(label)
    )
    right = change["before"]["accuracy"] * change["clips"]
    return {"clips": clips, "before": right / clips, "after": accuracy_of_animals(after)}


def table(results):
    """The table of docs/review.md, a row for each seed and way."""
    lines = [
        "| | seed | clips | kept / moved / deleted | old test clips | corrected, held out "
        "| of these animals |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, rows in results.items():
        for row in rows:
            changes = row["corrections"]
            moved = sum(move["clips"] for move in changes["moved"])
            cells = [
                way, str(row["seed"]), str(row["cut"]),
                f"{changes['kept']} / {moved} / {changes['deleted']}",
                _change(row["test"]), _change(row["corrected"]), _animals(row["animals"]),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _change(scores):
    if scores is None:
        return "–"
    before, after = scores["before"]["accuracy"], scores["after"]["accuracy"]
    low, high = scores["intervals"]["accuracy"] or (float("nan"),) * 2
    return (
        f"{before:.2f} -> {after:.2f} ({scores['difference']['accuracy']:+.2f}, {low:+.2f} to "
        f"{high:+.2f}), {scores['clips']} clips"
    )


def _animals(row):
    if row is None:
        return "–"
    return f"{row['before']:.2f} -> {row['after']:.2f}, {row['clips']} clips"


def main():
    """Make, train, cut, sort, train again, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("animals", type=Path)
    options.add_argument("digits", type=Path)
    options.add_argument("--seeds", type=int, default=3, help="whole loops of each kind")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--out", type=Path, help="JSON file for all numbers")
    chosen = options.parse_args()
    results = {way: [] for way in WAYS}
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            truth = make(chosen.animals, chosen.digits, folder, seed=seed)
            run = folder / "run"
            unfreeze.SoundClassifier.train(
                folder / "animals", "head_only", run, epochs=chosen.epochs, seed=seed
            )
            for way, uncertain in WAYS.items():
                clips = folder / f"clips-{uncertain}"
                change = corrected(run, folder / "field", truth, clips, uncertain)
                results[way].append({"seed": seed, **change, "run": "run"})
                print(f"seed {seed}, {way}: {_change(change['corrected'])}", flush=True)
    print(table(results))
    if chosen.out:
        write_json(chosen.out, {"epochs": chosen.epochs, "results": results})


if __name__ == "__main__":
    main()
