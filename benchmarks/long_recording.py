"""Events in a long recording whose truth is known: how many are found, how fast, in what memory.

    python -m benchmarks.long_recording DATA RUN [--minutes 120] [--part test] [--out FOLDER]

RUN was trained on DATA (`unfreeze train DATA --out RUN`). Clips of its test part,
which it has not seen, are pasted into pink noise (`benchmarks.sides.paste_sounds`)
and sought again. Events of a class named `background` count as nothing heard.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.event_scores import COLLAR, event_scores, false_alarms
from benchmarks.sides.paste_sounds import write_recording
from unfreeze.files import write_json
from unfreeze.pipeline import run_folder

BACKGROUND = "background"


def clips_of(data, run, part):
    """(file, label) of the clips of one part of a run's split."""
    with (Path(run) / run_folder.SPLITS).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    return [(Path(data) / r["path"], r["label"]) for r in rows if r["label"] != BACKGROUND]


def detect(run, recording, cores, **options):
    """Run `benchmarks.sides.detect`; gives what it prints."""
    words = [sys.executable, "-m", "benchmarks.sides.detect", run, recording, cores]
    done = subprocess.run(
        [*map(str, words), json.dumps(options)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def scored(truth, result, min_score=0.0):
    """Scores of the events of a result that are not background."""
    found = [e[:3] for e in result["events"] if e[2] != BACKGROUND and e[3] >= min_score]
    confused, nothing = false_alarms(truth, found)
    return {
        "true_events": len(truth),
        "found_events": len(found),
        "another_class": confused,
        "no_event": nothing,
        **event_scores(truth, found),
    }


def main():
    """Make the recordings, find the events, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("run", type=Path)
    options.add_argument("--minutes", type=float, default=120)
    options.add_argument("--part", default="test")
    options.add_argument("--snr", type=float, default=20.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--cores", default="1,2")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    folder = chosen.out or Path(tempfile.mkdtemp())
    clips = clips_of(chosen.data, chosen.run, chosen.part)
    how = {"seed": chosen.seed, "snr_db": chosen.snr}
    long, short = folder / "long.wav", folder / "short.wav"
    truth = write_recording(long, clips, minutes=chosen.minutes, **how)
    write_recording(short, clips, minutes=chosen.minutes / 12, **how)
    report = {"minutes": chosen.minutes, "snr_db": chosen.snr, "seed": chosen.seed, "speed": {}}
    for cores in map(int, chosen.cores.split(",")):
        small, large = (detect(chosen.run, path, cores) for path in (short, long))
        report["speed"][cores] = {
            "times_real_time": large["sound_seconds"] / large["seconds"],
            "times_real_time_by_cpu": large["sound_seconds"] / large["cpu_seconds"],
            "peak_mib_short": small["peak_mib"],
            "peak_mib_long": large["peak_mib"],
        }
        print(f"{cores} cores:", json.dumps(report["speed"][cores]), flush=True)
    report["default"] = scored(truth, large)
    for least in (0.7, 0.9, 0.95):
        report[f"events of at least {least}"] = scored(truth, large, least)
    strict = detect(chosen.run, long, cores, smooth=True)
    report["smooth"] = scored(truth, strict)
    report["smooth, events of at least 0.9"] = scored(truth, strict, 0.9)
    print(f"{'':32}true found  overlap r/p     IoU r/p         onset {COLLAR} s r/p  confused none")
    for name, row in report.items():
        if isinstance(row, dict) and "overlap" in row:
            cells = [f"{row[k]['recall']:.3f}/{row[k]['precision']:.3f}" for k in
                     ("overlap", "iou", "onset")]  # fmt: skip
            print(
                f"{name:32}{row['true_events']:4} {row['found_events']:5}  {'     '.join(cells)}"
                f"     {row['another_class']} {row['no_event']}"
            )
    write_json(folder / "report.json", report)


if __name__ == "__main__":
    main()
