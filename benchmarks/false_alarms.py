"""What `--background` and `--negative` do: animals found and false alarms in 30 minutes.

    python -m benchmarks.false_alarms ANIMALS DIGITS [--seeds 3] [--out results.json]

ANIMALS is a folder with a folder of recordings for each class, DIGITS a data set
of single spoken words with the speaker as `group`, six speakers at least. From
these and computed noise come (all with one seed, so always the same):

- background: 36 noises of 30 s, six kinds;
- negatives: 48 phrases of four words by the first four speakers;
- a recording of 30 minutes: the same kinds of noise, the clips of the animals'
  test part, and 60 phrases of two other speakers.

Head only, with neither, each and both, over seeds of the training; the division of
the animals is always the same. An animal is found if an event of its class overlaps
it; a false alarm is an event that overlaps no animal. At "recall is 0.8" each model
has the threshold with the fewest false alarms at a recall of 0.8 in this recording:
that compares models and is no forecast.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import unfreeze
from benchmarks import event_scores
from benchmarks.sides import field_sounds
from benchmarks.sides.field_sounds import KINDS, SPEECH
from unfreeze.audio.decode import decode
from unfreeze.audio.entries import is_quiet
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.split import split_clips
from unfreeze.detection.detector import all_events
from unfreeze.detection.events import DetectOptions
from unfreeze.files import write_json

WAYS = {
    "neither": (),
    "background": ("background",),
    "negatives": ("negative",),
    "both": ("background", "negative"),
}
RECALL = 0.8
THRESHOLDS = np.arange(10, 100) / 100
_SPEAKERS, _HELD = slice(0, 4), slice(4, 6)


def make(animals, digits, folder, *, seed=0, minutes=30, phrases=60):
    """Write what is trained on and `field.wav`.

    Args:
        animals: the data set with the classes.
        digits: the spoken words.
        folder: where to; gets `animals`, `background`, `negative`, `field.wav`.
        seed: of all that is drawn, and of the division of the animals.
        minutes: length of the recording, in pieces of half a minute of one noise each.
        phrases: of speech in it.

    Returns:
        The truth of the recording: (start, end, label), speech with the label `SPEECH`.
    """
    rng = np.random.default_rng(seed)
    manifest = read_manifest(animals)
    split = split_clips(manifest, seed=seed)
    field_sounds.copy_clips(manifest, split.parts(), folder / "animals")
    field_sounds.write_noises(folder / "background", rng, count=36, seconds=30)
    speakers = field_sounds.by_speaker(digits)
    (folder / "negative").mkdir()
    for number, files in enumerate(speakers[_SPEAKERS]):
        for k in range(12):
            path = folder / "negative" / f"speaker{number}-{k:02}.wav"
            field_sounds.write_sound(path, field_sounds.phrase(files, rng))
    sounds = [(decode(manifest.clips[i].path), manifest.clips[i].label) for i in split.test]
    held = speakers[_HELD]
    sounds += [(field_sounds.phrase(held[k % len(held)], rng), SPEECH) for k in range(phrases)]
    field = np.concatenate([
        field_sounds.noise(rng, 30, rng.choice(KINDS), 10 ** rng.uniform(-3, -1.5))
        for _ in range(minutes * 2)
    ])  # fmt: skip
    truth = field_sounds.paste(field, sounds, rng)
    field_sounds.write_sound(folder / "field.wav", field)
    return truth


def counted(truth, found, hours):
    """Recall of the animals, and false alarms an hour: all, and those on speech."""
    animals = [event for event in truth if event[2] != SPEECH]
    alarms = event_scores.false_alarms(animals, found)[1]
    in_noise = event_scores.false_alarms(truth, found)[1]
    return {
        "recall": event_scores.event_scores(animals, found)["overlap"]["recall"],
        "false_alarms": alarms / hours,
        "on_speech": (alarms - in_noise) / hours,
    }


def measured(classifier, recording, truth):
    """The counts at a threshold of 0.5, and where the recall is 0.8 (None if it never is)."""
    blocks = list(classifier.scan(recording))
    hours = float(blocks[-1].ends.max()) / 3600
    rows = []
    for score in THRESHOLDS:
        detector = classifier.detector(DetectOptions(min_score=float(score)))
        found = [(e.start, e.end, e.label) for e in all_events(detector, blocks)]
        rows.append({"threshold": float(score), **counted(truth, found, hours)})
    enough = [row for row in rows if row["recall"] >= RECALL]
    return {
        "at 0.5": next(row for row in rows if row["threshold"] == 0.5),
        "at recall 0.8": min(enough, key=lambda row: row["false_alarms"], default=None),
        "accuracy_of_animals": accuracy_of_animals(classifier.metrics["test"]),
    }


def accuracy_of_animals(scores):
    """Share of the animals' test clips that are right; background is left out."""
    confusion = np.array(scores["confusion"])
    own = [i for i, label in enumerate(scores["labels"]) if not is_quiet(label)]
    return float(confusion[own, own].sum() / confusion[own].sum())


def table(results):
    """The table of docs/review.md: means over seeds, and the least and the most."""
    lines = [
        "| trained with | recall at 0.5 | false alarms an hour at 0.5 | of these on speech "
        "| false alarms an hour where recall is 0.8 | accuracy of the animals' clips |",
        "|---|---|---|---|---|---|",
    ]
    for way, rows in results.items():
        half, best = ([row[key] for row in rows] for key in ("at 0.5", "at recall 0.8"))
        cells = [
            f"{np.mean([row['recall'] for row in half]):.2f}",
            _spread([row["false_alarms"] for row in half]),
            f"{np.mean([row['on_speech'] for row in half]):.0f}",
            "–" if None in best else _spread([row["false_alarms"] for row in best]),
            f"{np.mean([row['accuracy_of_animals'] for row in rows]):.2f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values):
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main():
    """Make, train, count, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("animals", type=Path)
    options.add_argument("digits", type=Path)
    options.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--out", type=Path, help="JSON file for all numbers")
    chosen = options.parse_args()
    results = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        truth = make(chosen.animals, chosen.digits, folder)
        for seed in range(chosen.seeds):
            for way, kinds in WAYS.items():
                classifier = unfreeze.SoundClassifier.train(
                    folder / "animals", "head_only", epochs=chosen.epochs, seed=seed,
                    **{kind: folder / kind for kind in kinds},
                )  # fmt: skip
                row = {"seed": seed, **measured(classifier, folder / "field.wav", truth)}
                results[way].append(row)
                print(f"seed {seed}, {way}: {row}", flush=True)
    print(table(results))
    if chosen.out:
        write_json(chosen.out, {"epochs": chosen.epochs, "results": results})


if __name__ == "__main__":
    main()
