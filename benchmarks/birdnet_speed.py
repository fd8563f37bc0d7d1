"""BirdNET in Keras against the published file in its own runtime, in one process.

`python -m benchmarks.birdnet_speed FILE [--threads N] [--windows N]`: FILE is the published
TFLite file. Prints windows (3 s of sound) per second: the file in its runtime, a window at a
time, as it takes no more; ours from the samples, on batches, front end included; the network
alone; and training steps of all layers. Rounds alternate, so that other work on the machine
is in all of them; medians count.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(asked.threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    print(f"{asked.threads} threads, batches of {BATCH}, medians of {asked.rounds} rounds")
    for name, rate in measure(asked.file, asked.threads, asked.rounds).items():
        print(f"{name:<42} {rate:8.1f} windows/s")


def measure(file: Path, threads: int, rounds: int) -> dict[str, float]:
    """Windows per second of each way."""
    import keras
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from unfreeze.audio.front_ends import patches_of
    from unfreeze.backbones import birdnet_spec
    from unfreeze.backbones.birdnet import _assign, birdnet_with_top
    from unfreeze.pipeline.inference import fused

    model = birdnet_with_top(weights=None)
    _assign(model, birdnet_spec.read_published(file))
    frozen = fused(model)
    runner = Interpreter(str(file), num_threads=threads)
    runner.allocate_tensors()
    given = runner.get_input_details()[0]["index"]
    sounds = np.random.default_rng(0).normal(0, 0.1, (BATCH, 144_000)).astype(np.float32)
    patches = np.concatenate([patches_of(sound, birdnet_spec.FRONT_END) for sound in sounds])
    truth = np.zeros((BATCH, birdnet_spec.CLASSES), np.float32)
    model.compile("adam", "binary_crossentropy")

    def published() -> None:
        for sound in sounds:
            runner.set_tensor(given, sound[None])
            runner.invoke()

    def whole() -> None:
        made = [patches_of(sound, birdnet_spec.FRONT_END) for sound in sounds]
        frozen.predict_on_batch(np.concatenate(made))

    ways: dict[str, Callable[[], object]] = {
        "published file, its runtime": published,
        "ours, from samples": whole,
        "ours, network alone": lambda: frozen.predict_on_batch(patches),
        f"ours, training all ({keras.backend.backend()})": lambda: model.train_on_batch(
            patches, truth
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()  # compiles
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: BATCH / float(np.median(times)) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
