"""Which vector of a window finds clips of the same class best, without any training.

    python -m benchmarks.search_vectors FOLDER [--backbone yamnet]

FOLDER holds `animal-sounds` and `spoken-digits`, as for `benchmarks.evidence`. Each clip of
`animal-sounds` is the example once: the mean of its windows' vectors is compared with the windows
of all other clips, and of the ten clips with the best windows, those of its own class are
counted. Projections are fitted to these recordings, and to `spoken-digits` ("fitted elsewhere").
The table in docs/search.md is what this prints.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from unfreeze.audio.decode_processes import Decoders
from unfreeze.backbones.pretrained_weights import resolve_weights
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.read_out import SAMPLES, principal_components, projection_of
from unfreeze.detection.scan import PatchBlock, read_patches
from unfreeze.pipeline.inference import all_scores, fused
from unfreeze.pipeline.patch_training import new_model

BEST = 10


def windows_of(files, reader, front):
    """The embedding and all depths of each window, and the number of its file."""
    rows, numbers = [], []
    hop = front.patch_samples // front.step
    with Decoders() as decoders:
        for number, file in enumerate(files):
            for item in read_patches(file, front, hop, decoders):
                if isinstance(item, PatchBlock):
                    rows.append(all_scores(reader, item.patches))
                    numbers += [number] * len(rows[-1])
    return np.concatenate(rows), np.array(numbers)


def precision(vectors, clip, labels, best_of_example=False):
    """Mean precision at ten: each clip against the windows of all others."""
    vectors = vectors.astype(np.float16).astype(np.float32)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found = []
    for number in range(len(labels)):
        mine = vectors[clip == number]
        example = mine if best_of_example else mine.mean(axis=0, keepdims=True)
        example = example / np.maximum(np.linalg.norm(example, axis=1, keepdims=True), 1e-9)
        likeness = (unit @ example.T).max(axis=1)
        best = np.full(len(labels), -np.inf)
        np.maximum.at(best, clip, likeness)
        best[number] = -np.inf
        found.append(np.mean(labels[np.argsort(-best)[:BEST]] == labels[number]))
    return float(np.mean(found))


def projected(values, fitted_to, components, power):
    """Standardized and projected; each component divided by its deviation to a power."""
    rng = np.random.default_rng(0)
    some = fitted_to[rng.permutation(len(fitted_to))[:SAMPLES]]
    kernel, bias = principal_components(some.copy(), components, 0)
    # These are divided by the square root of the deviation already.
    deviation = np.maximum((some @ kernel + bias).std(axis=0), 1e-6) ** 2
    return (values @ kernel + bias) * deviation ** (0.5 - power)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="yamnet")
    args = parser.parse_args()
    backbone = get_backbone(args.backbone)
    model = new_model(backbone, resolve_weights(backbone.weights), 1, 0, augment="none")
    depths = projection_of(model).input
    embedding = backbone.build(weights=resolve_weights(backbone.weights))
    both = keras.layers.Concatenate()([embedding(model.input), depths])
    reader, size = fused(keras.Model(model.input, both)), embedding.output.shape[-1]
    files = sorted((args.folder / "animal-sounds").glob("*/*.*"))
    labels = np.array([file.parent.name for file in files])
    values, clip = windows_of(files, reader, backbone.front_end)
    elsewhere = sorted((args.folder / "spoken-digits").rglob("*.wav"))[::4]
    other, _ = windows_of(elsewhere, reader, backbone.front_end)
    last, all_depths = values[:, :size], values[:, size:]
    noise = np.random.default_rng(0).normal(size=(all_depths.shape[1], 256)) / 100
    rows = {
        f"embedding, {size} numbers": last,
        "embedding, standardized": (last - last.mean(0)) / np.maximum(last.std(0), 1e-3),
        "embedding, 256, whitened": projected(last, last, 256, 1.0),
        "embedding, 256, half whitened": projected(last, last, 256, 0.5),
        "all depths, 256, fixed random projection": all_depths @ noise,
        "all depths, 256, not whitened": projected(all_depths, all_depths, 256, 0.0),
        "all depths, 256, half whitened": projected(all_depths, all_depths, 256, 0.5),
        "all depths, 256, whitened": projected(all_depths, all_depths, 256, 1.0),
        "all depths, 128, half whitened": projected(all_depths, all_depths, 128, 0.5),
        "all depths, 64, half whitened": projected(all_depths, all_depths, 64, 0.5),
        "embedding, 256, half whitened, elsewhere": projected(last, other[:, :size], 256, 0.5),
        "all depths, 256, half whitened, elsewhere": projected(
            all_depths, other[:, size:], 256, 0.5
        ),
    }
    print(f"{len(files)} clips, {len(values)} windows; fitted elsewhere to {len(other)} windows")
    print("| vector | precision at 10, mean of the example | each window of the example |")
    print("|---|---|---|")
    for name, vectors in rows.items():
        print(
            f"| {name} | {precision(vectors, clip, labels):.3f} "
            f"| {precision(vectors, clip, labels, True):.3f} |"
        )


if __name__ == "__main__":
    main()
