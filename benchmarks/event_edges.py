"""How far the starts and ends of found events lie from the true ones, and what a finer hop costs.

    python -m benchmarks.event_edges DATA RUN [--minutes 30] [--hops 0.48,0.24,0.12,0.06]

RUN was trained on DATA (`unfreeze train DATA --out RUN`, best with `--background`). Clips of
its test part are pasted into pink noise (`benchmarks.sides.paste_sounds`) and sought again.
An event counts where some of its class overlap it: the first start and the last end of
these are compared with its own. Seconds are those of the search, by the clock.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.event_scores import event_scores
from benchmarks.long_recording import BACKGROUND, clips_of
from benchmarks.sides.paste_sounds import write_recording


def edge_errors(truth, found):
    """Seconds from the true start and end to the found ones, (n, 2): below 0 is early."""
    rows = []
    for start, end, label in truth:
        near = [(b, e) for b, e, name in found if name == label and b < end and e > start]
        if near:
            rows.append((min(b for b, _ in near) - start, max(e for _, e in near) - end))
    return np.array(rows).reshape(-1, 2)


def main():
    """Make the recording, find the events at each hop, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("run", type=Path)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--snr", type=float, default=20.0)
    options.add_argument("--hops", default="0.48,0.24,0.12,0.06")
    chosen = options.parse_args()
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.classifier import SoundClassifier

    classifier = SoundClassifier.load(chosen.run)
    clips = clips_of(chosen.data, chosen.run, "test")
    print("| hop | start: median, of absolute | end | found | IoU: recall, precision | s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        truth = write_recording(path, clips, minutes=chosen.minutes, snr_db=chosen.snr)
        # The network compiles for each size of batch.
        classifier.detect(path)
        for hop in map(float, chosen.hops.split(",")):
            began = time.perf_counter()
            events = classifier.detect(path, hop=hop)
            seconds = time.perf_counter() - began
            found = [(e.start, e.end, e.label) for e in events if e.label != BACKGROUND]
            errors = edge_errors(truth, found)
            middle, size = np.median(errors, axis=0), np.median(np.abs(errors), axis=0)
            iou = event_scores(truth, found)["iou"]
            cells = [f"{middle[k]:+.2f}, {size[k]:.2f}" for k in (0, 1)]
            cells += [f"{len(errors)} of {len(truth)}"]
            cells += [f"{iou['recall']:.2f}, {iou['precision']:.2f}", f"{seconds:.0f}"]
            print(f"| {hop:g} s | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
