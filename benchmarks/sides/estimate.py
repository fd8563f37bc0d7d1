"""The time that a run is told to take, and takes. Args: patches, head_epochs, all_epochs, policy.

Random patches, the real network, no early end, an empty cache.
"""

import time

import unfreeze
from benchmarks.sides import classic


class _Told(unfreeze.StageCallback):
    """Turns "about 1 min 20 s if no stage ends early" back into a number."""

    def __init__(self):
        super().__init__()
        self.seconds = None

    def on_note(self, text):
        if text.startswith("about "):
            words = text.removeprefix("about ").split(" if ")[0].split()
            size = {"h": 3600, "min": 60, "s": 1}
            self.seconds = sum(
                int(n) * size[unit] for n, unit in zip(words[::2], words[1::2], strict=True)
            )
            self.began = time.perf_counter()


def prepare(args):
    """One whole run a round."""
    train = classic.random_patches(args["patches"], seed=0)
    held = classic.random_patches(args["patches"] // 4, seed=1)
    stages = [
        unfreeze.Stage("head", train="transfer_*", epochs=args["head_epochs"]),
        unfreeze.Stage("all", epochs=args["all_epochs"], learning_rate=1e-4,
                       batch_norm=args["policy"]),
    ]  # fmt: skip

    def run():
        told = _Told()
        unfreeze.fit(
            *(classic.build(), stages, train),
            validation_data=held,
            seed=0,
            verbose=0,
            callbacks=[told],
        )
        took = time.perf_counter() - told.began
        return {
            "told": told.seconds,
            "took": took,
            "off": max(told.seconds / took, took / told.seconds),
        }

    return run
