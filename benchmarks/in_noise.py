"""What the gate and `--in-noise` do: animals found in noise, and false alarms without any.

    python -m benchmarks.in_noise ANIMALS DIGITS [--seeds 2] [--schedule probe] [--ways 2]
        [--out FILE]

ANIMALS is a folder with a folder of recordings for each class, DIGITS a data set of single
spoken words with the speaker as `group`. For each seed the animals are divided, and their
test clips pasted into 20 minutes of each of four noises, 20 dB above it. What else is heard:
an hour of noise from faint to loud, nine minutes of speech, forty seconds of tones and a
minute of digital silence. Noise, speech and tones come from other code than the computed
background that is trained on. Three models, each with its own thresholds: without a gate, as
by default, and with `--in-noise`. The last column is the time to train, features at hand.

An event is right if it overlaps an animal of its class; a true one is found if a right event
overlaps it. "At recall 0.85" has the highest precision at one threshold for all classes.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import unfreeze
from benchmarks import event_scores
from benchmarks.sides import field_sounds
from benchmarks.sides.paste_sounds import RATE, rms, trimmed
from unfreeze.audio.decode import decode
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.split import split_clips
from unfreeze.backbones.registry import get_backbone
from unfreeze.detection.detector import all_events
from unfreeze.detection.events import DetectOptions
from unfreeze.files import write_json
from unfreeze.pipeline.training_data import build_features

KINDS = ("white", "pink", "brown", "wind")
WAYS = {
    "`--no-gate`": {"gate": False},
    "as by default": {},
    "`--in-noise`": {"in_noise": True},
}
LEVELS = (*np.arange(5, 96, 5) / 100, 0.97, 0.98, 0.99, 0.995, 0.999)
RECALL, MINUTES, NOISE_RMS, ABOVE = 0.85, 20, 0.003, 10.0


def make(animals, digits, folder, seed):
    """Write the divided animals and the recordings.

    Returns:
        By the kind of noise the truth: (start, end, label) of each animal.
    """
    rng = np.random.default_rng(1000 + seed)
    manifest = read_manifest(animals)
    split = split_clips(manifest, seed=seed)
    field_sounds.copy_clips(manifest, split.parts(), folder / "animals")
    truth = {}
    for kind in KINDS:
        pieces = [field_sounds.noise(rng, 30, kind, NOISE_RMS) for _ in range(2 * MINUTES)]
        field, truth[kind] = np.concatenate(pieces), []
        slot = len(field) // len(split.test)
        for place, number in enumerate(rng.permutation(split.test)):
            clip = manifest.clips[number]
            sound = trimmed(decode(clip.path, RATE))[: min(10 * RATE, slot)]
            sound = sound * min(ABOVE * NOISE_RMS / rms(sound), 0.98 / np.abs(sound).max())
            at = place * slot + int(rng.integers(slot - len(sound) + 1))
            field[at : at + len(sound)] += sound
            truth[kind].append((at / RATE, (at + len(sound)) / RATE, clip.label))
        field_sounds.write_sound(folder / f"{kind}.wav", field)
    noises = [
        field_sounds.noise(rng, 30, kind, 10 ** rng.uniform(-3.5, -1.2))
        for kind in KINDS
        for _ in range(30)
    ]
    field_sounds.write_sound(folder / "noise.wav", np.concatenate(noises))
    speakers = field_sounds.by_speaker(digits)
    phrases = [field_sounds.phrase(speakers[k % len(speakers)], rng) for k in range(160)]
    spoken = [part for phrase in phrases for part in (phrase, np.zeros(RATE // 2))]
    field_sounds.write_sound(folder / "speech.wav", np.concatenate(spoken))
    clock = np.arange(10 * RATE) / RATE
    tones = [0.1 * np.sin(2 * np.pi * pitch * clock) for pitch in (200, 440, 1000, 3000)]
    field_sounds.write_sound(folder / "tones.wav", np.concatenate(tones))
    field_sounds.write_sound(folder / "silence.wav", np.zeros(60 * RATE))
    return truth


def measured(classifier, folder, truth):
    """The scores in each noise, and the number of events where there is no animal."""
    row = {"accuracy": classifier.metrics["test"]["accuracy"]}
    for kind in KINDS:
        blocks = list(classifier.scan(folder / f"{kind}.wav"))
        own, *others = (scored(classifier, blocks, truth[kind], s) for s in (None, *LEVELS))
        enough = [score["precision"] for score in others if score["recall"] >= RECALL]
        row[kind] = {**own, "at recall 0.85": max(enough, default=None)}
    for name in ("noise", "speech", "tones", "silence"):
        row[name] = len(classifier.detect(folder / f"{name}.wav"))
    return row


def scored(classifier, blocks, truth, score):
    """Recall and precision at a threshold; None takes the run's own."""
    detector = classifier.detector(DetectOptions(min_score=None if score is None else float(score)))
    found = [(e.start, e.end, e.label) for e in all_events(detector, blocks)]
    return event_scores.event_scores(truth, found)["overlap"]


def table(results):
    """The table of docs/detection.md: means over the seeds."""
    heads = [f"{kind} noise" for kind in KINDS]
    lines = [
        f"| | clip accuracy | {' | '.join(heads)} | at recall 0.85 | noise, 1 h | speech, 9 min "
        "| tones | silence | training |",
        "|---|---|" + "---|" * (len(KINDS) + 6),
    ]
    for way, rows in results.items():

        def mean(name, score=None, rows=rows):
            return np.mean([row[name] if score is None else row[name][score] for row in rows])

        cells = [way, f"{mean('accuracy'):.3f}"]
        cells += [f"{mean(kind, 'recall'):.2f} / {mean(kind, 'precision'):.2f}" for kind in KINDS]
        best = [row[kind]["at recall 0.85"] for row in rows for kind in KINDS]
        cells.append("–" if None in best else f"{np.mean(best):.2f}")
        cells += [f"{mean(name):.1f}" for name in ("noise", "speech", "tones", "silence")]
        cells.append(f"{mean('seconds'):.0f} s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    """Make, train, search, count, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("animals", type=Path)
    options.add_argument("digits", type=Path)
    options.add_argument("--seeds", type=int, default=2, help="divisions of the animals")
    options.add_argument("--schedule", default="probe")
    options.add_argument(
        "--ways", type=int, default=len(WAYS), help="the first so many: 2 leave out --in-noise"
    )
    options.add_argument("--out", type=Path, help="JSON file for all numbers")
    chosen = options.parse_args()
    ways = dict(list(WAYS.items())[: chosen.ways])
    results = {way: [] for way in ways}
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            truth = make(chosen.animals, chosen.digits, folder, seed)
            # The first run of all would compute the features as well.
            build_features(read_manifest(folder / "animals"), get_backbone("yamnet").front_end)
            for way, given in ways.items():
                began = time.perf_counter()
                classifier = unfreeze.SoundClassifier.train(
                    folder / "animals", chosen.schedule, seed=seed, **given
                )
                seconds = time.perf_counter() - began
                row = {"seed": seed, "seconds": seconds, **measured(classifier, folder, truth)}
                results[way].append(row)
                print(f"seed {seed}, {way}: {row}", flush=True)
    print(table(results))
    if chosen.out:
        write_json(chosen.out, {"schedule": chosen.schedule, "results": results})


if __name__ == "__main__":
    main()
