"""How much of the training time goes into being able to go on after a kill.

    python -m benchmarks.checkpoint_cost DATA [--schedule two_stage] [--epochs N]

Trains on a folder of sounds as `unfreeze train` does, with a fresh run folder, and
times what is done for checkpoints after each epoch, and the writing of a stage's
record and weights before the first stage and after each. The share is that of the
stages' own time: start-up, reading and scoring are left out, which makes it larger.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def timed(spent, name, function):
    """The function, its seconds added to a list."""

    def call(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent.setdefault(name, []).append(time.perf_counter() - began)

    return call


def measure(data, **options):
    """Train; gives a row of numbers."""
    from unfreeze.backend import import_keras

    import_keras()
    import unfreeze
    from unfreeze.core import fit, run_state
    from unfreeze.core.callbacks import StageCallback

    class Stages(StageCallback):
        seconds = 0.0

        def on_stage_end(self, result):
            self.seconds += result.seconds

    spent = {"checkpoints": [], "stages": []}
    saver = run_state.Checkpointer
    kept = saver.on_epoch_end, fit.write_stage, fit.begin_or_go_back
    saver.on_epoch_end = timed(spent, "checkpoints", saver.on_epoch_end)
    fit.write_stage = timed(spent, "stages", fit.write_stage)
    fit.begin_or_go_back = timed(spent, "stages", fit.begin_or_go_back)
    stages = Stages()
    try:
        with tempfile.TemporaryDirectory() as folder:
            schedule = options.pop("schedule")
            listener = _listener(stages)
            settings = unfreeze.TrainOptions(data, schedule, Path(folder) / "run", **options)
            unfreeze.SoundClassifier.from_options(settings, listener)
    finally:
        saver.on_epoch_end, fit.write_stage, fit.begin_or_go_back = kept
    written = sum(map(sum, spent.values()))
    # A stage's own seconds hold its checkpoints; its record comes after them.
    training = stages.seconds + sum(spent["stages"])
    return {
        "training_seconds": round(training, 2),
        "epochs": len(spent["checkpoints"]),
        "checkpoint_seconds": round(sum(spent["checkpoints"]), 3),
        "checkpoint_share": round(sum(spent["checkpoints"]) / training, 4),
        "stage_records": len(spent["stages"]),
        "stage_record_seconds": round(sum(spent["stages"]), 3),
        "share": round(written / training, 4),
    }


def _listener(stages):
    from unfreeze.pipeline.training import TrainListener

    class Listener(TrainListener):
        def on_stage_end(self, result):
            stages.on_stage_end(result)

    return Listener()


def main():
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--schedule", default="two_stage")
    options.add_argument("--epochs", type=int)
    chosen = options.parse_args()
    row = measure(chosen.data, schedule=chosen.schedule, epochs=chosen.epochs)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
