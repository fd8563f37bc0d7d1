"""What the cache of a stage gains, all told: the stage with its cache made within, and without.

    python -m benchmarks.cached_stage [--blocks 4,8,11] [--patches 1000] [--epochs 5] [--rounds 2]

YAMNet from each block up, with the head, on random patches; a quarter of them again
for validation. Both ways take turns. `saved by work` is what `cache="auto"` decides by
(`unfreeze.core.boundary.why_uncached`). Weights are random: speed does not depend on them.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import unfreeze
from unfreeze.audio.clip_model import patch_model
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.boundary import plan_stage, saved_share
from unfreeze.core.graph import flatten
from unfreeze.core.layers import select


def stage_from(block, epochs, cache):
    """A stage that trains from a block up."""
    names = ["transfer_*", *(f"block{number}_*" for number in range(block, 15))]
    return unfreeze.Stage("part", names, epochs, learning_rate=1e-4, cache=cache)


def seconds(stage, patches, classes=10):
    """Of `fit` on so many random patches, with an empty cache folder."""
    model = patch_model(get_backbone("yamnet").build(weights=None), classes, seed=0)
    rng = np.random.default_rng(0)
    x = rng.random((patches, *model.input.shape[1:]), dtype=np.float32)
    y = rng.integers(0, classes, patches)
    held = (x[: patches // 4], y[: patches // 4])
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        unfreeze.fit(
            model, [stage], (x, y), validation_data=held, batch_size=32, verbose=0, cache_dir=place
        )
        return time.perf_counter() - began


def main():
    """Measure and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--blocks", default="4,8,11")
    options.add_argument("--patches", type=int, default=1000)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--rounds", type=int, default=2)
    chosen = options.parse_args()
    graph = flatten(patch_model(get_backbone("yamnet").build(weights=None), 10, seed=0))
    print("| trains from | cache a patch | saved by work | seconds cached | not | saved |")
    print("|---|---|---|---|---|---|")
    for block in map(int, chosen.blocks.split(",")):
        plan = plan_stage(graph, select(graph, stage_from(block, chosen.epochs, "always")))
        took = {"always": [], "never": []}
        for _ in range(chosen.rounds):
            for cache, found in took.items():
                found.append(seconds(stage_from(block, chosen.epochs, cache), chosen.patches))
        saved = 1 - np.median(np.divide(took["always"], took["never"]))
        shown = [", ".join(f"{second:.0f}" for second in found) for found in took.values()]
        print(
            f"| block {block} | {plan.cache_bytes / 1024:.0f} KB "
            f"| {saved_share(plan.prefix_work, chosen.epochs):.0%} "
            f"| {shown[0]} | {shown[1]} | {saved:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
