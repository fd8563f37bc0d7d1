"""Copies the recordings that all sides of `features` read. Args: data, out.

Only files that can be used, at a usual sample rate: the time that a resampler
takes for 22,254 Hz tells nothing about the others.
"""

import csv
import json
import shutil
from pathlib import Path

from unfreeze.audio.manifest import read_manifest

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def prepare(args):
    """Writes the files, a manifest for us, and a list for the others."""

    def run():
        out = Path(args["out"])
        (out / "sounds").mkdir(parents=True)
        clips = [c for c in read_manifest(args["data"]).clips if c.sample_rate in RATES]
        rows = [("path", "label")]
        for number, clip in enumerate(clips):
            name = f"sounds/{number:05}{clip.path.suffix}"
            shutil.copyfile(clip.path, out / name)
            rows.append((name, clip.label))
        with (out / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        seconds = sum(clip.seconds for clip in clips)
        found = {"files": [str(out / name) for name, _ in rows[1:]], "seconds": seconds}
        (out / "files.json").write_text(json.dumps(found))
        return {"files": len(clips)}

    return run
