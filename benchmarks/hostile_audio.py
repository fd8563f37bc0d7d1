"""Hostile recordings through the road of real ones: none may end, hang or fill the process.

    python -m benchmarks.hostile_audio --out DIR [--files 1000] [--seed 0]

Writes the corpus of `benchmarks.hostile_corpus` to DIR/corpus, with odd names, links in
circles and pipes among it. Then reads it three times as the package does: as
`unfreeze inspect` and `train` check recordings, as `train` computes the features of
those that passed, and as `predict` decodes recordings for events; the network in the
last is a constant, as no sound reaches one. DIR/report.json has a row a file.

The exit code is 1 when a file has no named cause, fails in a way that the package
did not foresee, or all takes longer than --limit seconds; a crash would show itself.
"""

import argparse
import faulthandler
import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.hostile_corpus import encoded, traps, write_corpus
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import build_manifest, examine_source
from unfreeze.audio.sources import find_source
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.recordings import find_recordings
from unfreeze.detection.scan import Ended, scan_files
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import DataError, show
from unfreeze.files import write_json

UNFORESEEN = "unexpected error"
_SHOWN = 8


class Timed(Decoders):
    """Decodes one file at a time and notes how long each took."""

    def __init__(self):
        super().__init__()
        self.seconds = {}

    def examine(self, files):
        judged = []
        for path, name in files:
            began = time.perf_counter()
            judged += super().examine([(path, name)])
            self.seconds[path] = time.perf_counter() - began
        return judged

    @contextmanager
    def waveform(self, path, resampler, **options):
        began = time.perf_counter()
        try:
            with super().waveform(path, resampler, **options) as sound:
                yield sound
        finally:
            self.seconds[path] = time.perf_counter() - began


class Memory(threading.Thread):
    """Notes the largest resident memory of this process' children, in MiB.

    Not by `getrusage`: that counts a child from its fork on, when it has our pages.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self):
        while True:
            time.sleep(0.02)
            for task in Path("/proc/self/task").iterdir():
                try:
                    for child in (task / "children").read_text().split():
                        self._look(Path("/proc") / child)
                except OSError:
                    continue  # it has ended

    def _look(self, process):
        # Before its exec it is a copy of us.
        if b"unfreeze.audio.decode_worker" in (process / "cmdline").read_bytes():
            said = (process / "status").read_text()
            high = next((x for x in said.splitlines() if x.startswith("VmHWM")), "VmHWM: 0 kB")
            self.peak = max(self.peak, int(high.split()[1]) / 1024)


def own_peak():
    """The most memory that this process had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Constant:
    """Stands for a network."""

    def predict_on_batch(self, patches):
        return np.full((len(patches), 2), 0.5, np.float32)


def odd_names(folder):
    """Write harmless sounds under odd names, and links and pipes that are none."""
    sound = encoded("FLAC", "PCM_16", seed=7)
    names = [b"new\nline.flac", b"not-utf8-\xff\xfe.flac", b"-rf.flac", b"tab\tbell\a.flac",
             b"\xe2\x80\xaeright-to-left.flac", b"x" * 240 + b".flac", b"$(reboot);`a`'\".flac",
             b"[red]rich.flac", b"100%s %d{}.flac", b"\x1b[2J.flac"]  # fmt: skip
    for number, name in enumerate(names):
        (folder / "hum" / os.fsdecode(name)).write_bytes(sound + bytes(number))
    links = {"loop-a.wav": "loop-b.wav", "loop-b.wav": "loop-a.wav", "self.wav": "self.wav",
             "dangling.wav": "nowhere.wav", "up": "..", "here": "."}  # fmt: skip
    for name, target in links.items():
        (folder / "tone" / name).symlink_to(target)
    os.mkfifo(folder / "tone" / "pipe.wav")
    locked = folder / "tone" / "locked.flac"
    locked.write_bytes(sound + b"locked")
    locked.chmod(0)


def check_training(folder, timed):
    """Read as `inspect` and `train` do; gives rows and the manifest."""
    source = find_source(folder)
    good, problems = examine_source(source, decoders=timed)
    told = {}
    for problem in problems:
        told.setdefault(problem.path, []).append(problem)
    rows = []
    used = {entry.path for entry, _ in good}
    for entry in source.entries:
        fatal = [p for p in told.get(entry.name, ()) if p.fatal]
        row = {"file": show(entry.name), "seconds": timed.seconds[entry.path]}
        if entry.path in used:
            rows.append({**row, "outcome": "read", "cause": ""})
        else:
            outcome = fatal[0].rule if fatal else "without a cause"
            cause = "; ".join(p.cause for p in fatal)
            rows.append({**row, "outcome": outcome, "cause": cause})
    for note in source.notes:
        row = {"file": show(note.path), "seconds": 0.0, "outcome": note.rule}
        rows.append({**row, "cause": note.cause})
    return rows, build_manifest(source.root, source.labels, good, problems, max_bad=1.0)


