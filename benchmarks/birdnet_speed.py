"""BirdNET in Keras against the published file in its own runtime, in one process.

`python -m benchmarks.birdnet_speed FILE [--threads N] [--rounds N] [--batch N]`: FILE is the
published TFLite file. Prints windows (3 s of sound) per second: the file in its runtime, a window
at a time, as it takes no more; ours from the samples, on batches, front end included; the network
alone; and training steps of all layers. Then the multiply-adds that the last two need, as a share
of those that a float32 matrix product of numpy does in the same time. Rounds alternate, so that
other work on the machine is in all of them; medians count: of processor time for one thread, as
that is less disturbed than the clock, else of the clock.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Rows of the square matrices that are multiplied.
SIZE = 1024
ALONE, TRAINING = "ours, network alone", "ours, training all layers"
PRODUCT = "matrix product"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    asked = parser.parse_args()
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(asked.threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    print(f"{asked.threads} threads, batches of {asked.batch}, medians of {asked.rounds} rounds")
    for line in measure(asked.file, asked.threads, asked.rounds, asked.batch):
        print(line)


def measure(file: Path, threads: int, rounds: int, batch: int) -> list[str]:
    """Windows per second of each way, and shares of the matrix product's speed."""
    import keras
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from unfreeze.audio.front_ends import patches_of
    from unfreeze.backbones import birdnet_spec
    from unfreeze.backbones.birdnet import _assign, birdnet_with_top
    from unfreeze.core.boundary import multiply_adds
    from unfreeze.core.graph import flatten
    from unfreeze.pipeline.inference import fused

    model = birdnet_with_top(weights=None)
    _assign(model, birdnet_spec.read_published(file))
    frozen = fused(model)
    runner = Interpreter(str(file), num_threads=threads)
    runner.allocate_tensors()
    given = runner.get_input_details()[0]["index"]
    sounds = np.random.default_rng(0).normal(0, 0.1, (batch, 144_000)).astype(np.float32)
    patches = np.concatenate([patches_of(sound, birdnet_spec.FRONT_END) for sound in sounds])
    truth = np.zeros((batch, birdnet_spec.CLASSES), np.float32)
    model.compile("adam", "binary_crossentropy")

    graph = flatten(model)
    work = [count for step in graph.steps if (count := multiply_adds(graph, step))]
    # Training: forward, and the gradients of weights and inputs, but the first layer's input.
    needed = {ALONE: sum(work), TRAINING: 3 * sum(work) - work[0]}
    square = np.random.default_rng(1).random((SIZE, SIZE), dtype=np.float32)

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
        ALONE: lambda: frozen.predict_on_batch(patches),
        TRAINING: lambda: model.train_on_batch(patches, truth),
        PRODUCT: lambda: [square @ square for _ in range(8)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()  # compiles
    clock = time.process_time if threads == 1 else time.perf_counter
    for _ in range(rounds):
        for name, run in ways.items():
            began = clock()
            run()
            seconds[name].append(clock() - began)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    speed = 8 * SIZE**3 / medians.pop(PRODUCT)
    lines = [f"{name:<30} {batch / took:8.1f} windows/s" for name, took in medians.items()]
    lines += [
        f"{name:<30} {count * batch / medians[name] / speed:8.2f} of the matrix product "
        f"({speed / 1e9:.0f} billion multiply-adds/s, {keras.backend.backend()})"
        for name, count in needed.items()
    ]
    return lines


if __name__ == "__main__":
    main()
