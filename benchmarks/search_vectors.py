"""Which vector of a window finds clips of the same class best, without any training.

    python -m benchmarks.search_vectors FOLDER [--backbone yamnet]

FOLDER holds `animal-sounds` and `spoken-digits`, as for `benchmarks.evidence`. Each clip of
`animal-sounds` is the example once: the mean of its windows' vectors, or each of them, is compared
with the windows of all other clips, and of the ten clips with the best windows, those of its own
class are counted. Projections are fitted to these recordings, or to `spoken-digits`. The table
in docs/search.md is what this prints.
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


def fixed(values, components):
    """Projected on directions at right angles that are drawn at random, as an index does."""
    shape = values.shape[1], components
    columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=shape))
    return values @ columns


def principal(values, fitted_to, components):
    """Principal components, neither standardized nor whitened."""
    middle = fitted_to.mean(axis=0)
    directions = np.linalg.svd(fitted_to - middle, full_matrices=False)[2]
    return (values - middle) @ directions[:components].T


def candidates(last, depths, other_last, other_depths):
    """The vectors that are compared, by what they are called."""
    size = last.shape[1]
    standard = (last - last.mean(axis=0)) / np.maximum(last.std(axis=0), 1e-3)
    return {
        f"embedding, {size} numbers": last,
        "embedding, 256, fixed random projection": fixed(last, 256),
        "embedding, 512, fixed random projection": fixed(last, 512),
        "embedding, standardized": standard,
        "embedding, 256, principal components": principal(last, last, 256),
        "the same, fitted to spoken digits": principal(last, other_last, 256),
        "embedding, 256, whitened": projected(last, last, 256, 1.0),
        f"all depths, {depths.shape[1]} numbers": depths,
        "all depths, 256, half whitened (a read-out)": projected(depths, depths, 256, 0.5),
        " the same, fitted to spoken digits": projected(depths, other_depths, 256, 0.5),
        "all depths, 64, half whitened": projected(depths, depths, 64, 0.5),
        "all depths, 256, whitened": projected(depths, depths, 256, 1.0),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="yamnet")
    args = parser.parse_args()
    backbone = get_backbone(args.backbone)
    model = new_model(backbone, resolve_weights(backbone.weights), 1, 0, augment="none")
    embedding = backbone.build(weights=resolve_weights(backbone.weights))
    both = [embedding(model.input), projection_of(model).input]
    reader = fused(keras.Model(model.input, keras.layers.Concatenate()(both)))
    size = embedding.output.shape[-1]
    files = sorted((args.folder / "animal-sounds").glob("*/*.*"))
    labels = np.array([file.parent.name for file in files])
    values, clip = windows_of(files, reader, backbone.front_end)
    elsewhere = sorted((args.folder / "spoken-digits").rglob("*.wav"))[::2]
    other, _ = windows_of(elsewhere, reader, backbone.front_end)
    print(f"{len(files)} clips, {len(values)} windows; {len(other)} windows of spoken digits")
    print("| vector | mean of the example | each window of the example |")
    print("|---|---|---|")
    rows = candidates(values[:, :size], values[:, size:], other[:, :size], other[:, size:])
    for name, vectors in rows.items():
        print(
            f"| {name.strip()} | {precision(vectors, clip, labels):.3f} "
            f"| {precision(vectors, clip, labels, True):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