def check_prediction(folder, front_end, timed):
    """Read as `predict` does for events; gives rows."""
    recordings = find_recordings([folder], recursive=True)
    paths = [recording.path for recording in recordings]
    rows, heard = [], Counter()
    items = scan_files(Constant(), front_end, paths, front_end.patch_hop, decoders=timed)
    for number, item in items:
        if isinstance(item, ScoreBlock):
            heard[number] += len(item.starts)
        if isinstance(item, Ended):
            error = item.error
            outcome = "read" if error is None else getattr(error, "rule", "without a cause")
            if error is None and not heard[number]:
                outcome = "without a cause"
            row = {"file": show(recordings[number].name), "seconds": timed.seconds[paths[number]]}
            rows.append({**row, "outcome": outcome, "cause": "" if error is None else str(error)})
    return rows, len(paths)


def defects(rows):
    """The rows that the package should not let happen."""
    return [
        row
        for row in rows
        if row["outcome"] == "without a cause" or UNFORESEEN in row["cause"]
        or (row["outcome"] != "read" and not row["cause"])
    ]  # fmt: skip


def lost(folder, rows):
    """Files that the check of training data says nothing about."""
    told = {row["file"] for row in rows}
    there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {show(path.relative_to(folder)) for path in there}
    return [{"file": name, "outcome": "without a cause", "cause": ""} for name in names - told]


def unexpected(rows):
    """Traps that the check of training data does not name as it should."""
    wanted = {trap.name: trap.causes for trap in traps() if trap.causes}
    found = {Path(row["file"]).name: row for row in rows}
    return [
        {**found[name], "cause": f"should be one of {causes}: {found[name]['cause']}"}
        for name, causes in wanted.items()
        if name in found and found[name]["outcome"] not in causes
    ]


def summary(rows):
    """Counts by outcome and the slowest file."""
    slowest = max(rows, key=lambda row: row["seconds"])
    return {
        "files": len(rows),
        "outcomes": dict(Counter(row["outcome"] for row in rows).most_common()),
        "worker_died": dict(
            Counter(row["cause"] for row in rows if row["outcome"] == "harmful").most_common()
        ),
        "slowest": {key: slowest[key] for key in ("file", "seconds", "outcome")},
    }


def main():
    """Make the corpus, read it, report."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--files", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--limit", type=float, default=3600.0)
    options.add_argument("--light", action="store_true", help="without what takes seconds to read")
    chosen = options.parse_args()
    faulthandler.dump_traceback_later(chosen.limit, exit=True)
    corpus, front_end = chosen.out / "corpus", FrontEnd()
    made = write_corpus(corpus, chosen.files, chosen.seed, heavy=not chosen.light)
    odd_names(corpus)
    report = {"written": len(made), "seed": chosen.seed}
    report["peak_mib"] = {"process_before": own_peak()}
    memory, bad = Memory(), []
    memory.start()

    began = time.perf_counter()
    with Timed() as timed:
        rows, manifest = check_training(corpus, timed)
    report["training"] = {**summary(rows), "took_seconds": time.perf_counter() - began}
    report["peak_mib"]["after_training"] = own_peak()
    bad += defects(rows) + unexpected(rows) + lost(corpus, rows)
    began = time.perf_counter()
    try:
        store = build_store(manifest, front_end, chosen.out / "store")
        report["features"] = {"clips": store.clips, "took_seconds": time.perf_counter() - began}
    except DataError as error:
        bad.append({"file": "the feature store", "outcome": "refused", "cause": str(error)})
    report["peak_mib"]["after_features"] = own_peak()
    began = time.perf_counter()
    with Timed() as timed:
        predicted, expected = check_prediction(corpus, front_end, timed)
    report["prediction"] = {**summary(predicted), "took_seconds": time.perf_counter() - began}
    bad += defects(predicted)
    if len(predicted) != expected:
        name = f"{expected - len(predicted)} recordings"
        bad.append({"file": name, "outcome": "without a cause", "cause": "lost"})
    report["peak_mib"] |= {"process": own_peak(), "largest_worker": memory.peak}
    if os.geteuid() == 0:
        report["note"] = "run as root, for whom locked.flac is open"
    print(json.dumps(report, indent=2))
    for row in bad[:50]:
        print("BAD", json.dumps(row))
    report |= {"bad": bad, "rows": {"training": rows, "prediction": predicted}}
    write_json(chosen.out / "report.json", report)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
