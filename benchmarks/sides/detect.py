"""Finds the events of a recording, in a process of its own; prints JSON.

    python -m benchmarks.sides.detect RUN RECORDING CORES [HOP] [SMOOTH] [MIN_SCORE]

Time is that of `detect` alone, after a first one on ten seconds; the peak of
memory is the whole process'.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path


def main():
    run, recording, cores = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    # Before the backend is imported, which counts the cores that it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import numpy as np
    import soundfile

    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.classifier import SoundClassifier

    classifier = SoundClassifier.load(run)
    with tempfile.TemporaryDirectory() as folder:
        # Patches enough for each size of batch.
        for seconds in (1, 10, 130):
            short = Path(folder) / f"{seconds}.wav"
            soundfile.write(short, np.zeros(seconds * 16_000), 16_000)
            classifier.detect(short)
    began, cpu = time.perf_counter(), time.process_time()
    events = classifier.detect(recording, **options)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "sound_seconds": soundfile.info(recording).duration,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "events": [[e.start, e.end, e.label, e.score] for e in events],
            }
        )
    )


if __name__ == "__main__":
    main()
