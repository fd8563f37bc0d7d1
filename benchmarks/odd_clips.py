"""What `unfreeze inspect --html` finds of wrong labels and copies that were put in.

    python -m benchmarks.odd_clips FOLDER [--seeds 3] [--share 0.05]

Numbers go to `benchmarks/odd_clips.json`. FOLDER is that of `benchmarks.evidence`. Each seed
gives a share of the recordings a label drawn from the others, and adds copies of ten recordings
under new names: five as MP3, five as FLAC at half the level without the first 0.1 s. Recall is
the share of them that are found; precision the share of the doubts that were put in.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import soundfile

from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.pretrained_weights import resolve_weights
from unfreeze.backbones.registry import get_backbone
from unfreeze.pipeline.odd_clips import find_odd_clips
from unfreeze.pipeline.training_data import build_features

COPIES = 10


def spoil(manifest, out, share, seed):
    """Write a folder of classes with wrong labels and copies; returns what was put in."""
    rng = np.random.default_rng(seed)
    wrong, labels = set(), manifest.labels
    for number, clip in enumerate(manifest.clips):
        label = clip.label
        if rng.random() < share:
            label = str(rng.choice([other for other in labels if other != label]))
            wrong.add(f"{label}/{number}{clip.path.suffix}")
        (out / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, out / label / f"{number}{clip.path.suffix}")
    copied = []
    for place, number in enumerate(rng.choice(len(manifest.clips), COPIES, replace=False)):
        clip = manifest.clips[number]
        (source,) = out.glob(f"*/{number}.*")
        wave, rate = soundfile.read(clip.path)
        if place % 2:
            copy = source.parent / f"copy {place}.flac"
            soundfile.write(copy, 0.5 * wave[round(0.1 * rate) :], rate)
        else:
            copy = source.parent / f"copy {place}.mp3"
            soundfile.write(copy, wave, rate, format="MP3")
        copied.append({str(path.relative_to(out)) for path in (source, copy)})
    return wrong, copied


def find(folder, seed):
    """What stands out in a folder, by names."""
    manifest = read_manifest(folder, max_bad=1.0)
    backbone = get_backbone("yamnet")
    store = build_features(manifest, backbone.front_end)
    weights = resolve_weights(backbone.weights)
    # All are counted, not only as many as a person may wish to look at.
    found = find_odd_clips(manifest, store, backbone, weights, seed=seed, most=10_000)
    names = [str(clip.path.relative_to(manifest.root)) for clip in manifest.clips]
    return found.as_plain(names)


def main() -> None:
    """Run it and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/odd_clips.json"))
    args = parser.parse_args()
    rows = []
    for name in ("animal-sounds", "spoken-digits"):
        manifest = read_manifest(args.folder / name)
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as work:
                wrong, copied = spoil(manifest, Path(work) / "data", args.share, seed)
                odd = find(Path(work) / "data", seed)
            doubts = {doubt["clip"] for doubt in odd["doubts"]}
            sets = [set(one) for one in odd["copies"]]
            row = {
                "data": name,
                "seed": seed,
                "wrong": len(wrong),
                "doubts": len(doubts),
                "right_doubts": len(doubts & wrong),
                "copies": len(copied),
                "found_copies": sum(any(pair <= one for one in sets) for pair in copied),
                "sets": len(sets),
            }
            rows.append(row)
            print(row, flush=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    for name in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == name]

        def total(key, own=own):
            return sum(row[key] for row in own)

        print(
            f"{name}: {total('right_doubts') / total('wrong'):.2f} of the wrong labels found, "
            f"{total('right_doubts') / max(total('doubts'), 1):.2f} of the doubts right; "
            f"{total('found_copies') / total('copies'):.2f} of the copies found"
        )


if __name__ == "__main__":
    main()
