"""Work spread over cores and over Ray: the same work, each way in turn.

python -m benchmarks.spread features DATA [--rounds 5] [--times 10]
python -m benchmarks.spread search RUN RECORDINGS [--rounds 3]

`features`: files to frames with one core, with two threads, with two processes, and (--ray) with
two Ray workers. DATA holds `animal-sounds` (clips of seconds) and `spoken-digits` (half a second);
each file is copied `--times` times, so that the start of processes does not decide. `search`: the
events of recordings, with this machine's own engine and with Ray workers.

Ratios are taken round by round, with the processor time of all processes beside them: on a
machine that does other work, the seconds say little.
"""

import argparse
import hashlib
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.sides import copy_sounds
from unfreeze.audio import feature_store
from unfreeze.audio.cluster import Cluster
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.frontend import FrontEnd

ONE, THREADS, PROCESSES, RAY = "one core", "two threads", "two processes", "two Ray workers"


def processor_seconds() -> float:
    """Of this process and those of its children that have ended."""
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(who)[:2]) for who in of)


def copied(data: Path, place: Path, times: int) -> Path:
    """A data set with each file several times."""
    rows = ["path,label"]
    for number in range(times):
        copy_sounds.prepare({"data": data, "out": place / str(number)})()
        own = (place / str(number) / "manifest.csv").read_text().splitlines()[1:]
        rows += [f"{number}/{row}" for row in own]
    (place / "manifest.csv").write_text("\n".join(rows) + "\n")
    return place


def features(data: Path, rounds: int, times: int, ray: bool) -> None:
    """Time files to frames, and compare the bytes."""
    cores = os.sched_getaffinity(0)
    two = set(sorted(cores)[:2])
    ways = [ONE, THREADS, PROCESSES, *([RAY] if ray else [])]
    for name in ("animal-sounds", "spoken-digits"):
        with tempfile.TemporaryDirectory() as folder:
            manifest = read_manifest(copied(data / name, Path(folder), times) / "manifest.csv")
            if ray:
                start_ray(2)
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            digests = set()
            for _ in range(rounds):
                for way in ways:
                    seconds, used, digest = frames(manifest, way, cores, two)
                    found[way].append((seconds, used))
                    digests.add(digest)
            assert len(digests) == 1, "the ways differ"
            report(name, f"{len(manifest.clips)} clips", found)


def frames(manifest, way, cores, two):
    """Seconds, processor seconds, and the digest of the frames."""
    worth = feature_store.are_worth
    os.sched_setaffinity(0, {min(two)} if way == ONE else two if way != RAY else cores)
    if way == THREADS:
        feature_store.are_worth = lambda *_: False
    try:
        with tempfile.TemporaryDirectory() as place:
            began, used = time.perf_counter(), processor_seconds()
            build_store(
                manifest,
                FrontEnd(),
                place,
                workers=1 if way == ONE else 2,
                cluster=Cluster() if way == RAY else None,
            )
            seconds, used = time.perf_counter() - began, processor_seconds() - used
            with (Path(place) / "frames.f32").open("rb") as file:
                return seconds, used, hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        feature_store.are_worth = worth
        os.sched_setaffinity(0, cores)


def start_ray(cores: int) -> None:
    """Ray on this machine, once for all rounds."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False)


def search(run: Path, recordings: Path, rounds: int) -> None:
    """Time the events of recordings, and compare them."""
    import unfreeze
    from unfreeze.detection.recordings import find_recordings

    files = [item.path for item in find_recordings([recordings], recursive=True)]
    classifier = unfreeze.SoundClassifier.load(run)
    start_ray(len(os.sched_getaffinity(0)))
    found: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    for _ in range(rounds):
        events = {}
        for way, cluster in (("local", None), ("ray", Cluster())):
            began, used = time.perf_counter(), processor_seconds()
            all_found = list(classifier.detect_files(files, cluster=cluster))
            found[way].append((time.perf_counter() - began, processor_seconds() - used))
            events[way] = {
                one.number: [(e.start, e.end, e.label, e.score) for e in one.events]
                for one in all_found
            }
        same = events["local"].keys() == events["ray"].keys()
        apart = 0.0
        for number, mine in events["local"].items():
            theirs = events["ray"][number]
            same = same and [e[:3] for e in mine] == [e[:3] for e in theirs]
            apart = max([apart, *(abs(a[3] - b[3]) for a, b in zip(mine, theirs, strict=False))])
        print(f"the same events: {same}; scores apart by {apart:.1e}")
    report("search", f"{len(files)} recordings", found)


def report(name: str, what: str, found: dict[str, list[tuple[float, float]]]) -> None:
    """One row for each way, against the first."""
    print(f"{name}, {what}; load {os.getloadavg()[0]:.1f}")
    (first, base), *_ = found.items()
    for way, rows in found.items():
        ratios = [a[0] / b[0] for a, b in zip(base, rows, strict=True)]
        seconds, used = (statistics.median(row[i] for row in rows) for i in (0, 1))
        print(
            f"  {way:16} {seconds:7.2f} s, processor {used:7.2f} s; {first} / this: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("features", "search"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--ray", action="store_true")
    asked = parser.parse_args()
    if asked.what == "features":
        features(asked.paths[0], asked.rounds, asked.times, asked.ray)
    else:
        search(*asked.paths, asked.rounds)


if __name__ == "__main__":
    main()
