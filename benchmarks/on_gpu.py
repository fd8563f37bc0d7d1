"""Does a GPU give the same numbers as the processor, and how much faster?

    KERAS_BACKEND=torch python -m benchmarks.on_gpu FOLDER [--data spoken-digits]

Scores of the published YAMNet on real patches, and one training run of five epochs a
stage, on each of the two, in a process of its own. Where there is no GPU, both sides
are the processor's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from benchmarks.evidence_seeds import counted, ready
from unfreeze.compare.strategies import read_strategy
from unfreeze.compare.trial import run_trial

STRATEGY = "two_stage+epochs=5"
BATCH = 512
SIDES = {"gpu": {}, "cpu": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}}


def side(folder, data, out):
    """What one of the two does: scores into a file, rates, a run."""
    material, trials = ready(folder, data, 1)
    network = material.backbone.build_published(weights=material.weights)
    view = material.store.patches(np.arange(len(material.manifest.clips)))
    patches = np.asarray(view[np.arange(len(view))])
    scores = network.predict(patches, batch_size=BATCH, verbose=0)
    began = time.perf_counter()
    network.predict(patches, batch_size=BATCH, verbose=0)
    rate = len(patches) / (time.perf_counter() - began)
    np.save(out, scores)
    record = run_trial(material, trials[0], read_strategy(STRATEGY))
    found = counted(record["scores"]["test"])
    return {
        "backend": f"{keras.backend.backend()}, Keras {keras.__version__}",
        "forward_patches_a_second": round(rate),
        "run_seconds": record["seconds"],
        "run_wall_seconds": record["wall_seconds"],
        "epochs": record["epochs"],
        "patches": record["patches"],
        "test_accuracy": round(sum(found["right"]) / sum(found["clips"]), 4),
    }


def main():
    """Run both sides, print them and how far their scores lie apart."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--data", default="spoken-digits")
    options.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.side:
        print(json.dumps(side(chosen.folder, chosen.data, chosen.side)), flush=True)
        return
    with TemporaryDirectory() as folder:
        scores = []
        for name, more in SIDES.items():
            file = Path(folder) / f"{name}.npy"
            words = [sys.executable, "-m", "benchmarks.on_gpu", *sys.argv[1:], "--side", str(file)]
            answer = subprocess.run(
                words, env={**os.environ, **more}, capture_output=True, text=True, check=False
            )
            if answer.returncode:
                sys.exit(f"{name}: {answer.stderr[-2000:]}")
            print(name, answer.stdout.splitlines()[-1], flush=True)
            scores.append(np.load(file))
        gaps = np.abs(scores[0] - scores[1])
        print(f"scores differ by at most {gaps.max():.1e}, by {gaps.mean():.1e} on average")


if __name__ == "__main__":
    main()
