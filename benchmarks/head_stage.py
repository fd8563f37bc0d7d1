"""The head stage: `unfreeze.fit` against the same stage in plain Keras.

    python -m benchmarks.head_stage [--patches 2000] [--epochs 20]

Plain Keras computes the frozen YAMNet in every epoch, as its users write it
(base frozen, compiled, `fit`). Ours caches it once; the time of filling the
cache counts. Both train the same head from the same weights with batches of
128, Adam, and no validation, and the whole `fit` is timed.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import unfreeze
from unfreeze.audio.clip_model import patch_model
from unfreeze.backbones.registry import get_backbone


def main():
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--patches", type=int, default=2000)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    x = rng.random((chosen.patches, 96, 64), dtype=np.float32)
    y = rng.integers(0, 10, chosen.patches)
    ratios = []
    for _ in range(chosen.rounds):
        seconds = {}
        model = patch_model(get_backbone("yamnet").build(), 10, seed=0)
        began = time.perf_counter()
        for layer in model.layers:
            layer.trainable = layer.name.startswith("transfer_")
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, batch_size=128, epochs=chosen.epochs, verbose=0)
        seconds["plain Keras"] = time.perf_counter() - began

        model = patch_model(get_backbone("yamnet").build(), 10, seed=0)
        began = time.perf_counter()
        stage = unfreeze.Stage("head", train="transfer_*", epochs=chosen.epochs)
        with tempfile.TemporaryDirectory() as folder:
            unfreeze.fit(
                model, [stage], (x, y), batch_size=128, cache_dir=folder, verbose=0, seed=0
            )
        seconds["unfreeze"] = time.perf_counter() - began
        ratios.append(seconds["plain Keras"] / seconds["unfreeze"])
        print({name: round(value, 2) for name, value in seconds.items()}, flush=True)
    print(
        f"backend {keras.backend.backend()}, {chosen.patches} patches, {chosen.epochs} epochs: "
        f"{np.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
