"""Several labels per clip: animal sounds, two clips of different classes added.

    python -m benchmarks.mixed_labels FOLDER [--seeds 3] [--out benchmarks/mixed_labels.json]

FOLDER is that of `benchmarks.evidence`. Each seed divides the recordings as for training;
in each part, the first five seconds of every recording are added to those of one of another
class of the same part, at a level of -6 to 6 dB. Mean average precision and macro F1 on the
test mixes: the default, its
first stage alone (`probe`), and logistic regression for each class on the mean embedding
(balanced, `C` chosen by the validation mixes).
"""

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import soundfile
import soxr
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.evidence_depths import BATCH, CS
from unfreeze import SoundClassifier
from unfreeze.audio.manifest import heard_table, read_manifest
from unfreeze.audio.patches import clip_means
from unfreeze.audio.split import split_clips
from unfreeze.backbones.pretrained_weights import resolve_weights
from unfreeze.backbones.registry import get_backbone
from unfreeze.pipeline.label_scoring import label_thresholds, score_labels
from unfreeze.pipeline.training_data import build_features

RATE, SECONDS = 16_000, 5
SCHEDULES = ("probe", "probe_tune")


def mix(sounds, out, seed):
    """Write the mixes and their manifest; returns the manifest's path."""
    manifest = read_manifest(sounds)
    split, rng = split_clips(manifest, seed=seed), np.random.default_rng(seed)
    out.mkdir(parents=True)
    rows = [("path", "label", "split", "group")]
    for part, clips in split.parts().items():
        waves = {i: _mono(manifest.clips[i].path) for i in clips}
        for number, i in enumerate(clips):
            label = manifest.clips[i].label
            other = rng.choice([j for j in clips if manifest.clips[j].label != label])
            first, second = waves[i], waves[other] * 10 ** (rng.uniform(-6, 6) / 20)
            length = max(len(first), len(second))
            both = np.pad(first, (0, length - len(first))) + np.pad(
                second, (0, length - len(second))
            )
            both /= max(1.0, np.abs(both).max())
            name = f"{part}_{number:03}.wav"
            soundfile.write(out / name, both, RATE)
            labels = sorted({label, manifest.clips[other].label})
            rows.append((name, ";".join(labels), part, f"{part} {number}"))
    with (out / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return out


def _mono(path):
    wave, rate = soundfile.read(path, always_2d=True)
    wave = soxr.resample(wave.mean(axis=1), rate, RATE)[: SECONDS * RATE]
    return 0.5 * wave / max(np.abs(wave).max(), 1e-6)


def baseline(data):
    """Scores of logistic regression on embeddings, as `score_labels` gives them."""
    backbone = get_backbone("yamnet")
    manifest = read_manifest(data)
    store = build_features(manifest, backbone.front_end)
    count = len(manifest.clips)
    view = store.patches(np.arange(count))
    network = backbone.build(weights=resolve_weights(backbone.weights))
    patches = np.concatenate(
        [
            network.predict_on_batch(view[np.arange(at, min(at + BATCH, len(view)))])
            for at in range(0, len(view), BATCH)
        ]
    )
    embeddings, table = clip_means(patches, view.clip, count), heard_table(manifest)
    train, held, test = split_clips(manifest).parts().values()
    groups = np.arange(count)
    best = None
    for c in CS:
        each = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(each))
        model.fit(embeddings[train], table[train])
        chances = model.predict_proba(embeddings)
        reached = score_labels(
            table[held], chances[held], manifest.labels, groups[held], resamples=1
        )["mean_average_precision"]
        if best is None or reached > best[0]:
            best = reached, chances
    chances = best[1]
    cuts = label_thresholds(table[held], chances[held])
    return score_labels(table[test], chances[test], manifest.labels, groups[test], cuts)


def scores_of(what, data, seed):
    """Scores on the test mixes, as `score_labels` gives them."""
    if what in SCHEDULES:
        return SoundClassifier.train(data, what, seed=seed).metrics["test"]
    return baseline(data)


def main() -> None:
    """Run the study and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/mixed_labels.json"))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(args.seeds):
            data = mix(args.folder / "animal-sounds", Path(work) / f"mixed {seed}", seed)
            for what in ("logistic regression", *SCHEDULES):
                scores = scores_of(what, data, seed)
                names = ("mean_average_precision", "macro_f1", "micro_f1", "clips")
                rows.append({"seed": seed, "what": what, **{name: scores[name] for name in names}})
                print(rows[-1], flush=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        means = [np.mean([row[n] for row in own]) for n in ("mean_average_precision", "macro_f1")]
        print(f"{what}: mean average precision {means[0]:.3f}, macro F1 {means[1]:.3f}")


if __name__ == "__main__":
    main()
